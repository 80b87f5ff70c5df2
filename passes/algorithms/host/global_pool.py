"""The mean of whole planes; see `passes/kernels/host/pooling.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import core_model, memory_bound, moved_bytes
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.ir import windows
from patc.passes.ir.planes import is_global_pool
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.pooling import emit_global_pool
from patc.targets import Target


class GlobalPool(HostAlgorithm):
    """A plane is summed as it lies in memory."""

    name: ClassVar[str] = "global-pool"
    has_row_tiles: ClassVar[bool] = False

    def applies(self, op: Any) -> bool:
        return is_global_pool(op)

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model = core_model(op, target)
        yield memory_bound(model, Schedule(self.name, 1, 1, model.lanes), moved_bytes(op))

    def emit(self, site: HostSite) -> None:
        scale = 1.0 / float(windows.average_divisors(site.op)[0, 0])

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, made, epilogue = arguments
            emit_global_pool(Loops(kernel, made, epilogue, given), scale)

        site.call([site.source, site.output, site.epilogue], emit, [1.0] * site.output.shape[1])
