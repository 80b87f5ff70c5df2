"""How many kernels each layer keeps: one rate for all, single layers' own rates, or a budget for the whole model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from patc.diagnostics import PatcError
from patc.pruning.kernels import PrunedLayer
from patc.pruning.projection import best_patterns
from patc.pruning.spec import PatternSpec

LEAST_SHARE = 0.25  # of a layer's uniform share that it keeps under a global budget


def kept_units(layers: Sequence[PrunedLayer], spec: PatternSpec) -> dict[str, int]:
    """Return how many units each layer keeps, by its name; dense layers are left out.

    Raises:
        PatcError: the compression of the spec is out of the model's reach; the message gives the range.
    """
    spec = solve_compression(layers, spec)
    counts = {layer.name: _kept(layer, spec) for layer in layers if layer.kind != "dense"}
    if spec.allocation == "global":
        own = spec.layer_rates
        shared = [layer for layer in layers if layer.has_connectivity and layer.name not in own]
        counts |= _allocate(shared, counts) if shared else {}
    return counts


def solve_compression(layers: Sequence[PrunedLayer], spec: PatternSpec) -> PatternSpec:
    """Return the spec with the connectivity that gives its compression; unchanged without one.

    The number of kept weights is the nearest to all weights / compression that a connectivity gives.

    Raises:
        PatcError: the compression is out of the model's reach; the message gives the range.
    """
    if spec.compression is None:
        return spec
    rate = spec.compression
    total = sum(layer.weight.numel() for layer in layers)
    most_connectivity = float(max(2 * layer.units for layer in layers))
    most, least = (_kept_weights(layers, spec, c) for c in (1.0, most_connectivity))
    wanted = total / rate
    # The slack lets the ends of the range be asked for as they are printed.
    if not total / most - 5e-4 <= rate <= total / least + 5e-4:
        hint = " (1x1 convolutions stay dense unless pointwise is 'groups')"
        raise PatcError(
            f"expected a compression from {total / most:.3f} to {total / least:.3f}, "
            f"which is what this model reaches; found {rate:g}"
            + (hint if spec.pointwise == "dense" and wanted < least else "")
        )
    # The kept weights fall in steps as connectivity grows: bisect to the step around what is wanted. The
    # rate without rounding comes first among equals, so that pattern-only means 1 and not 1.008.
    low, high = 1.0, most_connectivity
    while (middle := (low + high) / 2) not in (low, high):
        if _kept_weights(layers, spec, middle) >= wanted:
            low = middle
        else:
            high = middle
    own = spec.layer_rates
    flexible = sum(
        layer.units * layer.size * layer.entries for layer in layers if layer.has_connectivity and layer.name not in own
    )
    unrounded = flexible / max(wanted - (most - flexible), 1.0)
    choices = (min(max(unrounded, 1.0), most_connectivity), low, high)
    connectivity = min(choices, key=lambda c: abs(_kept_weights(layers, spec, c) - wanted))
    return replace(spec, connectivity=connectivity, compression=None)


def _kept(layer: PrunedLayer, spec: PatternSpec) -> int:
    if not layer.has_connectivity:
        return layer.units
    return layer.units_at(spec.layer_rates.get(layer.name, spec.connectivity))


def _kept_weights(layers: Sequence[PrunedLayer], spec: PatternSpec, connectivity: float) -> int:
    spec = replace(spec, connectivity=connectivity)
    kept = 0
    for layer in layers:
        kept += layer.weight.numel() - layer.pruned_weights
        if layer.kind != "dense":
            kept += _kept(layer, spec) * layer.size * layer.entries
    return kept


def _allocate(layers: Sequence[PrunedLayer], uniform: Mapping[str, int]) -> dict[str, int]:
    """Return how many units each layer keeps when the units of all compete for as many weights as `uniform` keeps.

    A unit's score is the squared norm under its best pattern, over its layer's mean: layers of small weights are as
    important as others. Equal scores are decided for the earlier unit of the earlier layer.
    """
    counts, scores, costs, owners = {}, [], [], []
    budget = 0
    for place, layer in enumerate(layers):
        cost = layer.size * layer.entries
        least = max(1, math.floor(uniform[layer.name] * LEAST_SHARE))
        budget += (uniform[layer.name] - least) * cost
        counts[layer.name] = least
        best = best_patterns(layer.squares_of(layer.weight), layer.masks)[0].cpu()
        further = torch.sort(best / best.mean().clamp_min(1e-300), descending=True).values[least:] / cost
        scores.append(further)
        costs.append(torch.full(further.shape, cost))
        owners.append(torch.full(further.shape, place))
    order = torch.sort(torch.cat(scores), descending=True, stable=True).indices
    spent = torch.cat(costs)[order].cumsum(0)
    chosen = torch.bincount(torch.cat(owners)[order][spent <= budget], minlength=len(layers)).tolist()
    return {layer.name: counts[layer.name] + more for layer, more in zip(layers, chosen, strict=True)}
