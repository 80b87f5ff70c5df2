"""Pattern-packed sparse convolution: a tile's inputs are packed, and stay in the first-level cache for all filters.

    for row tile, for strip, for tile of it:
      for block of channels:
        pack their inputs: each row begins with a cache line     # once for all filters
        for filter:
          accumulators = bias, or what the block before left
          for shape: for kept kernel of the shape:
            for output row: products = weight * input vector + ..., accumulators += products
          store activation(accumulators + residual) behind the last block; else leave them for the next one

Patterns that are translations of each other have one shape, and one loop: where it begins is part of a kernel's place.
The products of a kernel are added up before they join the accumulators, so that chains of multiply-adds stay short.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, scf

from patc.integers import ceil_div
from patc.passes.ir.windows import Tap
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.host.ends import Destination, Halo
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops, place_of
from patc.passes.kernels.host.packed_tiles import PackedStrip
from patc.passes.kernels.host.rows import written


@dataclass(frozen=True)
class BlockMajorWeights:
    """The arrays of `BlockMajor` in memory, flat.

    Attributes:
        shapes: taps of each, counted from its first row and column.
        places: where each kernel's shape begins among the inputs of its block, for each strip.
        reorder: the output channel of each stored filter.
    """

    shapes: Sequence[Sequence[Tap]]
    values: ir.Value
    bounds: ir.Value
    places: Sequence[ir.Value]
    reorder: ir.Value


@dataclass(frozen=True)
class PatternPacked:
    """The loops.

    Attributes:
        strips: of a row tile.
        block: channels that are packed together.
        step: elements of one packed channel.
    """

    loops: Loops
    weights: BlockMajorWeights
    strips: Sequence[PackedStrip]
    block: int
    step: int

    def emit(self) -> None:
        """Emit all loops."""
        b, loops = self.loops.b, self.loops
        lanes = loops.schedule.lanes
        packed = b.scratch(self.block * self.step + lanes)
        b.store(b.splat(0.0, lanes), packed, self.block * self.step, 0)
        filters = loops.output.channels
        most = max(strip.rows for strip in self.strips)
        parked = b.scratch(filters * most * lanes) if self.block < loops.source.channels else None
        height, rows = loops.output.height, min(loops.schedule.rows, loops.output.height)
        tiles = ceil_div(height, rows)

        def one_row_tile(number: Index) -> None:
            image, index = b.divide(number, tiles) if loops.output.images > 1 else (0, number)
            row = b.minimum(b.mul(index, rows), height - rows)
            for which, strip in enumerate(self.strips):

                def one_tile(turn: Index, which: int = which, strip: PackedStrip = strip) -> None:
                    position, part = b.divide(turn, strip.tiles)
                    column = b.add(b.mul(position, strip.strip.columns), strip.strip.start)
                    first = b.add(row, b.minimum(b.mul(part, strip.height), rows - strip.height))
                    ends_row = which == len(self.strips) - 1
                    place = b.add(b.mul(index, strip.tiles), part)
                    tile = Tile(image, first, column, strip.height, (strip.chunk,), place, ends_row)
                    _PackedTile(self, tile, which, packed, parked).emit(tiles * strip.tiles)

                b.repeat(strip.strip.count * strip.tiles, one_tile)

        b.each(loops.kernel.work.first_tile, loops.kernel.work.last_tile, one_row_tile)


@dataclass(frozen=True)
class _PackedTile:
    """One tile of a strip.

    Attributes:
        which: number of the strip.
        packed: the block's inputs.
        parked: accumulators between blocks; None where there is one block.
    """

    whole: PatternPacked
    tile: Tile
    which: int
    packed: ir.Value
    parked: ir.Value | None

    @property
    def loops(self) -> Loops:
        return self.whole.loops

    @property
    def strip(self) -> PackedStrip:
        return self.whole.strips[self.which]

    def emit(self, tiles: int) -> None:
        """Emit the loops over blocks and filters.

        Args:
            tiles: that are above each other in a plane.
        """
        b, block, channels = self.loops.b, self.whole.block, self.loops.source.channels
        blocks = ceil_div(channels, block)

        def one_block(number: Index) -> None:
            first = b.mul(number, block)
            count = b.minimum(b.subtract(b.index(channels), b.index(first)), block) if blocks > 1 else channels
            b.each(0, count, lambda channel: self._pack(first, channel))
            work = self.loops.kernel.work
            b.each(work.first_filter, work.last_filter, lambda stored: self._one_filter(number, stored, blocks, tiles))

        b.repeat(blocks, one_block)

    def _pack(self, first: Index, channel: ir.Value) -> None:
        """Copy what the tile reads of a channel, rows of several groups side by side.

        What a row's last vector writes behind its end, the next row overwrites.
        """
        b, strip, source = self.loops.b, self.strip, self.loops.source
        base = b.add(self.loops.base(self.tile), b.mul(b.add(first, channel), source.layout.plane))
        own, lanes = b.mul(channel, self.whole.step), strip.chunk.lanes
        window = self.loops.window
        behind = window.kernel[1] - 1
        for y in range(strip.rows + window.kernel[0] - 1):
            for dx in (*range(0, behind, lanes), behind):
                places = [place_of((0, y, dx), start, window, source.layout) for start in strip.starts]
                rows = [b.load(source.memory, base, place, lanes) for place in places]
                value = rows[0]
                if len(rows) > 1:
                    whole = b.concatenate(rows, lanes * len(rows))
                    picks = [row * lanes + lane for lane in range(lanes) for row in range(len(rows))]
                    value = b.shuffle(whole, whole, picks)
                b.store(value, self.packed, own, y * strip.pitch + dx * strip.groups)

    def _one_filter(self, number: Index, stored: ir.Value, blocks: int, tiles: int) -> None:
        b, weights, loops = self.loops.b, self.whole.weights, self.loops
        channel = b.load_index(weights.reorder, stored)
        shapes = len(weights.shapes)
        cell = b.mul(b.add(b.mul(number, loops.output.channels), stored), shapes)
        bounds = [b.load_index(weights.bounds, b.add(cell, shape)) for shape in range(shapes + 1)]
        accumulators = self._first(number, stored, channel)
        for shape, taps in enumerate(weights.shapes):

            def one_kernel(kernel: ir.Value, sums: Vectors, taps: Sequence[Tap] = taps) -> Vectors:
                return self._add_kernel(kernel, sums, taps)

            accumulators = b.loop(bounds[shape], bounds[shape + 1], accumulators, one_kernel)
        if self.parked is None:
            self._finish(accumulators, channel, tiles)
            return
        last = arith.CmpIOp(arith.CmpIPredicate.eq, b.index(number), b.index(blocks - 1)).result
        op = scf.IfOp(last, has_else=True)
        with ir.InsertionPoint(op.then_block):
            self._finish(accumulators, channel, tiles)
            scf.YieldOp([])
        with ir.InsertionPoint(op.else_block):
            own = b.mul(stored, self._room)
            for row, value in enumerate(accumulators):
                b.store(value, self.parked, own, row * self._lanes)
            scf.YieldOp([])

    @property
    def _lanes(self) -> int:
        return self.strip.chunk.lanes * self.strip.groups

    @property
    def _room(self) -> int:
        """Elements of the accumulators of a filter."""
        return self.strip.rows * self._lanes

    def _first(self, number: Index, stored: ir.Value, channel: ir.Value) -> Vectors:
        """Return the accumulators as they are before a block."""
        b, bias = self.loops.b, self.loops.epilogue.bias

        def of_bias() -> Vectors:
            value = b.splat(0.0, self._lanes)
            if bias is not None:
                value = b.broadcast(b.load_scalar(bias, channel), self._lanes)
            return [value] * self.strip.rows

        if self.parked is None:
            return of_bias()
        first = arith.CmpIOp(arith.CmpIPredicate.eq, b.index(number), b.index(0)).result
        kind = ir.VectorType.get([self._lanes], b.element)
        op = scf.IfOp(first, [kind] * self.strip.rows, has_else=True)
        with ir.InsertionPoint(op.then_block):
            scf.YieldOp(of_bias())
        with ir.InsertionPoint(op.else_block):
            own = b.mul(stored, self._room)
            scf.YieldOp([b.load(self.parked, own, row * self._lanes, self._lanes) for row in range(self.strip.rows)])
        return list(op.results)

    def _add_kernel(self, kernel: ir.Value, accumulators: Vectors, taps: Sequence[Tap]) -> Vectors:
        """Add one kept kernel's products. Input vectors are visited row by row and each is loaded once."""
        b, weights, strip = self.loops.b, self.whole.weights, self.strip
        entries, lanes = len(taps), self._lanes
        base, first = b.load_index(weights.places[self.which], kernel), b.mul(kernel, entries)
        scalars = [b.load_scalar(weights.values, b.add(first, entry)) for entry in range(entries)]
        factors = [b.broadcast(scalar, lanes) for scalar in scalars]
        sums, products = list(accumulators), [list[tuple[int, ir.Value]]() for _ in range(strip.rows)]
        uses: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for row, (entry, (_, dy, dx)) in itertools.product(range(strip.rows), enumerate(taps)):
            uses.setdefault((row + dy, dx), []).append((row, entry))
        for (y, dx), users in sorted(uses.items()):
            vector = b.load(self.packed, base, y * strip.pitch + dx * strip.groups, lanes)
            for row, entry in users:
                products[row].append((entry, vector))
                if len(products[row]) == entries:
                    sums[row] = b.plus(sums[row], self._add_up(products[row], factors))
        return sums

    def _add_up(self, products: Sequence[tuple[int, ir.Value]], factors: Vectors) -> ir.Value:
        """Return the sum of products of factors, by their numbers, and vectors."""
        (first, vector), *others = products
        total = self.loops.b.times(factors[first], vector)
        for number, vector in others:
            total = self.loops.b.fma(factors[number], vector, total)
        return total

    def _finish(self, accumulators: Vectors, channel: ir.Value, tiles: int) -> None:
        """Store a filter's sums, and the halo beside them."""
        b, strip, loops = self.loops.b, self.strip, self.loops
        destination = Destination.of(loops, self.tile, channel)
        for row, value in enumerate(accumulators):
            for group, start in enumerate(strip.starts):
                lanes = strip.chunk.lanes
                picks = [lane * strip.groups + group for lane in range(lanes)]
                part = value if strip.groups == 1 else b.shuffle(value, value, picks)
                destination.store(start + row, [part])
        layout = loops.output.layout
        if not self.tile.ends_row or layout.is_packed(loops.output.height, loops.output.width):
            return
        halo, last = Halo.of(loops, self.tile, channel), self.whole.strips[-1]
        end = written(loops.output, last.strip.start + (last.strip.count - 1) * last.strip.columns + last.chunk.lanes)
        for row in range(self.tile.rows):
            halo.fill_sides(row, end, loops.schedule.lanes)
        halo.fill_above_and_below(tiles, loops.schedule.lanes)
