"""The convolutions of a model as patterns see them: which take part, and how."""

from __future__ import annotations

import math

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from patc.diagnostics import PatcError
from patc.pruning.constraints.base import Constraint, Dense
from patc.pruning.constraints.patterns import Kind, PatternConstraint
from patc.pruning.libraries import TAPS
from patc.pruning.sites import Site, find_sites
from patc.pruning.spec import PatternSpec
from patc.pruning.windows import MOST_TAPS, Window


def find_layers(model: nn.Module, spec: PatternSpec) -> list[Constraint]:
    """Return all convolutions of the model, in the order of its modules; the first one obeys `spec.first_layer`.

    Raises:
        PatcError: none of them is prunable, or `spec.rates` names one that is not.
    """
    sites = [site for site in find_sites(model) if site.role == "conv"]
    found = [constrain(site, spec, is_first=not place) for place, site in enumerate(sites)]
    layers: list[Constraint] = [each or Dense(site) for each, site in zip(found, sites, strict=True)]
    if not any(layer.units for layer in layers):
        raise PatcError(
            f"expected a model with a prunable convolution ({describe_prunable(spec)}), "
            f"found none among {len(layers)} convolutions"
        )
    _check_rates(layers, spec)
    return layers


def constrain(site: Site, spec: PatternSpec, is_first: bool = False) -> PatternConstraint | None:
    """Return what a spec makes of a convolution; None if it stays dense.

    Args:
        is_first: whether it is the model's first convolution.
    """
    module = site.module
    assert isinstance(module, _ConvNd), module
    window = _window(module)
    if window is None or (is_first and spec.first_layer == "dense"):
        return None
    is_depthwise = module.groups > 1 and module.groups == module.in_channels
    if module.groups > 1 and not (is_depthwise and spec.depthwise == "pattern"):
        return None
    size = spec.filter_group if module.out_channels % spec.filter_group == 0 else 1
    pattern_only = is_first and spec.first_layer == "pattern"
    if window.taps > 1:
        masks = spec.masks if isinstance(module, nn.Conv2d) and window.kernel == (3, 3) else spec.masks_of(window)
        if not masks or (spec.kernels == "3x3" and not isinstance(module, nn.Conv2d)):
            return None
        if is_depthwise:
            return PatternConstraint(site, "depthwise", masks, window, columns=1, size=1, is_balanced=spec.balanced)
        kind: Kind = "pattern-only" if pattern_only else "pattern"
        return PatternConstraint(site, kind, masks, window, module.in_channels, size, spec.balanced)
    groups = module.in_channels // TAPS
    may_group = spec.pointwise == "groups" and not pattern_only and not is_depthwise
    is_plain = isinstance(module, nn.Conv2d) or (spec.kernels == "all" and isinstance(module, nn.Conv1d))
    if is_plain and groups > 0 and may_group:
        return PatternConstraint(site, "pointwise-groups", spec.masks, Window((3, 3)), groups, size, spec.balanced)
    return None


def describe_prunable(spec: PatternSpec) -> str:
    """Return which kernels a spec gives patterns, in words."""
    sizes = ["3x3"] + ["5x5"] * (spec.library_5x5 is not None) + ["1x1"] * (spec.pointwise == "groups")
    if spec.kernels == "all":
        sizes = [f"2 to {MOST_TAPS} taps"] + ["1x1"] * (spec.pointwise == "groups")
    groups = "groups=1 or depthwise" if spec.depthwise == "pattern" else "groups=1"
    return f"{' or '.join(sizes)}, {groups}"


def _window(module: _ConvNd) -> Window | None:
    """Return the window of a convolution; None of one that never has patterns."""
    if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)):
        return None
    sizes = [module.kernel_size, module.stride, module.dilation]
    (height, width), strides, dilations = ((1,) * (2 - len(size)) + tuple(size) for size in sizes)
    if height * width > MOST_TAPS:
        return None
    if not isinstance(module, _ConvTransposeNd):
        return Window((height, width))
    steps = [stride // math.gcd(stride, apart) for stride, apart in zip(strides, dilations, strict=True)]
    return Window((height, width), (steps[0], steps[1]))


def _check_rates(layers: list[Constraint], spec: PatternSpec) -> None:
    flexible = {layer.name for layer in layers if layer.has_rate}
    for name in spec.layer_rates:
        if name not in flexible:
            known = {layer.name: layer.kind for layer in layers}
            found = f"a layer that is {known[name]}" if name in known else "no convolution of that name"
            raise PatcError(f"expected a layer with connectivity sparsity in rates, found {found}", name)
