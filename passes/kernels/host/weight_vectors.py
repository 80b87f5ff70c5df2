"""Vectors of weights as kernels read them: floats, integers of eight bits, or bits that are 1 or -1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.integers import ceil_div
from patc.passes.kernels.builder import Builder, Index

WORD_BITS = 32  # bits that are loaded together


@dataclass(frozen=True)
class WeightVectors:
    """Weights that lie as [position][slot][lane], for some slots that a kernel goes through at each position.

    Bits lie in words of i32, as [group][slot]: those of a slot at several positions, position by position and lane by
    lane, from the last bit of the word on.

    Attributes:
        memory: of floats, of i8, or of i32 for bits.
    """

    b: Builder
    memory: ir.Value
    lanes: int
    slots: int

    @property
    def group(self) -> int:
        """Positions that lie together."""
        return group_of(self.lanes) if self._are_bits else 1

    @property
    def elements(self) -> int:
        """Elements in memory of a group."""
        return self.slots * (1 if self._are_bits else self.lanes)

    @property
    def _are_bits(self) -> bool:
        return str(self.memory.type.element_type) == "i32"

    def load(self, first: Index, position: int, slot: int) -> ir.Value:
        """Return a vector of weights in the type of sums.

        Args:
            first: where a group is in memory.
            position: from the first one of that group on.
        """
        b = self.b
        if not self._are_bits:
            offset = (position * self.slots + slot) * self.lanes
            return b.convert(b.load(self.memory, first, offset, self.lanes), b.accumulator)
        after, place = divmod(position, self.group)
        word = b.load_scalar(self.memory, b.add(first, after * self.slots + slot))
        bits = [1 << (place * self.lanes + lane) for lane in range(self.lanes)]
        return self._signs(b.broadcast(word, self.lanes), bits)

    def _signs(self, words: ir.Value, bits: list[int]) -> ir.Value:
        """Return 1 where a word has the bit of its lane, and else -1."""
        b, type_ = self.b, words.type
        array = np.array(bits, np.uint32).view(np.int32)
        own = arith.ConstantOp(type_, ir.DenseElementsAttr.get(array, type=type_)).result
        found = arith.AndIOp(words, own).result
        is_set = arith.CmpIOp(arith.CmpIPredicate.ne, found, b.splat(0, self.lanes, b.i32)).result
        ones = [b.splat(sign, self.lanes, b.accumulator) for sign in (1.0, -1.0)]
        return arith.SelectOp(is_set, *ones).result


def group_of(lanes: int) -> int:
    """Return the positions whose bits are in one word."""
    return WORD_BITS // lanes


def pack_bits(weights: np.ndarray) -> np.ndarray:
    """Return bools [...][position][slot][lane] as words [...][group][slot] of i32, see `WeightVectors`."""
    *outer, positions, slots, lanes = weights.shape
    group = group_of(lanes)
    groups = ceil_div(positions, group)
    padded = np.pad(weights, [*[(0, 0)] * len(outer), (0, groups * group - positions), (0, 0), (0, 0)])
    places = np.moveaxis(padded.reshape(*outer, groups, group, slots, lanes), -3, -2)
    flat = np.ascontiguousarray(places).reshape(*outer, groups, slots, WORD_BITS)
    return np.packbits(flat, axis=-1, bitorder="little").view("<i4")[..., 0]
