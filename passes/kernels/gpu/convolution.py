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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch_mlir import ir

from patc.dialects.attributes import Activation, Library, Schedule
from patc.integers import ceil_div
from patc.passes.ir.windows import Window
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.gpu.kernel import LANES, Kernel, Memory
from patc.passes.kernels.gpu.tensors import GpuTensor, Output, Place, View, activate
from patc.passes.kernels.host.convolution import Tap


@dataclass(frozen=True)
class GpuArray:
    """A constant array in the buffer of weights; `start` is its first byte there, a multiple of 64."""

    start: int
    element: ir.Type

    def scalars(self, k: Kernel) -> tuple[ir.Value, ir.Value]:
        """Return the buffer as single elements, and the number of the array's first one."""
        return k.buffer(Memory.WEIGHTS, self.element), k.number(self.start * 8 // self.element.width)

    def vectors(self, k: Kernel) -> tuple[ir.Value, ir.Value]:
        """Return the buffer as vectors, and the number of the array's first one."""
        type_ = k.vector_type(self.element)
        return k.buffer(Memory.WEIGHTS, type_), k.number(self.start * 8 // self.element.width // LANES)


@dataclass(frozen=True)
class GpuEpilogue:
    """What happens to a sum of products before it is stored; the bias is by output channel."""

    bias: GpuArray | None
    residual: GpuTensor | None
    activation: Activation


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
        kernel: height and width.
        channels: input channels of a group.
        group: filters of a group.
        filters: of the layer.
    """

    values: GpuArray
    kernel: tuple[int, int]
    channels: int
    group: int
    filters: int


# Returns the weight of an entry (or tap) for a filter of the block, as a vector of equal elements.
Weight: TypeAlias = Callable[[int, int], ir.Value]


class Taps:
    """What the taps of a window read for the outputs of one thread.

    Args:
        tensor: the input, with aligned rows.
        place: the thread's outputs.
        rows: of the input, counted from the window's first one, that taps read.
    """

    def __init__(self, k: Kernel, tensor: GpuTensor, window: Window, place: Place, rows: Sequence[int]) -> None:
        self._k = k
        self._window = window
        self._left = tensor.layout.left
        self.view = View(k, tensor, top=window.top)
        origin = self.view.channel(place.image, 0)
        origin = k.add(origin, k.mul(k.mul(self.view.row, window.strides[0]), place.row))
        origin = k.add(origin, k.mul(place.vector, window.strides[1]))
        self._rows = {row: k.add(origin, k.mul(self.view.row, row)) for row in rows}
        self._loaded: dict[tuple[Index, int, int], ir.Value] = {}
        self._read: dict[tuple[Index, int, int], ir.Value] = {}

    @staticmethod
    def input_rows(taps: Sequence[Tap], window: Window, rows: int) -> list[int]:
        """Return the rows of the input that `taps` read for `rows` outputs."""
        return sorted({Taps.input_row(window, row, dy) for row in range(rows) for _, dy, _ in taps})

    @staticmethod
    def input_row(window: Window, row: int, dy: int) -> int:
        """Return the row that output row `row` reads with a tap, counted from the window's first one."""
        return row * window.strides[0] + dy * window.dilations[0]

    def read(self, plane: Index, row: int, dx: int) -> ir.Value:
        """Return the inputs of a tap for four outputs: in one row of the plane at address `plane`."""
        first = dx * self._window.dilations[1] - self._window.left + self._left
        key = (plane, row, first)
        if key not in self._read:
            self._read[key] = self._gather(plane, row, first)
        return self._read[key]

    def _gather(self, plane: Index, row: int, first: int) -> ir.Value:
        places = [divmod(first + lane * self._window.strides[1], LANES) for lane in range(LANES)]
        numbers = sorted({number for number, _ in places})
        vectors = {number: self._load(plane, row, number) for number in numbers}
        k = self._k
        if len(numbers) == 1 and [lane for _, lane in places] == [*range(LANES)]:
            return vectors[numbers[0]]
        if len(numbers) <= 2:
            shift = {number: LANES * order for order, number in enumerate(numbers)}
            picks = [lane + shift[number] for number, lane in places]
            return k.shuffle(vectors[numbers[0]], vectors[numbers[-1]], picks)
        return k.compose([k.extract(vectors[number], lane) for number, lane in places])

    def _load(self, plane: Index, row: int, number: int) -> ir.Value:
        key = (plane, row, number)
        if key not in self._loaded:
            k = self._k
            address = k.add(k.add(self._rows[row], plane), number)
            self._loaded[key] = k.load_scalar(self.view.memory, address)
        return self._loaded[key]


def pattern_direct(
    k: Kernel,
    source: GpuTensor,
    weights: SparseArrays,
    output: GpuTensor,
    epilogue: GpuEpilogue,
    window: Window,
    schedule: Schedule,
) -> None:
    """Emit a sparse convolution."""
    library, block = weights.library, schedule.filters
    places = [library.places(pattern) for pattern in range(len(library.masks))]
    every = sorted({tap for taps in places for tap in taps})
    shape = _Shape(k, output, schedule)
    taps = Taps(k, source, window, shape.place, Taps.input_rows(every, window, schedule.rows))
    values, first_value = weights.values.vectors(k)
    index, first_index = weights.index.scalars(k)
    bounds, first_bound = weights.bounds.scalars(k)
    vectors = ceil_div(library.entries, LANES)
    number = k.group("y")
    bound = k.add(first_bound, k.mul(number, len(places) + 1))
    sums: Vectors = [k.splat(0.0, LANES)] * (schedule.rows * block)
    edges = [k.load_index(bounds, k.add(bound, pattern)) for pattern in range(len(places) + 1)]
    for pattern, own in enumerate(places):

        def one_kernel(kernel: ir.Value, sums: Vectors, own: tuple[Tap, ...] = own) -> Vectors:
            plane = k.load_index(index, k.add(first_index, kernel))
            start = k.add(first_value, k.mul(kernel, block * vectors))
            loaded = [k.load_scalar(values, k.add(start, place)) for place in range(block * vectors)]

            def weight(entry: int, member: int) -> ir.Value:
                vector, lane = divmod(entry, LANES)
                return k.broadcast(k.extract(loaded[member * vectors + vector], lane), LANES)

            return _accumulate(k, taps, sums, plane, own, weight, schedule, window)

        sums = k.loop(shape.first(edges[pattern]), edges[pattern + 1], sums, one_kernel, schedule.sums)
    reorder, first_filter = weights.reorder.scalars(k)
    stored = k.add(first_filter, k.mul(number, block))
    channels = [k.load_index(reorder, k.add(stored, member)) for member in range(block)]
    shape.finish(sums, channels, epilogue)


def dense_direct(
    k: Kernel,
    source: GpuTensor,
    weights: DenseArrays,
    output: GpuTensor,
    epilogue: GpuEpilogue,
    window: Window,
    schedule: Schedule,
) -> None:
    """Emit a dense, grouped or depthwise convolution."""
    block = schedule.filters
    own = tuple((0, dy, dx) for dy in range(weights.kernel[0]) for dx in range(weights.kernel[1]))
    shape = _Shape(k, output, schedule)
    taps = Taps(k, source, window, shape.place, Taps.input_rows(own, window, schedule.rows))
    values, first_value = weights.values.vectors(k)
    vectors = ceil_div(len(own) * block, LANES)
    number = k.group("y")
    filter_ = k.mul(number, block)
    channels = k.number(weights.channels)
    packed = k.add(first_value, k.mul(k.mul(number, channels), vectors))
    group: Index = 0
    if weights.group < weights.filters:
        group = k.mul(k.quotient(k.index(filter_), k.number(weights.group))[0], k.mul(channels, taps.view.plane))

    def one_channel(channel: Index, sums: Vectors) -> Vectors:
        plane = k.add(group, k.mul(taps.view.plane, channel))
        start = k.add(packed, k.mul(channel, vectors))
        loaded: dict[int, ir.Value] = {}

        def weight(tap: int, member: int) -> ir.Value:
            vector, lane = divmod(tap * block + member, LANES)
            if vector not in loaded:
                loaded[vector] = k.load_scalar(values, k.add(start, vector))
            return k.broadcast(k.extract(loaded[vector], lane), LANES)

        return _accumulate(k, taps, sums, plane, own, weight, schedule, window)

    sums: Vectors = [k.splat(0.0, LANES)] * (schedule.rows * block)
    if weights.channels == 1:
        sums = one_channel(0, sums)
    else:
        sums = k.loop(shape.first(k.index(0)), channels, sums, one_channel, schedule.sums)
    targets = [k.add(filter_, member) for member in range(block)]
    shape.finish(sums, targets, epilogue, weights.filters if weights.filters % block else None)


def _accumulate(
    k: Kernel,
    taps: Taps,
    sums: Vectors,
    plane: Index,
    own: Sequence[Tap],
    weight: Weight,
    schedule: Schedule,
    window: Window,
) -> Vectors:
    """Add one kernel's products (one input channel's for dense weights), input row by input row, so that few vectors
    are alive at a time. Each is loaded once for all taps, rows and filters that want it."""
    sums = list(sums)
    uses: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    for number, (channel, dy, dx) in enumerate(own):
        for row in range(schedule.rows):
            uses.setdefault((channel, Taps.input_row(window, row, dy), dx), []).append((row, number))
    planes = {channel: k.add(plane, k.mul(taps.view.plane, channel)) for channel in sorted({tap[0] for tap in own})}
    scalars: dict[tuple[int, int], ir.Value] = {}
    for (channel, row_read, dx), users in sorted(uses.items()):
        vector = taps.read(planes[channel], row_read, dx)
        for row, number in users:
            for member in range(schedule.filters):
                if (number, member) not in scalars:
                    scalars[number, member] = weight(number, member)
                place = member * schedule.rows + row
                sums[place] = k.fma(scalars[number, member], vector, sums[place])
    return sums


class _Shape:
    """Which outputs and which part of their sums a thread computes."""

    def __init__(self, k: Kernel, output: GpuTensor, schedule: Schedule) -> None:
        self._k = k
        self._schedule = schedule
        self.output = Output(k, output, schedule.rows)
        pixels = schedule.threads // schedule.sums
        thread: Index = k.thread()
        self._part: Index = 0
        if schedule.sums > 1:
            self._part, thread = k.divide(thread, pixels)
        self._thread = thread
        self.place = self.output.place(k.index(k.add(k.mul(k.group("x"), pixels), thread)), k.group("z"))

    def first(self, lower: ir.Value) -> Index:
        """Return the first of the kernels or channels from `lower` on that belong to this thread's part."""
        return self._k.add(lower, self._part)

    def finish(
        self, sums: Vectors, channels: Sequence[Index], epilogue: GpuEpilogue, filters: int | None = None
    ) -> None:
        """Add up the parts and store the sums of each filter.

        Args:
            sums: filter by filter, row by row.
            channels: output channel of each filter.
            filters: of the layer, where the last block has filters too many.
        """
        k, schedule = self._k, self._schedule
        computes = self.place.computes
        if schedule.sums > 1:
            shared = k.shared(len(sums) * schedule.threads, k.vector_type())
            for number, value in enumerate(sums):
                k.store_element(value, shared, k.add(k.thread(), number * schedule.threads))
            k.barrier()
            computes = k.both(computes, k.equal(self._part, 0))
        bias = epilogue.bias.scalars(k) if epilogue.bias is not None else None
        residual = View(k, epilogue.residual) if epilogue.residual is not None else None
        count = k.number(filters) if filters is not None else None

        def one_filter(member: int, channel: Index) -> None:
            start = k.load_scalar(bias[0], k.add(bias[1], channel)) if bias is not None else None
            values = []
            for row in range(schedule.rows):
                number = member * schedule.rows + row
                value = sums[number] if schedule.sums == 1 else self._joined(shared, number)
                if start is not None:
                    value = k.plus(value, k.broadcast(start, LANES))
                if residual is not None:
                    plane = residual.channel(self.place.image, channel)
                    address = residual.at(plane, k.add(self.place.row, row), self.place.vector)
                    value = k.plus(value, residual.load(address))
                values.append(activate(k, value, epilogue.activation))
            self.output.store(self.place, channel, values)

        def all_filters() -> None:
            for member, channel in enumerate(channels):
                if count is None or member == 0:
                    one_filter(member, channel)
                else:
                    k.when(k.less(channel, count), functools.partial(one_filter, member, channel))

        k.when(computes, all_filters)

    def _joined(self, shared: ir.Value, number: int) -> ir.Value:
        k, schedule = self._k, self._schedule
        pixels = schedule.threads // schedule.sums
        first = number * schedule.threads
        parts = [k.load_scalar(shared, k.add(self._thread, first + part * pixels)) for part in range(schedule.sums)]
        total = parts[0]
        for part in parts[1:]:
            total = k.plus(total, part)
        return total
