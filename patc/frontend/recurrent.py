"""Recurrent modules of torch: their products with the input, and one operation for all steps of a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from patc.dialects.attributes import Activation
from patc.frontend.held import describe_layer

aten = torch.ops.aten
# It only has a shape: what is traced is never run.
_library = torch.library.Library("patc", "DEF")
_library.define(
    "recurrent(Tensor input, Tensor weight, Tensor hidden, Tensor? bias, Tensor? cell, Tensor? peepholes, "
    "Tensor? projection, Tensor? lengths, str layer) -> (Tensor, Tensor, Tensor)"
)
_SIGMOID, _TANH = Activation("sigmoid"), Activation("tanh")


@torch.library.impl(_library, "recurrent", "Meta")
def _shapes(input: torch.Tensor, weight: Any, hidden: torch.Tensor, bias: Any, cell: Any, *others: Any) -> Any:
    directions, sequences, outputs = hidden.shape
    y = input.new_empty((input.shape[0], sequences, directions * outputs))
    return y, torch.empty_like(hidden), torch.empty_like(hidden if cell is None else cell)


@dataclass(frozen=True)
class _Module:
    """The arguments that all recurrent modules of torch have.

    Attributes:
        parameters: of each layer and direction: weights of the input and of the state, their biases, a projection.
    """

    parameters: Sequence[torch.Tensor]
    has_biases: bool
    layers: int
    dropout: float
    train: bool
    bidirectional: bool
    batch_first: bool

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    def run(
        self, x: torch.Tensor, states: Sequence[torch.Tensor], mode: str, activations: tuple[Activation, ...]
    ) -> tuple[torch.Tensor, ...]:
        """Return the outputs, and the states after the last step, of all layers and directions.

        Args:
            states: before the first step: hidden ones, and cells where the mode has them.
        """
        x = _swap(x) if self.batch_first else x
        layer = describe_layer(mode, "both" if self.bidirectional else "forward", activations)
        last = []
        for number, (inputs, weight, bias, projection) in enumerate(self._layers()):
            rows = slice(number * self.directions, (number + 1) * self.directions)
            hidden, *cell = (state[rows] for state in states)
            products = aten.linear(x.reshape(-1, x.shape[2]), inputs[0], inputs[1]).reshape(*x.shape[:2], -1)
            others = bias, cell[0] if cell else None, None, projection, None
            x, *state = torch.ops.patc.recurrent(products, weight, hidden, *others, layer)
            last.append(state)
            if self.dropout and self.train and number + 1 < self.layers:
                x = aten.dropout(x, self.dropout, True)
        ends = [torch.cat(parts) for parts in zip(*last, strict=True)] if self.layers > 1 else last[0]
        return _swap(x) if self.batch_first else x, *ends[: len(states)]

    def _layers(self) -> Iterator[tuple[tuple[Any, Any], Any, Any, Any]]:
        """Yield weight and bias of the input's products, weight and bias of the state's, and the projection; directions
        one after the other."""
        count = len(self.parameters) // (self.layers * self.directions)
        for first in range(0, len(self.parameters), count * self.directions):
            ways = [self.parameters[first + count * way :][:count] for way in range(self.directions)]
            inputs, weight, *others = (_join(parts) for parts in zip(*ways, strict=True))
            biases, rest = (others[:2], others[2:]) if self.has_biases else ([None, None], others)
            yield (inputs, biases[0]), weight, biases[1], rest[0] if rest else None


def _join(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]


def _swap(x: torch.Tensor) -> torch.Tensor:
    """Exchange the first two axes; where one of them has one place, nothing moves."""
    first, second, *rest = x.shape
    return x.reshape(second, first, *rest) if 1 in (first, second) else x.transpose(0, 1)


def _lstm(x: torch.Tensor, states: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor], *options: Any) -> Any:
    return _Module(parameters, *options).run(x, states, "lstm", (_SIGMOID, _TANH, _TANH))


def _of_one_state(mode: str, *activations: Activation) -> Callable[..., Any]:
    def run(x: torch.Tensor, state: torch.Tensor, parameters: Sequence[torch.Tensor], *options: Any) -> Any:
        return _Module(parameters, *options).run(x, [state], mode, activations)

    return run


def _in_f32(operation: Any, build: Callable[..., Any]) -> Callable[..., Any]:
    """Return what builds an operation on f32; others are torch's own, a part for each step."""
    own = torch._decomp.decomposition_table[operation]

    def run(x: torch.Tensor, *others: Any) -> Any:
        return (build if x.dtype == torch.float32 else own)(x, *others)

    return run


_BUILT: dict[Any, Callable[..., Any]] = {
    aten.lstm.input: _lstm,
    aten.gru.input: _of_one_state("gru", _SIGMOID, _TANH),
    aten.rnn_tanh.input: _of_one_state("rnn", _TANH),
    aten.rnn_relu.input: _of_one_state("rnn", Activation("relu")),
}
RECURRENT = {operation: _in_f32(operation, build) for operation, build in _BUILT.items()}
