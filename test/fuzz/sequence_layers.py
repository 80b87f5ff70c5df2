"""Layers of random networks over time, over volumes, and of several inputs: attention, recurrent ones, borders."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Layer = dict[str, Any]

KINDS = ("border", "attention", "recurrent", "batches", "volume", "volume_pool", "features", "use", "fold")
# Inputs beside the first one, by what they do: the element type, and the shape for N, C and the rest.
INPUTS: dict[str, tuple[torch.dtype, Callable[[Sequence[int]], list[int]]]] = {
    "mask": (torch.bool, lambda shape: [shape[0], 1, *shape[2:]]),
    "count": (torch.int32, lambda shape: [shape[0], 1, *[1] * len(shape[2:])]),
    "index": (torch.int64, lambda shape: [5]),
    "gate": (torch.float32, lambda shape: [shape[0], shape[1], *[1] * len(shape[2:])]),
    "bytes": (torch.uint8, lambda shape: list(shape)),
    "more": (torch.float32, lambda shape: list(shape)),
}
_WORDS = 11  # of the table for tokens


class Border(nn.Module):
    def __init__(self, pad: Sequence[int], mode: str) -> None:
        super().__init__()
        self.pad, self.mode = list(pad), mode

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, self.pad[: 2 * (x.ndim - 2)], self.mode)


class Attention(nn.Module):
    """Attention of the positions of N, C, ... among each other."""

    def __init__(self, channels: int, heads: int, is_causal: bool) -> None:
        super().__init__()
        self.heads, self.is_causal = heads, is_causal
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        n, t, c = tokens.shape
        q, k, v = self.qkv(tokens).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal)
        y = self.out(y.transpose(1, 2).reshape(n, t, c)) + tokens
        return y.transpose(1, 2).reshape(x.shape)


class Recurrent(nn.Module):
    """A recurrent layer over the last axis of N, C, T."""

    def __init__(self, name: str, channels: int, hidden: int, layers: int, both: bool) -> None:
        super().__init__()
        self.net = getattr(nn, name)(channels, hidden, layers, batch_first=True, bidirectional=both)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.transpose(1, 2))[0].transpose(1, 2)


class Batches(nn.Module):
    """Two tensors above each other, along the batch, and perhaps their means."""

    def __init__(self, is_folded: bool) -> None:
        super().__init__()
        self.is_folded = is_folded

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        both = torch.cat([x, y], 0)
        return both.unflatten(0, (2, x.shape[0])).mean(0) if self.is_folded else both


class Features(nn.Module):
    """A linear layer along the last axis."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Fold(nn.Module):
    """Fewer or more axes behind N and C."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2) if x.ndim > 3 else x.unsqueeze(-1)


class Use(nn.Module):
    """What becomes of a value and another input of the network."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        if self.name == "mask":
            return x.masked_fill(other, 0.5)
        if self.name == "index":
            return x.index_select(1, other)
        if self.name in ("gate", "count"):
            return x * other
        return x + other


class Tokens(nn.Module):
    """Vectors of a table for N, T words: N, C, T."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.table = nn.Embedding(_WORDS, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x).transpose(1, 2)


def draw_layer(kind: str, choices: random.Random) -> Layer:
    """Return a layer of one of `KINDS`."""
    return {"op": kind, **_DRAW[kind](choices)}


_DRAW: dict[str, Callable[[random.Random], Layer]] = {
    "border": lambda choices: {
        "pad": choices.choice([[1, 1, 1, 1, 1, 1], [2, 1, 0, 3, 0, 0], [3, 3, 3, 3, 1, 1], [0, 1, 0, 1, 0, 1], [1, 0, 0, 0, 0, 0]]),
        "mode": choices.choice(["reflect", "replicate", "circular", "constant"]),
    },
    "attention": lambda choices: {"heads": choices.choice([1, 2, 4]), "causal": choices.random() < 0.3},
    "recurrent": lambda choices: {
        "name": choices.choice(["LSTM", "GRU", "RNN"]), "hidden": choices.choice([1, 3, 8, 17]),
        "count": choices.choice([1, 1, 2]), "both": choices.random() < 0.4,
    },
    "batches": lambda choices: {"back": choices.randint(1, 4), "fold": choices.random() < 0.6},
    "volume": lambda choices: {
        "filters": choices.choice([1, 2, 4, 8, 17]), "kernel": choices.choice([[3, 3, 3], [1, 3, 3], [3, 1, 1], [1, 1, 1], [2, 2, 2]]),
        "stride": choices.choice([[1, 1, 1], [1, 1, 1], [2, 2, 2], [1, 2, 2]]), "pad": choices.choice([[0, 0, 0], [1, 1, 1], [0, 1, 1]]),
        "groups": choices.choice([1, 1, 1, 2, "depthwise"]), "bias": choices.random() < 0.6, "transposed": choices.random() < 0.15,
    },
    "volume_pool": lambda choices: {"name": choices.choice(["MaxPool3d", "AvgPool3d"]), "kernel": choices.choice([2, 2, 3, [1, 2, 2]])},
    "features": lambda choices: {"outputs": choices.choice([1, 5, 8, 16]), "bias": choices.random() < 0.8},
    "use": lambda choices: {"name": choices.choice(list(INPUTS))},
    "fold": lambda choices: {},
}  # fmt: skip


def make_layer(layer: Layer, x: Tensor, generator: torch.Generator) -> nn.Module | None:
    """Return the module of a layer of `KINDS` for a value, or None where it fits no such value."""
    op, rank = layer["op"], x.ndim
    if rank < 3:
        return None
    if op == "border":
        return Border(layer["pad"], layer["mode"])
    if op == "attention":
        module: nn.Module | None = _make_attention(layer, x)
    elif op == "recurrent":
        sizes = (layer["name"], x.shape[1], layer["hidden"], layer["count"], layer["both"])
        module = Recurrent(*sizes) if rank == 3 else None
    elif op == "features":
        module = Features(x.shape[-1], layer["outputs"], layer["bias"])
    elif op == "fold":
        module = Fold()
    elif rank != 5:
        return None
    elif op == "volume_pool":
        module = getattr(nn, layer["name"])(layer["kernel"])
    else:
        module = _make_volume(layer, x.shape[1])
    for parameter in [] if module is None else module.parameters():
        parameter.data.normal_(0.0, 1 / math.sqrt(parameter[0].numel()), generator=generator)
    return module


def _make_attention(layer: Layer, x: Tensor) -> nn.Module | None:
    is_small = x[0, 0].numel() <= 256
    return (
        Attention(x.shape[1], layer["heads"], layer["causal"])
        if x.shape[1] % layer["heads"] == 0 and is_small
        else None
    )


def _make_volume(layer: Layer, channels: int) -> nn.Module | None:
    groups = channels if layer["groups"] == "depthwise" else layer["groups"]
    if channels % groups:
        return None
    filters = -(-layer["filters"] // groups) * groups
    kind = nn.ConvTranspose3d if layer["transposed"] else nn.Conv3d
    return kind(channels, filters, layer["kernel"], layer["stride"], layer["pad"], groups=groups, bias=layer["bias"])


def make_tokens(channels: int, generator: torch.Generator) -> nn.Module:
    """Return the first layer of a network of words."""
    module = Tokens(channels)
    module.table.weight.data.normal_(0.0, 1.0, generator=generator)
    return module


def draw_input(name: str, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return an input for one of `INPUTS`, for a first one of a shape."""
    dtype, shape_of = INPUTS[name]
    size = shape_of(shape)
    if dtype == torch.bool:
        return torch.rand(size, generator=generator) < 0.3
    if dtype.is_floating_point:
        return torch.randn(size, generator=generator)
    most = shape[1] if name == "index" else 256 if dtype == torch.uint8 else 9
    return torch.randint(most, size, generator=generator, dtype=dtype)


def draw_words(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return N, T words for a network whose values are N, C, T."""
    return torch.randint(_WORDS, (shape[0], shape[2]), generator=generator)
