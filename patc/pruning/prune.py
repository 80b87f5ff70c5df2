"""One-shot pruning: the nearest pattern-sparse weights, by magnitude.

This is the projection of the paper's ADMM (section 6.1), usable on its own: give each kernel the pattern
that keeps the most of its squared norm, then keep the kernels of the largest squared norm.
"""

from __future__ import annotations

import torch
from torch import nn

from patc.pruning.kernels import check_weight, find_layers
from patc.pruning.projection import keep_mask, project
from patc.pruning.rates import kept_units, solve_compression
from patc.pruning.report import PruneReport
from patc.pruning.spec import PatternSpec


@torch.no_grad()
def prune_(model: nn.Module, spec: PatternSpec) -> PruneReport:
    """Prune the convolutions of `model` in place to the library and rate of `spec`.

    Prunable are 3x3 convolutions with groups=1, 1x1 ones if `spec.pointwise` is "groups", depthwise ones if
    `spec.depthwise` is "pattern" and 5x5 ones if `spec.library_5x5` is given. The first
    convolution of the model, in the order of its modules, follows `spec.first_layer`. All others stay
    dense. Kept weights keep their bits, the others become +0. Equal magnitudes are decided for the
    earlier pattern of the library and for the earlier kernel in the order (filter, input channel), so
    equal weights always give equal results.

    Each layer keeps kernels / connectivity of its kernels, rounded to a whole kernel (or group of kernels
    with filter_group) and at least one; a kernel that is zero anyway is never counted as kept.

    Raises:
        PatcError: no layer is prunable, a weight is not finite or not a plain parameter, or the model
            cannot reach the requested compression. The model is then unchanged.
    """
    layers = find_layers(model, spec)
    for layer in layers:
        check_weight(layer)
    spec = solve_compression(layers, spec)
    keep = kept_units(layers, spec)
    reports = []
    for layer in layers:
        if layer.kind == "dense":
            reports.append(layer.report())
            continue
        choice = project(layer, layer.weight, keep[layer.name], spec.balanced)
        # Filled, not multiplied: a product would leave negative zeros.
        layer.weight.masked_fill_(~keep_mask(layer, choice), 0.0)
        reports.append(layer.report(choice.patterns[choice.kept]))
    return PruneReport(spec.masks, spec.connectivity, tuple(reports))


def resolve(model: nn.Module, spec: PatternSpec) -> PatternSpec:
    """Return `spec` with the connectivity that gives `model` its compression; unchanged without one.

    Raises:
        PatcError: no layer is prunable, or the compression is out of reach; the message gives the range.
    """
    return solve_compression(find_layers(model, spec), spec)
