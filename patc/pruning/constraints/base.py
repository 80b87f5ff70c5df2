"""A constraint set of one weight: its units, of which so many may stay."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from patc.pruning.levels import Grid
from patc.pruning.report import LayerReport
from patc.pruning.sites import Site


@dataclass(frozen=True)
class Constraint(ABC):
    """What a scheme makes of the weight at a site.

    A unit is what is kept or removed as a whole. A weight is in the set of a budget when it has at most so many units.

    Attributes:
        site: the weight.
        kind: name of the scheme, for reports.
    """

    site: Site
    kind: str

    @property
    def name(self) -> str:
        return self.site.name

    @property
    def weight(self) -> Tensor:
        return self.site.weight

    @property
    @abstractmethod
    def units(self) -> int:
        """How many units there are."""

    @property
    @abstractmethod
    def unit_weights(self) -> int:
        """Weights that a kept unit stores."""

    @property
    def fixed_weights(self) -> int:
        """Weights that are in no unit and stay."""
        return 0

    @property
    def has_rate(self) -> bool:
        """Whether units can be removed."""
        return True

    @property
    def grid(self) -> Grid | None:
        """The levels that kept weights are on, if they are not free."""
        return None

    @abstractmethod
    def scores(self, weight: Tensor) -> Tensor:
        """Return the squared norm that stays with each unit: float64 (units,)."""

    @abstractmethod
    def mask(self, weight: Tensor, keep: int) -> Tensor:
        """Return which weights the nearest point of at most `keep` units has: bool of the weight's shape.

        Units that are zero anyway never are among them. Ties are decided for the earlier unit.
        """

    def nearest(self, weight: Tensor, keep: int) -> Tensor:
        """Return the nearest point of at most `keep` units; what is not kept is +0."""
        return torch.where(self.mask(weight, keep), weight, 0.0)

    @abstractmethod
    def group_squares(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the squared norms of the groups that a regularizer drives to zero, differentiable, and the number of
        weights of each: (groups,) both. Groups may overlap."""

    def units_at(self, rate: float) -> int:
        """Return how many units a rate keeps: to the nearest, and at least one."""
        return max(1, math.floor(self.units / rate + 0.5))

    def count(self, weight: Tensor) -> int:
        """Return how many units are not zero."""
        return int((self.scores(weight) > 0).sum())

    def violation(self, weight: Tensor, keep: int) -> str | None:
        """Return what keeps a weight from the set of `keep` units, in words; None for a member."""
        found = self.count(weight)
        return f"{found} of at most {keep} units" if found > keep else None

    def report(self, keep: int) -> LayerReport:
        """Return what was kept of a weight that is in the set."""
        kept = min(self.count(self.weight), keep)
        stored = self.fixed_weights + kept * self.unit_weights
        return LayerReport(self.name, self.site.shape, self.kind, self.units, kept, self.site.size, stored, {})


@dataclass(frozen=True)
class Dense(Constraint):
    """No constraint: a weight that stays as it is, and counts in the compression."""

    kind: str = "dense"

    @property
    def units(self) -> int:
        return 0

    @property
    def unit_weights(self) -> int:
        return 0

    @property
    def fixed_weights(self) -> int:
        return self.site.size

    @property
    def has_rate(self) -> bool:
        return False

    def scores(self, weight: Tensor) -> Tensor:
        return torch.zeros(0, dtype=torch.float64, device=weight.device)

    def mask(self, weight: Tensor, keep: int) -> Tensor:
        return torch.ones_like(weight, dtype=torch.bool)

    def group_squares(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return weight.new_zeros(0), weight.new_zeros(0)

    def report(self, keep: int = 0) -> LayerReport:
        kernels, weights = self.site.shape[0] * self.site.shape[1], self.site.size
        return LayerReport(self.name, self.site.shape, "dense", kernels, kernels, weights, weights, {})


def largest(scores: Tensor, keep: int) -> Tensor:
    """Return which scores are the `keep` largest (bool); of equals the earlier ones."""
    # A stable sort, not topk: among equals topk keeps whichever it meets first.
    order = torch.sort(scores, descending=True, stable=True).indices
    kept = torch.zeros_like(scores, dtype=torch.bool)
    kept[order[:keep]] = True
    return kept
