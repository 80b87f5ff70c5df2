"""One-shot pruning: the nearest pattern-sparse weights, by magnitude.

This is the projection of the paper's ADMM (section 6.1), usable on its own: give each kernel the pattern
that keeps the most of its squared norm, then keep the kernels of the largest squared norm.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from patc.diagnostics import PatcError
from patc.pruning.library import TAPS, Library, entries, taps
from patc.pruning.report import Kind, LayerReport, PruneReport
from patc.pruning.spec import PatternSpec


def prune_(model: nn.Module, spec: PatternSpec) -> PruneReport:
    """Prune the convolutions of `model` in place to the library and rate of `spec`.

    Prunable are 3x3 convolutions with groups=1, and 1x1 ones if `spec.pointwise` is "groups". The first
    convolution of the model, in the order of its modules, follows `spec.first_layer`. All others stay
    dense. Kept weights keep their bits, the others become +0. Equal magnitudes are decided for the
    earlier pattern of the library and for the earlier kernel in the order (filter, input channel), so
    equal weights always give equal results.

    Each layer keeps kernels / connectivity of its kernels, rounded to a whole kernel (or pair of kernels
    with filter_group=2) and at least one; a kernel that is zero anyway is never counted as kept.

    Raises:
        PatcError: no layer is prunable, a weight is not finite or not a plain parameter, or the model
            cannot reach the requested compression. The model is then unchanged.
    """
    layers = _layers(model, spec)
    for layer in layers:
        _check_weight(layer)
    spec = _resolved(layers, spec)
    return PruneReport(
        library=spec.masks,
        connectivity=spec.connectivity,
        layers=tuple(_prune_layer(layer, spec) for layer in layers),
    )


def resolve(model: nn.Module, spec: PatternSpec) -> PatternSpec:
    """Return `spec` with the connectivity that gives `model` its compression; unchanged without one.

    Raises:
        PatcError: no layer is prunable, or the compression is out of reach; the message gives the range.
    """
    return _resolved(_layers(model, spec), spec)


@dataclass(frozen=True)
class _Layer:
    """A convolution and what the spec makes of it.

    `size` filters share pattern and connectivity (1 or 2). `columns` is the number of 3x3 kernels seen in
    one filter: its input channels, or for a 1x1 convolution its whole groups of nine.
    """

    name: str
    module: _ConvNd
    kind: Kind
    columns: int
    size: int

    @property
    def weight(self) -> Tensor:
        return self.module.weight

    @property
    def units(self) -> int:
        """Things that are kept or removed as a whole: kernels, or pairs of kernels."""
        return self.weight.shape[0] // self.size * self.columns

    @property
    def has_connectivity(self) -> bool:
        return self.kind in ("pattern", "pointwise-groups")

    @property
    def pruned_weights(self) -> int:
        """Weights that take part; the rest of the layer stays dense."""
        return self.units * self.size * TAPS if self.kind != "dense" else 0

    def kept_units(self, connectivity: float) -> int:
        if not self.has_connectivity:
            return self.units
        return max(1, math.floor(self.units / connectivity + 0.5))


def _layers(model: nn.Module, spec: PatternSpec) -> list[_Layer]:
    """Return all convolutions of the model; the first one obeys `spec.first_layer`."""
    layers: list[_Layer] = []
    for name, module in model.named_modules():
        if isinstance(module, _ConvNd):
            layers.append(_classify(name, module, spec, is_first=not layers))
    if all(layer.kind == "dense" for layer in layers):
        wanted = "3x3" if spec.pointwise == "dense" else "3x3 or 1x1"
        raise PatcError(
            f"expected a model with a prunable convolution ({wanted}, groups=1), "
            f"found none among {len(layers)} convolutions"
        )
    return layers


def _classify(name: str, module: _ConvNd, spec: PatternSpec, is_first: bool) -> _Layer:
    dense = _Layer(name, module, "dense", columns=0, size=1)
    if not isinstance(module, nn.Conv2d) or module.groups != 1 or (is_first and spec.first_layer == "dense"):
        return dense
    size = spec.filter_group if module.out_channels % spec.filter_group == 0 else 1
    if module.kernel_size == (3, 3):
        kind: Kind = "pattern-only" if is_first and spec.first_layer == "pattern" else "pattern"
        return _Layer(name, module, kind, columns=module.in_channels, size=size)
    groups = module.in_channels // TAPS
    may_group = spec.pointwise == "groups" and not (is_first and spec.first_layer == "pattern")
    if module.kernel_size == (1, 1) and groups > 0 and may_group:
        return _Layer(name, module, "pointwise-groups", columns=groups, size=size)
    return dense


def _check_weight(layer: _Layer) -> None:
    if layer.kind == "dense":
        return
    # A parametrized weight, or one under torch.nn.utils.prune, is computed anew from other tensors: what
    # is written to it would be lost.
    if layer.module._parameters.get("weight") is None:
        raise PatcError("expected 'weight' to be a parameter, found a computed tensor", layer.name)
    wrong = int((~torch.isfinite(layer.weight)).sum())
    if wrong:
        raise PatcError(f"expected finite weights, found {wrong} that are NaN or infinite", layer.name)


def _resolved(layers: Sequence[_Layer], spec: PatternSpec) -> PatternSpec:
    if spec.compression is None:
        return spec
    connectivity = _solve_connectivity(layers, spec, spec.compression)
    return replace(spec, connectivity=connectivity, compression=None)


def _solve_connectivity(layers: Sequence[_Layer], spec: PatternSpec, rate: float) -> float:
    """Return the connectivity whose number of kept weights is the nearest to all weights / `rate`."""
    entry_count = entries(spec.masks)
    total = sum(layer.weight.numel() for layer in layers)
    most_connectivity = float(max(2 * layer.units for layer in layers))
    most, least = (_kept_weights(layers, c, entry_count) for c in (1.0, most_connectivity))
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
        if _kept_weights(layers, middle, entry_count) >= wanted:
            low = middle
        else:
            high = middle
    flexible = sum(layer.units * layer.size for layer in layers if layer.has_connectivity) * entry_count
    unrounded = flexible / max(wanted - (most - flexible), 1.0)
    candidates = (min(max(unrounded, 1.0), most_connectivity), low, high)
    return min(candidates, key=lambda c: abs(_kept_weights(layers, c, entry_count) - wanted))


def _kept_weights(layers: Sequence[_Layer], connectivity: float, entry_count: int) -> int:
    kept = 0
    for layer in layers:
        kept += layer.weight.numel() - layer.pruned_weights
        if layer.kind != "dense":
            kept += layer.kept_units(connectivity) * layer.size * entry_count
    return kept


@torch.no_grad()
def _prune_layer(layer: _Layer, spec: PatternSpec) -> LayerReport:
    weight = layer.weight
    if layer.kind == "dense":
        kernels = weight.shape[0] * weight.shape[1]
        return LayerReport(
            layer.name, tuple(weight.shape), "dense", kernels, kernels, weight.numel(), weight.numel(), {}
        )
    chosen, kept = _project(_units(layer), layer.kept_units(spec.connectivity), spec.masks)
    _write_mask(layer, chosen, kept, spec.masks)
    counts = torch.bincount(chosen[kept], minlength=len(spec.masks)) * layer.size
    kept_kernels = int(counts.sum())
    return LayerReport(
        name=layer.name,
        shape=tuple(weight.shape),
        kind=layer.kind,
        kernels=layer.units * layer.size,
        kept_kernels=kept_kernels,
        weights=weight.numel(),
        kept_weights=weight.numel() - layer.pruned_weights + kept_kernels * entries(spec.masks),
        histogram=dict(zip(spec.masks, counts.tolist(), strict=True)),
    )


def _units(layer: _Layer) -> Tensor:
    """Return the squared weights as float64 (units, 9), summed over the filters that share a pattern."""
    weight = layer.weight.detach()
    filters = weight.shape[0]
    # A square of a float32 is exact in float64 and cannot underflow or overflow there.
    squares = weight.reshape(filters, -1)[:, : layer.columns * TAPS].double().square()
    return squares.reshape(filters // layer.size, layer.size, layer.columns, TAPS).sum(1).reshape(-1, TAPS)


def _project(squares: Tensor, keep: int, masks: Library) -> tuple[Tensor, Tensor]:
    """Return each unit's best pattern (units,) int64 and whether it is kept (units,) bool."""
    best, chosen = _best_patterns(squares, masks)
    # A stable sort, not topk: among equals topk keeps whichever it meets first.
    order = torch.sort(best, descending=True, stable=True).indices
    kept = torch.zeros_like(chosen, dtype=torch.bool)
    kept[order[:keep]] = True
    return chosen, kept & (best > 0)


def _best_patterns(squares: Tensor, masks: Library) -> tuple[Tensor, Tensor]:
    """Return the largest squared norm a pattern keeps of each unit (units,), and that pattern's number."""
    norms = _pattern_norms(squares, masks)
    best = next(norms)
    chosen = torch.zeros(len(squares), dtype=torch.int64, device=squares.device)
    for number, norm in enumerate(norms, start=1):
        better = norm > best
        best = torch.where(better, norm, best)
        chosen[better] = number
    return best, chosen


def _pattern_norms(squares: Tensor, masks: Library) -> Iterator[Tensor]:
    for mask in masks:
        # Added one by one: the order of a library call's sum, and with it a tie, depends on the machine.
        yield functools.reduce(torch.add, [squares[:, tap] for tap in taps(mask)])


def _write_mask(layer: _Layer, chosen: Tensor, kept: Tensor, masks: Library) -> None:
    weight = layer.weight
    filters = weight.shape[0]
    bits = torch.tensor([[mask >> tap & 1 for tap in range(TAPS)] for mask in masks], dtype=torch.bool)
    unit_mask = bits.to(weight.device)[chosen] & kept[:, None]
    filter_mask = unit_mask.reshape(filters // layer.size, layer.columns * TAPS)
    removed = torch.zeros(filters, weight[0].numel(), dtype=torch.bool, device=weight.device)
    removed[:, : layer.columns * TAPS] = ~filter_mask.repeat_interleave(layer.size, dim=0)
    # Filled, not multiplied: a product would leave negative zeros.
    weight.masked_fill_(removed.reshape(weight.shape), 0.0)
