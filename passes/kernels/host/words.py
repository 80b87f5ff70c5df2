"""Quantised numbers in the lanes of vectors: four of a word become vectors of floats, and floats become words again.

What becomes an integer is limited first, as a float, and then rounded by a sum with 1.5 * 2^23: the last bits of that
are the integer, and ties go to the even one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir

from patc.dialects.attributes import Activation
from patc.dialects.quantised import Quantisation
from patc.passes.ir.elements import WORD
from patc.passes.ir.quantised import Rounding, only_limits
from patc.passes.kernels.builder import Builder, Vectors, lanes_of
from patc.passes.kernels.values import apply_activation

ROUNDING = 12582912.0  # 1.5 * 2^23
EXACT_SUMS = 1 << 22  # integers of smaller magnitude are the last bits of the float that their sum with it is


def unpack(b: Builder, words: ir.Value, quantisation: Quantisation) -> Vectors:
    """Return the numbers of words, without their zero point, as four vectors of floats."""
    zero, signed = b.splat(quantisation.zero_point, lanes_of(words), b.i32), quantisation.signed
    bits = 8 * WORD
    found = []
    for place in range(WORD):
        number = b.shift_right(b.shift_left(words, bits - 8 * (place + 1)), bits - 8, signed=signed)
        found.append(b.convert(b.minus(number, zero) if quantisation.zero_point else number, b.f32))
    return found


def interleave(b: Builder, one: ir.Value, other: ir.Value, part: ir.Type, *, odd: bool = False) -> ir.Value:
    """Return the even or the odd parts of two vectors, in turns, as a vector like them."""
    first, second = (b.bitcast(value, part) for value in (one, other))
    lanes = lanes_of(first)
    picks = [pick for lane in range(int(odd), lanes, 2) for pick in (lane, lanes + lane)]
    return b.bitcast(b.shuffle(first, second, picks), b.i32)


@dataclass(frozen=True)
class Packing:
    """How floats become words of quantised numbers."""

    rounding: Rounding

    def round(self, b: Builder, value: ir.Value) -> ir.Value:
        """Return a vector of floats as integers, without the zero point, whose last eight bits count."""
        lanes = lanes_of(value)
        low, high = (b.splat(float(end), lanes, b.f32) for end in (self.rounding.lowest, self.rounding.highest))
        limited = b.at_most(b.at_least(value, low), high)
        return b.bitcast(b.plus(limited, b.splat(ROUNDING, lanes, b.f32)), b.i32)

    def activated(
        self, b: Builder, value: ir.Value, activation: Activation, constants: Sequence[ir.Value] = ()
    ) -> ir.Value:
        """Return what an activation makes of a vector of floats, in units of the scale; one that only limits is left to
        `round`."""
        if only_limits(activation):
            return value
        made = apply_activation(b, value, activation, constants)
        return b.times(made, b.splat(float(self.rounding.last_factor), lanes_of(value), b.f32))

    def pack(self, b: Builder, values: Vectors) -> ir.Value:
        """Return four vectors of floats, in units of the scale, as words."""
        first, second, third, fourth = (self.round(b, value) for value in values)
        words = interleave(b, interleave(b, first, third, b.i16), interleave(b, second, fourth, b.i16), b.i8)
        return self.shifted(b, words)

    def shifted(self, b: Builder, words: ir.Value) -> ir.Value:
        """Return words of integers with their zero point."""
        zero, bytes_ = self.rounding.result.zero_point, b.bitcast(words, b.i8)
        if not zero:
            return words
        return b.bitcast(b.plus(bytes_, b.splat((zero + 128) % 256 - 128, lanes_of(bytes_), b.i8)), b.i32)
