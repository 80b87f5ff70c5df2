"""What layers cost on a GPU that do little but move their tensors; see `passes/cost/gpu.py` for the model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.gpu import GpuModel
from patc.passes.ir.planes import as_planes
from patc.passes.kernels.gpu.kernel import LANES, SPLIT


def plane_candidates(op: Any, algorithm: str, model: GpuModel, taps: int = 0) -> Iterator[Candidate]:
    """Yield the ways of a layer whose threads compute four columns of a plane each.

    Args:
        taps: vectors that are gathered for each, beyond what any layer loads.
    """
    images, channels, height, width = as_planes(op.result.type.shape)
    for threads in model.costs.workgroups:
        groups = ceil_div(ceil_div(width, LANES) * height, threads) * channels * images
        cycles = model.layer_cycles(model.turn_cycles(0, taps, taps) if taps else 0.0, 1, groups * threads)
        schedule = Schedule(algorithm, 1, LANES, LANES, 1, 1, SPLIT, threads)
        yield Candidate(schedule, cycles, cycles, "memory")


def shared_sum_candidate(op: Any, algorithm: str, filters: int, model: GpuModel) -> Candidate:
    """Return the way of a layer whose workgroups share each sum, of `filters` side by side."""
    cycles = model.moved_cycles(sum(math.prod(value.type.shape) for value in op.operands))
    return Candidate(Schedule(algorithm, 1, LANES, LANES, filters, 64, SPLIT, 64), cycles, cycles, "memory")
