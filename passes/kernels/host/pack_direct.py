"""Convolutions whose weights are packs: pixels in the lanes, filters of a bundle in loops of equally many turns.

for tile of `rows` x `columns` outputs:
  for some filters:                                 # whose accumulators lie in a scratch array between parts
    for part of the input channels:                 # whose inputs stay in the first-level cache for all filters
      for one, two or four filters of a bundle:
        accumulators = bias, or what the part before left
        for pack of the bundle in the part:
          for filter: accumulators += its weight * the vectors at the pack's start + its index * plane
    store activation(accumulators + residual)

Of a single part the accumulators stay in registers. Filters of a bundle have equally many weights in each part, so that
one number of turns serves them all, and their weights lie side by side with one byte each for where they read.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from patc.integers import ceil_div
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops


@dataclass(frozen=True)
class PackedFilters:
    """Packs in memory, part by part, and in a part bundle by bundle.

    Attributes:
        slots: filters of a bundle.
        together: filters, which divide the slots, that are computed together.
        parts: of the input channels.
        values, index: of each bundle [slots / together][pack][together].
        starts: of each pack, where the first input of its tile begins, counted from a tile's base.
        offset: the first pack of each part and bundle, and their number.
        reorder: F, the output channel of each stored filter.
    """

    slots: int
    together: int
    parts: int
    values: ir.Value
    index: ir.Value
    starts: ir.Value
    offset: ir.Value
    reorder: ir.Value


@dataclass(frozen=True)
class PackDirect:
    """The loops; work is divided by row tiles and blocks of `schedule.filters` filters, which are whole bundles.

    Attributes:
        size: accumulators of a filter in the scratch array.
        scratch: accumulators of a block; None where there is a single part.
    """

    loops: Loops
    weights: PackedFilters
    size: int
    scratch: ir.Value | None

    @staticmethod
    def of(loops: Loops, weights: PackedFilters, vectors: int) -> PackDirect:
        """Return the loops, with memory for accumulators, of which a tile has so many vectors at most."""
        size = vectors * loops.schedule.lanes
        is_cut = weights.parts > 1
        scratch = loops.b.scratch(loops.schedule.filters * size) if is_cut else None
        return PackDirect(loops, weights, size, scratch)

    @property
    def bundles(self) -> int:
        """Bundles of the layer."""
        return ceil_div(self.loops.channels, self.weights.slots)

    def emit(self) -> None:
        """Emit all loops."""
        self.loops.for_work(self._one_block)

    def _one_block(self, tile: Tile, number: ir.Value) -> None:
        b, filters, parts = self.loops.b, self.loops.schedule.filters, self.weights.parts
        own, first = filters // self.weights.slots, b.mul(number, filters)
        block = _Block(self, tile, self.loops.base(tile), first)
        bundles = b.mul(number, own), b.minimum(b.add(b.mul(number, own), own), self.bundles)
        last = b.minimum(b.add(first, filters), self.loops.channels)
        if parts == 1:
            b.each(*bundles, lambda bundle: block.add(0, bundle))
            return
        b.each(first, last, lambda filter_: block.park(filter_, block.start(filter_)))
        b.each(0, parts, lambda part: b.each(*bundles, lambda bundle: block.add(part, bundle)))
        b.each(first, last, lambda filter_: block.finish(filter_, block.parked(filter_)))


@dataclass(frozen=True)
class _Block:
    """A block of filters on one tile.

    Attributes:
        base: address of the tile in channel 0 of the input.
        first: stored filter of the block.
    """

    whole: PackDirect
    tile: Tile
    base: Index
    first: Index

    @property
    def _b(self) -> Builder:
        return self.whole.loops.b

    def start(self, filter_: Index) -> Vectors:
        """Return the first accumulators of a filter."""
        channel = self._b.load_index(self.whole.weights.reorder, filter_)
        self.whole.loops.prefetch_ends(self.tile, channel)
        return self.whole.loops.first_accumulators(self.tile, channel)

    def finish(self, filter_: Index, sums: Vectors) -> None:
        """Store a filter."""
        channel = self._b.load_index(self.whole.weights.reorder, filter_)
        self.whole.loops.store_tile(self.tile, self.tile.by_row(sums), channel)

    def park(self, filter_: Index, sums: Vectors) -> None:
        """Put the accumulators of a filter into the scratch array."""
        for value, place in zip(sums, self._places(), strict=True):
            self._b.store(value, self.whole.scratch, self._own(filter_), place)

    def parked(self, filter_: Index) -> Vectors:
        """Return the accumulators of a filter from the scratch array."""
        lanes = [chunk.lanes for chunk in self.tile.chunks] * self.tile.rows
        own, scratch = self._own(filter_), self.whole.scratch
        return [self._b.load(scratch, own, place, count) for place, count in zip(self._places(), lanes, strict=True)]

    def _own(self, filter_: Index) -> Index:
        return self._b.mul(self._b.subtract(self._b.index(filter_), self._b.index(self.first)), self.whole.size)

    def _places(self) -> list[int]:
        """Return where each vector lies among a filter's accumulators: at a multiple of a vector, so that it is
        aligned."""
        lanes = self.whole.loops.schedule.lanes
        return [number * lanes for number in range(self.tile.rows * len(self.tile.chunks))]

    def add(self, part: Index, bundle: ir.Value) -> None:
        """Add the products of a bundle in a part of the channels."""
        b, weights, filters = self._b, self.whole.weights, self.whole.loops.channels
        is_whole, together = weights.parts == 1, weights.together
        cell = b.add(b.mul(part, self.whole.bundles), bundle)
        begin, end = (b.load_index(weights.offset, b.add(cell, next_)) for next_ in (0, 1))
        packs, stored = b.subtract(end, begin), b.mul(bundle, weights.slots)
        there = b.minimum(weights.slots, b.subtract(b.index(filters), b.index(stored)))

        def some_filters(group: ir.Value) -> None:
            slot = b.mul(group, together)
            members = [b.add(b.add(stored, slot), member) for member in range(together)]
            starts = [value for each in members for value in (self.start(each) if is_whole else self.parked(each))]
            first = b.add(b.mul(begin, weights.slots), b.mul(slot, packs))
            sums = b.loop(0, packs, starts, lambda pack, sums: self._pack(b.add(begin, pack), (first, pack), sums))
            size = len(sums) // together
            for number, member in enumerate(members):
                end = self.finish if is_whole else self.park
                end(member, sums[number * size : (number + 1) * size])

        b.each(0, b.divide(there, together)[0], some_filters)

    def _pack(self, pack: Index, place: tuple[Index, Index], sums: Vectors) -> Vectors:
        """Add the products of a pack.

        Args:
            place: where the weights of the filters begin, and the number of the pack behind it.
        """
        b, loops, weights = self._b, self.whole.loops, self.whole.weights
        down, lanes = loops.window.strides[0] * loops.source.layout.pitch, {chunk.lanes for chunk in self.tile.chunks}
        start = b.add(self.base, b.load_index(weights.starts, pack))
        made, left = [], iter(sums)
        for member in range(weights.together):
            own = b.add(b.add(place[0], b.mul(place[1], weights.together)), member)
            inputs = b.add(start, b.mul(b.load_index(weights.index, own), loops.source.layout.plane))
            scalar = b.load_scalar(weights.values, own)
            weight = {count: b.broadcast(scalar, count) for count in sorted(lanes)}
            for row in range(self.tile.rows):
                for chunk in self.tile.chunks:
                    vector = b.load(loops.source.memory, inputs, row * down + chunk.column, chunk.lanes)
                    made.append(b.fma(weight[chunk.lanes], vector, next(left)))
        return made
