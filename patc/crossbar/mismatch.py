"""Training with devices that are not what they were programmed to be."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from patc.diagnostics import PatcError
from patc.pruning.schemes import Crossbar
from patc.pruning.sites import Site, find_sites
from patc.pruning.state import Masked, find_state


class Mismatch:
    """Adds noise to the weights of convolutions and linear layers in training mode, anew in each pass.

        pruner.prepare()
        mismatch = Mismatch(model)
        mismatch.prepare()
        ...                      # train; after pruner.harden() noise is on levels
        mismatch.finalize()
        pruner.finalize()

    The noise is normal and that of a pair of devices that is programmed to a weight: weights that a pruner has masked
    have no devices and stay zero. Gradients pass it straight.

    Args:
        model: changed in place.
        sigma: standard deviation, in parts of the largest weight of the filter, above 0. What aihwkit programs phase
            change memory with is 0.01 of a device at the least conductance and 0.04 of one in the middle.

    Raises:
        PatcError: sigma is out of its range, or the model has no layer for a crossbar.
    """

    def __init__(self, model: nn.Module, sigma: float = 0.04) -> None:
        if not (math.isfinite(sigma) and sigma > 0):
            raise PatcError(f"expected sigma to be finite and above 0, found {sigma}")
        self.sigma = sigma
        self.sites: list[Site] = [s for s in find_sites(model) if not isinstance(Crossbar().constrain(s), str)]
        if not self.sites:
            raise PatcError("expected a model with a convolution of one group or a linear layer, found none")

    def prepare(self) -> None:
        """Add noise from now on; a model that is prepared stays as it is."""
        for site in self.sites:
            if _find(site) is None:
                noise = _Noise(self.sigma, find_state(site)).train(site.module.training)
                parametrize.register_parametrization(site.module, site.parameter, noise)

    def finalize(self) -> None:
        """Compute without noise again; before a pruner is finalized."""
        for site in self.sites:
            place = _find(site)
            if place is None:
                continue
            chain = site.module.parametrizations[site.parameter]
            if len(chain) > 1:
                del chain[place]
            else:
                parametrize.remove_parametrizations(site.module, site.parameter, leave_parametrized=False)


class _Noise(nn.Module):
    def __init__(self, sigma: float, state: Masked | None) -> None:
        super().__init__()
        self.sigma = sigma
        self.masked = (state,)  # in a tuple: its tensors are not this module's

    def forward(self, weight: Tensor) -> Tensor:
        if not self.training:
            return weight
        largest = weight.detach().abs().flatten(1).amax(1).reshape(-1, *[1] * (weight.ndim - 1))
        noise = torch.randn_like(weight) * (self.sigma * largest)
        state = self.masked[0]
        return weight + (noise if state is None else torch.where(state.mask, noise, 0.0))

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


def _find(site: Site) -> int | None:
    """Return the place of the noise in what computes a weight."""
    if not parametrize.is_parametrized(site.module, site.parameter):
        return None
    chain = site.module.parametrizations[site.parameter]
    return next((place for place, each in enumerate(chain) if isinstance(each, _Noise)), None)
