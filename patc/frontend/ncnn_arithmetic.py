"""Arithmetic of several blobs, normalisation, sums along axes and products of matrices of ncnn."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from patc.frontend.ncnn_files import NcnnLayer, WeightReader
from patc.frontend.ncnn_layers import REST, Constants, builds, outermost
from patc.frontend.ncnn_shapes import axis_of

_BINARY: tuple[tuple[str, Callable[[Tensor, Tensor], Tensor]], ...] = (
    ("add", torch.add),
    ("sub", torch.sub),
    ("mul", torch.mul),
    ("div", torch.div),
    ("max", torch.maximum),
    ("min", torch.minimum),
    ("pow", torch.pow),
    ("rsub", lambda a, b: b - a),
    ("rdiv", lambda a, b: b / a),
    ("rpow", lambda a, b: torch.pow(b, a)),
    ("atan2", torch.atan2),
    ("ratan2", lambda a, b: torch.atan2(b, a)),
)
_REDUCTIONS: tuple[tuple[str, Callable[[Tensor, list[int]], Tensor]], ...] = (
    ("sum", lambda x, axes: x.sum(axes, keepdim=True)),
    ("asum", lambda x, axes: x.abs().sum(axes, keepdim=True)),
    ("sumsq", lambda x, axes: x.square().sum(axes, keepdim=True)),
    ("mean", lambda x, axes: x.mean(axes, keepdim=True)),
    ("max", lambda x, axes: x.amax(axes, keepdim=True)),
    ("min", lambda x, axes: x.amin(axes, keepdim=True)),
    ("prod", lambda x, axes: functools.reduce(lambda y, axis: y.prod(axis, keepdim=True), axes, x)),
    ("l1", lambda x, axes: x.abs().sum(axes, keepdim=True)),
    ("l2", lambda x, axes: x.square().sum(axes, keepdim=True).sqrt()),
    ("logsum", lambda x, axes: x.sum(axes, keepdim=True).log()),
    ("logsumexp", lambda x, axes: x.logsumexp(axes, keepdim=True)),
)


@builds("BinaryOp")
def _binary(layer: NcnnLayer, weights: WeightReader) -> Callable[..., Tensor]:
    compute = dict(_BINARY)[layer.choose(0, [name for name, _ in _BINARY])]
    by_number, number = layer.integer(1, 0), layer.number(2, 0.0)
    if len(layer.inputs) != (1 if by_number else 2):
        layer.refuse("expected two blobs, or one and a number", f"{len(layer.inputs)} blobs")
    if by_number:
        return lambda a: compute(a, torch.full((), number, dtype=a.dtype))
    return lambda a, b: compute(_aligned(a, b), _aligned(b, a))


def _aligned(blob: Tensor, other: Tensor) -> Tensor:
    """Return a blob with the axes that it lacks beside another one: inside, where numpy adds them outside."""
    missing = other.dim() - blob.dim()
    if missing <= 0:
        return blob
    is_vector = blob.dim() == 2
    if is_vector and blob.shape[1] != other.shape[1]:
        return blob.reshape(blob.shape[0], *[1] * missing, blob.shape[1])
    return blob.reshape(*blob.shape, *[1] * missing)


@builds("Eltwise")
def _eltwise(layer: NcnnLayer, weights: WeightReader) -> Callable[..., Tensor]:
    kind, factors = layer.choose(0, ("prod", "sum", "max")), layer.numbers(1)
    if factors and len(factors) != len(layer.inputs):
        layer.refuse(f"expected {len(layer.inputs)} coefficients", str(len(factors)))
    compute = {"prod": torch.mul, "sum": torch.add, "max": torch.maximum}[kind]

    def join(*blobs: Tensor) -> Tensor:
        if kind == "sum" and factors:
            blobs = tuple(blob * factor for blob, factor in zip(blobs, factors, strict=True))
        return functools.reduce(compute, blobs)

    return join


# -- Normalisation ---------------------------------------------------------------------------------


@builds("BatchNorm")
def _batch_norm(layer: NcnnLayer, weights: WeightReader) -> nn.Module:
    channels, epsilon = layer.integer(0, 0), layer.number(1, 0.0)
    slope, mean, variance, bias = (weights.plain(layer, channels) for _ in range(4))

    def normalize(x: Tensor, slope: Tensor, mean: Tensor, variance: Tensor, bias: Tensor) -> Tensor:
        return functional.batch_norm(x, mean, variance, slope, bias, False, 0.0, epsilon)

    return Constants(normalize, slope, mean, variance, bias)


@builds("Scale")
def _scale(layer: NcnnLayer, weights: WeightReader) -> nn.Module | Callable[..., Tensor]:
    size, has_bias = layer.integer(0, 0), layer.integer(1, 0)
    if size == REST:  # another blob has the factors
        layer.require(1, 0, "a bias beside factors that are computed")
        return lambda x, factors: x * _aligned(factors, x)
    if not has_bias:
        return Constants(lambda x, factor: x * outermost(factor, x), weights.plain(layer, size))
    arrays = (weights.plain(layer, size), weights.plain(layer, size))
    return Constants(lambda x, factor, bias: x * outermost(factor, x) + outermost(bias, x), *arrays)


@builds("Bias")
def _bias(layer: NcnnLayer, weights: WeightReader) -> nn.Module:
    return Constants(lambda x, bias: x + outermost(bias, x), weights.plain(layer, layer.integer(0, 0)))


@builds("InstanceNorm")
def _instance_norm(layer: NcnnLayer, weights: WeightReader) -> nn.Module:
    channels, epsilon, affine = layer.integer(0, 0), layer.number(1, 0.001), layer.integer(2, 1)
    arrays = [weights.plain(layer, channels) for _ in range(2)] if affine else []

    def normalize(x: Tensor, scale: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        return functional.instance_norm(x, None, None, scale, bias, eps=epsilon)

    return Constants(normalize, *arrays)


@builds("GroupNorm")
def _group_norm(layer: NcnnLayer, weights: WeightReader) -> nn.Module:
    groups, channels, epsilon = layer.integer(0, 1), layer.integer(1, 0), layer.number(2, 0.001)
    arrays = [weights.plain(layer, channels) for _ in range(2)] if layer.integer(3, 1) else []

    def normalize(x: Tensor, scale: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        return functional.group_norm(x, groups, scale, bias, eps=epsilon)

    return Constants(normalize, *arrays)


@builds("LayerNorm")
def _layer_norm(layer: NcnnLayer, weights: WeightReader) -> nn.Module:
    size, epsilon = layer.integer(0, 0), layer.number(1, 0.001)
    arrays = [weights.plain(layer, size) for _ in range(2)] if layer.integer(2, 1) else []

    def normalize(x: Tensor, *affine: Tensor) -> Tensor:
        # As many inner axes as hold `size` elements.
        axes = next(count for count in range(1, x.dim()) if x.shape[-count:].numel() >= size)
        shape = x.shape[-axes:]
        y = functional.layer_norm(x, shape, eps=epsilon)
        return y * affine[0].reshape(shape) + affine[1].reshape(shape) if affine else y

    return Constants(normalize, *arrays)


@builds("LRN")
def _local_response(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Tensor]:
    layer.require(0, 0, "windows of the plane")
    size, alpha = layer.integer(1, 5), layer.number(2, 1.0)
    beta, bias = layer.number(3, 0.75), layer.number(4, 1.0)
    return lambda x: functional.local_response_norm(x, size, alpha, beta, bias)


@builds("Softmax")
def _softmax(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Tensor]:
    axis, is_fixed = layer.integer(0, 0), layer.integer(1, 0)
    if axis and not is_fixed:
        layer.refuse("expected 1=1 beside another axis than 0", f"0={axis} alone, whose meaning ncnn has changed")
    return lambda x: torch.softmax(x, axis_of(axis))


@builds("Reduction")
def _reduction(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Tensor]:
    compute = dict(_REDUCTIONS)[layer.choose(0, [name for name, _ in _REDUCTIONS])]
    is_whole, factor = layer.integer(1, 1), layer.number(2, 1.0)
    axes, keeps, is_fixed = layer.integers(3), layer.integer(4, 0), layer.integer(5, 0)
    if not is_whole and not is_fixed:
        layer.refuse("expected 5=1 beside axes", "none, whose meaning ncnn has changed")

    def reduce(x: Tensor) -> Tensor:
        rank = x.dim() - 1
        chosen = list(range(rank)) if is_whole or not axes else sorted(axis % rank for axis in axes)
        y = compute(x, [axis + 1 for axis in chosen])
        y = y if factor == 1 else y * factor
        if keeps:
            return y
        kept = [size for axis, size in enumerate(y.shape[1:]) if axis not in chosen]
        return y.reshape(y.shape[0], *(kept or [1]))

    return reduce


# -- Products of matrices --------------------------------------------------------------------------


@builds("MatMul")
def _matmul(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor, Tensor], Tensor]:
    is_turned = layer.integer(0, 0)
    return lambda a, b: torch.matmul(a, b.transpose(-1, -2) if is_turned else b)


@builds("Gemm")
def _gemm(layer: NcnnLayer, weights: WeightReader) -> nn.Module:
    alpha, beta = layer.number(0, 1.0), layer.number(1, 1.0)
    turns = [layer.integer(key, 0) for key in (2, 3)]
    constant = [layer.integer(key, 0) for key in (4, 5, 6)]
    rows, columns, depth = (layer.integer(key, 0) for key in (7, 8, 9))
    kind = layer.integer(10, 0)
    for key, why in ((11, "an output of three axes"), (13, "another element type"), (18, "int8 weights")):
        layer.require(key, 0, why)
    turns_output = layer.integer(14, 0)
    for key in (12, 20, 21, 22):  # how ncnn computes it
        layer.integer(key, 0)
    shapes: list[tuple[int, ...]] = [
        (depth, rows) if turns[0] else (rows, depth),
        (columns, depth) if turns[1] else (depth, columns),
    ]
    shapes.append({0: (1,), 1: (rows, 1), 2: (rows, 1), 3: (rows, columns), 4: (1, columns)}.get(kind, ()))
    has_addend = not constant[2] or kind != -1
    given = [bool(constant[0]), bool(constant[1]), bool(constant[2]) and has_addend]
    arrays = [weights.tagged(layer, *shape) for shape, is_given in zip(shapes, given, strict=True) if is_given]

    def multiply(*values: Tensor) -> Tensor:
        blobs, kept = list(values[: len(values) - len(arrays)]), list(values[len(values) - len(arrays) :])
        a, b, *addend = [(kept if is_given else blobs).pop(0) for is_given in given if is_given or blobs]
        y = torch.matmul(a.transpose(-1, -2) if turns[0] else a, b.transpose(-1, -2) if turns[1] else b)
        if addend:
            y = y + (addend[0] if beta == 1 else addend[0] * beta)
        y = y if alpha == 1 else y * alpha
        return y.transpose(-1, -2) if turns_output else y

    return Constants(multiply, *arrays)
