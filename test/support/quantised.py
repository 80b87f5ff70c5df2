"""Nets on quantised activations as text, with the numbers that they are to compute, bit by bit: docs/int8.md in numpy."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from torch_mlir import ir

from patc.backends.registry import find_backend
from patc.compiler import host_pipeline
from patc.context import make_context
from patc.dialects.schedules import Schedule
from patc.execution import compile_module
from patc.mlir_files import parse_module
from patc.parameters import ParameterStore
from patc.passes.base import PassState
from patc.passes.ir.functions import defined_functions, top_level_ops
from patc.passes.layers.registry import kind_of
from patc.runtime.program import Program
from patc.targets import get_target

F32 = np.float32


@dataclass(frozen=True)
class Scale:
    """What integers from 0 to 255 stand for."""

    scale: float
    zero: int

    def text(self, signed: bool) -> str:
        storage, zero = ("si8", self.zero - 128) if signed else ("ui8", self.zero)
        return f"!pattern.quantised<{storage}, {float(F32(self.scale))!r} : f32, {zero} : i64>"


@dataclass(frozen=True)
class Value:
    """A value of the net: floats, or integers from 0 to 255 with what they stand for."""

    name: str
    array: np.ndarray
    scale: Scale | None = None


@dataclass
class QuantisedNet:
    """A net that is built op by op.

    Attributes:
        signed: whether integers are stored with a sign; then they are less by 128, and stand for the same.
    """

    signed: bool
    lines: list[str] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    parameters: dict[str, np.ndarray] = field(default_factory=dict)
    names: int = 0

    def input(self, array: np.ndarray) -> Value:
        self.inputs.append(Value(f"%x{len(self.inputs)}", array.astype(F32)))
        return self.inputs[-1]

    def quantise(self, value: Value, scale: Scale) -> Value:
        terms = _real(value) / F32(scale.scale) if value.scale is None else _units(value, scale)
        return self._op("pattern.relayout", [value], "", _round(terms, scale), scale)

    def dequantise(self, value: Value) -> Value:
        return self._op("pattern.relayout", [value], "", _real(value))

    def add(self, a: Value, b: Value, scale: Scale, activation: str = "none") -> Value:
        terms = [_real(each) / F32(scale.scale) if each.scale is None else _units(each, scale) for each in (a, b)]
        array = _round(terms[0] + terms[1], scale, activation)
        return self._op("pattern.add", [a, b], f"activation = {ACTIVATIONS[activation]}", array, scale)

    def conv(
        self,
        x: Value,
        weight: np.ndarray,
        scales: np.ndarray,
        bias: np.ndarray | None,
        scale: Scale | None,
        *,
        stride: int = 1,
        pad: int = 0,
        dilation: int = 1,
        groups: int = 1,
        residual: Value | None = None,
        activation: str = "none",
    ) -> Value:
        sums = _convolve(_integers(x), weight, stride, pad, dilation, groups)
        sums += 0 if bias is None else bias[:, None, None].astype(np.int64)
        array = self._finish(x, sums, scales[:, None, None], scale, residual, activation)
        window = (
            f"strides = array<i64: {stride}, {stride}>, dilations = array<i64: {dilation}, {dilation}>, "
            f"pads = array<i64: {pad}, {pad}, {pad}, {pad}>, groups = {groups} : i64"
        )
        return self._weighted("pattern.conv2d", x, (weight, scales, bias), residual, activation, (array, scale), window)

    def linear(
        self,
        x: Value,
        weight: np.ndarray,
        scales: np.ndarray,
        bias: np.ndarray | None,
        scale: Scale | None,
        activation: str = "none",
    ) -> Value:
        sums = _integers(x) @ weight.astype(np.int64).T + (0 if bias is None else bias)
        array = self._finish(x, sums, scales, scale, None, activation)
        return self._weighted("pattern.linear", x, (weight, scales, bias), None, activation, (array, scale))

    def max_pool(self, x: Value, kernel: int, stride: int, pad: int) -> Value:
        assert x.scale is not None
        padded = np.pad(x.array, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        array = _windows(padded, kernel, stride).max(axis=(-2, -1))
        return self._op("pattern.max_pool2d", [x], _window(kernel, stride, pad), array, x.scale)

    def mean_pool(self, x: Value, kernel: tuple[int, int], stride: int, scale: Scale, pad: int = 0) -> Value:
        """Add average pooling that counts what is padded."""
        assert x.scale is not None
        padded = np.pad(_integers(x), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        sums = _windows(padded, kernel, stride).sum(axis=(-2, -1))
        factor = (F32(x.scale.scale) / F32(scale.scale)) / F32(kernel[0] * kernel[1])
        attributes = _window(kernel, stride, pad) + ", count_include_pad = true"
        return self._op("pattern.avg_pool2d", [x], attributes, _round(sums.astype(F32) * factor, scale), scale)

    def enlarge(self, x: Value, factor: int) -> Value:
        """Repeat rows and columns."""
        array = x.array.repeat(factor, axis=2).repeat(factor, axis=3)
        places = [
            self._constant((np.arange(size) // factor).astype(np.int32).reshape(1, -1)) for size in array.shape[2:]
        ]
        attributes = 'activation = "none", operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 0>'
        return self._op("pattern.resample", [x, *places], attributes, array, x.scale)

    def concat(self, parts: Sequence[Value]) -> Value:
        value = Value(self._name(), np.concatenate([part.array for part in parts], axis=1), parts[0].scale)
        names, types = ", ".join(part.name for part in parts), ", ".join(map(self._type, parts))
        self.lines.append(f"{value.name} = tensor.concat dim(1) {names} : ({types}) -> {self._type(value)}")
        return value

    def flatten(self, x: Value) -> Value:
        """Take planes of one place as rows."""
        value = Value(self._name(), x.array.reshape(x.array.shape[:2]), x.scale)
        types = self._type(x), self._type(value)
        self.lines.append(
            f"{value.name} = tensor.collapse_shape {x.name} [[0], [1, 2, 3]] : {types[0]} into {types[1]}"
        )
        return value

    def text(self, *results: Value) -> str:
        heads = ", ".join(f"{value.name}: {self._type(value)}" for value in self.inputs)
        types = ", ".join(map(self._type, results))
        names = ", ".join(value.name for value in results)
        return "\n".join([f"func.func @main({heads}) -> ({types}) {{", *self.lines, f"return {names} : {types}", "}"])

    def _finish(
        self,
        x: Value,
        sums: np.ndarray,
        scales: np.ndarray,
        scale: Scale | None,
        residual: Value | None,
        activation: str,
    ) -> np.ndarray:
        assert x.scale is not None and np.abs(sums).max(initial=0) < 2**31
        unit = F32(1.0) if scale is None else F32(scale.scale)
        value = sums.astype(F32) * ((F32(x.scale.scale) * scales) / unit)
        if residual is not None:
            value = value + (_real(residual) if scale is None else _units(residual, scale))
        if scale is None:
            return np.clip(value, *LIMITS[activation]).astype(F32)
        return _round(value, scale, activation)

    def _weighted(
        self,
        name: str,
        x: Value,
        constants: tuple[np.ndarray, np.ndarray, np.ndarray | None],
        residual: Value | None,
        activation: str,
        made: tuple[np.ndarray, Scale | None],
        window: str = "",
    ) -> Value:
        weight, scales, bias = constants
        operands = [x, self._constant(weight), *([] if bias is None else [self._constant(bias)])]
        operands += [] if residual is None else [residual]
        attributes = ", ".join(
            [
                *([window] if window else []),
                f"activation = {ACTIVATIONS[activation]}",
                f"operandSegmentSizes = array<i32: 1, 1, {int(bias is not None)}, {int(residual is not None)}>",
                f"scales = array<f32: {', '.join(repr(float(number)) for number in scales)}>",
            ]
        )
        return self._op(name, operands, attributes, *made)

    def _name(self) -> str:
        self.names += 1
        return f"%v{self.names}"

    def _constant(self, array: np.ndarray) -> Value:
        name = f"p{len(self.parameters)}"
        self.parameters[name] = array
        value = Value(self._name(), array)
        line = f'{value.name} = "pattern.parameter"() {{name = "{name}"}} : () -> {self._type(value)}'
        self.lines.append(line)
        return value

    def _op(
        self, name: str, operands: Sequence[Value], attributes: str, array: np.ndarray, scale: Scale | None = None
    ) -> Value:
        value = Value(self._name(), array, scale)
        names, types = ", ".join(each.name for each in operands), ", ".join(map(self._type, operands))
        self.lines.append(f'{value.name} = "{name}"({names}) {{{attributes}}} : ({types}) -> {self._type(value)}')
        return value

    def _type(self, value: Value) -> str:
        kinds = {"float32": "f32", "int8": "i8", "int32": "i32"}
        element = kinds.get(value.array.dtype.name) if value.scale is None else value.scale.text(self.signed)
        return f"tensor<{'x'.join(map(str, value.array.shape))}x{element}>"


ACTIVATIONS = {"none": '"none"', "relu": '"relu"', "clamp": "#pattern.clamp<-0.75 : f32, 1.5 : f32>"}
LIMITS = {"none": (-np.inf, np.inf), "relu": (0.0, np.inf), "clamp": (-0.75, 1.5)}


def _window(kernel: int | tuple[int, int], stride: int, pad: int) -> str:
    height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    return (
        f"kernel = array<i64: {height}, {width}>, strides = array<i64: {stride}, {stride}>, "
        f"dilations = array<i64: 1, 1>, pads = array<i64: {pad}, {pad}, {pad}, {pad}>"
    )


def _windows(array: np.ndarray, kernel: int | tuple[int, int], stride: int) -> np.ndarray:
    shape = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    return np.lib.stride_tricks.sliding_window_view(array, shape, axis=(2, 3))[:, :, ::stride, ::stride]


def _integers(value: Value) -> np.ndarray:
    """Return the integers without their zero point."""
    assert value.scale is not None
    return value.array.astype(np.int64) - value.scale.zero


def _real(value: Value) -> np.ndarray:
    return value.array if value.scale is None else _integers(value).astype(F32) * F32(value.scale.scale)


def _units(value: Value, scale: Scale) -> np.ndarray:
    """Return a quantised value in units of a scale."""
    assert value.scale is not None
    return _integers(value).astype(F32) * (F32(value.scale.scale) / F32(scale.scale))


def _round(value: np.ndarray, scale: Scale, activation: str = "none") -> np.ndarray:
    ends = [np.rint(end / F32(scale.scale)) + scale.zero for end in LIMITS[activation]]
    low, high = (np.clip(end, 0, 255) for end in ends)
    return np.clip(np.rint(value).astype(np.float64) + scale.zero, low, high).astype(np.uint8)


def _convolve(x: np.ndarray, w: np.ndarray, stride: int, pad: int, dilation: int, groups: int) -> np.ndarray:
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    height, width = (
        (size - dilation * (extent - 1) - 1) // stride + 1
        for size, extent in zip(x.shape[2:], w.shape[2:], strict=True)
    )
    parts = zip(np.split(x, groups, axis=1), np.split(w.astype(np.int64), groups), strict=True)
    made = []
    for given, weight in parts:
        sums = np.zeros((len(x), len(weight), height, width), np.int64)
        for dy in range(w.shape[2]):
            for dx in range(w.shape[3]):
                rows = slice(dy * dilation, dy * dilation + stride * (height - 1) + 1, stride)
                columns = slice(dx * dilation, dx * dilation + stride * (width - 1) + 1, stride)
                sums += np.einsum("nchw,fc->nfhw", given[:, :, rows, columns], weight[:, :, dy, dx])
        made.append(sums)
    return np.concatenate(made, axis=1)


Choose: TypeAlias = Callable[[Any, list[Schedule]], Schedule]


def run_quantised(
    net: QuantisedNet, results: Sequence[Value], target: str, threads: int = 1, choose: Choose | None = None
) -> list[np.ndarray]:
    """Return what the code of a net computes; `choose` draws from the candidates of each of its layers."""
    program = compile_quantised(net, results, target, threads, choose)
    return find_backend(program.backend).run(program, [value.array for value in net.inputs])


def compile_quantised(
    net: QuantisedNet, results: Sequence[Value], target: str, threads: int = 1, choose: Choose | None = None
) -> Program:
    """Return a net's program; see `run_quantised`."""
    context = make_context()
    module, _ = parse_module(net.text(*results), context)
    store = ParameterStore(dict(net.parameters))
    state, machine = PassState(store), get_target(target)
    host_pipeline(machine, threads).until("schedule").run(module, state)
    if choose is not None:
        with context, ir.Location.unknown():
            for function in defined_functions(module):
                for op in top_level_ops(function):
                    if "schedule" in op.attributes:
                        op.attributes["schedule"] = choose(op, _candidates(op, machine, state)).to_attr()
    return compile_module(module, store, target=target, threads=threads, stage="schedule")


def _candidates(op: Any, machine: Any, state: PassState) -> list[Schedule]:
    kind: Any = kind_of(op)
    found = [each for each in kind.algorithms(machine, op) if each.applies(op)]
    return [item.schedule for algorithm in found for item in algorithm.candidates(op, machine, state, 1)]


def drawn(choices: random.Random) -> Choose:
    """Return a choice of any algorithm, and of any of its tiles."""

    def choose(op: Any, candidates: list[Schedule]) -> Schedule:
        name = choices.choice(sorted({candidate.algorithm for candidate in candidates}))
        return choices.choice([candidate for candidate in candidates if candidate.algorithm == name])

    return choose
