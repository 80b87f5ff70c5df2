"""Dense-direct convolution by dot products of words; see `dense_direct`.

Where products are faster with small weights (see `Dots.of_small_weights`), large ones are two halves: one among all
weights, the other in a list of its filter, which is gone through behind them:

    for entry of the filter: sums += dot(words at its place, weights)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch_mlir import ir

from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.dots import SMALL, in_halves
from patc.passes.kernels.host.dense_direct import DenseDirect
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops


@dataclass(frozen=True)
class Extras:
    """Second halves of large weights, in memory.

    Attributes:
        pairs: a place behind the group's first word, and weights.
        ends: of the entries of each filter, one more in front.
    """

    pairs: ir.Value
    ends: ir.Value

    @staticmethod
    def of(words: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the words of small weights among all, and the pairs and ends of others, of i32.

        Args:
            words: F x ... of i32.
            places: of each word of a filter.
        """
        first, second = in_halves(words, SMALL)
        rows = second.reshape(len(words), -1)
        filters, numbers = np.nonzero(rows)
        pairs = np.stack([places.ravel()[numbers], rows[filters, numbers]], axis=1).astype(np.int32)
        ends = np.concatenate([[0], np.cumsum(np.count_nonzero(rows, axis=1))]).astype(np.int32)
        return first, pairs if len(pairs) else np.zeros((1, 2), np.int32), ends


@dataclass(frozen=True)
class DotDirect(DenseDirect):
    """The loops.

    Attributes:
        extras: None where all weights are among the dense ones.
    """

    extras: Extras | None

    def _all_channels(self, tile: Tile, plane: Index, block: tuple[Index, Index], accumulators: Vectors) -> Vectors:
        sums = super()._all_channels(tile, plane, block, accumulators)
        if self.extras is None:
            return sums
        b, loops, size = self.loops.b, self.loops, self.loops.schedule.filters
        first, area = b.minimum(b.mul(block[1], size), loops.channels - size), tile.rows * len(tile.chunks)
        made: Vectors = []
        for member in range(size):
            own = sums[member * area : (member + 1) * area]
            made += self._with_extras(tile, plane, b.add(first, member), own, self.extras)
        return made

    def _with_extras(self, tile: Tile, plane: Index, filter_: Index, sums: Vectors, extras: Extras) -> Vectors:
        """Add the products of a filter's entries to its sums."""
        b, loops = self.loops.b, self.loops

        def one_entry(entry: ir.Value, found: Vectors) -> Vectors:
            base = b.add(plane, b.load_index(extras.pairs, b.mul(entry, 2)))
            scalar, made = b.load_scalar(extras.pairs, b.add(b.mul(entry, 2), 1)), list[ir.Value]()
            for row in range(tile.rows):
                for chunk in tile.chunks:
                    data = b.load(loops.source.memory, base, place_behind(loops, row, chunk.column), chunk.lanes)
                    made.append(loops.product(b.broadcast(scalar, chunk.lanes), data, found[len(made)]))
            return made

        ends = [b.load_index(extras.ends, b.add(filter_, more)) for more in (0, 1)]
        return b.loop(ends[0], ends[1], sums, one_entry)


def place_behind(loops: Loops, row: int, column: int) -> int:
    """Return how far behind that of a tile's first output an input lies that another output reads through the same
    tap, in a layout with a phase for each column of a stride."""
    return row * loops.window.strides[0] * loops.source.layout.pitch + column
