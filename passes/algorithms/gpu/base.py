"""What algorithms of GPUs have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.base import Algorithm
from patc.passes.algorithms.gpu.site import GpuSite, Plan
from patc.passes.algorithms.limits import Limit, at_most, divisor_of, one_of
from patc.passes.cost.models import cost_model
from patc.targets import Target

MOST_THREADS = 128  # of a workgroup, that every device has
_MOST_VECTORS = 32  # of sums of a thread, which have code of their own
MOST_ROWS = 16  # of a thread: buffers and tables have room for so many behind a plane


class GpuAlgorithm(Algorithm[GpuSite]):
    """One way to compute layers on a GPU."""

    is_divided: ClassVar[bool] = False

    def machine_limits(self, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield from super().machine_limits(schedule, target)
        yield at_most("rows", schedule.rows, MOST_ROWS)
        yield at_most("threads", schedule.threads, max(MOST_THREADS, *cost_model(target).costs.workgroups))

    def plan(self, op: Any) -> Plan:
        """Return what has to be known of a layer before memory is given out.

        Raises:
            PatcError: the layer cannot be computed.
        """
        return Plan()


def plane_limits(schedule: Schedule) -> Iterator[Limit]:
    """Yield the limits of layers of which a thread computes neighbouring columns of some rows."""
    yield one_of("sums", schedule.sums, [1])


def convolution_limits(schedule: Schedule, target: Target) -> Iterator[Limit]:
    """Yield the limits of convolutions, of whose sums threads of a workgroup may share the parts."""
    yield divisor_of("sums", schedule.sums, schedule.threads)
    vectors = schedule.rows * schedule.filters
    yield at_most("rows times filters", vectors, _MOST_VECTORS)
    if schedule.sums > 1:
        size = vectors * schedule.threads * target.lanes * 4
        yield at_most("sums that take bytes of workgroup memory", size, cost_model(target).costs.shared_bytes)
