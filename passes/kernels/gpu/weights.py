"""Weights in the order in which kernels on a GPU read them: whole vectors, one after the other."""

from __future__ import annotations

import numpy as np

from patc.passes.formats.fkw import Fkw
from patc.passes.kernels.gpu.kernel import LANES


def share_kernels(fkw: Fkw, block: int) -> bool:
    """Return whether the filters divide into blocks of neighbours that keep the same kernels with the same patterns."""
    filters = len(fkw.reorder)
    if filters % block:
        return False
    firsts = np.arange(filters) // block * block
    if not np.array_equal(fkw.pattern_offsets, fkw.pattern_offsets[firsts]):
        return False
    lengths = np.diff(fkw.offset)
    starts = np.repeat(fkw.offset[firsts] - fkw.offset[:-1], lengths)
    return np.array_equal(fkw.index, fkw.index[np.arange(fkw.kernels) + starts])


def pack_kernels(fkw: Fkw, block: int, plane: int) -> dict[str, np.ndarray]:
    """Return the arrays of `SparseArrays`.

    Args:
        block: filters that share their kernels.
        plane: vectors of an input plane.
    """
    lengths = np.diff(fkw.offset)[::block]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    firsts = np.repeat(fkw.offset[:-1:block] - starts[:-1], lengths) + np.arange(starts[-1])
    # Of the filters of a block, one after the other: where each one's kernel is.
    shifts = (fkw.offset[:-1].reshape(-1, block) - fkw.offset[:-1:block, None]).repeat(lengths, axis=0)
    entries = fkw.values.shape[1]
    padded = np.pad(fkw.values, ((0, 0), (0, -entries % LANES)))
    return {
        "values": padded[firsts[:, None] + shifts],
        "index": fkw.index[firsts].astype(np.int32) * np.int32(plane),
        "bounds": (starts[:-1, None] + fkw.pattern_offsets[::block]).astype(np.int32),
        "reorder": fkw.reorder.astype(np.int32),
    }


def pack_taps(weight: np.ndarray, block: int) -> np.ndarray:
    """Return F x C x KH x KW weights as [block][channel][tap][filter of the block], padded to vectors a channel."""
    filters, channels = weight.shape[:2]
    padded = np.pad(weight.reshape(filters, channels, -1), ((0, -filters % block), (0, 0), (0, 0)))
    taps = padded.reshape(-1, block, channels, padded.shape[2]).transpose(0, 2, 3, 1)
    flat = taps.reshape(len(taps), channels, -1)
    return np.pad(flat, ((0, 0), (0, 0), (0, -flat.shape[2] % LANES)))


def pack_features(weight: np.ndarray, block: int) -> np.ndarray:
    """Return F x C weights as [block of filters][vector of features][filter][lane], padded with zeros."""
    filters, features = weight.shape
    padded = np.pad(weight, ((0, -filters % block), (0, -features % LANES)))
    return padded.reshape(-1, block, padded.shape[1] // LANES, LANES).transpose(0, 2, 1, 3)
