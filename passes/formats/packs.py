"""Packs: weights of several filters, one in each lane, whose inputs are in one tile; single zeros are left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import PacksAttr
from patc.integers import ceil_div
from patc.packing import alike
from patc.passes.formats.base import Arrays, EncodeOptions
from patc.passes.formats.bundles import FilterBundles
from patc.passes.formats.fkw import find_missing_channel, index_type

SLOTS = 16  # of a bundle: the lanes of the widest vectors
TILE = 32  # columns that the permutes of AVX-512 and of NEON reach
_MOST = 0.5  # part of the weights that may be stored, empty slots among them: a permute costs as much as a product
_WORTH = 0.85  # stored weights that another order of filters must make of those in place: outputs have to be put back


@dataclass(frozen=True)
class PacksFormat(FilterBundles):
    """Bundles of `SLOTS` filters, for each of which a tile of inputs has as many packs as its fullest filter weights.

    Attributes:
        tile: inputs of a tile.
    """

    tile: int = TILE
    attribute: ClassVar[type] = PacksAttr

    @classmethod
    def encode(cls, weight: np.ndarray, groups: int, options: EncodeOptions) -> tuple[PacksFormat, Arrays] | None:
        if weight.ndim > 2 or weight.shape[1] < TILE or weight.shape[0] < SLOTS:
            return None
        most = min(_MOST, 1 - options.min_sparsity) * weight.size
        kept = np.count_nonzero(weight)
        if not 0 < kept <= most:
            return None
        counts = _counts(weight)
        orders = [np.arange(len(weight))]
        if _stored(counts, orders[0]) * _WORTH > kept:
            orders.append(alike(counts, SLOTS))
        best = min(orders, key=lambda order: _stored(counts, order) * (_WORTH if order is orders[0] else 1))
        return (cls(), encode_packs(weight, best, SLOTS)) if _stored(counts, best) <= most else None

    @classmethod
    def from_attr(cls, attr: Any) -> PacksFormat:
        return cls(attr.columns)

    def to_attr(self) -> ir.Attribute:
        return PacksAttr.of(self.tile)

    def decode(self, arrays: Arrays, channels: int, groups: int = 1) -> np.ndarray:
        values, index, counts, reorder = arrays
        bundle, tile = self._places(counts)
        slots = values.shape[1]
        stored = np.zeros((len(counts) * slots, channels), values.dtype)
        rows = bundle[:, None] * slots + np.arange(slots)
        np.add.at(stored, (rows, self.first_columns(channels)[tile][:, None] + index), values)
        dense = np.empty((len(reorder), channels, 1, 1), values.dtype)
        dense[reorder, :, 0, 0] = stored[: len(reorder)]
        return dense

    def first_columns(self, channels: int) -> np.ndarray:
        """Return the first input of each tile: the last one overlaps its neighbour where tiles do not divide inputs."""
        return np.minimum(np.arange(0, channels, self.tile), channels - self.tile)

    def find_violation(self, arrays: Arrays, channels: int, groups: int = 1) -> tuple[str, Any] | None:
        values, index, counts, reorder = arrays
        if (counts < 0).any() or counts.sum(dtype=np.int64) != len(values):
            return f"counts that add up to {len(values)} packs", int(counts.sum(dtype=np.int64))
        wrong = index[(index < 0) | (index >= self.tile)]
        if wrong.size:
            return f"index below {self.tile}, the inputs of a tile", int(wrong[0])
        if (missing := find_missing_channel(reorder)) is not None:
            return missing
        beyond = len(counts) * values.shape[1] - len(reorder)
        last = self._places(counts)[0] == len(counts) - 1
        if beyond and (values[last, -beyond:] != 0).any():
            return f"zeros in the last {beyond} slots, which are of no filter", "others"
        return None

    def vectors(self, arrays: Arrays) -> float:
        return 2.0 * len(arrays[0])

    def permute_channels(self, arrays: Arrays, positions: np.ndarray) -> Arrays:
        reorder, channels = arrays[3], len(positions)
        moved = np.empty((len(reorder), channels), arrays[0].dtype)
        moved[:, positions] = self.decode(arrays, channels)[:, :, 0, 0]
        return encode_packs(moved, reorder, arrays[0].shape[1])

    @staticmethod
    def _places(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the bundle and the tile of each pack."""
        bundle, tile = np.divmod(np.repeat(np.arange(counts.size), counts.ravel()), counts.shape[1])
        return bundle, tile


def _counts(weight: np.ndarray) -> np.ndarray:
    """Return how many weights each filter has in each tile."""
    return np.add.reduceat(weight != 0, np.arange(0, weight.shape[1], TILE), axis=1, dtype=np.int32)


def _packs(counts: np.ndarray, order: np.ndarray, slots: int) -> np.ndarray:
    """Return how many packs each bundle of filters in some order has in each tile."""
    return np.maximum.reduceat(counts[order], np.arange(0, len(order), slots), axis=0)


def _stored(counts: np.ndarray, order: np.ndarray) -> int:
    return int(_packs(counts, order, SLOTS).sum()) * SLOTS


def count_packs(weight: np.ndarray, slots: int) -> int:
    """Return how many packs a matrix has whose filters stay in their order; see `encode_packs`."""
    return int(_packs(_counts(weight), np.arange(len(weight)), slots).sum())


def first_packs(counts: np.ndarray) -> np.ndarray:
    """Return the first pack of each bundle and tile, and the number of all: i32."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int32)


def encode_packs(weight: np.ndarray, order: np.ndarray, slots: int) -> Arrays:
    """Return the arrays of a matrix, filters x inputs, whose filters come in some order; see `PacksAttr`."""
    filters, inputs = weight.shape
    counts, tiles = _counts(weight), ceil_div(inputs, TILE)
    packs = _packs(counts, order, slots)
    first = first_packs(packs)[:-1].reshape(packs.shape)
    place, column = np.nonzero(weight[order])
    tile = column // TILE
    # Weights come filter by filter and tile by tile: each is so far behind the first one of its filter and tile.
    before = first_packs(counts[order])
    number = first[place // slots, tile] + np.arange(len(place)) - before[place * tiles + tile]
    values = np.zeros((int(packs.sum()), slots), weight.dtype)
    index = np.zeros(values.shape, np.int8)
    values[number, place % slots] = weight[order][place, column]
    index[number, place % slots] = column - np.minimum(tile * TILE, inputs - TILE)
    return values, index, packs.astype(np.int8), order.astype(index_type(filters))
