"""Fully connected layers on a GPU, "gemv"."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.gpu.base import MOST_THREADS, GpuAlgorithm
from patc.passes.algorithms.gpu.site import GpuSite
from patc.passes.algorithms.limits import Limit, at_most, power_of_two
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.gpu_planes import shared_sum_candidate
from patc.passes.cost.models import cost_model
from patc.passes.formats.layer_weights import read_dense_weight
from patc.passes.kernels.gpu.gemv import gemv
from patc.passes.kernels.gpu.weights import pack_features
from patc.targets import Target

FILTERS = 4  # of a workgroup
MOST_ROWS = 8  # that read the weights one after the other


class Gemv(GpuAlgorithm):
    """The threads of a workgroup share the features of a block of filters."""

    name = "gemv"

    def applies(self, op: Any) -> bool:
        return bool(op.input.type.shape[0] <= MOST_ROWS)

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        yield shared_sum_candidate(op, self.name, FILTERS, cost_model(target))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield at_most("filters", schedule.filters, FILTERS)
        yield power_of_two("threads", schedule.threads, 1, MOST_THREADS)

    def emit(self, site: GpuSite) -> None:
        block = site.schedule.filters
        dense = read_dense_weight(site.op, site.state)
        packed = pack_features(dense.array, block)
        # What a kernel sees of the weights holds a part of these with bias and table.
        most = max(1, site.memory.seen_bytes // 2 // packed[0].nbytes)
        for first in range(0, len(packed), most):
            part, role = packed[first : first + most], f"features{block}" + f".{first}" * (first > 0)
            weights = site.memory.constant(part, dense.origin, role)
            layer = site.layer()
            emit = functools.partial(gemv, layer=layer, weights=weights, first=first if len(packed) > most else None)
            site.launch((len(part), layer.source.channels, 1), emit)
