"""Bands: columns of neighbouring filters, as block pruning leaves them in linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import BandsAttr
from patc.passes.formats.base import Arrays, EncodeOptions, StaysDense, WeightFormat

_ROWS = (64, 32, 16, 8, 4)  # of a band, the most that fit first: one load of an input serves all of them
_MORE = 1.1  # weights that a band of more rows may store over one of fewer


@dataclass(frozen=True)
class BandsFormat(WeightFormat):
    """Bands of `rows` neighbouring filters, each with the columns of the matrix in which any of them has a weight."""

    rows: int
    attribute: ClassVar[type] = BandsAttr

    @classmethod
    def encode(cls, weight: np.ndarray, groups: int, options: EncodeOptions) -> tuple[BandsFormat, Arrays] | None:
        if weight.ndim != 2:
            return None
        stored = {rows: _stored(weight, rows) for rows in _ROWS if len(weight) % rows == 0}
        if not stored or min(stored.values()) > (1 - options.min_sparsity) * weight.size:
            return None
        if not weight.any():
            raise StaysDense("all weights are zero")
        rows = next(rows for rows, count in stored.items() if count <= _MORE * min(stored.values()))
        return cls(rows), _encode(weight, rows)

    @classmethod
    def from_attr(cls, attr: Any) -> BandsFormat:
        return cls(ir.IntegerAttr(attr.rows.maybe_downcast()).value)

    def to_attr(self) -> ir.Attribute:
        return BandsAttr.of(self.rows)

    def decode(self, arrays: Arrays, channels: int, groups: int = 1) -> np.ndarray:
        values, index, offset = arrays
        bands = len(offset) - 1
        dense = np.zeros((bands, channels, self.rows), values.dtype)
        dense[np.repeat(np.arange(bands), np.diff(offset)), index] = values
        return dense.transpose(0, 2, 1).reshape(bands * self.rows, channels, 1, 1)

    def find_violation(self, arrays: Arrays, channels: int, groups: int = 1) -> tuple[str, Any] | None:
        _, index, offset = arrays
        if offset[0] != 0 or (np.diff(offset) < 0).any() or offset[-1] != len(index):
            return f"offset to ascend from 0 to {len(index)}", offset.tolist()
        wrong = np.flatnonzero((index < 0) | (index >= channels))
        if wrong.size:
            return f"index below {channels}, the inputs", int(index[wrong[0]])
        owner = np.repeat(np.arange(len(offset) - 1), np.diff(offset)).astype(np.int64)
        steps = np.diff(owner * channels + index)
        if (steps <= 0).any():
            return "index to ascend in each band", int(index[1:][steps <= 0][0])
        return None

    def kept_weights(self, shapes: Sequence[Sequence[int]]) -> int:
        return shapes[0][0] * shapes[0][1]

    @property
    def reads_neighbours(self) -> bool:
        return False

    def order_filters(self, arrays: Arrays) -> np.ndarray:
        return self.output_channels(arrays)

    def output_channels(self, arrays: Arrays) -> np.ndarray:
        return np.arange((len(arrays[2]) - 1) * self.rows)

    def permute_filters(self, arrays: Arrays, order: np.ndarray, positions: np.ndarray) -> Arrays:
        assert (positions == np.arange(len(positions))).all(), "the outputs of linear layers keep their places"
        return arrays

    def permute_channels(self, arrays: Arrays, positions: np.ndarray) -> Arrays:
        values, index, offset = arrays
        owner = np.repeat(np.arange(len(offset) - 1), np.diff(offset))
        order = np.lexsort((positions[index], owner))
        return values[order], positions[index][order].astype(index.dtype), offset

    def shares(self, arrays: Arrays) -> tuple[float, ...]:
        return (1.0,)


def _stored(weight: np.ndarray, rows: int) -> int:
    """Return how many weights bands of so many rows hold."""
    return int((weight.reshape(-1, rows, weight.shape[1]) != 0).any(1).sum()) * rows


def _encode(weight: np.ndarray, rows: int) -> Arrays:
    """Return the arrays of a weight of F x C: see `BandsAttr`."""
    bands = weight.reshape(-1, rows, weight.shape[1])
    owner, index = np.nonzero((bands != 0).any(1))
    offset = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(bands)))])
    kind = np.int16 if weight.shape[1] <= np.iinfo(np.int16).max else np.int32
    return np.ascontiguousarray(bands[owner, :, index]), index.astype(kind), offset.astype(np.int32)
