"""Quantised numbers in the lanes of vectors: four of a word become vectors of floats, and floats become words again.

What becomes an integer is rounded by a sum with 1.5 * 2^23: the last bits of that are the integer, and ties go to the
even one. It is limited before, as a float, or behind, where 16 bits hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.dialects.attributes import Activation
from patc.dialects.quantised import Quantisation
from patc.passes.ir.elements import WORD
from patc.passes.ir.quantised import Rounding, only_limits
from patc.passes.kernels.builder import Builder, Vectors, lanes_of
from patc.passes.kernels.narrowing import Narrowing
from patc.passes.kernels.values import apply_activation

ROUNDING = 12582912.0  # 1.5 * 2^23
EXACT_SUMS = 1 << 22  # integers of smaller magnitude are the last bits of the float that their sum with it is
NARROW = (1 << 15) - 512.0  # numbers of smaller magnitude fit 16 bits with their zero point, rounded


def unpack(b: Builder, words: ir.Value, quantisation: Quantisation) -> Vectors:
    """Return the numbers of words, without their zero point, as four vectors of floats."""
    zero, signed = b.splat(quantisation.zero_point, lanes_of(words), b.i32), quantisation.signed
    bits = 8 * WORD
    if signed:
        return _unpack_signed(b, words, quantisation)
    found = []
    for place in range(WORD):
        number = b.shift_right(b.shift_left(words, bits - 8 * (place + 1)), bits - 8, signed=signed)
        found.append(b.convert(b.minus(number, zero) if quantisation.zero_point else number, b.f32))
    return found


def _unpack_signed(b: Builder, words: ir.Value, quantisation: Quantisation) -> Vectors:
    """Return the same by shuffles alone: a byte behind the first bits of the float 2^23 is that float and the byte."""
    bytes_ = b.bitcast(words, b.i8)
    positive = arith.XOrIOp(bytes_, b.splat(-128, lanes_of(bytes_), b.i8)).result
    lanes = lanes_of(words)
    zeros, start = b.splat(0, lanes, b.i32), b.splat(0x4B000000, lanes, b.i32)
    offset = b.splat(float(2**23 + 128 + quantisation.zero_point), lanes, b.f32)
    found = []
    for place in range(WORD):
        half = interleave(b, positive, zeros, b.i8, odd=bool(place % 2))
        last, first = b.bitcast(half, b.i16), b.bitcast(start, b.i16)
        picks = [pick for lane in range(lanes) for pick in (2 * lane + place // 2, 2 * lanes + 2 * lane + 1)]
        found.append(b.minus(b.bitcast(b.shuffle(last, first, picks), b.f32), offset))
    return found


def interleave(b: Builder, one: ir.Value, other: ir.Value, part: ir.Type, *, odd: bool = False) -> ir.Value:
    """Return the even or the odd parts of two vectors, in turns, as a vector like them."""
    first, second = (b.bitcast(value, part) for value in (one, other))
    lanes = lanes_of(first)
    picks = [pick for lane in range(int(odd), lanes, 2) for pick in (lane, lanes + lane)]
    return b.bitcast(b.shuffle(first, second, picks), b.i32)


@dataclass(frozen=True)
class Packing:
    """How floats become words of quantised numbers.

    Attributes:
        narrowing: of numbers that do not reach `NARROW`; None for others.
        takes_nan: whether numbers may be NaN, which becomes the zero point: its last bits are zeros, to which no float
            adds anything.
    """

    rounding: Rounding
    narrowing: Narrowing | None = None
    takes_nan: bool = False

    def round(self, b: Builder, value: ir.Value) -> ir.Value:
        """Return a vector of floats as integers, without the zero point, whose last eight bits count."""
        limited = between(b, value, float(self.rounding.lowest), float(self.rounding.highest))
        return b.bitcast(b.plus(limited, b.splat(ROUNDING, lanes_of(value), b.f32)), b.i32)

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
        if self.narrowing is not None:
            return self._pack_narrow(b, values, self.narrowing)
        first, second, third, fourth = (self.round(b, value) for value in values)
        words = interleave(b, interleave(b, first, third, b.i16), interleave(b, second, fourth, b.i16), b.i8)
        return self.shifted(b, words)

    def _pack_narrow(self, b: Builder, values: Vectors, narrowing: Narrowing) -> ir.Value:
        """Return the same, limited when 16 bits of each number become eight."""
        result = self.rounding.result
        is_late = result.zero_point % 2 or self.takes_nan  # an even number moves no tie
        magic = ROUNDING + (0 if is_late else result.zero_point)
        sums = [b.bitcast(b.plus(value, b.splat(magic, lanes_of(value), b.f32)), b.i32) for value in values]
        pairs = [b.bitcast(interleave(b, sums[first], sums[first + 2], b.i16), b.i16) for first in (0, 1)]
        if is_late and result.zero_point:
            pairs = [b.plus(pair, b.splat(result.zero_point, lanes_of(pair), b.i16)) for pair in pairs]
        return b.bitcast(self._limited(b, narrowing.interleaved(b, *pairs)), b.i32)

    def _limited(self, b: Builder, bytes_: ir.Value) -> ir.Value:
        """Return integers between the ends of the rounding, which may be narrower than those of bytes."""
        result, count = self.rounding.result, lanes_of(bytes_)
        low, high = (result.zero_point + end for end in (self.rounding.lowest, self.rounding.highest))
        largest, least = (arith.MaxSIOp, arith.MinSIOp) if result.signed else (arith.MaxUIOp, arith.MinUIOp)
        for maker, end, is_free in ((largest, low, low == result.lowest), (least, high, high == result.highest)):
            if not is_free:
                bytes_ = maker(bytes_, b.splat(signed_byte(end), count, b.i8)).result
        return bytes_

    def shifted(self, b: Builder, words: ir.Value) -> ir.Value:
        """Return words of integers with their zero point."""
        zero, bytes_ = self.rounding.result.zero_point, b.bitcast(words, b.i8)
        if not zero:
            return words
        return b.bitcast(b.plus(bytes_, b.splat(signed_byte(zero), lanes_of(bytes_), b.i8)), b.i32)


def between(b: Builder, value: ir.Value, lowest: float, highest: float) -> ir.Value:
    """Return a vector of floats, limited; NaN stays NaN."""
    low, high = (b.splat(end, lanes_of(value), b.f32) for end in (lowest, highest))
    return b.at_most(b.at_least(value, low), high)


def signed_byte(number: int) -> int:
    """Return the bits of a byte as those of one with a sign."""
    return (number + 128) % 256 - 128
