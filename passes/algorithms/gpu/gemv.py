"""Fully connected layers on a GPU, "gemv"."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from patc.integers import ceil_div
from patc.passes.algorithms.gpu.base import GpuAlgorithm
from patc.passes.algorithms.gpu.site import GpuSite
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.gpu_planes import shared_sum_candidate
from patc.passes.cost.models import cost_model
from patc.passes.formats.layer_weights import read_dense_weight
from patc.passes.kernels.gpu.gemv import gemv
from patc.passes.kernels.gpu.weights import pack_features
from patc.targets import Target

FILTERS = 4  # of a workgroup


class Gemv(GpuAlgorithm):
    """The threads of a workgroup share the features of a block of filters."""

    name = "gemv"

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        yield shared_sum_candidate(op, self.name, FILTERS, cost_model(target))

    def emit(self, site: GpuSite) -> None:
        block = site.schedule.filters
        dense = read_dense_weight(site.op, site.state)
        weights = site.memory.constant(pack_features(dense.array, block), dense.origin, f"features{block}")
        layer = site.layer()
        grid = ceil_div(layer.output.width, block), layer.source.channels, 1
        site.launch(grid, functools.partial(gemv, layer=layer, weights=weights))
