"""Planes resampled on a GPU: each place of the result is a weighted sum of places of the input, or a copy of one.

In a `Schedule`, `rows` and `columns` (4) are the outputs of a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_mlir import ir

from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.gpu.kernel import LANES, Kernel
from patc.passes.kernels.gpu.layer import GpuActivation, GpuArray, GpuLayer
from patc.passes.kernels.gpu.planes import for_planes
from patc.passes.kernels.gpu.tensors import Place, View

_UNROLLED_TAPS = 4  # along an axis


@dataclass(frozen=True)
class GpuAxis:
    """What each place of the result is made of, along one axis.

    Attributes:
        places: taps x size, i32: of the input.
        weights: taps x size; None where each place is a copy of one of the input.
    """

    places: GpuArray
    weights: GpuArray | None
    taps: int
    size: int


def resample(k: Kernel, layer: GpuLayer, rows: GpuAxis, columns: GpuAxis) -> None:
    """Emit planes of floats, or of words that are copied."""
    source, epilogue, layout = layer.source, layer.epilogue, layer.source.layout
    start = layout.top * layout.pitch + layout.left
    memory, first = k.elements(source.memory, source.start, source.element, start)
    pitch, plane, planes = k.number(layout.pitch), k.number(layout.plane), k.number(source.planes)
    down, right = _Axis(k, rows), _Axis(k, columns)
    activation = GpuActivation(k, epilogue, layer.output.channels)
    residual = None if epilogue.residual is None else View(k, epilogue.residual)

    def one_row(own: Index, place: Place, row: int) -> ir.Value:
        """Return four columns of a row."""
        lines = [k.add(place.row, row)]
        numbers = [k.add(k.mul(place.vector, LANES), lane) for lane in range(LANES)]

        def along_row(tap: Index) -> ir.Value:
            line = k.add(own, k.mul(pitch, down.places(tap, lines)[0]))

            def at(tap: Index) -> ir.Value:
                read = [k.load_scalar(memory, k.add(line, column)) for column in right.places(tap, numbers)]
                return right.weighted(tap, numbers, k.compose(read))

            return down.weighted(tap, lines, _total(k, columns.taps, at))

        return _total(k, rows.taps, along_row)

    def compute(place: Place, channel: ir.Value) -> Vectors:
        own = k.add(first, k.mul(plane, k.add(k.mul(planes, place.image), channel)))
        made = []
        for row in range(layer.schedule.rows):
            value = one_row(own, place, row)
            joined = None if residual is None else residual.spread(place, channel, row)
            made.append(activation.of(value, channel, joined))
        return made

    for_planes(k, layer, compute)


class _Axis:
    """The tables of an axis in a kernel."""

    def __init__(self, k: Kernel, axis: GpuAxis) -> None:
        self._k = k
        self._places, self._first = axis.places.scalars(k)
        self._weights = None if axis.weights is None else axis.weights.scalars(k)
        self._size = k.number(axis.size)

    def places(self, tap: Index, numbers: Sequence[Index]) -> list[ir.Value]:
        """Return the places of the input that a tap reads for places of the result."""
        k = self._k
        return [k.load_index(self._places, k.add(self._first, self._at(tap, number))) for number in numbers]

    def weighted(self, tap: Index, numbers: Sequence[Index], value: ir.Value) -> ir.Value:
        """Return what a tap read, times its weights: one number for all of a vector, or one each."""
        k = self._k
        if self._weights is None:
            return value
        memory, first = self._weights
        loaded = [k.load_scalar(memory, k.add(first, self._at(tap, number))) for number in numbers]
        return k.times(value, k.compose(loaded) if len(loaded) > 1 else k.broadcast(loaded[0], LANES))

    def _at(self, tap: Index, number: Index) -> Index:
        """Return where a tap's numbers for a place are; behind the last place those of the last one."""
        k = self._k
        last = k.subtract(self._size, k.index(1))
        return k.add(k.mul(self._size, tap), k.smaller(k.index(number), last))


def _total(k: Kernel, taps: int, at: Callable[[Index], ir.Value]) -> ir.Value:
    """Return the sum of what taps give."""
    total = at(0)
    if taps <= _UNROLLED_TAPS:
        for tap in range(1, taps):
            total = k.plus(total, at(tap))
        return total
    return k.loop(1, taps, [total], lambda tap, sums: [k.plus(sums[0], at(tap))])[0]
