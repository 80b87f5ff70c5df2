"""pattern-specialize: how work is divided and weights are packed, and that functions keep their meaning."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import Net, check, main_body
from networks import CONTEXT, LIBRARY, Value, pattern_weight
from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.site import divide
from patc.passes.base import PassState
from patc.passes.kernels.host.weights import pack_features, pack_filters
from patc.pipeline import Pipeline

RNG = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


# Parts of a layer


@given(
    st.sampled_from(["rows", "filters"]),
    st.integers(1, 9),
    st.integers(1, 40),
    st.lists(st.integers(1, 50).map(float), min_size=1, max_size=40),
    st.booleans(),
)
@settings(max_examples=300)
def test_parts_cover_the_work_once(split: str, threads: int, tiles: int, costs: list[float], any_part: bool) -> None:
    schedule = Schedule("pattern-direct", split=split, threads=threads)
    shares = divide(schedule, (0, tiles), costs, any_part=any_part)
    assert len(shares) == threads
    done = np.zeros((tiles, len(costs)), int)
    for first_tile, last_tile, first_filter, last_filter in itertools.chain(*shares):
        assert 0 <= first_tile <= last_tile <= tiles
        assert 0 <= first_filter <= last_filter <= len(costs)
        done[first_tile:last_tile, first_filter:last_filter] += 1
    assert (done == 1).all()


@given(st.integers(1, 9), st.integers(1, 40))
def test_rows_are_divided_evenly(threads: int, tiles: int) -> None:
    shares = divide(Schedule("pool", split="rows", threads=threads), (0, tiles), [1.0])
    counts = [last - first for ((first, last, _, _),) in shares]
    assert max(counts) - min(counts) <= 1


@given(st.integers(1, 9), st.lists(st.integers(1, 50).map(float), min_size=1, max_size=60))
@settings(max_examples=200)
def test_filters_are_divided_by_their_cost(threads: int, costs: list[float]) -> None:
    """No part is further from its share than one filter at each end could bring it."""
    shares = divide(Schedule("pattern-direct", split="filters", threads=threads), (0, 1), costs)
    share = sum(costs) / threads
    for ((_, _, first, last),) in shares:
        assert abs(sum(costs[first:last]) - share) <= max(costs)


def test_one_thread_has_one_part() -> None:
    assert divide(Schedule("gemv"), (2, 5), [1.0, 2.0]) == [((2, 5, 0, 2),)]


# Packed weights


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.data())
def test_filters_are_packed_in_blocks(
    filters: int, channels: int, height: int, width: int, data: st.DataObject
) -> None:
    block = data.draw(st.integers(1, filters))
    weight = np.arange(filters * channels * height * width, dtype=np.float32)
    weight = weight.reshape(filters, channels, height, width)
    packed = pack_filters(weight, block)
    assert packed.shape == (ceil_div(filters, block), channels, height * width, block)
    for number, part in enumerate(packed):
        first = min(number * block, filters - block)
        for member in range(block):
            np.testing.assert_array_equal(part[:, :, member].ravel(), weight[first + member].ravel())


@given(st.integers(1, 12), st.integers(1, 40), st.sampled_from([4, 8, 16]), st.data())
def test_features_are_packed_in_vectors(filters: int, features: int, lanes: int, data: st.DataObject) -> None:
    block = data.draw(st.integers(1, filters))
    weight = np.arange(1, filters * features + 1, dtype=np.float32).reshape(filters, features)
    packed = pack_features(weight, block, lanes)
    assert packed.shape == (ceil_div(filters, block), ceil_div(features, lanes), block, lanes)
    for number, part in enumerate(packed):
        first = min(number * block, filters - block)
        for member in range(block):
            row = part[:, member].ravel()
            np.testing.assert_array_equal(row[:features], weight[first + member])
            assert (row[features:] == 0).all()


# Modules


def specialize(net: Net, *results: Value) -> tuple[ir.Module, PassState]:
    """Return a module as loops, and its parameters."""
    module, state = net.build(*results), PassState(net.copy_parameters())
    Pipeline.parse("pattern-encode,pattern-layout,pattern-schedule,pattern-specialize").run(module, state)
    return module, state


def kernels(module: ir.Module) -> list[str]:
    names = [op.attributes["sym_name"].value for op in module.body.operations if op.operation.name == "func.func"]
    return [name for name in names if name not in ("main", "patc_timestamp")]


def sparse_layer(net: Net, x: Value, seed: int, **rest: Any) -> Value:
    return net.conv(x, pattern_weight(np.random.default_rng(seed), 4, 4, 0.6, LIBRARY[:2]), **rest)


def test_equal_layers_share_a_kernel() -> None:
    net = Net((1, 4, 9, 9))
    x = net.input
    for seed in range(4):
        x = sparse_layer(net, x, seed)
    module, _ = specialize(net, x)
    # The first two read and write padded planes, the last writes the packed result.
    assert kernels(module) == ["elementwise_0", "pattern_direct_0", "pattern_direct_1"]


@pytest.mark.parametrize(
    "difference",
    [{"activation": '"relu"'}, {"bias": np.ones(4)}, {"dilations": (2, 1), "pads": (2, 1, 2, 1)}],
)
def test_layers_that_compute_something_else_do_not(difference: dict[str, Any]) -> None:
    net = Net((1, 4, 9, 9))
    x = sparse_layer(net, sparse_layer(net, net.activate(net.input), 0), 1, **difference)
    module, _ = specialize(net, net.activate(x))
    assert len([name for name in kernels(module) if name.startswith("pattern_direct")]) == 2


def test_several_inputs_and_results() -> None:
    net = Net((1, 4, 5, 9))
    other = net.new_input((2, 3))
    y = net.conv(net.input, weights(2, 4, 3, 3))
    z = net.dense_layer(other, weights(5, 3), weights(5), '"relu"')
    check(net, [z, net.flatten(y), y, z])


def test_layers_share_weights() -> None:
    """Two layers may read the same parameter; each has it packed as it likes."""
    net = Net((1, 4, 5, 9))
    weight = net.constant(weights(4, 4, 3, 3))
    attributes = (
        "strides = array<i64: 1, 1>, pads = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64, "
        'activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>'
    )
    y = net.op("pattern.conv2d", [net.input, weight], attributes, (1, 4, 5, 9))
    z = net.op("pattern.conv2d", [y, weight], attributes, (1, 4, 5, 9))
    blocks = iter((1, 4))

    def retile(op: Any, chosen: Schedule) -> Schedule:
        is_conv = op.operation.name == "pattern.conv2d"
        return Schedule("dense-direct", 1, 9, 8, next(blocks)) if is_conv else chosen

    check(net, [z])
    check(net, [z], retile=retile)


def test_weights_written_in_the_text() -> None:
    text = """
    func.func @main(%input: tensor<1x1x3x3xf32>) -> tensor<1x1x3x3xf32> {
      %w = arith.constant dense<[[[[1.0, 2.0], [3.0, 4.0]]]]> : tensor<1x1x2x2xf32>
      %b = arith.constant dense<0.5> : tensor<1xf32>
      %y = "pattern.conv2d"(%input, %w, %b) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
        operandSegmentSizes = array<i32: 1, 1, 1, 0>, pads = array<i64: 0, 0, 1, 1>, strides = array<i64: 1, 1>}
        : (tensor<1x1x3x3xf32>, tensor<1x1x2x2xf32>, tensor<1xf32>) -> tensor<1x1x3x3xf32>
      return %y : tensor<1x1x3x3xf32>
    }"""

    class Written(Net):
        def build(self, *results: Value) -> ir.Module:
            return ir.Module.parse(text, super().build(self.activate(self.input)).context)

    check(Written((1, 1, 3, 3)), [])


def test_second_run_and_other_functions_stay() -> None:
    net = Net((1, 4, 5, 5))
    module, state = specialize(net, net.activate(net.input))
    text = str(module)
    Pipeline.parse("pattern-specialize").run(module, state)
    assert str(module) == text


def test_names_of_kernels_do_not_depend_on_the_run() -> None:
    texts = set()
    for _ in range(2):
        net = Net((1, 4, 9, 9))
        module, _ = specialize(net, sparse_layer(net, sparse_layer(net, net.input, 0), 1))
        texts.add(str(module))
    assert len(texts) == 1


def test_memory_of_main() -> None:
    """Inputs, results, one time stamp more than layers; all flat and static."""
    net = Net((2, 4, 5, 5))
    module, _ = specialize(net, net.flatten(net.activate(net.input)), net.global_pool(net.input))
    types = [str(argument.type) for argument in main_body(module).arguments]
    assert types == ["memref<200xf32>", "memref<200xf32>", "memref<8xf32>", "memref<3xi64>"]


def test_errors_name_the_op_and_its_place() -> None:
    net = Net((1, 4, 5, 5))
    module = net.build(net.activate(net.input))
    with pytest.raises(PatcError, match=r"'pattern.activate' op expected a 'schedule' attribute .*, got none") as error:
        Pipeline.parse("pattern-specialize").run(module)
    assert "-:2:" in str(error.value)


@pytest.mark.parametrize("element", ["bf16", "f64"])
def test_other_element_types_are_refused(element: str) -> None:
    tensor = f"tensor<1x2x4x4x{element}>"
    text = f"""
    func.func @main(%x: {tensor}) -> {tensor} {{
      %y = "pattern.activate"(%x) {{activation = "relu"}} : ({tensor}) -> {tensor}
      return %y : {tensor}
    }}"""
    with pytest.raises(PatcError, match=f"expected f32 or f16 tensors, got {tensor}"):
        Pipeline.parse("pattern-layout,pattern-schedule,pattern-specialize").run(ir.Module.parse(text, CONTEXT))


def test_kernels_take_names_that_are_free() -> None:
    tensor = "tensor<1x2x4x4xf32>"
    text = f"""
    func.func @elementwise_0(%x: {tensor}) -> {tensor} {{
      %y = "pattern.activate"(%x) {{activation = "relu"}} : ({tensor}) -> {tensor}
      return %y : {tensor}
    }}"""
    module = ir.Module.parse(text, CONTEXT)
    Pipeline.parse("pattern-layout,pattern-schedule,pattern-specialize").run(module)
    assert module.operation.verify()


@pytest.mark.parametrize("seed", range(3))
def test_random_chains_in_one_buffer_each(seed: int) -> None:
    """Layers of many sizes after one another: what one writes is what the next one reads."""
    choices = random.Random(seed)
    net = Net((choices.randint(1, 2), 4, choices.randint(7, 20), choices.randint(7, 40)))
    x, kept = net.input, []
    for number in range(6):
        strides = choices.choice([(1, 1), (2, 2), (1, 2)])
        if choices.random() < 0.3:
            x = net.pool(choices.choice(["max", "avg"]), x, (3, 3), strides, (1, 1, 1, 1))
        else:
            x = sparse_layer(net, x, number, strides=strides, activation=choices.choice(['"none"', '"relu"']))
        kept.append(x)
    check(net, [x, kept[2]])
