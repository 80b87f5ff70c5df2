"""A mapped model in aihwkit, IBM's kit for analog hardware, which programs devices with noise and lets them drift."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from patc.crossbar.mapping import CrossbarMap
from patc.diagnostics import PatcError, first_line

if TYPE_CHECKING:
    from aihwkit.inference.noise.base import BaseNoiseModel

INSTALL = "pip install --no-deps aihwkit==1.1.0"  # 1.2.0 has to be compiled


def to_aihwkit(model: nn.Module, mapping: CrossbarMap, noise: BaseNoiseModel | None = None) -> Any:
    """Return a copy of a model whose mapped layers are aihwkit's, in eval mode.

        analog = to_aihwkit(model, patc.crossbar.map(model))
        analog.program_analog_weights()          # noise of programming, another one in each call
        analog.drift_analog_weights(86400.0)     # a day later

    Tiles are of the size of the mapping; devices have its conductances, and the scales of columns are digital. Columns
    and rows of a tile without weights have no devices, and so no noise; nor have such columns converters, and what is
    read against drift is that of devices. Inputs, those of such rows included, and outputs are converted as aihwkit
    does by default.

    Args:
        model: that `mapping` is of.
        mapping: `patc.crossbar.map(model)`.
        noise: of devices; that of phase change memory by default. Its converter is replaced by that of the mapping.

    Raises:
        PatcError: aihwkit is not there or does not load, or the model has layers that it does not know.
    """
    try:
        from aihwkit.inference import PCMLikeNoiseModel
        from aihwkit.nn.conversion import convert_to_analog
        from aihwkit.simulator.configs import TorchInferenceRPUConfig

        from patc.crossbar.devices import DriftOfDevices, FixedRange, Mapped
    except ImportError as error:
        raise PatcError(f"expected aihwkit ({INSTALL}), found none that loads: {first_line(error)}") from None
    config = TorchInferenceRPUConfig()
    config.mapping.max_input_size = config.mapping.max_output_size = mapping.size
    config.mapping.weight_scaling_omega, config.mapping.weight_scaling_columnwise = 1.0, True
    converter = FixedRange(mapping.most, mapping.least)
    config.drift_compensation = DriftOfDevices()
    config.noise_model = Mapped(noise or PCMLikeNoiseModel(g_max=mapping.most), converter)
    names = {layer.name for layer in mapping.layers}
    digital = [name for name, module in model.named_modules() if name not in names and _is_leaf(module)]
    analog = convert_to_analog(copy.deepcopy(model), config, exclude_modules=digital)
    for layer in mapping.layers:
        found = analog.get_submodule(layer.name)
        span = mapping.most - mapping.least
        weights = (layer.positive - layer.negative) / span
        _set(found.analog_module, weights, layer.scales * span)
    return analog.eval()


def _is_leaf(module: nn.Module) -> bool:
    return not any(True for _ in module.children())


def _set(tiles: Any, weights: Tensor, scales: Tensor) -> None:
    """Give a layer's tiles weights from -1 to 1 (outputs, inputs), and a factor an output."""
    if not hasattr(tiles, "array"):
        _set_tile(tiles, weights, scales)
        return
    for row, columns in zip(tiles.array, weights.split(tiles.in_sizes, 1), strict=True):
        for tile, part, factors in zip(row, columns.split(tiles.out_sizes), scales.split(tiles.out_sizes), strict=True):
            _set_tile(tile, part, factors)


@torch.no_grad()
def _set_tile(tile: Any, weights: Tensor, scales: Tensor) -> None:
    tile.tile.set_weights(weights.contiguous())
    # A column without weights is read by no converter, which would add its noise times the scale.
    scales = torch.where((weights != 0).any(1), scales, 0.0)
    tile.set_scales(scales)
    # aihwkit divides gradients by squares of scales.
    tile.tile.weight.register_hook(lambda gradient: torch.where(scales[:, None] == 0, 0.0, gradient))
