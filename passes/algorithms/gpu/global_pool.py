"""Means over whole planes on a GPU, "global-pool": a workgroup for each."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.gpu.base import MOST_THREADS, GpuAlgorithm
from patc.passes.algorithms.gpu.site import GpuSite
from patc.passes.algorithms.limits import Limit, power_of_two
from patc.passes.base import PassState, fail
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.gpu_planes import shared_sum_candidate
from patc.passes.cost.models import cost_model
from patc.passes.ir import windows
from patc.passes.ir.planes import is_global_pool
from patc.passes.kernels.gpu import pooling
from patc.passes.kernels.gpu.kernel import LANES
from patc.passes.kernels.gpu.layer import GpuLayer
from patc.targets import Target


class GlobalPool(GpuAlgorithm):
    """The threads of a workgroup share the sum of a plane."""

    name = "global-pool"

    def applies(self, op: Any) -> bool:
        return is_global_pool(op)

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        yield shared_sum_candidate(op, self.name, 1, cost_model(target))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield power_of_two("threads", schedule.threads, 1, MOST_THREADS)

    def emit(self, site: GpuSite) -> None:
        layer = self.whole_layer(site)
        scale = 1.0 / float(windows.average_divisors(site.op)[0, 0])
        emit = functools.partial(pooling.global_pool, layer=layer, scale=scale)
        site.launch((1, layer.output.channels, layer.output.images), emit)

    def whole_layer(self, site: GpuSite) -> GpuLayer:
        """Return the layer.

        Raises:
            PatcError: there are other numbers between the rows of the input than its halo.
        """
        layer = site.layer()
        if not layer.source.is_aligned and not layer.source.layout.is_packed(layer.source.height, layer.source.width):
            raise fail(site.op, f"a packed input, or rows of {LANES}-element vectors", site.op.input.type)
        return layer
