"""Read per-channel arithmetic: what computes a * x + b with constants a and b for each channel, op by op."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.passes.base import PassState
from patc.passes.ir.bodies import is_elementwise, used_arguments
from patc.passes.raising.evaluate import NotConstant, evaluate_operand, evaluate_region


class Affine:
    """a * x + b, where x is an N x C x H x W tensor and a and b broadcast to its shape."""

    # Makes numpy leave `array * affine` to this class.
    __array_ufunc__ = None

    def __init__(self, scale: Any, shift: Any) -> None:
        self.scale = scale
        self.shift = shift

    def __add__(self, other: Any) -> Affine:
        return Affine(self.scale, self.shift + _known(other))

    def __sub__(self, other: Any) -> Affine:
        return Affine(self.scale, self.shift - _known(other))

    def __rsub__(self, other: Any) -> Affine:
        return -self + other

    def __mul__(self, other: Any) -> Affine:
        return Affine(self.scale * _known(other), self.shift * _known(other))

    def __truediv__(self, other: Any) -> Affine:
        return Affine(self.scale / _known(other), self.shift / _known(other))

    def __neg__(self) -> Affine:
        return Affine(-self.scale, -self.shift)

    __radd__, __rmul__ = __add__, __mul__


def _known(value: Any) -> Any:
    if isinstance(value, Affine):
        raise TypeError("expected a number: the product of two tensors is not affine")
    return value


@dataclass(frozen=True)
class Chain:
    """Per-channel arithmetic on one tensor.

    Attributes:
        end: the result.
        scale, shift: C values each, float64.
        ops: what computes it, first to last.
    """

    end: ir.Value
    scale: np.ndarray
    shift: np.ndarray
    ops: tuple[ir.Operation, ...] = ()


def read_chain(
    data: ir.Value, state: PassState, first: ir.Operation | None = None, barred: Container[ir.Value] = ()
) -> Chain:
    """Return the longest chain of ops on `data` that begins with `first`, or with its only user; each of the others is
    the only user of the one before, and the result of none is barred."""
    channels = data.type.shape[1]
    chain = Chain(data, np.ones(channels), np.zeros(channels))
    op = first or only_user(data)
    while op is not None and not any(result in barred for result in op.results):
        step = read_affine(op, chain.end, state)
        if step is None:
            break
        with np.errstate(all="ignore"):
            scale, shift = chain.scale * step[0], chain.shift * step[0] + step[1]
        chain = Chain(op.result, scale, shift, (*chain.ops, op))
        op = only_user(op.result)
    return chain


def read_affine(op: ir.Operation, data: ir.Value, state: PassState) -> tuple[np.ndarray, np.ndarray] | None:
    """Return scale and shift of a linalg.generic that computes scale * data + shift for each channel."""
    if not is_elementwise(op) or op.result.type != data.type or data.type.rank != 4:
        return None
    maps = [attr.value for attr in op.attributes["indexing_maps"]]
    arguments: dict[int, Any] = {}
    try:
        for number in used_arguments(op):
            operand = op.operands[number]
            if operand == data and maps[number] == maps[-1]:
                arguments[number] = Affine(1.0, 0.0)
            else:
                arguments[number] = evaluate_operand(op, number, state)
        result = evaluate_region(op, arguments)
    except NotConstant:
        return None
    if not isinstance(result, Affine):
        return None
    scale, shift = (per_channel(values, data.type.shape[1]) for values in (result.scale, result.shift))
    return None if scale is None or shift is None else (scale, shift)


def per_channel(values: Any, channels: int) -> np.ndarray | None:
    """Return N x C x H x W values (or what broadcasts to them) as C values, if they vary along C only."""
    array = np.asarray(values)
    array = array.reshape((1,) * (4 - array.ndim) + array.shape)
    # The axes of a broadcast view have stride 0: their elements are the same without looking.
    array = array[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)]
    first = array[:1, :, :1, :1]
    if array.shape != first.shape and not np.array_equal(array, np.broadcast_to(first, array.shape)):
        return None
    return np.broadcast_to(first.reshape(-1), channels)


def only_user(value: ir.Value) -> ir.Operation | None:
    """Return the op that alone has a value as its operand, or None."""
    owners = [use.owner.operation for use in value.uses]
    return owners[0] if owners and all(owner == owners[0] for owner in owners) else None
