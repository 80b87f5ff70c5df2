"""Dilated convolutions as undilated ones: places whose distance is a multiple of the dilation see each other only, so
that they make images of their own, which `winograd` and its like can compute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import tensor

from patc.integers import ceil_div
from patc.passes.base import PassState
from patc.passes.ir.constants import constant_name, make_constant, read_constant
from patc.passes.ir.windows import Window
from patc.passes.raising.linalg_layers import Build, cropped, padded, rearranged, tensor_like

_LEAST_CHANNELS = 256  # with half of them the two copies cost what the convolution gains
_LEAST_SIZE = 6  # of an image: in smaller ones much of each tile of outputs is computed for nothing
_MOST_ZEROS = 0.3  # of weights that no format takes: see `pattern-encode`


def without_unseen(weight: ir.Value, window: Window, size: Sequence[int], state: PassState) -> tuple[ir.Value, Window]:
    """Return constant weights and the window without the outer taps that see zeros around the input at each place.

    Args:
        size: height and width of the input.
    """
    result, kept, pads = window.result_size(size), [], [0] * 4
    for axis in (0, 1):
        stride, dilation, pad = window.strides[axis], window.dilations[axis], window.pads[axis]
        first = np.arange(window.kernel[axis]) * dilation - pad
        seen = np.flatnonzero((first < size[axis]) & (first + (result[axis] - 1) * stride >= 0))
        if not len(seen) or pad < seen[0] * dilation:
            return weight, window
        kept.append(slice(seen[0], seen[-1] + 1))
        unread = window.kernel[axis] - 1 - seen[-1]
        pads[axis], pads[axis + 2] = pad - seen[0] * dilation, window.pads[axis + 2] - unread * dilation
    if min(pads) < 0 or all(part == slice(0, taps) for part, taps in zip(kept, window.kernel, strict=True)):
        return weight, window
    array = read_constant(weight, state)
    if array is None:
        return weight, window
    array, name = np.ascontiguousarray(array[:, :, kept[0], kept[1]]), constant_name(weight)
    top, left, bottom, right = map(int, pads)
    seen_window = Window(array.shape[2:], window.strides, (top, left, bottom, right), window.dilations)
    return make_constant(array, name and f"{name}.seen", state), seen_window


def build_apart(
    source: ir.Value, weight: ir.Value, window: Window, shape: Sequence[int], build: Build, state: PassState
) -> ir.Value | None:
    """Return the result of a convolution of one group, or None where its images would not gain from it."""
    batch, channels, *size = source.type.shape
    apart, array = window.dilations[0], read_constant(weight, state)
    is_square = window.kernel == (3, 3) and window.strides == (1, 1) and window.dilations == (apart, apart)
    if not is_square or apart == 1 or array is None or np.mean(array == 0) >= _MOST_ZEROS:
        return None
    if min(channels, shape[1]) < _LEAST_CHANNELS or any(pad % apart for pad in window.pads[:2]):
        return None
    images = [ceil_div(extent, apart) for extent in size]
    places = [ceil_div(extent, apart) for extent in shape[2:]]
    pads = [pad // apart for pad in window.pads[:2]]
    pads += [places[axis] + 2 - pads[axis] - images[axis] for axis in (0, 1)]
    if min(pads) < 0 or min(images) < _LEAST_SIZE:
        return None
    behind = [extent * apart - given for extent, given in zip(images, size, strict=True)]
    whole = padded(source, (0, 0), behind)
    split = rearranged(whole, [batch, channels, images[0], apart, images[1], apart], [0, 3, 5, 1, 2, 4])
    split = tensor.collapse_shape(
        tensor_like([batch * apart**2, channels, *images], source), split, [[0, 1, 2], [3], [4], [5]]
    )
    top, left, bottom, right = pads
    result = build(
        split, weight, Window((3, 3), pads=(top, left, bottom, right)), [batch * apart**2, shape[1], *places]
    )
    joined = rearranged(result, [batch, apart, apart, shape[1], *places], [0, 3, 4, 1, 5, 2])
    made = [batch, shape[1], places[0] * apart, places[1] * apart]
    joined = tensor.collapse_shape(tensor_like(made, result), joined, [[0], [1], [2, 3], [4, 5]])
    return cropped(joined, [0] * 4, shape)
