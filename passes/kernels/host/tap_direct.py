"""Tap-direct sparse convolution: the accumulators of a tile stay in registers, and each kept weight says what it reads.

    for tile of `rows` x `columns` outputs:
      for filter:
        accumulators = bias
        for kept weight:
          accumulators += weight * input vectors at the weight's place
        store activation(accumulators + residual)

One loop serves weights at any taps, so that zeros need no pattern; taps share no loads.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from patc.passes.kernels.builder import Vectors
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops


@dataclass(frozen=True)
class ScatteredWeights:
    """The kept weights in memory, filter by filter.

    Attributes:
        places: of the input of each, counted from a tile's base.
        offset: F + 1, the first weight of each stored filter.
        reorder: F, the output channel of each stored filter.
    """

    values: ir.Value
    places: ir.Value
    offset: ir.Value
    reorder: ir.Value


@dataclass(frozen=True)
class TapDirect:
    """The loops.

    Attributes:
        filters_first: go through the planes one after the other, where a filter reads a single channel.
    """

    loops: Loops
    weights: ScatteredWeights
    filters_first: bool

    def emit(self) -> None:
        """Emit all loops."""
        self.loops.for_work(self._one_filter, filters_first=self.filters_first)

    def _one_filter(self, tile: Tile, stored: ir.Value) -> None:
        b, weights, loops = self.loops.b, self.weights, self.loops
        channel = b.load_index(weights.reorder, stored)
        first, last = (b.load_index(weights.offset, b.add(stored, end)) for end in (0, 1))
        base, down = loops.base(tile), loops.window.strides[0] * loops.source.layout.pitch
        lanes = sorted({chunk.lanes for chunk in tile.chunks})

        def one_weight(number: ir.Value, accumulators: Vectors) -> Vectors:
            place = b.add(base, b.load_index(weights.places, number))
            scalar = b.load_scalar(weights.values, number)
            weight = {count: b.broadcast(scalar, count) for count in lanes}
            vectors = [
                (chunk.lanes, b.load(loops.source.memory, place, row * down + chunk.column, chunk.lanes))
                for row in range(tile.rows)
                for chunk in tile.chunks
            ]
            return [b.fma(weight[count], each, sum_) for (count, each), sum_ in zip(vectors, accumulators, strict=True)]

        loops.prefetch_ends(tile, channel)
        accumulators = b.loop(first, last, loops.first_accumulators(tile, channel), one_weight)
        loops.store_tile(tile, tile.by_row(accumulators), channel)
