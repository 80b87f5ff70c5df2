"""Pooling and elementwise layers on planar tensors: the tiles of convolution without weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from torch_mlir import ir

from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.rows import Rows
from patc.passes.kernels.tiling import Chunk
from patc.passes.kernels.values import apply_activation, fill_value


def _emit_planes(loops: Loops, compute: Callable[[Tile, Index], list[Vectors]]) -> None:
    """Emit the loops over tiles and channels; `compute(tile, channel)` returns rows x chunks of results."""
    loops.for_work(lambda tile, channel: loops.store_tile(tile, compute(tile, channel), channel), filters_first=True)


def emit_pool(loops: Loops, *, maximum: bool, scale: ir.Value | float = 1.0) -> None:
    """Emit max pooling, or average pooling with `scale` the reciprocal of the divisor: a number, or a memref of
    output height x (columns covered) numbers where the divisor depends on the place."""
    b = loops.b
    covered = tiling.covered(loops.output.width, loops.schedule.lanes)

    def compute(tile: Tile, channel: Index) -> list[Vectors]:
        windows = _Windows(loops, b.add(loops.base(tile), b.mul(channel, loops.source.layout.plane)), maximum)
        return [
            [scaled(tile, row, chunk, windows.reduce(row, chunk)) for chunk in tile.chunks] for row in range(tile.rows)
        ]

    def scaled(tile: Tile, row: int, chunk: Chunk, value: ir.Value) -> ir.Value:
        if maximum or scale == 1.0:
            return value
        if isinstance(scale, float):
            return b.times(value, b.splat(scale, chunk.lanes))
        place = b.add(b.mul(tile.row, covered), tile.column)
        return b.times(value, b.load(scale, place, row * covered + chunk.column, chunk.lanes))

    _emit_planes(loops, compute)


@dataclass(frozen=True)
class _Windows:
    """The windows of one channel of a tile; `base` is the address of what the tile reads.

    They are reduced along each input row first: neighbouring output rows share those results.
    """

    loops: Loops
    base: Index
    maximum: bool
    _rows: dict[tuple[int, Chunk], ir.Value] = field(default_factory=dict)

    def reduce(self, row: int, chunk: Chunk) -> ir.Value:
        """Return the largest element, or the sum, of each window of a chunk of output row `row`."""
        window, needed = self.loops.window, []
        for dy in range(window.kernel[0]):
            key = (row * window.strides[0] + dy * window.dilations[0], chunk)
            if key not in self._rows:
                taps = [(0, dy, dx) for dx in range(window.kernel[1])]
                vectors = [self.loops.input_vector(self.base, row, tap, chunk) for tap in taps]
                self._rows[key] = self._combine(vectors)
            needed.append(self._rows[key])
        return self._combine(needed)

    def _combine(self, vectors: Vectors) -> ir.Value:
        return functools.reduce(self.loops.b.maximum if self.maximum else self.loops.b.plus, vectors)


def emit_elementwise(loops: Loops) -> None:
    """Emit the epilogue of the source; without a residual and an activation that changes layout or element type."""
    b, source = loops.b, loops.source

    def compute(tile: Tile, channel: Index) -> list[Vectors]:
        rows = Rows(b, source, b.add(tile.base(b, source), b.mul(channel, source.layout.plane)))
        return [[b.convert(rows.load(row, chunk), b.element) for chunk in tile.chunks] for row in range(tile.rows)]

    _emit_planes(loops, compute)


def emit_global_pool(loops: Loops) -> None:
    """Emit the mean over whole planes, summed in f32. The halo within the rows is zero, so rows are summed with it."""
    b, source, output, work = loops.b, loops.source, loops.output, loops.kernel.work

    def one_channel(image: Index, channel: Index) -> None:
        base = b.add(b.mul(image, source.image), b.mul(channel, source.layout.plane))
        total = _sum_of_plane(loops, base)
        mean = b.times(b.sum_lanes(total), b.scalar(1.0 / (source.height * source.width), b.accumulator))
        constants = loops.epilogue.constants(b, channel, output.channels)
        mean = apply_activation(b, mean, loops.epilogue.activation, constants)
        plane = b.add(b.mul(image, output.image), b.mul(channel, output.layout.plane))
        _store_pixel(loops, b.convert(mean, b.element), plane)

    def one_image(image: Index) -> None:
        b.each(work.first_filter, work.last_filter, lambda channel: one_channel(image, channel))

    b.each(work.first_tile, work.last_tile, one_image)


def _store_pixel(loops: Loops, value: ir.Value, plane: Index) -> None:
    """Store the only element of a 1x1 plane of the output, and the halo around it."""
    b, tensor = loops.b, loops.output
    layout = tensor.layout
    if not layout.is_packed(1, 1):
        line = loops.kernel.line(tensor.memory.type)
        b.fill(fill_value(layout), tensor.memory, plane, 0, layout.plane, line)
    b.store(value, tensor.memory, plane, tensor.pixel)


def _sum_of_plane(loops: Loops, base: Index) -> ir.Value:
    """Return a vector whose elements add up to the plane at `base`."""
    b, source, lanes = loops.b, loops.source, loops.schedule.lanes
    first, count = source.layout.top * source.layout.pitch, source.height * source.layout.pitch
    whole = count // lanes

    def one_vector(step: Index, sums: Vectors) -> Vectors:
        vector = b.load(source.memory, b.add(base, b.mul(step, lanes)), first, lanes)
        return [b.plus(sums[0], b.convert(vector, b.accumulator))]

    total = b.splat(0.0, lanes, b.accumulator)
    if whole:
        total = b.loop(0, whole, [total], one_vector)[0]
    if count % lanes:
        tail = b.load_masked(source.memory, base, first + whole * lanes, lanes, count % lanes)
        total = b.plus(total, b.convert(tail, b.accumulator))
    return total
