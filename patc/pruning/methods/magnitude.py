"""Gradual magnitude pruning: masks that grow while the model trains (Zhu and Gupta, 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from patc.pruning.constraints.base import Constraint
from patc.pruning.methods.base import Method, Ramp
from patc.pruning.state import Masked


@dataclass(frozen=True)
class Magnitude(Method):
    """Masks the units of the smallest norms, more in each iteration. A weight that is masked keeps its value, so that a
    unit may come back as others shrink.

    Attributes:
        iterations: expected calls of `Pruner.step`.
        ramp: part of the iterations, 0 to 1, in which the kept units fall to the target.

    Raises:
        PatcError: a value is out of its range.
    """

    iterations: int = 10
    ramp: float = 0.8

    def __post_init__(self) -> None:
        Ramp(self.iterations, self.ramp)

    def update(self, constraint: Constraint, state: Masked) -> None:
        keep = Ramp(self.iterations, self.ramp).kept_at(state.iteration, constraint.units, state.keep)
        state.set_mask(constraint.mask(constraint.weight, keep))

    def penalty(self, constraint: Constraint, state: Masked) -> Tensor | None:
        return None
