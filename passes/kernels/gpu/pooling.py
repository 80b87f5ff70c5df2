"""Pooling on a GPU.

In a `Schedule`, `rows` and `columns` (4) are the outputs of a thread and `threads` the threads of a workgroup; where a
workgroup computes sums together ("global-pool"), `sums` is the number of its threads, which share each sum.
"""

from __future__ import annotations

import itertools

from torch_mlir import ir

from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.gpu.kernel import LANES, Kernel
from patc.passes.kernels.gpu.layer import GpuActivation, GpuLayer
from patc.passes.kernels.gpu.planes import for_planes
from patc.passes.kernels.gpu.reductions import sum_lanes, sum_threads
from patc.passes.kernels.gpu.taps import Taps
from patc.passes.kernels.gpu.tensors import GpuTensor, Output, Place, View
from patc.passes.kernels.values import LOWEST

UNROLLED_TAPS = 64  # of a window; the rows of a larger one are a loop


def pool(k: Kernel, layer: GpuLayer, scale: float | GpuTensor | None) -> None:
    """Emit the maximum or the mean over a window.

    Args:
        scale: what sums are multiplied by: a number, or one for each output place; None for a maximum.
    """
    window, rows = layer.window, layer.schedule.rows
    height, width = window.kernel
    unrolled = height * width <= UNROLLED_TAPS
    own = [(0, dy, dx) for dy in range(height if unrolled else 1) for dx in range(width)]
    combine = k.plus if scale is not None else k.maximum

    def compute(place: Place, channel: ir.Value) -> Vectors:
        taps = Taps(k, layer, place, own)
        first_plane = k.mul(taps.view.plane, channel)

        def add_taps(plane: Index, totals: Vectors) -> Vectors:
            totals = list(totals)
            for row, (_, dy, dx) in itertools.product(range(rows), own):
                totals[row] = combine(totals[row], taps.read(plane, taps.input_row(row, dy), dx))
            return totals

        totals: Vectors = [k.splat(0.0 if scale is not None else LOWEST, LANES)] * rows
        if unrolled:
            totals = add_taps(first_plane, totals)
        else:
            step = k.mul(taps.view.row, window.dilations[0])
            totals = k.loop(0, height, totals, lambda dy, totals: add_taps(k.add(first_plane, k.mul(step, dy)), totals))
        activation = GpuActivation(k, layer.epilogue, layer.output.channels)
        totals = totals if scale is None else _scaled(k, place, scale, totals)
        return [activation.of(total, channel) for total in totals]

    for_planes(k, layer, compute)


def _scaled(k: Kernel, place: Place, scale: float | GpuTensor, totals: Vectors) -> Vectors:
    """Return the sums of a thread's rows, scaled."""
    if not isinstance(scale, GpuTensor):
        return [k.times(total, k.splat(scale, LANES)) for total in totals]
    table = View(k, scale)
    plane = table.channel(place.image, 0)
    factors = [table.load(table.at(plane, k.add(place.row, row), place.vector)) for row in range(len(totals))]
    return [k.times(total, factor) for total, factor in zip(totals, factors, strict=True)]


def global_pool(k: Kernel, layer: GpuLayer, scale: float) -> None:
    """Emit the sums of whole planes, in f32, times `scale`: a workgroup for each. Where rows are aligned, the halo
    between them is zero and is summed as well."""
    source, threads = layer.source, layer.schedule.threads
    view, target = View(k, source), Output(k, layer.output, 1)
    image, channel = k.group("z"), k.group("y")
    plane = view.channel(image, channel)
    lanes = LANES if source.is_aligned else 1
    count = k.number(source.height * source.layout.pitch // lanes)
    factor = k.real(scale)

    def add(position: ir.Value, sums: Vectors) -> Vectors:
        value = k.load_scalar(view.memory, k.add(plane, position))
        return [k.plus(sums[0], k.convert(value, k.accumulator))]

    sums = k.loop(k.thread(), count, [k.splat(0.0, lanes, k.accumulator)], add, threads)
    total = sum_lanes(k, sums[0]) if lanes > 1 else sums[0]
    mean = k.times(sum_threads(k, total, threads), factor)
    activation = GpuActivation(k, layer.epilogue, layer.output.channels)
    mean = k.convert(activation.of(mean, channel), k.element)
    place = target.place(k.index(0), image)
    is_first = k.equal(k.thread(), 0)
    k.when(is_first, lambda: target.store(place, channel, [k.broadcast(mean, LANES)]))
