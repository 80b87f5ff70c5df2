"""Convolutions of wide strides: what a stride passes over becomes channels, so that windows move by one place or two.

Spectra of sound (a window of 256 samples each 256, or each 32) and patches of pictures (16x16 each 16) are such.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import tensor

from patc.passes.base import PassState
from patc.passes.ir.constants import constant_name, make_constant, read_constant
from patc.passes.ir.windows import Window
from patc.passes.raising.linalg_layers import Build, cropped, padded, rearranged, tensor_like

_LEAST_STRIDE = 4  # narrower ones have layouts, or are read with shuffles


def build_folded(
    source: ir.Value, weight: ir.Value, window: Window, shape: Sequence[int], build: Build, state: PassState
) -> ir.Value | None:
    """Return the result of a convolution of one group, or None for one that is computed as it is."""
    array = read_constant(weight, state)
    axes = [
        _Axis.of(stride, taps, dilation, places)
        for stride, taps, dilation, places in zip(
            window.strides, window.kernel, window.dilations, shape[2:], strict=True
        )
    ]
    if array is None or max(axis.factor for axis in axes) == 1:
        return None
    blocks = [max(part.first + part.size for part in axis.parts) for axis in axes]
    size = [count * axis.factor for count, axis in zip(blocks, axes, strict=True)]
    folded = _split(_resized(source, window.pads[:2], size), axes)
    total: ir.Value | None = None
    for down, across in itertools.product(*(axis.parts for axis in axes)):
        taps = array[:, :, down.taps, across.taps]
        total = build(*_fold(folded, taps, (down, across), constant_name(weight), state), list(shape), total)
    return total


@dataclass(frozen=True)
class _Part:
    """Some taps of an axis, which are whole blocks of `width` places, `kernel` of them.

    Attributes:
        taps: which.
        first, size: blocks of the input that they see.
        stride, dilation: of the window in blocks.
    """

    taps: slice
    width: int
    kernel: int
    first: int
    size: int
    stride: int = 1
    dilation: int = 1


@dataclass(frozen=True)
class _Axis:
    """Rows or columns in blocks of `factor` places, and the taps: what fills blocks, and what is left."""

    factor: int
    parts: tuple[_Part, ...]

    @staticmethod
    def of(stride: int, taps: int, dilation: int, places: int) -> _Axis:
        if stride < _LEAST_STRIDE or dilation > 1:
            size = (places - 1) * stride + dilation * (taps - 1) + 1
            return _Axis(1, (_Part(slice(0, taps), 1, taps, 0, size, stride, dilation),))
        whole, rest = divmod(taps, stride)
        parts = []
        if whole:
            parts.append(_Part(slice(0, whole * stride), stride, whole, 0, places + whole - 1))
        if rest:
            parts.append(_Part(slice(whole * stride, taps), rest, 1, whole, places))
        return _Axis(stride, tuple(parts))


def _split(value: ir.Value, axes: Sequence[_Axis]) -> ir.Value:
    """Return planes with the places of a block in front of the blocks: N x C x h x w x H x W."""
    batch, channels, height, width = value.type.shape
    down, across = (axis.factor for axis in axes)
    shape = [batch, channels, height // down, down, width // across, across]
    return rearranged(value, shape, [0, 1, 3, 5, 2, 4])


def _fold(
    value: ir.Value, taps: np.ndarray, parts: tuple[_Part, _Part], name: str | None, state: PassState
) -> tuple[ir.Value, ir.Value, Window]:
    """Return input, weight and window of the convolution with some taps; the places of a block are its channels."""
    (batch, channels), (filters, _) = value.type.shape[:2], taps.shape[:2]
    down, across = parts
    shape = [batch, channels, down.width, across.width, down.size, across.size]
    seen = cropped(value, [0, 0, 0, 0, down.first, across.first], shape)
    planes = [batch, math.prod(shape[1:4]), *shape[4:]]
    seen = tensor.collapse_shape(tensor_like(planes, value), seen, [[0], [1, 2, 3], [4], [5]])
    kernel = down.kernel, across.kernel
    cut = taps.reshape(filters, channels, kernel[0], down.width, kernel[1], across.width).transpose(0, 1, 3, 5, 2, 4)
    weight = np.ascontiguousarray(cut.reshape(filters, -1, *kernel))
    window = Window(kernel, (down.stride, across.stride), dilations=(down.dilation, across.dilation))
    return seen, make_constant(weight, name and f"{name}.folded", state), window


def _resized(value: ir.Value, before: Sequence[int], size: Sequence[int]) -> ir.Value:
    """Return planes of another size, with zeros in front and behind, or without their ends."""
    batch, channels, *given = value.type.shape
    behind = [max(0, new - old - pad) for new, old, pad in zip(size, given, before, strict=True)]
    return cropped(padded(value, before, behind), [0] * 4, [batch, channels, *size])
