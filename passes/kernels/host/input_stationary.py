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

A kept kernel costs one load and one store a vector of accumulators beside its multiply-adds, whatever its taps read:
strides, unaligned rows and 1x1 groups, whose taps share no rows, run as fast as any. `pattern-direct` loads the inputs
once a filter instead; it wins where few filters share a channel and a pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir

from patc.dialects.attributes import Library, Schedule
from patc.integers import ceil_div
from patc.passes.ir.windows import Window
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.convolution import (
    Epilogue,
    Tap,
    Tile,
    Work,
    for_work,
    input_range,
    input_vector,
    prefetch_ends,
    store_tile,
)
from patc.passes.kernels.tiling import Pack, Strip, Tensor


@dataclass(frozen=True)
class ChannelMajorWeights:
    """The arrays of `ChannelMajor` in memory, flat.

    Attributes:
        count: of one element, the number of channels.
        block: filters that a block has at most.
    """

    values: ir.Value
    place: ir.Value
    bounds: ir.Value
    channels: ir.Value
    firsts: ir.Value
    reorder: ir.Value
    count: ir.Value
    library: Library
    block: int


def input_stationary(
    b: Builder,
    work: Work,
    source: Tensor,
    weights: ChannelMajorWeights,
    output: Tensor,
    epilogue: Epilogue,
    window: Window,
    schedule: Schedule,
) -> None:
    """Emit the loops; work is divided by row tiles and blocks of filters."""
    patterns = len(weights.library.masks)
    strips = tiling.strips(output.width, schedule.columns, schedule.lanes)
    rows = min(schedule.rows, output.height)
    # One filter's accumulators begin with a cache line.
    line = tiling.line(b.element)
    size = max(_elements(tiling.packs(rows, strip.chunks, schedule.lanes), line) for strip in strips)
    scratch = b.scratch(weights.block * size)
    channels = b.load_index(weights.count, 0)

    def one_block(tile: Tile, strip: Strip, index: Index, block: ir.Value) -> None:
        base = tile.base(b, source, window.strides)
        packs = tiling.packs(tile.rows, tile.chunks, schedule.lanes)
        first = b.load_index(weights.firsts, block)
        count = b.subtract(b.load_index(weights.firsts, b.add(block, 1)), first)

        def start(member: ir.Value, _: Vectors) -> Vectors:
            channel = b.load_index(weights.reorder, b.add(first, member))
            prefetch_ends(b, tile, channel, output, epilogue, schedule)
            bias = b.load_scalar(epilogue.bias, channel) if epilogue.bias is not None else None
            for pack, place in _places(packs):
                value = b.splat(0.0, pack.lanes) if bias is None else b.broadcast(bias, pack.lanes)
                b.store(value, scratch, b.mul(member, size), place)
            return []

        def one_channel(position: ir.Value, _: Vectors) -> Vectors:
            following = b.mul(b.load_index(weights.channels, b.add(position, 1)), source.layout.plane)
            _prefetch_inputs(b, tile, source, b.add(base, following), window, weights.library)
            plane = b.mul(b.load_index(weights.channels, position), source.layout.plane)
            cell = b.mul(b.add(b.mul(block, channels), position), patterns)
            bounds = [b.load_index(weights.bounds, b.add(cell, pattern)) for pattern in range(patterns + 1)]
            for pattern in range(patterns):
                # Loaded even if no filter has this pattern: a branch around the loads would often be mispredicted.
                taps = weights.library.places(pattern)
                inputs = _load_inputs(b, tile, packs, source, b.add(base, plane), window, taps)

                def one_kernel(kernel: ir.Value, _: Vectors, inputs: list[Vectors] = inputs) -> Vectors:
                    _add_kernel(b, packs, weights, kernel, inputs, scratch, size)
                    return []

                b.loop(bounds[pattern], bounds[pattern + 1], [], one_kernel)
            return []

        def finish(member: ir.Value, _: Vectors) -> Vectors:
            channel = b.load_index(weights.reorder, b.add(first, member))
            rows: list[Vectors] = [[] for _ in range(tile.rows)]
            for pack, place in _places(packs):
                value = b.load(scratch, b.mul(member, size), place, pack.lanes)
                for number, (row, position) in enumerate(pack.pieces):
                    lanes = tile.chunks[position].lanes
                    part = value if lanes == pack.lanes else b.slice(value, number * lanes, lanes)
                    rows[row].append(part)
            store_tile(b, tile, strip, index, rows, channel, output, epilogue, schedule)
            return []

        b.loop(0, count, [], start)
        b.loop(0, channels, [], one_channel)
        b.loop(0, count, [], finish)

    for_work(b, work, output, schedule, one_block)


def _load_inputs(
    b: Builder,
    tile: Tile,
    packs: Sequence[Pack],
    source: Tensor,
    base: Index,
    window: Window,
    taps: tuple[Tap, ...],
) -> list[Vectors]:
    """Load what each tap contributes to each vector of accumulators; vectors that several taps read are loaded once."""
    made: dict[tuple[int, int, int, int], ir.Value] = {}

    def piece(tap: Tap, row: int, position: int) -> ir.Value:
        channel, dy, dx = tap
        key = (channel, row * window.strides[0] + dy * window.dilations[0], position, dx)
        if key not in made:
            made[key] = input_vector(b, source, base, window, row, tap, tile.chunks[position])
        return made[key]

    return [
        [b.concatenate([piece(tap, *place) for place in pack.pieces], pack.lanes) for pack in packs] for tap in taps
    ]


def _add_kernel(
    b: Builder,
    packs: Sequence[Pack],
    weights: ChannelMajorWeights,
    kernel: ir.Value,
    inputs: list[Vectors],
    scratch: ir.Value,
    size: int,
) -> None:
    """Add one kernel's products to the accumulators of its filter. One vector of them is alive at a time."""
    own = b.mul(b.load_index(weights.place, kernel), size)
    first = b.mul(kernel, len(inputs))
    scalars = [b.load_scalar(weights.values, b.add(first, tap)) for tap in range(len(inputs))]
    for number, (pack, place) in enumerate(_places(packs)):
        total = b.load(scratch, own, place, pack.lanes)
        for scalar, vectors in zip(scalars, inputs, strict=True):
            total = b.fma(b.broadcast(scalar, pack.lanes), vectors[number], total)
        b.store(total, scratch, own, place)


def _prefetch_inputs(b: Builder, tile: Tile, source: Tensor, base: Index, window: Window, library: Library) -> None:
    """Ask for the cache lines of all patterns' inputs, so that they have come when this channel's turn does."""
    taps = {tap for pattern in range(len(library.masks)) for tap in library.places(pattern)}
    size = tiling.line(source.memory.type)
    rows = {}
    for channel, dy, dx in taps:
        for row in range(tile.rows):
            for chunk in tile.chunks:
                first, last = input_range(source, window, row, (channel, dy, dx), chunk)
                rows.update(dict.fromkeys(range(first // size, last // size + 1)))
    for line in sorted(rows):
        b.prefetch(source.memory, base, line * size)


def _places(packs: Sequence[Pack]) -> list[tuple[Pack, int]]:
    """Return where each vector lies among a filter's accumulators: wide ones first, so that they stay aligned."""
    places = []
    offset = 0
    for pack in packs:
        places.append((pack, offset))
        offset += pack.lanes
    return places


def _elements(packs: Sequence[Pack], line: int) -> int:
    """Return the elements of one filter's accumulators, whole cache lines."""
    return ceil_div(sum(pack.lanes for pack in packs), line) * line
