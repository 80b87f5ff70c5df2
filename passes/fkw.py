"""FKW, PatDNN's storage of pattern-pruned weights, as plain numpy arrays (paper, section 6.2).

What the arrays mean is said in `pattern.sparse_conv2d`. A pattern is a bit mask of
a kernel's taps, row-major.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Masks are 64-bit signed integers, in numpy and in `#pattern.library`.
MAX_TAPS = 63

DROPPED = -1


@dataclass(frozen=True)
class Fkw:
    """The kept kernels of one convolution: F filters, K kernels of E entries, P patterns.

    Attributes:
        values: K x E, the entries of each kernel in row-major order of its pattern's taps.
        index: K, the input channel of each kernel.
        offset: F + 1, the first kernel of each stored filter.
        stride: F x (P + 1), the first kernel of each pattern, counted from the filter's first.
        reorder: F, the output channel of each stored filter.
    """

    values: np.ndarray
    index: np.ndarray
    offset: np.ndarray
    stride: np.ndarray
    reorder: np.ndarray

    @property
    def kernels(self) -> int:
        """K, the number of kept kernels."""
        return len(self.index)

    def owners(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the stored filter and the pattern of each kernel, both K."""
        counts = self.stride[:, 1:] - self.stride[:, :-1]
        filters, patterns = counts.shape
        cells = np.repeat(np.arange(filters * patterns), counts.ravel())
        return cells // patterns, cells % patterns


def kernel_masks(weight: np.ndarray) -> np.ndarray:
    """Return the mask of the non-zero entries of each kernel: F x C x KH x KW -> F x C, int64."""
    filters, channels, height, width = weight.shape
    entries = weight.reshape(filters, channels, height * width)
    masks = np.zeros((filters, channels), np.int64)
    for tap in range(height * width):
        masks |= (entries[:, :, tap] != 0).astype(np.int64) << tap
    return masks


def mask_taps(mask: int) -> list[int]:
    """Return the numbers of a mask's taps, ascending."""
    return [bit for bit in range(MAX_TAPS) if mask >> bit & 1]


def choose_patterns(kernels: np.ndarray, masks: Sequence[int]) -> np.ndarray:
    """Return for each kernel mask the first pattern of `masks` that covers it.

    `DROPPED` stands for an empty kernel and `len(masks)` for one that no pattern covers.
    """
    chosen = np.full(kernels.shape, len(masks), np.int64)
    for pattern in reversed(range(len(masks))):
        chosen[(kernels & ~masks[pattern]) == 0] = pattern
    chosen[kernels == 0] = DROPPED
    return chosen


def encode(weight: np.ndarray, masks: Sequence[int], groups: int = 1) -> Fkw:
    """Split a convolution's weight into FKW arrays.

    Filters keep their order. Inside a filter kernels are sorted by pattern, then by input channel. A kernel
    that several patterns cover takes the first of them and stores zeros; a kernel of zeros is dropped.

    Args:
        weight: F x C/groups x KH x KW.
        masks: the pattern library, all with the same number of taps.

    Raises:
        ValueError: no pattern covers some kernel.
    """
    filters, group_channels, height, width = weight.shape
    chosen = choose_patterns(kernel_masks(weight), masks)
    if (chosen == len(masks)).any():
        raise ValueError("expected a library that covers every kernel")
    owner, channel = np.nonzero(chosen != DROPPED)
    pattern = chosen[owner, channel]
    order = np.argsort(owner * len(masks) + pattern, kind="stable")  # kernels are sorted by channel already
    owner, channel, pattern = owner[order], channel[order], pattern[order]

    taps = np.array([mask_taps(mask) for mask in masks])
    kernel = (owner * group_channels + channel) * (height * width)
    counts = np.bincount(owner * len(masks) + pattern, minlength=filters * len(masks))
    stride = _boundaries(counts.reshape(filters, len(masks)))
    channels = group_channels * groups
    return Fkw(
        values=weight.reshape(-1)[kernel[:, None] + taps[pattern]],
        index=(channel + owner // (filters // groups) * group_channels).astype(_index_type(channels)),
        offset=_boundaries(stride[:, -1]).astype(np.int32),
        stride=stride.astype(_index_type(stride[:, -1].max(initial=0))),
        reorder=np.arange(filters, dtype=_index_type(filters)),
    )


def decode(fkw: Fkw, masks: Sequence[int], kernel: tuple[int, int], channels: int) -> np.ndarray:
    """Return the dense F x `channels` x KH x KW weight of FKW arrays; a grouped one has zeros between groups.

    Kernels of one filter that read the same input channel add up, as in the convolution.
    """
    owner, pattern = fkw.owners()
    filters, taps = len(fkw.reorder), kernel[0] * kernel[1]
    row = fkw.reorder.astype(np.int64)[owner]
    first = (row * channels + fkw.index) * taps
    position = first[:, None] + np.array([mask_taps(mask) for mask in masks])[pattern]
    dense = np.bincount(position.ravel(), fkw.values.ravel(), minlength=filters * channels * taps)
    return dense.astype(fkw.values.dtype).reshape(filters, channels, *kernel)


def rearrange(fkw: Fkw, order: np.ndarray, input_positions: np.ndarray, output_positions: np.ndarray) -> Fkw:
    """Return the same convolution with its filters in another order and its channels renumbered.

    Args:
        order: F, the stored filters in their new order.
        input_positions: C, the new number of each input channel.
        output_positions: F, the new number of each output channel.
    """
    owner, pattern = fkw.owners()
    patterns, channels = fkw.stride.shape[1] - 1, len(input_positions)
    index = input_positions[fkw.index]
    kernels = np.argsort((invert(order)[owner] * patterns + pattern) * channels + index, kind="stable")
    stride = fkw.stride[order]
    return Fkw(
        values=fkw.values[kernels],
        index=index[kernels].astype(fkw.index.dtype),
        offset=_boundaries(stride[:, -1]).astype(fkw.offset.dtype),
        stride=stride,
        reorder=output_positions[fkw.reorder[order]].astype(fkw.reorder.dtype),
    )


def invert(permutation: np.ndarray) -> np.ndarray:
    """Return the inverse of a permutation."""
    inverse = np.empty_like(permutation)
    inverse[permutation] = np.arange(len(permutation), dtype=permutation.dtype)
    return inverse


def find_violation(fkw: Fkw, channels: int) -> tuple[str, Any] | None:
    """Return the first rule that arrays of the right shapes break, and what was found instead."""
    steps = np.diff(fkw.stride.astype(np.int64), axis=1)
    wrong = np.flatnonzero((fkw.stride[:, 0] != 0) | (steps < 0).any(axis=1))
    if wrong.size:
        return "stride of a filter to ascend from 0", fkw.stride[wrong[0]].tolist()
    offset = _boundaries(fkw.stride[:, -1])
    wrong = np.flatnonzero(fkw.offset != offset)
    if wrong.size:
        return f"offset {wrong[0]} to be {offset[wrong[0]]}, as stride counts", int(fkw.offset[wrong[0]])
    if offset[-1] != fkw.kernels:
        return f"stride to count {fkw.kernels} kernels", int(offset[-1])
    wrong = np.flatnonzero((fkw.index < 0) | (fkw.index >= channels))
    if wrong.size:
        return f"index below {channels}, the input channels", int(fkw.index[wrong[0]])
    missing = np.setdiff1d(np.arange(len(fkw.reorder)), fkw.reorder)
    if missing.size:
        return "reorder to name every output channel", f"none that names {missing[0]}"
    return None


def _boundaries(counts: np.ndarray) -> np.ndarray:
    """Return the running sums of the last axis, with a zero in front."""
    sums = np.cumsum(counts, axis=-1, dtype=np.int64)
    return np.concatenate([np.zeros((*counts.shape[:-1], 1), np.int64), sums], axis=-1)


def _index_type(count: int) -> type[np.signedinteger[Any]]:
    """Return the type that numbers `count` things: int16, or int32 from 32768 on."""
    return np.int16 if count <= np.iinfo(np.int16).max else np.int32
