"""What the loops of all host kernels have in common: tiles of outputs, the inputs of a tile, and its way to memory.

    for tile of `rows` x `columns` outputs:            # its accumulators stay in registers
      for filter, or block of filters:
        ...
        store activation(accumulators + residual)

A tap is a constant offset in the planar layout, so tiles never test for borders. The last tile of a plane starts at
`height - rows`: it may compute some rows twice, never rows that do not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from patc.dialects.attributes import Layout
from patc.integers import ceil_div
from patc.passes.ir.windows import Tap, Window
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.ends import Ends
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.rows import Tensor
from patc.passes.kernels.tiling import Chunk


@dataclass(frozen=True)
class Turn:
    """A turn of a loop whose turns share some work: number `number` of at least `count`."""

    number: Index
    count: int

    def places(self, b: Builder, size: int) -> list[Index]:
        """Return which of `size` pieces are this turn's."""
        own = ceil_div(size, self.count)
        if own == size:
            return list(range(size))
        turns = ceil_div(size, own)
        first = b.mul(b.divide(self.number, turns)[1], own)
        return [b.minimum(b.add(first, place), size - 1) for place in range(own)]


@dataclass(frozen=True)
class Loops(Ends):
    """A layer in its kernel function: the loops over its tiles, what these read and what they write.

    Attributes:
        source: input of the layer.
        most_taps: of a window that all have code of their own.
    """

    source: Tensor
    most_taps: ClassVar[int] = 64

    @property
    def window(self) -> Window:
        return self.kernel.window

    def for_work(self, body: Callable[[Tile, ir.Value], None], *, filters_first: bool = False) -> None:
        """Emit the loops over row tiles, strips and filters; `body(tile, filter)`.

        Args:
            filters_first: go through the planes one after the other, where a filter reads a single channel: that is a
                stream through memory. Else a tile's inputs stay in cache for all filters.
        """

        def for_filters(body: Callable[[ir.Value], None]) -> None:
            self.b.each(self.kernel.work.first_filter, self.kernel.work.last_filter, body)

        if filters_first:
            for_filters(lambda number: self.for_tiles(lambda tile: body(tile, number)))
        else:
            self.for_tiles(lambda tile: for_filters(lambda number: body(tile, number)))

    @property
    def row_tiles(self) -> int:
        """Row tiles of all images."""
        return self.output.images * self.plane_tiles

    def for_tiles(self, body: Callable[[Tile], None]) -> None:
        """Emit the loops over row tiles and strips."""
        b, output = self.b, self.output
        rows, tiles = min(self.schedule.rows, output.height), self.plane_tiles

        def one_row_tile(number: Index) -> None:
            image, index = b.divide(number, tiles) if output.images > 1 else (0, number)
            row = b.minimum(b.mul(index, rows), output.height - rows)
            for strip in tiling.strips(output.width, self.schedule.columns, self.schedule.lanes):
                ends_row = strip.start + strip.count * strip.columns >= output.width

                def one_strip(position: Index, strip: tiling.Strip = strip, ends_row: bool = ends_row) -> None:
                    column = b.add(b.mul(position, strip.columns), strip.start)
                    body(Tile(image, row, column, rows, strip.chunks, index, ends_row))

                b.repeat(strip.count, one_strip)

        b.each(self.kernel.work.first_tile, self.kernel.work.last_tile, one_row_tile)

    def turn(self, tile: Tile) -> Turn:
        """Return which one a tile is of those of an image that a thread computes, if it computes all of its share."""
        b, columns, tiles = self.b, self.schedule.columns, self.plane_tiles
        if self.schedule.split == "rows":
            tiles = max(1, min(tiles, self.row_tiles // self.schedule.threads))
        strips = ceil_div(self.output.width, columns)
        position = 0 if strips == 1 else b.divide(tile.column, columns)[0]
        return Turn(b.add(b.mul(tile.index, strips), position), tiles * strips)

    def product(self, one: ir.Value, many: ir.Value, total: ir.Value) -> ir.Value:
        """Return sums with the products of a weight, or an input, in all lanes and of a vector of the other sort."""
        return self.b.fma(one, many, total)

    def base(self, tile: Tile) -> Index:
        """Address of the first element that a tile reads, in channel 0."""
        return tile.base(self.b, self.source, self.window.strides)

    def input_vector(self, base: Index, row: int, tap: Tap, chunk: Chunk) -> ir.Value:
        """Load what `tap` contributes to the chunk of output row `row`; `base` is the tile's, in some channel."""
        first, _ = self.input_range(row, tap, chunk)
        step = column_step(self.window, self.source.layout)
        return load_strided(
            self.b, self.source.memory, (base, first), chunk.lanes, self._input_column(tap) % step, step
        )

    def input_range(self, row: int, tap: Tap, chunk: Chunk) -> tuple[int, int]:
        """Return the first and the last element, counted from the tile's base, that `input_vector` loads."""
        layout, step = self.source.layout, column_step(self.window, self.source.layout)
        first = place_of(tap, row, self.window, layout) + chunk.column * step
        return first, first + step * chunk.lanes - 1

    def first_place(self, row: int) -> int:
        """Return where, counted from the tile's base, the window of a row's first output begins in a layout of one
        phase."""
        column = self._input_column((0, 0, 0))
        return place_of((0, 0, 0), row, self.window, self.source.layout) + column % self.window.strides[1]

    def prefetch_next(self, tile: Tile, base: Index, turn: Turn) -> None:
        """Ask for a part of what a window of one element reads of a channel in the next tile, if it may be far away:
        behind the caches of this core, or in those of another; `base` is the tile's, in the channel. All turns together
        ask for all."""
        source = self.source
        is_distant = self.kernel.may_be_distant(source.bytes)
        if self.schedule.threads == 1 and not is_distant:
            return
        first, _ = self.input_range(0, (0, 0, 0), tile.chunks[0])
        _, last = self.input_range(0, (0, 0, 0), tile.chunks[-1])
        ends_row = self.schedule.columns >= self.output.width
        step = tile.rows * source.layout.pitch * self.window.strides[0] if ends_row else last + 1 - first
        line = self.kernel.line(source.memory.type)
        lines = ceil_div(last + 1 - first, line)
        base = self.b.add(base, self.next_step(tile, step))
        for place in turn.places(self.b, tile.rows * lines):
            row, column = self.b.divide(place, lines)
            at = self.b.add(self.b.mul(row, source.layout.pitch * self.window.strides[0]), self.b.mul(column, line))
            self.b.prefetch(source.memory, self.b.add(base, at), first, level=2 if is_distant else 1)

    def _input_column(self, tap: Tap) -> int:
        return input_column(tap, self.window, self.source.layout)


def input_column(tap: Tap, window: Window, layout: Layout) -> int:
    """Return the column, halo included, that a tap of the first output column reads."""
    return tap[2] * window.dilations[1] - window.left + layout.left


def place_of(tap: Tap, row: int, window: Window, layout: Layout) -> int:
    """Return where the vector begins, counted from the tile's base, in which a tap of the first output column of a row
    is. Later columns follow where the layout has a phase for each column of a stride; else they are a stride apart."""
    channel, dy, _ = tap
    y = row * window.strides[0] + dy * window.dilations[0] - window.top + layout.top
    x, stride = input_column(tap, window, layout), window.strides[1]
    start = channel * layout.plane + y * layout.pitch
    if layout.phases == stride:
        position, phase = divmod(x, stride)
        return start + phase * layout.row + position
    return start + x - x % stride


def column_step(window: Window, layout: Layout) -> int:
    """Return the elements from what one output column reads to what the next one does."""
    stride = window.strides[1]
    return 1 if layout.phases == stride else stride


def first_of(tap: Tap, window: Window, layout: Layout) -> int:
    """Return where, counted from the tile's base, the element is that a tap of the first output reads."""
    return place_of(tap, 0, window, layout) + input_column(tap, window, layout) % column_step(window, layout)


def load_strided(
    b: Builder, memory: ir.Value, place: tuple[Index, int], lanes: int, first: int, stride: int
) -> ir.Value:
    """Load every `stride`-th element, from `first` on, counted from a base and an offset: all between the first and the
    last are loaded. Neighbouring taps load the same vectors."""
    base, offset = place
    if stride == 1:
        return b.load(memory, base, offset + first, lanes)
    parts = [b.load(memory, base, offset + part * lanes, lanes) for part in range(stride)]
    return pick_strided(b, parts, first, stride)


def pick_strided(b: Builder, parts: Vectors, first: int, stride: int) -> ir.Value:
    """Return every `stride`-th element, from `first` on, of `stride` concatenated vectors."""
    lanes = parts[0].type.shape[0]
    if stride == 2:
        return b.shuffle(parts[0], parts[1], range(first, 2 * lanes, 2))
    places = [divmod(first + lane * stride, lanes) for lane in range(lanes)]  # part and position in it
    picked = b.shuffle(parts[0], parts[0], [position if part == 0 else 0 for part, position in places])
    for number in range(1, stride):
        picks = [lanes + position if part == number else lane for lane, (part, position) in enumerate(places)]
        picked = b.shuffle(picked, parts[number], picks)
    return picked
