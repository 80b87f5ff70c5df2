"""Recurrent nets for streams: the states of their layers come in beside the inputs and go out beside the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.frontend import ExampleInputs
from patc.frontend.modules import argument_names, check_inputs, check_module


def stepwise(model: Any, example_inputs: ExampleInputs) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a module that takes and returns states, and example inputs for it: the model's own, and zeros as states.

    The module takes the model's inputs by name, then for each recurrent layer "rnn" its state "rnn_hidden", and
    "rnn_cell" of an LSTM. It returns what the model does, and a dictionary of the states after the last step.

    Args:
        model: a torch.nn.Module in eval mode.
        example_inputs: as for `patc.compile`.

    Raises:
        PatcError: the model is of another kind, has no recurrent layers, or some that are no stream's.
    """
    if not isinstance(model, nn.Module):
        raise PatcError(f"expected a torch.nn.Module together with streaming, got {type(model).__name__}")
    if example_inputs is None:
        raise PatcError("expected example inputs together with streaming, found none")
    positional, named = check_inputs(model, example_inputs)
    check_module(model)
    layers = _recurrent_layers(model)
    if not layers:
        raise PatcError("expected a model with an nn.LSTM, nn.GRU or nn.RNN together with streaming, found none")
    both = [name or type(layer).__name__ for name, layer in layers.items() if layer.bidirectional]
    if both:
        raise PatcError(f"expected layers of one direction together with streaming, got {', '.join(both)} of both")
    given = named or dict(zip(argument_names(model, len(positional)), positional, strict=True))
    twin = _Stepwise(model, list(given), by_name=bool(named))
    with torch.no_grad():
        _, states = twin(**given)
    taken = sorted(set(states) & set(given))
    if taken:
        raise PatcError(f"expected inputs of other names than states together with streaming, found {taken[0]}")
    return twin, {**given, **{name: torch.zeros_like(state) for name, state in states.items()}}


class _Stepwise(nn.Module):
    """A model whose recurrent layers begin with states that are inputs, zeros where they are missing.

    Attributes:
        names: of the model's own inputs.
    """

    def __init__(self, model: nn.Module, names: list[str], by_name: bool) -> None:
        super().__init__()
        self.model, self.names, self.by_name = model, names, by_name
        self.eval()

    def forward(self, **given: Tensor) -> tuple[Any, dict[str, Tensor]]:
        made: dict[str, Tensor] = {}
        layers = _recurrent_layers(self.model)
        handles = []
        for name, layer in layers.items():
            handles.append(layer.register_forward_pre_hook(_begin(name, given), with_kwargs=True))
            handles.append(layer.register_forward_hook(_keep(name, made)))
        own = {name: given[name] for name in self.names}
        try:
            result = self.model(**own) if self.by_name else self.model(*own.values())
        finally:
            for handle in handles:
                handle.remove()
        return result, made


def _recurrent_layers(model: nn.Module) -> dict[str, nn.RNNBase]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.RNNBase)}


def _state_names(name: str, layer: nn.Module) -> list[str]:
    parts = ("hidden", "cell") if isinstance(layer, nn.LSTM) else ("hidden",)
    return ["_".join(filter(None, (name.replace(".", "_"), part))) for part in parts]


def _begin(name: str, given: Mapping[str, Tensor]) -> Any:
    """Return a hook that calls a layer with the states of the call before."""

    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x, *rest = [*args, *kwargs.values()]
        if any(value is not None for value in rest):
            raise PatcError(f"expected layer '{name}' to begin with no state of the model's together with streaming")
        states = tuple(given[each] for each in _state_names(name, layer) if each in given)
        return ((x, states if len(states) > 1 else states[0]) if states else (x,)), {}

    return hook


def _keep(name: str, made: dict[str, Tensor]) -> Any:
    """Return a hook that keeps the states after a call of a layer."""

    def hook(layer: nn.Module, args: Any, result: Any) -> None:
        states = result[1] if isinstance(layer, nn.LSTM) else result[1:]
        names = _state_names(name, layer)
        if names[0] in made:
            raise PatcError(f"expected layer '{name}' to be called once together with streaming, found twice")
        made.update(zip(names, states, strict=True))

    return hook
