"""Layers of ncnn that move elements: splitting, joining, and other shapes of blobs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from patc.frontend.ncnn_files import NcnnLayer, WeightReader
from patc.frontend.ncnn_layers import AXES, REST, Constants, builds

# Which axis of the input each axis of the output is, innermost first; for fewer axes what is left of the first six.
_ORDERS = (
    *("whdc", "hwdc", "wdhc", "dwhc", "hdwc", "dhwc"),
    *("whcd", "hwcd", "wchd", "cwhd", "hcwd", "chwd"),
    *("wdch", "dwch", "wcdh", "cwdh", "dcwh", "cdwh"),
    *("hdcw", "dhcw", "hcdw", "chdw", "dchw", "cdhw"),
)
_ORDERS_OF_THREE = ("whc", "hwc", "wch", "cwh", "hcw", "chw")


def axis_of(axis: int) -> int:
    """Return the dimension of a tensor that an axis of a blob is, also one that is counted from the end."""
    return axis if axis < 0 else axis + 1


@builds("Split")
def _split(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Any]:
    count = len(layer.outputs)
    return lambda x: (x,) * count if count > 1 else x


@builds("Noop", "Cast")
def _pass_on(layer: NcnnLayer, weights: WeightReader) -> Callable[..., Any]:
    for key in (0, 1) if layer.type == "Cast" else ():
        if layer.integer(key, 0) > 1:
            layer.refuse("expected float32", "another element type")
    return lambda *blobs: blobs[0] if len(blobs) == 1 else blobs


@builds("Concat")
def _concat(layer: NcnnLayer, weights: WeightReader) -> Callable[..., Tensor]:
    axis = axis_of(layer.integer(0, 0))
    return lambda *blobs: torch.cat(blobs, axis)


@builds("Slice")
def _slice(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Any]:
    sizes, axis, places = layer.integers(0), axis_of(layer.integer(1, 0)), layer.integers(2)
    count = len(layer.outputs)
    if len(places or sizes) < count - bool(places):
        layer.refuse(f"expected sizes of {count} parts", str(sizes or places))

    def cut(x: Tensor) -> Any:
        whole, start, parts = x.shape[axis], 0, []
        for part in range(count):
            if places:
                place = places[part] if part < len(places) else whole
                size = place + (whole if place < 0 else 0) - start
            elif sizes[part] == REST:  # an equal share of what is left
                size = (whole - start) // (count - part)
            else:
                size = sizes[part]
            parts.append(x.narrow(axis, start, size))
            start += size
        return tuple(parts) if count > 1 else parts[0]

    return cut


@builds("Flatten")
def _flatten(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Tensor]:
    return lambda x: x.flatten(1)


@builds("Reshape")
def _reshape(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Tensor]:
    names = {name: layer.integer(key, REST) for name, key in zip("cdhw", (2, 11, 1, 0), strict=True)}
    given = {name: size for name, size in names.items() if size != REST}
    layer.require(3, 0, "an order of channels last")
    if 6 in layer.values:
        layer.refuse("expected sizes of numbers", f"the expression '{layer.values[6]}'")
    if list(given) not in (["w"], ["h", "w"], ["c", "h", "w"], ["c", "d", "h", "w"]):
        layer.refuse("expected sizes w, h w, c h w or c d h w", " ".join(given) or "none")

    def reshape(x: Tensor) -> Tensor:
        old = {**dict.fromkeys("cdhw", 1), **dict(zip(AXES[x.dim() - 1], x.shape[1:], strict=True))}
        return x.reshape(x.shape[0], *(old[name] if size == 0 else size for name, size in given.items()))

    return reshape


@builds("Permute")
def _permute(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Tensor]:
    number = layer.integer(0, 0)
    layer.choose(0, _ORDERS)

    def permute(x: Tensor) -> Tensor:
        rank = x.dim() - 1
        if rank == 1:
            return x
        orders = {2: ("wh", "hw"), 3: _ORDERS_OF_THREE, 4: _ORDERS}[rank]
        if number >= len(orders):
            layer.refuse(f"expected an order of {rank} axes", str(number))
        places = {name: place for place, name in enumerate(AXES[rank], 1)}
        return x.permute(0, *(places[name] for name in reversed(orders[number])))

    return permute


@builds("ExpandDims")
def _expand(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Tensor]:
    flags, axes = [layer.integer(key, 0) for key in (0, 1, 11, 2)], layer.integers(3)
    if any(flags) or not axes:
        layer.refuse("expected axes (parameter 3)", f"{flags} for w, h, d, c, as old files have")

    def expand(x: Tensor) -> Tensor:
        rank = x.dim() - 1 + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            x = x.unsqueeze(axis + 1)
        return x

    return expand


@builds("Squeeze")
def _squeeze(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Tensor]:
    flags, axes = dict(zip("whdc", (layer.integer(key, 0) for key in (0, 1, 11, 2)), strict=True)), layer.integers(3)

    def squeeze(x: Tensor) -> Tensor:
        rank = x.dim() - 1
        chosen = [axis % rank for axis in axes] or [place for place, name in enumerate(AXES[rank]) if flags[name]]
        kept = [size for place, size in enumerate(x.shape[1:]) if place not in chosen or size != 1]
        return x.reshape(x.shape[0], *(kept or [1]))

    return squeeze


@builds("Tile")
def _tile(layer: NcnnLayer, weights: WeightReader) -> Callable[[Tensor], Tensor]:
    axis, times, repeats = layer.integer(0, 0), layer.integer(1, 1), layer.integers(2)

    def tile(x: Tensor) -> Tensor:
        rank = x.dim() - 1
        if not repeats:
            counts = [times if place == axis % rank else 1 for place in range(rank)]
        else:
            counts = [1] * (rank - len(repeats)) + repeats
        x = x.reshape(x.shape[0], *[1] * (len(counts) - rank), *x.shape[1:])
        return x.repeat(1, *counts)

    return tile


@builds("MemoryData")
def _constant(layer: NcnnLayer, weights: WeightReader) -> nn.Module:
    """What it returns has a batch of one, which broadcasts."""
    sizes = layer.sizes()
    read = weights.plain if layer.integer(21, 1) == 1 else weights.tagged
    if not sizes or math.prod(sizes) < 1:
        layer.refuse("expected sizes of 1 or more", str(sizes))
    return Constants(lambda values: values, read(layer, 1, *sizes))
