"""Planes resampled on a GPU; see `passes/kernels/gpu/resampling.py`."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.gpu.base import GpuAlgorithm, plane_limits
from patc.passes.algorithms.gpu.site import GpuSite
from patc.passes.algorithms.limits import Limit
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.gpu_planes import plane_candidates
from patc.passes.cost.models import cost_model
from patc.passes.ir.elements import numpy_type
from patc.passes.ir.resampling import is_copy
from patc.passes.kernels.gpu.resampling import GpuAxis, resample
from patc.targets import Target


class Resample(GpuAlgorithm):
    """A thread computes neighbouring columns of some rows."""

    name = "resample"

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        taps = math.prod(axis.type.shape[0] for axis in (op.rows, op.columns))
        yield from plane_candidates(op, self.name, cost_model(target), taps)

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield from plane_limits(schedule)

    def emit(self, site: GpuSite) -> None:
        axes = [_axis(site, *names) for names in (("rows", "row_weights"), ("columns", "column_weights"))]
        layer = site.layer()
        site.launch(
            site.grid(layer.output.channels), functools.partial(resample, layer=layer, rows=axes[0], columns=axes[1])
        )


class ResampleWords(Resample):
    """The same of words, which are copied: there is one tap without a weight along either axis."""

    def applies(self, op: Any) -> bool:
        return is_copy(op)


def _axis(site: GpuSite, name: str, weights: str) -> GpuAxis:
    """Return one axis of the layer.

    Raises:
        PatcError: its numbers are not constant.
    """
    op, places, held = site.op, site.array(name), None
    if getattr(op, weights) is not None:
        numbers = site.array(weights).astype(numpy_type(op.result.type))
        held = site.memory.constant(numbers, getattr(op, weights), "")
    return GpuAxis(site.memory.constant(places.astype(np.int32), getattr(op, name), "places"), held, *places.shape)
