"""What a benchmark found, as data: `to_json` is what `patc bench --json` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from patc.bench.limits import MeasuredLayer, furthest_from_limit, most_time_lost, peak_share
from patc.bench.machine import Machine
from patc.bench.peak import Peak
from patc.bench.timing import CALLS_PER_ROUND, Ratio, Times
from patc.bench.workload import Kind, Workload
from patc.numerics import FLOAT32, NUMERICS

FORMAT = 1
PATC = "patc"
# What patc promises of float32 results, relative to the output's largest magnitude.
ERROR_BOUND = NUMERICS[FLOAT32.mlir].error_bound
NOISY_SPREAD = 0.1  # distance of the quartiles over the median; a quiet machine stays below 0.03

METHOD = {
    "timing": (
        f"contestants take turns in rounds of {CALLS_PER_ROUND} calls, each turn after one call that does not count; "
        "median and quartiles of all calls"
    ),
    "error": "largest difference from PyTorch in float64 on the same weights, over the output's largest magnitude",
    "peak": (
        "loops compiled by patc on all threads at once: best run for FMA, L2 and L3, median for memory; measured "
        "before and after the contestants, the larger counts"
    ),
    "layers": "median time of each layer; operations are two for each kept weight and real output pixel",
    "limit": (
        "longest of operations / FMA peak, bytes / L2 bandwidth, bytes that cannot be in L2 / L3 bandwidth and bytes "
        "that cannot be in L3 / memory bandwidth; see patc/bench/limits.py"
    ),
}

WINOGRAD_NOTE = (
    "Pattern-only (2.25x) removes as much arithmetic as Winograd F(2x2,3x3) and less than F(4x4,3x3) (4x): "
    "where a rival runs Winograd, only the removed kernels (connectivity) are an advantage at stride 1."
)


@dataclass(frozen=True)
class Entry:
    """One contestant's result.

    Attributes:
        name: patc, or a peer as reports call it.
        kind: the weights it ran on.
        version: of the run time.
        algorithm: how convolutions are computed.
        error: relative to float64 PyTorch on the same weights, see `METHOD`.
        times: of all calls.
    """

    name: str
    kind: Kind
    version: str
    algorithm: str
    error: float | None
    times: Times

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "name": self.name,
            "weights": self.kind,
            "version": self.version,
            "algorithm": self.algorithm,
            "error": self.error,
            "times": self.times.to_json(),
        }


@dataclass(frozen=True)
class Missing:
    """A contestant that could not be measured, and why."""

    name: str
    kind: Kind | None
    threads: int | None
    reason: str

    def __str__(self) -> str:
        words = [self.name]
        if self.kind is not None:
            words.append(f"on {self.kind} weights")
        if self.threads is not None:
            words.append(f"with {count(self.threads, 'thread')}")
        return f"{' '.join(words)}: {self.reason}"


@dataclass(frozen=True)
class Run:
    """All results with one number of threads.

    Attributes:
        threads: of every contestant.
        peak: of as many cores.
        footprint_bytes: patc's weights and arena.
        weights, kept_weights: of all layers together.
        entries: patc first, then the baseline, PyTorch eager on dense weights; none beside a compiled file.
        layers: of patc's model; empty unless asked for.
    """

    threads: int
    peak: Peak
    footprint_bytes: int
    weights: int
    kept_weights: int
    entries: tuple[Entry, ...]
    layers: tuple[MeasuredLayer, ...]

    @property
    def patc(self) -> Entry:
        return self.entries[0]

    def speedup(self, entry: Entry) -> Ratio:
        """Return how many times as fast as `entry` patc is."""
        return Ratio.of(entry.times, self.patc.times)

    def to_json(self) -> dict[str, Any]:
        """Return the results as JSON values."""
        others = self.entries[1:]
        return {
            "threads": self.threads,
            "peak": self.peak.to_json(),
            "footprint_bytes": self.footprint_bytes,
            "weights": self.weights,
            "kept_weights": self.kept_weights,
            "contestants": [entry.to_json() for entry in self.entries],
            "speedups": [
                {"over": entry.name, "weights": entry.kind, **self.speedup(entry).to_json()} for entry in others
            ],
            "layers": [layer.to_json() for layer in self.layers],
            "summary": self._summary(),
        }

    def _summary(self) -> dict[str, Any] | None:
        if not self.layers:
            return None
        share = peak_share(self.layers, self.peak)
        return {
            "stride1_3x3_share_of_fma_peak": None if share is None else asdict(share),
            "furthest_from_limit": [
                {"layer": item.layer.name, "share_of_limit": item.share} for item in furthest_from_limit(self.layers)
            ],
            "most_time_lost": [
                {"layer": item.layer.name, "lost_seconds": item.lost_seconds} for item in most_time_lost(self.layers)
            ],
        }


@dataclass(frozen=True)
class BenchResult:
    """Everything `patc bench` found.

    Attributes:
        workload: what was measured.
        throughput: whether models of one thread ran on all cores at once; the seconds of a call are then those in
            which all of them together make one.
        images: that a call computes.
        repetitions: counted calls of each contestant.
        machine: it ran on.
        versions: of the packages that matter.
        runs: one for each number of threads.
        missing: rivals that could not be measured.
        target: whose code patc's is.
    """

    workload: Workload
    throughput: bool
    images: int
    repetitions: int
    machine: Machine
    versions: dict[str, str]
    runs: tuple[Run, ...]
    missing: tuple[Missing, ...]
    target: str = "host"

    @property
    def part(self) -> str:
        """What runs are counted by: cores with a model each, or threads of one model."""
        return "core" if self.throughput else "thread"

    def scaling(self) -> list[tuple[Run, Ratio]]:
        """Return for each run with more threads than the first how many times as fast patc is."""
        first = self.runs[0]
        more = [run for run in self.runs if run.threads > first.threads]
        return [(run, Ratio.of(first.patc.times, run.patc.times)) for run in more]

    def noise(self) -> list[str]:
        """Return for each run in which patc's own times spread widely a line that says so."""
        spreads = [(run, run.patc.times.spread) for run in self.runs]
        return [
            f"half of patc's times with {count(run.threads, self.part)} lie {spread:.0%} of their median apart; "
            "something else is running on this machine"
            for run, spread in spreads
            if spread > NOISY_SPREAD
        ]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; seconds, bytes and plain ratios throughout."""
        return {
            "format": FORMAT,
            "workload": asdict(self.workload),
            "target": self.target,
            "throughput": self.throughput,
            "images": self.images,
            "repetitions": self.repetitions,
            "calls_per_round": CALLS_PER_ROUND,
            "machine": self.machine.to_json(),
            "versions": self.versions,
            "method": METHOD,
            "note": WINOGRAD_NOTE,
            "runs": [run.to_json() for run in self.runs],
            "scaling": [
                {"from_threads": self.runs[0].threads, "to_threads": run.threads, **ratio.to_json()}
                for run, ratio in self.scaling()
            ],
            "noise": self.noise(),
            "missing": [asdict(item) for item in self.missing],
        }


def count(number: int, noun: str) -> str:
    """Return '1 thread' or '2 threads'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def wrong_entries(runs: Sequence[Run]) -> list[tuple[Run, Entry]]:
    """Return patc's results whose error is above the bound that it promises."""
    return [(run, run.patc) for run in runs if run.patc.error is not None and not run.patc.error <= ERROR_BOUND]
