"""Pooling of words on a GPU: the largest of each byte of a window, or sums of each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from torch_mlir import ir

from patc.passes.ir.elements import WORD
from patc.passes.kernels.builder import Vectors
from patc.passes.kernels.gpu.kernel import LANES, Kernel
from patc.passes.kernels.gpu.layer import GpuLayer
from patc.passes.kernels.gpu.planes import for_planes
from patc.passes.kernels.gpu.reductions import sum_lanes, sum_threads
from patc.passes.kernels.gpu.taps import Taps
from patc.passes.kernels.gpu.tensors import Output, Place, View
from patc.passes.kernels.gpu.words import Packing, join_members, stored_members


def largest(k: Kernel, layer: GpuLayer) -> None:
    """Emit max pooling; the halo holds the lowest byte."""

    def compute(place: Place, channel: ir.Value) -> Vectors:
        return [join_members(k, row) for row in _taken(k, layer, place, channel, k.maximum)]

    for_planes(k, layer, compute)


def means(k: Kernel, layer: GpuLayer, factor: float) -> None:
    """Emit average pooling; the halo holds the zero point, so that padding adds nothing."""
    k.is_exact = True
    height, width = layer.window.kernel
    finish = _Means(k, layer, factor, height * width)

    def compute(place: Place, channel: ir.Value) -> Vectors:
        return [finish.words(row) for row in _taken(k, layer, place, channel, k.plus)]

    for_planes(k, layer, compute)


def global_means(k: Kernel, layer: GpuLayer, factor: float) -> None:
    """Emit means of whole planes: a workgroup for each. Where rows are aligned, the halo between them holds the zero
    point and is summed as well."""
    k.is_exact = True
    source, threads = layer.source, layer.schedule.threads
    assert source.quantisation is not None, "words are read"
    view, target, signed = View(k, source), Output(k, layer.output, 1), source.quantisation.signed
    image, channel = k.group("z"), k.group("y")
    plane = view.channel(image, channel)
    lanes = LANES if source.is_aligned else 1
    count = source.height * source.layout.pitch
    finish = _Means(k, layer, factor, count)

    def add(position: ir.Value, sums: Vectors) -> Vectors:
        words = k.load_scalar(view.memory, k.add(plane, position))
        return [k.plus(*pair) for pair in zip(sums, stored_members(k, words, signed=signed), strict=True)]

    sums = k.loop(k.thread(), k.number(count // lanes), [k.splat(0, lanes, k.i32)] * WORD, add, threads)
    totals = k.compose([sum_lanes(k, value) for value in sums] if lanes > 1 else sums)
    word = finish.word(sum_threads(k, totals, threads))
    place = target.place(k.index(0), image)
    k.when(k.equal(k.thread(), 0), lambda: target.store(place, channel, [k.broadcast(word, LANES)]))


class _Means:
    """How sums of so many bytes become words of means."""

    def __init__(self, k: Kernel, layer: GpuLayer, factor: float, count: int) -> None:
        quantisation, result = layer.source.quantisation, layer.output.quantisation
        assert quantisation is not None and result is not None, "words are read, and made"
        self._k, self._factor = k, k.real(factor)
        self._zeros = k.integer(count * quantisation.zero_point)
        self._packing = Packing(k, result, layer.epilogue.activation)

    def words(self, sums: Sequence[ir.Value]) -> ir.Value:
        """Return the words of the sums of four channels."""
        return self._packing.words([self._mean(total) for total in sums])

    def word(self, sums: ir.Value) -> ir.Value:
        """Return the word of a vector of four sums."""
        return self._packing.word(self._mean(sums))

    def _mean(self, total: ir.Value) -> ir.Value:
        k = self._k
        zeros, factor = (k.broadcast(value, LANES) for value in (self._zeros, self._factor))
        return k.times(k.convert(k.minus(total, zeros), k.f32), factor)


def _taken(
    k: Kernel, layer: GpuLayer, place: Place, channel: ir.Value, combine: Callable[[ir.Value, ir.Value], ir.Value]
) -> list[Vectors]:
    """Return what the bytes of a window are together, for each row of a thread those of four channels."""
    assert layer.source.quantisation is not None, "words are read"
    (height, width), signed = layer.window.kernel, layer.source.quantisation.signed
    own = [(0, dy, dx) for dy, dx in itertools.product(range(height), range(width))]
    taps = Taps(k, layer, place, own)
    plane = k.mul(taps.view.plane, channel)
    rows = []
    for row in range(layer.schedule.rows):
        read = (taps.read(plane, taps.input_row(row, dy), dx) for _, dy, dx in own)
        first, *others = (stored_members(k, words, signed=signed) for words in read)
        for other in others:
            first = [combine(*pair) for pair in zip(first, other, strict=True)]
        rows.append(first)
    return rows
