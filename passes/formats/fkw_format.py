"""FKW as a weight format: which layers it fits, and what passes do to its arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import MAX_TAPS, FkwAttr, Library
from patc.dialects.schedules import KeptKernels
from patc.integers import ceil_div
from patc.passes.formats import fkw
from patc.passes.formats.base import Arrays, EncodeOptions, StaysDense, WeightFormat
from patc.passes.formats.fkr import order_filters
from patc.passes.formats.fkw_library import POINTWISE_DEPTH, find_layer_library, find_single_taps

_PICTURE = 24  # rows and columns of a picture of kernels, at most
MOST_PADDING = 1.5  # stored weights over those that are not zero: above, single taps are faster


@dataclass(frozen=True)
class FkwFormat(WeightFormat):
    """The kept kernels of a layer, whose patterns are those of a library."""

    library: Library
    attribute: ClassVar[type] = FkwAttr

    @classmethod
    def encode(cls, weight: np.ndarray, groups: int, options: EncodeOptions) -> tuple[FkwFormat, Arrays] | None:
        if weight.ndim == 2:
            return None  # no kernel would gain from it
        if _is_usually_dense(weight, groups) and np.mean(weight == 0) < options.min_sparsity:
            return None
        _check_kind(weight)
        singles = find_single_taps(weight, options)
        try:
            library, encoded = _encode_patterns(weight, groups, options)
        except StaysDense:
            if not singles:
                raise
            return _encode_singles(weight, singles, groups)
        if singles and encoded.values.size > MOST_PADDING * np.count_nonzero(weight):
            return _encode_singles(weight, singles, groups)
        return cls(library), encoded.arrays

    @classmethod
    def from_attr(cls, attr: Any) -> FkwFormat:
        return cls(Library.from_attr(attr))

    def to_attr(self) -> ir.Attribute:
        return self.library.to_attr()

    def decode(self, arrays: Arrays, channels: int, groups: int = 1) -> np.ndarray:
        return fkw.decode(fkw.Fkw(*arrays), self.library.masks, self.library.kernel, channels, groups)

    def find_violation(self, arrays: Arrays, channels: int, groups: int = 1) -> tuple[str, Any] | None:
        return fkw.find_violation(fkw.Fkw(*arrays), channels, self.library.depth, groups)

    def kept_weights(self, shapes: Sequence[Sequence[int]]) -> int:
        return math.prod(shapes[0])

    @property
    def reads_neighbours(self) -> bool:
        return self.library.depth > 1

    def order_filters(self, arrays: Arrays) -> np.ndarray:
        return order_filters(fkw.Fkw(*arrays))

    def output_channels(self, arrays: Arrays) -> np.ndarray:
        return fkw.Fkw(*arrays).reorder

    def permute_filters(self, arrays: Arrays, order: np.ndarray, positions: np.ndarray) -> Arrays:
        return fkw.permute_filters(fkw.Fkw(*arrays), order, positions).arrays

    def permute_channels(self, arrays: Arrays, positions: np.ndarray) -> Arrays:
        return fkw.permute_channels(fkw.Fkw(*arrays), positions).arrays

    def shares(self, arrays: Arrays) -> tuple[float, ...]:
        counts = np.diff(fkw.Fkw(*arrays).pattern_offsets.astype(np.int64), axis=1).sum(axis=0)
        return tuple(counts / counts.sum())

    def kept_kernels(self, arrays: Arrays, channels: int, groups: int = 1) -> KeptKernels:
        kept, library = fkw.Fkw(*arrays), self.library
        filters, group = len(kept.reorder), channels // groups
        owners, patterns = kept.owners()
        first = kept.reorder[owners].astype(np.int64) // ceil_div(filters, groups) * group  # channel of its filter
        sites = max(1, ceil_div(group, library.depth))
        places = np.minimum((kept.index.astype(np.int64) - first) // library.depth, sites - 1)
        most = len(library.masks) if library.entries == 1 else 1  # at one site
        shares = np.bincount(owners, minlength=filters) / (most * sites)
        spread = np.histogram(shares, 10, (0.0, 1.0))[0]
        bins = min(filters, _PICTURE), min(sites, _PICTURE)
        found = np.histogram2d(owners, places, bins, ((0, filters), (0, sites)))[0]
        sizes = [np.histogram(range(size), part, (0, size))[0] for size, part in ((filters, bins[0]), (sites, bins[1]))]
        digits = np.ceil(15 * np.minimum(found / (most * np.outer(*sizes)), 1.0)).astype(int)
        return KeptKernels(
            (library.depth, *library.kernel),
            library.masks,
            tuple(np.bincount(patterns, minlength=len(library.masks)).tolist()),
            tuple(spread.tolist()),
            tuple("".join(f"{digit:x}" for digit in row) for row in digits),
        )


def _is_usually_dense(weight: np.ndarray, groups: int) -> bool:
    """Whether a convolution is of a kind that most pruning leaves alone: 1x1, depthwise or very large."""
    _, channels, height, width = weight.shape
    return height * width == 1 or height * width > MAX_TAPS or (channels == 1 and groups > 1)


def _check_kind(weight: np.ndarray) -> None:
    """Refuse kernels that masks are too short for, and weights that are all zero.

    Raises:
        StaysDense: the reason.
    """
    height, width = weight.shape[2:]
    if height * width > MAX_TAPS:
        raise StaysDense(f"{height}x{width} kernels have more than {MAX_TAPS} taps")
    if not weight.any():
        raise StaysDense("all weights are zero")


def _encode_singles(weight: np.ndarray, masks: tuple[int, ...], groups: int) -> tuple[FkwFormat, Arrays]:
    """Return format and arrays of a layer whose weights are stored one by one."""
    height, width = weight.shape[2:]
    return FkwFormat(Library((height, width), masks)), fkw.encode(weight, masks, groups).arrays


def _encode_patterns(weight: np.ndarray, groups: int, options: EncodeOptions) -> tuple[Library, fkw.Fkw]:
    """Return the patterns of a layer, and its kernels.

    Raises:
        StaysDense: why it has none.
    """
    _, channels, height, width = weight.shape
    if height * width > 1:
        library = Library((height, width), find_layer_library(weight, 1, options))
        return library, _checked(fkw.encode(weight, library.masks, groups), weight, options)
    if groups > 1:
        raise StaysDense("1x1 kernels of a grouped convolution have no patterns")
    depth = POINTWISE_DEPTH
    if channels < depth:
        raise StaysDense(f"1x1 kernels have patterns over {depth} input channels, the layer has {channels}")
    try:
        library = Library((height, width), find_layer_library(weight, depth, options), depth)
        return library, _checked(fkw.encode(weight, library.masks, groups, depth), weight, options)
    except StaysDense as reason:
        raise StaysDense(f"with {depth} input channels to a kernel, {reason}") from None


def _checked(encoded: fkw.Fkw, weight: np.ndarray, options: EncodeOptions) -> fkw.Fkw:
    """Return arrays that leave out as much of the weights as is asked for.

    Raises:
        StaysDense: how much others do.
    """
    left_out = 1 - encoded.values.size / weight.size
    if left_out < options.min_sparsity:
        raise StaysDense(f"patterns leave out {left_out:.0%} of the weights, {options.min_sparsity:.0%} expected")
    return encoded
