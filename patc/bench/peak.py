"""What the machine can do at most: multiply-adds a second, and bytes read from each level of memory.

The loops are MLIR that patc's own code generator compiles for the machine at hand, so that they use the same
vectors as compiled models:

    multiply-adds   independent chains of FMAs in registers, as many as hide the latency
    reading         a stream of aligned vector loads over a buffer that only the level in question can hold

Each loop runs a dozen times for a few milliseconds, on all threads at once. For the cores and their caches the
fastest run counts: a peak is what is reached when nothing else disturbs it. For memory it is the median: bursts of
half as much again were seen, which no layer can count on.
"""

from __future__ import annotations

import functools
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import func

from patc.bench.machine import MIB, Caches, find_caches
from patc.codegen import host
from patc.context import make_context
from patc.diagnostics import PatcError
from patc.locks import compiling
from patc.passes.kernels.builder import Builder, Vectors
from patc.runtime.memory import aligned_bytes
from patc.runtime.native import NativeFunction
from patc.targets import Target
from patc.targets import host as host_target

REPETITIONS = 12
FMA_STEPS = 400_000  # turns of the loop of FMA chains in one run
READ_BYTES = 256 * MIB  # read in one run from a cache, at most
MEMORY_BYTES = (256 * MIB, 1024 * MIB)  # least and most of the buffer that stands for memory
_STREAMS = 8  # sums in flight while reading; more than an addition's latency needs


@dataclass(frozen=True)
class Peak:
    """The most that `threads` cores reach together.

    Attributes:
        threads: that ran at once.
        gflops: float32 multiply-adds, two operations each, in 1e9 operations a second.
        l2_gbs, l3_gbs, read_gbs: bytes read from the second-level cache, the third-level cache and memory,
            in 1e9 bytes a second.
        lanes: float32 elements of the vectors that were used.
    """

    threads: int
    gflops: float
    l2_gbs: float
    l3_gbs: float
    read_gbs: float
    lanes: int

    def to_json(self) -> dict[str, float]:
        """Return the fields as JSON values."""
        return asdict(self)

    def best(self, other: Peak) -> Peak:
        """Return the larger of each value of two measurements with as many threads."""
        names = ("gflops", "l2_gbs", "l3_gbs", "read_gbs")
        return replace(self, **{name: max(getattr(self, name), getattr(other, name)) for name in names})

    def __str__(self) -> str:
        return (
            f"FMA {self.gflops:.1f} GFLOP/s; reading from L2 {self.l2_gbs:.0f}, L3 {self.l3_gbs:.0f}, "
            f"memory {self.read_gbs:.1f} GB/s"
        )


@dataclass(frozen=True)
class _Sizes:
    """Bytes that one thread reads over and over, for each level."""

    l2: int
    l3: int
    memory: int


def measure_peak(threads: int = 1, target: Target | None = None) -> Peak:
    """Measure the peak of `threads` cores; takes about a second.

    Args:
        target: whose code does it; that of this machine by default.

    Raises:
        PatcError: `threads` is below 1, or the machine is none that patc generates code for.
    """
    if threads < 1:
        raise PatcError(f"expected threads of 1 or more, got {threads}")
    target, caches = target or host_target(), find_caches()
    sizes = _choose_sizes(caches, threads, target)
    code = _compile(target, sizes)
    buffers = [_filled(sizes.memory) for _ in range(threads)]
    sinks = [_filled(4 * target.lanes * target.registers) for _ in range(threads)]

    def rate(name: str, amount: float, pick: Callable[[list[float]], float] = min) -> float:
        kernel = NativeFunction(code, name, 2, threads=1)
        calls = [
            functools.partial(kernel, buffer.ctypes.data, sink.ctypes.data)
            for buffer, sink in zip(buffers, sinks, strict=True)
        ]
        return threads * amount / pick(_run_together(calls)) / 1e9

    return Peak(
        threads=threads,
        gflops=rate("main", FMA_STEPS * _chains(target) * target.lanes * 2),
        l2_gbs=rate("read_l2", _passes(sizes.l2) * sizes.l2),
        l3_gbs=rate("read_l3", _passes(sizes.l3) * sizes.l3),
        read_gbs=rate("read_memory", sizes.memory, statistics.median),
        lanes=target.lanes,
    )


def _run_together(calls: Sequence[Callable[[], None]]) -> list[float]:
    """Return the seconds that each repetition took, from the first thread's start to the last one's end."""
    barrier = threading.Barrier(len(calls))

    def repeat(call: Callable[[], None]) -> list[tuple[float, float]]:
        times = []
        for _ in range(REPETITIONS + 1):
            barrier.wait()
            start = time.perf_counter()
            call()  # ctypes lets go of the interpreter lock
            times.append((start, time.perf_counter()))
        return times[1:]

    with ThreadPoolExecutor(len(calls)) as pool:
        by_thread = list(pool.map(repeat, calls))
    return [
        max(end for _, end in repetition) - min(start for start, _ in repetition)
        for repetition in zip(*by_thread, strict=True)
    ]


def _filled(size: int) -> np.ndarray:
    """Return a buffer of its own pages: untouched ones would all be the same page of zeros."""
    memory = aligned_bytes(size)
    memory.view(np.float32).fill(0.5)
    return memory


def _choose_sizes(caches: Caches, threads: int, target: Target) -> _Sizes:
    """Choose buffers that fill half of the second-level cache, a quarter of the third, and neither."""
    step = _STREAMS * target.lanes * 4
    memory = min(max(8 * caches.level3, MEMORY_BYTES[0]), MEMORY_BYTES[1]) // threads
    # Threads share the third level; a part must still be too large for the second.
    level3 = max(caches.level3 // 4 // threads, 2 * caches.level2)
    return _Sizes(*(size // step * step for size in (caches.level2 // 2, level3, memory)))


def _passes(size: int) -> int:
    """Return how often a run reads a buffer that sits in a cache."""
    return max(1, READ_BYTES // size)


def _chains(target: Target) -> int:
    """Return a number of chains that hides the latency of all units and leaves registers for operands."""
    return target.registers * 3 // 4


@functools.lru_cache(maxsize=8)
@compiling()
def _compile(target: Target, sizes: _Sizes) -> bytes:
    """Return an object file with the functions `main` (FMA chains) and `read_<level>`."""
    with make_context(), ir.Location.unknown():
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):
            _define("main", target.lanes * target.registers, target, _emit_fma)
            for level in ("l2", "l3", "memory"):
                size = getattr(sizes, level)
                passes = 1 if level == "memory" else _passes(size)
                emit = functools.partial(_emit_read, elements=size // 4, passes=passes)
                _define(f"read_{level}", size // 4, target, emit)
        host.lower_to_llvm(module, target)
        return host.compile_object(module)


def _define(
    name: str, elements: int, target: Target, emit: Callable[[Builder, ir.Value, ir.Value, Target], None]
) -> None:
    """Define name(source: memref<elements x f32>, sink: memref<registers * lanes x f32>)."""
    f32 = ir.F32Type.get()
    types = [ir.MemRefType.get([count], f32) for count in (elements, target.lanes * target.registers)]
    function = func.FuncOp(name, (types, []))
    entry = function.add_entry_block()
    with ir.InsertionPoint(entry):
        emit(Builder(entry), entry.arguments[0], entry.arguments[1], target)
        func.ReturnOp([])


def _emit_fma(b: Builder, source: ir.Value, sink: ir.Value, target: Target) -> None:
    """Emit chains x = x * a + c; a, c and the starts come from memory, so that nothing folds or merges."""
    lanes, chains = target.lanes, _chains(target)
    factor, addend = (b.load(source, 0, (chains + number) * lanes, lanes) for number in range(2))
    starts = [b.load(source, 0, chain * lanes, lanes) for chain in range(chains)]
    ends = b.loop(0, FMA_STEPS, starts, lambda _, sums: [b.fma(x, factor, addend) for x in sums])
    for chain, end in enumerate(ends):
        b.store(end, sink, 0, chain * lanes)


def _emit_read(b: Builder, source: ir.Value, sink: ir.Value, target: Target, *, elements: int, passes: int) -> None:
    """Emit `passes` sums over the whole buffer."""
    lanes = target.lanes
    step = _STREAMS * lanes

    def one_step(position: ir.Value, sums: Vectors) -> Vectors:
        start = b.mul(position, step)
        return [b.plus(x, b.load(source, start, number * lanes, lanes)) for number, x in enumerate(sums)]

    def one_pass(_: ir.Value, sums: Vectors) -> Vectors:
        return b.loop(0, elements // step, sums, one_step)

    ends = b.loop(0, passes, [b.splat(0.0, lanes)] * _STREAMS, one_pass)
    for number, end in enumerate(ends):
        b.store(end, sink, 0, number * lanes)
