"""Activations on 256 levels while a model trains, so that its weights learn to live with what int8 code computes.

activations = Activations(model)
activations.prepare()                # before the optimizer, as `Pruner.prepare`
...                                  # train: in training mode ranges follow the data
ranges = activations.finalize()      # a plain model again
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.pruning.sites import find_sites

_NAME = "input_levels"  # of the module that a layer gets
_MOST = 255
_SHARE = 0.01  # of a batch in the moving average


class InputLevels(nn.Module):
    """Rounds a tensor to whole multiples of a scale around a zero point, one of each for the tensor, 256 levels in all.

    The levels reach from the smallest value to the largest, or to 0, as a moving average over the batches that were
    seen in training mode. Values beyond are cut off; gradients pass to the others straight.

    Attributes:
        range: smallest and largest value (2,).
        batches: that were seen.
    """

    range: Tensor
    batches: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("range", torch.zeros(2))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self._follow(x.detach())
        low, high = self.range[0], self.range[1]
        scale = ((high - low) / _MOST).clamp_min(torch.finfo(torch.float32).tiny * _MOST)
        zero = (-low / scale).round().to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, _MOST).to(x.dtype)

    def _follow(self, x: Tensor) -> None:
        if not x.numel():
            return
        found = torch.stack(torch.aminmax(x)).float()
        found = torch.stack([found[0].clamp_max(0.0), found[1].clamp_min(0.0)])
        self.range.copy_(torch.lerp(self.range, found, _SHARE) if self.batches else found)
        self.batches += 1


class Activations:
    """The inputs of all convolutions and linear layers of a model on levels. See the module for the order of calls.

    Ranges are in the state dict, as `<layer>.input_levels.range`: to go on from a checkpoint, prepare, then load it.

    Args:
        model: changed in place.

    Raises:
        PatcError: it has no convolution and no linear layer.
    """

    def __init__(self, model: nn.Module) -> None:
        sites = [site for site in find_sites(model) if site.role in ("conv", "linear")]
        self.layers: dict[str, Any] = {site.name: site.module for site in sites}
        if not self.layers:
            raise PatcError("expected a model with a convolution or a linear layer, found none")
        self._hooks: list[Any] = []

    def prepare(self) -> None:
        """Round the inputs from now on; a model that is prepared stays as it is."""
        for layer in self.layers.values():
            if not hasattr(layer, _NAME):
                device = next(layer.parameters()).device
                layer.add_module(_NAME, InputLevels().to(device).train(layer.training))
                self._hooks.append(layer.register_forward_pre_hook(_round_input))

    def follow(self, is_following: bool) -> None:
        """Say whether ranges follow the data, whatever the mode of the layers: what calibrates a trained model in eval
        mode. `model.train()` and `model.eval()` say so anew."""
        for layer in self.layers.values():
            layer.get_submodule(_NAME).train(is_following)

    def finalize(self) -> dict[str, tuple[float, float]]:
        """Return the range of each layer's input by name, and leave the model without levels.

        Raises:
            PatcError: a layer has seen no batch in training mode.
        """
        ranges = {}
        for name, layer in self.layers.items():
            levels = layer.get_submodule(_NAME)
            if not levels.batches:
                raise PatcError("expected a layer whose input was seen in training, found no batch of it", name)
            ranges[name] = (float(levels.range[0]), float(levels.range[1]))
        for layer in self.layers.values():
            delattr(layer, _NAME)
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        return ranges


def _round_input(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return layer.get_submodule(_NAME)(inputs[0]), *inputs[1:]
