"""Direct convolution on planar tensors: sparse (one loop per pattern) and dense (filters x pixels in registers).

    for tile of `rows` x `columns` outputs:            # its accumulators stay in registers
      for filter (pattern-direct) or block of filters (dense-direct):
        accumulators = bias
        for pattern: for kept kernel of the pattern:   # or: for input channel
          for tap: accumulators += weight * input vector
        store activation(accumulators + residual)

Accumulators of f16 hold 11 bits, so a sum of many products loses most of them. Such a sum is made in parts, which are
added up apart: by pattern, or by a range of input channels.

A tap is a constant offset in the planar layout, so tiles never test for borders. The last tile of a plane starts at
`height - rows`: it may compute some rows twice, never rows that do not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch_mlir import ir

from patc.dialects.attributes import Activation, Library, Schedule
from patc.integers import ceil_div
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.windows import Window
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.tiling import Chunk, Strip, Tensor

DISTANT_BYTES = 512 * 1024  # a tensor that may not be in the second-level cache of the core
LONGEST_HALF_SUM = 256  # products that accumulators of f16 take before they are added to a total

Tap: TypeAlias = tuple[int, int, int]  # input channel after the first, dy, dx


@dataclass(frozen=True)
class Work:
    """The part of a layer that one call computes: row tiles first_tile .. last_tile - 1 (counted through all
    images) and filters (or blocks of filters) first_filter .. last_filter - 1."""

    first_tile: Index
    last_tile: Index
    first_filter: Index
    last_filter: Index


@dataclass(frozen=True)
class Epilogue:
    """What happens to a sum of products before it is stored."""

    bias: ir.Value | None
    residual: Tensor | None
    activation: Activation


@dataclass(frozen=True)
class Tile:
    """The rows and one strip of columns that are in registers together, and where they are.

    Attributes:
        image: the image of the batch.
        row: first output row.
        column: first output column, a multiple of the strip's columns.
        rows: output rows.
        chunks: the vectors of each row.
    """

    image: Index
    row: Index
    column: Index
    rows: int
    chunks: tuple[Chunk, ...]

    def base(self, b: Builder, tensor: Tensor, strides: tuple[int, int] = (1, 1)) -> Index:
        """Address of the tile's first element in channel 0 of `tensor`, of the element it reads with `strides`."""
        layout = tensor.layout
        row = b.mul(self.row, strides[0] * layout.pitch)
        if strides[1] % layout.phases:
            column = b.divide(self.column, layout.phases)[0]
        else:
            column = b.mul(self.column, strides[1] // layout.phases)
        return b.add(b.add(b.mul(self.image, tensor.image), row), column)


def for_work(
    b: Builder,
    work: Work,
    output: Tensor,
    schedule: Schedule,
    body: Callable[[Tile, Strip, Index, ir.Value], None],
    *,
    filters_first: bool = False,
) -> None:
    """Emit the loops over row tiles, strips and filters; `body(tile, strip, tile number in the plane, filter)`.

    Args:
        filters_first: go through the planes one after the other, where a filter reads a single channel: that is a
            stream through memory. Else a tile's inputs stay in cache for all filters.
    """

    def filters(tile: Tile, strip: Strip, index: Index) -> None:
        def one_filter(number: ir.Value, _: Vectors) -> Vectors:
            body(tile, strip, index, number)
            return []

        b.loop(work.first_filter, work.last_filter, [], one_filter)

    def planes(number: ir.Value, _: Vectors) -> Vectors:
        _for_tiles(b, work, output, schedule, lambda tile, strip, index: body(tile, strip, index, number))
        return []

    if filters_first:
        b.loop(work.first_filter, work.last_filter, [], planes)
    else:
        _for_tiles(b, work, output, schedule, filters)


def _for_tiles(
    b: Builder, work: Work, output: Tensor, schedule: Schedule, body: Callable[[Tile, Strip, Index], None]
) -> None:
    """Emit the loops over row tiles and strips; `body(tile, strip, tile number in the plane)`."""
    rows = min(schedule.rows, output.height)
    tiles = ceil_div(output.height, rows)

    def row_tile(number: Index, _: Vectors) -> Vectors:
        image, index = b.divide(number, tiles) if output.images > 1 else (0, number)
        row = b.minimum(b.mul(index, rows), output.height - rows)
        for strip in tiling.strips(output.width, schedule.columns, schedule.lanes):

            def one_strip(position: Index, _: Vectors, strip: Strip = strip) -> Vectors:
                column = b.add(b.mul(position, strip.columns), strip.start)
                body(Tile(image, row, column, rows, strip.chunks), strip, index)
                return []

            if strip.count == 1:
                one_strip(0, [])
            else:
                b.loop(0, strip.count, [], one_strip)
        return []

    b.loop(work.first_tile, work.last_tile, [], row_tile)


def input_vector(b: Builder, tensor: Tensor, base: Index, window: Window, row: int, tap: Tap, chunk: Chunk) -> ir.Value:
    """Load what `tap` contributes to the chunk of output row `row`."""
    stride = window.strides[1]
    first, _ = input_range(tensor, window, row, tap, chunk)
    if tensor.layout.phases == stride:
        return b.load(tensor.memory, base, first, chunk.lanes)
    # Columns `stride` apart in one row: load all between the first and the last and pick. Neighbouring taps load the
    # same vectors.
    parts = [b.load(tensor.memory, base, first + part * chunk.lanes, chunk.lanes) for part in range(stride)]
    return pick_strided(b, parts, _input_column(tensor, window, tap) % stride, stride)


def input_range(tensor: Tensor, window: Window, row: int, tap: Tap, chunk: Chunk) -> tuple[int, int]:
    """Return the first and the last element, counted from the tile's base, that `input_vector` loads."""
    layout, stride = tensor.layout, window.strides[1]
    channel, dy, _ = tap
    y = row * window.strides[0] + dy * window.dilations[0] - window.top + layout.top
    x = _input_column(tensor, window, tap)
    start = channel * layout.plane + y * layout.pitch
    if layout.phases == stride:
        position, phase = divmod(x, stride)
        first = start + phase * layout.row + position + chunk.column
        return first, first + chunk.lanes - 1
    first = start + x - x % stride + chunk.column * stride
    return first, first + stride * chunk.lanes - 1


def _input_column(tensor: Tensor, window: Window, tap: Tap) -> int:
    """Return the column, halo included, that a tap of the first output column reads."""
    return tap[2] * window.dilations[1] - window.left + tensor.layout.left


def pick_strided(b: Builder, parts: list[ir.Value], first: int, stride: int) -> ir.Value:
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


def store_tile(
    b: Builder,
    tile: Tile,
    strip: Strip,
    index: Index,
    sums: list[list[ir.Value]],
    channel: Index,
    output: Tensor,
    epilogue: Epilogue,
    schedule: Schedule,
) -> None:
    """Do what `store_sums` does; the last strip of a row writes the halo as well."""
    store_sums(b, tile, sums, channel, output, epilogue)
    if strip.start + strip.count * strip.columns >= output.width:
        _finish_rows(b, tile, index, output, channel, schedule)


def store_sums(
    b: Builder, tile: Tile, sums: list[list[ir.Value]], channel: Index, output: Tensor, epilogue: Epilogue
) -> None:
    """Add the residual, apply the activation, and store one channel's rows x chunks of sums."""
    base = b.add(tile.base(b, output), b.mul(channel, output.layout.plane))
    residual = epilogue.residual
    residual_base: Index = 0
    if residual is not None:
        residual_base = b.add(tile.base(b, residual), b.mul(channel, residual.layout.plane))
    for row in range(tile.rows):
        values = []
        for value, chunk in zip(sums[row], tile.chunks, strict=True):
            if residual is not None:
                value = b.plus(value, tiling.load_chunk(b, residual, residual_base, row, chunk))
            values.append(tiling.apply_activation(b, value, epilogue.activation, chunk.lanes))
        tiling.store_chunks(b, values, output, base, row, tile.chunks)


def prefetch_ends(
    b: Builder, tile: Tile, channel: Index, output: Tensor, epilogue: Epilogue, schedule: Schedule
) -> None:
    """Ask for the lines that `store_tile` will write and for those of the residual, if they may be far away: behind the
    caches of this core, or in those of another."""
    tensors = [(output, True)] if epilogue.residual is None else [(output, True), (epilogue.residual, False)]
    for tensor, write in tensors:
        if schedule.threads == 1 and tensor.bytes <= DISTANT_BYTES:
            continue
        layout = tensor.layout
        base = b.add(tile.base(b, tensor), b.mul(channel, layout.plane))
        last = tile.chunks[-1]
        for row in range(tile.rows):
            start = (row + layout.top) * layout.pitch + layout.left
            for column in range(0, last.column + last.lanes, tiling.line(tensor.memory.type)):
                b.prefetch(tensor.memory, base, start + column, write=write)


def _finish_rows(b: Builder, tile: Tile, index: Index, output: Tensor, channel: Index, schedule: Schedule) -> None:
    """Write the halo around the rows of a tile: its sides, and the rows above or below at the plane's ends."""
    layout, lanes = output.layout, schedule.lanes
    end = tiling.written(output, tiling.strips(output.width, schedule.columns, lanes))
    if layout.is_packed(output.height, output.width):
        return
    plane = b.add(b.mul(tile.image, output.image), b.mul(channel, layout.plane))
    rows = b.add(plane, b.mul(tile.row, layout.pitch))
    for row in range(tile.rows):
        tiling.fill_sides(b, output, rows, row, end, lanes)
    tiles = ceil_div(output.height, tile.rows)
    last: Index = 0 if tiles == 1 else index
    b.when_equal(last, 0, lambda: tiling.fill_top(b, output, plane, lanes))
    b.when_equal(last, tiles - 1, lambda: tiling.fill_bottom(b, output, plane, lanes))


def first_sums(b: Builder, tile: Tile, bias: ir.Value | None, channel: Index) -> Vectors:
    """Return the accumulators of one channel, row by row: its bias in every lane."""
    start = b.load_scalar(bias, channel) if bias is not None else None
    row = [b.broadcast(start, chunk.lanes) if start is not None else b.splat(0.0, chunk.lanes) for chunk in tile.chunks]
    return row * tile.rows


def is_long_sum(element: ir.Type, products: float) -> bool:
    """Whether a sum of so many products should be made in parts."""
    return isinstance(element, ir.F16Type) and products > 2 * LONGEST_HALF_SUM


def by_row(sums: Vectors, tile: Tile) -> list[list[ir.Value]]:
    """Return flat accumulators as rows."""
    width = len(tile.chunks)
    return [sums[row * width : (row + 1) * width] for row in range(tile.rows)]


@dataclass(frozen=True)
class SparseWeights:
    """The FKW arrays in memory, flat; see `pattern.sparse_conv2d`."""

    values: ir.Value
    index: ir.Value
    offset: ir.Value
    stride: ir.Value
    reorder: ir.Value
    library: Library


def sparse_convolution(
    b: Builder,
    work: Work,
    source: Tensor,
    weights: SparseWeights,
    output: Tensor,
    epilogue: Epilogue,
    window: Window,
    schedule: Schedule,
    *,
    in_parts: bool = False,
) -> None:
    """Emit pattern-direct: a filter's kept kernels, pattern by pattern, each pattern's loop without a branch.

    Args:
        in_parts: each pattern has a sum of its own.
    """
    patterns, entries = len(weights.library.masks), weights.library.entries

    def one_filter(tile: Tile, strip: Strip, index: Index, stored: ir.Value) -> None:
        base = tile.base(b, source, window.strides)
        channel = b.load_index(weights.reorder, stored)
        first = b.load_index(weights.offset, stored)
        strides = b.mul(stored, patterns + 1)
        bounds = [
            b.add(first, b.load_index(weights.stride, b.add(strides, pattern))) for pattern in range(patterns + 1)
        ]
        prefetch_ends(b, tile, channel, output, epilogue, schedule)
        sums = first_sums(b, tile, epilogue.bias, channel)
        sums += _zeros(b, sums) * (schedule.sums - 1)
        for pattern in range(patterns):

            def one_kernel(kernel: ir.Value, sums: Vectors, pattern: int = pattern) -> Vectors:
                plane = b.mul(b.load_index(weights.index, kernel), source.layout.plane)
                scalars = [
                    b.load_scalar(weights.values, b.add(b.mul(kernel, entries), entry)) for entry in range(entries)
                ]
                taps = weights.library.places(pattern)
                return _accumulate(b, tile, sums, source, b.add(base, plane), window, taps, scalars)

            if in_parts and pattern > 0:
                part = b.loop(bounds[pattern], bounds[pattern + 1], _zeros(b, sums), one_kernel)
                sums = _join(b, [*sums, *part], 2)
            else:
                sums = b.loop(bounds[pattern], bounds[pattern + 1], sums, one_kernel)
        joined = by_row(_join(b, sums, schedule.sums), tile)
        store_tile(b, tile, strip, index, joined, channel, output, epilogue, schedule)

    for_work(b, work, output, schedule, one_filter)


def _zeros(b: Builder, sums: Vectors) -> Vectors:
    """Return accumulators like `sums` before the first product."""
    return [b.splat(0.0, value.type.shape[0]) for value in sums]


def _join(b: Builder, sums: Vectors, sets: int) -> Vectors:
    """Add the sets of accumulators together."""
    size = len(sums) // sets
    joined = sums[:size]
    for first in range(size, len(sums), size):
        joined = [b.plus(total, part) for total, part in zip(joined, sums[first : first + size], strict=True)]
    return joined


def _accumulate(
    b: Builder,
    tile: Tile,
    sums: Vectors,
    source: Tensor,
    base: Index,
    window: Window,
    taps: tuple[Tap, ...],
    scalars: Vectors,
) -> Vectors:
    """Add one kernel's products. Input vectors are visited row by row and each is loaded once for all the taps and
    output rows that want it (load redundancy elimination), so that few are alive at a time. Where there are several
    sets of accumulators, tap t adds to set t modulo their number."""
    sums = list(sums)
    width = len(tile.chunks)
    area = tile.rows * width
    sets = len(sums) // area
    lanes = sorted({chunk.lanes for chunk in tile.chunks})
    weights = [{count: b.broadcast(scalar, count) for count in lanes} for scalar in scalars]
    uses: dict[tuple[int, int, int, int], list[tuple[int, int]]] = {}
    for row in range(tile.rows):
        for number, (channel, dy, dx) in enumerate(taps):
            y = row * window.strides[0] + dy * window.dilations[0]
            for position in range(width):
                uses.setdefault((channel, y, position, dx), []).append((row, number))
    for (_, _, position, _), users in sorted(uses.items()):
        chunk = tile.chunks[position]
        row, number = users[0]
        vector = input_vector(b, source, base, window, row, taps[number], chunk)
        for row, number in users:
            place = number % sets * area + row * width + position
            sums[place] = b.fma(weights[number][chunk.lanes], vector, sums[place])
    return sums


@dataclass(frozen=True)
class DenseWeights:
    """Packed weights in memory: [block of filters][input channel][tap][filter of the block], flat.

    Attributes:
        kernel: height and width.
        channels: input channels of one group.
        filters: filters of one group.
    """

    values: ir.Value
    kernel: tuple[int, int]
    channels: int
    filters: int


def dense_convolution(
    b: Builder,
    work: Work,
    source: Tensor,
    weights: DenseWeights,
    output: Tensor,
    epilogue: Epilogue,
    window: Window,
    schedule: Schedule,
) -> None:
    """Emit dense-direct (and depthwise-direct, with one channel a group): `schedule.filters` filters share the
    input vectors. The last block of a layer starts at `filters - block`, so it may overlap its neighbour."""
    block = schedule.filters
    taps = tuple((0, dy, dx) for dy in range(weights.kernel[0]) for dx in range(weights.kernel[1]))
    channels = max(1, LONGEST_HALF_SUM // len(taps))  # of one part of a long sum

    def one_block(tile: Tile, strip: Strip, index: Index, number: ir.Value) -> None:
        base = tile.base(b, source, window.strides)
        area = tile.rows * len(tile.chunks)
        filter_ = b.minimum(b.mul(number, block), output.channels - block)
        group = b.divide(filter_, weights.filters)[0] if weights.filters < output.channels else 0
        plane = b.add(base, b.mul(group, weights.channels * source.layout.plane))
        packed = b.mul(number, weights.channels * len(taps) * block)
        sums: Vectors = []
        for member in range(block):
            prefetch_ends(b, tile, b.add(filter_, member), output, epilogue, schedule)
            sums += first_sums(b, tile, epilogue.bias, b.add(filter_, member))

        def one_channel(channel: Index, sums: Vectors) -> Vectors:
            return _accumulate_block(
                b,
                tile,
                sums,
                source,
                b.add(plane, b.mul(channel, source.layout.plane)),
                window,
                taps,
                weights.values,
                b.add(packed, b.mul(channel, len(taps) * block)),
                block,
            )

        def some_channels(part: Index, totals: Vectors) -> Vectors:
            first = b.mul(part, channels)
            last = b.minimum(b.add(first, channels), weights.channels)
            return _join(b, [*totals, *b.loop(first, last, _zeros(b, totals), one_channel)], 2)

        if weights.channels == 1:
            sums = one_channel(0, sums)
        elif is_long_sum(b.element, weights.channels * len(taps)):
            sums = b.loop(0, ceil_div(weights.channels, channels), sums, some_channels)
        else:
            sums = b.loop(0, weights.channels, sums, one_channel)
        for member in range(block):
            channel = b.add(filter_, member)
            own = by_row(sums[member * area : (member + 1) * area], tile)
            store_tile(b, tile, strip, index, own, channel, output, epilogue, schedule)

    # Of weights and inputs, those stay in cache that would take longer to come again.
    rows = output.images * ceil_div(output.height, schedule.rows)
    weight_bytes = element_bytes(weights.values.type) * weights.channels * len(taps) * output.channels
    far = weight_bytes > DISTANT_BYTES and weight_bytes * rows > source.bytes * ceil_div(output.channels, block)
    for_work(b, work, output, schedule, one_block, filters_first=weights.channels == 1 or far)


def _accumulate_block(
    b: Builder,
    tile: Tile,
    sums: Vectors,
    source: Tensor,
    base: Index,
    window: Window,
    taps: tuple[Tap, ...],
    weights: ir.Value,
    packed: Index,
    block: int,
) -> Vectors:
    """Add one input channel's products to the accumulators of a block of filters."""
    sums = list(sums)
    area = tile.rows * len(tile.chunks)
    for number, tap in enumerate(taps):
        vectors = [
            input_vector(b, source, base, window, row, tap, chunk) for row in range(tile.rows) for chunk in tile.chunks
        ]
        for member in range(block):
            scalar = b.load_scalar(weights, b.add(packed, number * block + member))
            for place, vector in enumerate(vectors):
                weight = b.broadcast(scalar, vector.type.shape[0])
                sums[member * area + place] = b.fma(weight, vector, sums[member * area + place])
    return sums
