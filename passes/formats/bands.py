"""Bands: columns of neighbouring filters, as block pruning leaves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import BandsAttr
from patc.passes.formats.base import Arrays, EncodeOptions, StaysDense
from patc.passes.formats.bundles import FilterBundles
from patc.passes.formats.fkw import find_missing_channel, index_type
from patc.passes.formats.fkw_library import has_patterns

_ROWS = (64, 32, 16, 8, 4)  # of a band, the most that fit first: one load of an input serves all of them
_MORE = 1.1  # weights that a band of more rows may store over one of fewer
_MOST_PADDING = 1.25  # stored weights of a convolution over those that are not zero: above, it has no bands


@dataclass(frozen=True)
class BandsFormat(FilterBundles):
    """Bands of `rows` neighbouring filters, each with the columns of the matrix in which any of them has a weight.

    Attributes:
        kernel: height and width of a convolution's.
    """

    rows: int
    kernel: tuple[int, int] = (1, 1)
    attribute: ClassVar[type] = BandsAttr

    @classmethod
    def encode(cls, weight: np.ndarray, groups: int, options: EncodeOptions) -> tuple[BandsFormat, Arrays] | None:
        if groups > 1:
            return None
        matrix = weight.reshape(len(weight), -1)
        stored = {rows: _stored(matrix, rows) for rows in _ROWS if len(matrix) % rows == 0}
        if not stored or min(stored.values()) > (1 - options.min_sparsity) * matrix.size:
            return None
        if not matrix.any():
            raise StaysDense("all weights are zero")
        is_padded = min(stored.values()) > _MOST_PADDING * np.count_nonzero(matrix)
        if weight.ndim > 2 and (is_padded or options.library or has_patterns(weight, options)):
            return None
        rows = next(rows for rows, count in stored.items() if count <= _MORE * min(stored.values()))
        height, width = weight.shape[2:] or (1, 1)
        return cls(rows, (height, width)), _encode(matrix, rows)

    @classmethod
    def from_attr(cls, attr: Any) -> BandsFormat:
        return cls(ir.IntegerAttr(attr.rows.maybe_downcast()).value, attr.kernel_size())

    def to_attr(self) -> ir.Attribute:
        return BandsAttr.of(self.rows, self.kernel)

    def decode(self, arrays: Arrays, channels: int, groups: int = 1) -> np.ndarray:
        values, index, offset, reorder = arrays
        bands, (height, width) = len(offset) - 1, self.kernel
        stored = np.zeros((bands, channels * height * width, self.rows), values.dtype)
        stored[_owners(offset), index] = values
        dense = np.empty((bands * self.rows, channels, height, width), values.dtype)
        dense[reorder] = stored.transpose(0, 2, 1).reshape(dense.shape)
        return dense

    def find_violation(self, arrays: Arrays, channels: int, groups: int = 1) -> tuple[str, Any] | None:
        _, index, offset, reorder = arrays
        channels *= self.kernel[0] * self.kernel[1]
        if offset[0] != 0 or (np.diff(offset) < 0).any() or offset[-1] != len(index):
            return f"offset to ascend from 0 to {len(index)}", offset.tolist()
        wrong = np.flatnonzero((index < 0) | (index >= channels))
        if wrong.size:
            return f"index below {channels}, the inputs of a filter", int(index[wrong[0]])
        if (missing := find_missing_channel(reorder)) is not None:
            return missing
        steps = np.diff(_owners(offset) * channels + index)
        if (steps <= 0).any():
            return "index to ascend in each band", int(index[1:][steps <= 0][0])
        return None

    def vectors(self, arrays: Arrays) -> float:
        # Of few rows a column is no full vector, but costs as much.
        return len(arrays[0]) * max(1.0, self.rows / 16)

    def permute_channels(self, arrays: Arrays, positions: np.ndarray) -> Arrays:
        values, index, offset, reorder = arrays
        taps = self.kernel[0] * self.kernel[1]
        moved = positions[index // taps].astype(index.dtype) * taps + index % taps
        order = np.lexsort((moved, _owners(offset)))
        return values[order], moved[order], offset, reorder


def _owners(offset: np.ndarray) -> np.ndarray:
    """Return the band of each column."""
    return np.repeat(np.arange(len(offset) - 1), np.diff(offset))


def _stored(weight: np.ndarray, rows: int) -> int:
    """Return how many weights bands of so many rows hold."""
    return int((weight.reshape(-1, rows, weight.shape[1]) != 0).any(1).sum()) * rows


def _encode(weight: np.ndarray, rows: int) -> Arrays:
    """Return the arrays of a matrix, filters x inputs of a filter: see `BandsAttr`."""
    bands = weight.reshape(-1, rows, weight.shape[1])
    owner, index = np.nonzero((bands != 0).any(1))
    offset = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(bands)))])
    reorder = np.arange(len(weight), dtype=index_type(len(weight)))
    columns = index.astype(index_type(weight.shape[1]))
    return np.ascontiguousarray(bands[owner, :, index]), columns, offset.astype(np.int32), reorder
