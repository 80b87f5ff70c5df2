"""Perturbations of inputs that make classifiers wrong in the worst of several cases: alternating projected gradient
descent on the perturbation and ascent on the weights of the cases.

The loss of a case is the margin, the score of the right class less the largest of the others: below 0 the attack has
succeeded there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from patc.diagnostics import PatcError
from patc.robust.weights import DomainWeights, worst_case_loss

Scores = Callable[[Tensor], Tensor]

NORMS = ("linf", "l2")
_ENOUGH = 1.0  # below the largest other score: from there on a case does not pull any more


@dataclass(frozen=True)
class Budget:
    """How large a perturbation may be, and how it is looked for.

    Attributes:
        radius: of the ball that it stays in.
        norm: of the ball: "linf", or "l2" over all elements of one input.
        steps: of descent, each followed by one of ascent.
        step: length of a step of descent, in the norm; None for 2.5 radius / steps.
        low, high: that inputs stay between.

    Raises:
        PatcError: a value that is out of its range.
    """

    radius: float
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 20
    step: float | None = None
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise PatcError(f"expected the norm to be {' or '.join(NORMS)}, got '{self.norm}'")
        if not (0 < self.radius < math.inf and self.steps >= 1):
            raise PatcError(f"expected a radius above 0 and a step or more, got {self.radius} and {self.steps}")
        if self.step is not None and not 0 < self.step < math.inf:
            raise PatcError(f"expected steps longer than 0, got {self.step}")
        if not self.low < self.high:
            raise PatcError(f"expected inputs between two bounds, got {self.low} and {self.high}")

    def descend(self, perturbation: Tensor, gradient: Tensor, x: Tensor) -> Tensor:
        """Return a perturbation after a step, inside of the ball and of the bounds of all inputs x."""
        length = 2.5 * self.radius / self.steps if self.step is None else self.step
        if self.norm == "linf":
            moved = (perturbation - length * gradient.sign()).clamp(-self.radius, self.radius)
        else:
            moved = perturbation - length * gradient / _norms(gradient)
            moved = moved * (self.radius / _norms(moved)).clamp_max(1)
        if len(perturbation) == len(x):
            return (x + moved).clamp(self.low, self.high) - x
        # A common one only shrinks: each input cuts what leaves its own bounds.
        return moved


@dataclass(frozen=True)
class Attack:
    """What was found.

    Attributes:
        perturbation: (N, ...) for N inputs, or (1, ...) for all of them.
        weights: of the cases at the end, (N, K); (1, K) of a common perturbation.
        success: (N, K), whether each model, or each transformed input, is wrong; (N, 1) of a common perturbation, whose
            cases are the inputs.
    """

    perturbation: Tensor
    weights: Tensor
    success: Tensor

    @property
    def worst_success(self) -> float:
        """Part of the inputs that succeed in all cases; the part of all inputs for a common perturbation."""
        return float(self.success.all(1).double().mean())


def attack_ensemble(
    models: Sequence[Scores], x: Tensor, y: Tensor, budget: Budget, *, step: float = 1 / 40, pull: float = 3.0
) -> Attack:
    """Return a perturbation of each input that all models get wrong.

    Args:
        models: of inputs like x to scores (N, classes); they are called as they are, so put modules into eval mode.
        x: N inputs.
        y: their classes, (N,).
        step, pull: of the weights of models, which each input has its own of; step 0 averages all models.

    Raises:
        PatcError: no models, or classes of another shape.
    """
    return _attack(models, x, y, budget, step, pull)


def attack_transforms(
    model: Scores,
    transforms: Sequence[Callable[[Tensor], Tensor]],
    x: Tensor,
    y: Tensor,
    budget: Budget,
    *,
    step: float = 1 / 40,
    pull: float = 3.0,
) -> Attack:
    """Return a perturbation of each input that survives all transforms of it; arguments as for `attack_ensemble`.

    Args:
        transforms: that gradients go through, applied to perturbed inputs.
    """
    return _attack([_after(model, transform) for transform in transforms], x, y, budget, step, pull)


def attack_universal(
    model: Scores, x: Tensor, y: Tensor, budget: Budget, *, step: float = 1 / 100, pull: float = 10.0
) -> Attack:
    """Return one perturbation for all inputs, which are the cases; arguments as for `attack_ensemble`."""
    _check(x, y, [model])
    weights = DomainWeights(len(x), step, pull)
    perturbation = torch.zeros_like(x[:1])

    def perturbed(change: Tensor) -> Tensor:
        return (x + change).clamp(budget.low, budget.high)

    for _ in range(budget.steps):
        change = perturbation.detach().requires_grad_()
        total = worst_case_loss(_margins(model(perturbed(change)), y), weights)
        (gradient,) = torch.autograd.grad(total, change)
        perturbation = budget.descend(perturbation, gradient, x)
    with torch.no_grad():
        success = model(perturbed(perturbation)).argmax(1) != y
    return Attack(perturbation, weights.values, success[:, None])


def _attack(cases: Sequence[Scores], x: Tensor, y: Tensor, budget: Budget, step: float, pull: float) -> Attack:
    _check(x, y, cases)
    weights = DomainWeights(len(cases), step, pull, len(x))
    perturbation = torch.zeros_like(x)
    for _ in range(budget.steps):
        change = perturbation.detach().requires_grad_()
        losses = torch.stack([_margins(case(x + change), y) for case in cases], 1)
        total = (weights.update(losses).to(losses) * losses).sum()
        (gradient,) = torch.autograd.grad(total, change)
        perturbation = budget.descend(perturbation, gradient, x)
    with torch.no_grad():
        success = torch.stack([case(x + perturbation).argmax(1) != y for case in cases], 1)
    return Attack(perturbation, weights.values, success)


def _after(model: Scores, transform: Callable[[Tensor], Tensor]) -> Scores:
    return lambda x: model(transform(x))


def _margins(scores: Tensor, y: Tensor) -> Tensor:
    """Return by how much the right class leads, (N,); not less than -1."""
    right = scores.gather(1, y[:, None])[:, 0]
    others = scores.scatter(1, y[:, None], -math.inf).amax(1)
    return (right - others).clamp_min(-_ENOUGH)


def _norms(values: Tensor) -> Tensor:
    """Return the Euclidean norm of each input, above 0, in a shape that multiplies."""
    return values.flatten(1).norm(dim=1).clamp_min(1e-12).reshape(-1, *[1] * (values.ndim - 1))


def _check(x: Tensor, y: Tensor, cases: Sequence[Scores]) -> None:
    if not cases or not len(x):
        raise PatcError(f"expected a case and an input or more, got {len(cases)} and {len(x)}")
    if y.shape != x.shape[:1]:
        raise PatcError(f"expected a class for each of {len(x)} inputs, got shape {list(y.shape)}")
