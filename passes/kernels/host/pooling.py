"""Pooling and elementwise layers on planar tensors: the tiles of convolution without weights."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch_mlir import ir

from patc.dialects.attributes import Activation, Schedule
from patc.passes.ir.windows import Window
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.convolution import (
    Epilogue,
    Tile,
    Work,
    for_work,
    input_vector,
    store_tile,
)
from patc.passes.kernels.tiling import Chunk, Strip, Tensor

PLAIN = Epilogue(None, None, Activation())


def _for_planes(
    b: Builder,
    work: Work,
    output: Tensor,
    schedule: Schedule,
    epilogue: Epilogue,
    compute: Callable[[Tile, Index], list[list[ir.Value]]],
) -> None:
    """Emit the loops over tiles and channels; `compute(tile, channel)` returns rows x chunks of results."""

    def one_channel(tile: Tile, strip: Strip, index: Index, channel: ir.Value) -> None:
        store_tile(b, tile, strip, index, compute(tile, channel), channel, output, epilogue, schedule)

    for_work(b, work, output, schedule, one_channel, filters_first=True)


def pool(
    b: Builder,
    work: Work,
    source: Tensor,
    output: Tensor,
    kernel: tuple[int, int],
    window: Window,
    schedule: Schedule,
    *,
    maximum: bool,
    scale: ir.Value | float = 1.0,
) -> None:
    """Emit max pooling, or average pooling with `scale` the reciprocal of the divisor: a number, or a memref of
    output height x (columns covered) numbers where the divisor depends on the place."""
    covered = tiling.covered(output.width, schedule.lanes)

    def compute(tile: Tile, channel: Index) -> list[list[ir.Value]]:
        base = b.add(tile.base(b, source, window.strides), b.mul(channel, source.layout.plane))
        rows: dict[tuple[int, int], ir.Value] = {}
        return [
            [reduce(tile, base, row, position, rows) for position in range(len(tile.chunks))]
            for row in range(tile.rows)
        ]

    def combine(vectors: Vectors) -> ir.Value:
        return functools.reduce(b.maximum if maximum else b.plus, vectors)

    def reduce(tile: Tile, base: Index, row: int, position: int, rows: dict[tuple[int, int], ir.Value]) -> ir.Value:
        # First along each input row: neighbouring output rows share those results.
        chunk = tile.chunks[position]
        needed = []
        for dy in range(kernel[0]):
            key = (row * window.strides[0] + dy * window.dilations[0], position)
            if key not in rows:
                taps = [(0, dy, dx) for dx in range(kernel[1])]
                rows[key] = combine([input_vector(b, source, base, window, row, tap, chunk) for tap in taps])
            needed.append(rows[key])
        result = combine(needed)
        if maximum or scale == 1.0:
            return result
        if isinstance(scale, float):
            return b.times(result, b.splat(scale, chunk.lanes))
        place = b.add(b.mul(tile.row, covered), tile.column)
        return b.times(result, b.load(scale, place, row * covered + chunk.column, chunk.lanes))

    _for_planes(b, work, output, schedule, PLAIN, compute)


def elementwise(
    b: Builder, work: Work, sources: list[Tensor], output: Tensor, activation: Activation, schedule: Schedule
) -> None:
    """Emit activation(sum of the sources); one source and no activation is a change of layout or element type."""
    epilogue = Epilogue(None, sources[1] if len(sources) > 1 else None, activation)

    def compute(tile: Tile, channel: Index) -> list[list[ir.Value]]:
        source = sources[0]
        base = b.add(tile.base(b, source), b.mul(channel, source.layout.plane))

        def load(row: int, chunk: Chunk) -> ir.Value:
            return b.convert(tiling.load_chunk(b, source, base, row, chunk), b.element)

        return [[load(row, chunk) for chunk in tile.chunks] for row in range(tile.rows)]

    _for_planes(b, work, output, schedule, epilogue, compute)


def global_pool(b: Builder, work: Work, source: Tensor, output: Tensor, schedule: Schedule) -> None:
    """Emit the mean over whole planes, summed in f32. The halo within the rows is zero, so rows are summed with it."""
    lanes = schedule.lanes
    layout = source.layout
    first, count = layout.top * layout.pitch, source.height * layout.pitch
    whole = count // lanes

    def one_image(image: Index, _: Vectors) -> Vectors:
        def one_channel(channel: Index, _: Vectors) -> Vectors:
            base = b.add(b.mul(image, source.image), b.mul(channel, layout.plane))

            def one_vector(step: Index, sums: Vectors) -> Vectors:
                vector = b.load(source.memory, b.add(base, b.mul(step, lanes)), first, lanes)
                return [b.plus(sums[0], b.convert(vector, b.f32))]

            total = b.splat(0.0, lanes, b.f32)
            if whole:
                total = b.loop(0, whole, [total], one_vector)[0]
            if count % lanes:
                tail = b.load_masked(source.memory, base, first + whole * lanes, lanes, count % lanes)
                total = b.plus(total, b.convert(tail, b.f32))
            mean = b.times(b.sum_lanes(total), b.scalar(1.0 / (source.height * source.width), b.f32))
            plane = b.add(b.mul(image, output.image), b.mul(channel, output.layout.plane))
            tiling.store_pixel(b, b.convert(mean, b.element), output, plane)
            return []

        b.loop(work.first_filter, work.last_filter, [], one_channel)
        return []

    b.loop(work.first_tile, work.last_tile, [], one_image)
