"""Reweighted regularization: each group of weights is penalised by what it is over what it was.

The factor of a group is renewed every few iterations from its norm then, so that small groups are driven to zero and
large ones, whose term stays near 1 whatever their norm, are left alone: the sum of the terms counts living groups.
With squared norms it is the method of BLK-REW (arXiv 2001.08357), with norms that of block-pruned transformers (arXiv
2009.08065). Bounded, a weight's strength becomes 0 as soon as that count is within its budget, which is how a unified
dynamic regularization needs one strength for all layers.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from patc.diagnostics import PatcError
from patc.pruning.constraints.base import Constraint
from patc.pruning.methods.base import Method, check_positive
from patc.pruning.ranks import share
from patc.pruning.state import Masked


@dataclass(frozen=True)
class Reweighted(Method):
    """Penalises `strength * sum over g of |w_g|^power / (|v_g|^power + epsilon)`: groups g of weights w, which were v
    when their factors were renewed. Its buffers are `factors`, of each group, and `strength`.

    Attributes:
        iterations: expected calls of `Pruner.step`.
        strength: of the whole penalty, above 0. The term of each group has a value of about one times it.
        epsilon: in parts of the mean of `|v_g|^power` of the weight's groups, above 0: groups far below are driven down
            alike.
        every: iterations between renewals.
        power: 2 or 1.
        bounded: whether the penalty of a weight ends once no more groups live than its budget keeps.

    Raises:
        PatcError: a value is out of its range.
    """

    iterations: int = 10
    strength: float = 1e-4
    epsilon: float = 0.1
    every: int = 2
    power: int = 2
    bounded: bool = True

    def __post_init__(self) -> None:
        check_positive(strength=self.strength, epsilon=self.epsilon)
        for name in ("iterations", "every"):
            if getattr(self, name) < 1:
                raise PatcError(f"expected {name} to be at least 1, found {getattr(self, name)}")
        if self.power not in (1, 2):
            raise PatcError(f"expected power to be 1 or 2, found {self.power}")

    def buffers(self, weight: Tensor) -> dict[str, Tensor]:
        return {"factors": weight.new_zeros(0), "strength": weight.new_zeros(())}

    def update(self, constraint: Constraint, state: Masked) -> None:
        norms = self._norms(constraint)
        if state.iteration and self.bounded and bool(state.strength):
            living = float((state.factors * norms).sum())
            wanted = len(norms) * state.keep / constraint.units
            # What is left of the others counts a little too.
            state.strength.fill_(self.strength if living > wanted + 0.5 else 0.0)
        elif not state.iteration:
            state.strength.fill_(self.strength)
        if state.iteration % self.every == 0:
            state.factors = 1 / (norms + self.epsilon * norms.mean().clamp_min(1e-30))
        share(state.factors)
        share(state.strength)

    def penalty(self, constraint: Constraint, state: Masked) -> Tensor:
        return (state.factors * self._norms(constraint)).sum() * state.strength

    def _norms(self, constraint: Constraint) -> Tensor:
        squares = constraint.group_squares(constraint.weight)[0]
        # The root of zero has no gradient.
        return squares if self.power == 2 else squares.clamp_min(1e-20).sqrt()
