"""What a method does to one weight while the model trains."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from torch import Tensor

from patc.diagnostics import PatcError
from patc.pruning.constraints.base import Constraint
from patc.pruning.state import Masked


class Method(ABC):
    """Drives weights into their sets, an iteration at a time; an iteration is what lies between two calls of
    `Pruner.step`, an epoch say. What it remembers of a weight are buffers of its `Masked`."""

    @property
    @abstractmethod
    def iterations(self) -> int:
        """Expected calls of `Pruner.step`."""

    def buffers(self, weight: Tensor) -> dict[str, Tensor]:
        """Return what is remembered of a weight, before the first `update`."""
        return {}

    @abstractmethod
    def update(self, constraint: Constraint, state: Masked) -> None:
        """Set what is remembered: before training, when `state.iteration` is 0, and after each iteration."""

    @abstractmethod
    def penalty(self, constraint: Constraint, state: Masked) -> Tensor | None:
        """Return what is added to the loss for a weight, a scalar; None for nothing."""

    def over(self, iterations: int) -> Method:
        """Return the method for so many iterations."""
        # Methods are dataclasses, of which all but ADMM have this field.
        return replace(self, iterations=iterations)  # type: ignore[type-var]

    def rho(self, iteration: int) -> float | None:
        """Return the penalty's factor after so many iterations; None of a method that has none."""
        return None

    def nearest(self, constraint: Constraint, state: Masked) -> Tensor:
        """Return the point of the set that a weight is driven to."""
        return constraint.nearest(constraint.weight, state.keep)


@dataclass(frozen=True)
class Ramp:
    """How the units that may stay fall from all to the target: cubic, fast at first.

    Attributes:
        iterations: of the whole training.
        share: part of them, 0 to 1, in which the units fall; 0 starts at the target.

    Raises:
        PatcError: a value is out of its range.
    """

    iterations: int
    share: float

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise PatcError(f"expected iterations to be at least 1, found {self.iterations}")
        if not 0 <= self.share <= 1:
            raise PatcError(f"expected ramp to be from 0 to 1, found {self.share}")

    def kept_at(self, iteration: int, units: int, target: int) -> int:
        """Return how many of `units` may stay after `iteration` iterations."""
        length = round(self.share * self.iterations)
        left = max(0.0, 1 - (iteration + 1) / (length + 1)) if length else 0.0
        return target + math.ceil((units - target) * left**3)


def check_positive(**values: float) -> None:
    """Refuse values that are not finite and above 0.

    Raises:
        PatcError: the name of the first.
    """
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise PatcError(f"expected {name} to be finite and above 0, found {value}")
