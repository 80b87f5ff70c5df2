"""Convolutions on a GPU: a workgroup computes one block of filters on a tile of pixels.

    for each thread: rows x 4 outputs of `filters` filters      # accumulators stay in registers
      for pattern: for kept kernel of the pattern               # pattern-direct; dense: for input channel
        load the vectors that the taps touch, each once
        for tap: accumulators += weight * (shuffle of one or two vectors)
      store activation(accumulators + bias + residual)

All threads of a workgroup go through the same kernels of the same filters, pattern by pattern: none waits for another
one's branch, and every weight, index and loop bound is one uniform load. Filters share a workgroup if they keep the
same kernels with the same patterns, which FKR makes neighbours.

In a `Schedule`, `rows` and `columns` (4) are the outputs of a thread, `filters` those that it computes side by side,
`threads` the threads of a workgroup, and `sums` the parts that these divide each sum into: with 4 parts of 64 threads,
16 compute every fourth kept kernel of 16 outputs each, and the parts are added up in workgroup memory. Small planes
need that: their outputs alone do not occupy a GPU.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch_mlir import ir

from patc.dialects.attributes import Library
from patc.integers import ceil_div
from patc.passes.ir.windows import Tap
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.gpu.kernel import LANES, Kernel
from patc.passes.kernels.gpu.layer import GpuActivation, GpuArray, GpuLayer
from patc.passes.kernels.gpu.taps import Taps
from patc.passes.kernels.gpu.tensors import Output, Place, View


@dataclass(frozen=True)
class SparseArrays:
    """The kept kernels of a layer as the kernel reads them.

    Attributes:
        values: K x E of each block of filters, kernel by kernel: the entries of its first filter, padded to whole
            vectors, then those of the next one.
        index: K, i32: first vector of the input channel's plane.
        bounds: blocks x (P + 1), i32: kernel at which each pattern starts, and the last one's end.
        reorder: F, i32: output channel of each stored filter.
        library: the patterns.
    """

    values: GpuArray
    index: GpuArray
    bounds: GpuArray
    reorder: GpuArray
    library: Library


@dataclass(frozen=True)
class DenseArrays:
    """Dense weights as the kernel reads them.

    Attributes:
        values: blocks x channels, each the weights tap by tap and filter by filter, padded to whole vectors. Filters
            too many in the last block are zero.
        channels: input channels of a group.
        group: filters of a group.
        filters: of the layer.
    """

    values: GpuArray
    channels: int
    group: int
    filters: int


# Returns the weight of an entry (or tap) for a filter of the block, as a vector of equal elements.
Weight: TypeAlias = Callable[[int, int], ir.Value]
MakeTile: TypeAlias = Callable[[Kernel, GpuLayer, Sequence[Tap]], "Tile"]


def pattern_direct(k: Kernel, layer: GpuLayer, weights: SparseArrays) -> None:
    """Emit a sparse convolution."""
    library, block = weights.library, layer.schedule.filters
    places = [library.places(pattern) for pattern in range(len(library.masks))]
    tile = Tile(k, layer, sorted({tap for taps in places for tap in taps}))
    values, first_value = weights.values.vectors(k)
    index, first_index = weights.index.scalars(k)
    bounds, first_bound = weights.bounds.scalars(k)
    vectors = ceil_div(library.entries, LANES)
    number = k.group("y")
    bound = k.add(first_bound, k.mul(number, len(places) + 1))
    sums = tile.zeros()
    edges = [k.load_index(bounds, k.add(bound, pattern)) for pattern in range(len(places) + 1)]
    for pattern, own in enumerate(places):

        def one_kernel(kernel: ir.Value, sums: Vectors, own: tuple[Tap, ...] = own) -> Vectors:
            plane = k.load_index(index, k.add(first_index, kernel))
            start = k.add(first_value, k.mul(kernel, block * vectors))
            loaded = [k.load_scalar(values, k.add(start, place)) for place in range(block * vectors)]

            def weight(entry: int, member: int) -> ir.Value:
                vector, lane = divmod(entry, LANES)
                return k.broadcast(k.extract(loaded[member * vectors + vector], lane), LANES)

            return tile.accumulate(sums, plane, own, weight)

        sums = tile.loop(edges[pattern], edges[pattern + 1], sums, one_kernel)
    reorder, first_filter = weights.reorder.scalars(k)
    stored = k.add(first_filter, k.mul(number, block))
    channels = [k.load_index(reorder, k.add(stored, member)) for member in range(block)]
    tile.finish(sums, channels)


def dense_direct(k: Kernel, layer: GpuLayer, weights: DenseArrays, make: MakeTile | None = None) -> None:
    """Emit a dense, grouped or depthwise convolution.

    Args:
        make: returns the tile of a thread, whose sums may be of other numbers than those of layers of floats.
    """
    block = layer.schedule.filters
    own = tuple((0, dy, dx) for dy in range(layer.window.kernel[0]) for dx in range(layer.window.kernel[1]))
    tile = (make or Tile)(k, layer, own)
    plane_size = tile.taps.view.plane
    values, first_value = weights.values.vectors(k)
    vectors = ceil_div(len(own) * block, LANES)
    number = k.group("y")
    filter_ = k.mul(number, block)
    channels = k.number(weights.channels)
    packed = k.add(first_value, k.mul(k.mul(number, channels), vectors))
    group: Index = 0
    if weights.group < weights.filters:
        group = k.mul(k.quotient(k.index(filter_), k.number(weights.group))[0], k.mul(channels, plane_size))

    def one_channel(channel: Index, sums: Vectors) -> Vectors:
        plane = k.add(group, k.mul(plane_size, channel))
        start = k.add(packed, k.mul(channel, vectors))
        load = functools.cache(lambda vector: k.load_scalar(values, k.add(start, vector)))

        def weight(tap: int, member: int) -> ir.Value:
            vector, lane = divmod(tap * block + member, LANES)
            return k.broadcast(k.extract(load(vector), lane), LANES)

        return tile.accumulate(sums, plane, own, weight)

    sums = tile.zeros()
    sums = one_channel(0, sums) if weights.channels == 1 else tile.loop(k.index(0), channels, sums, one_channel)
    targets = [k.add(filter_, member) for member in range(block)]
    tile.finish(sums, targets, weights.filters if weights.filters % block else None)


class Tile:
    """The outputs of one thread, and its part of their sums.

    Args:
        read: the taps that are read at all.
    """

    def __init__(self, k: Kernel, layer: GpuLayer, read: Sequence[Tap]) -> None:
        self._k = k
        self._layer = layer
        self._schedule = schedule = layer.schedule
        self._output = Output(k, layer.output, schedule.rows)
        pixels = schedule.threads // schedule.sums
        thread: Index = k.thread()
        self._part: Index = 0
        if schedule.sums > 1:
            self._part, thread = k.divide(thread, pixels)
        self._thread = thread
        self._place = self._output.place(k.index(k.add(k.mul(k.group("x"), pixels), thread)), k.group("z"))
        self.taps = Taps(k, layer, self._place, read)

    def zeros(self) -> Vectors:
        """Return the sums of no products: filter by filter, row by row."""
        return [self.zero()] * (self._schedule.rows * self._schedule.filters)

    def zero(self) -> ir.Value:
        """Return the sum of no products."""
        return self._k.splat(0.0, LANES)

    def product(self, member: int, weight: ir.Value, vector: ir.Value, total: ir.Value) -> ir.Value:
        """Return a sum of one of the thread's filters with the products of a weight."""
        return self._k.fma(weight, vector, total)

    def ends(self) -> Ends:
        """Return what becomes of the sums."""
        return Ends(self._k, self._layer, self._place, self._layer.output.channels)

    def loop(
        self, lower: ir.Value, upper: ir.Value, sums: Vectors, body: Callable[[ir.Value, Vectors], Vectors]
    ) -> Vectors:
        """Emit a loop over those of the kernels or channels that belong to this thread's part."""
        return self._k.loop(self._k.add(lower, self._part), upper, sums, body, self._schedule.sums)

    def accumulate(self, sums: Vectors, plane: Index, own: Sequence[Tap], weight: Weight) -> Vectors:
        """Add one kernel's products (one input channel's for dense weights), input row by input row, so that few
        vectors are alive at a time. Each is loaded once for all taps, rows and filters that want it."""
        k, rows, filters = self._k, self._schedule.rows, self._schedule.filters
        sums, weight = list(sums), functools.cache(weight)
        uses: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
        for (number, (channel, dy, dx)), row in itertools.product(enumerate(own), range(rows)):
            uses.setdefault((channel, self.taps.input_row(row, dy), dx), []).append((row, number))
        channels = sorted({tap[0] for tap in own})
        planes = {channel: k.add(plane, k.mul(self.taps.view.plane, channel)) for channel in channels}
        for (channel, row_read, dx), users in sorted(uses.items()):
            vector = self.taps.read(planes[channel], row_read, dx)
            for (row, number), member in itertools.product(users, range(filters)):
                place = member * rows + row
                sums[place] = self.product(member, weight(number, member), vector, sums[place])
        return sums

    def finish(self, sums: Vectors, channels: Sequence[Index], filters: int | None = None) -> None:
        """Add up the parts and store the sums of each filter.

        Args:
            channels: output channel of each filter.
            filters: of the layer, where the last block has filters too many.
        """
        k, rows = self._k, self._schedule.rows
        computes = self._place.computes
        if self._schedule.sums > 1:
            self._share(sums)
            computes = k.both(computes, k.equal(self._part, 0))
        ends = self.ends()
        count = k.number(filters) if filters is not None else None

        def some_filters(first: int) -> None:
            members = range(first, first + ends.group)
            totals = [[self._total(sums, member * rows + row) for row in range(rows)] for member in members]
            plane, values = ends.finish(totals, channels[first])
            self._output.store(self._place, plane, values)

        def all_filters() -> None:
            for first in range(0, len(channels), ends.group):
                if count is None or first == 0:
                    some_filters(first)
                else:
                    k.when(k.less(channels[first], count), functools.partial(some_filters, first))

        k.when(computes, all_filters)

    def _share(self, sums: Vectors) -> None:
        """Put the sums of all parts into workgroup memory."""
        k, threads = self._k, self._schedule.threads
        self._shared = k.shared(len(sums) * threads, sums[0].type)
        for number, value in enumerate(sums):
            k.store_element(value, self._shared, k.add(k.thread(), number * threads))
        k.barrier()

    def _total(self, sums: Vectors, number: int) -> ir.Value:
        """Return one of the sums, of all parts."""
        k, threads, count = self._k, self._schedule.threads, self._schedule.sums
        if count == 1:
            return sums[number]
        shifts = [number * threads + part * (threads // count) for part in range(count)]
        parts = [k.load_scalar(self._shared, k.add(self._thread, shift)) for shift in shifts]
        return functools.reduce(k.plus, parts)


class Ends:
    """Bias, residual and activation of the outputs of one thread.

    Args:
        channels: of the result.

    Attributes:
        group: neighbouring filters that are stored together.
    """

    def __init__(self, k: Kernel, layer: GpuLayer, place: Place, channels: int) -> None:
        epilogue = layer.epilogue
        self.group = 1
        self._k = k
        self._place = place
        self._activation = GpuActivation(k, epilogue, channels)
        self._bias = epilogue.bias.scalars(k) if epilogue.bias is not None else None
        self._residual = View(k, epilogue.residual) if epilogue.residual is not None else None

    def finish(self, totals: Sequence[Vectors], channel: Index) -> tuple[Index, Vectors]:
        """Return a plane of the result, and what is stored there of the sums of a group of filters, row by row.

        Args:
            channel: of the first of them.
        """
        (rows,) = totals
        return channel, self._finish_rows(rows, channel)

    def _finish_rows(self, rows: Vectors, channel: Index) -> Vectors:
        k, place, residual = self._k, self._place, self._residual
        bias = None
        if self._bias is not None:
            memory, first = self._bias
            bias = k.broadcast(k.load_scalar(memory, k.add(first, channel)), LANES)
        values = []
        for row, total in enumerate(rows):
            value = total if bias is None else k.plus(total, bias)
            joined = None if residual is None else residual.spread(place, channel, row)
            values.append(self._activation.of(value, channel, joined))
        return values
