"""Convolutions whose weights are bands: a column's input is loaded once for all filters of a band, which may be one.

for tile of `rows` x `columns` outputs:
  for some filters of a band:
    accumulators = bias
    for column of the band:
      vectors = input at the column's place
      for filter: accumulators += its weight * vectors
    store activation(accumulators + residual)

One loop serves weights at any taps, so that zeros need no pattern; taps share no loads.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from torch_mlir import ir

from patc.passes.kernels.builder import Vectors
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops


@dataclass(frozen=True)
class BandWeights:
    """The columns in memory, band by band.

    Attributes:
        rows: filters of a band.
        values: K x rows.
        places: of the input of each column, counted from a tile's base.
        offset: the first column of each band, and K.
        reorder: F, the output channel of each stored filter.
    """

    rows: int
    values: ir.Value
    places: ir.Value
    offset: ir.Value
    reorder: ir.Value


@dataclass(frozen=True)
class BandDirect:
    """The loops; `schedule.filters` filters, which divide a band, share the input vectors.

    Attributes:
        filters_first: go through the planes one after the other, where a filter reads a single channel.
    """

    loops: Loops
    weights: BandWeights
    filters_first: bool = False

    def emit(self) -> None:
        """Emit all loops."""
        self.loops.for_work(self._some_filters, filters_first=self.filters_first)

    def _some_filters(self, tile: Tile, number: ir.Value) -> None:
        b, weights, loops, block = self.loops.b, self.weights, self.loops, self.loops.schedule.filters
        band, part = b.divide(number, weights.rows // block)
        first, last = (b.load_index(weights.offset, b.add(band, end)) for end in (0, 1))
        stored = b.mul(number, block)
        channels = [b.load_index(weights.reorder, b.add(stored, member)) for member in range(block)]
        base, down = loops.base(tile), loops.window.strides[0] * loops.source.layout.pitch
        lanes = sorted({chunk.lanes for chunk in tile.chunks})

        def one_column(column: ir.Value, accumulators: Vectors) -> Vectors:
            place = b.add(base, b.load_index(weights.places, column))
            places = [(row * down + chunk.column, chunk.lanes) for row in range(tile.rows) for chunk in tile.chunks]

            # Loaded where the first filter wants it: of all at once a CPU with few registers would have to spill some.
            @functools.cache
            def vector(at: int, count: int) -> ir.Value:
                return b.load(loops.source.memory, place, at, count)

            made, sums = [], iter(accumulators)
            for member in range(block):
                address = b.add(b.add(b.mul(column, weights.rows), b.mul(part, block)), member)
                scalar = b.load_scalar(weights.values, address)
                weight = {count: b.broadcast(scalar, count) for count in lanes}
                made += [b.fma(weight[count], vector(at, count), next(sums)) for at, count in places]
            return made

        for channel in channels:
            loops.prefetch_ends(tile, channel)
        starts = [start for channel in channels for start in loops.first_accumulators(tile, channel)]
        found, size = b.loop(first, last, starts, one_column), len(starts) // block
        for member, channel in enumerate(channels):
            loops.store_tile(tile, tile.by_row(found[member * size : (member + 1) * size]), channel)
