"""How many units each weight keeps: one rate for all, single ones' own rates, or a budget for the whole model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from patc.diagnostics import PatcError
from patc.pruning.budget import Budget
from patc.pruning.constraints.base import Constraint

LEAST_SHARE = 0.25  # of a layer's uniform share that it keeps under a global budget


def kept_units(layers: Sequence[Constraint], budget: Budget) -> dict[str, int]:
    """Return how many units each layer keeps, by its name; dense layers are left out.

    Raises:
        PatcError: the compression of the budget is out of the model's reach; the message gives the range.
    """
    budget = solve_compression(layers, budget)
    counts = {layer.name: _kept(layer, budget) for layer in layers if layer.units}
    if budget.allocation == "global":
        shared = [layer for layer in layers if layer.has_rate and layer.name not in budget.own]
        counts |= _allocate(shared, counts) if shared else {}
    return counts


def solve_compression(layers: Sequence[Constraint], budget: Budget) -> Budget:
    """Return the budget with the rate that gives its compression; unchanged without one.

    The number of kept weights is the nearest to all weights / compression that a rate gives.

    Raises:
        PatcError: the compression is out of the model's reach; the message gives the range.
    """
    if budget.compression is None:
        return budget
    compression = budget.compression
    total = sum(layer.site.size for layer in layers)
    most_rate = float(max(2 * layer.units for layer in layers))
    most, least = (_kept_weights(layers, budget, rate) for rate in (1.0, most_rate))
    wanted = total / compression
    # The slack lets the ends of the range be asked for as they are printed.
    if not total / most - 5e-4 <= compression <= total / least + 5e-4:
        raise PatcError(
            f"expected a compression from {total / most:.3f} to {total / least:.3f}, "
            f"which is what this model reaches; found {compression:g}" + (budget.hint if wanted < least else "")
        )
    # The kept weights fall in steps as the rate grows: bisect to the step around what is wanted. The rate without
    # rounding comes first among equals, so that pattern-only means 1 and not 1.008.
    low, high = 1.0, most_rate
    while (middle := (low + high) / 2) not in (low, high):
        if _kept_weights(layers, budget, middle) >= wanted:
            low = middle
        else:
            high = middle
    flexible = sum(
        layer.units * layer.unit_weights for layer in layers if layer.has_rate and layer.name not in budget.own
    )
    unrounded = flexible / max(wanted - (most - flexible), 1.0)
    choices = (min(max(unrounded, 1.0), most_rate), low, high)
    rate = min(choices, key=lambda choice: abs(_kept_weights(layers, budget, choice) - wanted))
    return replace(budget, rate=rate, compression=None)


def _kept(layer: Constraint, budget: Budget) -> int:
    return layer.units_at(budget.own.get(layer.name, budget.rate)) if layer.has_rate else layer.units


def _kept_weights(layers: Sequence[Constraint], budget: Budget, rate: float) -> int:
    budget = replace(budget, rate=rate)
    return sum(layer.fixed_weights + _kept(layer, budget) * layer.unit_weights for layer in layers)


def _allocate(layers: Sequence[Constraint], uniform: Mapping[str, int]) -> dict[str, int]:
    """Return how many units each layer keeps when the units of all compete for as many weights as `uniform` keeps.

    A unit's score is the squared norm that stays with it, over its layer's mean: layers of small weights are as
    important as others. Equal scores are decided for the earlier unit of the earlier layer.
    """
    counts, scores, costs, owners = {}, [], [], []
    budget = 0
    for place, layer in enumerate(layers):
        cost = layer.unit_weights
        least = max(1, math.floor(uniform[layer.name] * LEAST_SHARE))
        budget += (uniform[layer.name] - least) * cost
        counts[layer.name] = least
        best = layer.scores(layer.weight).cpu()
        further = torch.sort(best / best.mean().clamp_min(1e-300), descending=True).values[least:] / cost
        scores.append(further)
        costs.append(torch.full(further.shape, cost))
        owners.append(torch.full(further.shape, place))
    order = torch.sort(torch.cat(scores), descending=True, stable=True).indices
    spent = torch.cat(costs)[order].cumsum(0)
    chosen = torch.bincount(torch.cat(owners)[order][spent <= budget], minlength=len(layers)).tolist()
    return {layer.name: counts[layer.name] + more for layer, more in zip(layers, chosen, strict=True)}
