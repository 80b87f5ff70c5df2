"""Fully connected layers on a GPU: a workgroup computes a block of filters of an image, summed in f32, and its threads
share the input features.

In a `Schedule`, `filters` are those of a workgroup and `sums` the number of its threads, which share each sum.
"""

from __future__ import annotations

import functools

from torch_mlir import ir

from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.gpu.kernel import LANES, Kernel
from patc.passes.kernels.gpu.layer import GpuArray, GpuLayer, RowEpilogue
from patc.passes.kernels.gpu.reductions import sum_lanes, sum_threads


def gemv(k: Kernel, layer: GpuLayer, weights: GpuArray, first: int | None = None) -> None:
    """Emit a fully connected layer.

    Args:
        layer: images are the rows of one plane, of the source and of the output.
        weights: for each block of filters and each vector of input features one vector a filter; filters and features
            too many are zero.
        first: block of filters that the launch starts with; None for a launch of all.
    """
    _store(k, layer, _products(k, layer, weights), first)


def _products(k: Kernel, layer: GpuLayer, weights: GpuArray) -> ir.Value:
    """Return the sums of the workgroup's filters, a vector that all of its threads have."""
    source, block, threads = layer.source, layer.schedule.filters, layer.schedule.threads
    element = k.vector_type(source.element) if source.is_aligned else source.element
    memory, first = k.elements(source.memory, source.start, element)
    size = k.number(source.width)
    values, first_value = weights.vectors(k)
    image, number = k.group("y"), k.group("x")
    vectors = k.divide(k.add(size, LANES - 1), LANES)[0]
    packed = k.add(first_value, k.mul(k.mul(number, vectors), block))
    row = k.add(first, k.mul(image, vectors if source.is_aligned else size))

    def features(position: ir.Value) -> ir.Value:
        if source.is_aligned:
            return k.load_scalar(memory, k.add(row, position))
        # What is behind the last feature may be anything: its weights are zero, but NaN would stay NaN.
        start = k.mul(position, LANES)
        scalars = [k.load_scalar(memory, k.add(row, k.add(start, lane))) for lane in range(LANES)]
        vector = k.compose(scalars)
        return k.keep_first(vector, k.subtract(size, k.index(start)), k.splat(0.0, LANES, vector.type.element_type))

    def step(position: ir.Value, sums: Vectors) -> Vectors:
        given = k.convert(features(position), k.accumulator)
        start = k.add(packed, k.mul(position, block))
        loaded = [k.convert(k.load_scalar(values, k.add(start, member)), k.accumulator) for member in range(block)]
        return [k.fma(weight, given, total) for weight, total in zip(loaded, sums, strict=True)]

    sums = k.loop(k.thread(), vectors, [k.splat(0.0, LANES, k.accumulator)] * block, step, threads)
    return sum_threads(k, k.compose([sum_lanes(k, value) for value in sums]), threads)


def _store(k: Kernel, layer: GpuLayer, total: ir.Value, first: int | None) -> None:
    """Let the first thread store the outputs of the workgroup's filters."""
    output, epilogue, block = layer.output, layer.epilogue, layer.schedule.filters
    image, number = k.group("y"), k.group("x")
    if first is not None:
        number = k.add(number, k.number(first))
    target, start = k.elements(output.memory, output.start, output.element)
    count = k.number(output.width)
    ends = RowEpilogue(k, epilogue, output.width)

    def one_filter(member: int, filter_: Index) -> None:
        place = k.add(k.mul(image, count), filter_)
        value, address = ends.of(k.extract(total, member), filter_, place), k.add(start, place)
        k.store_element(k.convert(value, k.element), target, address)

    def all_filters() -> None:
        for member in range(block):
            filter_ = k.add(k.mul(number, block), member)
            k.when(k.less(filter_, count), functools.partial(one_filter, member, filter_))

    k.when(k.equal(k.thread(), 0), all_filters)
