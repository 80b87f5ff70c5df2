"""Convolutions, transposed ones and fully connected layers of ncnn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from patc.frontend.ncnn_activations import Activation, fused_activation
from patc.frontend.ncnn_files import NcnnLayer, WeightReader
from patc.frontend.ncnn_layers import builds, halves, same_pads

_SAME_UPPER, _SAME_LOWER = -233, -234  # in place of pads: as many as keep ceil(size / stride)
_KERNELS, _DILATIONS, _STRIDES = (1, 11, 21), (2, 12, 22), (3, 13, 23)  # of width, height, depth
_BEFORE, _AFTER = (4, 14, 24), (15, 16, 17)


@dataclass(frozen=True)
class _Window:
    """Sizes along each axis, outermost first as torch has them.

    Attributes:
        pads: before and after.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]

    @classmethod
    def read(cls, layer: NcnnLayer, rank: int) -> _Window:
        def sizes(keys: Sequence[int], default: int) -> list[int]:
            """What is not given along an axis is as along the width."""
            first = layer.integer(keys[0], default)
            return [first, *(layer.integer(key, first) for key in keys[1:rank])]

        kernel, stride, dilation = sizes(_KERNELS, 0), sizes(_STRIDES, 1), sizes(_DILATIONS, 1)
        before = sizes(_BEFORE, 0)
        pads = [(first, layer.integer(key, first)) for first, key in zip(before, _AFTER[:rank], strict=True)]
        if min(*kernel, *stride, *dilation) < 1:
            layer.refuse("expected kernel, stride and dilation of 1 or more", f"{kernel}, {stride}, {dilation}")
        flat = [pad for pair in pads for pad in pair]
        same = [pad for pad in flat if pad in (_SAME_UPPER, _SAME_LOWER)]
        if min(flat) < 0 and (len(same) < len(flat) or len(set(same)) > 1):
            layer.refuse("expected pads of 0 or more", str(pads))
        return cls(tuple(kernel[::-1]), tuple(stride[::-1]), tuple(dilation[::-1]), tuple(pads[::-1]))

    @property
    def same(self) -> int:
        """`_SAME_UPPER`, `_SAME_LOWER`, or 0 where the pads are given."""
        return min(0, self.pads[0][0])

    @property
    def extents(self) -> list[int]:
        """Of a kernel with its dilation."""
        return [dilation * (kernel - 1) + 1 for kernel, dilation in zip(self.kernel, self.dilation, strict=True)]

    @property
    def even(self) -> tuple[int, ...] | None:
        """The pads where both sides have the same."""
        if self.same or any(before != after for before, after in self.pads):
            return None
        return tuple(before for before, _ in self.pads)

    def borders(self, sizes: Sequence[int]) -> list[int]:
        """Return the pads of an input, innermost axis first as `torch.nn.functional.pad` has them."""
        pads = list(self.pads)
        if self.same:
            is_upper = self.same == _SAME_UPPER
            axes = zip(sizes, self.extents, self.stride, strict=True)
            pads = [same_pads(size, extent, stride, is_upper) for size, extent, stride in axes]
        return [pad for pair in reversed(pads) for pad in pair]


class _Convolution:
    """What all of them do around torch's own."""

    window: _Window
    pad_value: float
    activation: Activation | None

    def forward(self, x: Tensor) -> Tensor:
        flat = x.dim() == 2
        if flat:  # ncnn takes what is one-dimensional for channels
            x = x.reshape(*x.shape, *[1] * len(self.window.kernel))
        if self.window.even is None or self.pad_value:
            x = functional.pad(x, self.window.borders(x.shape[2:]), value=self.pad_value)
        y: Tensor = super().forward(x)  # type: ignore[misc] # of torch's class beside this one
        y = y if self.activation is None else self.activation(y)
        return y.flatten(1) if flat else y


class Convolution1d(_Convolution, nn.Conv1d):
    """Of two-dimensional blobs."""


class Convolution2d(_Convolution, nn.Conv2d):
    """Of three-dimensional blobs."""


class Convolution3d(_Convolution, nn.Conv3d):
    """Of four-dimensional blobs."""


_CONVOLUTIONS: tuple[Any, ...] = (Convolution1d, Convolution2d, Convolution3d)
_RANKS = {"1D": 1, "3D": 3}


@builds(*(f"Convolution{grouped}{rank}" for grouped in ("", "DepthWise") for rank in ("", *_RANKS)))
def _convolution(layer: NcnnLayer, weights: WeightReader) -> nn.Module:
    rank = _RANKS.get(layer.type[-2:], 2)
    window = _Window.read(layer, rank)
    outputs, groups = _counts(layer)
    layer.require(19, 0, "weights that are computed")
    value = layer.number(18, 0.0)
    channels = _channels(layer, outputs * math.prod(window.kernel))
    array = weights.tagged(layer, outputs, channels, *window.kernel)
    even = None if value else window.even
    module = _CONVOLUTIONS[rank - 1](
        channels * groups,
        outputs,
        window.kernel,
        window.stride,
        (0,) * rank if even is None else even,
        window.dilation,
        groups,
        device="meta",
    )
    module.window, module.pad_value = window, value
    _fill(module, layer, weights, array, outputs)
    return module


class _Transposed:
    """What both of them do around torch's own.

    Attributes:
        added: behind the output along each axis.
        output: its sizes; zeros where pads decide.
    """

    window: _Window
    added: tuple[int, ...]
    output: tuple[int, ...]
    activation: Activation | None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)  # type: ignore[misc] # of torch's class beside this one
        if self.window.even is None:
            pads = list(self.window.pads)
            if self.window.same:
                is_upper = self.window.same == _SAME_UPPER
                sizes = zip(y.shape[2:], self.output, strict=True)
                pads = [halves(found - wanted, is_upper) for found, wanted in sizes]
            for axis, (before, after) in enumerate(pads, 2):
                y = y.narrow(axis, before, y.shape[axis] - before - after)
        return y if self.activation is None else self.activation(y)


class Deconvolution1d(_Transposed, nn.ConvTranspose1d):
    """Of two-dimensional blobs."""


class Deconvolution2d(_Transposed, nn.ConvTranspose2d):
    """Of three-dimensional blobs."""


@builds(*(f"Deconvolution{grouped}{rank}" for grouped in ("", "DepthWise") for rank in ("", "1D")))
def _deconvolution(layer: NcnnLayer, weights: WeightReader) -> nn.Module:
    rank = _RANKS.get(layer.type[-2:], 2)
    window = _Window.read(layer, rank)
    outputs, groups = _counts(layer)
    layer.require(28, 0, "weights that are computed")
    added = _turned_pair(layer, 18, 19, rank)
    sizes = _turned_pair(layer, 20, 21, rank)
    if window.same and min(sizes) < 1:
        layer.refuse("expected the size of the output", f"{window.same} in place of pads and none")
    if not window.same and any(sizes):
        layer.refuse(f"expected {_SAME_UPPER} or {_SAME_LOWER} in place of pads for an output of given size", "pads")
    channels = _channels(layer, outputs * math.prod(window.kernel))
    array = weights.tagged(layer, groups, outputs // groups, channels, *window.kernel)
    kind: Any = Deconvolution1d if rank == 1 else Deconvolution2d
    module = kind(
        channels * groups,
        outputs,
        window.kernel,
        window.stride,
        (0,) * rank if window.even is None else window.even,
        added,
        groups,
        dilation=window.dilation,
        device="meta",
    )
    module.window, module.output = window, sizes
    # torch has the inputs of all groups in front, ncnn the outputs.
    turned = array.swapaxes(1, 2).reshape(channels * groups, outputs // groups, *window.kernel)
    _fill(module, layer, weights, turned, outputs)
    return module


def _turned_pair(layer: NcnnLayer, width: int, height: int, rank: int) -> tuple[int, ...]:
    first = layer.integer(width, 0)
    return (first,) if rank == 1 else (layer.integer(height, first), first)


def _counts(layer: NcnnLayer) -> tuple[int, int]:
    """Return outputs and groups, and refuse int8."""
    layer.require(8, 0, "int8 weights; give the net as it was before they were quantised")
    layer.integer(17, 0)  # which implementation ncnn is to take
    outputs, groups = layer.integer(0, 0), layer.integer(7, 1) if "DepthWise" in layer.type else 1
    if outputs < 1 or groups < 1 or outputs % groups:
        layer.refuse("expected groups that divide the outputs", f"{groups} groups of {outputs} outputs")
    return outputs, groups


def _channels(layer: NcnnLayer, unit: int, key: int = 6) -> int:
    """Return how many inputs a group has, of which each has `unit` weights."""
    size = layer.integer(key, 0)
    if size < 1 or size % unit:
        layer.refuse(f"expected a multiple of {unit} weights", str(size))
    return size // unit


def _fill(module: Any, layer: NcnnLayer, weights: WeightReader, array: Any, outputs: int, key: int = 5) -> None:
    module.weight = nn.Parameter(torch.from_numpy(array.copy()))
    has_bias = layer.integer(key, 0)
    module.bias = nn.Parameter(torch.from_numpy(weights.plain(layer, outputs))) if has_bias else None
    module.activation = fused_activation(layer)


class InnerProduct(nn.Linear):
    """A fully connected layer: of the rows of a two-dimensional blob that are as long as its inputs, else of all."""

    activation: Activation | None

    def forward(self, x: Tensor) -> Tensor:
        by_rows = x.dim() == 3 and x.shape[-1] == self.in_features
        y = super().forward(x if by_rows else x.flatten(1))
        return y if self.activation is None else self.activation(y)


@builds("InnerProduct")
def _inner_product(layer: NcnnLayer, weights: WeightReader) -> nn.Module:
    outputs, _ = _counts(layer)
    inputs = _channels(layer, outputs, key=2)
    module = InnerProduct(inputs, outputs, device="meta")
    _fill(module, layer, weights, weights.tagged(layer, outputs, inputs), outputs, key=1)
    return module
