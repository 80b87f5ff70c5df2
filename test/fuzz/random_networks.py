"""Random networks: layers as JSON values, and the torch modules that they stand for.

A network is a list of layers that each take the value before them; `add` takes an earlier one too. A layer that does
not fit its input is left out, so that any part of a list is a network.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from tensor_layers import KINDS, Bytes, Concat, draw_layer, make_layer
from torch import Tensor, nn

Layer = dict[str, Any]

# Masks of 3x3 kernels, bit by bit in rows: four taps, as the default library has them, and a few others.
MASKS = (27, 54, 216, 432, 58, 154, 178, 184, 16, 186, 325)
MOST_ELEMENTS = 40_000


class Network(nn.Module):
    """Layers in a row; `returned` says which values come back, the last one first."""

    def __init__(self, layers: Sequence[nn.Module], sources: Sequence[int | None], returned: Sequence[int]) -> None:
        super().__init__()
        self.layers, self.sources, self.returned = nn.ModuleList(layers), list(sources), list(returned)

    def forward(self, x: Tensor) -> Any:
        values = [x]
        for layer, source in zip(self.layers, self.sources, strict=True):
            values.append(layer(values[-1]) if source is None else layer(values[-1], values[source]))
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


class PerChannel(nn.Module):
    """Arithmetic with a number, or with one number a channel."""

    def __init__(self, operation: str, operand: Any) -> None:
        super().__init__()
        self.operation = operation
        if isinstance(operand, Tensor):
            self.register_buffer("operand", operand)
        else:
            self.operand = operand

    def forward(self, x: Tensor) -> Tensor:
        return {"mul": torch.mul, "add": torch.add, "sub": torch.sub, "div": torch.div}[self.operation](x, self.operand)


def draw_layers(choices: random.Random, count: int) -> list[Layer]:
    """Draw about `count` layers and perhaps a classifier."""
    layers: list[Layer] = []
    for _ in range(count):
        kind = choices.choices(
            ["conv", "activation", "max_pool", "avg_pool", "add", "adaptive", "concat", *KINDS],
            [10, 2, 2, 2, 3, 0.5, 2] + [0.7] * len(KINDS),
        )[0]
        layers.append(_DRAW[kind](choices) if kind in _DRAW else draw_layer(kind, choices))
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


def _draw_conv(choices: random.Random) -> Layer:
    size = choices.choice([[3, 3]] * 8 + [[1, 1]] * 4 + [[5, 5], [7, 7], [1, 3], [3, 1], [2, 2], [4, 4], [3, 5]])
    stride = choices.choice([[1, 1]] * 4 + [[2, 2]] * 2 + [[1, 2], [3, 3], [2, 1]])
    same = [size[0] // 2, size[1] // 2]
    pad = choices.choice([same] * 5 + [[0, 0], [1, 0], [0, 2], [3, 3], "same"])
    return {
        "op": "conv",
        "filters": choices.choice([1, 2, 3, 4, 6, 8, 8, 12, 16, 16, 17, 20, 32, 33, 48]),
        "kernel": size,
        "stride": [1, 1] if pad == "same" else stride,
        "pad": pad,
        "extra": choices.choice([None] * 12 + [[0, 1, 0, 1], [1, 0, 2, 0], [2, 1], [0, 0, 3, 1]]),
        "dilation": choices.choice([[1, 1]] * 8 + [[2, 2], [1, 2], [3, 1]]),
        "groups": choices.choice([1] * 7 + ["depthwise"] * 3 + [2, 3, 4]),
        "bias": choices.random() < 0.6,
        "zeros": choices.choice(
            ["patterns"] * 4 + ["none"] * 4 + ["any", "any", "filters", "kernels", "groups", "all"]
        ),
        "keep": choices.choice([0.1, 0.3, 0.3, 0.6, 1.0]),
        "norm": choices.random() < 0.35,
        "after": choices.choice([None] * 8 + ["mul", "add", "sub", "div"]),
        "operand": choices.choice(["number", "number", "scalar", "channels", "channels", "double"]),
    }


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
    "conv": _draw_conv,
    "activation": _draw_activation,
    "max_pool": lambda choices: {"op": "max_pool", **_draw_pool(choices), "dilation": choices.choice([1, 1, 1, 2])},
    "avg_pool": lambda choices: {"op": "avg_pool", **_draw_pool(choices), "borders": choices.random() < 0.5},
    "add": _draw_add,
    "adaptive": lambda choices: {"op": "adaptive", "size": choices.choice([1, 1, 2])},
}


def build_network(
    layers: Sequence[Layer], shape: Sequence[int], seed: int, extra: int | None, is_bytes: bool = False
) -> Network:
    """Return the network of a list of layers.

    Args:
        layers: what was drawn, or a part of it.
        shape: N, C, H, W of the input, or N, C, W.
        seed: of the weights.
        extra: which earlier value is returned beside the last one, counted from the end; None for none.
        is_bytes: whether its input is of uint8.
    """
    generator = torch.Generator().manual_seed(seed)
    modules: list[nn.Module] = [Bytes()] if is_bytes else []
    sources: list[int | None] = [None] * len(modules)
    values = [torch.zeros(*shape)] * (1 + len(modules))
    for layer in layers:
        made = _make(layer, values, generator)
        if made is None:
            continue
        module, source = made
        try:
            result = module(values[-1]) if source is None else module(values[-1], values[source])
        except (RuntimeError, ValueError):
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


def _make(layer: Layer, values: Sequence[Tensor], generator: torch.Generator) -> tuple[nn.Module, int | None] | None:
    x, op = values[-1], layer["op"]
    if op == "add":
        alike = [i for i, value in enumerate(values) if value.shape == x.shape and x.ndim == 4]
        return (Add(), alike[-min(layer["back"], len(alike))]) if alike else None
    if op == "concat":
        alike = [i for i, value in enumerate(values) if value.ndim == x.ndim > 2 and value.shape[2:] == x.shape[2:]]
        return (Concat(), alike[-min(layer["back"], len(alike))]) if alike else None
    if op in KINDS:
        made = make_layer(layer, x, generator)
        return None if made is None else (made, None)
    if op in _ANY_RANK:
        return _ANY_RANK[op](layer), None
    if op == "linear":
        return (_make_linear(layer, x.shape[1], generator), None) if x.ndim == 2 else None
    if x.ndim == 3 and op == "conv":
        module = _make_conv_1d(layer, x.shape[1], generator)
        return None if module is None else (module, None)
    if x.ndim != 4:
        return None
    if op == "conv":
        conv = _make_conv(layer, x.shape[1], generator)
        return None if conv is None else (conv, None)
    return _POOLS[op](layer), None


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


def _make_linear(layer: Layer, inputs: int, generator: torch.Generator) -> nn.Module:
    linear = nn.utils.skip_init(nn.Linear, inputs, layer["outputs"], bias=layer["bias"])
    for parameter in linear.parameters():
        parameter.data.normal_(0.0, 1 / math.sqrt(inputs), generator=generator)
    return linear


def _make_conv(layer: Layer, channels: int, generator: torch.Generator) -> nn.Module | None:
    filters, groups = layer["filters"], layer["groups"]
    if groups == "depthwise":
        filters, groups = channels * (2 if filters == 2 else 1), channels
    elif channels % groups:
        return None
    else:
        filters = -(-filters // groups) * groups
    sizes = (layer["kernel"], layer["stride"], layer["pad"], layer["dilation"])
    conv = nn.utils.skip_init(nn.Conv2d, channels, filters, *sizes, groups=groups, bias=layer["bias"])
    conv.weight.data.copy_(draw_weight(layer, conv.weight.shape, generator))
    if conv.bias is not None:
        conv.bias.data.normal_(0.0, 0.3, generator=generator)
    parts: list[nn.Module] = [nn.ZeroPad2d((layer["extra"] + [0, 0])[:4])] if layer["extra"] else []
    parts.append(conv)
    if layer["norm"]:
        parts.append(_make_norm(filters, generator))
    if layer["after"]:
        parts.append(PerChannel(layer["after"], _draw_operand(layer["operand"], filters, generator)))
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)


def _make_conv_1d(layer: Layer, channels: int, generator: torch.Generator) -> nn.Module | None:
    groups = channels if layer["groups"] == "depthwise" else layer["groups"]
    if channels % groups:
        return None
    filters = -(-layer["filters"] // groups) * groups
    pad = layer["pad"] if layer["pad"] == "same" else layer["pad"][1]
    sizes = (layer["kernel"][1], layer["stride"][1], pad, layer["dilation"][1], groups)
    conv = nn.utils.skip_init(nn.Conv1d, channels, filters, *sizes, bias=layer["bias"])
    for parameter in conv.parameters():
        parameter.data.normal_(0.0, math.sqrt(groups / (channels * sizes[0])), generator=generator)
    return conv


def _draw_operand(kind: str, channels: int, generator: torch.Generator) -> Any:
    values = torch.rand(1, channels, 1, 1, generator=generator) + 0.5
    if kind == "channels":
        return values
    number = float(values[0, 0, 0, 0])
    return {"number": number, "scalar": torch.tensor(number), "double": torch.tensor(number, dtype=torch.float64)}[kind]


def _make_norm(channels: int, generator: torch.Generator) -> nn.Module:
    norm = nn.BatchNorm2d(channels)
    assert norm.running_mean is not None and norm.running_var is not None
    for tensor in (norm.weight.data, norm.running_var):
        tensor.uniform_(0.5, 1.5, generator=generator)
    for tensor in (norm.bias.data, norm.running_mean):
        tensor.normal_(0.0, 0.3, generator=generator)
    return norm


def draw_weight(layer: Layer, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return a weight with zeros of some kind."""
    filters, channels, height, width = shape
    taps = height * width
    weight = torch.randn(filters, channels, taps, generator=generator) * math.sqrt(2 / (channels * taps))
    kind = layer["zeros"]
    if kind == "patterns" and taps == 9:
        library = MASKS[: 8 if layer["keep"] < 1 else len(MASKS)]
        bits = torch.tensor([[mask >> tap & 1 for tap in range(taps)] for mask in library])
        weight *= bits[torch.randint(len(library), (filters, channels), generator=generator)]
    if kind in ("patterns", "kernels"):
        weight *= torch.rand(filters, channels, 1, generator=generator) < layer["keep"]
    elif kind == "any":
        weight *= torch.rand(weight.shape, generator=generator) < layer["keep"]
    elif kind == "filters":
        weight *= torch.rand(filters, 1, 1, generator=generator) < layer["keep"]
    elif kind == "all":
        weight.zero_()
    elif kind == "groups" and taps == 1:
        _zero_groups(weight, layer["keep"], generator)
    return weight.reshape(filters, channels, height, width)


def _zero_groups(weight: Tensor, keep: float, generator: torch.Generator) -> None:
    """Give groups of nine input channels of a 1x1 weight a pattern or nothing."""
    filters, groups = weight.shape[0], weight.shape[1] // 9
    bits = torch.tensor([[mask >> tap & 1 for tap in range(9)] for mask in MASKS[:8]])
    chosen = bits[torch.randint(8, (filters, groups), generator=generator)]
    chosen = chosen * (torch.rand(filters, groups, 1, generator=generator) < keep)
    weight[:, : groups * 9, 0] *= chosen.reshape(filters, groups * 9)
