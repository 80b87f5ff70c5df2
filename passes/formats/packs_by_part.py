"""Packs sorted by part of the input channels, for `passes/kernels/host/pack_direct.py`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from patc.passes.formats.base import Arrays


@dataclass(frozen=True)
class PacksByPart:
    """The packs of one convolution by part of its input channels, then bundle, then tile of channels, then tap.

    Attributes:
        values, index: of each part and bundle [slots / together][pack][together]: what filters need that are computed
            together lies side by side.
        tiles: of each pack, its tile, counted as in `PacksAttr`.
        offset: parts * bundles + 1, the first pack of each part and bundle, and the number of all.
    """

    values: np.ndarray
    index: np.ndarray
    tiles: np.ndarray
    offset: np.ndarray


def by_part(arrays: Arrays, taps: int, parts: int, together: int) -> PacksByPart:
    """Sort packs by part: whole tiles of channels, nearly equally many.

    Args:
        arrays: those of `PacksAttr`.
        taps: of a kernel.
        parts: of the channels, at most the tiles of a tap.
        together: filters that are computed together; divides the slots.
    """
    values, index, counts, _ = arrays
    (bundles, tiles), slots = counts.shape, values.shape[1]
    bundle, tile = np.divmod(np.repeat(np.arange(counts.size), counts.ravel()), tiles)
    tap, within = np.divmod(tile, tiles // taps)
    part = within * parts // (tiles // taps)
    order = np.lexsort((tap, within, bundle, part))
    cells = np.bincount(part * bundles + bundle, minlength=parts * bundles)
    offset = np.concatenate([[0], np.cumsum(cells)]).astype(np.int32)

    def side_by_side(array: np.ndarray) -> np.ndarray:
        found = np.empty_like(array)
        for begin, end in itertools.pairwise(offset):
            own = array[order[begin:end]].reshape(-1, slots // together, together)
            found[begin:end] = own.transpose(1, 0, 2).reshape(-1, slots)
        return found

    return PacksByPart(side_by_side(values), side_by_side(index), tile[order], offset)
