"""Layers on a GPU that compute each output plane from input planes of the same channel."""

from __future__ import annotations

from collections.abc import Callable

from torch_mlir import ir

from patc.passes.kernels.builder import Vectors
from patc.passes.kernels.gpu.kernel import LANES, Kernel
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
    """Emit activation(sum of the sources), in any layouts; one source may have another element type."""

    def compute(place: Place, channel: ir.Value) -> Vectors:
        views = [View(k, source) for source in layer.sources]
        activation = GpuActivation(k, layer.epilogue, layer.output.channels)
        planes = [view.channel(place.image, channel) for view in views]
        made = []
        for row in range(layer.schedule.rows):
            y = k.add(place.row, row)
            vectors = [view.load(view.at(plane, y, place.vector)) for view, plane in zip(views, planes, strict=True)]
            value = vectors[0] if len(vectors) == 1 else k.plus(*vectors)
            made.append(activation.of(k.convert(value, k.element), channel))
        return made

    for_planes(k, layer, compute)


def scale(k: Kernel, layer: GpuLayer) -> None:
    """Emit activation(first source * second source), which has one number a plane."""

    def compute(place: Place, channel: ir.Value) -> Vectors:
        source, factors = (View(k, each) for each in layer.sources)
        activation = GpuActivation(k, layer.epilogue, layer.output.channels)
        plane, gate = (view.channel(place.image, channel) for view in (source, factors))
        factor = k.broadcast(k.extract(factors.load(factors.at(gate, 0, k.index(0))), 0), LANES)
        rows = (source.at(plane, k.add(place.row, row), place.vector) for row in range(layer.schedule.rows))
        return [activation.of(k.times(source.load(address), factor), channel) for address in rows]

    for_planes(k, layer, compute)
