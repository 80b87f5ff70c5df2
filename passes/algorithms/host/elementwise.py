"""Combinations of two tensors, activations and changes of layout; see `passes/kernels/host/pooling.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import core_model, memory_bound, moved_bytes, plane_schedule, tile_limits
from patc.passes.algorithms.limits import Limit
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.ir.planes import as_planes
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.pooling import emit_elementwise
from patc.targets import Target


class Elementwise(HostAlgorithm):
    """Elements of one or two tensors in the order in which they lie in memory."""

    name: ClassVar[str] = "elementwise"
    runs_in_bands: ClassVar[bool] = True

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model = core_model(op, target)
        yield memory_bound(model, plane_schedule(op, self.name, model.lanes, vectors=4), moved_bytes(op))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield from tile_limits(op, schedule, target)

    def emit(self, site: HostSite) -> None:
        source, *others = (site.buffer(operand) for operand in site.op.operands)
        output = site.output
        epilogue = replace(site.epilogue, residual=others[0] if others else None)

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, epilogue, made = arguments
            emit_elementwise(Loops(kernel, made, epilogue, given))

        channels = as_planes(output.shape)[1]
        ends = None if len(output.shape) == 4 else lambda count: (1, site.share_of(channels, count))
        site.call([source, epilogue, output], emit, [1.0] * channels, any_part=True, ends=ends)
