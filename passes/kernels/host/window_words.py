"""Dense convolutions of quantised planes with less than four channels, by words of a window's numbers.

Planes hold the same place of up to four channels a word; with three, as pictures have, a quarter of each product would
be wasted. So the numbers that a window sees become words without gaps, those of one place after those of the other:

    for tile of rows x columns:
      for word of the window: [word][row][column] of the tile, in scratch memory of the thread
      for block of filters: for word: sums += dot(word, weights)    # filters x outputs of a tile in registers
      store activation(sums * factors)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import Layout
from patc.integers import ceil_div
from patc.passes.ir.elements import WORD
from patc.passes.ir.windows import Window
from patc.passes.kernels.builder import Builder, Index
from patc.passes.kernels.host.dense_direct import DenseWeights
from patc.passes.kernels.host.dot_direct import DotDirect, Extras
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Turn
from patc.passes.kernels.host.quantised import QuantisedLoops
from patc.passes.kernels.host.rows import Tensor
from patc.passes.kernels.tiling import Chunk


@dataclass(frozen=True)
class Piece:
    """What a word takes of one place of the input: its bytes, moved to the left by `bits`, or to the right."""

    place: int
    bits: int


@dataclass(frozen=True)
class WindowWords:
    """The words of a window: number n of them holds the numbers 4n to 4n + 3 of all places, channels innermost.

    Attributes:
        channels: of the input, less than four.
        places: of the window.
    """

    channels: int
    places: int

    @staticmethod
    def of(window: Window, channels: int) -> WindowWords:
        return WindowWords(channels, math.prod(window.kernel))

    @property
    def count(self) -> int:
        return ceil_div(self.channels * self.places, WORD)

    def pieces(self, word: int) -> Iterator[Piece]:
        """Yield what a word is made of."""
        first, end = word * WORD, min((word + 1) * WORD, self.channels * self.places)
        for place in range(first // self.channels, ceil_div(end, self.channels)):
            yield Piece(place, 8 * (place * self.channels - first))

    def pack(self, weight: np.ndarray) -> np.ndarray:
        """Return F x C x KH x KW weights of i8 as F x words of i32."""
        numbers = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
        padded = np.pad(numbers, ((0, 0), (0, self.count * WORD - numbers.shape[1])))
        words: np.ndarray = np.ascontiguousarray(padded).view("<i4")
        return words


@dataclass(frozen=True)
class _PanelLoops(QuantisedLoops):
    """The loops over words that were made of a tile's inputs: `source` is a tile, which begins at `start`."""

    start: Index

    def base(self, tile: Tile) -> Index:
        return self.start

    def prefetch_next(self, tile: Tile, base: Index, turn: Turn) -> None:
        """Ask for nothing: the words were made just now."""


@dataclass(frozen=True)
class WindowDirect:
    """The loops.

    Attributes:
        words: that are made of each window.
        pitch: elements from one row of words of a tile to the next.
        blocks: of filters.
        memory: holds the words of a tile from `start` on.
    """

    loops: QuantisedLoops
    words: WindowWords
    pitch: int
    weights: DenseWeights
    extras: Extras | None
    blocks: int
    memory: ir.Value
    start: Index

    @staticmethod
    def memory_size(words: WindowWords, rows: int, pitch: int) -> int:
        """Return the elements of `memory`."""
        return words.count * rows * pitch

    def emit(self) -> None:
        """Emit all loops."""
        work, b = self.loops.kernel.work, self.loops.b
        self.loops.for_tiles(lambda tile: b.each(work.first_filter, work.last_filter, lambda _: self._tile(tile)))

    def _tile(self, tile: Tile) -> None:
        loops, rows, count = self.loops, tile.rows, self.words.count
        layout = Layout(row=self.pitch, plane=rows * self.pitch)
        panel = Tensor(self.memory, 1, count, rows, self.pitch, layout, count, layout.plane, loops.source.quantisation)
        kernel = replace(loops.kernel, window=Window((1, 1)))
        given = {**vars(loops), "kernel": kernel, "source": panel}
        direct = DotDirect(_PanelLoops(**given, start=self.start), self.weights, self.extras)
        base = loops.base(tile)
        loops.b.each(0, rows, lambda row: self._make_row(tile, base, row))
        loops.b.each(0, self.blocks, lambda number: direct.one_block(tile, number))

    def _make_row(self, tile: Tile, base: Index, row: ir.Value) -> None:
        """Write the words of a row of a tile."""
        b, loops = self.loops.b, self.loops
        down = loops.window.strides[0] * loops.source.layout.pitch
        given = b.add(base, b.mul(row, down))
        made = b.add(self.start, b.mul(row, self.pitch))
        for chunk in tile.chunks:
            seen: dict[int, ir.Value] = {}
            for word in range(self.words.count):
                value: ir.Value | None = None
                for piece in self.words.pieces(word):
                    if piece.place not in seen:
                        seen[piece.place] = self._numbers(given, piece.place, chunk)
                    moved = _moved(b, seen[piece.place], piece.bits)
                    value = moved if value is None else b.bits_or(value, moved)
                b.store(value, self.memory, made, word * tile.rows * self.pitch + chunk.column)

    def _numbers(self, base: Index, place: int, chunk: Chunk) -> ir.Value:
        """Return the words of a place of the window, with zeros for channels that there are not."""
        y, x = divmod(place, self.loops.window.kernel[1])
        vector = self.loops.input_vector(base, 0, (0, y, x), chunk)
        return self.loops.b.bits_and(vector, (1 << 8 * self.words.channels) - 1)


def _moved(b: Builder, value: ir.Value, bits: int) -> ir.Value:
    if bits == 0:
        return value
    return b.shift_left(value, bits) if bits > 0 else b.shift_right(value, -bits, signed=False)
