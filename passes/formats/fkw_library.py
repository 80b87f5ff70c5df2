"""The pattern library of a layer: a few patterns that cover the kernels of its weights, read from their zeros."""

from __future__ import annotations

import numpy as np

from patc.dialects.attributes import MAX_TAPS
from patc.integers import ceil_div
from patc.passes.formats.base import EncodeOptions, StaysDense
from patc.passes.formats.fkw import choose_patterns, kernel_masks, rest_masks

POINTWISE_DEPTH = 9  # input channels that a 1x1 convolution's kernels span
_SCATTERED = 0.6  # of the weights are zero at least where each is stored with its own place
_REST_ENTRIES = 6  # of patterns for a rest alone, at most
MIN_ENTRIES = 2  # kernels with fewer are filled up: two multiply-adds of one kernel cost little more than one


def find_layer_library(weight: np.ndarray, depth: int, options: EncodeOptions) -> tuple[int, ...]:
    """Return the patterns of a layer: those that are given, or those that are found, and what the rest needs.

    Args:
        weight: F x C/groups x KH x KW.
        depth: input channels that one kernel spans; the rest is what it does not divide.

    Raises:
        StaysDense: no such library is small enough, or the given one does not cover the kernels.
    """
    kernels, rest = kernel_masks(weight, depth), rest_masks(weight, depth)
    taps = depth * weight.shape[2] * weight.shape[3]
    if options.library and (weight.shape[2:] == (3, 3) or depth > 1):
        _check_library(kernels, options.library)
        return options.library + find_rest_patterns(rest, options.library, taps)
    kept = np.mean(kernels == (1 << taps) - 1)
    if kept > 1 - options.min_sparsity:
        raise StaysDense(f"kernels keep up to {taps} of {taps} weights")
    found = find_library(kernels, taps, options.max_patterns)
    patterns = found + find_rest_patterns(rest, found, taps)
    if len(patterns) > options.max_patterns:
        raise StaysDense(
            f"{len(patterns)} patterns of {size(patterns[0])} entries with those of the rest, "
            f"at most {options.max_patterns} fit"
        )
    return patterns


def find_single_taps(weight: np.ndarray, options: EncodeOptions) -> tuple[int, ...]:
    """Return the patterns of one tap each that any kernels are sums of; none where too few weights are zero for that.

    Args:
        weight: F x C/groups x KH x KW.
    """
    is_sparse = np.mean(weight == 0) >= max(_SCATTERED, options.min_sparsity)
    return used_taps(weight) if is_sparse and not options.library else ()


def used_taps(weight: np.ndarray) -> tuple[int, ...]:
    """Return a pattern of one tap for each that any kernel of F x C/groups x KH x KW weights has a weight at."""
    return tuple(1 << int(tap) for tap in np.flatnonzero((weight != 0).any(axis=(0, 1)).ravel()))


def has_patterns(weight: np.ndarray, options: EncodeOptions) -> bool:
    """Return whether a convolution's kernels have few patterns, which share loads within a kernel: FKW's."""
    channels, height, width = weight.shape[1:]
    depth = POINTWISE_DEPTH if height * width == 1 else 1
    if height * width > MAX_TAPS or channels < depth:
        return False
    return len(np.unique(kernel_masks(weight, depth))) <= options.max_patterns + 1


def _check_library(kernels: np.ndarray, masks: tuple[int, ...]) -> None:
    """Require that each kernel fits one of the given patterns.

    Raises:
        StaysDense: the number of those that do not.
    """
    misfits = np.count_nonzero(choose_patterns(kernels, masks) == len(masks))
    if misfits:
        raise StaysDense(
            f"{misfits} of {np.count_nonzero(kernels)} kernels fit none of the {len(masks)} given patterns"
        )


def find_library(kernels: np.ndarray, taps: int, max_patterns: int) -> tuple[int, ...]:
    """Return a few patterns that cover every kernel mask of a layer, chosen as the pass describes.

    Args:
        kernels: masks of any shape; no patterns where all of them are zero.
        taps: height x width x depth of a kernel.

    Raises:
        StaysDense: the kernels need too many patterns.
    """
    masks, counts = np.unique(kernels[kernels != 0], return_counts=True)
    if not masks.size:
        return ()
    sizes = np.sum([masks >> tap & 1 for tap in range(taps)], axis=0)
    entries = max(MIN_ENTRIES, int(sizes.max()))
    by_frequency = np.lexsort((masks, -counts))
    masks, counts, sizes = masks[by_frequency], counts[by_frequency], sizes[by_frequency]
    patterns = masks[sizes == entries].tolist()
    if len(patterns) > max_patterns:
        misfits = counts[choose_patterns(masks, patterns[:max_patterns]) == max_patterns].sum() / counts.sum()
        rest = f"{misfits:.0%} of the kernels fit none of the commonest {max_patterns}"
        raise StaysDense(f"{len(patterns)} patterns of {entries} entries, at most {max_patterns} fit; {rest}")
    orphans = masks[choose_patterns(masks, patterns) == len(patterns)]
    patterns += _merge(orphans, entries, taps, max_patterns)
    if len(patterns) > max_patterns:
        raise StaysDense(f"more patterns of {entries} entries than the {max_patterns} that fit")
    return tuple(sorted(patterns))


def find_rest_patterns(rest: np.ndarray, patterns: tuple[int, ...], taps: int) -> tuple[int, ...]:
    """Return the patterns that are wanted beside `patterns` to cover every mask of `rest` by few kernels.

    Any mask of n taps, counting all that some filter uses, then takes at most n / E kernels of E entries, rounded up.
    """
    left = int(np.bitwise_or.reduce(rest))
    entries = size(patterns[0]) if patterns else min(max(MIN_ENTRIES, size(left)), _REST_ENTRIES)
    added: list[int] = []
    while left:
        kernels = ceil_div(size(left), entries)
        pattern = max((*patterns, *added), key=lambda mask: size(mask & left), default=0)
        if size(left & ~pattern) > (kernels - 1) * entries:
            pattern = _first_taps(left, entries, taps)
            added.append(pattern)
        left &= ~pattern
    return tuple(added)


def _first_taps(mask: int, entries: int, taps: int) -> int:
    """Return the first `entries` taps of a mask, filled up with the last ones of the kernel.

    The rest is at the end of its kernels: an input channel there is read for another of the filter's kernels.
    """
    pattern = 0
    for tap in [tap for tap in range(taps) if mask >> tap & 1] + [*reversed(range(taps))]:
        if size(pattern) < entries:
            pattern |= 1 << tap
    return pattern


def _merge(masks: np.ndarray, entries: int, taps: int, most: int) -> list[int]:
    """Return patterns of `entries` taps that cover all `masks`; stop after `most` + 1."""
    patterns: list[int] = []
    while masks.size and len(patterns) <= most:
        pattern = 0
        # After the masks single taps fill the pattern up: whichever they are, their weights are zero.
        for mask in [*masks.tolist(), *(1 << tap for tap in range(taps))]:
            if size(pattern | mask) <= entries:
                pattern |= mask
            if size(pattern) == entries:
                break
        patterns.append(pattern)
        masks = masks[(masks & ~pattern) != 0]
    return patterns


def size(mask: int) -> int:
    """Return how many taps a mask has."""
    return bin(mask).count("1")
