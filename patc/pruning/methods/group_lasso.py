"""Group lasso: the norms of groups are penalised, each by the root of its size."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from patc.diagnostics import PatcError
from patc.pruning.constraints.base import Constraint
from patc.pruning.methods.base import Method, check_positive
from patc.pruning.state import Masked


@dataclass(frozen=True)
class GroupLasso(Method):
    """Penalises `strength * sum over g of sqrt(size_g) |w_g|`, large groups and small alike (Yuan and Lin, 2006).

    Attributes:
        iterations: expected calls of `Pruner.step`.
        strength: above 0.

    Raises:
        PatcError: a value is out of its range.
    """

    iterations: int = 10
    strength: float = 1e-4

    def __post_init__(self) -> None:
        check_positive(strength=self.strength)
        if self.iterations < 1:
            raise PatcError(f"expected iterations to be at least 1, found {self.iterations}")

    def update(self, constraint: Constraint, state: Masked) -> None:
        """Nothing is remembered."""

    def penalty(self, constraint: Constraint, state: Masked) -> Tensor:
        squares, sizes = constraint.group_squares(constraint.weight)
        # The root of zero has no gradient.
        return (squares.clamp_min(1e-20).sqrt() * sizes.to(squares.dtype).sqrt()).sum() * self.strength
