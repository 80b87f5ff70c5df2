"""Sums over packs: weights of several filters or units, one in each lane, whose elements permutes pick from a tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir

from patc.integers import ceil_div
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.lookups import Lookup


@dataclass(frozen=True)
class Packs:
    """Packs in memory.

    Attributes:
        values, index: [pack][slot].
        offset: the first pack of each bundle and tile, and their number.
        slots: of a bundle.
        tile: elements of one.
        inputs: elements that the weights multiply; the last tile may overlap its neighbour.
    """

    b: Builder
    lookup: Lookup
    values: ir.Value
    index: ir.Value
    offset: ir.Value
    slots: int
    tile: int
    inputs: int

    @property
    def vectors(self) -> int:
        """Vectors of a bundle."""
        return self.slots // self.lookup.lanes

    def sums(self, bundles: Sequence[Index], given: tuple[ir.Value, list[Index]], starts: Vectors) -> Vectors:
        """Return the sums of some bundles' products with each row, from given ones on: by bundle, then by row.

        Args:
            given: memory of the elements, and where each row begins.
        """
        b, whole = self.b, self.inputs // self.tile
        sums = b.loop(
            0, whole, starts, lambda number, sums: self._tile(bundles, number, b.mul(number, self.tile), given, sums)
        )
        if self.inputs % self.tile:
            sums = self._tile(bundles, whole, self.inputs - self.tile, given, sums)
        return sums

    def _tile(
        self,
        bundles: Sequence[Index],
        number: Index,
        first: Index,
        given: tuple[ir.Value, list[Index]],
        sums: Vectors,
    ) -> Vectors:
        """Add the products of a tile, which begins with the element `first`."""
        b, lanes, (memory, rows) = self.b, self.lookup.lanes, given
        tables = [
            [
                b.convert(b.load(memory, b.add(row, first), at, lanes), b.accumulator)
                for at in range(0, self.tile, lanes)
            ]
            for row in rows
        ]
        made: Vectors = []
        for bundle in bundles:
            place = b.add(b.mul(bundle, ceil_div(self.inputs, self.tile)), number)
            begin, end = (b.load_index(self.offset, b.add(place, next_)) for next_ in (0, 1))
            own = sums[len(made) : len(made) + len(sums) // len(bundles)]
            made += b.loop(begin, end, own, lambda pack, sums: self._pack(tables, pack, sums))
        return made

    def _pack(self, tables: list[Vectors], pack: Index, sums: Vectors) -> Vectors:
        """Add the products of a pack."""
        b, lanes, made = self.b, self.lookup.lanes, list(sums)
        first = b.mul(pack, self.slots)
        for vector in range(self.vectors):
            places = b.convert(b.load(self.index, first, vector * lanes, lanes), b.i32)
            values = b.convert(b.load(self.values, first, vector * lanes, lanes), b.accumulator)
            for number, table in enumerate(tables):
                slot = number * self.vectors + vector
                made[slot] = b.fma(values, self.lookup.pick(b, table, places), made[slot])
        return made
