"""Activations of ncnn, as layers and behind others, and functions of each element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from patc.frontend.ncnn_files import NcnnLayer, WeightReader
from patc.frontend.ncnn_layers import Constants, builds

Activation: TypeAlias = Callable[[Tensor], Tensor]

_LARGEST = 3.4e38  # bounds beyond it are none

_UNARY: tuple[tuple[str, Activation], ...] = (
    ("abs", torch.abs),
    ("neg", torch.neg),
    ("floor", torch.floor),
    ("ceil", torch.ceil),
    ("square", torch.square),
    ("sqrt", torch.sqrt),
    ("rsqrt", torch.rsqrt),
    ("exp", torch.exp),
    ("log", torch.log),
    ("sin", torch.sin),
    ("cos", torch.cos),
    ("tan", torch.tan),
    ("asin", torch.asin),
    ("acos", torch.acos),
    ("atan", torch.atan),
    ("reciprocal", torch.reciprocal),
    ("tanh", torch.tanh),
    ("log10", torch.log10),
    ("round", torch.round),
    ("trunc", torch.trunc),
)
_PLAIN: dict[str, Activation] = {
    "AbsVal": torch.abs,
    "BNLL": functional.softplus,
    "Mish": functional.mish,
    "Sigmoid": torch.sigmoid,
    "Softplus": functional.softplus,
    "Swish": functional.silu,
    "TanH": torch.tanh,
}
_FUSED = ("none", "relu", "leaky", "clip", "sigmoid", "mish", "hardswish")


def fused_activation(layer: NcnnLayer) -> Activation | None:
    """Return the activation behind a layer with weights; None where there is none."""
    kind, values = layer.choose(9, _FUSED), layer.numbers(10)
    wanted = {"leaky": 1, "clip": 2, "hardswish": 2}.get(kind, 0)
    if len(values) < wanted:
        layer.refuse(f"expected {wanted} numbers for its activation", str(len(values)))
    if kind == "leaky":
        return _leaky(values[0])
    if kind == "clip":
        return _clip(values[0], values[1])
    if kind == "hardswish":
        return _hard_swish(values[0], values[1])
    plain: dict[str, Activation] = {"relu": torch.relu, "sigmoid": torch.sigmoid, "mish": functional.mish}
    return plain.get(kind)


def _leaky(slope: float) -> Activation:
    return torch.relu if slope == 0 else lambda x: functional.leaky_relu(x, slope)


def _clip(low: float, high: float) -> Activation:
    bounds = None if low < -_LARGEST else low, None if high > _LARGEST else high
    return (lambda x: x) if bounds == (None, None) else lambda x: torch.clamp(x, *bounds)


def _hard_sigmoid(alpha: float, beta: float) -> Activation:
    if math.isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5:  # a sixth in as many digits as a text has
        return functional.hardsigmoid
    return lambda x: torch.clamp(x * alpha + beta, 0, 1)


def _hard_swish(alpha: float, beta: float) -> Activation:
    if math.isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5:
        return functional.hardswish
    return lambda x: x * torch.clamp(x * alpha + beta, 0, 1)


@builds(*_PLAIN)
def _plain(layer: NcnnLayer, weights: WeightReader) -> Activation:
    return _PLAIN[layer.type]


@builds("UnaryOp")
def _unary(layer: NcnnLayer, weights: WeightReader) -> Activation:
    return dict(_UNARY)[layer.choose(0, [name for name, _ in _UNARY])]


@builds("ReLU")
def _relu(layer: NcnnLayer, weights: WeightReader) -> Activation:
    return _leaky(layer.number(0, 0.0))


@builds("PReLU")
def _prelu(layer: NcnnLayer, weights: WeightReader) -> nn.Module:
    return Constants(functional.prelu, weights.plain(layer, layer.integer(0, 0)))


@builds("Clip")
def _clip_layer(layer: NcnnLayer, weights: WeightReader) -> Activation:
    return _clip(layer.number(0, -math.inf), layer.number(1, math.inf))


@builds("ELU")
def _elu(layer: NcnnLayer, weights: WeightReader) -> Activation:
    alpha = layer.number(0, 0.1)
    return lambda x: functional.elu(x, alpha)


@builds("CELU")
def _celu(layer: NcnnLayer, weights: WeightReader) -> Activation:
    alpha = layer.number(0, 1.0)
    return lambda x: functional.celu(x, alpha)


@builds("SELU")
def _selu(layer: NcnnLayer, weights: WeightReader) -> Activation:
    alpha, scale = layer.number(0, 1.67326324), layer.number(1, 1.050700987)
    return lambda x: scale * functional.elu(x, alpha)


@builds("GELU")
def _gelu(layer: NcnnLayer, weights: WeightReader) -> Activation:
    how = layer.choose(0, ("none", "tanh"))
    return lambda x: functional.gelu(x, approximate=how)


@builds("HardSigmoid")
def _hard_sigmoid_layer(layer: NcnnLayer, weights: WeightReader) -> Activation:
    return _hard_sigmoid(layer.number(0, 0.2), layer.number(1, 0.5))


@builds("HardSwish")
def _hard_swish_layer(layer: NcnnLayer, weights: WeightReader) -> Activation:
    return _hard_swish(layer.number(0, 0.2), layer.number(1, 0.5))


@builds("Threshold")
def _threshold(layer: NcnnLayer, weights: WeightReader) -> Activation:
    threshold = layer.number(0, 0.0)
    return lambda x: (x > threshold).to(x.dtype)


@builds("Exp")
def _exponential(layer: NcnnLayer, weights: WeightReader) -> Activation:
    base, scale, shift = layer.number(0, -1.0), layer.number(1, 1.0), layer.number(2, 0.0)
    factor = 1.0 if base == -1 else math.log(base)
    return lambda x: torch.exp((x * scale + shift) * factor)


@builds("Log")
def _logarithm(layer: NcnnLayer, weights: WeightReader) -> Activation:
    base, scale, shift = layer.number(0, -1.0), layer.number(1, 1.0), layer.number(2, 0.0)
    factor = 1.0 if base == -1 else 1 / math.log(base)
    return lambda x: torch.log(x * scale + shift) * factor


@builds("Power")
def _power(layer: NcnnLayer, weights: WeightReader) -> Activation:
    power, scale, shift = layer.number(0, 1.0), layer.number(1, 1.0), layer.number(2, 0.0)
    return lambda x: torch.pow(x * scale + shift, power)


@builds("Dropout")
def _dropout(layer: NcnnLayer, weights: WeightReader) -> Activation:
    scale = layer.number(0, 1.0)
    return lambda x: x if scale == 1 else x * scale
