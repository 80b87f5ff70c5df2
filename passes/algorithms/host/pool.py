"""Pooling by windows; see `passes/kernels/host/pooling.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import core_model, memory_bound, moved_bytes, plane_schedule, tile_limits
from patc.passes.algorithms.limits import Limit
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.ir import windows
from patc.passes.ir.elements import numpy_type
from patc.passes.ir.planes import is_global_pool
from patc.passes.kernels import tiling
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.pooling import emit_pool
from patc.targets import Target


class _Pool(HostAlgorithm):
    """A window slides over planes."""

    name: ClassVar[str] = "pool"
    runs_in_bands: ClassVar[bool] = True

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model = core_model(op, target)
        yield memory_bound(model, plane_schedule(op, self.name, model.lanes, vectors=8), moved_bytes(op))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield from tile_limits(op, schedule, target)


class MaxPool(_Pool):
    """The largest of a window."""

    def emit(self, site: HostSite) -> None:
        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, made, epilogue = arguments
            emit_pool(Loops(kernel, made, epilogue, given), maximum=True)

        site.call([site.source, site.output, site.epilogue], emit, [1.0] * site.output.shape[1])


class AveragePool(_Pool):
    """The mean of a window."""

    def applies(self, op: Any) -> bool:
        return not is_global_pool(op)

    def emit(self, site: HostSite) -> None:
        source, output = site.source, site.output
        divisors = windows.average_divisors(site.op)
        scale, table = 1.0 / float(divisors[0, 0]), []
        if np.any(divisors != divisors[0, 0]):
            array = _reciprocals(divisors, tiling.covered(output.shape[3], site.schedule.lanes), site.op.result.type)
            table.append(site.constant(array, site.op.result, "reciprocals"))

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, made, epilogue, *reciprocals = arguments
            emit_pool(Loops(kernel, made, epilogue, given), maximum=False, scale=next(iter(reciprocals), scale))

        site.call([source, output, site.epilogue, *table], emit, [1.0] * output.shape[1])


def _reciprocals(divisors: np.ndarray, covered: int, type_: Any) -> np.ndarray:
    """Return one over the divisor of each output place; columns beyond the row hold zero."""
    table = np.zeros((divisors.shape[0], covered), numpy_type(type_))
    table[:, : divisors.shape[1]] = 1.0 / divisors
    return table
