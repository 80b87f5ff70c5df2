"""Weights on levels: what a structure of zeros leaves, or all of a weight, is rounded."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from patc.pruning.constraints.base import Constraint
from patc.pruning.levels import Grid
from patc.pruning.report import LayerReport


@dataclass(frozen=True)
class Whole(Constraint):
    """A weight that stays whole, as one unit."""

    kind: str = "whole"

    @property
    def units(self) -> int:
        return 1

    @property
    def unit_weights(self) -> int:
        return self.site.size

    @property
    def has_rate(self) -> bool:
        return False

    def scores(self, weight: Tensor) -> Tensor:
        return weight.detach().double().square().sum().reshape(1)

    def mask(self, weight: Tensor, keep: int) -> Tensor:
        return torch.ones_like(weight, dtype=torch.bool)

    def group_squares(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """None is to become zero."""
        return weight.new_zeros(0), weight.new_zeros(0)


@dataclass(frozen=True)
class LevelConstraint(Constraint):
    """A structure of zeros whose other weights are on levels, a scale a filter.

    Its nearest point has the mask of the structure's own, and the levels nearest to what that keeps: of all masks and
    levels together another may be a little nearer.

    Attributes:
        structure: says what is kept.
        levels: of what is kept.
    """

    structure: Constraint
    levels: Grid

    @property
    def units(self) -> int:
        return self.structure.units

    @property
    def unit_weights(self) -> int:
        return self.structure.unit_weights

    @property
    def fixed_weights(self) -> int:
        return self.structure.fixed_weights

    @property
    def has_rate(self) -> bool:
        return self.structure.has_rate

    @property
    def grid(self) -> Grid:
        return self.levels

    def scores(self, weight: Tensor) -> Tensor:
        return self.structure.scores(weight)

    def mask(self, weight: Tensor, keep: int) -> Tensor:
        return self.structure.mask(weight, keep)

    def nearest(self, weight: Tensor, keep: int) -> Tensor:
        mask = self.mask(weight, keep)
        return self.levels.round(weight, mask, self.levels.fit(weight, mask))

    def group_squares(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return self.structure.group_squares(weight)

    def units_at(self, rate: float) -> int:
        return self.structure.units_at(rate)

    def count(self, weight: Tensor) -> int:
        return self.structure.count(weight)

    def violation(self, weight: Tensor, keep: int) -> str | None:
        if found := self.structure.violation(weight, keep):
            return found
        others = int((self.levels.find(weight) == 0).sum())
        return f"{others} filters whose weights are on no levels of {self.levels.bits} bits" if others else None

    def report(self, keep: int) -> LayerReport:
        return replace(self.structure.report(keep), kind=self.kind)
