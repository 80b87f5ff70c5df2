"""Vectors of elements that run-time indices pick out of a table in registers, as the instruction sets have it."""

from __future__ import annotations

import abc
from typing import ClassVar

from torch_mlir import ir

from patc.passes.kernels.builder import Builder, Vectors, element_type, lanes_of
from patc.passes.kernels.dots import bytes_of, intrinsic
from patc.targets import Target


class Lookup(abc.ABC):
    """One way to pick f32 elements out of tables of 32, as tiles of packs are, in vectors one behind the other.

    Attributes:
        lanes: of a vector.
        cycles: in which a vector is picked, beside other work.
    """

    lanes: ClassVar[int]
    cycles: ClassVar[float]

    @abc.abstractmethod
    def pick(self, b: Builder, table: Vectors, places: ir.Value) -> ir.Value:
        """Return the elements at places, a vector of i32 from 0 to 31."""


class TwoRegisters(Lookup):
    """`vpermi2ps` of AVX-512."""

    lanes = 16
    cycles = 1.0

    def pick(self, b: Builder, table: Vectors, places: ir.Value) -> ir.Value:
        low, high = table
        return intrinsic("llvm.x86.avx512.vpermi2var.ps.512", low.type, low, places, high)


class Permutes(Lookup):
    """`vpermps` of AVX2, of each eight elements, and blends by the other bits of a place."""

    lanes = 8
    cycles = 4.5

    def pick(self, b: Builder, table: Vectors, places: ir.Value) -> ir.Value:
        found = [intrinsic("llvm.x86.avx2.permps", vector.type, vector, places) for vector in table]
        for bit in (3, 4):
            choice = b.bitcast(b.shift_left(places, 31 - bit), element_type(table[0]))  # by the sign
            pairs = zip(found[::2], found[1::2], strict=True)
            found = [intrinsic("llvm.x86.avx.blendv.ps.256", low.type, low, high, choice) for low, high in pairs]
        return found[0]


class Tables(Lookup):
    """`tbl` and `tbx` of NEON, whose tables have 64 bytes."""

    lanes = 4
    cycles = 6.0

    def pick(self, b: Builder, table: Vectors, places: ir.Value) -> ir.Value:
        # The bytes of element p are 4 p, 4 p + 1, 4 p + 2 and 4 p + 3.
        first = b.times(places, b.splat(0x04040404, lanes_of(places), b.i32))
        numbers = bytes_of(b, b.plus(first, b.splat(0x03020100, lanes_of(places), b.i32)))
        halves = [[bytes_of(b, vector) for vector in table[start : start + 4]] for start in (0, 4)]
        low = intrinsic("llvm.aarch64.neon.tbl4.v16i8", numbers.type, *halves[0], numbers)
        beyond = b.minus(numbers, b.splat(64, lanes_of(numbers), b.i8))
        both = intrinsic("llvm.aarch64.neon.tbx4.v16i8", numbers.type, low, *halves[1], beyond)
        return b.bitcast(both, element_type(table[0]))


def lookup_of(target: Target) -> Lookup | None:
    """Return how a CPU picks out of tables; None for one that has no instruction for it."""
    ways = {("x86_64", 16): TwoRegisters(), ("x86_64", 8): Permutes(), ("aarch64", 4): Tables()}
    return ways.get((target.architecture, target.lanes))
