"""Convolutions and linear layers of random networks, with weights that have zeros of some kind."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Layer = dict[str, Any]

# Masks of 3x3 kernels, bit by bit in rows: four taps, as the default library has them, and a few others.
MASKS = (27, 54, 216, 432, 58, 154, 178, 184, 16, 186, 325)


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


def draw_conv(choices: random.Random) -> Layer:
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


def make_linear(layer: Layer, inputs: int, generator: torch.Generator) -> nn.Module:
    linear = nn.utils.skip_init(nn.Linear, inputs, layer["outputs"], bias=layer["bias"])
    for parameter in linear.parameters():
        parameter.data.normal_(0.0, 1 / math.sqrt(inputs), generator=generator)
    return linear


def make_conv(layer: Layer, channels: int, generator: torch.Generator) -> nn.Module | None:
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


def make_conv_1d(layer: Layer, channels: int, generator: torch.Generator) -> nn.Module | None:
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
