"""Combinations of two tensors, activations and changes of layout on a GPU, "elementwise"."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.gpu.base import GpuAlgorithm, plane_limits
from patc.passes.algorithms.gpu.launches import Launches
from patc.passes.algorithms.gpu.site import GpuSite, pixel_grid
from patc.passes.algorithms.limits import Limit
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.gpu_planes import plane_candidates
from patc.passes.cost.models import cost_model
from patc.passes.kernels.gpu.kernel import LANES, SPLIT
from patc.passes.kernels.gpu.layer import GpuLayer
from patc.passes.kernels.gpu.planes import elementwise
from patc.passes.kernels.gpu.tensors import GpuTensor
from patc.targets import Target


class Elementwise(GpuAlgorithm):
    """A thread computes neighbouring columns of some rows."""

    name = "elementwise"

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        yield from plane_candidates(op, self.name, cost_model(target))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield from plane_limits(schedule)

    def emit(self, site: GpuSite) -> None:
        layer = site.layer(*map(site.memory.tensor, site.op.operands))
        site.launch(site.grid(layer.output.channels), functools.partial(elementwise, layer=layer))


def copy(launches: Launches, source: GpuTensor, target: GpuTensor) -> None:
    """Launch what copies a tensor."""
    schedule = Schedule(Elementwise.name, 1, LANES, LANES, split=SPLIT, threads=64)
    layer = GpuLayer((source,), target, schedule)
    grid = pixel_grid(target, schedule, target.channels)
    launches.add(schedule, target.element, grid, functools.partial(elementwise, layer=layer))
