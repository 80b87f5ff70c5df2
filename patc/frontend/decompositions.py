"""Decompositions of torch operations beside torch-mlir's own."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch

from patc.integers import ceil_div

aten = torch.ops.aten

_MOST_WINDOWS = 8  # along an axis, that are computed one by one


def _adaptive_avg_pool2d(x: torch.Tensor, sizes: Sequence[int]) -> Any:
    windows = _equal_windows(x, sizes)
    if windows is not None:
        return aten.avg_pool2d.default(x, *windows)
    if max(sizes) <= _MOST_WINDOWS:  # what is not finite stays in its windows
        return _window_means(_window_means(x, -2, sizes[0]), -1, sizes[1])
    rows, columns = (_means(size, count, x) for size, count in zip(x.shape[-2:], sizes, strict=True))
    return rows @ (x @ columns.transpose(0, 1))


def _window_means(x: torch.Tensor, axis: int, count: int) -> torch.Tensor:
    """Return the means of `count` windows along an axis."""
    size = x.shape[axis]
    ends = [(i * size // count, ceil_div((i + 1) * size, count)) for i in range(count)]
    return torch.cat([x.narrow(axis, start, end - start).mean(axis, keepdim=True) for start, end in ends], axis)


def _means(size: int, count: int, like: torch.Tensor) -> torch.Tensor:
    """Return the count x size matrix that takes `size` elements to the means of `count` windows."""
    windows, places = (torch.arange(number, device=like.device) for number in (count, size))
    starts, ends = windows * size // count, ((windows + 1) * size + count - 1) // count
    inside = (places >= starts[:, None]) & (places < ends[:, None])
    return inside.to(like.dtype) / (ends - starts)[:, None]


def _adaptive_max_pool2d(x: torch.Tensor, sizes: Sequence[int]) -> Any:
    windows = _equal_windows(x, sizes)
    if windows is not None:
        return aten.max_pool2d_with_indices.default(x, *windows)
    (height, width), (down, across) = x.shape[-2:], sizes
    rows, columns = _places(height, down, x), _places(width, across, x)
    taken = x.index_select(-2, rows.reshape(-1)).index_select(-1, columns.reshape(-1))
    windowed = taken.reshape(*x.shape[:-2], *rows.shape, *columns.shape).transpose(-3, -2)
    values, first = windowed.reshape(*x.shape[:-2], down, across, -1).max(-1)
    table = (rows[:, None, :, None] * width + columns[None, :, None, :]).reshape(down, across, -1)
    chosen = table.expand(*x.shape[:-2], *table.shape).gather(-1, first[..., None])
    return values, chosen[..., 0]


def _places(size: int, count: int, like: torch.Tensor) -> torch.Tensor:
    """Return the places that each of `count` windows over `size` elements sees; shorter ones repeat their last."""
    windows = torch.arange(count, device=like.device)
    starts, ends = windows * size // count, ((windows + 1) * size + count - 1) // count
    longest = max(ceil_div((i + 1) * size, count) - i * size // count for i in range(count))
    return torch.minimum(starts[:, None] + torch.arange(longest, device=like.device), ends[:, None] - 1)


def _equal_windows(x: torch.Tensor, sizes: Sequence[int]) -> tuple[list[int], list[int]] | None:
    """Return kernel and strides of the pool that an adaptive one is, or None where its windows differ in size."""
    axes = [_equal_window(size, count) for size, count in zip(x.shape[-2:], sizes, strict=True)]
    found = [axis for axis in axes if axis is not None]
    return None if len(found) < 2 else ([kernel for kernel, _ in found], [stride for _, stride in found])


def _equal_window(size: Any, count: Any) -> tuple[int, int] | None:
    """Return kernel and stride of `count` windows over `size` elements, window i from floor(i * size / count) to
    ceil((i + 1) * size / count), or None."""
    if not isinstance(size, int) or not 0 < count <= size:
        return None
    starts = [i * size // count for i in range(count)]
    kernels = {ceil_div((i + 1) * size, count) - starts[i] for i in range(count)}
    strides = {after - before for before, after in itertools.pairwise(starts)} or {*kernels}
    return (kernels.pop(), strides.pop()) if len(kernels) == len(strides) == 1 else None


def _group_norm(
    x: torch.Tensor, weight: Any, bias: Any, images: int, channels: int, places: int, groups: int, epsilon: float
) -> Any:
    grouped = x.reshape(images, groups, channels // groups * places)
    centered = grouped - grouped.mean(2, keepdim=True)
    scale = torch.rsqrt((centered * centered).mean(2, keepdim=True) + epsilon)
    y = (centered * scale).reshape(x.shape)
    shape = [1, channels] + [1] * (x.dim() - 2)
    y = y if weight is None else y * weight.reshape(shape)
    y = y if bias is None else y + bias.reshape(shape)
    return y, grouped.mean(2), scale.reshape(images, groups)


def _instance_norm(
    x: torch.Tensor,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_variance: Any,
    uses_input: bool,
    momentum: float,
    epsilon: float,
    is_cudnn_enabled: bool,
) -> Any:
    if not uses_input or x.dim() < 3:
        return NotImplemented
    images, channels, *size = x.shape
    return _group_norm(x, weight, bias, images, channels, math.prod(size), channels, epsilon)[0]


def _empty(size: Sequence[int], *, dtype: torch.dtype | None = None, **kwargs: Any) -> torch.Tensor:
    return torch.zeros(size, dtype=dtype, device=kwargs.get("device"))


def _convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: Any,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    transposed: bool,
    further_pads: Sequence[int],
    groups: int,
) -> Any:
    if transposed:
        reaches = [dilation * (taps - 1) for dilation, taps in zip(dilations, weight.shape[2:], strict=True)]
        if not 1 < groups == x.shape[1] or any(map(operator.lt, reaches, pads)):
            return NotImplemented
        x = _spread(x, strides, [reach - pad for reach, pad in zip(reaches, pads, strict=True)], further_pads)
        turned = weight.reshape(-1, 1, *weight.shape[2:]).flip(list(range(2, x.dim())))
        ones, zeros = [1] * len(strides), [0] * len(strides)
        return aten.convolution.default(x, turned, bias, ones, zeros, dilations, False, zeros, groups)
    if len(strides) != 3 or groups == 1:
        return NotImplemented
    is_column = list(weight.shape[3:]) == [1, 1] == list(strides[1:]) and not any(pads[1:])
    over = _over_columns if is_column else _over_planes
    return over(x, weight, bias, (strides, pads, dilations), groups)


def _spread(x: torch.Tensor, strides: Sequence[int], around: Sequence[int], further_pads: Sequence[int]) -> Any:
    """Put zeros between and around elements: torch-mlir cannot lower transposed convolutions of single channels."""
    for axis, (stride, before) in enumerate(zip(strides, around, strict=True), start=2):
        end = before + (x.shape[axis] - 1) * stride + 1
        shape = list(x.shape)
        shape[axis] = end + before + further_pads[axis - 2]
        zeros = torch.zeros(shape, dtype=x.dtype, device=x.device)
        x = torch.slice_scatter(zeros, x, axis, before, end, stride)
    return x


_Geometry = tuple[Sequence[int], Sequence[int], Sequence[int]]  # strides, pads and dilations


def _over_columns(x: torch.Tensor, weight: torch.Tensor, bias: Any, geometry: _Geometry, groups: int) -> Any:
    """Return a 3-D convolution of groups whose taps differ in depth only: planes of the 2-D one have a row a depth."""
    strides, pads, dilations = ([values[0], other] for values, other in zip(geometry, (1, 0, 1), strict=True))
    rows = x.reshape(*x.shape[:3], -1)
    y = aten.convolution.default(rows, weight.squeeze(-1), bias, strides, pads, dilations, False, [0, 0], groups)
    return y.reshape(*y.shape[:3], *x.shape[3:])


def _over_planes(x: torch.Tensor, weight: torch.Tensor, bias: Any, geometry: _Geometry, groups: int) -> Any:
    """Return a grouped 3-D convolution as the sum of a 2-D one for each depth of its kernel, over all depths as images:
    torch-mlir has none."""
    (stride, *strides), (pad, *pads), (dilation, *dilations) = geometry
    planes = aten.constant_pad_nd(x.transpose(1, 2), [0] * 6 + [pad] * 2)
    places = (planes.shape[1] - dilation * (weight.shape[2] - 1) - 1) // stride + 1
    total: Any = None
    for tap in range(weight.shape[2]):
        images = planes[:, tap * dilation :][:, : (places - 1) * stride + 1 : stride].flatten(0, 1)
        rest = strides, pads, dilations, False, [0, 0], groups
        part = aten.convolution.default(images, weight[:, :, tap], None if tap else bias, *rest)
        total = part if total is None else total + part
    return total.unflatten(0, (x.shape[0], places)).transpose(1, 2)


def _clamp(x: torch.Tensor, low: Any = None, high: Any = None) -> Any:
    """Return a clamp between tensors of other element types: torch-mlir compares what has one type only."""
    bounds = [bound for bound in (low, high) if bound is not None]
    dtype = x.dtype
    for bound in bounds:
        dtype = torch.promote_types(dtype, bound.dtype) if bound.dim() else torch.result_type(x.to(dtype), bound)
    if all(value.dtype == dtype for value in (x, *bounds)):
        return NotImplemented
    y = x.to(dtype)
    y = y if low is None else torch.maximum(y, low.to(dtype))
    return y if high is None else torch.minimum(y, high.to(dtype))


def _cat(parts: Sequence[torch.Tensor], dim: int = 0) -> Any:
    """Return a concatenation of tensors of one type: torch-mlir takes bytes among floats for numbers with a sign."""
    dtype = functools.reduce(torch.promote_types, (part.dtype for part in parts))
    if all(part.dtype == dtype for part in parts):
        return NotImplemented
    return aten.cat.default([part.to(dtype) for part in parts], dim)


def _where(condition: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> Any:
    """Return a choice between tensors of one type."""
    dtype = torch.result_type(x, y)
    if x.dtype == y.dtype == dtype:
        return NotImplemented
    return aten.where.self(condition, x.to(dtype), y.to(dtype))


def _constant_pad(x: torch.Tensor, pads: Sequence[int], value: Any = 0) -> Any:
    """Return a tensor with pads of which some cut: torch-mlir reads beyond its end."""
    if min(pads, default=0) >= 0:
        return NotImplemented
    for axis, (before, after) in enumerate(zip(pads[::2], pads[1::2], strict=True), start=1):
        start, stop = max(-before, 0), x.shape[-axis] + min(after, 0)
        x = x.narrow(-axis, start, stop - start)
    return aten.constant_pad_nd.default(x, [max(pad, 0) for pad in pads], value)


def _wide_product(product: Any) -> Callable[[torch.Tensor, torch.Tensor], Any]:
    """Return a product of bytes as one of wider integers, whose last eight bits are the same: torch-mlir has none."""

    def decomposed(x: torch.Tensor, y: torch.Tensor) -> Any:
        if x.dtype not in (torch.int8, torch.uint8):
            return NotImplemented
        return product(x.to(torch.int32), y.to(torch.int32)).to(x.dtype)

    return decomposed


# Adaptive pools whose windows all have one size are ordinary ones; others are products with matrices, and gathers.
DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.cat.default: _cat,
    aten.clamp.Tensor: _clamp,
    aten.convolution.default: _convolution,
    aten._adaptive_avg_pool2d.default: _adaptive_avg_pool2d,
    aten.adaptive_max_pool2d.default: _adaptive_max_pool2d,
    aten.empty.memory_format: _empty,  # of circular pads: what lies in memory is not the same twice, nor finite
    aten.constant_pad_nd.default: _constant_pad,
    aten.where.self: _where,
    aten.mm.default: _wide_product(aten.mm.default),
    aten.bmm.default: _wide_product(aten.bmm.default),
    aten.native_group_norm.default: _group_norm,  # torch's own has as_strided, which torch-mlir takes for a gather
    aten.instance_norm.default: _instance_norm,  # torch-mlir's own computes in f64, and apart from each other
}
