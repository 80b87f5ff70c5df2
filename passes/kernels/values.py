"""What elements become before they are stored, and what lies around them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from torch_mlir import ir

from patc.dialects.attributes import Activation, Layout
from patc.dialects.joins import Join
from patc.dialects.quantised import Quantisation
from patc.passes.activations.base import ActivationKind
from patc.passes.activations.formulas import InKernels, Term
from patc.passes.activations.registry import kind_of
from patc.passes.functions.arithmetic import Arithmetic
from patc.passes.functions.joins import JOINS
from patc.passes.kernels.builder import Builder, element_type, lanes_of

LOWEST = float("-inf")


def fill_value(layout: Layout, quantisation: Quantisation | None = None) -> float:
    """What the halo holds; a word where numbers are quantised."""
    if quantisation is None:
        return LOWEST if layout.fill == "lowest" else 0.0
    return word_of(quantisation.lowest if layout.fill == "lowest" else quantisation.zero_point)


def word_of(byte: int) -> int:
    """Return the word, as an integer with a sign, that holds a byte four times."""
    return int.from_bytes(bytes([byte & 255] * 4), "little", signed=True)


def apply_activation(b: Builder, value: ir.Value, activation: Activation, arrays: Sequence[ir.Value] = ()) -> ir.Value:
    """Return the activation of a vector or a scalar.

    Args:
        arrays: for each constant that is one number a channel, that of this channel, or those of a vector of channels.
    """
    if activation.kind == "none":
        return value
    kind, given = kind_of(activation), element_type(value)
    element = b.f32 if kind.is_long else given
    value, lanes = b.convert(value, element), lanes_of(value)
    converted = (b.convert(array, element) for array in arrays)
    operands = [value, *(array if lanes_of(array) == lanes else b.broadcast(array, lanes) for array in converted)]

    def compute(b: Builder, operands: Sequence[ir.Value]) -> ir.Value:
        return _compute(b, kind, activation, operands)

    made = b.outline(_name(activation, lanes), operands, compute) if kind.is_long else compute(b, operands)
    return b.convert(made, given)


def finish(
    b: Builder, value: ir.Value, joined: tuple[ir.Value, Join] | None, activate: Callable[[ir.Value], ir.Value]
) -> ir.Value:
    """Return the activation of a vector or a scalar that a residual joins, before or after; None for no residual."""
    if joined is None:
        return activate(value)
    join, residual = JOINS[joined[1].function], b.convert(joined[0], element_type(value))
    return join(activate(value), residual) if joined[1].is_last else activate(join(value, residual))


def _compute(b: Builder, kind: ActivationKind, activation: Activation, operands: Sequence[ir.Value]) -> ir.Value:
    a = _InKernel(b, operands[0].type)
    x, *arrays = (Term(a, operand) for operand in operands)
    others = iter(arrays)
    constants = tuple(next(others) if isinstance(each, tuple) else each for each in activation.constants)
    result: Term = kind.compute(InKernels(), x, constants)
    return result.value


class _InKernel(Arithmetic):
    """Arithmetic whose constants are those of a kernel."""

    def __init__(self, b: Builder, kind: ir.Type) -> None:
        super().__init__(kind)
        self._b = b

    def number(self, value: float) -> ir.Value:
        return self._b.splat(value, self.lanes, self.element)


def _name(activation: Activation, lanes: int) -> str:
    """Return what a function that computes an activation is called."""
    constants = (struct.pack(">f", each).hex() for each in activation.constants if isinstance(each, float))
    return ".".join([activation.kind, str(lanes), *constants])
