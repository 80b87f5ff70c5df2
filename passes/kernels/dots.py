"""Dot products of four bytes a lane, as the instruction sets have them: sum + w0 x0 + w1 x1 + w2 x2 + w3 x3 in i32.

Activations and weights are words, vectors of i32 whose bytes are the four numbers; weights have a sign. All ways are
exact and give equal sums.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import llvm, spirv

from patc.passes.ir.elements import WORD
from patc.passes.kernels.builder import Builder, lanes_of
from patc.targets import Target

PACKED = "#spirv.packed_vector_format<PackedVectorFormat4x8Bit>"
SMALL = 128  # 255 times as much fits 16 bits, of either sign


@dataclass(frozen=True)
class Dots(abc.ABC):
    """One way to compute dot products.

    Attributes:
        signed: whether activations have a sign; they are 0 to 255 else.
        instructions: of a product, in the time of multiply-adds of as many lanes; measured where there are several.
        latency_cycles: from a sum to the next one of the same lanes; 0 for that of a multiply-add.
        first_lanes: in which memory has what a filter's sums begin with, for loops that load less than they multiply.
            With a vector of them each vector of sums is loaded: copies of a register take the pipes of the products.
        words_at_once: of weights that one load gives, each for vectors of its own: instructions pick them from it.
        together: words whose products `add_together` adds to a sum at once.
    """

    signed: ClassVar[bool]
    instructions: ClassVar[float] = 1.0
    latency_cycles: ClassVar[float] = 0.0
    first_lanes: ClassVar[int] = 1
    words_at_once: ClassVar[int] = 1
    together: ClassVar[int] = 1

    @property
    def of_small_weights(self) -> Dots | None:
        """A faster way where of each two neighbouring weights of a word those of one sign are at most `SMALL` together;
        None without one."""
        return None

    @property
    def of_partners(self) -> Dots | None:
        """A faster way of small weights where what is said of those of one word is so of `together` words, which are
        multiplied together; None without one."""
        return None

    @abc.abstractmethod
    def add(self, b: Builder, total: ir.Value, data: ir.Value, weights: ir.Value) -> ir.Value:
        """Return the sums with the products of a vector of activations and one of weights."""

    def add_together(self, b: Builder, total: ir.Value, products: Sequence[tuple[ir.Value, ir.Value]]) -> ir.Value:
        """Return the sums with the products of several vectors of activations, each with one of weights."""
        for data, weights in products:
            total = self.add(b, total, data, weights)
        return total


class Vnni(Dots):
    """`vpdpbusd` of AVX512-VNNI and AVX-VNNI."""

    signed = False

    def add(self, b: Builder, total: ir.Value, data: ir.Value, weights: ir.Value) -> ir.Value:
        bits, bytes_ = 32 * lanes_of(total), [bytes_of(b, value) for value in (data, weights)]
        return intrinsic(f"llvm.x86.avx512.vpdpbusd.{bits}", total.type, total, *bytes_)


class Pairs(Dots):
    """`vpmaddwd` of AVX2: even and odd bytes as pairs of 16 bits."""

    signed = False
    instructions = 3.5
    latency_cycles = 1.0
    NAMES: ClassVar = {4: "sse2.pmadd.wd", 8: "avx2.pmadd.wd", 16: "avx512.pmaddw.d.512"}

    @property
    def of_small_weights(self) -> Dots | None:
        return Bytes()

    def add(self, b: Builder, total: ir.Value, data: ir.Value, weights: ir.Value) -> ir.Value:
        name, halves = f"llvm.x86.{self.NAMES[lanes_of(total)]}", b.i16
        even, odd = (b.bitcast(value, halves) for value in (data, weights))
        pairs = (
            (b.bits_and(even, 255), b.shift_right(b.shift_left(odd, 8), 8, signed=True)),
            (b.shift_right(even, 8, signed=False), b.shift_right(odd, 8, signed=True)),
        )
        for numbers, factors in pairs:
            total = b.plus(total, intrinsic(name, total.type, numbers, factors))
        return total


class Bytes(Dots):
    """`vpmaddubsw` of AVX2, whose sums of two products fit 16 bits for small weights."""

    signed = False
    instructions = 2.0
    latency_cycles = 1.0
    _NAMES: ClassVar = {4: "ssse3.pmadd.ub.sw.128", 8: "avx2.pmadd.ub.sw", 16: "avx512.pmaddubs.w.512"}

    @property
    def of_partners(self) -> Dots | None:
        return BytePairs()

    def add(self, b: Builder, total: ir.Value, data: ir.Value, weights: ir.Value) -> ir.Value:
        return self.add_together(b, total, [(data, weights)])

    def add_together(self, b: Builder, total: ir.Value, products: Sequence[tuple[ir.Value, ir.Value]]) -> ir.Value:
        lanes = lanes_of(total)
        name, pairs = f"llvm.x86.{self._NAMES[lanes]}", ir.VectorType.get([2 * lanes], b.i16)
        sums = [intrinsic(name, pairs, *(bytes_of(b, value) for value in product)) for product in products]
        ones = b.splat(1, 2 * lanes, b.i16)
        widened = intrinsic(f"llvm.x86.{Pairs.NAMES[lanes]}", total.type, functools.reduce(b.plus, sums), ones)
        return b.plus(total, widened)


class BytePairs(Bytes):
    """The same of two words: their sums are added in 16 bits, and one `vpmaddwd` widens both."""

    instructions = 1.75
    together = 2

    @property
    def of_partners(self) -> Dots | None:
        return None


class Sdot(Dots):
    """`sdot` of AArch64's dot product extension."""

    signed = True
    latency_cycles = 1.0
    first_lanes = 4
    words_at_once = 2

    def add(self, b: Builder, total: ir.Value, data: ir.Value, weights: ir.Value) -> ir.Value:
        bytes_ = [bytes_of(b, value) for value in (data, weights)]
        return intrinsic("llvm.aarch64.neon.sdot.v4i32.v16i8", total.type, total, *bytes_)


class Packed(Dots):
    """`OpSDot` of SPIR-V, of words."""

    signed = True
    instructions = 2.0

    def add(self, b: Builder, total: ir.Value, data: ir.Value, weights: ir.Value) -> ir.Value:
        lanes, format_ = range(lanes_of(total)), ir.Attribute.parse(PACKED)
        words = zip(*([b.extract(value, lane) for lane in lanes] for value in (data, weights)), strict=True)
        return b.plus(total, b.from_lanes([spirv.SDotOp(b.i32, *pair, format=format_).result for pair in words]))


class Plain(Dots):
    """Multiplications of 32 bits, for what has none of the others."""

    signed = True
    instructions = 20.0
    latency_cycles = 1.0

    def add(self, b: Builder, total: ir.Value, data: ir.Value, weights: ir.Value) -> ir.Value:
        for place in range(4):
            factors = (b.shift_right(b.shift_left(word, 24 - 8 * place), 24, signed=True) for word in (data, weights))
            total = b.plus(total, b.times(*factors))
        return total


def dots_of(target: Target) -> Dots:
    """Return how a machine computes dot products best."""
    if target.architecture == "x86_64":
        return Vnni() if {"avx512vnni", "avxvnni"} & set(target.features) else Pairs()
    if "dotprod" not in target.features:
        return Plain()
    return Packed() if target.algorithms == "gpu" else Sdot()


def in_halves(words: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return words of i8 weights, of i32, as two whose products are theirs together. Of the first two weights of a word
    and of the last two those of one sign are at most `most` together: larger ones become two of half as much, the
    second words are zeros else."""
    fours = np.ascontiguousarray(words).view(np.int8).reshape(*words.shape, WORD)
    pairs = fours.astype(int).reshape(*words.shape, 2, 2)
    large = [np.maximum(sign * pairs, 0).sum(axis=-1).max(axis=-1, initial=0) > most for sign in (1, -1)]
    is_large, halves = np.logical_or(*large)[..., None], fours // 2
    parts = (np.where(is_large, half, one) for half, one in ((halves, fours), (fours - halves, 0)))
    first, second = (np.ascontiguousarray(part.astype(np.int8)).view("<i4")[..., 0] for part in parts)
    return first, second


def bytes_of(b: Builder, words: ir.Value) -> ir.Value:
    """Return words as a vector of bytes."""
    return b.bitcast(words, b.i8)


def intrinsic(name: str, type_: ir.Type, *operands: ir.Value) -> ir.Value:
    """Return the result of an LLVM intrinsic."""
    return llvm.call_intrinsic(type_, ir.StringAttr.get(name), operands, [], [])
