"""Costs that are fitted to times of layers; these times are those of a model, so that nothing here depends on time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from patc.calibration import fit as fitting
from patc.calibration import held_out, layers
from patc.calibration.fit import FITTED, LARGEST, TimedLayers, fit, time_layers
from patc.calibration.held_out import HeldOut
from patc.calibration.measure import Core
from patc.costs import CoreCosts
from patc.cpus import X86, fitted_rows
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.pattern_schedule import ways_of
from patc.targets import X86_64_V3, Target, uncalibrated_host

CLOCK = 2e9
SMALL = (HeldOut(8, 16, 8, 1), HeldOut(8, 8, 8, pruned=2.0))
TRUTH = replace(X86_64_V3.core_costs(), sustained_fma=0.6, contention=0.3, stationary_fma=1.5)


@pytest.fixture
def as_modelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed takes what a model with the costs TRUTH says; nothing is compiled."""

    def isolate(op: Any, candidates: Sequence[Candidate], state: PassState) -> Any:
        known = {way.schedule: way.cycles for way in ways_of(op, replace(X86_64_V3, costs=TRUTH), state)}
        return [known[candidate.schedule] / CLOCK for candidate in candidates]

    monkeypatch.setattr(fitting, "ROUNDS", 2)
    monkeypatch.setattr(fitting, "isolate", isolate)
    monkeypatch.setattr(fitting, "compile_candidates", lambda layer, threads, target: None)
    monkeypatch.setattr(fitting, "time_compiled", lambda model, layer: layer)


def loss(timed: TimedLayers, costs: CoreCosts) -> float:
    return sum(layer.loss(replace(X86_64_V3, costs=costs), CLOCK) for layer in timed.layers)


@pytest.mark.usefixtures("as_modelled")
def test_costs_come_near_to_those_that_made_the_times() -> None:
    said: list[str] = []
    timed = time_layers(X86_64_V3, SMALL, said.append)
    assert said == [f"timing {layer}{again}" for again in ("", " again") for layer in SMALL]
    own = X86_64_V3.core_costs()
    found = fit(timed, X86_64_V3, CLOCK, [own])
    assert loss(timed, TRUTH) == pytest.approx(0.0) and loss(timed, found) < loss(timed, own) / 3
    same = {name: value for name, value in vars(found).items() if name not in FITTED}
    assert same == {name: value for name, value in vars(own).items() if name not in FITTED}
    assert all(getattr(found, name) <= most for name, most in LARGEST.items())


@pytest.mark.usefixtures("as_modelled")
def test_the_nearest_start_is_taken() -> None:
    timed = time_layers(X86_64_V3, SMALL[:1])
    found = fit(timed, X86_64_V3, CLOCK, [X86_64_V3.core_costs(), TRUTH])
    assert found == TRUTH  # nothing is better


def test_a_fit_says_nothing_of_layers_that_are_held_out() -> None:
    assert not set(fitting.LAYERS) & set(held_out.LAYERS)
    assert FITTED.keys() <= vars(CoreCosts()).keys() and LARGEST.keys() <= FITTED.keys()
    assert X86["sapphirerapids"].fitted in fitted_rows(16) and all(len(row) > 1 for row in fitted_rows(16))


@pytest.mark.parametrize("fitted", [True, False])
def test_only_cpus_that_nobody_fitted_are(fitted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    target, costs = uncalibrated_host(), CoreCosts(contention=0.125)
    core = Core({"line_cycles": 1.5, "crossing_loads": 2.5}, 2e9, is_shared=False)

    def found(timed: str, target: Target, clock_hz: float, starts: Sequence[CoreCosts]) -> CoreCosts:
        assert (timed, clock_hz) == ("times", 2e9)
        assert all((start.line_cycles, start.crossing_loads) == (1.5, 2.5) for start in starts)
        return costs

    monkeypatch.setattr(layers, "measure_core", lambda target, level2: core)
    monkeypatch.setattr(layers, "fitted_costs", lambda target: {"contention", "line_cycles"} if fitted else set())
    monkeypatch.setattr(layers, "time_layers", lambda target, notify: "times")
    monkeypatch.setattr(layers, "fit", found)
    calibration = layers.calibrate(target)
    if fitted:
        assert calibration.values == {"crossing_loads": 2.5}
    else:
        assert calibration.apply(target).costs == costs
