"""Pooling by windows on a GPU, "pool"."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from patc.dialects.attributes import Layout
from patc.dialects.schedules import Schedule
from patc.passes.algorithms.gpu.base import GpuAlgorithm, plane_limits
from patc.passes.algorithms.gpu.site import GpuSite
from patc.passes.algorithms.limits import Limit
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.gpu_planes import plane_candidates
from patc.passes.cost.models import cost_model
from patc.passes.ir.elements import numpy_type
from patc.passes.ir.planes import is_global_pool
from patc.passes.ir.windows import average_divisors, has_one_divisor
from patc.passes.kernels.gpu import pooling
from patc.passes.kernels.gpu.kernel import LANES, Memory
from patc.passes.kernels.gpu.tensors import GpuTensor
from patc.targets import Target


class Pool(GpuAlgorithm):
    """The loops of maxima and means."""

    name = "pool"

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        yield from plane_candidates(op, self.name, cost_model(target))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield from plane_limits(schedule)

    def _emit(self, site: GpuSite, scale: float | GpuTensor | None) -> None:
        layer = site.sliding_layer()
        emit = functools.partial(pooling.pool, layer=layer, scale=scale)
        site.launch(site.grid(layer.output.channels), emit)


class MaxPool(Pool):
    """The maximum of a window."""

    def emit(self, site: GpuSite) -> None:
        self._emit(site, None)


class AveragePool(Pool):
    """The mean of a window, whose divisor may depend on the place."""

    def applies(self, op: Any) -> bool:
        return not is_global_pool(op)

    def emit(self, site: GpuSite) -> None:
        divisors = average_divisors(site.op)
        self._emit(site, 1.0 / float(divisors[0, 0]) if has_one_divisor(site.op) else _reciprocals(site, divisors))


def _reciprocals(site: GpuSite, divisors: np.ndarray) -> GpuTensor:
    """Return one over the divisor of each output place, as a single plane."""
    output = site.output
    row = LANES * output.vectors
    # Rows too many at the end, for threads that compute several.
    table = np.zeros((output.height + 16, row), numpy_type(output.element))
    table[: output.height, : output.width] = 1.0 / divisors
    array = site.memory.constant(table, site.op.result, "reciprocals")
    layout = Layout(row=row, plane=table.size)
    return GpuTensor(Memory.WEIGHTS, array.start, array.element, 1, 1, output.height, output.width, layout, 1)
