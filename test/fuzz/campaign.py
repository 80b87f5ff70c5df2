"""Runs seeds of one kind on several workers, shrinks what fails, and counts how cases end."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from outcome import Case
from workers import Result, Worker

SHRINK_RUNS, SHRINK_SECONDS = 150, 120.0


@dataclass
class Summary:
    """How many cases ended how.

    Attributes:
        ended: by word.
        refused: lines without their numbers and names.
        faults: by what happened.
        kept: files of shrunk cases.
    """

    cases: int = 0
    seconds: float = 0.0
    ended: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    kept: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Budget:
    """How long to go on: at most `cases`, and none is begun after `seconds`."""

    cases: int | None = None
    seconds: float | None = None

    @staticmethod
    def parse(text: str) -> Budget:
        """Return what 500, 90s, 20m or 1h means.

        Raises:
            ValueError: something else.
        """
        found = re.fullmatch(r"(\d+)([smh]?)", text)
        if found is None:
            raise ValueError(f"expected a budget such as 500, 90s, 20m or 1h, got '{text}'")
        number, unit = int(found[1]), found[2]
        return Budget(seconds=number * {"s": 1, "m": 60, "h": 3600}[unit]) if unit else Budget(cases=number)


class Campaign:
    """Cases of one kind, of seeds in a row.

    Args:
        kind: its name.
        seed: the first one.
        budget: when to stop.
        seconds: that a case may take.
        keep: folder for shrunk cases; None keeps nothing and shrinks nothing.
        tell: called with a line about each fault; the first of a kind is told with all that is known.
    """

    def __init__(
        self, kind: str, seed: int, budget: Budget, seconds: float, keep: Path | None, tell: Callable[[str], None]
    ) -> None:
        self.kind, self.budget, self.seconds, self.keep, self.tell = kind, budget, seconds, keep, tell
        self.seeds = iter(range(seed, seed + budget.cases)) if budget.cases is not None else itertools.count(seed)
        self.lock, self.summary, self.is_stopped = threading.Lock(), Summary(), False

    def run(self, jobs: int) -> Summary:
        """Run the cases on `jobs` workers; return how they ended. An interrupt lets the cases that run be the last."""
        self.start = time.monotonic()
        with ThreadPoolExecutor(jobs) as pool:
            ends = [pool.submit(self._work) for _ in range(jobs)]
            try:
                for end in ends:
                    end.result()
            except KeyboardInterrupt:
                self.is_stopped = True
        self.summary.seconds = time.monotonic() - self.start
        return self.summary

    def _work(self) -> None:
        worker = Worker(self.seconds)
        try:
            while (seed := self._next_seed()) is not None:
                self._count(seed, worker.draw(self.kind, seed), worker)
        finally:
            worker.close()

    def _next_seed(self) -> int | None:
        with self.lock:
            if self.is_stopped:
                return None
            if self.budget.seconds is not None and time.monotonic() - self.start > self.budget.seconds:
                return None
            return next(self.seeds, None)

    def _count(self, seed: int, result: Result, worker: Worker) -> None:
        with self.lock:
            summary = self.summary
            summary.cases += 1
            if not result.fault:
                summary.ended[result.ended] += 1
                if result.line:
                    summary.refused[blur(result.line)] += 1
                return
            summary.faults[result.fault] += 1
            is_new = summary.faults[result.fault] == 1
        self.tell(f"{self.kind} seed {seed}: {result.fault}" + (f": {result.detail.strip()[-1500:]}" if is_new else ""))
        if is_new and self.keep is not None and result.case is not None:
            path = keep_case(self.keep, self.kind, shrink(worker, self.kind, result))
            with self.lock:
                summary.kept.append(path)


def shrink(worker: Worker, kind: str, result: Result) -> Result:
    """Return the smallest case that was found to end in the same fault."""
    runs, deadline = 0, time.monotonic() + SHRINK_SECONDS
    candidates = iter(_smaller(worker, kind, result))
    while runs < SHRINK_RUNS and time.monotonic() < deadline:
        candidate = next(candidates, None)
        if candidate is None:
            break
        runs += 1
        found = worker.run(kind, candidate)
        if found.fault == result.fault:
            result, candidates = found, iter(_smaller(worker, kind, found))
    return result


def _smaller(worker: Worker, kind: str, result: Result) -> list[Case]:
    assert result.case is not None
    return worker.smaller(kind, result.case)


def keep_case(folder: Path, kind: str, result: Result) -> Path:
    """Write a failing case to a file of its own; equal cases have one name."""
    text = json.dumps({"kind": kind, "fault": result.fault, "case": result.case}, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    path.write_text(text + "\n")
    return path


def read_case(path: Path) -> tuple[str, Case]:
    """Return the kind and the case of a file."""
    values = json.loads(path.read_text())
    return values["kind"], values["case"]


def blur(line: str) -> str:
    """Return a line without what differs from case to case: numbers, quoted names, files."""
    line = re.sub(r"'[^']*'|\"[^\"]*\"", "'..'", line)
    line = re.sub(r"\S*/\S*", "..", line)
    return re.sub(r"[0-9]+", "N", line)[:160]
