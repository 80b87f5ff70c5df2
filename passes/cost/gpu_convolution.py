"""How convolutions could be cut on a GPU, and what that costs; see `passes/cost/gpu.py` for the model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.gpu import GpuModel
from patc.passes.ir.windows import Tap, Window
from patc.passes.kernels.gpu.kernel import LANES, SPLIT


def convolution_schedules(op: Any, algorithm: str, blocks: Sequence[int], model: GpuModel) -> Iterator[Schedule]:
    """Yield the tiles that fit a thread and a workgroup.

    Args:
        blocks: numbers of filters that a thread can compute side by side.
    """
    for rows, block, (threads, parts) in itertools.product((1, 2, 4), blocks, model.workgroups()):
        if rows <= op.result.type.shape[2] and model.fits(rows * block, threads, parts):
            yield Schedule(algorithm, rows, LANES, LANES, block, parts, SPLIT, threads)


def turn_cycles(
    op: Any, taps: Sequence[Tap], uniform: int, schedule: Schedule, model: GpuModel, instructions: float = 1.0
) -> float:
    """Return the cycles of one kernel in one thread: a turn of its loop.

    Args:
        taps: of the kernel.
        uniform: loads that are the same for a whole workgroup.
        instructions: of a product, in those of a multiply-add.
    """
    window = Window.of(op)
    stride, dilation = window.strides, window.dilations
    rows = range(schedule.rows)
    reads = {(channel, row * stride[0] + dy * dilation[0], dx) for channel, dy, dx in taps for row in rows}
    vectors, shuffles = set(), 0
    for channel, row, dx in reads:
        places = [divmod(dx * dilation[1] - window.left + lane * stride[1], LANES) for lane in range(LANES)]
        vectors |= {(channel, row, number) for number, _ in places}
        shuffles += places[0][1] != 0 or stride[1] > 1
    products = len(taps) * schedule.rows * schedule.filters
    return model.turn_cycles(uniform, len(vectors), shuffles + instructions * products)


def convolution_candidate(op: Any, schedule: Schedule, cycles: float, model: GpuModel) -> Candidate:
    """Return the candidate of a schedule; `cycles` are those of one thread's sums."""
    images, filters, height, width = op.result.type.shape
    pixels = ceil_div(width, LANES) * ceil_div(height, schedule.rows)
    groups = ceil_div(pixels, schedule.threads // schedule.sums) * ceil_div(filters, schedule.filters) * images
    threads = groups * schedule.threads
    total = model.layer_cycles(cycles, schedule.rows * schedule.filters, threads, parts=schedule.sums)
    return Candidate(schedule, total, total, model.bound(threads))
