"""Layers of ncnn as modules of torch: what builds one from its line in the text and its weights.

A blob of ncnn has one to four dimensions, channels outermost, and no batch. Here it is a tensor with the batch in
front: axis 0 of a blob is dimension 1. Source of parameters and weights: ncnn, docs/developer-guide/operators.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from patc.frontend.ncnn_files import NcnnLayer, WeightReader

Builder: TypeAlias = Callable[[NcnnLayer, WeightReader], Any]

BUILDERS: dict[str, Builder] = {}
AXES = {1: "w", 2: "hw", 3: "chw", 4: "cdhw"}  # ncnn's names for those of a blob of so many, outermost first
REST = -233  # a size as it is, or all that is left


def builds(*types: str) -> Callable[[Builder], Builder]:
    """Register a function that returns the module of a layer, or a function of its blobs, for types of layers."""

    def register(builder: Builder) -> Builder:
        BUILDERS.update(dict.fromkeys(types, builder))
        return builder

    return register


class Function(nn.Module):
    """A layer without weights."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *blobs: Tensor) -> Any:
        return self.function(*blobs)


class Constants(nn.Module):
    """A function of blobs and of arrays that the file has.

    Args:
        function: takes the blobs, then the arrays.
    """

    def __init__(self, function: Callable[..., Any], *arrays: Any) -> None:
        super().__init__()
        self.function = function
        self.values = nn.ParameterList(nn.Parameter(torch.from_numpy(array)) for array in arrays)

    def forward(self, *blobs: Tensor) -> Any:
        return self.function(*blobs, *self.values)


def build(layer: NcnnLayer, weights: WeightReader) -> nn.Module:
    """Return the module of a layer whose type is known.

    Raises:
        PatcError: a parameter is unknown or has a value that patc does not know, or the weights are too few.
    """
    built = BUILDERS[layer.type](layer, weights)
    layer.require_all_known()
    return built if isinstance(built, nn.Module) else Function(built)


def halves(size: int, is_upper: bool) -> tuple[int, int]:
    """Return the pads before and behind an axis that has `size` of them: an odd one is behind, else before."""
    less, more = size // 2, size - size // 2
    return (less, more) if is_upper else (more, less)


def same_pads(size: int, extent: int, stride: int, is_upper: bool) -> tuple[int, int]:
    """Return the pads with which windows of `extent` give ceil(size / stride) outputs."""
    return halves(max(0, extent + (size - 1) // stride * stride - size), is_upper)


def outermost(values: Tensor, blob: Tensor) -> Tensor:
    """Return one value for each element along axis 0 of a blob, so that they broadcast."""
    return values.reshape(-1, *[1] * (blob.dim() - 2))
