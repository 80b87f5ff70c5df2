"""The alternating direction method of multipliers (paper, sections 5.1 and 6.1).

The constraint set of a layer is every weight of at most n units. Training minimises f(W) + rho/2 |W - Z + U|^2, where Z
is the point of the set nearest to W + U, found anew in each iteration, and U adds up what is left between them (U is
the paper's multiplier over rho).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from patc.diagnostics import PatcError
from patc.pruning.constraints.base import Constraint
from patc.pruning.methods.base import Method, Ramp, check_positive
from patc.pruning.ranks import share
from patc.pruning.state import Masked


@dataclass(frozen=True)
class AdmmSchedule:
    """How strongly and how fast weights are driven to the target.

    Attributes:
        iterations: expected calls of `Pruner.step`; the paper takes 9 to 12 (section 5.2). More are fine.
        rho: penalty of the first iteration, above 0. A weight outside of its mask decays by about rho times the
            learning rate a step, over 1 - momentum.
        growth: factor of rho from one iteration to the next, at least 1.
        most_rho: where rho stops to grow.
        ramp: part of the iterations, 0 to 1, in which the kept units fall from all of them to the target, fast at
            first (cubic); 0 starts at the target.

    Raises:
        PatcError: a value is out of its range.
    """

    iterations: int = 10
    rho: float = 0.01
    growth: float = 1.5
    most_rho: float = 0.3
    ramp: float = 0.5

    def __post_init__(self) -> None:
        Ramp(self.iterations, self.ramp)
        check_positive(rho=self.rho, most_rho=self.most_rho)
        if not (math.isfinite(self.growth) and self.growth >= 1):
            raise PatcError(f"expected growth to be finite and 1 or more, found {self.growth}")

    def rho_at(self, iteration: int) -> float:
        """Return the penalty after `iteration` calls of `step`."""
        # Compared as logarithms: the power of a long run overflows.
        grown = math.log(self.rho) + iteration * math.log(self.growth)
        return self.most_rho if grown >= math.log(self.most_rho) else math.exp(grown)

    def kept_at(self, iteration: int, units: int, target: int) -> int:
        """Return how many of a layer's units may stay after `iteration` calls of `step`."""
        return Ramp(self.iterations, self.ramp).kept_at(iteration, units, target)


@dataclass(frozen=True)
class Admm(Method):
    """ADMM: the weight is pulled to its projection, and what is left between them adds up.

    Its buffers are `anchor`, Z - U, and `dual`, U.
    """

    schedule: AdmmSchedule = field(default_factory=AdmmSchedule)

    @property
    def iterations(self) -> int:
        return self.schedule.iterations

    def over(self, iterations: int) -> Admm:
        return Admm(replace(self.schedule, iterations=iterations))

    def rho(self, iteration: int) -> float:
        return self.schedule.rho_at(iteration)

    def buffers(self, weight: Tensor) -> dict[str, Tensor]:
        return {"anchor": weight.detach().clone(), "dual": torch.zeros_like(weight, requires_grad=False)}

    def update(self, constraint: Constraint, state: Masked) -> None:
        """Set Z and U from the weight and U before."""
        schedule, iteration = self.schedule, state.iteration
        moved = constraint.weight + state.dual
        keep = schedule.kept_at(iteration, constraint.units, state.keep)
        target = constraint.nearest(moved, keep)
        # U is the multiplier over rho: where rho grows, U shrinks.
        factor = schedule.rho_at(iteration - 1) / schedule.rho_at(iteration) if iteration else 0.0
        state.dual.copy_((moved - target) * factor)
        share(target)
        share(state.dual)
        state.anchor.copy_(target - state.dual)

    def penalty(self, constraint: Constraint, state: Masked) -> Tensor:
        """`rho/2 |W - Z + U|^2`."""
        return _Penalty.apply(constraint.weight, state.anchor, self.schedule.rho_at(state.iteration))

    def nearest(self, constraint: Constraint, state: Masked) -> Tensor:
        return state.anchor + state.dual


class _Penalty(torch.autograd.Function):
    """rho/2 |weight - anchor|^2, without the temporaries that autograd would keep."""

    @staticmethod
    def forward(weight: Tensor, anchor: Tensor, rho: float) -> Tensor:
        return (weight - anchor).square_().sum() * (rho / 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        weight, anchor, ctx.rho = inputs
        ctx.save_for_backward(weight, anchor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        weight, anchor = ctx.saved_tensors
        return (weight - anchor) * (grad * ctx.rho), None, None
