"""How the outputs of a tile begin, as accumulators, and end in memory, with the halo around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.dialects.schedules import ROWS, Schedule
from patc.integers import ceil_div
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.kernel import Epilogue, Kernel, Tile
from patc.passes.kernels.host.rows import Rows, Tensor, fill_bottom, fill_top, written
from patc.passes.kernels.tiling import Chunk


@dataclass(frozen=True)
class Ends:
    """The outputs of a layer in its kernel function.

    Attributes:
        kernel: the function.
        output: result of the layer.
        epilogue: of the layer.
    """

    kernel: Kernel
    output: Tensor
    epilogue: Epilogue

    @property
    def b(self) -> Builder:
        return self.kernel.b

    @property
    def schedule(self) -> Schedule:
        return self.kernel.schedule

    @property
    def channels(self) -> int:
        """Channels of the result."""
        return self.output.channels

    @property
    def group(self) -> int:
        """Neighbouring channels that are stored together."""
        return 1

    @property
    def plane_tiles(self) -> int:
        """Row tiles of an image."""
        return ceil_div(self.output.height, min(self.schedule.rows, self.output.height))

    def has_more_rows(self, tile: Tile) -> ir.Value | None:
        """Return whether the thread that computes a tile computes the one below, too; None where threads do not divide
        rows."""
        if self.schedule.threads == 1 or self.schedule.split != ROWS:
            return None
        b, number = self.b, tile.index
        if self.output.images > 1:
            number = b.add(b.mul(tile.image, self.plane_tiles), number)
        next_ = b.index(b.add(number, 1))
        return arith.CmpIOp(arith.CmpIPredicate.ne, next_, b.index(self.kernel.work.last_tile)).result

    def next_step(self, tile: Tile, step: int) -> Index:
        """Return how far away the next tile of a thread is, if that is `step` elements where it has one; else 0. Lines
        of a tile of another thread would come from its core, which wants them itself."""
        b, columns = self.b, self.schedule.columns
        more = self.has_more_rows(tile)
        if more is None:
            return step
        if columns < self.output.width:
            beside = b.index(b.add(tile.column, columns))
            width = b.index(self.output.width)
            more = arith.OrIOp(more, arith.CmpIOp(arith.CmpIPredicate.slt, beside, width).result).result
        return arith.SelectOp(more, b.index(step), b.index(0)).result

    def first_accumulators(self, tile: Tile, channel: Index) -> Vectors:
        """Return the accumulators of one channel, row by row: its bias in every lane."""
        b, bias = self.b, self.epilogue.bias
        start = b.load_scalar(bias, channel) if bias is not None else None
        row = [
            b.broadcast(start, chunk.lanes) if start is not None else b.splat(0.0, chunk.lanes) for chunk in tile.chunks
        ]
        return row * tile.rows

    def prefetch_ends(self, tile: Tile, channel: Index) -> None:
        """Ask for the lines that `store_tile` will write and for those of the residual, if they may be far away. What
        another core may have is asked of it for this tile; what may be behind the caches of this core, for the next
        tile and by the second-level cache, which has room for more lines under way than the first, and for a tile's.
        Since these lines were used last, about as many others went through the caches: tensors half as large, or a
        thread's part of one, may have left them."""
        b, residual = self.b, self.epilogue.residual
        read = [] if residual is None or residual.shape != self.output.shape else [residual]
        for tensor in (self.output, *read):
            is_distant = self.kernel.may_be_distant(2 * tensor.bytes // self.schedule.threads)
            if self.schedule.threads == 1 and not is_distant:
                continue
            layout = tensor.layout
            base = b.add(tile.base(b, tensor), b.mul(channel, layout.plane))
            last = tile.chunks[-1]
            if is_distant:
                ends_row = self.schedule.columns >= self.output.width
                step = tile.rows * layout.pitch if ends_row else last.column + last.lanes
                base = b.add(base, self.next_step(tile, step))
            is_written, level = tensor is self.output and not is_distant, 2 if is_distant else 1
            for row in range(tile.rows):
                start = (row + layout.top) * layout.pitch + layout.left
                for column in range(0, last.column + last.lanes, self.kernel.line(tensor.memory.type)):
                    b.prefetch(tensor.memory, base, start + column, write=is_written, level=level)

    def store_group(self, tile: Tile, group: Sequence[Sequence[Sequence[ir.Value]]], channel: Index) -> None:
        """Store the rows x chunks of accumulators of as many channels as are stored together; see `store_tile`."""
        for rows in group:
            self.store_tile(tile, [list(row) for row in rows], channel)

    def store_tile(self, tile: Tile, rows: Iterable[Vectors], channel: Index, end: int | None = None) -> None:
        """Do what `store_rows` does; the last strip of a row writes the halo as well.

        Args:
            end: columns of a row that are written, see `written`; None for those of the schedule's strips.
        """
        self.store_rows(tile, rows, channel)
        layout, lanes = self.output.layout, self.schedule.lanes
        if not tile.ends_row or layout.is_packed(self.output.height, self.output.width):
            return
        halo = Halo.of(self, tile, channel)
        if end is None:
            covered = tiling.covered_by(tiling.strips(self.output.width, self.schedule.columns, lanes))
            end = written(self.output, covered)
        for row in range(tile.rows):
            halo.fill_sides(row, end, lanes)
        halo.fill_above_and_below(ceil_div(self.output.height, tile.rows), lanes)

    def store_rows(self, tile: Tile, rows: Iterable[Vectors], channel: Index) -> None:
        """Store what becomes of one channel's rows x chunks of accumulators."""
        destination = Destination.of(self, tile, channel)
        for row, accumulators in enumerate(rows):
            destination.store(row, accumulators)


@dataclass(frozen=True)
class Destination:
    """Where one channel of a tile goes; `base` is the address of its first element, `residual` what joins it there, and
    `constants` are those of the activation."""

    ends: Ends
    tile: Tile
    base: Index
    residual: Residual | None
    constants: Vectors

    @staticmethod
    def of(ends: Ends, tile: Tile, channel: Index) -> Destination:
        b, output = ends.b, ends.output
        base = b.add(tile.base(b, output), b.mul(channel, output.layout.plane))
        constants = ends.epilogue.constants(b, channel, output.channels)
        return Destination(ends, tile, base, Residual.of(ends, tile, channel), constants)

    def store(self, row: int, accumulators: Vectors, bias: ir.Value | None = None) -> None:
        """Add the bias to the chunks of a row, let the residual join, apply the activation, and store them."""
        b, epilogue = self.ends.b, self.ends.epilogue
        values = []
        for value, chunk in zip(accumulators, self.tile.chunks, strict=True):
            if bias is not None:
                value = b.plus(value, b.broadcast(bias, chunk.lanes))
            residual = None if self.residual is None else self.residual.load(row, chunk)
            values.append(epilogue.finish(b, value, residual, self.constants))
        Rows(b, self.ends.output, self.base).store(values, row, self.tile.chunks)


@dataclass(frozen=True)
class Residual:
    """What joins one channel of a tile: rows, or a number that is the same for all of the plane.

    Attributes:
        place: where the rows are; the number.
    """

    b: Builder
    place: Rows | ir.Value

    @staticmethod
    def of(ends: Ends, tile: Tile, channel: Index) -> Residual | None:
        """Return the residual of a channel; None for a layer without one."""
        b, output, residual = ends.b, ends.output, ends.epilogue.residual
        if residual is None:
            return None
        if residual.images < output.images:
            tile = replace(tile, image=0)
        is_gate = residual.shape[2:] != output.shape[2:]
        first = b.mul(tile.image, residual.image) if is_gate else tile.base(b, residual)
        own = channel if residual.channels == output.channels else 0
        first = b.add(first, b.mul(own, residual.layout.plane))
        if is_gate:
            return Residual(b, b.load_scalar(residual.memory, b.add(first, residual.pixel)))
        return Residual(b, Rows(b, residual, first))

    def load(self, row: int, chunk: Chunk) -> ir.Value:
        """Return what joins a chunk of a row."""
        if isinstance(self.place, Rows):
            return self.place.load(row, chunk)
        return self.b.broadcast(self.place, chunk.lanes)


@dataclass(frozen=True)
class Halo:
    """The halo around the rows of a tile in one channel of the output; `plane` is the address of the channel."""

    b: Builder
    tile: Tile
    output: Tensor
    plane: Index

    @staticmethod
    def of(ends: Ends, tile: Tile, channel: Index) -> Halo:
        b, output = ends.b, ends.output
        return Halo(b, tile, output, b.add(b.mul(tile.image, output.image), b.mul(channel, output.layout.plane)))

    def fill_sides(self, row: int, end: int, lanes: int) -> None:
        """Fill what is left of column 0 and from column `end` on in a row of the tile."""
        rows = self.b.add(self.plane, self.b.mul(self.tile.row, self.output.layout.pitch))
        Rows(self.b, self.output, rows).fill_sides(row, end, lanes)

    def fill_above_and_below(self, tiles: int, lanes: int) -> None:
        """Fill the rows above the first and below the last of the tiles that a plane has."""
        b, index = self.b, 0 if tiles == 1 else self.tile.index
        b.when_equal(index, 0, lambda: fill_top(b, self.output, self.plane, lanes))
        b.when_equal(index, tiles - 1, lambda: fill_bottom(b, self.output, self.plane, lanes))
