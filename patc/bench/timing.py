"""Timing several contestants in one run, in turns, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from patc.diagnostics import PatcError

CALLS_PER_ROUND = 4
# Long enough for threads that spin after a parallel region to go to sleep before the next contestant's turn.
PAUSE_SECONDS = 0.01
# What copies do together takes at least this long, so that they do not start at quite the same time counts little.
TOGETHER_SECONDS = 0.02


class Contestant(Protocol):
    """Something that can be timed."""

    def run(self, calls: int) -> list[float]:
        """Make one call that does not count and `calls` that do; return the seconds of these."""
        ...


@dataclass(frozen=True)
class Repeated:
    """A call to be timed, in this process."""

    call: Callable[[], Any]

    def run(self, calls: int) -> list[float]:
        """As `Contestant.run`."""
        return time_calls(self.call, calls)


@dataclass(frozen=True)
class Bound:
    """A contestant whose calls run on one core."""

    contestant: Contestant
    core: int

    def run(self, calls: int) -> list[float]:
        """As `Contestant.run`; the calling thread stays on the core."""
        keep_on_core(0, self.core)
        return self.contestant.run(calls)


class Together:
    """Copies of a contestant that run at the same time.

    A call of theirs takes the time in which all copies together make one: of two equal ones half as long as a call. It
    is the mean of as many as take `TOGETHER_SECONDS`.
    """

    def __init__(self, copies: Sequence[Contestant]) -> None:
        self._copies = copies
        self._counted = 0

    def run(self, calls: int) -> list[float]:
        """As `Contestant.run`."""
        with ThreadPoolExecutor(len(self._copies)) as pool:
            if not self._counted:
                first = list(pool.map(lambda copy: copy.run(CALLS_PER_ROUND), self._copies))
                self._counted = max(1, math.ceil(TOGETHER_SECONDS / float(np.median(first))))
            found = list(pool.map(lambda copy: copy.run(calls * self._counted), self._copies))
        means = np.reshape(found, (len(found), calls, self._counted)).mean(axis=2)
        return [float(seconds) for seconds in 1 / (1 / means).sum(axis=0)]


def keep_on_core(process: int, core: int) -> None:
    """Keep a process, 0 for the calling thread, on a core, where the system lets it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process, {core})


@dataclass(frozen=True)
class Times:
    """The seconds of all calls of one contestant, in rounds."""

    rounds: tuple[tuple[float, ...], ...]

    @property
    def samples(self) -> list[float]:
        """The seconds of each call."""
        return [seconds for round_ in self.rounds for seconds in round_]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return float(np.median(self.samples))

    @property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartile in seconds."""
        low, high = np.percentile(self.samples, (25, 75))
        return float(low), float(high)

    @property
    def spread(self) -> float:
        """Distance of the quartiles as a part of the median."""
        low, high = self.quartiles
        return (high - low) / self.median

    def to_json(self) -> dict[str, Any]:
        """Return the statistics and every sample, in seconds."""
        low, high = self.quartiles
        return {
            "count": len(self.samples),
            "median_seconds": self.median,
            "lower_quartile_seconds": low,
            "upper_quartile_seconds": high,
            "minimum_seconds": min(self.samples),
            "samples_seconds": self.samples,
        }


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one contestant is: ratio of medians, and quartiles of the rounds' ratios."""

    median: float
    lower: float
    upper: float

    @staticmethod
    def of(slow: Times, fast: Times) -> Ratio:
        """Return the times of `slow` over those of `fast`; rounds are paired, as they were timed in turns."""
        pairs = zip(slow.rounds, fast.rounds, strict=True)
        ratios = [float(np.median(one) / np.median(other)) for one, other in pairs]
        lower, upper = np.percentile(ratios, (25, 75))
        return Ratio(slow.median / fast.median, float(lower), float(upper))

    def to_json(self) -> dict[str, float]:
        """Return the ratios as JSON values."""
        return {"median": self.median, "lower_quartile": self.lower, "upper_quartile": self.upper}

    def __str__(self) -> str:
        return f"{self.median:.2f}x"


def split_rounds(repetitions: int) -> list[int]:
    """Return the counted calls of each round: `CALLS_PER_ROUND`, and what is left in the last one."""
    whole, rest = divmod(repetitions, CALLS_PER_ROUND)
    return [CALLS_PER_ROUND] * whole + [rest] * (rest > 0)


def take_turns(
    contestants: Sequence[Contestant],
    repetitions: int,
    on_round: Callable[[int, int], None] | None = None,
) -> list[Times | PatcError]:
    """Time every contestant `repetitions` times, in rounds: A B C A B C ...

    Each contestant's turn starts with a call that does not count: the others have taken the caches meanwhile.

    Args:
        on_round: told the number of the round and how many there are.

    Returns:
        The times of each contestant, or the error of one that failed and was left out from then on.
    """
    calls = split_rounds(repetitions)
    rounds: list[list[tuple[float, ...]]] = [[] for _ in contestants]
    errors: dict[int, PatcError] = {}
    for number, count in enumerate(calls):
        if on_round is not None:
            on_round(number, len(calls))
        for place, contestant in enumerate(contestants):
            if place in errors:
                continue
            time.sleep(PAUSE_SECONDS)
            try:
                rounds[place].append(tuple(contestant.run(count)))
            except PatcError as error:
                errors[place] = error
    return [errors.get(place) or Times(tuple(done)) for place, done in enumerate(rounds)]


def time_calls(call: Callable[[], Any], count: int) -> list[float]:
    """Call once to warm up, then `count` times; return the seconds of each of these calls."""
    call()
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds
