"""Pooling and elementwise layers on planar tensors: the tiles of convolution without weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch_mlir import ir

from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Index, Vectors, element_type
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.rows import Rows
from patc.passes.kernels.tiling import Chunk
from patc.passes.kernels.values import apply_activation

UNROLLED_TAPS = 64  # of a window; those of a larger one are loops


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
            return b.convert(value, b.element)
        type_ = element_type(value)
        if isinstance(scale, float):
            factor = b.splat(scale, chunk.lanes, type_)
        else:
            place = b.add(b.mul(tile.row, covered), tile.column)
            factor = b.convert(b.load(scale, place, row * covered + chunk.column, chunk.lanes), type_)
        return b.convert(b.times(value, factor), b.element)

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
        """Return the largest element, or the sum, of each window of a chunk of output row `row`; of large windows in
        the type of long sums."""
        window, needed = self.loops.window, []
        if math.prod(window.kernel) > UNROLLED_TAPS:
            return self._reduce_large(row, chunk)
        for dy in range(window.kernel[0]):
            key = (row * window.strides[0] + dy * window.dilations[0], chunk)
            if key not in self._rows:
                taps = [(0, dy, dx) for dx in range(window.kernel[1])]
                vectors = [self.loops.input_vector(self.base, row, tap, chunk) for tap in taps]
                self._rows[key] = self._combine(vectors)
            needed.append(self._rows[key])
        return self._combine(needed)

    def _reduce_large(self, row: int, chunk: Chunk) -> ir.Value:
        """Go through the rows of a window, and through taps of a row that are a stride apart, by loops."""
        b, window, layout = self.loops.b, self.loops.window, self.loops.source.layout
        (height, width), stride = window.kernel, window.strides[1]
        down, right = window.dilations[0] * layout.pitch, window.dilations[1] * stride // layout.phases

        def taps(base: Index, count: int) -> Vectors:
            vectors = [self.loops.input_vector(base, row, (0, 0, dx), chunk) for dx in range(count)]
            return vectors if self.maximum else [b.convert(vector, b.accumulator) for vector in vectors]

        def one_row(base: Index) -> ir.Value:
            if self._lies_apart:
                return b.from_lanes([self._reduce_run(base, row, chunk, lane) for lane in range(chunk.lanes)])
            whole = width // stride

            def one_stride(step: Index, totals: Vectors) -> Vectors:
                return [self._combine([totals[0], *taps(b.add(base, b.mul(step, right)), stride)])]

            first = self._combine(taps(base, min(stride, width)))
            total = b.loop(1, whole, [first], one_stride)[0] if whole > 1 else first
            rest = taps(b.add(base, whole * right), width % stride) if whole else []
            return self._combine([total, *rest])

        def next_row(dy: Index, totals: Vectors) -> Vectors:
            return [self._combine([totals[0], one_row(b.add(self.base, b.mul(dy, down)))])]

        first = one_row(self.base)
        return b.loop(1, height, [first], next_row)[0] if height > 1 else first

    @property
    def _lies_apart(self) -> bool:
        """Whether taps in a row fill vectors, and to pick those of neighbouring windows from vectors would take more
        instructions than to add up the lanes of each."""
        window, lanes = self.loops.window, self.loops.schedule.lanes
        return window.strides[1] > 4 and window.dilations[1] == 1 and window.kernel[1] >= lanes

    def _reduce_run(self, base: Index, row: int, chunk: Chunk, lane: int) -> ir.Value:
        """Reduce the taps in one row of the window of one output."""
        b, window, memory, lanes = self.loops.b, self.loops.window, self.loops.source.memory, self.loops.schedule.lanes
        first = self.loops.first_place(row) + (chunk.column + lane) * window.strides[1]
        whole, rest = divmod(window.kernel[1], lanes)

        def vector(step: Index) -> ir.Value:
            loaded = b.load(memory, b.add(base, b.mul(step, lanes)), first, lanes)
            return loaded if self.maximum else b.convert(loaded, b.accumulator)

        total = vector(0)
        if whole > 1:
            total = b.loop(1, whole, [total], lambda step, totals: [self._combine([totals[0], vector(step)])])[0]
        last = first + whole * lanes
        if rest and self.maximum:
            total = b.maximum(total, b.load(memory, base, last + rest - lanes, lanes))
        elif rest:
            total = b.plus(total, b.convert(b.load_masked(memory, base, last, lanes, rest), b.accumulator))
        return b.largest_lane(total) if self.maximum else b.sum_lanes(total)

    def _combine(self, vectors: Vectors) -> ir.Value:
        return functools.reduce(self.loops.b.maximum if self.maximum else self.loops.b.plus, vectors)


def emit_elementwise(loops: Loops) -> None:
    """Emit the epilogue of the source; without a residual and an activation that changes layout or element type."""
    b, source = loops.b, loops.source

    def compute(tile: Tile, channel: Index) -> list[Vectors]:
        rows = Rows(b, source, b.add(tile.base(b, source), b.mul(channel, source.layout.plane)))
        return [[b.convert(rows.load(row, chunk), b.element) for chunk in tile.chunks] for row in range(tile.rows)]

    _emit_planes(loops, compute)


def emit_global_pool(loops: Loops, scale: float) -> None:
    """Emit the sums of whole planes, in f32, times `scale`. The halo within the rows is zero, so rows are summed with
    it."""
    b, source, output, work = loops.b, loops.source, loops.output, loops.kernel.work

    def one_channel(image: Index, channel: Index) -> None:
        base = b.add(b.mul(image, source.image), b.mul(channel, source.layout.plane))
        total = _sum_of_plane(loops, base)
        mean = b.times(b.sum_lanes(total), b.scalar(scale, b.accumulator))
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
        b.fill(tensor.fill, tensor.memory, plane, 0, layout.plane, line)
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
