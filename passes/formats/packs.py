"""Packs: weights of several filters, one of each, whose inputs are in one tile; single zeros are left out."""

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
from patc.passes.formats.fkw_library import has_patterns

SLOTS = 16  # of a bundle: the lanes of the widest vectors
TILE = 32  # columns that the permutes of AVX-512 and of NEON reach
_MOST = 0.5  # part of the weights that may be stored, empty slots among them: a permute costs as much as a product
_MOST_PADDING = 1.1  # stored weights of a convolution over those that are not zero: FKW's single taps have none else
_WORTH = 0.85  # stored weights that another order of filters must make of those in place: outputs have to be put back


@dataclass(frozen=True)
class PacksFormat(FilterBundles):
    """Bundles of `SLOTS` filters, for each of which a tile of inputs has as many packs as its fullest filter weights.

    Attributes:
        tile: inputs of a tile.
        kernel: height and width of a convolution's.
    """

    tile: int = TILE
    kernel: tuple[int, int] = (1, 1)
    attribute: ClassVar[type] = PacksAttr

    @classmethod
    def encode(cls, weight: np.ndarray, groups: int, options: EncodeOptions) -> tuple[PacksFormat, Arrays] | None:
        is_linear, (filters, inputs) = weight.ndim == 2, weight.shape[:2]
        if groups > 1 or filters < SLOTS or (is_linear and inputs < TILE):
            return None
        kept = np.count_nonzero(weight)
        if not 0 < kept <= min(_MOST, 1 - options.min_sparsity) * weight.size:
            return None
        if not is_linear and (options.library or has_patterns(weight, options)):
            return None
        tile = min(TILE, inputs)
        columns = _by_tap(weight)
        counts, worth = _counts(columns, tile), _WORTH if is_linear else 1.0
        orders = [np.arange(filters)]
        if _stored(counts, orders[0]) * worth > kept:
            orders.append(alike(counts, SLOTS))
        best = min(orders, key=lambda order: _stored(counts, order) * (worth if order is orders[0] else 1))
        stored = _stored(counts, best)
        if stored > _MOST * weight.size or (not is_linear and stored > _MOST_PADDING * kept):
            return None
        return cls(tile, weight.shape[2:] or (1, 1)), encode_packs(columns, best, SLOTS)

    @classmethod
    def from_attr(cls, attr: Any) -> PacksFormat:
        return cls(attr.columns, attr.kernel_size())

    def to_attr(self) -> ir.Attribute:
        return PacksAttr.of(self.tile, self.kernel)

    def decode(self, arrays: Arrays, channels: int, groups: int = 1) -> np.ndarray:
        values, index, counts, reorder = arrays
        bundle, tile = self._places(counts)
        slots, (height, width), firsts = values.shape[1], self.kernel, self.first_columns(channels)
        tap, tile = np.divmod(tile, len(firsts))
        stored = np.zeros((len(counts) * slots, height * width, channels), values.dtype)
        rows = bundle[:, None] * slots + np.arange(slots)
        np.add.at(stored, (rows, tap[:, None], firsts[tile][:, None] + index), values)
        dense = np.empty((len(reorder), channels, height, width), values.dtype)
        dense[reorder] = stored[: len(reorder)].transpose(0, 2, 1).reshape(dense.shape)
        return dense

    def first_columns(self, channels: int) -> np.ndarray:
        """Return the first input of each tile of a tap: the last one overlaps its neighbour where tiles do not divide
        inputs."""
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

    @property
    def reads_neighbours(self) -> bool:
        return True  # among inputs of other tiles filters would not have equally many weights

    def permute_channels(self, arrays: Arrays, positions: np.ndarray) -> Arrays:
        assert (positions == np.arange(len(positions))).all(), "inputs of tiles keep their places"
        return arrays

    @staticmethod
    def _places(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the bundle and the tile of each pack."""
        bundle, tile = np.divmod(np.repeat(np.arange(counts.size), counts.ravel()), counts.shape[1])
        return bundle, tile


def _by_tap(weight: np.ndarray) -> np.ndarray:
    """Return weights as filters x taps x inputs."""
    return weight.reshape(*weight.shape[:2], -1).transpose(0, 2, 1)


def _counts(weight: np.ndarray, tile: int = TILE) -> np.ndarray:
    """Return how many weights each filter has in each tile of each tap."""
    counts = np.add.reduceat(weight != 0, np.arange(0, weight.shape[-1], tile), axis=-1, dtype=np.int32)
    return counts.reshape(len(weight), -1)


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
    """Return the arrays of weights, filters x inputs or filters x taps x inputs, whose filters come in some order; see
    `PacksAttr`."""
    filters, inputs = len(weight), weight.shape[-1]
    width = min(TILE, inputs)
    weight = weight.reshape(filters, -1, inputs)[order]
    counts, tiles = _counts(weight, width), ceil_div(inputs, width)
    packs = _packs(counts, np.arange(filters), slots)
    first = first_packs(packs)[:-1].reshape(packs.shape)
    place, tap, column = np.nonzero(weight)
    inside = column // width  # of a tap
    tile = tap * tiles + inside
    # Weights come filter by filter and tile by tile: each is so far behind the first one of its filter and tile.
    before = first_packs(counts)
    number = first[place // slots, tile] + np.arange(len(place)) - before[place * counts.shape[1] + tile]
    values = np.zeros((int(packs.sum()), slots), weight.dtype)
    index = np.zeros(values.shape, np.int8)
    values[number, place % slots] = weight[place, tap, column]
    index[number, place % slots] = column - np.minimum(inside * width, inputs - width)
    return values, index, packs.astype(np.int8), order.astype(index_type(filters))
