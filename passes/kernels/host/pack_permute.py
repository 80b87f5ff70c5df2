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

from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.packs import Packs
from patc.passes.kernels.host.row_ends import finish_rows
from patc.passes.kernels.host.row_groups import RowGroups


@dataclass(frozen=True)
class PackPermute(RowGroups):
    """The loops of output[n, slot] = activation(bias[slot] + sum over packs of values * source[n, index] + residual).

    `schedule.filters` are the slots of the bundles that share the tiles of `schedule.rows` rows. Groups of bundles and
    of rows at the end start early and may overlap their neighbours. Tiles of the work are groups of rows.

    Attributes:
        bundles: how many there are.
    """

    packs: Packs
    bundles: int

    @property
    def _group(self) -> int:
        """Bundles that share tiles."""
        return self.loops.schedule.filters // self.packs.slots

    def emit(self) -> None:
        """Emit all loops."""
        b, work = self._b, self.loops.kernel.work

        def one_group(number: ir.Value) -> None:
            bundle = b.minimum(b.mul(number, self._group), self.bundles - self._group)

            def some_rows(row: Index) -> None:
                sums = self._sums(row, bundle)
                finish_rows(self.loops, row, b.mul(bundle, self.packs.slots), sums, self._group * self.packs.vectors)

            self._each_group(some_rows)

        b.each(work.first_filter, work.last_filter, one_group)

    def _sums(self, row: Index, bundle: Index) -> Vectors:
        """Return the sums of a group of bundles, row by row."""
        b, vectors = self._b, self.packs.vectors
        rows = [b.mul(b.add(row, member), self.loops.source.width) for member in range(self._rows)]
        bundles = [b.add(bundle, member) for member in range(self._group)]
        starts = [b.splat(0.0, self.loops.schedule.lanes, b.accumulator)] * (self._group * self._rows * vectors)
        sums = self.packs.sums(bundles, (self.loops.source.memory, rows), starts)
        size = self._rows * vectors
        by_bundle = [sums[first : first + size] for first in range(0, len(sums), size)]
        return [
            value for first in range(0, size, vectors) for own in by_bundle for value in own[first : first + vectors]
        ]


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
