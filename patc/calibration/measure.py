"""Runs probes on this machine, and says what they mean for a `Target`."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import llvmlite.binding as llvm
import numpy as np

from patc.calibration import probes
from patc.calibration.probes import Probe
from patc.locks import compiling
from patc.runtime.memory import aligned_bytes
from patc.runtime.native import NativeFunction
from patc.targets import Target

RUNS = 9  # of a probe, of which the fastest counts: nothing else makes a loop faster than it is
SECONDS = 2e-3  # that a run takes, about
# A core that lowers its clock for wide vectors raises it again so long after the last of them, or later.
KEPT_CLOCK = 3e-4
BEHIND = 16  # times half of the second-level cache are behind it
PLANES_APART = 257 * 256  # bytes: a row of each plane, and no two of them in the same sets of a cache
# What layers reach of what loops find, on the core that both were measured on: rows are short, and waited for.
PLANES_SHARE, REMOTE_LINES = 0.3, 2.0
SHARED = 0.1  # a larger `Bench.disturbance` is that of others

Clock = Callable[[], float]


class Bench:
    """Probes as machine code, and memory for them.

    Args:
        wanted: probes that will be run.
        size: bytes of the largest buffer that they work on.
        now: seconds.
    """

    def __init__(self, wanted: Sequence[Probe], size: int, now: Clock = time.perf_counter) -> None:
        code = _compile(wanted)
        self._functions = {probe.name: NativeFunction(code, probe.name, 2, threads=1) for probe in wanted}
        self._amounts = {probe.name: probe.amount for probe in wanted}
        self._given = np.zeros(2, np.int64)
        self.memory = aligned_bytes(max(size, 1 << 16))
        self.memory[:] = 0
        self._now = now

    def seconds(self, name: str, size: int = 0, least_turns: int = 64, runs: int = RUNS) -> float:
        """Return the seconds of one unit of what a probe does.

        Args:
            size: the second number of the probe.
            least_turns: of a run.
        """
        turns, function = least_turns, self._functions[name]
        while self._run(function, turns, size) < SECONDS / 4 and turns < 1 << 40:
            turns *= 4
        return min(self._run(function, turns, size) for _ in range(runs)) / turns / self._amounts[name]

    def seconds_behind(self, before: str, name: str, size: int = 0) -> float:
        """Return the seconds of one unit of what a probe does right after another one: while the core's clock is that
        of the other one's instructions.

        Args:
            size: the second number of the probe.
        """
        warm = max(1, round(SECONDS / self.seconds(before) / self._amounts[before]))
        turns = max(1, round(KEPT_CLOCK / self.seconds(name, size) / self._amounts[name]))
        found = []
        for _ in range(2 * RUNS):
            self._run(self._functions[before], warm, 0)
            found.append(self._run(self._functions[name], turns, size))
        return min(found) / turns / self._amounts[name]

    def remote_seconds(self, name: str, size: int) -> float:
        """Return the seconds of one unit of what a probe does with `size` bytes that another core has just written; 0
        where the process cannot choose its core, or has one.
        """
        allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if len(allowed) < 2:
            return 0.0
        turns, found = size // 256, []
        try:
            for _ in range(RUNS):
                os.sched_setaffinity(0, allowed[:1])
                self._run(self._functions["probe_writes"], turns, size)
                os.sched_setaffinity(0, allowed[1:2])
                self._run(self._functions[name], 1, size)
                found.append(self._run(self._functions[name], turns, size))
        finally:
            os.sched_setaffinity(0, allowed)
        return min(found) / turns / self._amounts[name]

    def disturbance(self, name: str) -> float:
        """Return by which part the median run of a probe takes longer than the fastest one: next to nothing on a core
        that nothing else uses."""
        turns = round(SECONDS / self.seconds(name) / self._amounts[name])
        seconds = sorted(self._run(self._functions[name], turns, 0) for _ in range(2 * RUNS + 1))
        return seconds[RUNS] / seconds[0] - 1

    def _run(self, function: NativeFunction, turns: int, size: int) -> float:
        self._given[:] = turns, size
        start = self._now()
        function(self._given.ctypes.data, self.memory.ctypes.data)
        return max(self._now() - start, 1e-9)


@compiling()
def _compile(wanted: Sequence[Probe]) -> bytes:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly("".join([*{probe.declared for probe in wanted}, *(probe.text for probe in wanted)]))
    kind = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    machine = kind.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=2, reloc="pic")
    return bytes(machine.emit_object(module))


@dataclass(frozen=True)
class Core:
    """What probes say of a core.

    Attributes:
        values: for a `Calibration`.
        clock_hz: cycles in a second of a core that computes with vectors.
        is_shared: others used the core meanwhile.
    """

    values: dict[str, float]
    clock_hz: float
    is_shared: bool


def measure_core(target: Target, level2: int, bench: Bench | None = None) -> Core:
    """Measure one core, in less than a second.

    Args:
        target: of this machine.
        level2: bytes of the second-level cache.
        bench: what measures; one of this machine's own by default.
    """
    lanes, size = target.lanes, 1 << (level2 // 2).bit_length() - 1
    bench = bench or Bench(wanted(target), BEHIND * size)
    in_vectors = functools.partial(bench.seconds_behind, "probe_multiply_adds")
    cycle = in_vectors("probe_clock")
    aligned, crossing, short = (cycle / in_vectors(f"probe_{name}") for name in ("aligned", "crossing", "short"))
    multiply_adds = cycle / bench.seconds("probe_multiply_adds")
    chain, line = in_vectors("probe_chain") / cycle, in_vectors("probe_lines", size) / cycle
    latency, pipes = max(1, round(chain)), max(1, round(multiply_adds))
    values = {
        "fma_lanes": pipes * lanes,
        "fma_latency_cycles": float(latency),
        "sums_in_flight": latency * max(pipes, target.pipes),
        "loads_per_cycle": max(1, round(short)),
        "load_bytes": max(1, round(aligned)) * 4 * lanes,
        "second_level_bytes": level2,
        "line_cycles": round(probes.LINE * line, 2),
        "crossing_loads": round(max(1.0, aligned / crossing), 2),
        "stream_bytes_per_cycle": round(cycle / bench.seconds("probe_lines", BEHIND * size), 2),
        "planes_bytes_per_cycle": round(PLANES_SHARE * cycle / bench.seconds("probe_planes", BEHIND * size), 2),
    }
    remote, row = (bench.remote_seconds(f"probe_{name}", size // 2) for name in ("lines", "planes"))
    if remote and row:
        values["remote_bytes_per_cycle"] = round(cycle / remote, 2)
        values["remote_line_cycles"] = round(REMOTE_LINES * probes.LINE * row / cycle, 1)
    return Core(values, 1 / cycle, bench.disturbance("probe_clock") > SHARED)


def wanted(target: Target) -> list[Probe]:
    """Return the probes that `measure_core` runs."""
    lanes, chains = target.lanes, target.registers * 3 // 4
    return [
        probes.clock(),
        probes.multiply_adds(lanes, chains, "probe_multiply_adds"),
        probes.multiply_adds(lanes, 1, "probe_chain"),
        probes.loads(lanes, "probe_aligned"),
        probes.loads(lanes, "probe_crossing", probes.LINE - 2 * lanes),
        probes.loads(4, "probe_short"),
        probes.lines(lanes, "probe_lines"),
        probes.lines(lanes, "probe_planes", PLANES_APART),
        probes.writes(lanes, "probe_writes"),
    ]
