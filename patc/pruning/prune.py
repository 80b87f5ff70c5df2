"""One-shot pruning: the nearest weights of a target's structure, by magnitude.

This is the projection of the paper's ADMM (section 6.1), usable on its own: of patterns, give each kernel the one that
keeps the most of its squared norm, then keep the kernels of the largest squared norm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from patc.pruning.budget import Budget
from patc.pruning.constraints.base import Constraint
from patc.pruning.plan import Plan
from patc.pruning.rates import kept_units, solve_compression
from patc.pruning.report import PruneReport
from patc.pruning.sites import check_weight
from patc.pruning.spec import PatternSpec


@torch.no_grad()
def prune_(model: nn.Module, target: PatternSpec | Plan) -> PruneReport:
    """Prune the weights of `model` in place to what `target` says.

    A `Plan` says which layers get which scheme. Of a `PatternSpec`, prunable are 3x3 convolutions with groups=1, 1x1
    ones if its `pointwise` is "groups", depthwise ones if `depthwise` is "pattern" and 5x5 ones if `library_5x5` is
    given. The first convolution of the model, in the order of its modules, follows `first_layer`. All others stay
    dense. Kept weights keep their bits unless they are put on levels, the others become +0. Equal magnitudes are
    decided for the earlier pattern of the library and for the earlier kernel in the order (filter, input channel), so
    equal weights always give equal results.

    Each layer keeps units / rate of its units (kernels / connectivity of its kernels), rounded to a whole one (or group
    of kernels with filter_group) and at least one; one that is zero anyway is never counted as kept.

    Raises:
        PatcError: no layer is prunable, a weight is not finite or not a plain parameter, or the model
            cannot reach the requested compression. The model is then unchanged.
    """
    constraints, budget = target.constrain(model)
    for constraint in constraints:
        if constraint.units:
            check_weight(constraint.site)
    budget = solve_compression(constraints, budget)
    keep = kept_units(constraints, budget)
    for constraint in constraints:
        if constraint.units:
            constraint.weight.copy_(constraint.nearest(constraint.weight, keep[constraint.name]))
    return report_of(target, budget, constraints, keep)


def resolve(model: nn.Module, spec: PatternSpec) -> PatternSpec:
    """Return `spec` with the connectivity that gives `model` its compression; unchanged without one.

    Raises:
        PatcError: no layer is prunable, or the compression is out of reach; the message gives the range.
    """
    budget = solve_compression(*spec.constrain(model))
    return spec if spec.compression is None else replace(spec, connectivity=budget.rate, compression=None)


def report_of(
    target: PatternSpec | Plan, budget: Budget, constraints: Sequence[Constraint], keep: Mapping[str, int]
) -> PruneReport:
    """Return what was kept of a model that is pruned to a target."""
    library = target.masks if isinstance(target, PatternSpec) else ()
    layers = tuple(constraint.report(keep.get(constraint.name, 0)) for constraint in constraints)
    return PruneReport(library, budget.rate, layers)
