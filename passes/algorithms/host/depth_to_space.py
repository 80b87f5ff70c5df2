"""Channels that become places; see `passes/kernels/host/depth_to_space.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import column_choices, core_model, memory_bound, moved_bytes, tile_limits
from patc.passes.algorithms.limits import Limit
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.kernels.host import depth_to_space
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops
from patc.targets import Target


class DepthToSpace(HostAlgorithm):
    """Vectors of neighbouring phases, put between each other in registers."""

    name: ClassVar[str] = "depth-to-space"

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model = core_model(op, target)
        choices = column_choices(op.input.type.shape[3], model.lanes)
        columns = max(columns for columns, strips in choices if len(strips[0].chunks) <= 2)
        yield memory_bound(model, Schedule(self.name, 1, columns, model.lanes), moved_bytes(op))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield from tile_limits(op, schedule, target, math.prod(op.steps), op.input.type.shape[2:])

    def emit(self, site: HostSite) -> None:
        source, output, steps = site.source, site.output, tuple(site.op.steps)
        channels, count = output.shape[1], steps[0] * steps[1]
        apart, each = (channels, 1) if site.op.mode.value == "DCR" else (1, count)

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, epilogue, made = arguments
            loops = Loops(kernel, made, epilogue, given)
            depth_to_space.DepthToSpace(loops, steps, apart, each).emit()

        images, _, height, _ = source.shape
        tiles = images * ceil_div(height, min(site.schedule.rows, height))
        site.scheduled(site.schedule, (0, tiles)).call([source, site.epilogue, output], emit, [1.0] * channels)
