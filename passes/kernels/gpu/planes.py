"""Layers on a GPU that compute each output plane from input planes of the same channel."""

from __future__ import annotations

from collections.abc import Callable

from torch_mlir import ir

from patc.passes.kernels.builder import Vectors
from patc.passes.kernels.gpu.kernel import Kernel
from patc.passes.kernels.gpu.layer import GpuActivation, GpuLayer
from patc.passes.kernels.gpu.tensors import Output, Place, View


def for_planes(k: Kernel, layer: GpuLayer, compute: Callable[[Place, ir.Value], Vectors]) -> None:
    """Emit the threads of a plane; `compute(place, channel)` returns a vector for each row of a thread."""
    target = Output(k, layer.output, layer.schedule.rows)
    number = k.add(k.mul(k.group("x"), layer.schedule.threads), k.thread())
    place = target.place(k.index(number), k.group("z"))
    channel = k.group("y")
    values = compute(place, channel)
    k.when(place.computes, lambda: target.store(place, channel, values))


def elementwise(k: Kernel, layer: GpuLayer) -> None:
    """Emit the epilogue of the first source, which the second one joins, in any layouts; a single source may have
    another element type."""

    def compute(place: Place, channel: ir.Value) -> Vectors:
        source, *others = (View(k, source) for source in layer.sources)
        activation = GpuActivation(k, layer.epilogue, layer.output.channels)
        plane = source.channel(place.image, channel)
        made = []
        for row in range(layer.schedule.rows):
            value = k.convert(source.load(source.at(plane, k.add(place.row, row), place.vector)), k.element)
            joined = others[0].spread(place, channel, row) if others else None
            made.append(activation.of(value, channel, joined))
        return made

    for_planes(k, layer, compute)
