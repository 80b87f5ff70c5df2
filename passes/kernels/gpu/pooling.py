"""Pooling, elementwise and fully connected layers on a GPU.

In a `Schedule`, `rows` and `columns` (4) are the outputs of a thread and `threads` the threads of a workgroup; where a
workgroup computes sums together ("global-pool", "gemv"), `sums` is the number of its threads, which share each sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_mlir import ir

from patc.dialects.attributes import Activation, Schedule
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.windows import Window
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.gpu.convolution import GpuArray, Taps
from patc.passes.kernels.gpu.kernel import LANES, Kernel
from patc.passes.kernels.gpu.tensors import GpuTensor, Output, Place, View, activate

UNROLLED_TAPS = 64  # of a window; the rows of a larger one are a loop


def pool(
    k: Kernel,
    source: GpuTensor,
    output: GpuTensor,
    kernel: tuple[int, int],
    window: Window,
    schedule: Schedule,
    *,
    maximum: bool,
    scale: float | GpuTensor,
) -> None:
    """Emit the maximum or the mean over a window.

    Args:
        scale: what sums are multiplied by: a number, or one for each output place.
    """
    height, width = kernel
    rows = schedule.rows

    def compute(place: Place, channel: ir.Value) -> Vectors:
        unrolled = height * width <= UNROLLED_TAPS
        heights = range(height) if unrolled else range(1)
        own = [(0, dy, dx) for dy in heights for dx in range(width)]
        taps = Taps(k, source, window, place, Taps.input_rows(own, window, rows))
        plane = k.mul(taps.view.plane, channel)

        def combine(plane: Index, sums: Vectors) -> Vectors:
            sums = list(sums)
            for row in range(rows):
                for _, dy, dx in own:
                    vector = taps.read(plane, Taps.input_row(window, row, dy), dx)
                    sums[row] = k.maximum(sums[row], vector) if maximum else k.plus(sums[row], vector)
            return sums

        sums: Vectors = [k.splat(tiling.LOWEST if maximum else 0.0, LANES)] * rows
        if unrolled:
            sums = combine(plane, sums)
        else:
            step = k.mul(taps.view.row, window.dilations[0])
            sums = k.loop(0, height, sums, lambda dy, sums: combine(k.add(plane, k.mul(step, dy)), sums))
        if maximum:
            return sums
        return [k.times(value, factor) for value, factor in zip(sums, _factors(k, place, scale, rows), strict=True)]

    _for_planes(k, output, schedule, compute)


def _factors(k: Kernel, place: Place, scale: float | GpuTensor, rows: int) -> Vectors:
    if not isinstance(scale, GpuTensor):
        return [k.splat(scale, LANES)] * rows
    table = View(k, scale)
    plane = table.channel(place.image, 0)
    return [table.load(table.at(plane, k.add(place.row, row), place.vector)) for row in range(rows)]


def elementwise(
    k: Kernel, sources: Sequence[GpuTensor], output: GpuTensor, activation: Activation, schedule: Schedule
) -> None:
    """Emit activation(sum of the sources), in any layouts; one source may have another element type."""

    def compute(place: Place, channel: ir.Value) -> Vectors:
        views = [View(k, source) for source in sources]
        planes = [view.channel(place.image, channel) for view in views]
        made = []
        for row in range(schedule.rows):
            y = k.add(place.row, row)
            vectors = [view.load(view.at(plane, y, place.vector)) for view, plane in zip(views, planes, strict=True)]
            value = vectors[0] if len(vectors) == 1 else k.plus(*vectors)
            made.append(activate(k, k.convert(value, k.element), activation))
        return made

    _for_planes(k, output, schedule, compute)


def _for_planes(
    k: Kernel, output: GpuTensor, schedule: Schedule, compute: Callable[[Place, ir.Value], Vectors]
) -> None:
    """Emit what computes each output plane from inputs of the same channel."""
    target = Output(k, output, schedule.rows)
    number = k.add(k.mul(k.group("x"), schedule.threads), k.thread())
    place = target.place(k.index(number), k.group("z"))
    channel = k.group("y")
    values = compute(place, channel)
    k.when(place.computes, lambda: target.store(place, channel, values))


def global_pool(k: Kernel, source: GpuTensor, output: GpuTensor, schedule: Schedule) -> None:
    """Emit the mean over whole planes, summed in f32: a workgroup for each. Where rows are aligned, the halo between
    them is zero and is summed as well."""
    view, target = View(k, source), Output(k, output, 1)
    image, channel = k.group("z"), k.group("y")
    plane = view.channel(image, channel)
    lanes = LANES if source.is_aligned else 1
    count = k.number(source.height * source.layout.pitch // lanes)
    factor = k.real(1.0 / (source.height * source.width))

    def add(position: ir.Value, sums: Vectors) -> Vectors:
        value = k.load_scalar(view.memory, k.add(plane, position))
        return [k.plus(sums[0], k.convert(value, k.f32))]

    sums = k.loop(k.thread(), count, [k.splat(0.0, lanes, k.f32)], add, schedule.threads)
    total = _sum_lanes(k, sums[0]) if lanes > 1 else sums[0]
    mean = k.convert(k.times(_sum_threads(k, total, schedule.threads), factor), k.element)
    place = target.place(k.index(0), image)
    is_first = k.equal(k.thread(), 0)
    k.when(is_first, lambda: target.store(place, channel, [k.broadcast(mean, LANES)]))


def _sum_lanes(k: Kernel, value: ir.Value) -> ir.Value:
    total = k.extract(value, 0)
    for lane in range(1, LANES):
        total = k.plus(total, k.extract(value, lane))
    return total


def _sum_threads(k: Kernel, value: ir.Value, threads: int) -> ir.Value:
    """Return the sum of what the threads of the workgroup have; `threads` is a power of two."""
    shared = k.shared(threads, value.type)
    thread = k.thread()
    k.store_element(value, shared, thread)
    half = threads // 2
    while half:
        k.barrier()

        def add(half: int = half) -> None:
            parts = [k.load_scalar(shared, k.add(thread, shift)) for shift in (0, half)]
            k.store_element(k.plus(*parts), shared, thread)

        k.when(k.less(thread, half), add)
        half //= 2
    k.barrier()
    return k.load_scalar(shared, 0)


@dataclass(frozen=True)
class LinearArrays:
    """Weights of a fully connected layer.

    Attributes:
        values: for each block of four filters and each vector of input features one vector a filter; filters and
            features too many are zero.
        bias: F, or None.
    """

    values: GpuArray
    bias: GpuArray | None


def linear(
    k: Kernel,
    source: GpuTensor,
    weights: LinearArrays,
    output: GpuTensor,
    activation: Activation,
    schedule: Schedule,
) -> None:
    """Emit a fully connected layer, summed in f32: a workgroup computes four filters of an image, and its threads share
    the input features.

    Args:
        source, output: images as the rows of one plane.
    """
    block, threads = schedule.filters, schedule.threads
    features, filters = source.width, output.width
    first = k.number(source.start // element_bytes(source.element) // (LANES if source.is_aligned else 1))
    memory = k.buffer(source.memory, k.vector_type(source.element) if source.is_aligned else source.element)
    size = k.number(features)
    values, first_value = weights.values.vectors(k)
    image, number = k.group("y"), k.group("x")
    vectors = k.divide(k.add(size, LANES - 1), LANES)[0]
    packed = k.add(first_value, k.mul(k.mul(number, vectors), block))
    row = k.add(first, k.mul(image, vectors if source.is_aligned else size))

    def step(position: ir.Value, sums: Vectors) -> Vectors:
        if source.is_aligned:
            given = k.load_scalar(memory, k.add(row, position))
        else:
            # What is behind the last feature may be anything: its weights are zero, but NaN would stay NaN.
            start = k.mul(position, LANES)
            scalars = [k.load_scalar(memory, k.add(row, k.add(start, lane))) for lane in range(LANES)]
            given = k.keep_first(k.compose(scalars), k.subtract(size, k.index(start)), 0.0)
        given = k.convert(given, k.f32)
        start = k.add(packed, k.mul(position, block))
        loaded = [k.convert(k.load_scalar(values, k.add(start, member)), k.f32) for member in range(block)]
        return [k.fma(weight, given, total) for weight, total in zip(loaded, sums, strict=True)]

    sums = k.loop(k.thread(), vectors, [k.splat(0.0, LANES, k.f32)] * block, step, threads)
    total = _sum_threads(k, k.compose([_sum_lanes(k, value) for value in sums]), threads)
    bias = weights.bias.scalars(k) if weights.bias is not None else None
    target = k.buffer(output.memory, output.element)
    start = k.number(output.start // element_bytes(output.element))
    count = k.number(filters)

    def store(member: int) -> None:
        filter_ = k.add(k.mul(number, block), member)

        def one() -> None:
            value = k.extract(total, member)
            if bias is not None:
                value = k.plus(value, k.convert(k.load_scalar(bias[0], k.add(bias[1], filter_)), k.f32))
            value = tiling.apply_activation(k, value, activation, 1)
            address = k.add(k.add(start, k.mul(image, count)), filter_)
            k.store_element(k.convert(value, k.element), target, address)

        k.when(k.less(filter_, count), one)

    def store_block() -> None:
        for member in range(block):
            store(member)

    k.when(k.equal(k.thread(), 0), store_block)
