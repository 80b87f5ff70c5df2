"""The loops of Winograd convolution, see `winograd`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch_mlir import ir
from torch_mlir.dialects import arith, scf

from patc.integers import ceil_div
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host import winograd_repair
from patc.passes.kernels.host.ends import Destination, Ends, Halo
from patc.passes.kernels.host.kernel import Kernel, Tile
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.winograd import Layer, Phase, Strip, inputs_of
from patc.passes.kernels.host.winograd_transforms import (
    TILE,
    Label,
    Named,
    regroup,
    transform_inputs,
    transform_outputs,
)
from patc.passes.kernels.tiling import Tensor

DISTANT_BYTES = 1 << 20  # of inputs that the second-level cache does not hold

Range: TypeAlias = tuple[Index, Index]  # the first one, and the one after the last


@dataclass(frozen=True)
class Planes:
    """Memory for transformed inputs: from element `start` on, [phase][channel][position][tile]."""

    memory: ir.Value
    start: Index = 0


@dataclass(frozen=True)
class Products:
    """Memory for products, [filter][position][tile] from element `start` on, of the filters from `filter` on."""

    memory: ir.Value
    start: Index = 0
    filter: Index = 0

    def of_filter(self, b: Builder, layer: Layer, number: Index) -> Index:
        """Return where the products of a filter start."""
        if not isinstance(self.filter, int) or self.filter:
            number = b.subtract(b.index(number), b.index(self.filter))
        return b.add(self.start, b.mul(number, layer.channel))


@dataclass(frozen=True)
class Bands:
    """All stages of bands of a layer, one band after the other.

    Attributes:
        weights: as of `Multiplication`.
    """

    loops: Loops
    layer: Layer
    planes: Planes
    weights: ir.Value
    products: Products

    @staticmethod
    def of_thread(loops: Loops, layer: Layer, memories: Sequence[ir.Value]) -> Bands:
        """Return the bands of a thread among which those of the layer are divided evenly.

        Args:
            memories: for transformed inputs, the weights, and for products; each thread has its own part of the first
                and the last.
        """
        b, threads = loops.b, loops.schedule.threads
        planes, weights, products = memories
        # The number of the thread: thread t starts with band floor(bands * t / threads).
        slot: Index = 0
        if threads > 1:
            slot = b.divide(b.add(b.mul(loops.kernel.work.first_tile, threads), layer.bands - 1), layer.bands)[0]
        own = Planes(planes, b.mul(slot, layer.depth * layer.channel))
        return Bands(loops, layer, own, weights, Products(products, b.mul(slot, layer.kept * layer.channel)))

    def emit(self) -> ir.Value:
        """Emit the bands of the kernel's share, and return what `winograd_repair.watch` saw."""
        work, nothing = self.loops.kernel.work, nothing_seen(self.loops.b, self.layer)
        return self.loops.b.loop(work.first_tile, work.last_tile, [nothing], self._one_band)[0]

    def _one_band(self, number: ir.Value, seen: Vectors) -> Vectors:
        b, layer = self.loops.b, self.layer
        start = first_row(b, layer, number)
        InputTransform(self.loops.kernel, layer, self.loops.source).emit(self.planes, (0, layer.channels), start)
        groups = ceil_div(layer.blocks, layer.group)
        return _repeat(b, groups, lambda group, seen: [self._one_group(start, group, seen[0])], seen)

    def _one_group(self, start: Index, group: Index, seen: ir.Value) -> ir.Value:
        b, layer = self.loops.b, self.layer
        first, end = (b.mul(b.add(group, step), layer.group) for step in (0, 1))
        blocks = first, b.minimum(end, layer.blocks)
        filters = b.mul(first, layer.block), b.minimum(b.mul(end, layer.block), layer.filters)
        products = replace(self.products, filter=b.minimum(filters[0], layer.filters - layer.block))
        Multiplication(b, layer, self.planes, self.weights, products).emit((0, layer.positions), blocks)
        return OutputTransform(self.loops, layer, products).emit(filters, start, seen)


def nothing_seen(b: Builder, layer: Layer) -> ir.Value:
    """Return what `winograd_repair.watch` starts with."""
    return b.splat(0.0, winograd_repair.watched_lanes(layer))


def first_row(b: Builder, layer: Layer, band: Index) -> Index:
    """Return the first row of tiles of a band, counted through all images."""
    return b.minimum(b.mul(band, layer.band), layer.images * layer.rows - layer.band)


def _for_vectors(
    b: Builder, layer: Layer, carried: Vectors, body: Callable[[Index, Index, Strip, Vectors], Vectors]
) -> Vectors:
    """Emit the loops over the vectors of a band; `body(first row of tiles in the band, first column, strip, carried)`.

    Vectors come in the order of their tiles in memory: what one stores behind its tiles is overwritten by the next.
    """
    strips = layer.strips()
    rows = strips[0].rows

    def some_rows(number: Index, carried: Vectors) -> Vectors:
        first = b.minimum(b.mul(number, rows), layer.band - rows)
        for strip in strips:

            def one_vector(position: Index, carried: Vectors, strip: Strip = strip) -> Vectors:
                return body(first, b.add(b.mul(position, strip.columns), strip.start), strip, carried)

            carried = _repeat(b, strip.count, one_vector, carried)
        return carried

    return _repeat(b, ceil_div(layer.band, rows), some_rows, carried)


def _repeat(
    b: Builder, count: int, body: Callable[[Index, Vectors], Vectors], carried: Sequence[ir.Value] = ()
) -> Vectors:
    """Emit a loop of `count` turns, or its body."""
    return body(0, [*carried]) if count == 1 else b.loop(0, count, [*carried], body)


@dataclass(frozen=True)
class InputTransform:
    """B^T d B of a band."""

    kernel: Kernel
    layer: Layer
    source: Tensor

    def emit(self, planes: Planes, channels: Range, start: Index) -> None:
        """Emit the loops for some channels.

        Args:
            start: first row of tiles of the band, counted through all images.
        """
        b, layer = self.kernel.b, self.layer
        for number, phase in enumerate(layer.phases):

            def one_channel(channel: ir.Value, number: int = number, phase: Phase = phase) -> None:
                plane = b.mul(channel, self.source.layout.plane)
                target = b.add(planes.start, b.mul(b.add(channel, number * layer.channels), layer.channel))

                def one_vector(first: Index, column: Index, strip: Strip, _: Vectors) -> Vectors:
                    vector = _InputVector(self, phase, strip, plane, column)
                    parts = vector.transformed_rows([b.add(b.add(start, first), row) for row in range(strip.rows)])
                    tile = b.add(b.add(target, b.mul(first, layer.columns)), column)
                    for line, values in enumerate(parts):
                        columns = vector.columns_of_tiles(values)
                        for shift, value in enumerate(transform_inputs(b, columns)):
                            b.store(value, planes.memory, tile, (layer.read * line + shift) * layer.plane)
                    return []

                _for_vectors(b, layer, [], one_vector)

            b.each(*channels, one_channel)


@dataclass(frozen=True)
class _InputVector:
    """The inputs of a vector of tiles.

    Attributes:
        plane: address of the channel.
        column: of tiles, the first one.
    """

    transform: InputTransform
    phase: Phase
    strip: Strip
    plane: Index
    column: Index

    def transformed_rows(self, places: Sequence[Index]) -> list[list[Named]]:
        """Load the input rows of all rows of tiles, as far as the strip reads them, and transform them vertically.

        Args:
            places: of the rows of tiles, counted through all images.
        """
        rows = [self._transformed_row(row, self._bases(place)) for row, place in enumerate(places)]
        return [[part for row in rows for part in row[line]] for line in range(self.phase.lines)]

    def _bases(self, place: Index) -> list[Index]:
        """Return the addresses of the input rows of a row of tiles."""
        b, layer, source = self.transform.kernel.b, self.transform.layer, self.transform.source
        image, index = b.divide(place, layer.rows)
        base = b.add(b.add(self.plane, b.mul(image, source.image)), b.mul(self.column, TILE))
        bases = []
        last = layer.height + self.phase.height - 2
        for number in range(self.phase.lines):
            y = b.add(b.mul(index, TILE), number)
            if TILE * (layer.rows - 1) + number > last:
                y = b.minimum(y, last)
            bases.append(b.add(base, b.mul(y, layer.stride * source.layout.pitch)))
        return bases

    def _transformed_row(self, row: int, bases: Sequence[Index]) -> list[list[Named]]:
        """Do what `transformed_rows` does for one row of tiles of the vector."""
        b, source, window = self.transform.kernel.b, self.transform.source, self.transform.kernel.window
        layout = source.layout
        position, part = divmod(layout.left - window.left + self.phase.column, layout.phases)
        corner = (layout.top - window.top + self.phase.row) * layout.pitch + part * layout.row + position
        lines: list[list[Named]] = [[] for _ in range(self.phase.lines)]
        distant = source.bytes > DISTANT_BYTES
        for chunk in tiling.cut(self._inputs, self.transform.layer.lanes):
            labels = tuple((row, chunk.column + lane) for lane in range(chunk.lanes))
            values = [b.load(source.memory, base, corner + chunk.column, chunk.lanes) for base in bases]
            if distant:  # ask for the same rows of the next channel
                for base in bases:
                    b.prefetch(source.memory, base, corner + chunk.column + layout.plane)
            for line, value in zip(lines, transform_inputs(b, values), strict=True):
                line.append(Named(value, labels))
        return lines

    def columns_of_tiles(self, parts: Sequence[Named]) -> Vectors:
        """Return the columns of each tile, a vector each, from rows of inputs.

        Where a column does not exist, another one of the tile is in its place: no output that exists depends on it, but
        rounding errors do.
        """
        b, inputs, phase = self.transform.kernel.b, self._inputs, self.phase

        def column(shift: int) -> list[Label]:
            places = [(row, TILE * tile, TILE * tile + shift) for row, tile in self.strip.tiles()]
            return [(row, place if place < inputs else first + shift % 2) for row, first, place in places]

        # Columns 0 and 4 of neighbouring tiles are the same, so are 1 and 5, and 2 and 6.
        vectors: dict[int, ir.Value] = {}
        for shifts in ([0, 1, 4, 5], [2, 3, 6][: phase.shifts - TILE]):
            vectors.update(zip(shifts, regroup(b, parts, [column(shift) for shift in shifts]), strict=True))
        return [vectors[shift] for shift in range(phase.shifts)]

    @property
    def _inputs(self) -> int:
        return inputs_of(self.transform.layer, self.phase, self.strip)


@dataclass(frozen=True)
class Multiplication:
    """The products of a band.

    Attributes:
        weights: [position][block][phase][channel][filter of the block].
    """

    b: Builder
    layer: Layer
    planes: Planes
    weights: ir.Value
    products: Products

    def emit(self, positions: Range, blocks: Range) -> None:
        """Emit the loops for some positions and blocks of filters."""
        b, layer = self.b, self.layer

        def one_position(position: ir.Value) -> None:
            channels = _channels_of(b, layer, position)
            # The inputs of a strip stay in the first-level cache for all filters.
            for strip in layer.parts():

                def one_strip(number: Index, strip: tiling.Strip = strip) -> None:
                    tile = b.add(b.add(b.mul(number, strip.columns), strip.start), b.mul(position, layer.plane))
                    tiles = _Tiles(position, channels, tile, strip.chunks)
                    b.each(*blocks, lambda block: self._one_block(tiles, block))

                b.repeat(strip.count, one_strip)

        b.each(*positions, one_position)

    def _one_block(self, tiles: _Tiles, number: ir.Value) -> None:
        b, layer, block = self.b, self.layer, self.layer.block
        packed = b.mul(b.add(b.mul(tiles.position, layer.blocks), number), layer.depth * block)
        filter_ = b.minimum(b.mul(number, block), layer.filters - block)

        def one_channel(channel: ir.Value, accumulators: Vectors) -> Vectors:
            base = b.add(b.add(tiles.first, self.planes.start), b.mul(channel, layer.channel))
            vectors = [b.load(self.planes.memory, base, chunk.column, chunk.lanes) for chunk in tiles.chunks]
            first = b.add(packed, b.mul(channel, block))
            accumulators = list(accumulators)
            for member in range(block):
                scalar = b.load_scalar(self.weights, b.add(first, member))
                for place, vector in enumerate(vectors, member * len(vectors)):
                    weight = b.broadcast(scalar, vector.type.shape[0])
                    accumulators[place] = b.fma(weight, vector, accumulators[place])
            return accumulators

        zeros = [b.splat(0.0, chunk.lanes) for chunk in tiles.chunks] * block
        accumulators = iter(b.loop(*tiles.channels, zeros, one_channel))
        first = b.add(tiles.first, self.products.of_filter(b, layer, filter_))
        for member in range(block):
            for chunk in tiles.chunks:
                value = next(accumulators)
                b.store(value, self.products.memory, b.add(first, member * layer.channel), chunk.column)


@dataclass(frozen=True)
class _Tiles:
    """Some tiles at one position, and the channels whose phases use it; `first` is the place of the first tile in the
    positions of a channel."""

    position: ir.Value
    channels: Range
    first: Index
    chunks: tuple[tiling.Chunk, ...]


def _channels_of(b: Builder, layer: Layer, position: ir.Value) -> Range:
    """Return the first of the channels whose phases use a position, and the one after the last."""
    if all(phase.lines == phase.shifts == layer.read for phase in layer.phases):
        return 0, layer.depth
    line, shift = b.divide(position, layer.read)

    def select(place: Index, last: Index, other: Index) -> ir.Value:
        """Return `last` in the last line, or shift, else `other`."""
        is_last = arith.CmpIOp(arith.CmpIPredicate.eq, b.index(place), b.index(layer.read - 1)).result
        return arith.SelectOp(is_last, b.index(last), b.index(other)).result

    count = layer.channels  # phases 0 and 1 have all lines, 1 and 2 all shifts
    return select(shift, count, 0), select(line, 2 * count, select(shift, 3 * count, 4 * count))


@dataclass(frozen=True)
class OutputTransform:
    """A^T m A of a band, and the epilogue."""

    ends: Ends
    layer: Layer
    products: Products

    def emit(self, filters: Range, start: Index, seen: ir.Value) -> ir.Value:
        """Emit the loops for some filters.

        Args:
            start: first row of tiles of the band, counted through all images.
            seen: by `winograd_repair.watch` so far.

        Returns:
            what it has seen then.
        """
        b, layer = self.ends.b, self.layer

        def one_filter(filter_: ir.Value, seen: Vectors) -> Vectors:
            plane = self.products.of_filter(b, layer, filter_)

            def one_vector(first: Index, column: Index, strip: Strip, seen: Vectors) -> Vectors:
                outputs = self._outputs(b.add(b.add(plane, b.mul(first, layer.columns)), column), strip)
                valid = min(TILE * strip.columns, layer.width - TILE * strip.start if strip.is_last else layer.width)
                chunks = tiling.cut(valid, layer.lanes)
                rows = [_rows_of_outputs(b, strip, chunks, columns) for columns in outputs]
                for row in range(strip.rows):
                    image, index = b.divide(b.add(b.add(start, first), row), layer.rows)
                    place = image, b.mul(index, TILE), b.mul(column, TILE)
                    tile = Tile(*place, TILE, chunks, index, strip.is_last)
                    own = [line[row * len(chunks) : (row + 1) * len(chunks)] for line in rows]
                    self._store_row_of_tiles(tile, own, filter_)
                return [winograd_repair.watch(b, strip, outputs, seen[0])]

            return _for_vectors(b, layer, seen, one_vector)

        return b.loop(*filters, [seen], one_filter)[0]

    def _outputs(self, place: Index, strip: Strip) -> list[Vectors]:
        """Return the outputs of a vector of tiles: for each row a vector for each column."""
        b, layer = self.ends.b, self.layer
        lines: list[Vectors] = [[] for _ in range(TILE)]
        for shift in range(layer.read):
            offsets = [(layer.read * line + shift) * layer.plane for line in range(layer.read)]
            values = [b.load(self.products.memory, place, offset, strip.lanes) for offset in offsets]
            for line, value in zip(lines, transform_outputs(b, values), strict=True):
                line.append(value)
        return [transform_outputs(b, line) for line in lines]

    def _store_row_of_tiles(self, tile: Tile, rows: list[Vectors], channel: Index) -> None:
        """Apply the epilogue to four rows of outputs and store those that exist; what ends a row writes the halo too.

        Args:
            rows: the chunks of each row.
        """
        b, layer, output = self.ends.b, self.layer, self.ends.output
        destination, halo = Destination.of(self.ends, tile, channel), Halo.of(self.ends, tile, channel)
        bias = self.ends.epilogue.bias
        scalar = b.load_scalar(bias, channel) if bias is not None else None
        has_halo = tile.ends_row and not output.layout.is_packed(output.height, output.width)
        end = tiling.written(output, tiling.strips(output.width, TILE * layer.lanes, layer.lanes))

        def store_rows(numbers: Sequence[int]) -> None:
            for row in numbers:
                destination.store(row, rows[row], scalar)
                if has_halo:
                    halo.fill_sides(row, end, layer.lanes)

        last = layer.rows - 1
        always = layer.height - TILE * last  # rows that exist in the last row of tiles too
        store_rows(range(always))
        if always < TILE and last > 0:
            above = arith.CmpIOp(arith.CmpIPredicate.ne, b.index(tile.index), b.index(last)).result
            with ir.InsertionPoint(scf.IfOp(above).then_block):
                store_rows(range(always, TILE))
                scf.YieldOp([])
        if has_halo:
            halo.fill_above_and_below(layer.rows, layer.lanes)


def _rows_of_outputs(b: Builder, strip: Strip, chunks: Sequence[tiling.Chunk], columns: Vectors) -> Vectors:
    """Return the chunks of one output row of each row of tiles, from vectors of the four columns of each tile."""
    places = strip.tiles()
    sources = [
        Named(value, tuple((row, TILE * tile + shift) for row, tile in places)) for shift, value in enumerate(columns)
    ]
    wanted = [
        [(row, chunk.column + min(lane, chunk.valid - 1)) for lane in range(chunk.lanes)]
        for row in range(strip.rows)
        for chunk in chunks
    ]
    half = ceil_div(len(wanted), 2)
    return [value for part in (wanted[:half], wanted[half:]) if part for value in regroup(b, sources, part)]
