"""Linear layers whose weights are packs: a filter in each lane, the inputs of a pack permuted out of a tile.

for some bundles of filters:
  for some rows of the input:
    for each tile of the inputs:
      x = the tile of each row                      # stays in registers
      for each bundle:
        for each pack of the bundle in the tile:
          sums of each row += values * x[index]     # in all lanes
    store activation(sums + bias + residual)

Where filters are in an order of their own, sums are stored as they come, and another kernel puts them in place.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.row_ends import finish_rows
from patc.passes.kernels.lookups import Lookup


@dataclass(frozen=True)
class Packs:
    """Packs in memory.

    Attributes:
        values, index: [pack][slot].
        offset: the first pack of each bundle and tile, and their number.
        slots: of a bundle.
        tile: inputs of one.
        bundles: how many there are.
        tiles: of all inputs; the last one may overlap its neighbour.
    """

    values: ir.Value
    index: ir.Value
    offset: ir.Value
    slots: int
    tile: int
    bundles: int
    tiles: int


@dataclass(frozen=True)
class PackPermute:
    """The loops of output[n, slot] = activation(bias[slot] + sum over packs of values * source[n, index] + residual).

    `schedule.filters` are the slots of the bundles that share the tiles of `schedule.rows` rows. Groups of bundles and
    of rows at the end start early and may overlap their neighbours. Tiles of the work are groups of rows.

    Attributes:
        loops: source and output are N x C and N x slots, each row a channel of one element high.
    """

    loops: Loops
    packs: Packs
    lookup: Lookup

    @property
    def _b(self) -> Builder:
        return self.loops.b

    @property
    def _rows(self) -> int:
        return min(self.loops.schedule.rows, self.loops.source.channels)

    @property
    def _group(self) -> int:
        """Bundles that share tiles."""
        return self.loops.schedule.filters // self.packs.slots

    @property
    def _vectors(self) -> int:
        """Vectors of a bundle."""
        return self.packs.slots // self.loops.schedule.lanes

    def emit(self) -> None:
        """Emit all loops."""
        b, work, count = self._b, self.loops.kernel.work, self.loops.source.channels

        def one_group(number: ir.Value) -> None:
            bundle = b.minimum(b.mul(number, self._group), self.packs.bundles - self._group)

            def some_rows(group: Index) -> None:
                row = b.minimum(b.mul(group, self._rows), count - self._rows)
                sums = self._sums(row, bundle)
                # By bundle, then by row: ends have all vectors of a row together.
                size = self._rows * self._vectors
                by_row = [
                    sums[group * size + member * self._vectors + vector]
                    for member in range(self._rows)
                    for group in range(self._group)
                    for vector in range(self._vectors)
                ]
                finish_rows(self.loops, row, b.mul(bundle, self.packs.slots), by_row, self._group * self._vectors)

            if self._rows == count:
                some_rows(0)
            else:
                b.each(work.first_tile, work.last_tile, some_rows)

        b.each(work.first_filter, work.last_filter, one_group)

    def _sums(self, row: Index, bundle: Index) -> Vectors:
        """Return the sums of a group of bundles: each has the vectors of each row."""
        b, inputs = self._b, self.loops.source.width
        rows = [b.mul(b.add(row, member), inputs) for member in range(self._rows)]
        zero = b.splat(0.0, self.loops.schedule.lanes, b.accumulator)
        sums = [zero] * (self._group * self._rows * self._vectors)
        whole = inputs // self.packs.tile
        sums = b.loop(0, whole, sums, lambda t, sums: self._tile(rows, bundle, t, b.mul(t, self.packs.tile), sums))
        if whole < self.packs.tiles:
            sums = self._tile(rows, bundle, whole, inputs - self.packs.tile, sums)
        return sums

    def _tile(self, rows: list[Index], bundle: Index, tile: Index, first: Index, sums: Vectors) -> Vectors:
        """Add the products of a tile.

        Args:
            first: of its inputs.
        """
        b, lanes, size = self._b, self.loops.schedule.lanes, len(sums) // self._group
        memory = self.loops.source.memory
        tables = [
            [
                b.convert(b.load(memory, b.add(row, first), start, lanes), b.accumulator)
                for start in range(0, self.packs.tile, lanes)
            ]
            for row in rows
        ]
        made: Vectors = []
        for member in range(self._group):
            place = b.add(b.mul(b.add(bundle, member), self.packs.tiles), tile)
            begin, end = (b.load_index(self.packs.offset, b.add(place, next_)) for next_ in (0, 1))
            own = sums[member * size : (member + 1) * size]
            made += b.loop(begin, end, own, lambda pack, sums: self._pack(tables, pack, sums))
        return made

    def _pack(self, tables: list[Vectors], pack: Index, sums: Vectors) -> Vectors:
        """Add the products of a pack."""
        b, lanes, made = self._b, self.loops.schedule.lanes, list(sums)
        first = b.mul(pack, self.packs.slots)
        for vector in range(self._vectors):
            places = b.convert(b.load(self.packs.index, first, vector * lanes, lanes), b.i32)
            values = b.convert(b.load(self.packs.values, first, vector * lanes, lanes), b.accumulator)
            for number, table in enumerate(tables):
                slot = number * self._vectors + vector
                made[slot] = b.fma(values, self.lookup.pick(b, table, places), made[slot])
        return made


def put_in_place(loops: Loops, places: ir.Value) -> None:
    """Emit the loops that give sums the order of the outputs, and end them.

    Args:
        loops: the source has the sums of each row; tiles and filters of the work are rows and vectors of outputs.
        places: of each output among the sums.
    """
    b, work, lanes = loops.b, loops.kernel.work, loops.schedule.lanes
    memory, width = loops.source.memory, loops.source.width

    def one_row(row: ir.Value) -> None:
        start = b.mul(row, width)

        def one_vector(number: ir.Value) -> None:
            first = b.minimum(b.mul(number, lanes), loops.output.width - lanes)
            found = [b.add(start, b.load_index(places, b.add(first, lane))) for lane in range(lanes)]
            sums = b.from_lanes([b.convert(b.load_scalar(memory, place), b.accumulator) for place in found])
            finish_rows(loops, row, first, [sums], 1)

        b.each(work.first_filter, work.last_filter, one_vector)

    b.each(work.first_tile, work.last_tile, one_row)
