"""The reference executor agrees with PyTorch, by way of the test suite's own interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import interpret
from networks import CONTEXT, LIBRARY, Network, networks
from torch.nn import functional
from torch_mlir import ir

from patc.codegen import reference
from patc.codegen.reference import execute
from patc.diagnostics import PatcError
from patc.dialects.attributes import Library
from patc.parameters import ParameterStore
from patc.passes.ir.windows import Window

ADD_ONE = """
#map = affine_map<(d0) -> (d0)>
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %one = arith.constant 1.0 : f32
  %y = linalg.generic {indexing_maps = [#map], iterator_types = ["parallel"]} outs(%x : tensor<4xf32>) {
  ^bb0(%out: f32):
    %s = arith.addf %out, %one : f32
    linalg.yield %s : f32
  } -> tensor<4xf32>
  return %y : tensor<4xf32>
}
"""


def parse(text: str) -> ir.Module:
    return ir.Module.parse(text, CONTEXT)


# How loops are compiled.


@pytest.mark.parametrize(
    ("loops", "turns"),
    [
        ("scf.for %i = %c0 to %c10 step %c3 {}", 4),
        ("scf.for %i = %c0 to %c10 step %c1 { scf.for %j = %c3 to %c10 step %c1 {} scf.for %k = %c0 to %c3 step %c1 {} }", 100),
        ("scf.if %yes { scf.for %i = %c0 to %c10 step %c1 {} }", 10),
        ("scf.for %i = %c10 to %c0 step %c1 {}", 0),
        ("scf.for %i = %c0 to %n step %c1 {}", np.inf),
        ("scf.for %i = %c0 to %c10 step %c1 { scf.for %j = %c0 to %n step %c1 {} }", np.inf),
        ("scf.parallel (%i) = (%c0) to (%c10) step (%c1) { scf.reduce }", np.inf),
        ("scf.while : () -> () { scf.condition(%yes) } do { scf.yield }", np.inf),
    ],
)  # fmt: skip
def test_turns_of_loops(loops: str, turns: float) -> None:
    constants = "\n".join(f"%c{number} = arith.constant {number} : index" for number in (0, 1, 3, 10))
    module = parse(f"func.func @main(%n: index, %yes: i1) {{ {constants} {loops}\n return }}")
    with CONTEXT:
        assert reference._turns(module.operation) == turns


@pytest.mark.parametrize("most", [0, 1])
def test_optimised_loops_compute_the_same(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "_MANY_TURNS", 10 * most)
    found = execute(parse(ADD_ONE), None, [np.arange(4, dtype=np.float32)])
    np.testing.assert_array_equal(found[0], [1, 2, 3, 4])


# Meaning.


@settings(max_examples=15, deadline=None)
@given(networks())
def test_networks(drawn: tuple[Network, ir.Module, np.ndarray]) -> None:
    network, module, x = drawn
    wanted = interpret(module, network.parameters, [x])
    assert_close(execute(module, network.parameters, [x]), wanted)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    batch, channels, filters = (data.draw(st.integers(1, 3)) for _ in range(3))
    groups = data.draw(st.sampled_from([1, 1, 2, 3]))
    kernel, strides, dilations = data.draw(pairs), data.draw(pairs), data.draw(pairs)
    pads = data.draw(st.tuples(*[st.integers(0, 2)] * 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    network = Network((batch, channels * groups, 9, 8))
    weight = rng.standard_normal((filters * groups, channels, *kernel))
    bias = rng.standard_normal(filters * groups) if data.draw(st.booleans()) else None
    activation = data.draw(st.sampled_from(['"none"', '"relu"', "#pattern.clamp<-0.5 : f32, 1.5 : f32>"]))
    geometry: dict[str, Any] = {"strides": strides, "pads": pads, "dilations": dilations, "groups": groups}
    result = network.conv(network.input, weight, bias, activation=activation, **geometry)
    if data.draw(st.booleans()):
        result = network.conv(network.input, weight, bias, result, activation=activation, **geometry)
    x = rng.standard_normal(network.input_shape, np.float32)
    module = network.build(result)
    assert_close(execute(module, network.parameters, [x]), interpret(module, network.parameters, [x]))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_sparse_convolutions(data: st.DataObject) -> None:
    """FKW arrays at random, such that no encoder would make: empty filters, a channel twice, mixed order."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    filters, channels = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    library = Library((3, 3), tuple(rng.choice(LIBRARY, size=data.draw(st.integers(1, 4)), replace=False)))
    counts = rng.integers(0, 3, size=(filters, len(library.masks)))
    pattern_offsets = np.concatenate([np.zeros((filters, 1), int), counts.cumsum(axis=1)], axis=1)
    offset = np.concatenate([[0], counts.sum(axis=1).cumsum()])
    kept = int(offset[-1])
    values = rng.standard_normal((kept, 4), np.float32)
    index, reorder = rng.integers(0, channels, kept), rng.permutation(filters)

    weight = np.zeros((filters, channels, 3, 3))
    for stored in range(filters):
        for pattern in range(len(library.masks)):
            for kernel in range(
                offset[stored] + pattern_offsets[stored, pattern], offset[stored] + pattern_offsets[stored, pattern + 1]
            ):
                for entry, (dy, dx) in enumerate(library.taps(pattern)):
                    weight[reorder[stored], index[kernel], dy, dx] += values[kernel, entry]

    x = rng.standard_normal((2, channels, 6, 5), np.float32)
    bias = rng.standard_normal(filters, np.float32)
    arrays = {
        "values": values,
        "index": index.astype(np.int16),
        "offset": offset.astype(np.int32),
        "pattern_offsets": pattern_offsets.astype(np.int16),
        "reorder": reorder.astype(np.int16),
        "bias": bias,
    }
    module = sparse_module(library, arrays, x.shape, (2, filters, 3, 5))
    wanted = functional.conv2d(
        torch.from_numpy(x).double(), torch.from_numpy(weight), torch.from_numpy(bias).double(), (2, 1), 1
    )
    assert_close(execute(module, ParameterStore(arrays), [x]), [wanted.numpy()])


def sparse_module(
    library: Library, arrays: dict[str, np.ndarray], shape: tuple[int, ...], result: tuple[int, ...]
) -> ir.Module:
    """Return a module of one sparse convolution of strides 2 x 1 and pads of one."""

    def type_of(shape: tuple[int, ...], element: str = "f32") -> str:
        return f"tensor<{'x'.join(map(str, (*shape, element)))}>"

    elements = {np.float32: "f32", np.int16: "i16", np.int32: "i32"}
    types = {name: type_of(array.shape, elements[array.dtype.type]) for name, array in arrays.items()}
    parameters = [f'%{name} = "pattern.parameter"() {{name = "{name}"}} : () -> {types[name]}' for name in arrays]
    masks = ", ".join(map(str, library.masks))
    return parse(f"""
        func.func @main(%x: {type_of(shape)}) -> {type_of(result)} {{
          {chr(10).join(parameters)}
          %y = "pattern.sparse_conv2d"(%x, {", ".join(f"%{name}" for name in arrays)}) {{activation = "none",
            dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: {masks}>>,
            operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 1, 0>, pads = array<i64: 1, 1, 1, 1>,
            strides = array<i64: 2, 1>}} : ({type_of(shape)}, {", ".join(types.values())}) -> {type_of(result)}
          return %y : {type_of(result)}
        }}""")


def test_a_window_knows_what_it_covers() -> None:
    window = Window((2, 3), strides=(1, 2), pads=(1, 0, 0, 1), dilations=(1, 2))
    assert window.result_size((3, 6)) == (3, 2)
    assert window.taps_inside((3, 6)).tolist() == [[3, 2], [6, 4], [6, 4]]


def test_a_window_drops_padding_that_it_does_not_need() -> None:
    window = Window((2, 2), strides=(2, 2), pads=(0, 0, 3, 1))
    assert window.with_result_size((4, 3), (3, 2)) == Window((2, 2), (2, 2), pads=(0, 0, 3, 1))
    assert window.with_result_size((4, 3), (2, 2)) == Window((2, 2), (2, 2), pads=(0, 0, 0, 1))
    assert window.with_result_size((4, 3), (1, 2)) is None
    assert window.with_result_size((4, 3), (4, 2)) is None


# Running.


def test_nothing_given_changes() -> None:
    network = Network((1, 2, 4, 4))
    module = network.build(network.conv(network.input, np.ones((3, 2, 3, 3))))
    text, names = str(module), set(network.parameters)
    x = np.ones((1, 2, 4, 4), np.float32)
    execute(module, network.parameters, [x])
    assert str(module) == text and set(network.parameters) == names and (x == 1).all()


def test_a_parameter_that_does_not_fit() -> None:
    module = parse("""
        func.func @main() -> tensor<2xf32> {
          %w = "pattern.parameter"() {name = "w"} : () -> tensor<2xf32>
          return %w : tensor<2xf32>
        }""")
    with pytest.raises(PatcError, match="expected parameter 'w' to be 2 of float32, got 3 of float32"):
        execute(module, ParameterStore({"w": np.zeros(3, np.float32)}), [])


def test_an_input_as_destination_is_not_overwritten() -> None:
    x = np.arange(4, dtype=np.float32)
    (y,) = execute(parse(ADD_ONE), None, [x])
    assert y.tolist() == [1, 2, 3, 4] and x.tolist() == [0, 1, 2, 3]


def test_inputs_of_any_strides_and_alignment() -> None:
    space = np.zeros(17, np.uint8)
    unaligned = space[1:].view(np.float32)
    assert execute(parse(ADD_ONE), None, [unaligned])[0].tolist() == [1] * 4
    every_other = np.arange(8, dtype=np.float32)[::2]
    assert execute(parse(ADD_ONE), None, [every_other])[0].tolist() == [1, 3, 5, 7]


def test_results_that_are_inputs_constants_or_twice_the_same() -> None:
    module = parse("""
        func.func @main(%x: tensor<2x2xf32>, %scalar: tensor<f64>)
            -> (tensor<2x2xf32>, tensor<3xi64>, tensor<f64>, tensor<2x2xf32>) {
          %c = arith.constant dense<[1, 2, 3]> : tensor<3xi64>
          return %x, %c, %scalar, %x : tensor<2x2xf32>, tensor<3xi64>, tensor<f64>, tensor<2x2xf32>
        }""")
    x = np.array([[1, 2], [3, 4]], np.float32)
    results = execute(module, None, [x, np.array(0.5)])
    assert [result.tolist() for result in results] == [x.tolist(), [1, 2, 3], 0.5, x.tolist()]
    assert [result.dtype for result in results] == [np.float32, np.int64, np.float64, np.float32]


def test_a_function_by_name_and_its_calls() -> None:
    module = parse(
        ADD_ONE
        + """
        func.func @twice(%x: tensor<4xf32>) -> tensor<4xf32> {
          %y = call @main(%x) : (tensor<4xf32>) -> tensor<4xf32>
          %z = call @main(%y) : (tensor<4xf32>) -> tensor<4xf32>
          return %z : tensor<4xf32>
        }"""
    )
    x = np.zeros(4, np.float32)
    assert execute(module, None, [x], "twice")[0].tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("inputs", "function", "message"),
    [
        ([np.zeros(4, np.float32)], "other", "expected a function 'other' with a body, found 'main'"),
        ([], "main", "expected 1 inputs, got 0"),
        ([np.zeros(5, np.float32)], "main", "expected input 0 to be 4 of float32, got 5 of float32"),
        ([np.zeros(4)], "main", "expected input 0 to be 4 of float32, got 4 of float64"),
    ],
)
def test_inputs_that_do_not_fit(inputs: list[np.ndarray], function: str, message: str) -> None:
    with pytest.raises(PatcError, match=message):
        execute(parse(ADD_ONE), None, inputs, function)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            """
            func.func @main(%x: tensor<?xf32>) -> tensor<?xf32> {
              return %x : tensor<?xf32>
            }""",
            "expected arguments and results that are tensors of static shape, got tensor<\\?xf32>",
        ),
        (
            """
            func.func @main(%x: tensor<2xindex>) {
              return
            }""",
            "expected arguments and results that are tensors of static shape, got tensor<2xindex>",
        ),
        (
            """
            func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
              %w = "pattern.parameter"() {name = "w"} : () -> tensor<2xf32>
              return %w : tensor<2xf32>
            }""",
            "parameter 'w' is not in the store",
        ),
        (
            """
            func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
              %y = call @other() : () -> tensor<2xf32>
              return %y : tensor<2xf32>
            }
            func.func private @other() -> tensor<2xf32> {
              %w = "pattern.parameter"() {name = "w"} : () -> tensor<2xf32>
              return %w : tensor<2xf32>
            }""",
            "cannot run: op was not bufferized",
        ),
        (
            """
            func.func @main(%x: tensor<2xf32>) -> tensor<1xi32> {
              %i = gpu.thread_id x
              %j = arith.index_cast %i : index to i32
              %y = tensor.from_elements %j : tensor<1xi32>
              return %y : tensor<1xi32>
            }""",
            "cannot run: no lowering for .*gpu.thread_id x1",
        ),
        (
            """
            func.func private @missing(tensor<2xf32>) -> tensor<2xf32>
            func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
              %y = call @missing(%x) : (tensor<2xf32>) -> tensor<2xf32>
              return %y : tensor<2xf32>
            }""",
            "cannot run: expected functions .*'missing' in the process, found not all",
        ),
    ],
)
def test_modules_that_cannot_run(body: str, message: str) -> None:
    """The bindings would end the process on some of these."""
    with pytest.raises(PatcError, match=message):
        execute(parse(body), None, [np.zeros(2, np.int64 if "index" in message else np.float32)])
