"""Quantised numbers in kernels on a GPU: the four of a word, or of vectors of words, and words of floats again.

Scales, zero points and ends are numbers of the launch, so that layers share kernels. What becomes an integer is limited
first, as a float, and then rounded by `RoundEven`, which no rounding mode changes. Nothing is divided: GPUs need not
round quotients as f32 does. `Steps` finds the integers of numbers by where each of them begins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, math

from patc.dialects.attributes import Activation
from patc.dialects.quantised import Quantisation
from patc.passes.ir.elements import WORD
from patc.passes.ir.quantised import Rounding, only_limits
from patc.passes.kernels.builder import Index, Vectors, lanes_of
from patc.passes.kernels.gpu.kernel import LANES, Kernel
from patc.passes.kernels.gpu.layer import GpuArray
from patc.passes.kernels.values import apply_activation

_BITS = 8 * WORD


class Unpacking:
    """How words become integers without their zero point."""

    def __init__(self, k: Kernel, quantisation: Quantisation) -> None:
        self._k = k
        self._signed = quantisation.signed
        self._zero = k.integer(quantisation.zero_point)

    def members(self, words: ir.Value) -> Vectors:
        """Return the four numbers of words, in vectors like these."""
        found = stored_members(self._k, words, signed=self._signed)
        return [self._without_zero(number) for number in found]

    def floats(self, words: ir.Value, factor: ir.Value) -> Vectors:
        """Return the four numbers as floats times a factor."""
        k = self._k
        return [k.times(k.convert(number, k.f32), _like(k, factor, number)) for number in self.members(words)]

    def member(self, words: ir.Value, place: Index) -> ir.Value:
        """Return one of the four numbers, the same one of all words."""
        k = self._k
        bits = k.mul(k.subtract(k.index(WORD - 1), k.index(place)), 8)
        amount = arith.IndexCastOp(k.i32, k.index(bits)).result
        shifted = arith.ShLIOp(words, _like(k, amount, words)).result
        return self._without_zero(k.shift_right(shifted, _BITS - 8, signed=self._signed))

    def _without_zero(self, number: ir.Value) -> ir.Value:
        return self._k.minus(number, _like(self._k, self._zero, number))


def stored_members(k: Kernel, words: ir.Value, *, signed: bool) -> Vectors:
    """Return the four bytes of words as integers."""
    shifted = (k.shift_left(words, _BITS - 8 * (place + 1)) for place in range(WORD))
    return [k.shift_right(value, _BITS - 8, signed=signed) for value in shifted]


def join_members(k: Kernel, numbers: Sequence[ir.Value]) -> ir.Value:
    """Return the words of four integers each, whose last eight bits count."""
    first, *others = (k.shift_left(k.bits_and(number, 255), 8 * place) for place, number in enumerate(numbers))
    for other in others:
        first = k.bits_or(first, other)
    return first


class Packing:
    """How floats, in units of the scale or before an activation, become words."""

    def __init__(self, k: Kernel, quantisation: Quantisation, activation: Activation) -> None:
        self._k, self._activation = k, activation
        rounding = Rounding.of(quantisation, activation)
        self._low, self._high = (k.real(float(end)) for end in (rounding.lowest, rounding.highest))
        self._zero = k.integer(quantisation.zero_point)
        self._last = None if only_limits(activation) else k.real(float(rounding.last_factor))

    def words(self, values: Vectors, constants: Sequence[Vectors] | None = None) -> ir.Value:
        """Return the words of four vectors of floats, one of each channel.

        Args:
            constants: of the activation, those of each channel that are not the same for all.
        """
        pairs = zip(values, constants or [[]] * WORD, strict=True)
        return join_members(self._k, [self._integer(value, own) for value, own in pairs])

    def word(self, values: ir.Value) -> ir.Value:
        """Return the word of a vector of four floats."""
        integers = self._integer(values, [])
        return join_members(self._k, [self._k.extract(integers, lane) for lane in range(WORD)])

    def _integer(self, value: ir.Value, constants: Vectors) -> ir.Value:
        """Return a float as an integer with the zero point."""
        k = self._k
        if self._last is not None:
            value = apply_activation(k, value, self._activation, constants)
            value = k.times(value, _like(k, self._last, value))
        return k.plus(round_between(k, value, self._low, self._high), _like(k, self._zero, value))


class Steps:
    """How numbers in f32 become integers, those of their quotients by the scale.

    Args:
        table: of `first_numbers`.
    """

    def __init__(self, k: Kernel, quantisation: Quantisation, table: GpuArray) -> None:
        self._k = k
        self._table, self._first = table.scalars(k)
        self._inverse = k.real(min(1.0 / quantisation.scale, float(np.finfo(np.float32).max)))
        lowest = quantisation.lowest - quantisation.zero_point
        self._low, self._high = (k.real(float(end)) for end in (lowest, lowest + 255))
        self._zero = k.integer(quantisation.zero_point)

    def integer(self, value: ir.Value) -> ir.Value:
        """Return the integers of a vector, with their zero point."""
        k = self._k
        low, high = (k.convert(end, k.i32) for end in (self._low, self._high))
        near = round_between(k, k.times(value, _like(k, self._inverse, value)), self._low, self._high)
        places = k.minus(near, _like(k, low, near))
        starts, ends = (
            k.from_lanes([self._at(k.extract(places, lane), more) for lane in range(LANES)]) for more in (0, 1)
        )
        one, none = (k.splat(number, LANES, k.i32) for number in (1, 0))
        is_more = arith.CmpFOp(arith.CmpFPredicate.OGE, value, ends).result
        is_less = arith.CmpFOp(arith.CmpFPredicate.OLT, value, starts).result
        moved = k.minus(arith.SelectOp(is_more, one, none).result, arith.SelectOp(is_less, one, none).result)
        limited = k.at_most(k.at_least(k.plus(near, moved), _like(k, low, near)), _like(k, high, near))
        return k.plus(limited, _like(k, self._zero, near))

    def _at(self, place: ir.Value, more: int) -> ir.Value:
        """Return where the integer of a place begins, or that of the next one; a place that NaN gave is none."""
        k = self._k
        inside = arith.IndexCastOp(k.index_type, arith.MinUIOp(place, k.scalar(255, k.i32)).result).result
        return k.load_scalar(self._table, k.add(self._first, k.add(inside, more)))


def round_between(k: Kernel, value: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    """Return floats, limited first, as the integers nearest to them, the even one where two are."""
    limited = k.at_most(k.at_least(value, _like(k, low, value)), _like(k, high, value))
    return k.convert(math.RoundEvenOp(limited).result, k.i32)


def _like(k: Kernel, scalar: ir.Value, value: ir.Value) -> ir.Value:
    """Return a scalar in as many lanes as a value has."""
    return k.broadcast(scalar, lanes_of(value)) if isinstance(value.type, ir.VectorType) else scalar
