"""Small `pattern` modules for tests: written by hand with `Network`, or drawn at random by `networks`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from hypothesis import strategies as st
from torch_mlir import ir

from patc.context import make_context
from patc.parameters import ParameterStore

LIBRARY = (27, 54, 216, 432, 58, 154, 178, 184)
CONTEXT = make_context()


@dataclass(frozen=True)
class Value:
    """An SSA value of a network."""

    name: str
    shape: tuple[int, ...]

    @property
    def type(self) -> str:
        return f"tensor<{'x'.join(map(str, self.shape))}xf32>"


@dataclass
class Network:
    """Builds the text of a @main and the parameters beside it, op by op."""

    input_shape: tuple[int, ...]
    parameters: ParameterStore = field(default_factory=ParameterStore)
    lines: list[str] = field(default_factory=list)

    @property
    def input(self) -> Value:
        return Value("%input", self.input_shape)

    def conv(
        self,
        x: Value,
        weight: np.ndarray,
        bias: np.ndarray | None = None,
        residual: Value | None = None,
        *,
        strides: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (1, 1, 1, 1),
        dilations: tuple[int, int] = (1, 1),
        groups: int = 1,
        activation: str = '"none"',
    ) -> Value:
        operands = [x, self.parameter(weight, "weight")]
        operands += [self.parameter(bias, "bias")] if bias is not None else []
        operands += [residual] if residual is not None else []
        size = _window_size(x.shape, weight.shape[2:], strides, pads, dilations)
        attributes = (
            f"{_window(strides, pads, dilations)}, groups = {groups} : i64, activation = {activation}, "
            f"operandSegmentSizes = array<i32: 1, 1, {int(bias is not None)}, {int(residual is not None)}>"
        )
        return self.op("pattern.conv2d", operands, attributes, (x.shape[0], weight.shape[0], *size))

    def linear(self, x: Value, weight: np.ndarray, bias: np.ndarray | None = None) -> Value:
        operands = [x, self.parameter(weight, "weight")]
        operands += [self.parameter(bias, "bias")] if bias is not None else []
        sizes = f"operandSegmentSizes = array<i32: 1, 1, {int(bias is not None)}, 0>"
        shape = (x.shape[0], len(weight))
        return self.op("pattern.linear", operands, f'activation = "none", {sizes}', shape)

    def pool(
        self,
        kind: str,
        x: Value,
        kernel: tuple[int, int] = (2, 2),
        strides: tuple[int, int] = (2, 2),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> Value:
        attributes = f"{_window(strides, pads, (1, 1))}, kernel = array<i64: {_list(kernel)}>"
        attributes += ", count_include_pad = false" if kind == "avg" else ""
        size = _window_size(x.shape, kernel, strides, pads, (1, 1))
        return self.op(f"pattern.{kind}_pool2d", [x], attributes, (*x.shape[:2], *size))

    def add(self, lhs: Value, rhs: Value) -> Value:
        return self.op("pattern.add", [lhs, rhs], 'activation = "none"', lhs.shape)

    def activate(self, x: Value, activation: str = '"relu"') -> Value:
        return self.op("pattern.activate", [x], f"activation = {activation}", x.shape)

    def relayout(self, x: Value) -> Value:
        return self.op("pattern.relayout", [x], "", x.shape)

    def flatten(self, x: Value) -> Value:
        result = self._name((x.shape[0], int(np.prod(x.shape[1:]))))
        self.lines.append(
            f"{result.name} = tensor.collapse_shape {x.name} [[0], [1, 2, 3]] : {x.type} into {result.type}"
        )
        return result

    def concat(self, lhs: Value, rhs: Value) -> Value:
        result = self._name((lhs.shape[0], lhs.shape[1] + rhs.shape[1], *lhs.shape[2:]))
        self.lines.append(
            f"{result.name} = tensor.concat dim(1) {lhs.name}, {rhs.name} : ({lhs.type}, {rhs.type}) -> {result.type}"
        )
        return result

    def parameter(self, array: np.ndarray, kind: str) -> Value:
        name = self.parameters.add(f"layer{len(self.lines)}.{kind}", array.astype(np.float32))
        return self.op("pattern.parameter", [], f'name = "{name}"', array.shape)

    def op(self, name: str, operands: Sequence[Value], attributes: str, shape: tuple[int, ...]) -> Value:
        result = self._name(shape)
        names, types = (", ".join(getattr(value, key) for value in operands) for key in ("name", "type"))
        self.lines.append(f'{result.name} = "{name}"({names}) {{{attributes}}} : ({types}) -> {result.type}')
        return result

    def build(self, *results: Value) -> ir.Module:
        names, types = (", ".join(getattr(value, key) for value in results) for key in ("name", "type"))
        head = f"func.func @main(%input: {self.input.type}) -> ({types}) {{"
        text = "\n".join([head, *self.lines, f"return {names} : {types}", "}"])
        module = ir.Module.parse(text, CONTEXT)
        assert module.operation.verify()
        return module

    def copy_parameters(self) -> ParameterStore:
        """Return a store of its own for one more pass over the same arrays."""
        return ParameterStore({name: self.parameters[name] for name in self.parameters})

    def _name(self, shape: tuple[int, ...]) -> Value:
        return Value(f"%{len(self.lines)}", shape)


def all_masks(taps: int, entries: int) -> list[int]:
    return [sum(1 << tap for tap in chosen) for chosen in combinations(range(taps), entries)]


def pattern_weight(
    rng: np.random.Generator,
    filters: int,
    channels: int,
    keep: float = 0.5,
    library: Sequence[int] = LIBRARY,
    kernel: tuple[int, int] = (3, 3),
) -> np.ndarray:
    """Draw a weight whose kernels have a pattern of the library, and part of them nothing."""
    taps = kernel[0] * kernel[1]
    bits = np.array([[mask >> tap & 1 for tap in range(taps)] for mask in library])
    pattern = rng.integers(len(library), size=(filters, channels))
    kept = rng.random((filters, channels, 1)) < keep
    weight = rng.uniform(0.5, 1.5, (filters, channels, taps)) * rng.choice([-1, 1], (filters, channels, taps))
    return (weight * bits[pattern] * kept).astype(np.float32).reshape(filters, channels, *kernel)


def pointwise_weight(
    rng: np.random.Generator,
    filters: int,
    channels: int,
    keep: float = 0.5,
    library: Sequence[int] = LIBRARY,
) -> np.ndarray:
    """Draw a 1x1 weight whose groups of nine input channels have a pattern or nothing; a rest of fewer is dense."""
    groups = channels // 9
    weight = rng.uniform(0.5, 1.5, (filters, channels, 1, 1)).astype(np.float32)
    weight[:, : groups * 9] = pattern_weight(rng, filters, groups, keep, library).reshape(filters, -1, 1, 1)
    return weight


@st.composite
def networks(draw: st.DrawFn) -> tuple[Network, ir.Module, np.ndarray]:
    """Draw a network of a few layers, its module, and an input.

    It has branches that meet in additions, residuals and concatenations, pools, flattening and linear layers,
    pointwise, depthwise and grouped convolutions, dense and sparse, and up to two results.
    """
    choices = draw(st.randoms(use_true_random=False))
    rng = np.random.default_rng(choices.getrandbits(32))
    shape = (draw(st.integers(1, 2)), draw(st.sampled_from([2, 4, 6, 20])), 7, 6)
    network = Network(shape)
    values = [network.input]
    for _ in range(draw(st.integers(1, 8))):
        values.append(_random_layer(network, values, choices, rng))
    results = [values[-1]]
    if draw(st.booleans()):
        results = [_random_classifier(network, values[-1], choices, rng)]
    if draw(st.booleans()):
        results.append(choices.choice(values))
    return network, network.build(*results), rng.standard_normal(shape, np.float32)


def _random_layer(network: Network, values: list[Value], choices: random.Random, rng: np.random.Generator) -> Value:
    x = choices.choice(values[-3:])
    kinds = ["pointwise"] * 2 + ["dense", "depthwise", "grouped", "pool", "tie", "concat"]
    layer = choices.choice(["sparse"] * 4 + kinds)
    channels, height, width = x.shape[1:]
    if layer == "sparse":
        filters = choices.choice([channels, 4, 6])
        weight = pattern_weight(rng, filters, channels, choices.choice([0.3, 0.7, 1.0]))
        return _random_conv(network, x, weight, values, choices, rng)
    if layer == "dense":
        weight = rng.standard_normal((choices.choice([channels, 4]), channels, 1, 1))
        return _random_conv(network, x, weight, values, choices, rng)
    if layer == "pointwise":
        filters = choices.choice([channels, 12, 20])
        weight = pointwise_weight(rng, filters, channels, choices.choice([0.0, 0.5, 1.0]))
        return _random_conv(network, x, weight, values, choices, rng)
    if layer == "depthwise":
        sparse = choices.random() < 0.5
        weight = pattern_weight(rng, channels, 1, 0.8) if sparse else rng.standard_normal((channels, 1, 3, 3))
        return _random_conv(network, x, weight, values, choices, rng, groups=channels)
    if layer == "grouped":
        weight = pattern_weight(rng, channels, channels // 2, 0.8)
        return _random_conv(network, x, weight, values, choices, rng, groups=2)
    if layer == "pool" and min(height, width) >= 3:
        kind, pads = choices.choice(["max", "avg"]), choices.choice([(0, 0, 0, 0), (1, 0, 0, 1)])
        return network.pool(kind, x, (2, 2), choices.choice([(1, 1), (2, 2)]), pads)
    alike = [value for value in values if value.shape == x.shape]
    if layer == "concat" and channels <= 6:
        return network.concat(x, choices.choice(alike))
    if layer == "tie":
        return network.add(x, choices.choice(alike))
    return choices.choice([network.activate, network.relayout])(x)


def _random_conv(
    network: Network,
    x: Value,
    weight: np.ndarray,
    values: list[Value],
    choices: random.Random,
    rng: np.random.Generator,
    groups: int = 1,
) -> Value:
    filters = weight.shape[0]
    padding = weight.shape[2] // 2
    strides = (1, 1) if min(x.shape[2:]) < 4 else choices.choice([(1, 1), (1, 1), (2, 2)])
    pads = (padding,) * 4
    shape = (x.shape[0], filters, *_window_size(x.shape, weight.shape[2:], strides, pads, (1, 1)))
    alike = [value for value in values if value.shape == shape]
    return network.conv(
        x,
        weight,
        rng.standard_normal((filters,)) if choices.random() < 0.7 else None,
        choices.choice(alike) if alike and choices.random() < 0.6 else None,
        strides=strides,
        pads=pads,
        groups=groups,
        activation=choices.choice(['"none"', '"relu"', "#pattern.clamp<0.0 : f32, 6.0 : f32>"]),
    )


def _random_classifier(network: Network, x: Value, choices: random.Random, rng: np.random.Generator) -> Value:
    if choices.random() < 0.5:
        x = network.pool("avg", x, (x.shape[2], x.shape[3]), (1, 1))
    flat = network.flatten(x)
    return network.linear(flat, rng.standard_normal((3, flat.shape[1])), rng.standard_normal(3))


def _window_size(
    shape: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    return [
        (shape[2 + axis] + pads[axis] + pads[axis + 2] - dilations[axis] * (kernel[axis] - 1) - 1)
        // strides[axis] + 1
        for axis in (0, 1)
    ]  # fmt: skip


def _window(strides: Sequence[int], pads: Sequence[int], dilations: Sequence[int]) -> str:
    values: dict[str, Any] = {"strides": strides, "pads": pads, "dilations": dilations}
    return ", ".join(f"{name} = array<i64: {_list(numbers)}>" for name, numbers in values.items())


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
