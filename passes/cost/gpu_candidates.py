"""How each kind of layer could be computed on a GPU, and what that costs.

The model is that of a throughput machine: each thread issues so many instructions, and the machine has `RESIDENT`
threads that advance at the same time, some of them idle where a layer has less outputs. It knows nothing of one GPU in
particular.
"""

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
from patc.passes.formats.fkw import Fkw
from patc.passes.formats.layer_weights import FKW_ROLES
from patc.passes.ir.constants import read_constant
from patc.passes.ir.planes import as_planes, is_global_pool
from patc.passes.kernels.gpu.kernel import LANES, SPLIT
from patc.passes.kernels.gpu.weights import share_kernels
from patc.passes.kernels.host.convolution import Tap

RESIDENT = 4096  # threads that a small GPU works on at once
LOAD = 2.0  # cycles of a vector load, in those of a multiply-add of four elements
UNIFORM = 1.0  # of a load that is the same for a whole workgroup
LOOP = 4.0  # of one turn of a loop
START = 40.0  # of a thread, with its addresses, epilogue and store
BARRIER = 30.0  # of adding up the parts of a sum
ACCUMULATORS = 8  # vectors of sums that a thread holds
SHARED_BYTES = 16384  # of workgroup memory, which every device has
THREADS = (64, 128)  # whole waves of nearly every GPU: these have 8 to 64 threads
PARTS = (1, 2, 4, 8)


def gpu_candidates(op: Any, state: PassState) -> list[Candidate]:
    """Return the ways to compute a layer, always in the same order; none for an op that computes nothing."""
    generate = _GENERATORS.get(type(op))
    return [] if generate is None else list(generate(op, state))


def _sparse(op: Any, state: PassState) -> Iterator[Candidate]:
    library = Library.from_attr(op.library)
    counts = pattern_counts(op, library, state)
    filters = op.result.type.shape[1]
    places = [library.places(pattern) for pattern in range(len(library.masks))]
    arrays = [array for role in FKW_ROLES if (array := read_constant(getattr(op, role), state)) is not None]
    fkw = Fkw(*arrays) if len(arrays) == len(FKW_ROLES) else None
    blocks = [block for block in (1, 2, 4) if block == 1 or (fkw is not None and share_kernels(fkw, block))]
    for rows, block, (threads, parts) in itertools.product((1, 2, 4), blocks, _workgroups()):
        if rows * block > ACCUMULATORS:
            continue
        if rows > op.result.type.shape[2] or not _fits(rows * block, threads, parts):
            continue
        cycles = 0.0
        for count, taps in zip(counts, places, strict=True):
            uniform = 1 + block * ceil_div(library.entries, LANES)
            turn = LOOP + UNIFORM * uniform + _kernel_cycles(op, taps, rows, block)
            # Parts that get one kernel less than others wait for them.
            cycles += turn * math.ceil(count / filters / parts) if parts > 1 else turn * count / filters
        yield _candidate(op, "pattern-direct", rows, block, threads, parts, cycles, filters // block)
    channels, group = op.input.type.shape[1], filters
    yield from _dense_tiles(op, library.kernel, channels, group)


def _dense(op: Any, state: PassState) -> Iterator[Candidate]:
    filters, channels, height, width = op.weight.type.shape
    yield from _dense_tiles(op, (height, width), channels, filters // op.groups.value)


def _dense_tiles(op: Any, kernel: tuple[int, int], channels: int, group: int) -> Iterator[Candidate]:
    """Yield the tiles of "dense-direct", or of "depthwise-direct" where each filter has one channel of its own.

    Args:
        channels: that each filter reads.
        group: filters that read the same ones.
    """
    filters = op.result.type.shape[1]
    name = "depthwise-direct" if channels == 1 and group == 1 else "dense-direct"
    taps = [(0, dy, dx) for dy in range(kernel[0]) for dx in range(kernel[1])]
    for rows, block, (threads, parts) in itertools.product((1, 2, 4), (1, 2, 4), _workgroups()):
        divides = block == 1 or (group % block == 0 if group < filters else filters >= block)
        if rows * block > ACCUMULATORS or not divides or (parts > 1 and channels < 4 * parts):
            continue
        if rows > op.result.type.shape[2] or not _fits(rows * block, threads, parts):
            continue
        turn = LOOP + UNIFORM * ceil_div(len(taps) * block, LANES) + _kernel_cycles(op, taps, rows, block)
        yield _candidate(
            op, name, rows, block, threads, parts, turn * ceil_div(channels, parts), ceil_div(filters, block)
        )


def _workgroups() -> Iterator[tuple[int, int]]:
    """Yield threads of a workgroup, and the parts that they divide sums into."""
    for threads, parts in itertools.product(THREADS, PARTS):
        if threads // parts >= 8:
            yield threads, parts


def _fits(sums: int, threads: int, parts: int) -> bool:
    return parts == 1 or sums * threads * LANES * 4 <= SHARED_BYTES


def _kernel_cycles(op: Any, taps: Sequence[Tap], rows: int, block: int) -> float:
    """Return the cycles of one kernel's loads, shuffles and multiply-adds in one thread."""
    stride, dilation, left = tuple(op.strides), tuple(op.dilations), op.pads[1]
    reads = {(channel, row * stride[0] + dy * dilation[0], dx) for channel, dy, dx in taps for row in range(rows)}
    vectors, shuffles = set(), 0
    for channel, row, dx in reads:
        places = [divmod(dx * dilation[1] - left + lane * stride[1], LANES) for lane in range(LANES)]
        vectors |= {(channel, row, number) for number, _ in places}
        shuffles += places[0][1] != 0 or stride[1] > 1
    return LOAD * len(vectors) + shuffles + len(taps) * rows * block


def _candidate(
    op: Any, algorithm: str, rows: int, block: int, threads: int, parts: int, cycles: float, blocks: int
) -> Candidate:
    """Return a candidate of a convolution.

    Args:
        cycles: of one thread's sums.
        blocks: workgroups along filters.
    """
    images, _, height, width = op.result.type.shape
    pixels = ceil_div(width, LANES) * ceil_div(height, rows)
    groups = ceil_div(pixels, threads // parts) * blocks * images
    own = cycles + START * rows * block + (BARRIER + parts * rows * block if parts > 1 else 0.0)
    total = own * max(1.0, groups * threads / RESIDENT)
    schedule = Schedule(algorithm, rows, LANES, LANES, block, parts, SPLIT, threads)
    bound = "threads" if groups * threads < RESIDENT else "multiply-adds"
    return Candidate(schedule, total, total, bound)


def _planes(op: Any, state: PassState) -> Iterator[Candidate]:
    """Yield the ways of a pooling or elementwise layer."""
    if is_global_pool(op):
        yield Candidate(Schedule("global-pool", 1, LANES, LANES, 1, 64, SPLIT, 64), *_moved(op), "memory")
        return
    name = "pool" if isinstance(op, (pattern.MaxPool2dOp, pattern.AvgPool2dOp)) else "elementwise"
    images, channels, height, width = as_planes(op.result.type.shape)
    for threads in THREADS:
        groups = ceil_div(ceil_div(width, LANES) * height, threads) * channels * images
        cycles = START * max(1.0, groups * threads / RESIDENT)
        schedule = Schedule(name, 1, LANES, LANES, 1, 1, SPLIT, threads)
        yield Candidate(schedule, cycles, cycles, "memory")


def _linear(op: Any, state: PassState) -> Iterator[Candidate]:
    yield Candidate(Schedule("gemv", 1, LANES, LANES, 4, 64, SPLIT, 64), *_moved(op), "memory")


def _moved(op: Any) -> tuple[float, float]:
    """Return the cycles in which all threads load what a layer reads."""
    elements = sum(math.prod(value.type.shape) for value in op.operands)
    cycles = START + LOAD * elements / LANES / RESIDENT
    return cycles, cycles


_GENERATORS: dict[type, Callable[[Any, PassState], Iterator[Candidate]]] = {
    pattern.SparseConv2dOp: _sparse,
    pattern.Conv2dOp: _dense,
    pattern.MaxPool2dOp: _planes,
    pattern.AvgPool2dOp: _planes,
    pattern.AddOp: _planes,
    pattern.ActivateOp: _planes,
    pattern.RelayoutOp: _planes,
    pattern.LinearOp: _linear,
}
