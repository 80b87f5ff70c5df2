"""Input-stationary sparse convolution: the input of a pattern stays in registers while filters pass by.

    for tile of `rows` x `columns` outputs:
      for block of filters:                            # its accumulators lie in a scratch array
        accumulators = bias
        for input channel:
          for pattern:
            inputs = the vectors that the pattern's taps read       # registers
            for filter of the block that keeps this channel with this pattern:
              accumulators[filter] += weights * inputs
        store activation(accumulators + residual)

A vector of accumulators that a row's last columns do not fill holds the products of several taps side by side, which
are added up before they are stored: 49 columns of 7x7 take 13 multiply-adds of 16 lanes a kernel of four taps, not 16.

A kept kernel costs one load and one store a vector of accumulators beside its multiply-adds, whatever its taps read:
strides and unaligned rows run as fast as any. `pattern-direct` loads the inputs once a filter instead; it wins where
few filters share a channel and a pattern, and `tap-direct` does of 1x1 groups, whose taps share no rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch_mlir import ir

from patc.dialects.attributes import Library
from patc.integers import ceil_div
from patc.passes.ir.windows import Tap
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.rows import written
from patc.passes.kernels.tiling import Pack


@dataclass(frozen=True)
class ChannelMajorWeights:
    """The arrays of `ChannelMajor` in memory, flat.

    Attributes:
        count: of one element, the number of channels.
        block: filters that a block has at most.
    """

    library: Library
    block: int
    values: ir.Value
    place: ir.Value
    bounds: ir.Value
    channels: ir.Value
    firsts: ir.Value
    reorder: ir.Value
    count: ir.Value


@dataclass(frozen=True)
class InputStationary:
    """The loops; work is divided by row tiles and blocks of filters.

    Attributes:
        pipe_lanes: elements that one multiply-add multiplies in the time of fewer.
        scratch: accumulators of a block, `size` elements a filter.
        end: columns of a row that are written, see `written`.
        channels: how many any kernel reads.
    """

    loops: Loops
    weights: ChannelMajorWeights
    pipe_lanes: int
    scratch: ir.Value
    size: int
    end: int
    channels: ir.Value

    @staticmethod
    def of(loops: Loops, weights: ChannelMajorWeights, pipe_lanes: int) -> InputStationary:
        b, output, schedule = loops.b, loops.output, loops.schedule
        rows = min(schedule.rows, output.height)
        strips = tiling.strips(output.width, schedule.columns, schedule.lanes)
        # One filter's accumulators begin with a cache line.
        line = loops.kernel.line(b.element)
        packings = [tiling.packing(rows, strip.chunks, schedule.lanes, pipe_lanes, schedule.sums) for strip in strips]
        size = max(ceil_div(packing.lanes, line) * line for packing in packings)
        scratch = b.scratch(weights.block * size)
        last, lanes = strips[-1], sum(chunk.lanes for chunk in packings[-1].chunks)
        end = written(output, last.start + (last.count - 1) * last.columns + lanes)
        return InputStationary(loops, weights, pipe_lanes, scratch, size, end, b.load_index(weights.count, 0))

    def emit(self) -> None:
        """Emit all loops."""
        self.loops.for_work(self._one_block)

    def _one_block(self, tile: Tile, number: ir.Value) -> None:
        b, firsts = self.loops.b, self.weights.firsts
        base = self.loops.base(tile)
        schedule = self.loops.schedule
        packing = tiling.packing(tile.rows, tile.chunks, schedule.lanes, self.pipe_lanes, schedule.sums)
        first = b.load_index(firsts, number)
        count = b.subtract(b.load_index(firsts, b.add(number, 1)), first)
        block = _Block(self, replace(tile, chunks=packing.chunks), packing.packs, base, number, first)
        b.each(0, count, block.start)
        b.each(0, self.channels, block.add_channel)
        b.each(0, count, block.finish)


@dataclass(frozen=True)
class _Block:
    """A block of filters on one tile.

    Attributes:
        packs: vectors of the tile.
        base: address of the tile in channel 0 of the input.
        number: of the block.
        first: stored filter of the block.
    """

    whole: InputStationary
    tile: Tile
    packs: tuple[Pack, ...]
    base: Index
    number: ir.Value
    first: ir.Value

    @property
    def loops(self) -> Loops:
        return self.whole.loops

    @property
    def weights(self) -> ChannelMajorWeights:
        return self.whole.weights

    @property
    def _b(self) -> Builder:
        return self.loops.b

    def start(self, member: ir.Value) -> None:
        """Let the accumulators of a filter be its bias."""
        b, bias = self._b, self.loops.epilogue.bias
        channel = b.load_index(self.weights.reorder, b.add(self.first, member))
        self.loops.prefetch_ends(self.tile, channel)
        scalar = b.load_scalar(bias, channel) if bias is not None else None
        for pack, place in _places(self.packs):
            value = b.splat(0.0, pack.part) if scalar is None else b.broadcast(scalar, pack.part)
            others = [b.splat(0.0, pack.part)] * (pack.taps - 1)
            value = b.concatenate([value, *others], pack.lanes)
            b.store(value, self.whole.scratch, b.mul(member, self.whole.size), place)

    def add_channel(self, position: ir.Value) -> None:
        """Add the products of one of the input channels that any kernel reads, pattern by pattern."""
        b, weights, plane = self._b, self.weights, self.loops.source.layout.plane
        patterns = len(weights.library.masks)
        following = b.mul(b.load_index(weights.channels, b.add(position, 1)), plane)
        self._prefetch_inputs(b.add(self.base, following))
        offset = b.mul(b.load_index(weights.channels, position), plane)
        cell = b.mul(b.add(b.mul(self.number, self.whole.channels), position), patterns)
        bounds = [b.load_index(weights.bounds, b.add(cell, pattern)) for pattern in range(patterns + 1)]
        for pattern in range(patterns):
            # Loaded even if no filter has this pattern: a branch around the loads would often be mispredicted.
            inputs = self._load_inputs(b.add(self.base, offset), weights.library.places(pattern))

            def one_kernel(kernel: ir.Value, inputs: list[Vectors] = inputs) -> None:
                self._add_kernel(kernel, inputs)

            b.each(bounds[pattern], bounds[pattern + 1], one_kernel)

    def finish(self, member: ir.Value) -> None:
        """Store what the accumulators of a filter hold."""
        b, tile = self._b, self.tile
        channel = b.load_index(self.weights.reorder, b.add(self.first, member))
        rows: list[Vectors] = [[] for _ in range(tile.rows)]
        for pack, place in _places(self.packs):
            value = b.load(self.whole.scratch, b.mul(member, self.whole.size), place, pack.lanes)
            while value.type.shape[0] > pack.part:
                half = value.type.shape[0] // 2
                value = b.plus(b.slice(value, 0, half), b.slice(value, half, half))
            for number, (row, position) in enumerate(pack.pieces):
                lanes = tile.chunks[position].lanes
                part = value if lanes == pack.part else b.slice(value, number * lanes, lanes)
                rows[row].append(part)
        self.loops.store_tile(tile, rows, channel, self.whole.end)

    def _load_inputs(self, base: Index, taps: Sequence[Tap]) -> list[Vectors]:
        """Load what the taps contribute to each vector of accumulators, one after the other, or side by side; vectors
        that several taps read are loaded once."""
        window, made = self.loops.window, dict[tuple[int, int, int, int], ir.Value]()

        def piece(tap: Tap, row: int, position: int) -> ir.Value:
            channel, dy, dx = tap
            key = (channel, row * window.strides[0] + dy * window.dilations[0], position, dx)
            if key not in made:
                made[key] = self.loops.input_vector(base, row, tap, self.tile.chunks[position])
            return made[key]

        def beside(pack: Pack, taps: Sequence[Tap]) -> ir.Value:
            parts = [self._b.concatenate([piece(tap, *place) for place in pack.pieces], pack.part) for tap in taps]
            return self._b.concatenate(parts, pack.lanes)

        return [
            [beside(pack, taps[first : first + pack.taps]) for first in range(0, len(taps), pack.taps)]
            for pack in self.packs
        ]

    def _add_kernel(self, kernel: ir.Value, inputs: list[Vectors]) -> None:
        """Add one kernel's products to the accumulators of its filter. One vector of them is alive at a time."""
        b, taps = self._b, self.weights.library.entries
        own = b.mul(b.load_index(self.weights.place, kernel), self.whole.size)
        first = b.mul(kernel, taps)
        scalars = [b.load_scalar(self.weights.values, b.add(first, tap)) for tap in range(taps)]
        for (pack, place), vectors in zip(_places(self.packs), inputs, strict=True):
            total = b.load(self.whole.scratch, own, place, pack.lanes)
            for number, vector in enumerate(vectors):
                if pack.taps == 1:
                    weight = b.broadcast(scalars[number], pack.lanes)
                else:
                    some = b.load(self.weights.values, first, number * pack.taps, pack.taps)
                    weight = b.shuffle(some, some, [lane // pack.part for lane in range(pack.lanes)])
                total = b.fma(weight, vector, total)
            b.store(total, self.whole.scratch, own, place)

    def _prefetch_inputs(self, base: Index) -> None:
        """Ask for the cache lines of all patterns' inputs, so that they have come when this channel's turn does."""
        library, memory = self.weights.library, self.loops.source.memory
        size = self.loops.kernel.line(memory.type)
        lines: set[int] = set()
        for tap in {tap for pattern in range(len(library.masks)) for tap in library.places(pattern)}:
            for row, chunk in itertools.product(range(self.tile.rows), self.tile.chunks):
                first, last = self.loops.input_range(row, tap, chunk)
                lines.update(range(first // size, last // size + 1))
        for line in sorted(lines):
            self._b.prefetch(memory, base, line * size)


def _places(packs: Sequence[Pack]) -> list[tuple[Pack, int]]:
    """Return where each vector lies among a filter's accumulators: behind all wider ones, so that it is aligned."""
    places, offset = {}, 0
    for pack in sorted(packs, key=lambda pack: -pack.lanes):
        places[pack.pieces] = offset
        offset += pack.lanes
    return [(pack, places[pack.pieces]) for pack in packs]
