"""Devices of a mapping as aihwkit has them: loaded with it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from aihwkit.inference.compensation.drift import GlobalDriftCompensation
from aihwkit.inference.converter.conductance import SinglePairConductanceConverter
from aihwkit.inference.noise.base import BaseNoiseModel
from torch import Tensor


class FixedRange(SinglePairConductanceConverter):
    """Pairs of devices of which a weight of 1 has the largest conductance, whatever other weights a tile has."""

    @torch.no_grad()
    def convert_to_conductances(self, weights: Tensor) -> tuple[list[Tensor], dict[str, Any]]:
        span = self.g_max - self.g_min
        found = [(sign * weights).clamp(0.0, 1.0) * span + self.g_min for sign in (1.0, -1.0)]
        return found, {"scale_ratio": span}


class Mapped(BaseNoiseModel):
    """The noise of another model, with none where a tile's row or column has no weights: there are no devices."""

    def __init__(self, noise: BaseNoiseModel, converter: FixedRange) -> None:
        super().__init__(converter)
        self.noise = copy.deepcopy(noise)
        self.noise.g_converter = converter

    @torch.no_grad()
    def apply_noise(self, weights: Tensor, t_inference: float) -> Tensor:
        return _where_devices_are(weights, self.noise.apply_noise(weights, t_inference))

    @torch.no_grad()
    def apply_programming_noise(self, weights: Tensor) -> tuple[Tensor, list[Tensor]]:
        noisy, drift = self.noise.apply_programming_noise(weights)
        return _where_devices_are(weights, noisy), drift

    @torch.no_grad()
    def apply_drift_noise(
        self, weights: Tensor, drift_noise_parameters: list[Tensor | None], t_inference: float
    ) -> Tensor:
        noisy = self.noise.apply_drift_noise(weights, drift_noise_parameters, t_inference)
        return _where_devices_are(weights, noisy)


class DriftOfDevices(GlobalDriftCompensation):
    """One factor a tile against drift, read from its devices alone: rows and columns without any would add the noise of
    converters that are not there, which does not drift."""

    @torch.no_grad()
    def init_baseline(self, tile: Any) -> Tensor:
        """Return what is read of each pair of devices (inputs, outputs) of a tile; 0 where there is none."""
        read = tile._forward_drift_readout_tensor(True)
        return torch.where(_find_devices(tile.tile.get_weights()).T, read.abs().clamp_min(1e-4), 0.0)

    @torch.no_grad()
    def apply(self, forward_output: Tensor, ref_value: Tensor) -> Tensor:
        """Return the factor that makes what is read now as large as what `init_baseline` read."""
        there = ref_value > 0
        if not bool(there.any()):
            return ref_value.new_ones(1)
        return self.readout(ref_value[there]) / self.readout(forward_output[there])


def _find_devices(weights: Tensor) -> Tensor:
    """Return where a tile has pairs of devices: where rows and columns that have a weight cross."""
    there = weights != 0
    return there.any(0, keepdim=True) & there.any(1, keepdim=True)


def _where_devices_are(weights: Tensor, noisy: Tensor) -> Tensor:
    return torch.where(_find_devices(weights), noisy, 0.0)
