"""Sums over columns: each a vector of weights, of neighbouring filters or units, and the element that it multiplies."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from patc.passes.kernels.builder import Builder, Index, Vectors


@dataclass(frozen=True)
class Columns:
    """Lists of columns in memory.

    Attributes:
        values: [column][vector][lane], a stream through memory.
        index: the element of the input that each multiplies.
        offset: the first column of each list, and their number.
        vectors: of a column.
    """

    b: Builder
    lanes: int
    values: ir.Value
    index: ir.Value
    offset: ir.Value
    vectors: int = 1

    def sums(self, number: Index, given: tuple[ir.Value, list[Index]], starts: Vectors, chains: int) -> Vectors:
        """Return the sums of a list's products with each row, a column's vectors each, from given ones on.

        Args:
            given: memory of the input, and where each row begins.
            chains: sums of the same in flight, of columns in turn.
        """
        b, size = self.b, len(starts)
        first, last = (b.load_index(self.offset, b.add(number, place)) for place in (0, 1))
        zeros = [b.splat(0.0, self.lanes, b.accumulator)] * (size * (chains - 1))

        def some(place: Index, sums: Vectors, count: int) -> Vectors:
            made: Vectors = []
            for turn in range(count):
                made += self._one(b.add(place, turn), given, sums[turn * size : (turn + 1) * size])
            return made

        middle = b.add(first, b.mul(b.divide(b.subtract(last, first), chains)[0], chains))
        sums = b.loop(first, middle, [*starts, *zeros], lambda place, sums: some(place, sums, chains), chains)
        total = sums[:size]
        for chain in range(1, chains):
            total = [b.plus(one, other) for one, other in zip(total, sums[chain * size :][:size], strict=True)]
        return b.loop(middle, last, total, lambda place, sums: some(place, sums, 1)) if chains > 1 else total

    def _one(self, place: Index, given: tuple[ir.Value, list[Index]], sums: Vectors) -> Vectors:
        """Add the products of one column to the sums of each row."""
        b, lanes, made = self.b, self.lanes, []
        memory, rows = given
        element, first = b.load_index(self.index, place), b.mul(place, self.vectors * lanes)
        weights = [
            b.convert(b.load(self.values, first, vector * lanes, lanes), b.accumulator)
            for vector in range(self.vectors)
        ]
        for number, row in enumerate(rows):
            factor = b.broadcast(b.convert(b.load_scalar(memory, b.add(row, element)), b.accumulator), lanes)
            for vector, weight in enumerate(weights, number * self.vectors):
                made.append(b.fma(factor, weight, sums[vector]))
        return made
