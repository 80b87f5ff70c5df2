"""The convolutions of a model as pruning sees them: which take part, and their weights as kernels."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from patc.diagnostics import PatcError
from patc.pruning.libraries import TAPS, Library, entries
from patc.pruning.report import Kind, LayerReport
from patc.pruning.spec import PatternSpec


@dataclass(frozen=True)
class PrunedLayer:
    """A convolution and what the spec makes of it.

    A unit is what is kept or removed as a whole and has one pattern: a kernel, or the kernels of `size` neighbouring
    filters on one input channel. `columns` is the number of kernels seen in one filter: its input channels, or for
    a 1x1 convolution its whole groups of nine.

    Attributes:
        name: of the module in the model.
        masks: the library of the layer's kernels; none if it is dense.
        taps: of a kernel, 9 or 25.
    """

    name: str
    module: _ConvNd
    kind: Kind
    masks: Library
    taps: int
    columns: int
    size: int

    @property
    def weight(self) -> Tensor:
        """The parameter, also where a parametrization computes what the module multiplies by."""
        if parametrize.is_parametrized(self.module, "weight"):
            return self.module.parametrizations.weight.original
        return self.module.weight

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Of the weight: filters, input channels / groups, height, width."""
        return tuple(self.weight.shape)

    @property
    def rows(self) -> int:
        """Groups of filters: a layer has rows x columns units."""
        return self.shape[0] // self.size

    @property
    def units(self) -> int:
        return self.rows * self.columns

    @property
    def entries(self) -> int:
        """Kept weights of a kept kernel."""
        return entries(self.masks)

    @property
    def bits(self) -> Tensor:
        """Which taps each pattern of the library holds: bool (patterns, taps)."""
        bits = [[mask >> tap & 1 for tap in range(self.taps)] for mask in self.masks]
        return torch.tensor(bits, dtype=torch.bool, device=self.weight.device)

    @property
    def has_connectivity(self) -> bool:
        return self.kind in ("pattern", "pointwise-groups")

    @property
    def pruned_weights(self) -> int:
        """Weights that take part; the rest of the layer stays dense."""
        return self.units * self.size * self.taps

    def units_at(self, connectivity: float) -> int:
        """Return how many units a connectivity keeps: to the nearest, and at least one."""
        return max(1, math.floor(self.units / connectivity + 0.5))

    def units_of(self, weight: Tensor) -> Tensor:
        """Return the kernels of a tensor of the weight's shape: (rows, size, columns, taps)."""
        filters = self.shape[0]
        flat = weight.reshape(filters, -1)[:, : self.columns * self.taps]
        return flat.reshape(self.rows, self.size, self.columns, self.taps)

    def squares_of(self, weight: Tensor) -> Tensor:
        """Return the squared weights as float64 (units, taps), summed over the filters that share a pattern."""
        # A square of a float32 is exact in float64 and cannot underflow or overflow there.
        return self.units_of(weight.detach().double().square()).sum(1).reshape(-1, self.taps)

    def mask_of(self, unit_mask: Tensor) -> Tensor:
        """Return which weights stay (bool, the weight's shape) for which taps of the units do (units, taps).

        What is in no unit stays, as the channels of a 1x1 convolution beyond the last nine.
        """
        filters = self.shape[0]
        mask = torch.ones(self.shape, dtype=torch.bool, device=unit_mask.device).reshape(filters, -1)
        filter_mask = unit_mask.reshape(self.rows, self.columns * self.taps)
        mask[:, : self.columns * self.taps] = filter_mask.repeat_interleave(self.size, dim=0)
        return mask.reshape(self.shape)

    def report(self, kept_patterns: Tensor | None = None) -> LayerReport:
        """Return what was kept, given the numbers of the patterns of the kept units (int64); None for a dense layer."""
        shape, weights = self.shape, self.weight.numel()
        if kept_patterns is None:
            kernels = shape[0] * shape[1]
            return LayerReport(self.name, shape, "dense", kernels, kernels, weights, weights, {})
        counts = (torch.bincount(kept_patterns, minlength=len(self.masks)) * self.size).tolist()
        return LayerReport(
            name=self.name,
            shape=shape,
            kind=self.kind,
            kernels=self.units * self.size,
            kept_kernels=sum(counts),
            weights=weights,
            kept_weights=weights - self.pruned_weights + sum(counts) * self.entries,
            histogram=dict(zip(self.masks, counts, strict=True)),
        )


def find_layers(model: nn.Module, spec: PatternSpec) -> list[PrunedLayer]:
    """Return all convolutions of the model, in the order of its modules; the first one obeys `spec.first_layer`.

    Raises:
        PatcError: none of them is prunable, or `spec.rates` names one that is not.
    """
    layers: list[PrunedLayer] = []
    for name, module in model.named_modules():
        if isinstance(module, _ConvNd):
            layers.append(_classify(name, module, spec, is_first=not layers))
    if all(layer.kind == "dense" for layer in layers):
        raise PatcError(
            f"expected a model with a prunable convolution ({_describe_prunable(spec)}), "
            f"found none among {len(layers)} convolutions"
        )
    _check_rates(layers, spec)
    return layers


def check_weight(layer: PrunedLayer) -> None:
    """Refuse a layer whose weight cannot be pruned in place or is not finite.

    Raises:
        PatcError: the weight is not a plain parameter, or holds NaN or infinities.
    """
    if layer.kind == "dense":
        return
    # A parametrized weight, or one under torch.nn.utils.prune, is computed anew from other tensors: what
    # is written to it would be lost.
    if layer.module._parameters.get("weight") is None:
        raise PatcError("expected 'weight' to be a parameter, found a computed tensor", layer.name)
    check_finite(layer)


def check_finite(layer: PrunedLayer) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        PatcError: how many there are.
    """
    wrong = int((~torch.isfinite(layer.weight)).sum())
    if wrong:
        raise PatcError(f"expected finite weights, found {wrong} that are NaN or infinite", layer.name)


def _classify(name: str, module: _ConvNd, spec: PatternSpec, is_first: bool) -> PrunedLayer:
    dense = PrunedLayer(name, module, "dense", masks=(), taps=0, columns=0, size=1)
    if not isinstance(module, nn.Conv2d) or (is_first and spec.first_layer == "dense"):
        return dense
    is_depthwise = module.groups > 1 and module.groups == module.in_channels
    if module.groups > 1 and not (is_depthwise and spec.depthwise == "pattern"):
        return dense
    size = spec.filter_group if module.out_channels % spec.filter_group == 0 else 1
    pattern_only = is_first and spec.first_layer == "pattern"
    libraries = {(3, 3): spec.masks, (5, 5): spec.masks_5x5}
    masks = libraries.get(module.kernel_size, ())
    if masks:
        taps = module.kernel_size[0] * module.kernel_size[1]
        if is_depthwise:
            return PrunedLayer(name, module, "depthwise", masks, taps, columns=1, size=1)
        kind: Kind = "pattern-only" if pattern_only else "pattern"
        return PrunedLayer(name, module, kind, masks, taps, columns=module.in_channels, size=size)
    groups = module.in_channels // TAPS
    may_group = spec.pointwise == "groups" and not pattern_only and not is_depthwise
    if module.kernel_size == (1, 1) and groups > 0 and may_group:
        return PrunedLayer(name, module, "pointwise-groups", spec.masks, TAPS, columns=groups, size=size)
    return dense


def _describe_prunable(spec: PatternSpec) -> str:
    sizes = ["3x3"] + ["5x5"] * (spec.library_5x5 is not None) + ["1x1"] * (spec.pointwise == "groups")
    groups = "groups=1 or depthwise" if spec.depthwise == "pattern" else "groups=1"
    return f"{' or '.join(sizes)}, {groups}"


def _check_rates(layers: list[PrunedLayer], spec: PatternSpec) -> None:
    flexible = {layer.name for layer in layers if layer.has_connectivity}
    for name in spec.layer_rates:
        if name not in flexible:
            known = {layer.name: layer.kind for layer in layers}
            found = f"a layer that is {known[name]}" if name in known else "no convolution of that name"
            raise PatcError(f"expected a layer with connectivity sparsity in rates, found {found}", name)
