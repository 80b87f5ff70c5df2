"""Random networks: layers as JSON values, and the torch modules that they stand for.

A network is a list of layers that each take the value before them; `add` takes an earlier one too, and `use` another
input of the network. A layer that does not fit its input is left out, so that any part of a list is a network.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import sequence_layers
import tensor_layers
import torch
from conv_layers import draw_conv, make_conv, make_conv_1d, make_linear
from sequence_layers import INPUTS, Batches, Use, draw_input, draw_words, make_tokens
from tensor_layers import Bytes, Concat
from torch import Tensor, nn

Layer = dict[str, Any]

MOST_ELEMENTS = 40_000
_OTHERS = (*tensor_layers.KINDS, *sequence_layers.KINDS)


class Network(nn.Module):
    """Layers in a row.

    Args:
        layers: in order.
        sources: what each takes beside the value before it: an earlier value by its number, an input by its name.
        returned: which values come back, the last one first.
    """

    def __init__(
        self, layers: Sequence[nn.Module], sources: Sequence[int | str | None], returned: Sequence[int]
    ) -> None:
        super().__init__()
        self.layers, self.sources, self.returned = nn.ModuleList(layers), list(sources), list(returned)
        self.others = list(dict.fromkeys(source for source in sources if isinstance(source, str)))

    def forward(self, x: Tensor, *others: Tensor) -> Any:
        values, inputs = [x], dict(zip(self.others, others, strict=True))
        for layer, source in zip(self.layers, self.sources, strict=True):
            more = () if source is None else (inputs[source] if isinstance(source, str) else values[source],)
            values.append(layer(values[-1], *more))
        results = [values[i] for i in self.returned]
        return results[0] if len(results) == 1 else tuple(results)


class Add(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Clamp(nn.Module):
    def __init__(self, low: float | None, high: float | None) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x, self.low, self.high)


class Mean(nn.Module):
    def __init__(self, keep: bool) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=self.keep)


def draw_layers(choices: random.Random, count: int) -> list[Layer]:
    """Draw about `count` layers and perhaps a classifier."""
    layers: list[Layer] = []
    for _ in range(count):
        kind = choices.choices(
            ["conv", "activation", "max_pool", "avg_pool", "add", "adaptive", "concat", *_OTHERS],
            [10, 2, 2, 2, 3, 0.5, 2] + [0.7] * len(_OTHERS),
        )[0]
        home = sequence_layers if kind in sequence_layers.KINDS else tensor_layers
        layers.append(_DRAW[kind](choices) if kind in _DRAW else home.draw_layer(kind, choices))
        if kind in ("conv", "add") and choices.random() < 0.6:
            layers.append(_draw_activation(choices))
    if choices.random() < 0.3:
        layers.append(choices.choice([{"op": "mean", "keep": choices.random() < 0.5}, {"op": "adaptive", "size": 1}]))
    if choices.random() < 0.3:
        layers.append({"op": "flatten"})
        for _ in range(choices.choice([1, 1, 2])):
            layers.append({"op": "linear", "outputs": choices.choice([1, 3, 10, 17]), "bias": choices.random() < 0.8})
            if choices.random() < 0.4:
                layers.append({"op": "relu"})
    return layers


def _draw_activation(choices: random.Random) -> Layer:
    low, high = sorted([round(choices.uniform(-2, 1), 3), round(choices.uniform(-1, 3), 3)])
    bounds = choices.choice([[low, high], [low, None], [None, high], [0.0, high]])
    return choices.choice(
        [{"op": "relu"}] * 4 + [{"op": "relu6"}] * 2 + [{"op": "clamp", "bounds": bounds}, {"op": "hardtanh"}]
    )


def _draw_pool(choices: random.Random) -> Layer:
    size = choices.choice([[2, 2]] * 3 + [[3, 3]] * 3 + [[1, 1], [3, 2], [1, 2], [4, 4], [5, 5]])
    return {
        "kernel": size,
        "stride": choices.choice([None, [1, 1], [2, 2], [2, 2], [3, 3], [2, 1]]),
        "pad": choices.choice([[0, 0], [0, 0], [size[0] // 2, size[1] // 2]]),
        "ceil": choices.random() < 0.25,
    }


def _draw_add(choices: random.Random) -> Layer:
    return {"op": "add", "back": choices.randint(1, 4), "alpha": 1}


_DRAW = {
    "conv": draw_conv,
    "activation": _draw_activation,
    "max_pool": lambda choices: {"op": "max_pool", **_draw_pool(choices), "dilation": choices.choice([1, 1, 1, 2])},
    "avg_pool": lambda choices: {"op": "avg_pool", **_draw_pool(choices), "borders": choices.random() < 0.5},
    "add": _draw_add,
    "adaptive": lambda choices: {"op": "adaptive", "size": choices.choice([1, 1, 2])},
}


def build_network(
    layers: Sequence[Layer], shape: Sequence[int], seed: int, extra: int | None, first: str = ""
) -> Network:
    """Return the network of a list of layers.

    Args:
        layers: what was drawn, or a part of it.
        shape: N, C, and one to three more sizes of the first input.
        seed: of the weights.
        extra: which earlier value is returned beside the last one, counted from the end; None for none.
        first: "bytes" for an input of uint8, "words" for one of N, T numbers of words where the shape is N, C, T.
    """
    generator = torch.Generator().manual_seed(seed)
    modules: list[nn.Module] = [Bytes()] if first == "bytes" else []
    values = [torch.zeros(*shape)] * (1 + len(modules))
    if first == "words":
        modules = [make_tokens(shape[1], generator)]
        values = [draw_words(shape, generator), torch.zeros(*shape)]
    sources: list[int | str | None] = [None] * len(modules)
    others = {name: draw_input(name, shape, generator) for name in INPUTS}
    for layer in layers:
        made = _make(layer, values, generator)
        if made is None:
            continue
        module, source = made
        more = () if source is None else (others[source] if isinstance(source, str) else values[source],)
        try:
            result = module(values[-1], *more)
        except (RuntimeError, ValueError, IndexError, NotImplementedError):
            continue  # a window larger than its input, or groups that do not divide the channels
        if not 0 < result.numel() <= MOST_ELEMENTS:
            continue
        modules.append(module)
        sources.append(source)
        values.append(result)
    returned = [len(values) - 1]
    if extra is not None and 1 <= len(values) - 1 - extra < len(values) - 1:
        returned.append(len(values) - 1 - extra)
    return Network(modules, sources, returned).eval().requires_grad_(False)


def make_others(network: Network, shape: Sequence[int], seed: int) -> list[Tensor]:
    """Return the inputs of a network beside the first one, for one of a shape."""
    generator = torch.Generator().manual_seed(seed)
    return [draw_input(name, shape, generator) for name in network.others]


def _make(
    layer: Layer, values: Sequence[Tensor], generator: torch.Generator
) -> tuple[nn.Module, int | str | None] | None:
    x, op = values[-1], layer["op"]
    if op in _JOINS:
        join, is_alike = _JOINS[op]
        alike = [i for i, value in enumerate(values) if value.is_floating_point() and is_alike(value, x)]
        return (join(layer), alike[-min(layer["back"], len(alike))]) if alike else None
    if op == "use":
        return Use(layer["name"]), layer["name"]
    if op in _ANY_RANK:
        return _ANY_RANK[op](layer), None
    if op in tensor_layers.KINDS:
        made = tensor_layers.make_layer(layer, x, generator)
    elif op in sequence_layers.KINDS:
        made = sequence_layers.make_layer(layer, x, generator)
    elif op == "linear":
        made = make_linear(layer, x.shape[1], generator) if x.ndim == 2 else None
    elif op == "conv":
        made = {3: make_conv_1d, 4: make_conv}.get(x.ndim, lambda *_: None)(layer, x.shape[1], generator)
    else:
        made = _POOLS[op](layer) if x.ndim == 4 else None
    return None if made is None else (made, None)


_JOINS: dict[str, tuple[Any, Any]] = {
    "add": (lambda layer: Add(), lambda value, x: value.shape == x.shape and x.ndim >= 3),
    "concat": (lambda layer: Concat(), lambda value, x: value.ndim == x.ndim > 2 and value.shape[2:] == x.shape[2:]),
    "batches": (lambda layer: Batches(layer["fold"]), lambda value, x: value.shape == x.shape and x.ndim >= 3),
}
_ANY_RANK = {
    "relu": lambda layer: nn.ReLU(),
    "relu6": lambda layer: nn.ReLU6(),
    "hardtanh": lambda layer: nn.Hardtanh(),
    "clamp": lambda layer: Clamp(*layer["bounds"]),
    "flatten": lambda layer: nn.Flatten(),
}
_POOLS = {
    "max_pool": lambda layer: nn.MaxPool2d(
        layer["kernel"], layer["stride"], layer["pad"], layer["dilation"], ceil_mode=layer["ceil"]
    ),
    "avg_pool": lambda layer: nn.AvgPool2d(
        layer["kernel"], layer["stride"], layer["pad"], layer["ceil"], count_include_pad=layer["borders"]
    ),
    "adaptive": lambda layer: nn.AdaptiveAvgPool2d(layer["size"]),
    "mean": lambda layer: Mean(layer["keep"]),
}
