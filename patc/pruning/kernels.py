"""The convolutions of a model as pruning sees them: which take part, and their weights as kernels."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from patc.diagnostics import PatcError
from patc.pruning.libraries import TAPS, Library, entries
from patc.pruning.report import Kind, LayerReport
from patc.pruning.spec import PatternSpec
from patc.pruning.windows import MOST_TAPS, Window


@dataclass(frozen=True)
class PrunedLayer:
    """A convolution and what the spec makes of it.

    A unit is what is kept or removed as a whole and has one pattern: a kernel, or the kernels of `size` neighbouring
    filters on one input channel. `columns` is the number of kernels seen in one filter: its input channels, or for
    a 1x1 convolution its whole groups of nine.

    Attributes:
        name: of the module in the model.
        masks: the library of the layer's kernels; none if it is dense.
        window: of the kernels; None of a dense layer.
        is_turned: whether the weight has its input channels in front, as that of a transposed convolution.
    """

    name: str
    module: _ConvNd
    kind: Kind
    masks: Library
    window: Window | None
    columns: int
    size: int
    is_turned: bool = False

    @property
    def taps(self) -> int:
        """Of a kernel."""
        return 0 if self.window is None else self.window.taps

    @property
    def weight(self) -> Tensor:
        """The parameter, also where a parametrization computes what the module multiplies by."""
        if parametrize.is_parametrized(self.module, "weight"):
            return self.module.parametrizations.weight.original
        return self.module.weight

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Of the weight: filters, input channels / groups and the size of a kernel; input channels, filters / groups
        and so on of a transposed convolution."""
        return tuple(self.weight.shape)

    @property
    def filters(self) -> int:
        return self.shape[int(self.is_turned)]

    @property
    def rows(self) -> int:
        """Groups of filters: a layer has rows x columns units."""
        return self.filters // self.size

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
        flat = self.matrix(weight)[:, : self.columns * self.taps]
        return flat.reshape(self.rows, self.size, self.columns, self.taps)

    def matrix(self, weight: Tensor) -> Tensor:
        """Return a tensor of the weight's shape as (filters, kernels x taps)."""
        return (weight.transpose(0, 1) if self.is_turned else weight).reshape(self.filters, -1)

    def restore(self, matrix: Tensor) -> Tensor:
        """Undo `matrix`."""
        if not self.is_turned:
            return matrix.reshape(self.shape)
        channels, filters, *kernel = self.shape
        return matrix.reshape(filters, channels, *kernel).transpose(0, 1)

    def squares_of(self, weight: Tensor) -> Tensor:
        """Return the squared weights as float64 (units, taps), summed over the filters that share a pattern."""
        # A square of a float32 is exact in float64 and cannot underflow or overflow there.
        return self.units_of(weight.detach().double().square()).sum(1).reshape(-1, self.taps)

    def mask_of(self, unit_mask: Tensor) -> Tensor:
        """Return which weights stay (bool, the weight's shape) for which taps of the units do (units, taps).

        What is in no unit stays, as the channels of a 1x1 convolution beyond the last nine.
        """
        mask = torch.ones(self.shape, dtype=torch.bool, device=unit_mask.device).reshape(self.filters, -1)
        filter_mask = unit_mask.reshape(self.rows, self.columns * self.taps)
        mask[:, : self.columns * self.taps] = filter_mask.repeat_interleave(self.size, dim=0)
        return self.restore(mask)

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
    dense = PrunedLayer(name, module, "dense", masks=(), window=None, columns=0, size=1)
    window = _window(module)
    if window is None or (is_first and spec.first_layer == "dense"):
        return dense
    is_depthwise = module.groups > 1 and module.groups == module.in_channels
    if module.groups > 1 and not (is_depthwise and spec.depthwise == "pattern"):
        return dense
    size = spec.filter_group if module.out_channels % spec.filter_group == 0 else 1
    pattern_only = is_first and spec.first_layer == "pattern"
    if window.taps > 1:
        masks = spec.masks if isinstance(module, nn.Conv2d) and window.kernel == (3, 3) else spec.masks_of(window)
        if not masks or (spec.kernels == "3x3" and not isinstance(module, nn.Conv2d)):
            return dense
        if is_depthwise:
            return PrunedLayer(name, module, "depthwise", masks, window, columns=1, size=1)
        kind: Kind = "pattern-only" if pattern_only else "pattern"
        is_turned = isinstance(module, _ConvTransposeNd)
        return PrunedLayer(name, module, kind, masks, window, module.in_channels, size, is_turned)
    groups = module.in_channels // TAPS
    may_group = spec.pointwise == "groups" and not pattern_only and not is_depthwise
    is_plain = isinstance(module, nn.Conv2d) or (spec.kernels == "all" and isinstance(module, nn.Conv1d))
    if is_plain and groups > 0 and may_group:
        return PrunedLayer(name, module, "pointwise-groups", spec.masks, Window((3, 3)), columns=groups, size=size)
    return dense


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


def _describe_prunable(spec: PatternSpec) -> str:
    sizes = ["3x3"] + ["5x5"] * (spec.library_5x5 is not None) + ["1x1"] * (spec.pointwise == "groups")
    if spec.kernels == "all":
        sizes = [f"2 to {MOST_TAPS} taps"] + ["1x1"] * (spec.pointwise == "groups")
    groups = "groups=1 or depthwise" if spec.depthwise == "pattern" else "groups=1"
    return f"{' or '.join(sizes)}, {groups}"


def _check_rates(layers: list[PrunedLayer], spec: PatternSpec) -> None:
    flexible = {layer.name for layer in layers if layer.has_connectivity}
    for name in spec.layer_rates:
        if name not in flexible:
            known = {layer.name: layer.kind for layer in layers}
            found = f"a layer that is {known[name]}" if name in known else "no convolution of that name"
            raise PatcError(f"expected a layer with connectivity sparsity in rates, found {found}", name)
