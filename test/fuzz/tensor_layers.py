"""Layers of random networks beside convolutions and pools: what detectors, transformers and decoders are made of."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Layer = dict[str, Any]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU, "gelu": nn.GELU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid, "leaky": lambda: nn.LeakyReLU(0.1), "elu": nn.ELU, "softplus": nn.Softplus,
    "mish": nn.Mish, "gelu_tanh": lambda: nn.GELU("tanh"),
}  # fmt: skip
KINDS = ("smooth", "softmax", "norm", "transposed", "resize", "shuffle", "slice", "permute")


class Concat(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y], 1)


class Slice(nn.Module):
    """Part of a tensor along an axis."""

    def __init__(self, axis: int, start: int, stop: int | None, step: int) -> None:
        super().__init__()
        self.axis, self.part = axis, slice(start, stop, step)

    def forward(self, x: Tensor) -> Tensor:
        return x[(slice(None),) * self.axis + (self.part,)]


class Permute(nn.Module):
    """Axes in another order, and back after an activation, as nets of other frameworks have it."""

    def __init__(self, order: Sequence[int], back: bool) -> None:
        super().__init__()
        self.order, self.back = list(order), back

    def forward(self, x: Tensor) -> Tensor:
        order = [i for i in self.order if i < x.ndim]
        y = x.permute(order)
        return torch.tanh(y).permute([order.index(i) for i in range(x.ndim)]) if self.back else y.contiguous()


class Bytes(nn.Module):
    """Whole numbers as they come, from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(1 / 255.0))

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.scale.dtype) * self.scale


class Normed(nn.Module):
    """Layer norm along one axis."""

    def __init__(self, axis: int, size: int) -> None:
        super().__init__()
        self.axis, self.norm = axis, nn.LayerNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(self.axis, -1)).transpose(self.axis, -1)


def draw_layer(kind: str, choices: random.Random) -> Layer:
    """Return a layer of one of `KINDS`, or "concat"."""
    return {"op": kind, **_DRAW[kind](choices)}


_DRAW: dict[str, Callable[[random.Random], Layer]] = {
    "concat": lambda choices: {"back": choices.randint(1, 4)},
    "smooth": lambda choices: {"name": choices.choice([*ACTIVATIONS, "prelu"])},
    "softmax": lambda choices: {"axis": choices.choice([1, 1, 2, -1]), "log": choices.random() < 0.3},
    "norm": lambda choices: {"name": choices.choice(["layer", "last", "group", "instance"])},
    "transposed": lambda choices: {
        "filters": choices.choice([1, 2, 4, 8, 17]),
        "kernel": choices.choice([[2, 2], [2, 2], [3, 3], [4, 4], [1, 3], [5, 4]]),
        "stride": choices.choice([[2, 2], [2, 2], [1, 1], [2, 1], [3, 3]]),
        "pad": choices.choice([[0, 0], [1, 1], [0, 1]]),
        "more": choices.choice([[0, 0], [0, 0], [1, 1], [0, 1]]),
        "groups": choices.choice([1, 1, 1, 2, "depthwise"]),
        "bias": choices.random() < 0.6,
    },
    "resize": lambda choices: {"mode": choices.choice(["nearest", "bilinear", "corners"]), "scale": choices.choice([2, 2, 3, 1.5, 0.5])},
    "shuffle": lambda choices: {"name": choices.choice(["up", "down", "channels"]), "factor": choices.choice([2, 2, 3])},
    "slice": lambda choices: {
        "axis": choices.choice([1, 1, 1, 2, 3]), "start": choices.choice([0, 0, 1, 2, -3]),
        "stop": choices.choice([None, None, -1, 4]), "step": choices.choice([1, 1, 1, 2]),
    },
    "permute": lambda choices: {"order": choices.choice([[0, 2, 3, 1], [0, 3, 2, 1], [0, 1, 3, 2]]), "keep": choices.random() < 0.7},
}  # fmt: skip


def make_layer(layer: Layer, x: Tensor, generator: torch.Generator) -> nn.Module | None:
    """Return the module of a layer of `KINDS` for an input, or None where it fits no such input."""
    op, rank = layer["op"], x.ndim
    if op == "smooth":
        return _make_activation(layer["name"], x, generator)
    if op == "slice":
        return Slice(min(layer["axis"], rank - 1), layer["start"], layer["stop"], layer["step"])
    if rank < 3:
        return _softmax(layer) if op == "softmax" and layer["axis"] < rank else None
    if op == "softmax":
        return _softmax(layer)
    if op == "norm":
        return _make_norm(layer["name"], x, generator)
    if op == "permute":
        return Permute(layer["order"], layer["keep"])
    if rank != 4:
        return None
    if op == "resize":
        mode = {"corners": "bilinear"}.get(layer["mode"], layer["mode"])
        corners = None if mode == "nearest" else layer["mode"] == "corners"
        return nn.Upsample(scale_factor=layer["scale"], mode=mode, align_corners=corners)
    return _make_transposed(layer, x.shape[1], generator) if op == "transposed" else _make_shuffle(layer, x.shape[1])


def _softmax(layer: Layer) -> nn.Module:
    return nn.LogSoftmax(layer["axis"]) if layer["log"] else nn.Softmax(layer["axis"])


def _make_activation(name: str, x: Tensor, generator: torch.Generator) -> nn.Module | None:
    if name != "prelu":
        return ACTIVATIONS[name]()
    if x.ndim < 2:
        return None
    module = nn.PReLU(x.shape[1])
    module.weight.data.uniform_(-0.5, 1.5, generator=generator)
    return module


def _make_norm(name: str, x: Tensor, generator: torch.Generator) -> nn.Module | None:
    channels = x.shape[1]
    if name == "instance":
        module: nn.Module = (nn.InstanceNorm2d if x.ndim == 4 else nn.InstanceNorm1d)(channels, affine=True)
    elif name == "group":
        module = nn.GroupNorm(2 if channels % 2 == 0 else 1, channels)
    else:
        axis = 1 if name == "layer" else x.ndim - 1
        module = Normed(axis, x.shape[axis])
    for parameter in module.parameters():
        parameter.data.uniform_(0.5, 1.5, generator=generator)
    # The spread of one or two numbers is all rounding.
    return module if x[0].numel() >= 8 * channels or name == "group" else None


def _make_transposed(layer: Layer, channels: int, generator: torch.Generator) -> nn.Module | None:
    groups = channels if layer["groups"] == "depthwise" else layer["groups"]
    filters = -(-layer["filters"] // groups) * groups
    if channels % groups or any(more >= stride for more, stride in zip(layer["more"], layer["stride"], strict=True)):
        return None
    sizes = (layer["kernel"], layer["stride"], layer["pad"], layer["more"], groups)
    module = nn.utils.skip_init(nn.ConvTranspose2d, channels, filters, *sizes, bias=layer["bias"])
    for parameter in module.parameters():
        parameter.data.normal_(0.0, 0.3, generator=generator)
    return module


def _make_shuffle(layer: Layer, channels: int) -> nn.Module | None:
    factor = layer["factor"]
    if layer["name"] == "down":
        return nn.PixelUnshuffle(factor)
    if layer["name"] == "up":
        return nn.PixelShuffle(factor) if channels % factor**2 == 0 else None
    return nn.ChannelShuffle(factor) if channels % factor == 0 else None
