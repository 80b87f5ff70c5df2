"""Pooling of quantised planes; see `passes/kernels/host/word_pools.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

from patc.dialects.attributes import Activation
from patc.dialects.schedules import Schedule
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.dots import dot_lanes
from patc.passes.algorithms.host.images import Reach
from patc.passes.algorithms.host.site import NO_EPILOGUE, HostSite
from patc.passes.algorithms.host.tiles import core_model, memory_bound, moved_bytes, plane_schedule, tile_limits
from patc.passes.algorithms.limits import Limit
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.ir.planes import is_global_pool
from patc.passes.ir.quantised import mean_factor
from patc.passes.ir.windows import has_one_divisor
from patc.passes.kernels.dots import dots_of
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.word_pools import WordMaxPool, WordMeans
from patc.targets import Target

_MOST_TAPS = 64  # of a window: each has code of its own


class _WordPool(HostAlgorithm):
    """A window slides over planes of words."""

    name: ClassVar[str] = "pool"
    reaches: ClassVar[Reach] = Reach.NONE

    def applies(self, op: Any) -> bool:
        return math.prod(op.kernel_size) <= _MOST_TAPS and op.strides[1] <= 2 and not Activation.of(op).arrays

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model = core_model(op, target)
        yield memory_bound(model, plane_schedule(op, self.name, model.lanes, vectors=4), moved_bytes(op))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield dot_lanes(schedule, target)
        yield from tile_limits(op, schedule, target)


class MaxPoolWords(_WordPool):
    """The largest of a window."""

    def applies(self, op: Any) -> bool:
        return super().applies(op) and Activation.of(op) == Activation()

    def emit(self, site: HostSite) -> None:
        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, made, epilogue = arguments
            WordMaxPool(Loops(kernel, made, epilogue, given)).emit()

        site.call([site.source, site.output, NO_EPILOGUE], emit, [1.0] * site.output.shape[1])


class AveragePoolWords(_WordPool):
    """The mean of a window; all windows are divided by one number."""

    def applies(self, op: Any) -> bool:
        return super().applies(op) and not is_global_pool(op) and has_one_divisor(op)

    def emit(self, site: HostSite) -> None:
        _emit_means(site, WordMeans.emit_windows)


class GlobalPoolWords(HostAlgorithm):
    """The mean of whole planes."""

    name: ClassVar[str] = "global-pool"
    reaches: ClassVar[Reach] = Reach.NONE
    has_row_tiles: ClassVar[bool] = False

    def applies(self, op: Any) -> bool:
        return is_global_pool(op) and has_one_divisor(op) and not Activation.of(op).arrays

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model = core_model(op, target)
        yield memory_bound(model, Schedule(self.name, 1, 1, model.lanes), moved_bytes(op))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield dot_lanes(schedule, target)

    def emit(self, site: HostSite) -> None:
        _emit_means(site, WordMeans.emit_planes)


def _emit_means(site: HostSite, write: Any) -> None:
    factor, dots, activation = float(mean_factor(site.op)), dots_of(site.target), Activation.of(site.op)

    def emit(kernel: Kernel, arguments: list[Any]) -> None:
        given, made, epilogue = arguments
        write(WordMeans(Loops(kernel, made, epilogue, given), dots, factor, activation))

    site.call([site.source, site.output, NO_EPILOGUE], emit, [1.0] * site.output.shape[1])
