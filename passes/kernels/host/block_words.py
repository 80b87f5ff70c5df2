"""Convolutions of quantised planes with few weights, by words of 2x2 blocks.

A word holds four neighbours of one channel, Q(y, x) = [I(y, x), I(y, x+1), I(y+1, x), I(y+1, x+1)]; kept weights are
entries of a word's place and four weights. All patterns of four neighbours are one entry at some place, any mask is
covered by a few:

    for tile of rows x columns:
      for block of channels:
        for channel: its words, in scratch memory of the thread, which stays in the first-level cache
        for filter: for entry: sums += dot(words at its place, weights)    # sums of the tile in registers
      store activation(sums * factors)

Sums wait in memory between blocks, and until those of four filters are there. Rows of words begin on a vector. Where
vectors between aligned ones are shifted together (see `pattern-vectorize`), entries whose words lie one column to the
right have a loop of their own. With a stride, words of each parity of rows and columns are apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.integers import ceil_div
from patc.passes.ir.elements import WORD
from patc.passes.ir.windows import Window
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.dots import SMALL, in_halves
from patc.passes.kernels.host.accumulators import join
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.partners import slots_of
from patc.passes.kernels.host.quantised import QuantisedLoops
from patc.passes.kernels.host.words import interleave
from patc.passes.kernels.tiling import Chunk

# Elements of entries that are asked for before their turn: where a vector is a whole line, a turn takes so few cycles
# that entries would be waited for.
_AHEAD = 256
_PLACE_BITS = 16  # of places that share an element
LARGEST_PLACE = (1 << _PLACE_BITS) - 1
_PAIR = 3  # elements of two entries that are loaded together


@dataclass(frozen=True)
class Words:
    """The words of one tile and one block of channels, in memory.

    Attributes:
        window: of the layer.
        rows, columns: of the outputs of a tile.
        lanes: of a vector.
        channels: of a block, a multiple of four.
        are_shifted: whether entries whose words lie to the right have loops of their own.
    """

    window: Window
    rows: int
    columns: int
    lanes: int
    channels: int
    are_shifted: bool

    @property
    def shifts(self) -> int:
        """Columns that words may lie to the right of their output."""
        return (self.window.kernel[1] - 2) // self.window.strides[1]

    @property
    def loops(self) -> int:
        """Loops over the entries of a filter."""
        return self.shifts + 1 if self.are_shifted else 1

    @property
    def packed(self) -> int:
        """Rows that one vector holds, where they are short."""
        width = 1 << (self.columns + self.shifts - 1).bit_length()
        return max(1, self.lanes // max(width, tiling.NARROWEST))

    @property
    def vectors(self) -> int:
        """Vectors of a column of chunks: vector v holds the rows v, v + vectors and so on."""
        return ceil_div(self.rows, self.packed)

    @property
    def parities(self) -> tuple[int, int]:
        """Rows and columns of words that lie apart for a stride, of those that any kernel reads."""
        (height, width), strides = self.window.kernel, self.window.strides
        return min(strides[0], height - 1), min(strides[1], width - 1)

    @property
    def depth(self) -> int:
        """Rows of vectors of a plane."""
        return self.vectors + (self.window.kernel[0] - 2) // self.window.strides[0]

    @property
    def pitch(self) -> int:
        """Words from a row of vectors to the next."""
        return self.lanes if self.packed > 1 else ceil_div(self.columns + self.shifts, self.lanes) * self.lanes

    @property
    def plane(self) -> int:
        """Words of one channel."""
        return self.parities[0] * self.parities[1] * self.depth * self.pitch

    @property
    def sums_pitch(self) -> int:
        """Elements from a row of vectors of sums to the next."""
        return ceil_div(self.columns, self.lanes) * self.lanes

    @property
    def sums(self) -> int:
        """Elements of the sums of one filter."""
        return self.vectors * self.sums_pitch

    @property
    def size(self) -> int:
        """Words of a block, and of the vector behind them, which is loaded."""
        return self.channels * self.plane + self.lanes

    def place(self, y: int, x: int) -> tuple[int, int]:
        """Return where, in the plane of a channel, the words are of a block that is (y, x) behind the window's begin,
        as the place of a row of vectors and the columns to the right of it."""
        (down, odd_row), (right, odd_column) = (
            divmod(number, stride) for number, stride in zip((y, x), self.window.strides, strict=True)
        )
        parity = odd_row * self.parities[1] + odd_column
        return (parity * self.depth + down) * self.pitch, right

    def rows_of(self, y: int, x: int) -> Iterator[int]:
        """Yield where the row of words begins whose first one is (y, x) behind the window's begin."""
        row, stride = divmod(y, self.window.strides[0])[0], self.window.strides[0]
        start, _ = self.place(y % stride, x)
        for part in range(self.packed):
            vector = row - part * self.vectors
            if 0 <= vector < self.depth:
                yield start + vector * self.pitch + part * (self.lanes // self.packed)


@dataclass(frozen=True)
class Entries:
    """Kept weights, in memory.

    Attributes:
        values: places in the words of a block, and weights; those of two in turns where `at_once` is two, both places,
            of 16 bits, in one element.
        ends: of what is loaded together for each block, filter and loop, one more in front.
        at_once: entries that are loaded together, one or two.
    """

    values: ir.Value
    ends: ir.Value
    at_once: int


@dataclass(frozen=True)
class BlockWords:
    """The loops.

    Attributes:
        words: how those of a block lie in memory; behind them are sums, those of a filter in `area` elements.
        blocks: of channels.
        memory: holds both, from `start` on.
    """

    loops: QuantisedLoops
    words: Words
    blocks: int
    memory: ir.Value
    start: Index
    entries: Entries

    @staticmethod
    def memory_size(words: Words, filters: int, blocks: int) -> int:
        """Return the elements of `memory`: words, and sums that wait, of all filters between blocks, else of four."""
        return words.size + words.sums * (filters if blocks > 1 else WORD)

    def emit(self) -> None:
        """Emit all loops."""
        work, b = self.loops.kernel.work, self.loops.b
        self.loops.for_tiles(lambda tile: b.each(work.first_filter, work.last_filter, lambda _: self._tile(tile)))

    def _tile(self, tile: Tile) -> None:
        b, loops, last = self.loops.b, self.loops, self.blocks - 1
        base = loops.base(tile)

        def park(block: Index, is_first: bool) -> None:
            self._expand(tile, base, block)
            b.each(0, loops.channels, lambda one: self._one_filter(tile, one, (block, is_first), 0))

        if self.blocks > 1:
            park(0, True)
        if self.blocks > 2:
            b.each(1, last, lambda block: park(block, False))
        self._expand(tile, base, last)
        b.each(0, loops.channels // loops.group, lambda number: self._group(tile, b.mul(number, loops.group)))

    def _expand(self, tile: Tile, base: Index, block: Index) -> None:
        """Write the words of a block of channels."""
        b, source, words = self.loops.b, self.loops.source, self.words
        fours, all_of_them = words.channels // WORD, source.channels
        first = b.mul(block, fours)
        count = b.subtract(b.index(b.minimum(b.add(first, fours), all_of_them)), b.index(first))

        def four(number: ir.Value) -> None:
            given = b.add(base, b.mul(b.add(first, number), source.layout.plane))
            self._expand_four(tile, given, b.add(self.start, b.mul(number, WORD * words.plane)))

        b.each(0, count, four)

    def _expand_four(self, tile: Tile, given: Index, made: Index) -> None:
        """Write the words of four channels, whose bytes are those of the words at `given`."""
        b, words, (height, _) = self.loops.b, self.words, self.loops.window.kernel
        down, parities = self.loops.window.strides[0], words.parities
        rows = down * (tile.rows - 1) + height
        columns = tile.chunks[-1].column + tile.chunks[-1].valid + words.shifts
        for chunk in tiling.cut(columns, self.loops.schedule.lanes):
            for x in range(parities[1]):
                above: tuple[ir.Value, ir.Value] | None = None
                for y in range(rows):
                    pair = self._pair(given, (y, x), chunk)
                    if above is not None and (y - 1) % down < parities[0]:
                        places = list(words.rows_of(y - 1, x))
                        for member, value in enumerate(_blocks(b, above, pair)):
                            for place in places:
                                b.store(value, self.memory, made, member * words.plane + place + chunk.column)
                    above = pair

    def _pair(self, base: Index, place: tuple[int, int], chunk: Chunk) -> tuple[ir.Value, ir.Value]:
        """Return the bytes of words and of their neighbours on the right, those of even and those of odd channels."""
        b, loops, (y, x) = self.loops.b, self.loops, place
        left, right = (loops.input_vector(base, 0, (0, y, x + more), chunk) for more in (0, 1))
        even, odd = (interleave(b, left, right, b.i8, odd=odd) for odd in (False, True))
        return even, odd

    def _one_filter(self, tile: Tile, filter_: Index, block: tuple[Index, bool], member: Index) -> None:
        """Add the products of a block, which may be the first one, to the sums of a filter that wait."""
        place = self._waiting(member, filter_)
        self._park(tile, place, self._sums(tile, filter_, block[0], None if block[1] else place))

    def _group(self, tile: Tile, first: Index) -> None:
        """Finish the filters whose results are stored together, with the last block."""
        b, loops, block = self.loops.b, self.loops, (self.blocks - 1, self.blocks == 1)
        members = range(loops.group)
        b.each(0, loops.group, lambda member: self._one_filter(tile, b.add(first, member), block, member))
        places = [self._waiting(member, b.add(first, member)) for member in members]
        loops.store_group(tile, [_Waiting(b, self.words, tile, self.memory, place) for place in places], first)

    def _waiting(self, member: Index, filter_: Index) -> Index:
        """Return where the sums of a filter wait."""
        b, size = self.loops.b, self.words.sums
        return b.add(b.add(self.start, self.words.size), b.mul(filter_ if self.blocks > 1 else member, size))

    def _vectors(self, tile: Tile) -> list[tuple[int, int]]:
        """Return the rows of vectors and the columns of a tile's sums; lanes without an output hold anything."""
        chunks = tile.chunks[:1] if self.words.packed > 1 else tile.chunks
        rows = range(self.words.vectors)
        return [(row, chunk.column) for row in rows for chunk in chunks]

    def _park(self, tile: Tile, place: Index, sums: Vectors) -> None:
        """Store the sums of a filter."""
        for (row, column), value in zip(self._vectors(tile), sums, strict=True):
            self.loops.b.store(value, self.memory, place, row * self.words.sums_pitch + column)

    def _sums(self, tile: Tile, filter_: Index, block: Index, place: Index | None) -> Vectors:
        """Return the sums of a filter with the products of a block of channels.

        Args:
            place: where those of the blocks before wait; None in the first.
        """
        b, vectors, loops, sets = self.loops.b, self._vectors(tile), self.words.loops, self.loops.schedule.sums
        if place is None:
            bias = b.load_scalar(self.loops.epilogue.bias, filter_)
            sums = [b.broadcast(bias, self.words.lanes)] * len(vectors)
        else:
            pitch, lanes = self.words.sums_pitch, self.words.lanes
            sums = [b.load(self.memory, place, row * pitch + column, lanes) for row, column in vectors]
        sums += [b.splat(0, self.words.lanes, b.i32)] * (len(vectors) * (sets - 1))
        turn = entries_of_a_turn(sets, self.entries.at_once, self.loops.dots.together)
        number = b.mul(b.add(b.mul(block, self.loops.channels), filter_), loops)
        ends = [b.load_index(self.entries.ends, b.add(number, shift)) for shift in range(loops + 1)]
        for shift in range(loops):
            add = partial(self._entries, vectors, shift)
            sums = b.loop(ends[shift], ends[shift + 1], sums, add, turn // self.entries.at_once)
        return join(b, sums, sets)

    def _entries(self, vectors: list[tuple[int, int]], shift: int, first: ir.Value, sums: Vectors) -> Vectors:
        """Add the products of neighbouring entries, which the sets of sums take turns with."""
        b, made, size, at_once = self.loops.b, list(sums), len(vectors), self.entries.at_once
        sets = len(sums) // size
        if self.words.lanes >= self.loops.kernel.line(self.entries.values.type):
            b.prefetch(self.entries.values, b.mul(first, 2), _AHEAD)
        together = self.loops.dots.together
        for number in range(entries_of_a_turn(sets, at_once, together) // together):
            members = range(number * together, (number + 1) * together)
            group = [self._entry(b.add(first, member // at_once), member % at_once) for member in members]
            for own, (row, column) in enumerate(vectors, number % sets * size):
                at = row * self.words.pitch + column + shift
                products = [(b.load(self.memory, place, at, self.words.lanes), weights) for place, weights in group]
                made[own] = self.loops.dots.add_together(b, made[own], products)
        return made

    def _entry(self, group: Index, member: int) -> tuple[Index, ir.Value]:
        """Return where the words lie of one of the entries that are loaded together, and its weights in all lanes."""
        b, lanes, values = self.loops.b, self.words.lanes, self.entries.values
        if self.entries.at_once == 1:
            at = b.mul(group, 2)
            place = b.load_index(values, at)
            return b.add(self.start, place), b.broadcast(b.load_scalar(values, b.add(at, 1)), lanes)
        at = b.mul(group, _PAIR)
        places, words = b.load_scalar(values, at), b.load(values, b.add(at, 1), 0, 2)
        own = b.shift_right(places, _PLACE_BITS, signed=False) if member else b.bits_and(places, LARGEST_PLACE)
        place = arith.IndexCastOp(b.index_type, own).result
        return b.add(self.start, place), b.shuffle(words, words, [member] * lanes)


@dataclass(frozen=True)
class _Waiting(Sequence[Sequence[ir.Value]]):
    """The rows of a filter's sums in `memory` at `place`."""

    b: Builder
    words: Words
    tile: Tile
    memory: ir.Value
    place: Index

    def __len__(self) -> int:
        return self.tile.rows

    def __getitem__(self, row: Any) -> Any:
        if row >= len(self):
            raise IndexError(row)
        part, vector = divmod(row, self.words.vectors)
        first = vector * self.words.sums_pitch + part * (self.words.lanes // self.words.packed)
        return _Row(self.b, self.memory, self.place, first, self.tile.chunks)


@dataclass(frozen=True)
class _Row(Sequence[ir.Value]):
    """The chunks of a row that begins at `place` + `first`, each loaded when it is asked for."""

    b: Builder
    memory: ir.Value
    place: Index
    first: int
    chunks: tuple[Chunk, ...]

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: Any) -> Any:
        chunk = self.chunks[number]
        return self.b.load(self.memory, self.place, self.first + chunk.column, chunk.lanes)


def _blocks(b: Builder, above: tuple[ir.Value, ir.Value], below: tuple[ir.Value, ir.Value]) -> Vectors:
    """Return the words of blocks of four channels, from two rows of what `_pair` returns."""
    pairs = list(zip(above, below, strict=True))
    return [interleave(b, one, other, b.i16, odd=odd) for odd in (False, True) for one, other in pairs]


def entries_of_a_turn(sets: int, at_once: int, together: int = 1) -> int:
    """Return how many entries a loop goes through in a turn, with so many sets of sums; all are powers of two.

    Args:
        at_once: entries that are loaded together.
        together: those that are multiplied together.
    """
    return max(sets * together, at_once)


@dataclass(frozen=True)
class Cover:
    """The 2x2 blocks that cover the weights of a layer.

    Attributes:
        filters, channels: of each block.
        places: of each, rows and columns behind the window's begin, N x 2.
        weights: of each, a word.
    """

    filters: np.ndarray
    channels: np.ndarray
    places: np.ndarray
    weights: np.ndarray

    @staticmethod
    def of(weight: np.ndarray) -> Cover:
        """Return the blocks of F x C x KH x KW weights of i8."""
        kept = np.argwhere(weight.any(axis=(2, 3)))
        kernels = weight[tuple(kept.T)]
        masks, numbers = np.unique(kernels != 0, axis=0, return_inverse=True)
        parts = [(np.zeros((0, 2), int), np.zeros((0, 2), int), np.zeros((0, WORD), np.int8))]
        for number, mask in enumerate(masks):
            own = np.flatnonzero(numbers.ravel() == number)
            for y, x, taken in blocks_of(mask):
                four = (kernels[own, y : y + 2, x : x + 2] * taken).reshape(-1, WORD)
                parts.append((kept[own], np.full((len(own), 2), (y, x)), four))
        where, places, fours = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Cover(where[:, 0], where[:, 1], places, np.ascontiguousarray(fours).view("<i4").ravel())

    def split(self, most: int) -> Cover:
        """Return blocks with the same sums whose first two weights are at most so much together, and the last two:
        others become two of nearly half as large weights."""
        first, second = in_halves(self.weights, most)
        large = np.flatnonzero(second)
        order = np.concatenate([np.arange(len(first)), large])
        weights = np.concatenate([first, second[large]])
        return Cover(self.filters[order], self.channels[order], self.places[order], weights)

    def counts(self, words: Words, filters: int, channels: int) -> np.ndarray:
        """Return how many of them each block of channels, filter and loop have."""
        keys, size = self._keys(words, filters)
        return np.bincount(keys, minlength=ceil_div(channels, words.channels) * size)

    def slots(self, filters: int) -> int:
        """Return how many entries of so many filters there are where two are multiplied together, those included that
        have no weights: some find no partner."""
        order = np.argsort(self.filters, kind="stable")
        return int(slots_of(self.weights[order], np.bincount(self.filters, minlength=filters), SMALL)[1].sum())

    def entries(
        self, words: Words, filters: int, channels: int, sets: int, at_once: int = 1, together: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the values and ends of `Entries`, of i32; of those that a loop goes through some without weights, so
        that turns are whole, and where one has no partner that it is multiplied together with."""
        turn = entries_of_a_turn(sets, at_once, together)
        keys, _ = self._keys(words, filters)
        counts = self.counts(words, filters, channels)
        order = np.lexsort((*self.places.T[::-1], self.channels, keys))
        if together == 1:
            slots, sizes = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts), counts
        else:
            slots, sizes = slots_of(self.weights[order], counts, SMALL)
        ends = np.concatenate([[0], np.cumsum(-(-sizes // turn) * turn)])
        pairs = np.zeros((max(int(ends[-1]), turn), 2), np.int32)
        target = ends[keys[order]] + slots
        right = 0 if words.are_shifted else self._right(words)
        starts = self.channels % words.channels * words.plane + self._starts(words) + right
        pairs[target, 0] = starts[order]
        pairs[target, 1] = self.weights[order]
        return pairs if at_once == 1 else _in_twos(pairs), (ends // at_once).astype(np.int32)

    def _keys(self, words: Words, filters: int) -> tuple[np.ndarray, int]:
        """Return the numbers of the loops that they are in, and how many of those a block of channels has."""
        loop = self._right(words) if words.are_shifted else 0
        return (self.channels // words.channels * filters + self.filters) * words.loops + loop, filters * words.loops

    def _starts(self, words: Words) -> np.ndarray:
        """Return where their words begin in a plane."""
        height, width = words.window.kernel
        table = np.array([[words.place(y, x)[0] for x in range(width - 1)] for y in range(height - 1)], int)
        found: np.ndarray = table[tuple(self.places.T)]
        return found

    def _right(self, words: Words) -> np.ndarray:
        """Return how many columns to the right of their output words lie."""
        found: np.ndarray = self.places[:, 1] // words.window.strides[1]
        return found


def _in_twos(pairs: np.ndarray) -> np.ndarray:
    """Return entries as they are loaded two at a time."""
    (first, second), weights = pairs[:, 0].reshape(-1, 2).T, pairs[:, 1].reshape(-1, 2)
    places = (first | second << _PLACE_BITS).astype(np.uint32).view(np.int32)
    return np.concatenate([places[:, None], weights], axis=1)


def blocks_of(mask: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Return the places of 2x2 blocks that cover the kept weights of a kernel, and which of them each one has: the
    block with most that are left, again and again."""
    left, found = mask.copy(), []
    places = [(y, x) for y in range(mask.shape[0] - 1) for x in range(mask.shape[1] - 1)]

    def covered(place: tuple[int, int]) -> int:
        y, x = place
        return int(np.count_nonzero(left[y : y + 2, x : x + 2]))

    while left.any():
        y, x = max(places, key=covered)
        found.append((y, x, left[y : y + 2, x : x + 2].copy()))
        left[y : y + 2, x : x + 2] = False
    return found
