"""What ncnn does with the planes of a blob: pools, resizing, shuffles between channels and pixels, borders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from patc.frontend.ncnn_files import NcnnLayer, WeightReader
from patc.frontend.ncnn_layers import AXES, REST, builds, same_pads

_POOLS: dict[str, Sequence[Callable[..., Tensor]]] = {
    "max": (functional.max_pool1d, functional.max_pool2d),
    "mean": (functional.avg_pool1d, functional.avg_pool2d),
}
_ADAPTIVE: dict[str, Sequence[Callable[..., Tensor]]] = {
    "max": (functional.adaptive_max_pool1d, functional.adaptive_max_pool2d),
    "mean": (functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d),
}


@builds("Pooling", "Pooling1D")
def _pooling(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Tensor]:
    rank = 1 if layer.type.endswith("1D") else 2
    kind = layer.choose(0, ("max", "mean"))
    width = [layer.integer(key, default) for key, default in ((1, 0), (2, 1), (3, 0))]
    height = [layer.integer(key, first) for key, first in zip((11, 12, 13), width, strict=True)] if rank == 2 else []
    ends = [layer.integer(14, width[2])] + ([layer.integer(15, height[2])] if rank == 2 else [])
    kernel, stride, before = ([*height[i : i + 1], width[i]] for i in range(3))
    pads = list(zip(before, ends[::-1], strict=True))
    mode = layer.choose(5, ("full", "valid", "upper", "lower"))
    counts_pads = layer.integer(6, 0) == 1 or mode in ("upper", "lower")  # those that follow from sizes always count
    is_global, is_adaptive = layer.integer(4, 0), layer.integer(7, 0)
    first = layer.integer(8, 0)
    sizes = [layer.integer(18, first), first] if rank == 2 else [first]
    if is_global:
        reduce = torch.amax if kind == "max" else torch.mean
        return lambda x: reduce(x, dim=list(range(2, x.dim())))
    if is_adaptive:
        adapt = _ADAPTIVE[kind][rank - 1]
        wanted = [None if size == REST else size for size in sizes]
        return lambda x: adapt(x, [x.shape[2 + i] if size is None else size for i, size in enumerate(wanted)])
    if min(*kernel, *stride) < 1 or min(min(pair) for pair in pads) < 0:
        layer.refuse("expected a kernel and strides of 1 or more and pads of 0 or more", f"{kernel}, {stride}, {pads}")

    def pool(x: Tensor) -> Tensor:
        borders = [_borders(*axis, mode) for axis in zip(x.shape[2:], kernel, stride, pads, strict=True)]
        even = all(one == other and 2 * one <= size for (one, other), size in zip(borders, kernel, strict=True))
        if even:
            padding = [one for one, _ in borders]
            options = {} if kind == "max" else {"count_include_pad": counts_pads}
            return _POOLS[kind][rank - 1](x, kernel, stride, padding, **options)
        flat = [pad for pair in reversed(borders) for pad in pair]
        if kind == "max":
            return _POOLS[kind][rank - 1](functional.pad(x, flat, value=-math.inf), kernel, stride)
        means = _POOLS[kind][rank - 1](functional.pad(x, flat), kernel, stride)
        if counts_pads:
            return means
        inside = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype)
        return means / _POOLS[kind][rank - 1](functional.pad(inside, flat), kernel, stride)

    return pool


def _borders(size: int, kernel: int, stride: int, pads: tuple[int, int], mode: str) -> tuple[int, int]:
    """Return the elements around an axis that windows reach."""
    if mode in ("upper", "lower"):
        return same_pads(size, kernel, stride, mode == "upper")
    before, after = pads
    tail = (size + before + after - kernel) % stride if mode == "full" else 0
    return before, after + (stride - tail if tail else 0)


@builds("Interp")
def _resize(layer: NcnnLayer, weights: WeightReader) -> Callable[..., Tensor]:
    kind = layer.choose(0, ("nearest", "nearest", "bilinear", "bicubic"))
    scales = layer.number(1, 1.0), layer.number(2, 1.0)
    sizes = layer.integer(3, 0), layer.integer(4, 0)
    by_other, align = layer.integer(5, 0) == 1, layer.integer(6, 0) == 1
    if 9 in layer.values:
        layer.refuse("expected an output size of numbers", f"the expression '{layer.values[9]}'")
    if not by_other and not all(sizes) and not all(scale > 0 and math.isfinite(scale) for scale in scales):
        layer.refuse("expected scales above 0", str(scales))

    def resize(x: Tensor, *others: Tensor) -> Tensor:
        if x.dim() == 2:  # one number a channel
            x = x[:, :, None, None]
        is_row = x.dim() == 3  # rows that are channels, of which the width changes
        x = x[:, :, None] if is_row else x
        height, width = x.shape[2:]
        wanted = list(others[0].shape[-2:]) if by_other else list(sizes)
        factors = (1.0, scales[1]) if is_row else scales
        if not all(wanted):
            wanted = [int(height * factors[0]), int(width * factors[1])]
        if is_row:
            wanted[0] = 1
        given = by_other or all(sizes)
        if kind == "nearest":
            y = functional.interpolate(x, wanted if given else None, None if given else factors, "nearest")
        elif wanted == [height, width]:
            y = x
        elif given:
            y = functional.interpolate(x, wanted, mode=kind, align_corners=align)
        else:  # by these scales exactly, not by those of the sizes
            y = functional.interpolate(x, scale_factor=factors, mode=kind, align_corners=align)
        return y[:, :, 0] if is_row else y

    return resize


@builds("PixelShuffle")
def _pixel_shuffle(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Tensor]:
    factor, order = layer.integer(0, 1), layer.choose(1, ("channels outside", "channels inside"))
    if factor < 1:
        layer.refuse("expected a factor of 1 or more", str(factor))
    if order == "channels outside":
        return lambda x: functional.pixel_shuffle(x, factor)

    def shuffle(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        parts = x.reshape(batch, factor**2, channels // factor**2, height, width).transpose(1, 2)
        return functional.pixel_shuffle(parts.reshape(batch, channels, height, width), factor)

    return shuffle


@builds("Reorg")
def _reorg(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Tensor]:
    factor, order = layer.integer(0, 1), layer.choose(1, ("channels outside", "channels inside"))
    if factor < 1:
        layer.refuse("expected a factor of 1 or more", str(factor))

    def gather(x: Tensor) -> Tensor:
        y = functional.pixel_unshuffle(x, factor)
        if order == "channels outside":
            return y
        return y.reshape(y.shape[0], -1, factor**2, *y.shape[2:]).transpose(1, 2).reshape(y.shape)

    return gather


@builds("ShuffleChannel")
def _shuffle_channels(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Tensor]:
    groups, is_reverse = layer.integer(0, 1), layer.integer(1, 0)

    def shuffle(x: Tensor) -> Tensor:
        outer = x.shape[1] // groups if is_reverse else groups
        return x.reshape(x.shape[0], outer, -1, *x.shape[2:]).transpose(1, 2).reshape(x.shape)

    return shuffle


@builds("Padding")
def _padding(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Tensor]:
    top, bottom, left, right, front, behind = (layer.integer(key, 0) for key in (0, 1, 2, 3, 7, 8))
    mode = layer.choose(4, ("constant", "replicate", "reflect"))
    value = layer.number(5, 0.0)
    layer.require(6, 0, "a value for each channel")
    if (front or behind) and mode != "constant":
        layer.refuse("expected pads of width and height together with replicate and reflect", "some of channels")
    if min(top, bottom, left, right, front, behind) < 0:
        layer.refuse("expected pads of 0 or more", "fewer: pads of another blob's size")

    def pad(x: Tensor) -> Tensor:
        borders = [left, right, top, bottom, front, behind][: 2 * (x.dim() - 1)]
        if mode == "constant":
            return functional.pad(x, borders, value=value)
        if x.dim() == 2:  # torch pads axes behind a channel
            return functional.pad(x[:, None], borders, mode=mode)[:, 0]
        if x.dim() == 3:
            return functional.pad(x[:, None], borders, mode=mode)[:, 0]
        return functional.pad(x, borders[:4], mode=mode)

    return pad


@builds("Crop")
def _crop(layer: NcnnLayer, weights: WeightReader) -> Callable[..., Tensor]:
    # In the order of a blob's axes: channels, depth, height, width.
    offsets = [layer.integer(key, 0) for key in (2, 13, 1, 0)]
    sizes = [layer.integer(key, 0) for key in (5, 14, 4, 3)]
    ends = [layer.integer(key, 0) for key in (8, 15, 7, 6)]
    starts, stops, axes = layer.integers(9), layer.integers(10), layer.integers(11)
    for key in (19, 20, 21):
        if key in layer.values:
            layer.refuse("expected numbers", f"the expression '{layer.values[key]}'")
    if len(starts) != len(stops) or (axes and len(axes) != len(starts)):
        layer.refuse("expected as many starts as ends and axes", f"{starts}, {stops}, {axes}")

    def crop(x: Tensor, *others: Tensor) -> Tensor:
        shape = x.shape[1:]
        spans = [slice(None)] * len(shape)
        if starts:
            for axis, start, stop in zip(axes or range(len(starts)), starts, stops, strict=True):
                first = 0 if start == REST else start + (shape[axis] if start < 0 else 0)
                last = shape[axis] if stop in (REST, 0) else stop + (shape[axis] if stop < 0 else 0)
                spans[axis] = slice(first, min(last, shape[axis]))
        else:
            like = list(others[0].shape[1:]) if others else None
            for axis, place in enumerate(map("cdhw".index, AXES[len(shape)])):
                size = sizes[place]
                if like is not None:  # a smaller blob says how large the inner axes are
                    inner = axis - len(shape) + len(like)
                    size = like[inner] if inner >= 0 else REST
                elif size in (0, REST):
                    size = shape[axis] - offsets[place] - ends[place]
                size = shape[axis] - offsets[place] if size == REST else size
                spans[axis] = slice(offsets[place], offsets[place] + size)
        whole: tuple[slice, ...] = (slice(None), *spans)
        return x[whole]

    return crop
