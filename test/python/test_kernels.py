"""The loop nests compute what the ops mean: compiled code against the float64 interpreter, on random layers.

Each layer stands in a small net, because what is around it decides the layouts that it reads and writes: its input may
come from the caller or from another layer, its result may go to the caller, to a window with a halo or with stride 2,
or to a pool. Schedules are the chosen ones, or random legal ones.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from helpers import assert_close
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from interpreter import interpret
from native import Retile, run_native
from networks import CONTEXT, Network, Value, pattern_weight
from torch_mlir import ir

from patc.dialects.attributes import Schedule
from patc.passes.fkw import encode, rearrange
from patc.passes.kernels import tiling
from patc.passes.windows import Window
from patc.targets import TARGETS, host_features

ACTIVATIONS = ('"none"', '"relu"', "#pattern.clamp<-5.000000e-01 : f32, 1.500000e+00 : f32>")
NATIVE_TARGETS = ["host", *(name for name, target in TARGETS.items() if host_features() >= {*target.features})]
Pads = tuple[int, int, int, int]


@dataclass
class Net(Network):
    """A network with more inputs and with every attribute of the ops."""

    more_inputs: list[Value] = field(default_factory=list)

    @property
    def inputs(self) -> list[Value]:
        return [self.input, *self.more_inputs]

    def new_input(self, shape: tuple[int, ...]) -> Value:
        self.more_inputs.append(Value(f"%input{len(self.more_inputs)}", shape))
        return self.more_inputs[-1]

    def sparse_conv(
        self,
        x: Value,
        arrays: Sequence[np.ndarray],
        library: Sequence[int],
        window: Window,
        bias: np.ndarray | None,
        residual: Value | None,
        activation: str,
    ) -> Value:
        kernel, masks = _array(window.kernel), _array(library)
        operands = [x, *(self.constant(array) for array in arrays)]
        operands += [self.constant(bias)] if bias is not None else []
        operands += [residual] if residual is not None else []
        attributes = (
            f"{_window(window)}, library = #pattern.library<{kernel}, {masks}>, activation = {activation}, "
            f"operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, {int(bias is not None)}, {int(residual is not None)}>"
        )
        shape = (x.shape[0], len(arrays[-1]), *window.result_size(x.shape[2:]))
        return self.op("pattern.sparse_conv2d", operands, attributes, shape)

    def window_pool(self, kind: str, x: Value, window: Window, counts_pads: bool = False) -> Value:
        attributes = f"{_window(window)}, kernel = {_array(window.kernel)}"
        attributes += f", count_include_pad = {str(counts_pads).lower()}" if kind == "avg" else ""
        shape = (*x.shape[:2], *window.result_size(x.shape[2:]))
        return self.op(f"pattern.{kind}_pool2d", [x], attributes, shape)

    def dense_layer(self, x: Value, weight: np.ndarray, bias: np.ndarray | None, activation: str) -> Value:
        operands = [x, self.constant(weight)]
        operands += [self.constant(bias)] if bias is not None else []
        sizes = f"operandSegmentSizes = array<i32: 1, 1, {int(bias is not None)}>"
        return self.op(
            "pattern.linear", operands, f"activation = {activation}, {sizes}", (x.shape[0], len(weight))
        )

    def constant(self, array: np.ndarray) -> Value:
        """Add a parameter of the array's own element type."""
        name = self.parameters.add(f"array{len(self.lines)}", array)
        element = {"float32": "f32", "int16": "i16", "int32": "i32"}[array.dtype.name]
        shape = "x".join(map(str, array.shape))
        value = Typed(f"%{len(self.lines)}", array.shape, f"tensor<{shape}x{element}>")
        self.lines.append(f'{value.name} = "pattern.parameter"() {{name = "{name}"}} : () -> {value.type}')
        return value

    def build(self, *results: Value) -> ir.Module:
        heads = ", ".join(f"{value.name}: {value.type}" for value in self.inputs)
        names, types = (", ".join(getattr(value, key) for value in results) for key in ("name", "type"))
        text = "\n".join(
            [f"func.func @main({heads}) -> ({types}) {{", *self.lines, f"return {names} : {types}", "}"]
        )
        module = ir.Module.parse(text, CONTEXT)
        assert module.operation.verify()
        return module


@dataclass(frozen=True)
class Typed(Value):
    """A value of another element type than f32."""

    text: str = ""

    @property
    def type(self) -> str:
        return self.text


def _array(numbers: Sequence[int]) -> str:
    return f"array<i64: {', '.join(map(str, numbers))}>"


def _window(window: Window) -> str:
    values = {"strides": window.strides, "pads": window.pads, "dilations": window.dilations}
    return ", ".join(f"{name} = {_array(numbers)}" for name, numbers in values.items())


def check(
    net: Net,
    results: Sequence[Value],
    seed: int = 0,
    target: str = "host",
    threads: int = 1,
    retile: Retile | None = None,
    fenced: bool = False,
) -> None:
    """Require the compiled net to compute what the interpreter does, for normally distributed inputs."""
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(value.shape, np.float32) for value in net.inputs]
    module = net.build(*results)
    wanted = interpret(module, net.parameters, arrays)
    found = run_native(
        module, net.parameters, arrays, target=target, threads=threads, retile=retile, fenced=fenced
    )
    assert_close(found, wanted)


# Random layers


@st.composite
def windows(
    draw: st.DrawFn, kernels: Sequence[tuple[int, int]], max_stride: int = 3
) -> tuple[Window, tuple[int, int]]:
    """Draw a window and the height and width of an input that it fits."""
    kernel = draw(st.sampled_from(kernels))
    strides = draw(st.tuples(*[st.integers(1, max_stride)] * 2))
    dilations = draw(st.tuples(*[st.sampled_from([1, 1, 2, 3])] * 2))
    spans = [dilations[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
    symmetric = draw(st.booleans())
    sides = [0, 1, 0, 1]
    if symmetric:
        pads: list[int] = [spans[axis] // 2 for axis in sides]
    else:
        pads = [draw(st.integers(0, spans[axis])) for axis in sides]
    size = [
        draw(st.integers(max(1, spans[axis] - pads[axis] - pads[axis + 2]), largest))
        for axis, largest in ((0, 24), (1, 70))
    ]
    return Window(kernel, strides, (pads[0], pads[1], pads[2], pads[3]), dilations), (size[0], size[1])


def choose_source(net: Net, choices: random.Random) -> Value:
    """Return the input itself, or what another layer makes of it: its layout suits its users, then."""
    return net.input if choices.random() < 0.5 else net.activate(net.input, ACTIVATIONS[choices.randrange(3)])


def choose_residual(net: Net, shape: tuple[int, ...], choices: random.Random) -> tuple[Value | None, list[Value]]:
    """Return a residual or None, and other results: those of a window that gives the residual its layout."""
    if choices.random() < 0.6:
        return None, []
    residual = net.new_input(shape)
    if choices.random() < 0.4:
        return residual, []
    residual = net.activate(residual)
    return residual, read_by_others(net, residual, choices)


def read_by_others(net: Net, value: Value, choices: random.Random) -> list[Value]:
    """Add users that decide the layout of a value, and return their results."""
    readers = choices.choice([[], ["conv"], ["even"], ["max"], ["global"], ["conv", "even"], ["max", "global"]])
    if value in net.inputs and len(readers) == 2 : readers = readers[:1] # XXX
    return [_read(net, value, reader, choices) for reader in readers]


def _read(net: Net, value: Value, reader: str, choices: random.Random) -> Value:
    channels, *size = value.shape[1:]
    if reader == "global":
        return net.pool("avg", value, (size[0], size[1]), (1, 1))
    pads = tuple(choices.randrange(3) for _ in range(4))
    kernel = tuple(min(3, size[axis] + pads[axis] + pads[axis + 2]) for axis in (0, 1))
    if reader == "max":
        pads = tuple(kernel[side % 2] // 2 for side in range(4))
        kernel = tuple(min(3, size[axis] + 2 * pads[axis]) for axis in (0, 1))
        return net.pool("max", value, (kernel[0], kernel[1]), (choices.randint(1, 2), choices.randint(1, 2)), pads)
    strides = (1, 2) if reader == "even" else (1, 1)
    weight = np.random.default_rng(0).standard_normal((channels, 1, *kernel))
    return net.conv(value, weight, strides=strides, pads=pads, groups=channels)


def random_bias(filters: int, choices: random.Random, rng: np.random.Generator) -> np.ndarray | None:
    return rng.standard_normal(filters, np.float32) if choices.random() < 0.6 else None


def random_schedules(choices: random.Random) -> Retile | None:
    """Return what keeps the chosen schedules, or what draws random legal ones."""
    if choices.random() < 0.4:
        return None
    return lambda op, chosen: random_schedule(op, chosen, choices)


def random_schedule(op: Any, chosen: Schedule, choices: random.Random) -> Schedule:
    """Draw any legal tile: whole vectors in all strips but the last, blocks of filters that divide a group."""
    if chosen.algorithm == "global-pool":
        return replace(chosen, lanes=choices.choice([4, 8, 16]), split=choices.choice(["rows", "filters"]))
    lanes = choices.choice([4, 8, 16])
    shape = list(op.result.type.shape)
    if chosen.algorithm == "gemv":
        rows, filters = choices.randint(1, 5), choices.randint(1, min(shape[1], 9))
        return replace(chosen, rows=rows, filters=filters, lanes=lanes)
    widths = [width for width in range(4, 40, 4) if all(chunk.valid == chunk.lanes for chunk in tiling.cut(width, lanes))]
    columns = choices.choice([shape[3], shape[3] + 3, *widths])
    filters, sums = 1, 1
    if chosen.algorithm in ("dense-direct", "depthwise-direct"):
        group = shape[1] // op.groups.value
        one_group = group == shape[1]
        filters = choices.choice([size for size in range(1, group + 1) if one_group or group % size == 0])
    if chosen.algorithm == "pattern-direct":
        sums = choices.randint(1, 4)
    vectors = tiling.vectors(min(columns, shape[3]), lanes) * filters * sums
    rows = choices.randint(1, max(1, min(9, 40 // vectors)))
    split = choices.choice(["rows", "filters"])
    return replace(
        chosen, rows=rows, columns=columns, lanes=lanes, filters=filters, sums=sums, split=split
    )


def check_random(net: Net, results: Sequence[Value], choices: random.Random) -> None:
    check(
        net,
        results,
        seed=choices.getrandbits(32),
        target=choices.choice(NATIVE_TARGETS),
        threads=choices.choice([1, 1, 2, 3]),
        retile=random_schedules(choices),
    )


RANDOMS = st.randoms(use_true_random=False)
KERNELS = [(1, 1), (3, 3), (3, 3), (5, 5), (7, 7), (1, 3), (5, 2)]
FAST = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@given(windows([(3, 3), (3, 3), (3, 3), (5, 5), (1, 3), (2, 2), (7, 4)]), RANDOMS)
@settings(FAST, max_examples=70)
def test_sparse_convolutions(case: tuple[Window, tuple[int, int]], choices: random.Random) -> None:
    window, size = case
    rng = np.random.default_rng(choices.getrandbits(32))
    taps = window.kernel[0] * window.kernel[1]
    entries = choices.randint(2, min(6, taps))
    masks = {sum(1 << tap for tap in choices.sample(range(taps), entries)) for _ in range(choices.randint(1, 6))}
    library = choices.sample(sorted(masks), len(masks))
    filters, channels = choices.randint(1, 9), choices.randint(1, 9)
    keep = choices.choice([0.1, 0.5, 1.0])
    fkw = encode(pattern_weight(rng, filters, channels, keep, library, window.kernel), library)
    fkw = rearrange(fkw, rng.permutation(filters), rng.permutation(channels), rng.permutation(filters))
    narrow = np.int16 if choices.random() < 0.8 else np.int32
    index, stride, reorder = (array.astype(narrow) for array in (fkw.index, fkw.stride, fkw.reorder))
    net = Net((choices.randint(1, 3), channels, *size))
    shape = (net.input_shape[0], filters, *window.result_size(size))
    x = choose_source(net, choices)
    residual, others = choose_residual(net, shape, choices)
    arrays = [fkw.values, index, fkw.offset, stride, reorder]
    bias = random_bias(filters, choices, rng)
    y = net.sparse_conv(x, arrays, library, window, bias, residual, choices.choice(ACTIVATIONS))
    others += read_by_others(net, y, choices)
    check_random(net, [*others, y] if choices.random() < 0.6 or not others else others, choices)


@given(windows(KERNELS), RANDOMS)
@settings(FAST, max_examples=70)
def test_dense_convolutions(case: tuple[Window, tuple[int, int]], choices: random.Random) -> None:
    window, size = case
    rng = np.random.default_rng(choices.getrandbits(32))
    kind = choices.choice(["whole", "whole", "groups", "depthwise"])
    groups = {"whole": 1, "groups": choices.randint(2, 3), "depthwise": choices.randint(1, 6)}[kind]
    depthwise = kind == "depthwise"
    channels, filters = (groups, groups) if depthwise else (groups * choices.randint(1, 5), groups * choices.randint(1, 6))
    net = Net((choices.randint(1, 3), channels, *size))
    x = choose_source(net, choices)
    residual, others = choose_residual(net, (net.input_shape[0], filters, *window.result_size(size)), choices)
    y = net.conv(
        x,
        rng.standard_normal((filters, channels // groups, *window.kernel)),
        random_bias(filters, choices, rng),
        residual,
        strides=window.strides,
        pads=window.pads,
        dilations=window.dilations,
        groups=groups,
        activation=choices.choice(ACTIVATIONS),
    )
    others += read_by_others(net, y, choices)
    check_random(net, [*others, y] if choices.random() < 0.6 or not others else others, choices)


@given(windows([(1, 1), (2, 2), (3, 3), (3, 3), (5, 1), (4, 7)]), RANDOMS)
@settings(FAST, max_examples=50)
def test_pools(case: tuple[Window, tuple[int, int]], choices: random.Random) -> None:
    window, size = case
    kind = choices.choice(["max", "avg"])
    # A window that sees nothing has no maximum.
    if kind == "max" and window.taps_inside(size).min() == 0:
        window = replace(window, pads=(0, 0, 0, 0))
        size = tuple(max(size[axis], window.dilations[axis] * (window.kernel[axis] - 1) + 1) for axis in (0, 1))
    net = Net((choices.randint(1, 3), choices.randint(1, 7), *size))
    y = net.window_pool(kind, choose_source(net, choices), window, choices.random() < 0.5)
    others = read_by_others(net, y, choices)
    check_random(net, [*others, y] if choices.random() < 0.6 or not others else others, choices)


@given(RANDOMS)
@settings(FAST, max_examples=30)
def test_linear_layers(choices: random.Random) -> None:
    rng = np.random.default_rng(choices.getrandbits(32))
    images, features, filters = choices.randint(1, 9), choices.randint(1, 80), choices.randint(1, 20)
    net = Net((images, features))
    bias = random_bias(filters, choices, rng)
    y = net.dense_layer(net.input, rng.standard_normal((filters, features), np.float32), bias, choices.choice(ACTIVATIONS))
    weight = rng.standard_normal((5, filters), np.float32)
    z = net.dense_layer(y, weight, None, '"none"')
    check_random(net, [z, y] if choices.random() < 0.5 else [z], choices)


@given(RANDOMS)
@settings(FAST, max_examples=40)
def test_elementwise_layers(choices: random.Random) -> None:
    shape = (choices.randint(1, 3), choices.randint(1, 7), choices.randint(1, 20), choices.randint(1, 70))
    net = Net(shape)
    lhs = choose_source(net, choices)
    others = read_by_others(net, lhs, choices)
    rhs = choices.choice([lhs, net.input, net.new_input(shape)])
    others += read_by_others(net, rhs, choices)
    operation = choices.choice(["add", "activate"])
    activation = choices.choice(ACTIVATIONS)
    operands = [lhs, rhs] if operation == "add" else [lhs]
    y = net.op(f"pattern.{operation}", operands, f"activation = {activation}", shape)
    others += read_by_others(net, y, choices)
    z = net.activate(y, choices.choice(ACTIVATIONS))
    check_random(net, [*others, choices.choice([z, net.flatten(z)])], choices)
