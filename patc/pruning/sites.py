"""The weights of a model that can be pruned: where they are, and each as a matrix."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from patc.diagnostics import PatcError

Role = Literal["conv", "linear", "recurrent", "attention"]
_RNN_GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1, nn.LSTMCell: 4, nn.GRUCell: 3, nn.RNNCell: 1}


@dataclass(frozen=True)
class Site:
    """A weight of two or more dimensions.

    Its matrix has a row for each output and a column for each weight that an output has: of a convolution tap by tap,
    the input channels of a tap side by side, so that neighbouring columns read neighbouring channels.

    Attributes:
        name: of the module in the model, and of the parameter behind it unless that is `weight`: "lstm.weight_hh_l0".
        module: that holds the weight.
        parameter: its name there.
        role: what the weight is for. "attention" is what projects queries, keys and values in one matrix.
        gates: sections of as many rows each that are different things, such as the four gates of an LSTM.
        is_turned: whether the weight has its input channels in front, as that of a transposed convolution.
    """

    name: str
    module: nn.Module
    parameter: str
    role: Role
    gates: int = 1
    is_turned: bool = False

    @property
    def weight(self) -> Tensor:
        """The parameter, also where a parametrization computes what the module multiplies by."""
        if parametrize.is_parametrized(self.module, self.parameter):
            return self.module.parametrizations[self.parameter].original
        return getattr(self.module, self.parameter)

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Of the weight: filters, input channels / groups and the size of a kernel; input channels, filters / groups
        and so on of a transposed convolution; outputs and inputs of the others."""
        return tuple(self.weight.shape)

    @property
    def filters(self) -> int:
        return self.shape[int(self.is_turned)]

    @functools.cached_property
    def size(self) -> int:
        """Number of weights."""
        return self.weight.numel()

    def matrix(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the weight's shape as (rows, columns)."""
        turned = tensor.transpose(0, 1) if self.is_turned else tensor
        return turned.flatten(2).transpose(1, 2).flatten(1) if turned.ndim > 2 else turned

    def restore(self, matrix: Tensor) -> Tensor:
        """Undo `matrix`."""
        filters, channels, *kernel = (*self.shape[1::-1], *self.shape[2:]) if self.is_turned else self.shape
        turned = matrix.reshape(filters, -1, channels).transpose(1, 2).reshape(filters, channels, *kernel)
        return turned.transpose(0, 1) if self.is_turned else turned


def find_sites(model: nn.Module) -> list[Site]:
    """Return the weights of all convolutions, linear layers, recurrent layers and cells and attentions, in the order of
    the model's modules."""
    return [site for name, module in model.named_modules() for site in _sites_of(name, module)]


def _sites_of(name: str, module: nn.Module) -> Iterator[Site]:
    if isinstance(module, _ConvNd):
        yield Site(name, module, "weight", "conv", is_turned=isinstance(module, _ConvTransposeNd))
    elif isinstance(module, nn.Linear):
        yield Site(name, module, "weight", "linear")
    elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        gates = next((count for kind, count in _RNN_GATES.items() if isinstance(module, kind)), 1)
        for parameter in _matrices(module):
            # What projects an LSTM's output (weight_hr) has no gates.
            own = 1 if parameter.startswith("weight_hr") else gates
            yield Site(".".join(filter(None, (name, parameter))), module, parameter, "recurrent", own)
    elif isinstance(module, nn.MultiheadAttention):
        for parameter in _matrices(module):
            whole = ".".join(filter(None, (name, parameter)))
            yield Site(whole, module, parameter, "attention", 3 if parameter == "in_proj_weight" else 1)


def _matrices(module: nn.Module) -> list[str]:
    """Return the names of a module's own parameters of two dimensions that are weights, parametrized ones too."""
    parametrized = dict(module.parametrizations.items()) if parametrize.is_parametrized(module) else {}
    tensors = {name: parameter for name, parameter in module._parameters.items() if parameter is not None}
    tensors |= {name: chain.original for name, chain in parametrized.items()}
    found = [name for name, tensor in tensors.items() if "weight" in name and tensor.ndim == 2]
    order = getattr(module, "_flat_weights_names", sorted(found))  # parametrized ones come last otherwise
    return sorted(found, key=list(order).index)


def check_weight(site: Site) -> None:
    """Refuse a weight that cannot be pruned in place or is not finite.

    Raises:
        PatcError: it is not a plain parameter, or holds NaN or infinities.
    """
    # A parametrized weight, or one under torch.nn.utils.prune, is computed anew from other tensors: what is written to
    # it would be lost.
    if site.module._parameters.get(site.parameter) is None:
        raise PatcError(f"expected '{site.parameter}' to be a parameter, found a computed tensor", site.name)
    check_finite(site)


def check_finite(site: Site) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        PatcError: how many there are.
    """
    wrong = int((~torch.isfinite(site.weight)).sum())
    if wrong:
        raise PatcError(f"expected finite weights, found {wrong} that are NaN or infinite", site.name)
