"""Weights of domains: the ascent half of min-max optimisation over the probability simplex."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from patc.diagnostics import PatcError
from patc.pruning.simplex import project_simplex


class DomainWeights:
    """Weights w that follow the losses F of some domains: w becomes the nearest point of the simplex to
    w + step * (F - pull * (w - 1 / K)).

    Args:
        domains: K, how many there are.
        step: of the ascent; 0 leaves the weights as they are.
        pull: towards equal weights: with losses that stay, w - 1 / K ends at (F - their mean) / pull, as far as the
            simplex reaches.
        rows: of weights that are independent of each other, one an image, say.

    Attributes:
        values: (rows, K) float64; equal to begin with. A row is of one case after the other.

    Raises:
        PatcError: no domain or row, or a step or pull that is negative or not finite.
    """

    def __init__(self, domains: int, step: float = 1 / 40, pull: float = 3.0, rows: int = 1) -> None:
        if domains < 1 or rows < 1:
            raise PatcError(f"expected one domain and one row or more, got {domains} and {rows}")
        if not (0 <= step < math.inf and 0 <= pull < math.inf):
            raise PatcError(f"expected a finite step and pull of 0 or more, got {step} and {pull}")
        self.step, self.pull = step, pull
        self.values = torch.full((rows, domains), 1 / domains, dtype=torch.float64)

    def update(self, losses: Tensor) -> Tensor:
        """Follow the losses; return the new weights.

        Args:
            losses: (K,), or (rows, K).

        Raises:
            PatcError: they are of another shape.
        """
        found = losses.detach().to(self.values)
        if self.values.shape not in (found.shape, (1, *found.shape)):
            raise PatcError(f"expected losses of shape {list(self.values.shape)}, got {list(losses.shape)}")
        if self.step:
            ascent = found - self.pull * (self.values - 1 / self.values.shape[1])
            self.values = project_simplex(self.values + self.step * ascent)
        return self.values


def worst_case_loss(losses: Tensor, weights: DomainWeights, seen: Tensor | None = None) -> Tensor:
    """Return what to lower for the worst domain's sake: the sum of losses (K,) by weights, which follow them first.

    Args:
        seen: the losses that the weights follow, as of all processes that train together; None for these.
    """
    return (weights.update(losses if seen is None else seen)[0].to(losses) * losses).sum()
