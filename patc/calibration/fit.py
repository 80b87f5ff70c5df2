"""Costs that no loop of one kind of instruction shows: fitted to the times of layers, each computed in several ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from patc.calibration.held_out import SCATTERED, HeldOut, build
from patc.compiler import host_pipeline, lower_model
from patc.costs import CoreCosts
from patc.dialects.schedules import Schedule
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.pattern_schedule import ways_of
from patc.targets import Target
from patc.tuning import compile_candidates, isolate, time_compiled

# Of all kinds, none of those that a check holds out, and small: the first passes over them take most of the time.
LAYERS = (
    HeldOut(3, 32, 112, 3, 2),
    HeldOut(64, 64, 28),
    HeldOut(128, 128, 14),
    HeldOut(64, 128, 28, 3, 2),
    HeldOut(32, 32, 28, 5),
    HeldOut(64, 256, 28, 1),
    HeldOut(256, 64, 28, 1),
    HeldOut(512, 128, 14, 1),
    HeldOut(96, 96, 56, 3, 1, 96),
    HeldOut(192, 192, 28, 3, 2, 192),
    HeldOut(64, 64, 56, pruned=2.0),
    HeldOut(128, 128, 28, pruned=4.0),
    HeldOut(256, 256, 14, pruned=4.0),
    HeldOut(64, 128, 28, 3, 2, pruned=4.0),
    HeldOut(256, 128, 14, 1, pruned=2.0),
    HeldOut(64, 64, 28, pruned=SCATTERED),
)
# What is fitted, with what is tried first where it is nothing.
FITTED = {
    "sustained_fma": 1.0,
    "contention": 0.1,
    "panel_cycles": 0.5,
    "copied_cycles": 1.0,
    "transform_operation": 1.0,
    "product_cycles": 0.5,
    "crossing_loads": 2.0,
    "store_cycles": 0.5,
    "wide_shift_cycles": 0.1,
    "loop_entry_cycles": 1.0,
    "mispredicted_cycles": 10.0,
    "kernel_cycles": 1.0,
    "first_level_bytes": 20480.0,
    "line_cycles": 1.0,
    "streamed_lines": 0.3,
    "written_line_cycles": 1.0,
    "prefetched_line_cycles": 2.0,
    "exposed_stream": 0.3,
    "exposed_weights": 0.3,
    "stationary_fma": 0.7,
    "stationary_sums": 0.3,
    "stationary_inputs": 0.03,
    "stationary_packs": 0.3,
    "stationary_beside": 0.2,
    "stationary_far": 0.2,
    "stationary_ends_cycles": 10.0,
}
LARGEST = {"sustained_fma": 1.0, "streamed_lines": 1.0, "exposed_stream": 1.0, "exposed_weights": 1.0}
USABLE = 3, 4  # of the first-level cache at most: weights and outputs take the rest
ROUNDS = 4  # of all costs
STEP, NEXT = 1.5, 0.6  # a factor, and what is left of the part over 1 once neither direction helps
LEAST = 0.01  # part of the loss that a step has to win: what wins less is noise
NEAR, FAR = 1.3, 2.0  # times the fastest way: ways that count whole, and half
REST = 0.15  # that slower ones count
BOUND = 1.0  # of the logarithm of an error: a way that the model does not understand is one of many


@dataclass(frozen=True)
class Timed:
    """A layer with the seconds of some ways to compute it.

    Attributes:
        op, state: of a module that lives, to ask algorithms.
        seconds: by schedules.
    """

    op: Any
    state: PassState
    seconds: Mapping[Schedule, float]

    def loss(self, target: Target, clock_hz: float) -> float:
        """Return how far the model of a target is off on these ways, and how much slower its choice is than the best,
        as logarithms."""
        cycles = {way.schedule: way for way in ways_of(self.op, target, self.state)}
        ways = [(cycles[schedule], seconds) for schedule, seconds in self.seconds.items() if schedule in cycles]
        if not ways:
            return BOUND
        least = min(seconds for _, seconds in ways)
        weights = [_weight(seconds / least) for _, seconds in ways]
        errors = (_error(way, seconds, clock_hz) for way, seconds in ways)
        error = sum(weight * each for weight, each in zip(weights, errors, strict=True)) / sum(weights)
        _, chosen = min(ways, key=lambda way: way[0].cost)
        return error + min(BOUND, math.log(chosen / least))


def _weight(times: float) -> float:
    return 1.0 if times < NEAR else 0.5 if times < FAR else REST


def _error(way: Candidate, seconds: float, clock_hz: float) -> float:
    return min(BOUND, abs(math.log(max(way.cycles, 1.0) / clock_hz / seconds)))


@dataclass
class TimedLayers:
    """Layers that were timed, and the module that their ops live in as long as it does."""

    module: Any
    layers: list[Timed] = field(default_factory=list)


def time_layers(
    target: Target, layers: Sequence[HeldOut] = LAYERS, notify: Callable[[str], None] = lambda _: None
) -> TimedLayers:
    """Time each layer in the ways that are best by the model, on one core.

    All are timed twice, one after the other, and the faster time counts: what others do on the machine for a second
    meets one of the two.
    """
    taken: list[tuple[Any, PassState, list[Schedule], Any, list[float]]] = []

    def measure(op: Any, candidates: Sequence[Candidate], state: PassState) -> list[float]:
        notify(f"timing {layers[len(taken)]}")
        layer = isolate(op, candidates, state)
        program = compile_candidates(layer, 1, target)
        seconds = time_compiled(program, layer)
        taken.append((op, state, [candidate.schedule for candidate in candidates], (program, layer), seconds))
        return seconds

    built, inputs = build(layers)
    module, _ = lower_model(built, inputs, host_pipeline(target, 1).until("schedule"), measure)
    found = TimedLayers(module)
    for (op, state, schedules, again, first), name in zip(taken, layers, strict=True):
        notify(f"timing {name} again")
        seconds = map(min, first, time_compiled(*again))
        found.layers.append(Timed(op, state, dict(zip(schedules, seconds, strict=True))))
    return found


def fit(timed: TimedLayers, target: Target, clock_hz: float, starts: Sequence[CoreCosts]) -> CoreCosts:
    """Return the costs by which the model of a target is nearest to what was measured, found by descent from the
    nearest of the starts, one cost after the other.

    Args:
        clock_hz: cycles of a core in a second.
    """

    def losses(costs: CoreCosts, of: Sequence[int]) -> dict[int, float]:
        priced = replace(target, costs=costs)
        return {number: timed.layers[number].loss(priced, clock_hz) for number in of}

    everything = range(len(timed.layers))
    best = min(starts, key=lambda start: sum(losses(start, everything).values()))
    # Layers that a cost means something to, once it is known.
    touched: dict[str, Sequence[int]] = {}
    steps = dict.fromkeys(FITTED, STEP)
    for _ in range(ROUNDS):
        current = losses(best, everything)  # of layers that a cost means something to only since others changed, too
        for name in FITTED:
            for value in _trials(name, best, steps[name]):
                # `_trials` yields what the field holds, which the type of a dict of fields cannot say.
                tried = replace(best, **{name: value})  # type: ignore[arg-type]
                new = losses(tried, touched.get(name, everything))
                changed = [number for number, loss in new.items() if loss != current[number]]
                touched.setdefault(name, changed)
                won = sum(current[number] - new[number] for number in changed)
                if won > LEAST * sum(current.values()):
                    best, current = tried, {**current, **new}
                    break
            else:
                steps[name] = 1 + NEXT * (steps[name] - 1)
    return best


_WHOLE = {item.name for item in fields(CoreCosts) if item.type == "int"}


def _trials(name: str, costs: CoreCosts, step: float) -> Iterator[float]:
    """Yield the values of a cost that are tried in place of its own."""
    value, most = getattr(costs, name), LARGEST.get(name, math.inf)
    if name == "first_level_bytes":
        most = costs.first_level_ways * costs.way_bytes * USABLE[0] // USABLE[1]
    for trial in (value * step, value / step) if value else (FITTED[name],):
        if (bounded := min(trial, most)) != value:
            yield round(bounded) if name in _WHOLE else float(f"{bounded:.3g}")
