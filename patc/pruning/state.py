"""The parametrization of a weight while it is pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from patc.diagnostics import PatcError
from patc.pruning.levels import Grid
from patc.pruning.ranks import share
from patc.pruning.sites import Site


class Masked(nn.Module):
    """The weight where the mask is set, zero elsewhere.

    The mask is all it may be until something is masked. Once it is in force for good, weights are on levels, if there
    are any. Everything that the training needs is in the state dict.

    Attributes:
        mask: bool.
        allowed: what the mask may have (bool), where something limits it.
        scales: of the levels (filters,). Each pass takes those of least squares for the q that these give, so that
            scales follow the weights.
        keep: units that stay in the end.
        spec: a number that tells what is pruned to from others.
        iteration: calls of `Pruner.step` so far.
        hardened: whether the mask is in force for good and the penalty gone.
    """

    mask: Tensor
    allowed: Tensor
    scales: Tensor

    def __init__(
        self,
        weight: Tensor,
        keep: int,
        spec: int,
        buffers: Mapping[str, Tensor],
        grid: Grid | None = None,
        allowed: Tensor | None = None,
    ) -> None:
        super().__init__()
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool, requires_grad=False))
        self.is_limited = allowed is not None
        if allowed is not None:
            self.register_buffer("allowed", allowed.clone())
            self.mask.copy_(allowed)
        if grid is not None:
            self.register_buffer("scales", weight.new_ones(weight.shape[grid.axis]))
        self.grid = grid
        self.keep, self.spec, self.iteration, self.hardened = keep, spec, 0, False

    def forward(self, weight: Tensor) -> Tensor:
        if self.grid is None or not self.hardened:
            return torch.where(self.mask, weight, 0.0)
        scales = self.grid.refit(weight.detach(), self.mask, self.scales)
        return self.grid.round(weight, self.mask, scales)

    def set_mask(self, mask: Tensor) -> None:
        """Mask all else, and what is not allowed."""
        self.mask.copy_(mask & self.allowed if self.is_limited else mask)
        share(self.mask)

    def fit_scales(self, weight: Tensor) -> None:
        """Set the scales of the nearest levels."""
        if self.grid is not None:
            self.scales.copy_(self.grid.fit(weight, self.mask))
            share(self.scales)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.spec, self.keep, self.iteration, int(self.hardened)])

    def set_extra_state(self, state: Tensor) -> None:
        spec, keep, iteration, hardened = state.tolist()
        if spec != self.spec:
            raise PatcError("expected the state of a model that is pruned to the same spec, found that of another")
        self.keep, self.iteration, self.hardened = keep, iteration, bool(hardened)


def find_state(site: Site) -> Masked | None:
    """Return the parametrization of a weight that is being pruned."""
    if not parametrize.is_parametrized(site.module, site.parameter):
        return None
    state = site.module.parametrizations[site.parameter][0]
    return state if isinstance(state, Masked) else None


def attach(site: Site, state: Masked) -> None:
    """Make a module compute with its masked weight."""
    parametrize.register_parametrization(site.module, site.parameter, state)
    if isinstance(site.module, nn.RNNBase):
        # Recurrent layers compute with a list of their tensors that is made once: without this they would go on with
        # the parameters and see no mask.
        type(site.module)._flat_weights = property(_flat_weights, _keep_flat_weights)


def check_alone(site: Site) -> None:
    """Refuse a weight that something behind its mask computes anew: it would stay in the plain one.

    Raises:
        PatcError: as said.
    """
    if len(site.module.parametrizations[site.parameter]) > 1:
        expected = "expected a weight that only the pruner computes, found another parametrization behind it"
        raise PatcError(f"{expected}: finalize that first", site.name)


def detach(site: Site) -> None:
    """Make a plain parameter of a weight again, masked as it is."""
    parametrize.remove_parametrizations(site.module, site.parameter, leave_parametrized=True)
    if isinstance(site.module, nn.RNNBase) and not parametrize.is_parametrized(site.module):
        site.module._init_flat_weights()


def _flat_weights(module: Any) -> list[Tensor]:
    return [getattr(module, name) for name in module._flat_weights_names]


def _keep_flat_weights(module: Any, tensors: list[Tensor]) -> None:
    """Ignore what a recurrent layer sets when it moves: its tensors are found anew in each call."""
