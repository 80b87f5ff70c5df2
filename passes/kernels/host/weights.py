"""How weights lie in memory for the loops of each algorithm."""

from __future__ import annotations

import numpy as np

from patc.integers import ceil_div


def pack_filters(weight: np.ndarray, block: int) -> np.ndarray:
    """Return F x C x KH x KW weights as [block][channel][tap][filter of the block]; the last block may overlap."""
    filters, channels = weight.shape[:2]
    blocks = [weight[first : first + block].reshape(block, channels, -1) for first in _firsts(filters, block)]
    return np.stack([part.transpose(1, 2, 0) for part in blocks])


def pack_features(weight: np.ndarray, block: int, lanes: int) -> np.ndarray:
    """Return F x C weights as [block of filters][vector of features][filter][lane], padded with zeros."""
    filters, features = weight.shape
    vectors = ceil_div(features, lanes)
    padded = np.pad(weight, ((0, 0), (0, vectors * lanes - features)))
    firsts = _firsts(filters, block)
    rows = np.concatenate([np.arange(first, first + block) for first in firsts])
    return padded[rows].reshape(len(firsts), block, vectors, lanes).transpose(0, 2, 1, 3)


def _firsts(filters: int, block: int) -> list[int]:
    """Return the first filter of each block; the last one may overlap its neighbour."""
    return [min(first, filters - block) for first in range(0, filters, block)]
