"""The loops of Winograd convolution, see `winograd`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, scf

from patc.integers import ceil_div
from patc.passes.ir.windows import Window
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host import winograd_repair
from patc.passes.kernels.host.convolution import Epilogue, Tile, Work
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

SECOND_LEVEL_BYTES = 1 << 20


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


def compute_bands(
    b: Builder,
    work: Work,
    layer: Layer,
    threads: int,
    source: Tensor,
    transformed: ir.Value,
    weights: ir.Value,
    products: ir.Value,
    output: Tensor,
    epilogue: Epilogue,
    window: Window,
) -> ir.Value:
    """Emit the bands `work.first_tile` .. `work.last_tile` - 1, and return what `winograd_repair.watch` saw.

    Args:
        threads: among which the bands of the layer are divided evenly; each has its own part of `transformed` and
            `products`.
    """
    # The number of the thread: thread t starts with band floor(bands * t / threads).
    slot: Index = 0
    if threads > 1:
        slot = b.divide(b.add(b.mul(work.first_tile, threads), layer.bands - 1), layer.bands)[0]
    inputs = b.mul(slot, layer.depth * layer.channel)
    sums = b.mul(slot, layer.kept * layer.channel)

    def one_band(number: ir.Value, seen: Vectors) -> Vectors:
        start = first_row(b, layer, number)
        transform_input(b, layer, (0, layer.channels), start, source, transformed, inputs, window)

        def one_group(group: Index, seen: Vectors) -> Vectors:
            first, end = (b.mul(b.add(group, step), layer.group) for step in (0, 1))
            blocks = first, b.minimum(end, layer.blocks)
            filters = b.mul(first, layer.block), b.minimum(b.mul(end, layer.block), layer.filters)
            kept = Products(products, sums, b.minimum(filters[0], layer.filters - layer.block))
            multiply(b, layer, (0, layer.positions), blocks, transformed, inputs, weights, kept)
            return [transform_output(b, layer, filters, start, kept, output, epilogue, seen[0])]

        return _repeat(b, ceil_div(layer.blocks, layer.group), one_group, seen)

    return b.loop(work.first_tile, work.last_tile, [nothing_seen(b, layer)], one_band)[0]


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


def transform_input(
    b: Builder,
    layer: Layer,
    channels: tuple[Index, Index],
    start: Index,
    source: Tensor,
    transformed: ir.Value,
    first_element: Index,
    window: Window,
) -> None:
    """Emit B^T d B of a band for the channels from `channels[0]` to before `channels[1]`.

    Args:
        start: first row of tiles of the band, counted through all images.
        transformed: from `first_element` on, gets [phase][channel][position][tile].
    """
    for number, phase in enumerate(layer.phases):

        def one_channel(channel: ir.Value, _: Vectors, number: int = number, phase: Phase = phase) -> Vectors:
            plane = b.mul(channel, source.layout.plane)
            target = b.add(first_element, b.mul(b.add(channel, number * layer.channels), layer.channel))

            def one_vector(first: Index, column: Index, strip: Strip, _: Vectors) -> Vectors:
                places = [b.add(b.add(start, first), row) for row in range(strip.rows)]
                rows = [
                    _transformed_rows(b, layer, phase, strip, row, place, plane, column, source, window)
                    for row, place in enumerate(places)
                ]
                tile = b.add(b.add(target, b.mul(first, layer.columns)), column)
                for line in range(phase.lines):
                    parts = [part for row in rows for part in row[line]]
                    vectors = _columns_of_tiles(b, layer, phase, strip, parts)
                    for shift, value in enumerate(transform_inputs(b, vectors)):
                        b.store(value, transformed, tile, (layer.read * line + shift) * layer.plane)
                return []

            return _for_vectors(b, layer, [], one_vector)

        b.loop(*channels, [], one_channel)


def _transformed_rows(
    b: Builder,
    layer: Layer,
    phase: Phase,
    strip: Strip,
    row: int,
    place: Index,
    plane: Index,
    column: Index,
    source: Tensor,
    window: Window,
) -> list[list[Named]]:
    """Load the input rows of a row of tiles, as far as the strip reads them, and transform them vertically.

    Args:
        row: of tiles in the vector.
        place: of the row of tiles, counted through all images.
    """
    layout = source.layout
    image, index = b.divide(place, layer.rows)
    base = b.add(b.add(plane, b.mul(image, source.image)), b.mul(column, TILE))
    bases = []
    last = layer.height + phase.height - 2
    for number in range(phase.lines):
        y = b.add(b.mul(index, TILE), number)
        if TILE * (layer.rows - 1) + number > last:
            y = b.minimum(y, last)
        bases.append(b.add(base, b.mul(y, layer.stride * layout.pitch)))
    position, part = divmod(layout.left - window.left + phase.column, layout.phases)
    corner = (layout.top - window.top + phase.row) * layout.pitch + part * layout.row + position
    lines: list[list[Named]] = [[] for _ in range(phase.lines)]
    distant = 4 * source.images * source.image > SECOND_LEVEL_BYTES
    for chunk in tiling.cut(inputs_of(layer, phase, strip), layer.lanes):
        labels = tuple((row, chunk.column + lane) for lane in range(chunk.lanes))
        values = [b.load(source.memory, base, corner + chunk.column, chunk.lanes) for base in bases]
        if distant:  # ask for the same rows of the next channel
            for base in bases:
                b.prefetch(source.memory, base, corner + chunk.column + layout.plane)
        for line, value in zip(lines, transform_inputs(b, values), strict=True):
            line.append(Named(value, labels))
    return lines


def _columns_of_tiles(b: Builder, layer: Layer, phase: Phase, strip: Strip, parts: Sequence[Named]) -> Vectors:
    """Return the columns of each tile, a vector each, from rows of inputs.

    Where a column does not exist, another one of the tile is in its place: no output that exists depends on it, but
    rounding errors do.
    """
    inputs = inputs_of(layer, phase, strip)

    def column(shift: int) -> list[Label]:
        places = [(row, TILE * tile, TILE * tile + shift) for row, tile in strip.tiles()]
        return [(row, place if place < inputs else first + shift % 2) for row, first, place in places]

    # Columns 0 and 4 of neighbouring tiles are the same, so are 1 and 5, and 2 and 6.
    vectors: dict[int, ir.Value] = {}
    for shifts in ([0, 1, 4, 5], [2, 3, 6][: phase.shifts - TILE]):
        vectors.update(zip(shifts, regroup(b, parts, [column(shift) for shift in shifts]), strict=True))
    return [vectors[shift] for shift in range(phase.shifts)]


def multiply(
    b: Builder,
    layer: Layer,
    positions: tuple[Index, Index],
    blocks: tuple[Index, Index],
    transformed: ir.Value,
    first_input: Index,
    weights: ir.Value,
    products: Products,
) -> None:
    """Emit the products of a band for some positions and blocks of filters.

    Args:
        transformed: from `first_input` on, [phase][channel][position][tile].
        weights: [position][block][phase][channel][filter of the block].
    """
    block = layer.block

    def one_block(
        number: ir.Value, position: ir.Value, channels: tuple[Index, Index], tile: Index, strip: tiling.Strip
    ) -> None:
        chunks = strip.chunks
        packed = b.mul(b.add(b.mul(position, layer.blocks), number), layer.depth * block)
        filter_ = b.minimum(b.mul(number, block), layer.filters - block)

        def one_channel(channel: ir.Value, sums: Vectors) -> Vectors:
            base = b.add(b.add(tile, first_input), b.mul(channel, layer.channel))
            vectors = [b.load(transformed, base, chunk.column, chunk.lanes) for chunk in chunks]
            first = b.add(packed, b.mul(channel, block))
            sums = list(sums)
            for member in range(block):
                scalar = b.load_scalar(weights, b.add(first, member))
                for place, vector in enumerate(vectors, member * len(chunks)):
                    sums[place] = b.fma(b.broadcast(scalar, vector.type.shape[0]), vector, sums[place])
            return sums

        zeros = [b.splat(0.0, chunk.lanes) for chunk in chunks] * block
        sums = iter(b.loop(*channels, zeros, one_channel))
        first = b.add(tile, products.of_filter(b, layer, filter_))
        for member in range(block):
            for chunk in chunks:
                b.store(next(sums), products.memory, b.add(first, member * layer.channel), chunk.column)

    def one_position(position: ir.Value, _: Vectors) -> Vectors:
        channels = _channels_of(b, layer, position)
        # The inputs of a strip stay in the first-level cache for all filters.
        for strip in layer.parts():

            def one_strip(number: Index, _: Vectors, strip: tiling.Strip = strip) -> Vectors:
                tile = b.add(b.add(b.mul(number, strip.columns), strip.start), b.mul(position, layer.plane))

                def body(number: ir.Value, _: Vectors) -> Vectors:
                    one_block(number, position, channels, tile, strip)
                    return []

                b.loop(*blocks, [], body)
                return []

            _repeat(b, strip.count, one_strip)
        return []

    b.loop(*positions, [], one_position)


def _channels_of(b: Builder, layer: Layer, position: ir.Value) -> tuple[Index, Index]:
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


def transform_output(
    b: Builder,
    layer: Layer,
    filters: tuple[Index, Index],
    start: Index,
    products: Products,
    output: Tensor,
    epilogue: Epilogue,
    seen: ir.Value,
) -> ir.Value:
    """Emit A^T m A of a band and the epilogue for the filters from `filters[0]` to before `filters[1]`.

    Args:
        start: first row of tiles of the band, counted through all images.
        seen: by `winograd_repair.watch` so far.

    Returns:
        what it has seen then.
    """

    def one_filter(filter_: ir.Value, seen: Vectors) -> Vectors:
        plane = products.of_filter(b, layer, filter_)

        def one_vector(first: Index, column: Index, strip: Strip, seen: Vectors) -> Vectors:
            place = b.add(b.add(plane, b.mul(first, layer.columns)), column)
            lines: list[Vectors] = [[] for _ in range(TILE)]
            for shift in range(layer.read):
                offsets = [(layer.read * line + shift) * layer.plane for line in range(layer.read)]
                values = [b.load(products.memory, place, offset, strip.lanes) for offset in offsets]
                for line, value in zip(lines, transform_outputs(b, values), strict=True):
                    line.append(value)
            valid = min(TILE * strip.columns, layer.width - TILE * strip.start if strip.is_last else layer.width)
            chunks = tiling.cut(valid, layer.lanes)
            outputs = [transform_outputs(b, line) for line in lines]
            rows = [_rows_of_outputs(b, strip, chunks, columns) for columns in outputs]
            for row in range(strip.rows):
                image, index = b.divide(b.add(b.add(start, first), row), layer.rows)
                tile = Tile(image, b.mul(index, TILE), b.mul(column, TILE), TILE, chunks)
                sums = [line[row * len(chunks) : (row + 1) * len(chunks)] for line in rows]
                _store_row_of_tiles(b, layer, tile, index, sums, filter_, output, epilogue, ends_row=strip.is_last)
            return [winograd_repair.watch(b, strip, outputs, seen[0])]

        return _for_vectors(b, layer, seen, one_vector)

    return b.loop(*filters, [seen], one_filter)[0]


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


def _store_row_of_tiles(
    b: Builder,
    layer: Layer,
    tile: Tile,
    index: Index,
    sums: list[Vectors],
    channel: Index,
    output: Tensor,
    epilogue: Epilogue,
    *,
    ends_row: bool,
) -> None:
    """Apply the epilogue to four rows of outputs and store those that exist; what ends a row writes the halo as well.

    Args:
        index: number of the row of tiles in the image.
        sums: the chunks of each row.
    """
    base = b.add(tile.base(b, output), b.mul(channel, output.layout.plane))
    residual = epilogue.residual
    residual_base: Index = 0
    if residual is not None:
        residual_base = b.add(tile.base(b, residual), b.mul(channel, residual.layout.plane))
    plane = b.add(b.mul(tile.image, output.image), b.mul(channel, output.layout.plane))
    bias = b.load_scalar(epilogue.bias, channel) if epilogue.bias is not None else None
    has_halo = ends_row and not output.layout.is_packed(output.height, output.width)
    end = tiling.written(output, tiling.strips(output.width, TILE * layer.lanes, layer.lanes))

    def store_rows(rows: Sequence[int]) -> None:
        for row in rows:
            values = []
            for value, chunk in zip(sums[row], tile.chunks, strict=True):
                if bias is not None:
                    value = b.plus(value, b.broadcast(bias, chunk.lanes))
                if residual is not None:
                    value = b.plus(value, tiling.load_chunk(b, residual, residual_base, row, chunk))
                values.append(tiling.apply_activation(b, value, epilogue.activation, chunk.lanes))
            tiling.store_chunks(b, values, output, base, row, tile.chunks)
            if has_halo:
                start = b.add(plane, b.mul(tile.row, output.layout.pitch))
                tiling.fill_sides(b, output, start, row, end, layer.lanes)

    last = layer.rows - 1
    always = layer.height - TILE * last  # rows that exist in the last row of tiles too
    store_rows(range(always))
    if always < TILE and last > 0:
        above = arith.CmpIOp(arith.CmpIPredicate.ne, b.index(index), b.index(last)).result
        with ir.InsertionPoint(scf.IfOp(above).then_block):
            store_rows(range(always, TILE))
            scf.YieldOp([])
    if has_halo:
        b.when_equal(index, 0, lambda: tiling.fill_top(b, output, plane, layer.lanes))
        b.when_equal(index, last, lambda: tiling.fill_bottom(b, output, plane, layer.lanes))
