"""Depthwise convolutions of quantised planes, by words of neighbours of a row.

A word of a plane is the same place of four channels, of which a filter multiplies one. So the words of up to four
neighbouring columns become those of four channels, each with its own four columns, in registers; each row is made once
for all rows of outputs that it is a part of:

    for tile of `rows` x `columns` outputs, of four filters:
      for input row: for run of up to four columns of the window:
        four words = transposed bytes of the columns
        for output row that reads it: sums of each filter += dot(its word, weights of the row)
      store activation(sums * factors)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from patc.passes.ir.elements import WORD
from patc.passes.ir.windows import Window
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.dense_direct import DenseDirect
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.words import interleave
from patc.passes.kernels.tiling import Chunk


def runs(width: int) -> list[range]:
    """Return the columns of a window by the words that they share: four, and what is left."""
    return [range(first, min(first + WORD, width)) for first in range(0, width, WORD)]


def pack(weight: np.ndarray) -> np.ndarray:
    """Return F x 1 x KH x KW weights of i8 as F x 1 x KH x runs of i32. A run of one column is no word of its own: its
    weight has the place of the filter among its neighbours."""
    filters, _, height, width = weight.shape
    words = np.zeros((filters, 1, height, len(runs(width)), WORD), np.int8)
    for number, run in enumerate(runs(width)):
        if len(run) == 1:
            words[np.arange(filters), 0, :, number, np.arange(filters) % WORD] = weight[:, 0, :, run.start]
        else:
            words[:, 0, :, number, : len(run)] = weight[:, 0, :, run.start : run.stop]
    found: np.ndarray = words.view("<i4")[..., 0]
    return found


def rows_read(window: Window, rows: int) -> dict[int, list[tuple[int, int]]]:
    """Return which rows a tile of so many reads, counted from its first one, and for each the output rows and the rows
    of the window that meet there."""
    found: dict[int, list[tuple[int, int]]] = {}
    for row in range(rows):
        for dy in range(window.kernel[0]):
            found.setdefault(row * window.strides[0] + dy * window.dilations[0], []).append((row, dy))
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class RowWords(DenseDirect):
    """The loops. A block has four filters, whose channels are those of a plane."""

    @property
    def _taps(self) -> int:
        height, width = self.loops.window.kernel
        return height * len(runs(width))

    def _one_channel(self, tile: Tile, base: Index, weights: Index, accumulators: Vectors) -> Vectors:
        b, loops, block, sums = self.loops.b, self.loops, self._block, list(accumulators)
        width, chunks = loops.window.kernel[1], len(tile.chunks)
        area = tile.rows * chunks
        for meets in rows_read(loops.window, tile.rows).values():
            for place, chunk in enumerate(tile.chunks):
                for number, words in enumerate(self._words(base, meets[0], chunk)):
                    for row, dy in meets:
                        first = (dy * len(runs(width)) + number) * block
                        for member, word in enumerate(words):
                            scalar = b.load_scalar(self.weights.values, b.add(weights, first + member))
                            weight, own = b.broadcast(scalar, chunk.lanes), member * area + row * chunks + place
                            sums[own] = loops.product(weight, word, sums[own])
        return sums

    def _words(self, base: Index, meets: tuple[int, int], chunk: Chunk) -> Iterator[Vectors]:
        """Yield, for each run, the words of the four filters in an input row, that of an output row and one of the
        window."""
        (row, dy), loops = meets, self.loops
        for run in runs(loops.window.kernel[1]):
            columns = [loops.input_vector(base, row, (0, dy, x), chunk) for x in run]
            yield columns * WORD if len(run) == 1 else transposed(loops.b, columns)


def transposed(b: Builder, columns: Vectors) -> Vectors:
    """Return vectors of words whose bytes are four channels as four whose bytes are two to four columns, any bytes
    behind them."""
    four = [*columns, *[columns[-1]] * (WORD - len(columns))]
    halves = [[interleave(b, four[at], four[at + 1], b.i8, odd=odd) for at in (0, 2)] for odd in (False, True)]
    pairs = [halves[member % 2] for member in range(WORD)]
    return [interleave(b, left, right, b.i16, odd=member >= 2) for member, (left, right) in enumerate(pairs)]
