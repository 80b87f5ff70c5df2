"""`patc calibrate --check`: the cost model's times, and its choices, beside measured ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from patc.calibration.held_out import LAYERS, HeldOut, build
from patc.compiler import host_pipeline, lower_model
from patc.dialects.schedules import Schedule
from patc.instruments import Instrument
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.targets import Target, require_runnable
from patc.tuning import isolate, time_candidates

CLOSE = 1.05  # times the best that was measured


@dataclass(frozen=True)
class Checked:
    """A layer, with what the model says of the schedule that it chooses, and what was measured.

    Attributes:
        layer: that was computed.
        chosen, best: by the model, and the fastest of those measured.
        modelled: seconds of `chosen`.
        measured: seconds of `chosen`.
        least: seconds of `best`.
    """

    layer: HeldOut
    chosen: Schedule
    best: Schedule
    modelled: float
    measured: float
    least: float

    @property
    def error(self) -> float:
        """By how much the model's time is off, as a part of the smaller one of the two."""
        return max(self.modelled / self.measured, self.measured / self.modelled) - 1

    @property
    def is_close(self) -> bool:
        """Whether the choice is nearly as fast as the best."""
        return self.measured <= CLOSE * self.least


def check(
    target: Target,
    clock_hz: float,
    notify: Callable[[str], None] = lambda _: None,
    instruments: Sequence[Instrument] = (),
    layers: Sequence[HeldOut] = LAYERS,
) -> list[Checked]:
    """Measure each layer as the schedules that are best by the model compute it, on one core.

    Args:
        target: whose code this machine runs.
        clock_hz: cycles of a core in a second.
        notify: called with each layer before it is measured.
        instruments: told about the passes.

    Raises:
        PatcError: this machine does not run code for the target.
    """
    require_runnable(target)
    found: list[list[tuple[Candidate, float]]] = []

    def measure(op: Any, candidates: Sequence[Candidate], state: PassState) -> list[float]:
        notify(str(layers[len(found)]))
        seconds = time_candidates(isolate(op, candidates, state), 1, target)
        found.append(list(zip(candidates, seconds, strict=True)))
        return seconds

    module, inputs = build(layers)
    pipeline = host_pipeline(target, 1).until("schedule")
    lower_model(module, inputs, pipeline, measure, instruments)
    return [_judge(layer, ways, clock_hz) for layer, ways in zip(layers, found, strict=True)]


def _judge(layer: HeldOut, ways: Sequence[tuple[Candidate, float]], clock_hz: float) -> Checked:
    chosen, measured = min(ways, key=lambda way: way[0].cost)
    best, least = min(ways, key=lambda way: way[1])
    return Checked(layer, chosen.schedule, best.schedule, chosen.cycles / clock_hz, measured, least)
