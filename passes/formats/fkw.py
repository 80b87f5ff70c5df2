"""FKW, PatDNN's storage of pattern-pruned weights, as plain numpy arrays (paper, section 6.2).

What the arrays mean is said in `FkwAttr`. A pattern is a bit mask of a kernel's taps, row-major. A kernel
of depth D spans D consecutive input channels (paper, section 3): its D x KH x KW taps follow each other in a dense
F x C x KH x KW weight, as those of one channel do. Depth 1 is the common case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from patc.dialects.attributes import MAX_TAPS

DROPPED = -1


@dataclass(frozen=True)
class Fkw:
    """The kept kernels of one convolution: F filters, K kernels of E entries, P patterns.

    Attributes:
        values: K x E, the entries of each kernel in row-major order of its pattern's taps.
        index: K, the (first) input channel of each kernel.
        offset: F + 1, the first kernel of each stored filter.
        pattern_offsets: F x (P + 1), the first kernel of each pattern, counted from the filter's first.
        reorder: F, the output channel of each stored filter.
    """

    values: np.ndarray
    index: np.ndarray
    offset: np.ndarray
    pattern_offsets: np.ndarray
    reorder: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The arrays in the order of an op's operands."""
        return self.values, self.index, self.offset, self.pattern_offsets, self.reorder

    @property
    def kernels(self) -> int:
        """K, the number of kept kernels."""
        return len(self.index)

    def owners(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the stored filter and the pattern of each kernel, both K."""
        counts = self.pattern_offsets[:, 1:] - self.pattern_offsets[:, :-1]
        filters, patterns = counts.shape
        cells = np.repeat(np.arange(filters * patterns), counts.ravel())
        return cells // patterns, cells % patterns


def kernel_masks(weight: np.ndarray, depth: int = 1) -> np.ndarray:
    """Return the mask of the non-zero entries of each kernel: F x C x KH x KW -> F x (C // depth), int64.

    Channels behind the last whole kernel do not count, see `rest_masks`.
    """
    filters, channels, height, width = weight.shape
    kernels, taps = channels // depth, depth * height * width
    return _masks(weight.reshape(filters, -1)[:, : kernels * taps].reshape(filters, kernels, taps))


def rest_masks(weight: np.ndarray, depth: int) -> np.ndarray:
    """Return the masks of what `kernel_masks` leaves out: F x C x KH x KW -> F, int64.

    They are masks of the kernels that start at channel C - depth, in which only the last C mod depth channels count.
    """
    filters, channels, height, width = weight.shape
    rest = channels % depth
    if rest == 0:
        return np.zeros(filters, np.int64)
    entries = weight[:, channels - rest :].reshape(filters, -1)
    return _masks(entries) << (depth - rest) * height * width


def _masks(entries: np.ndarray) -> np.ndarray:
    """Return the masks of the non-zero entries along the last axis."""
    masks = np.zeros(entries.shape[:-1], np.int64)
    for tap in range(entries.shape[-1]):
        masks |= (entries[..., tap] != 0).astype(np.int64) << tap
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


def cover(mask: int, masks: Sequence[int]) -> tuple[int, ...] | None:
    """Return the numbers of the fewest patterns of `masks` that cover `mask` together; None if all of them do not."""
    reached: dict[int, tuple[int, ...]] = {mask: ()}
    while reached and 0 not in reached:
        further: dict[int, tuple[int, ...]] = {}
        for left, chosen in reached.items():
            for pattern, covered in enumerate(masks):
                if covered & left & -left:  # some pattern has to cover the lowest tap that is left
                    further.setdefault(left & ~covered, (*chosen, pattern))
        reached = further
    return reached.get(0)


def encode(weight: np.ndarray, masks: Sequence[int], groups: int = 1, depth: int = 1) -> Fkw:
    """Split a convolution's weight into FKW arrays.

    Filters keep their order. Inside a filter kernels are sorted by pattern, then by input channel. A kernel
    that several patterns cover takes the first of them and stores zeros; a kernel of zeros is dropped.

    Kernels that no pattern covers are cut into taps where the library has each of them as a pattern.

    Where `depth` does not divide the channels of a group, the rest of each filter is stored as the fewest kernels that
    hold it. They start `depth` channels before the end, and store zeros for all taps but theirs.

    Args:
        weight: F x C/groups x KH x KW.
        masks: the pattern library, all with the same number of taps.
        depth: input channels of one kernel, at most C/groups.

    Raises:
        ValueError: no pattern covers some kernel.
    """
    filters, group_channels, height, width = weight.shape
    kernels = _cut(weight, masks, depth)
    order = np.argsort(kernels[0] * len(masks) + kernels[2], kind="stable")  # kernels are sorted by channel already
    owner, channel, pattern, held = kernels[:, order]

    taps = np.array([mask_taps(mask) for mask in masks])[pattern]
    kernel = (owner * group_channels + channel) * (height * width)
    values = weight.reshape(-1)[kernel[:, None] + taps]
    counts = np.bincount(owner * len(masks) + pattern, minlength=filters * len(masks))
    pattern_offsets = _boundaries(counts.reshape(filters, len(masks)))
    channels = group_channels * groups
    return Fkw(
        values=np.where(held[:, None] >> taps & 1, values, weight.dtype.type(0)),
        index=(channel + owner // (filters // groups) * group_channels).astype(index_type(channels)),
        offset=_boundaries(pattern_offsets[:, -1]).astype(np.int32),
        pattern_offsets=pattern_offsets.astype(index_type(pattern_offsets[:, -1].max(initial=0))),
        reorder=np.arange(filters, dtype=index_type(filters)),
    )


def _cut(weight: np.ndarray, masks: Sequence[int], depth: int) -> np.ndarray:
    """Return filter, first channel in its group, pattern and held taps of each kernel: 4 x K, int64.

    The kernels of a filter are sorted by channel.

    Raises:
        ValueError: no pattern covers some kernel.
    """
    whole = kernel_masks(weight, depth)
    chosen = choose_patterns(whole, masks)
    if (chosen == len(masks)).any():
        return _cut_into_taps(weight, masks, depth)
    owner, number = np.nonzero(chosen != DROPPED)
    parts = [np.stack([owner, number * depth, chosen[owner, number], whole[owner, number]])]
    rest, last = rest_masks(weight, depth), weight.shape[1] - depth
    for mask in np.unique(rest[rest != 0]).tolist():
        owner = np.flatnonzero(rest == mask)
        for share in _share(mask, masks):
            parts.append(np.stack([owner, *(np.full_like(owner, value) for value in (last, *share))]))
    return np.concatenate(parts, axis=1)


def _cut_into_taps(weight: np.ndarray, masks: Sequence[int], depth: int) -> np.ndarray:
    """Return what `_cut` does, with a kernel for each weight.

    Raises:
        ValueError: the patterns are not all of one tap, or are no taps of some weights.
    """
    filters, channels, height, width = weight.shape
    owner, channel, tap = np.nonzero(weight.reshape(filters, channels, height * width))
    held = np.int64(1) << tap
    order = np.argsort(masks)
    place = np.minimum(np.searchsorted(masks, held, sorter=order), len(masks) - 1)
    if depth > 1 or (np.array(masks)[order[place]] != held).any():
        raise ValueError("expected a library that covers every kernel")
    return np.stack([owner, channel, order[place], held])


def _share(mask: int, masks: Sequence[int]) -> list[tuple[int, int]]:
    """Return the fewest patterns that cover a mask, each with those of its taps that no earlier one holds.

    Raises:
        ValueError: no patterns cover it.
    """
    patterns = cover(mask, masks)
    if patterns is None:
        raise ValueError("expected a library that covers every kernel")
    shares = []
    for pattern in patterns:
        shares.append((pattern, mask & masks[pattern]))
        mask &= ~masks[pattern]
    return shares


def decode(fkw: Fkw, masks: Sequence[int], kernel: tuple[int, int], channels: int, groups: int = 1) -> np.ndarray:
    """Return the dense F x `channels`/groups x KH x KW weight of FKW arrays.

    Kernels of one filter that read the same input channel add up, as in the convolution. The depth of the kernels does
    not matter: their taps follow each other from channel to channel.
    """
    owner, pattern = fkw.owners()
    filters, taps = len(fkw.reorder), kernel[0] * kernel[1]
    row, own = fkw.reorder.astype(np.int64)[owner], channels // groups
    first = (row * own + fkw.index - row // (filters // groups) * own) * taps
    position = first[:, None] + np.array([mask_taps(mask) for mask in masks])[pattern]
    dense = np.bincount(position.ravel(), fkw.values.ravel(), minlength=filters * own * taps)
    return dense.astype(fkw.values.dtype).reshape(filters, own, *kernel)


def permute_filters(fkw: Fkw, order: np.ndarray, positions: np.ndarray) -> Fkw:
    """Return the same convolution with its filters in another order and its output channels renumbered.

    Args:
        order: F, the stored filters in their new order.
        positions: F, the new number of each output channel.
    """
    owner, _ = fkw.owners()
    kernels = np.argsort(invert(order)[owner], kind="stable")
    pattern_offsets = fkw.pattern_offsets[order]
    return Fkw(
        values=fkw.values[kernels],
        index=fkw.index[kernels],
        offset=_boundaries(pattern_offsets[:, -1]).astype(fkw.offset.dtype),
        pattern_offsets=pattern_offsets,
        reorder=positions[fkw.reorder[order]].astype(fkw.reorder.dtype),
    )


def permute_channels(fkw: Fkw, positions: np.ndarray) -> Fkw:
    """Return the same convolution with its input channels renumbered, and kernels of one pattern sorted by channel.

    Args:
        positions: C, the new number of each input channel; 0, 1, 2, ... where kernels span several channels.
    """
    owner, pattern = fkw.owners()
    patterns, index = fkw.pattern_offsets.shape[1] - 1, positions[fkw.index]
    kernels = np.argsort((owner * patterns + pattern) * len(positions) + index, kind="stable")
    return replace(fkw, values=fkw.values[kernels], index=index[kernels].astype(fkw.index.dtype))


def invert(permutation: np.ndarray) -> np.ndarray:
    """Return the inverse of a permutation."""
    inverse = np.empty_like(permutation)
    inverse[permutation] = np.arange(len(permutation), dtype=permutation.dtype)
    return inverse


def find_violation(fkw: Fkw, channels: int, depth: int = 1, groups: int = 1) -> tuple[str, Any] | None:
    """Return the first rule that arrays of the right shapes break, and what was found instead.

    Args:
        channels: C, the input channels.
        depth: input channels that one kernel spans.
        groups: of the convolution.
    """
    steps = np.diff(fkw.pattern_offsets.astype(np.int64), axis=1)
    wrong = np.flatnonzero((fkw.pattern_offsets[:, 0] != 0) | (steps < 0).any(axis=1))
    if wrong.size:
        return "pattern_offsets of a filter to ascend from 0", fkw.pattern_offsets[wrong[0]].tolist()
    offset = _boundaries(fkw.pattern_offsets[:, -1])
    wrong = np.flatnonzero(fkw.offset != offset)
    if wrong.size:
        return f"offset {wrong[0]} to be {offset[wrong[0]]}, as pattern_offsets counts", int(fkw.offset[wrong[0]])
    if offset[-1] != fkw.kernels:
        return f"pattern_offsets to count {fkw.kernels} kernels", int(offset[-1])
    limit = channels - depth + 1
    wrong = np.flatnonzero((fkw.index < 0) | (fkw.index >= limit))
    if wrong.size:
        spanned = "the input channels" if depth == 1 else f"as a kernel spans {depth} of {channels} input channels"
        return f"index below {limit}, {spanned}", int(fkw.index[wrong[0]])
    if (missing := find_missing_channel(fkw.reorder)) is not None:
        return missing
    if groups == 1:
        return None
    own = fkw.reorder.astype(np.int64)[fkw.owners()[0]] // (len(fkw.reorder) // groups)
    wrong = np.flatnonzero(fkw.index // (channels // groups) != own)
    if wrong.size:
        return f"index within group {own[wrong[0]]} of {groups}", int(fkw.index[wrong[0]])
    return None


def find_missing_channel(reorder: np.ndarray) -> tuple[str, Any] | None:
    """Return what is wrong with the output channels of stored filters if one of them is not there, as `find_violation`
    does."""
    missing = np.setdiff1d(np.arange(len(reorder)), reorder)
    return ("reorder to name every output channel", f"none that names {missing[0]}") if missing.size else None


def _boundaries(counts: np.ndarray) -> np.ndarray:
    """Return the running sums of the last axis, with a zero in front."""
    sums = np.cumsum(counts, axis=-1, dtype=np.int64)
    return np.concatenate([np.zeros((*counts.shape[:-1], 1), np.int64), sums], axis=-1)


def index_type(count: int) -> type[np.signedinteger[Any]]:
    """Return the type that numbers `count` things: int16, or int32 from 32768 on."""
    return np.int16 if count <= np.iinfo(np.int16).max else np.int32
