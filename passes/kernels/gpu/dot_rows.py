"""Fully connected layers on rows of words on a GPU: the loops of "gemv", on four numbers at a time.

In a `Schedule`, `filters` are those of a workgroup, four, and `sums` the number of its threads, which share each sum.
"""

from __future__ import annotations

import functools

from torch_mlir import ir

from patc.passes.ir.elements import WORD
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.gpu.dots import WordSums
from patc.passes.kernels.gpu.kernel import LANES, Kernel
from patc.passes.kernels.gpu.layer import GpuArray, GpuLayer
from patc.passes.kernels.gpu.reductions import sum_lanes, sum_threads
from patc.passes.kernels.gpu.words import Packing
from patc.passes.kernels.values import apply_activation


def dot_rows(k: Kernel, layer: GpuLayer, weights: GpuArray, words: WordSums, first: int | None = None) -> None:
    """Emit a fully connected layer.

    Args:
        layer: rows are those of one plane, of the source and of the output.
        weights: for each four filters and each vector of words of the input one vector a filter; filters and words too
            many are zero.
        first: four filters that the launch starts with; None for a launch of all.
    """
    total, ends = _products(k, layer, weights, words), RowEnds(k, layer, words)
    row, number = k.group("y"), k.group("x")
    own = number if first is None else k.add(number, k.number(first))
    k.when(k.equal(k.thread(), 0), lambda: ends.store(total, row, own))


def _products(k: Kernel, layer: GpuLayer, weights: GpuArray, words: WordSums) -> ir.Value:
    """Return the sums of the workgroup's filters, a vector that all of its threads have."""
    source, threads = layer.source, layer.schedule.threads
    element = k.vector_type(source.element) if source.is_aligned else source.element
    memory, first = k.elements(source.memory, source.start, element)
    size = k.number(source.width)
    values, first_value = weights.vectors(k)
    vectors = k.divide_up(size, LANES)
    packed = k.add(first_value, k.mul(k.mul(k.group("x"), vectors), WORD))
    row = k.add(first, k.mul(k.group("y"), vectors if source.is_aligned else size))

    def given(position: ir.Value) -> ir.Value:
        if source.is_aligned:
            return k.load_scalar(memory, k.add(row, position))
        start = k.mul(position, LANES)  # what is behind the last word meets weights of zero
        return k.compose([k.load_scalar(memory, k.add(row, k.add(start, lane))) for lane in range(LANES)])

    def step(position: ir.Value, sums: Vectors) -> Vectors:
        data, start = given(position), k.add(packed, k.mul(position, WORD))
        loaded = [k.load_scalar(values, k.add(start, member)) for member in range(WORD)]
        return [words.dots.add(k, total, data, weight) for weight, total in zip(loaded, sums, strict=True)]

    sums = k.loop(k.thread(), vectors, [k.splat(0, LANES, k.i32)] * WORD, step, threads)
    return sum_threads(k, k.compose([sum_lanes(k, value) for value in sums]), threads)


class RowEnds:
    """What becomes of the sums of four filters in a row of the result: a word, or a float of each."""

    def __init__(self, k: Kernel, layer: GpuLayer, words: WordSums) -> None:
        k.is_exact = True
        output, self._activation = layer.output, layer.epilogue.activation
        self._k = k
        self._target, self._start = k.elements(output.memory, output.start, output.element)
        self._sums, self._factors = words.sums.vectors(k), words.factors.vectors(k)
        self._width = k.number(output.width)
        quantisation = output.quantisation
        self._packing = None if quantisation is None else Packing(k, quantisation, self._activation)

    def store(self, total: ir.Value, row: Index, number: Index) -> None:
        """Store what becomes of a vector of sums, those of four filters of a number."""
        k = self._k
        first, factors = (k.load_scalar(memory, k.add(begin, number)) for memory, begin in (self._sums, self._factors))
        value = k.times(k.convert(k.plus(total, first), k.f32), factors)
        begin = k.add(self._start, k.mul(row, self._width))
        if self._packing is not None:
            k.store_element(self._packing.word(value), self._target, k.add(begin, number))
            return
        value = apply_activation(k, value, self._activation)

        def one_filter(member: int, filter_: Index) -> None:
            k.store_element(k.extract(value, member), self._target, k.add(begin, filter_))

        for member in range(WORD):
            filter_ = k.add(k.mul(number, WORD), member)
            k.when(k.less(filter_, self._width), functools.partial(one_filter, member, filter_))
