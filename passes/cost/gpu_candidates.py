"""How each kind of layer could be computed on a GPU, and what that costs; see `passes/cost/gpu.py` for the model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from patc.dialects import pattern
from patc.dialects.attributes import Library, Schedule
from patc.integers import ceil_div
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.candidates import pattern_counts
from patc.passes.cost.gpu import GpuModel
from patc.passes.cost.models import cost_model
from patc.passes.formats.fkw import Fkw
from patc.passes.formats.layer_weights import FKW_ROLES
from patc.passes.ir.constants import read_constant
from patc.passes.ir.planes import as_planes, is_global_pool
from patc.passes.kernels.gpu.kernel import LANES, SPLIT
from patc.passes.kernels.gpu.weights import share_kernels
from patc.passes.kernels.host.convolution import Tap
from patc.targets import Target


def gpu_candidates(op: Any, target: Target, state: PassState) -> list[Candidate]:
    """Return the ways to compute a layer, always in the same order; none for an op that computes nothing."""
    generate = _GENERATORS.get(type(op))
    return [] if generate is None else list(generate(op, cost_model(target), state))


def _sparse(op: Any, model: GpuModel, state: PassState) -> Iterator[Candidate]:
    library = Library.from_attr(op.library)
    counts = pattern_counts(op, library, state)
    filters = op.result.type.shape[1]
    places = [library.places(pattern) for pattern in range(len(library.masks))]
    arrays = [array for role in FKW_ROLES if (array := read_constant(getattr(op, role), state)) is not None]
    fkw = Fkw(*arrays) if len(arrays) == len(FKW_ROLES) else None
    blocks = [block for block in (1, 2, 4) if block == 1 or (fkw is not None and share_kernels(fkw, block))]
    for rows, block, (threads, parts) in itertools.product((1, 2, 4), blocks, model.workgroups()):
        if rows > op.result.type.shape[2] or not model.fits(rows * block, threads, parts):
            continue
        cycles = 0.0
        for count, taps in zip(counts, places, strict=True):
            uniform = 1 + block * ceil_div(library.entries, LANES)
            turn = model.turn_cycles(uniform, *_kernel_work(op, taps, rows, block))
            # Parts that get one kernel less than others wait for them.
            cycles += turn * math.ceil(count / filters / parts) if parts > 1 else turn * count / filters
        schedule = Schedule("pattern-direct", rows, LANES, LANES, block, parts, SPLIT, threads)
        yield _candidate(op, model, schedule, cycles, filters // block)
    channels, group = op.input.type.shape[1], filters
    yield from _dense_tiles(op, model, library.kernel, channels, group)


def _dense(op: Any, model: GpuModel, state: PassState) -> Iterator[Candidate]:
    filters, channels, height, width = op.weight.type.shape
    yield from _dense_tiles(op, model, (height, width), channels, filters // op.groups.value)


def _dense_tiles(op: Any, model: GpuModel, kernel: tuple[int, int], channels: int, group: int) -> Iterator[Candidate]:
    """Yield the tiles of "dense-direct", or of "depthwise-direct" where each filter has one channel of its own.

    Args:
        channels: that each filter reads.
        group: filters that read the same ones.
    """
    filters = op.result.type.shape[1]
    name = "depthwise-direct" if channels == 1 and group == 1 else "dense-direct"
    taps = [(0, dy, dx) for dy in range(kernel[0]) for dx in range(kernel[1])]
    for rows, block, (threads, parts) in itertools.product((1, 2, 4), (1, 2, 4), model.workgroups()):
        divides = block == 1 or (group % block == 0 if group < filters else filters >= block)
        if not divides or (parts > 1 and channels < 4 * parts):
            continue
        if rows > op.result.type.shape[2] or not model.fits(rows * block, threads, parts):
            continue
        turn = model.turn_cycles(ceil_div(len(taps) * block, LANES), *_kernel_work(op, taps, rows, block))
        schedule = Schedule(name, rows, LANES, LANES, block, parts, SPLIT, threads)
        yield _candidate(op, model, schedule, turn * ceil_div(channels, parts), ceil_div(filters, block))


def _kernel_work(op: Any, taps: Sequence[Tap], rows: int, block: int) -> tuple[int, int]:
    """Return one kernel's loads, and its shuffles and multiply-adds, in one thread."""
    stride, dilation, left = tuple(op.strides), tuple(op.dilations), op.pads[1]
    reads = {(channel, row * stride[0] + dy * dilation[0], dx) for channel, dy, dx in taps for row in range(rows)}
    vectors, shuffles = set(), 0
    for channel, row, dx in reads:
        places = [divmod(dx * dilation[1] - left + lane * stride[1], LANES) for lane in range(LANES)]
        vectors |= {(channel, row, number) for number, _ in places}
        shuffles += places[0][1] != 0 or stride[1] > 1
    return len(vectors), shuffles + len(taps) * rows * block


def _candidate(op: Any, model: GpuModel, schedule: Schedule, cycles: float, blocks: int) -> Candidate:
    """Return a candidate of a convolution.

    Args:
        cycles: of one thread's sums.
        blocks: workgroups along filters.
    """
    images, _, height, width = op.result.type.shape
    pixels = ceil_div(width, LANES) * ceil_div(height, schedule.rows)
    threads = ceil_div(pixels, schedule.threads // schedule.sums) * blocks * images * schedule.threads
    sums = schedule.rows * schedule.filters
    total = model.layer_cycles(cycles, sums, threads, parts=schedule.sums)
    return Candidate(schedule, total, total, model.bound(threads))


def _planes(op: Any, model: GpuModel, state: PassState) -> Iterator[Candidate]:
    """Yield the ways of a pooling or elementwise layer."""
    if is_global_pool(op):
        yield Candidate(Schedule("global-pool", 1, LANES, LANES, 1, 64, SPLIT, 64), *_moved(op, model), "memory")
        return
    name = "pool" if isinstance(op, (pattern.MaxPool2dOp, pattern.AvgPool2dOp)) else "elementwise"
    images, channels, height, width = as_planes(op.result.type.shape)
    for threads in model.costs.workgroups:
        groups = ceil_div(ceil_div(width, LANES) * height, threads) * channels * images
        cycles = model.layer_cycles(0.0, 1, groups * threads)
        schedule = Schedule(name, 1, LANES, LANES, 1, 1, SPLIT, threads)
        yield Candidate(schedule, cycles, cycles, "memory")


def _linear(op: Any, model: GpuModel, state: PassState) -> Iterator[Candidate]:
    yield Candidate(Schedule("gemv", 1, LANES, LANES, 4, 64, SPLIT, 64), *_moved(op, model), "memory")


def _moved(op: Any, model: GpuModel) -> tuple[float, float]:
    """Return the cycles in which all threads load what a layer reads."""
    elements = sum(math.prod(value.type.shape) for value in op.operands)
    cycles = model.moved_cycles(elements)
    return cycles, cycles


_GENERATORS: dict[type, Callable[[Any, GpuModel, PassState], Iterator[Candidate]]] = {
    pattern.SparseConv2dOp: _sparse,
    pattern.Conv2dOp: _dense,
    pattern.MaxPool2dOp: _planes,
    pattern.AvgPool2dOp: _planes,
    pattern.AddOp: _planes,
    pattern.ActivateOp: _planes,
    pattern.RelayoutOp: _planes,
    pattern.LinearOp: _linear,
}
