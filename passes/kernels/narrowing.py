"""Integers of 16 bits become bytes, limited to what these hold, as the instruction sets do it best."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from patc.passes.kernels.builder import Builder, lanes_of
from patc.passes.kernels.dots import intrinsic
from patc.targets import Target


@dataclass(frozen=True)
class Narrowing(abc.ABC):
    """One way to do it.

    Attributes:
        signed: whether bytes are -128 to 127, or else 0 to 255.
    """

    signed: bool

    @abc.abstractmethod
    def interleaved(self, b: Builder, even: ir.Value, odd: ir.Value) -> ir.Value:
        """Return the elements of two vectors in turns, as bytes."""


class Plain(Narrowing):
    """Maxima and minima."""

    def interleaved(self, b: Builder, even: ir.Value, odd: ir.Value) -> ir.Value:
        low, high = (-128, 127) if self.signed else (0, 255)
        count = lanes_of(even)
        limited = (
            b.at_most(b.at_least(value, b.splat(low, count, b.i16)), b.splat(high, count, b.i16))
            for value in (even, odd)
        )
        return in_turns(b, *(b.convert(value, b.i8) for value in limited))


class Sqxtn(Narrowing):
    """`sqxtn` and `sqxtun` of AArch64."""

    def interleaved(self, b: Builder, even: ir.Value, odd: ir.Value) -> ir.Value:
        name, count = "sqxtn" if self.signed else "sqxtun", lanes_of(even)
        type_ = ir.VectorType.get([count], b.i8)
        return in_turns(b, *(intrinsic(f"llvm.aarch64.neon.{name}.v{count}i8", type_, value) for value in (even, odd)))


class Packuswb(Narrowing):
    """`packuswb` of x86-64, for bytes without a sign. It puts eight elements of either vector side by side in each 16
    bytes, which are then interleaved."""

    _NAMES: ClassVar = {8: "sse2.packuswb.128", 16: "avx2.packuswb", 32: "avx512.packuswb.512"}
    _PART: ClassVar = 8

    def interleaved(self, b: Builder, even: ir.Value, odd: ir.Value) -> ir.Value:
        count = lanes_of(even)
        packed = intrinsic(f"llvm.x86.{self._NAMES[count]}", ir.VectorType.get([2 * count], b.i8), even, odd)
        places = [place for lane in range(self._PART) for place in (lane, self._PART + lane)]
        parts = range(0, 2 * count, 2 * self._PART)
        return b.shuffle(packed, packed, [part + place for part in parts for place in places])


def in_turns(b: Builder, even: ir.Value, odd: ir.Value) -> ir.Value:
    """Return the elements of two vectors in turns."""
    count = lanes_of(even)
    return b.shuffle(even, odd, [pick for lane in range(count) for pick in (lane, count + lane)])


def narrowing_of(target: Target, *, signed: bool) -> Narrowing:
    """Return how a CPU does it best."""
    if target.architecture == "aarch64":
        return Sqxtn(signed)
    return Plain(signed) if signed else Packuswb(signed)
