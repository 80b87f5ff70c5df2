"""Pattern sparsity: kernels that each fit a pattern of a library, and of which so many stay (paper, section 6.1)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from patc.pruning.constraints.base import Constraint, largest
from patc.pruning.libraries import Library, entries, taps
from patc.pruning.report import LayerReport
from patc.pruning.windows import Window

Kind = Literal["pattern", "pattern-only", "pointwise-groups", "depthwise"]


@dataclass(frozen=True)
class Choice:
    """What a layer keeps.

    Attributes:
        patterns: number of each unit's best pattern (units,) int64.
        kept: whether the unit is kept (units,) bool.
    """

    patterns: Tensor
    kept: Tensor


@dataclass(frozen=True)
class PatternConstraint(Constraint):
    """The kernels of a convolution and their patterns.

    A unit has one pattern: a kernel, or the kernels of `size` neighbouring filters on one input channel. `columns` is
    the number of kernels seen in one filter: its input channels, or for a 1x1 convolution its whole groups of nine.

    Attributes:
        masks: the library of the layer's kernels.
        window: of the kernels.
        is_balanced: whether every row of units keeps as many, up to one.
    """

    kind: Kind
    masks: Library
    window: Window
    columns: int
    size: int
    is_balanced: bool = False

    @property
    def module(self) -> nn.Module:
        return self.site.module

    @property
    def taps(self) -> int:
        """Of a kernel."""
        return self.window.taps

    @property
    def filters(self) -> int:
        return self.site.filters

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
    def unit_weights(self) -> int:
        return self.size * self.entries

    @property
    def fixed_weights(self) -> int:
        return self.site.size - self.units * self.size * self.taps

    @property
    def has_rate(self) -> bool:
        return self.kind in ("pattern", "pointwise-groups")

    @property
    def bits(self) -> Tensor:
        """Which taps each pattern of the library holds: bool (patterns, taps)."""
        bits = [[mask >> tap & 1 for tap in range(self.taps)] for mask in self.masks]
        return torch.tensor(bits, dtype=torch.bool, device=self.weight.device)

    def matrix(self, weight: Tensor) -> Tensor:
        """Return a tensor of the weight's shape as (filters, kernels x taps)."""
        return (weight.transpose(0, 1) if self.site.is_turned else weight).reshape(self.filters, -1)

    def restore(self, matrix: Tensor) -> Tensor:
        """Undo `matrix`."""
        if not self.site.is_turned:
            return matrix.reshape(self.site.shape)
        channels, filters, *kernel = self.site.shape
        return matrix.reshape(filters, channels, *kernel).transpose(0, 1)

    def units_of(self, weight: Tensor) -> Tensor:
        """Return the kernels of a tensor of the weight's shape: (rows, size, columns, taps)."""
        flat = self.matrix(weight)[:, : self.columns * self.taps]
        return flat.reshape(self.rows, self.size, self.columns, self.taps)

    def squares_of(self, weight: Tensor) -> Tensor:
        """Return the squared weights as float64 (units, taps), summed over the filters that share a pattern."""
        # A square of a float32 is exact in float64 and cannot underflow or overflow there.
        return self.units_of(weight.detach().double().square()).sum(1).reshape(-1, self.taps)

    def scores(self, weight: Tensor) -> Tensor:
        return best_patterns(self.squares_of(weight), self.masks)[0]

    def project(self, weight: Tensor, keep: int) -> Choice:
        """Return the patterns and kernels that keep the most of the squared norm of `weight`.

        Each unit gets the pattern that keeps the most of it, then the `keep` units of the largest norm under their
        patterns stay. If balanced, every row of units keeps keep / rows, and the rest goes to the best of those that
        come next in their rows. Ties are decided for the earlier pattern and the earlier unit, so that equal weights
        give equal results.
        """
        best, patterns = best_patterns(self.squares_of(weight), self.masks)
        kept = _largest_in_rows(best, self.rows, keep) if self.is_balanced else largest(best, keep)
        return Choice(patterns, kept & (best > 0))

    def keep_mask(self, choice: Choice) -> Tensor:
        """Return which weights of the layer a choice keeps: bool of the weight's shape."""
        return self.mask_of(self.bits[choice.patterns] & choice.kept[:, None])

    def mask(self, weight: Tensor, keep: int) -> Tensor:
        return self.keep_mask(self.project(weight, keep))

    def mask_of(self, unit_mask: Tensor) -> Tensor:
        """Return which weights stay (bool, the weight's shape) for which taps of the units do (units, taps).

        What is in no unit stays, as the channels of a 1x1 convolution beyond the last nine.
        """
        mask = torch.ones(self.site.shape, dtype=torch.bool, device=unit_mask.device).reshape(self.filters, -1)
        filter_mask = unit_mask.reshape(self.rows, self.columns * self.taps)
        mask[:, : self.columns * self.taps] = filter_mask.repeat_interleave(self.size, dim=0)
        return self.restore(mask)

    def group_squares(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Units as wholes, which lose their connection, and what of each is outside of its best pattern."""
        squares = self.units_of(weight.square()).sum(1).reshape(-1, self.taps)
        outside = ~self.bits[best_patterns(squares.detach().double(), self.masks)[1]]
        beyond = torch.where(outside, squares, 0.0).sum(1)
        counts = outside.sum(1) * self.size
        if not self.has_rate:
            return beyond, counts
        return torch.cat([squares.sum(1), beyond]), torch.cat([torch.full_like(counts, self.size * self.taps), counts])

    def violation(self, weight: Tensor, keep: int) -> str | None:
        squares = self.squares_of(weight)
        wrong = int((squares.sum(1) > best_patterns(squares, self.masks)[0] * (1 + 1e-12)).sum())
        return f"{wrong} kernels that fit no pattern" if wrong else super().violation(weight, keep)

    def report(self, keep: int) -> LayerReport:
        choice = self.project(self.weight, keep)
        kept = choice.patterns[choice.kept]
        counts = (torch.bincount(kept, minlength=len(self.masks)) * self.size).tolist()
        return LayerReport(
            name=self.name,
            shape=self.site.shape,
            kind=self.kind,
            kernels=self.units * self.size,
            kept_kernels=sum(counts),
            weights=self.site.size,
            kept_weights=self.fixed_weights + sum(counts) * self.entries,
            histogram=dict(zip(self.masks, counts, strict=True)),
        )


def best_patterns(squares: Tensor, masks: Library) -> tuple[Tensor, Tensor]:
    """Return the largest squared norm a pattern keeps of each unit (units,), and that pattern's number.

    Args:
        squares: (units, taps).
    """
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


def _largest_in_rows(scores: Tensor, rows: int, keep: int) -> Tensor:
    each, rest = divmod(keep, rows)
    order = torch.sort(scores.reshape(rows, -1), dim=1, descending=True, stable=True).indices
    ranks = torch.argsort(order, dim=1).reshape(-1)
    next_in_row = torch.where(ranks == each, scores, -1.0)
    return (ranks < each) | (largest(next_in_row, rest) & (ranks == each))
