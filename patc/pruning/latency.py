"""The rate of each layer by the time it saves: what costs the least accuracy for the most speed goes first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
from torch import nn

from patc.diagnostics import PatcError
from patc.pruning.constraints.base import Constraint
from patc.pruning.plan import Plan
from patc.pruning.spec import PatternSpec

RATES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)

LayerTime = Callable[[str, float], float]
Target = TypeVar("Target", bound=PatternSpec | Plan)


def choose_rates(
    model: nn.Module, target: Target, layer_time: LayerTime, speedup: float, rates: Sequence[float] = RATES
) -> Target:
    """Return `target` with a rate for every weight such that the prunable ones take 1 / `speedup` of their time.

    That is their time with all units, of patterns without connectivity sparsity. In each step the layer is pruned
    further whose lost share of squared norm is the least for the time that it saves; so a layer that gets no faster
    keeps its units.

    Args:
        target: its compression, allocation and all rates are replaced.
        layer_time: gives the time of a layer, by the name of its weight and a rate of its units; any unit of time.
        speedup: at least 1.
        rates: those to choose from, ascending from 1.

    Raises:
        PatcError: the speedup is out of reach, and the message gives the largest one; or no units can be removed.
    """
    if not (math.isfinite(speedup) and speedup >= 1):
        raise PatcError(f"expected a speedup that is finite and at least 1, found {speedup}")
    layers = [layer for layer in target.with_rates({}, 1.0).constrain(model)[0] if layer.has_rate]
    if not layers:
        raise PatcError("expected a layer from which kernels can be removed, found none")
    times = {layer.name: [layer_time(layer.name, rate) for rate in rates] for layer in layers}
    lost = {layer.name: _lost_shares(layer, rates) for layer in layers}
    everything = sum(line[0] for line in times.values())
    least = sum(min(line) for line in times.values())
    if least * speedup > everything * (1 + 1e-9):
        raise PatcError(f"expected a speedup up to {everything / least:.2f} for this model, found {speedup:g}")
    place = dict.fromkeys(times, 0)
    while sum(times[name][at] for name, at in place.items()) * speedup > everything * (1 + 1e-9):
        name, step = min(_steps(times, lost, place), key=lambda move: move[0])[1:]
        place[name] = step
    chosen = {name: rates[at] for name, at in place.items()}
    return cast("Target", target.with_rates(chosen, 1.0))


def _steps(
    times: dict[str, list[float]], lost: dict[str, list[float]], place: dict[str, int]
) -> list[tuple[float, str, int]]:
    """Return (loss over saved time, layer, rate's number) of every move to a higher rate that saves time."""
    return [
        ((lost[name][to] - lost[name][at]) / (times[name][at] - times[name][to]), name, to)
        for name, at in place.items()
        for to in range(at + 1, len(times[name]))
        if times[name][to] < times[name][at]
    ]


def _lost_shares(layer: Constraint, rates: Sequence[float]) -> list[float]:
    """Return the share of a layer's squared norm in its units that goes with each rate."""
    best = torch.sort(layer.scores(layer.weight), descending=True).values
    kept = best.cumsum(0) / best.sum().clamp_min(1e-300)
    return [1 - float(kept[layer.units_at(rate) - 1]) for rate in rates]
