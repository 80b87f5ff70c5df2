"""Convolutions of quantised planes with few weights, by words of 2x2 blocks.

A word holds four neighbours of one channel, Q(y, x) = [I(y, x), I(y, x+1), I(y+1, x), I(y+1, x+1)]; kept weights are
entries of a word's place and four weights. All patterns of four neighbours are one entry at some place, any mask is
covered by a few:

    for tile of rows:
      for channel: its words, in scratch memory of the thread
      for four filters:
        for each: for entry: sums += dot(words at its place, weights)    # sums of the tile in registers
        store activation(sums * factors)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch_mlir import ir

from patc.integers import ceil_div
from patc.passes.ir.elements import WORD
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.quantised import QuantisedLoops
from patc.passes.kernels.tiling import Chunk

_LINE = 16  # words


@dataclass(frozen=True)
class Scratch:
    """The words of a tile of `rows` x `width` outputs, in rows of `pitch`, planes of `plane` words.

    Attributes:
        packed: rows that one vector holds, where they are short.
        sums: words in front of them, for the sums of four filters.
    """

    rows: int
    pitch: int
    plane: int
    channels: int
    packed: int
    sums: int

    @staticmethod
    def of(rows: int, width: int, lanes: int, channels: int) -> Scratch:
        covered = tiling.covered(width, lanes)
        packed = lanes // covered if width < covered < lanes else 1
        pitch = covered if packed > 1 else ceil_div(covered + 1, _LINE) * _LINE
        # Planes an odd number of lines apart share no set of a cache.
        lines = ceil_div((rows + 1) * pitch, _LINE) | 1
        sums = WORD * rows * ceil_div(covered, _LINE) * _LINE
        return Scratch(rows, pitch, lines * _LINE, ceil_div(channels, WORD) * WORD, packed, sums)

    @property
    def vectors(self) -> int:
        """Vectors of a column of chunks."""
        return ceil_div(self.rows, self.packed)

    @property
    def size(self) -> int:
        return self.sums + self.channels * self.plane + _LINE

    def place(self, channel: int, y: int, x: int) -> int:
        """Return where the word of a block is that is (y, x) behind the window's begin, for the tile's first output."""
        return self.sums + channel * self.plane + y * self.pitch + x


@dataclass(frozen=True)
class BlockWords:
    """The loops.

    Attributes:
        scratch: how the memory is used, `memory`, from `start` on.
        entries: places and weights, a pair each.
        ends: of the entries of each filter, one more in front.
    """

    loops: QuantisedLoops
    scratch: Scratch
    memory: ir.Value
    start: Index
    entries: ir.Value
    ends: ir.Value

    def emit(self) -> None:
        """Emit all loops."""
        work, b = self.loops.kernel.work, self.loops.b
        self.loops.for_tiles(lambda tile: b.each(work.first_filter, work.last_filter, lambda _: self._tile(tile)))

    def _tile(self, tile: Tile) -> None:
        b, loops = self.loops.b, self.loops
        base = loops.base(tile)
        b.each(0, self.scratch.channels // WORD, lambda plane: self._expand(tile, base, plane))
        b.each(0, loops.channels // loops.group, lambda number: self._group(tile, b.mul(number, loops.group)))

    def _expand(self, tile: Tile, base: Index, plane: ir.Value) -> None:
        """Write the words of four channels."""
        b, source, scratch = self.loops.b, self.loops.source, self.scratch
        given = b.add(base, b.mul(plane, source.layout.plane))
        made = b.add(self.start, b.mul(plane, WORD * scratch.plane))
        chunks = tiling.cut(tile.chunks[-1].column + tile.chunks[-1].valid + 1, self.loops.schedule.lanes)
        for chunk in chunks:
            above: tuple[ir.Value, ir.Value] | None = None
            for row in range(tile.rows + 2):
                pair = self._pair(given, row, chunk)
                if above is not None:
                    for member, words in enumerate(_blocks(b, above, pair)):
                        b.store(words, self.memory, made, scratch.place(member, row - 1, chunk.column))
                above = pair

    def _pair(self, base: Index, row: int, chunk: Chunk) -> tuple[ir.Value, ir.Value]:
        """Return the bytes of words and of their neighbours on the right, those of even and those of odd channels."""
        b, loops = self.loops.b, self.loops
        left, right = (loops.input_vector(base, row, (0, 0, x), chunk) for x in (0, 1))
        low, high = 0x00FF00FF, -0x00FF0100
        even = b.bits_or(b.bits_and(left, low), b.shift_left(b.bits_and(right, low), 8))
        odd = b.bits_or(b.bits_and(b.shift_right(left, 8, signed=False), low), b.bits_and(right, high))
        return even, odd

    def _group(self, tile: Tile, first: Index) -> None:
        """Compute the filters whose results are stored together."""
        b, loops, lanes = self.loops.b, self.loops, max(chunk.lanes for chunk in tile.chunks)
        step = ceil_div(tile.rows, self.scratch.packed) * self.scratch.packed * len(tile.chunks) * lanes

        def one(member: ir.Value) -> None:
            place = b.add(self.start, b.mul(member, step))
            for number, value in enumerate(self._sums(tile, b.add(first, member))):
                b.store(value, self.memory, place, number * lanes * self.scratch.packed)

        if loops.group > 1 or self.scratch.packed > 1:
            b.each(0, loops.group, one)
            members = [self._parked(tile, b.add(self.start, member * step), lanes) for member in range(loops.group)]
        else:
            members = [self._sums(tile, first)]
        loops.store_group(tile, [tile.by_row(member) for member in members], first)

    def _parked(self, tile: Tile, start: Index, lanes: int) -> Vectors:
        """Return the sums of a filter that were stored, `lanes` for each vector."""
        b, chunks = self.loops.b, tile.chunks * tile.rows
        return [b.load(self.memory, start, number * lanes, chunk.lanes) for number, chunk in enumerate(chunks)]

    def _sums(self, tile: Tile, filter_: Index) -> Vectors:
        """Return the sums of a filter, of several rows a vector where they are packed."""
        b, scratch = self.loops.b, self.scratch
        if scratch.packed > 1:
            bias = b.load_scalar(self.loops.epilogue.bias, filter_)
            first = [b.broadcast(bias, tile.chunks[0].lanes * scratch.packed)] * scratch.vectors
        else:
            first = self.loops.first_accumulators(tile, filter_)

        def entry(number: ir.Value, sums: Vectors) -> Vectors:
            pair = b.mul(number, 2)
            place = b.add(self.start, b.load_index(self.entries, pair))
            weights, made = b.load_scalar(self.entries, b.add(pair, 1)), []
            for position, total in enumerate(sums):
                row, column = divmod(position, len(tile.chunks))
                chunk = tile.chunks[column]
                lanes, offset = chunk.lanes * scratch.packed, row * scratch.packed * scratch.pitch + chunk.column
                data = b.load(self.memory, place, offset, lanes)
                made.append(self.loops.product(b.broadcast(weights, lanes), data, total))
            return made

        begin, end = (b.load_index(self.ends, b.add(filter_, place)) for place in (0, 1))
        return b.loop(begin, end, first, entry)


def _blocks(b: Builder, above: tuple[ir.Value, ir.Value], below: tuple[ir.Value, ir.Value]) -> Vectors:
    """Return the words of blocks of four channels, from two rows of what `_pair` returns."""
    made = []
    for high in (False, True):
        for one, other in zip(above, below, strict=True):
            if high:
                made.append(b.bits_or(b.shift_right(one, 16, signed=False), b.bits_and(other, -0x10000)))
            else:
                made.append(b.bits_or(b.bits_and(one, 0xFFFF), b.shift_left(other, 16)))
    return made


def cover(weight: np.ndarray, scratch: Scratch) -> tuple[np.ndarray, np.ndarray]:
    """Return the entries of F x C x KH x KW weights of i8 as pairs of i32, and where those of each filter end."""
    pairs: list[tuple[int, int]] = []
    ends = [0]
    for kernels in weight:
        for channel in np.flatnonzero(kernels.any(axis=(1, 2))):
            for y, x, four in blocks_of(kernels[channel]):
                pairs.append((scratch.place(int(channel), y, x), int.from_bytes(four, "little", signed=True)))
        ends.append(len(pairs))
    return np.array(pairs or [(scratch.sums, 0)], np.int32), np.array(ends, np.int32)


def blocks_of(kernel: np.ndarray) -> list[tuple[int, int, bytes]]:
    """Return the places and weights of 2x2 blocks that cover the weights of a kernel that are not zero: the block with
    most weights that are left, again and again."""
    left, found = kernel.copy(), []
    places = [(y, x) for y in range(kernel.shape[0] - 1) for x in range(kernel.shape[1] - 1)]

    def covered(place: tuple[int, int]) -> int:
        y, x = place
        return int(np.count_nonzero(left[y : y + 2, x : x + 2]))

    while left.any():
        y, x = max(places, key=covered)
        found.append((y, x, left[y : y + 2, x : x + 2].tobytes()))
        left[y : y + 2, x : x + 2] = 0
    return found
