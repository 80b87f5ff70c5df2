"""FKR, filter and kernel reorder: filters with similar kernels become neighbours (paper, section 6.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patc.passes.formats.fkw import Fkw


def order_filters(fkw: Fkw) -> np.ndarray:
    """Return the stored filters in their new order.

    Filters are sorted by falling number of kept kernels. Among equals each is followed by the most similar
    one that is left. Of several equally similar ones the first is taken, so filters in this order keep it.
    """
    lengths = np.diff(fkw.offset)
    similarity = _Similarity(fkw)
    order: list[int] = []
    for length in sorted(set(lengths.tolist()), reverse=True):
        group = np.flatnonzero(lengths == length)
        first = int(np.argmax(similarity(order[-1:], group))) if order else 0
        order += group[_chain(similarity(group, group), first)].tolist()
    return np.array(order)


def _chain(similarity: np.ndarray, first: int) -> list[int]:
    """Return a path over all items from `first` that always goes on to the most similar one left."""
    chain = [first]
    similarity[:, first] = -1
    while len(chain) < len(similarity):
        chain.append(int(np.argmax(similarity[chain[-1]])))
        similarity[:, chain[-1]] = -1
    return chain


class _Similarity:
    """How similar the stored filters of a layer are, as exact integers.

    The pattern histogram decides, then the number of kernels with the same pattern on the same input channel
    (these share their loads), then the number of shared input channels.
    """

    def __init__(self, fkw: Fkw) -> None:
        owner, pattern = fkw.owners()
        filters, patterns = len(fkw.reorder), fkw.pattern_offsets.shape[1] - 1
        channels, column = np.unique(fkw.index, return_inverse=True)
        # float32 counts these small numbers exactly, and has fast matrix products. One product a layer: many small
        # ones would wait for threads of a busy machine.
        kernels = np.zeros((filters, patterns, len(channels)), np.float32)
        kernels[owner, pattern, column] = 1
        self._shared = [features @ features.T for features in (kernels.reshape(filters, -1), kernels.max(axis=1))]
        self._histogram = np.diff(fkw.pattern_offsets, axis=1)
        self._scale = int(np.diff(fkw.offset).max(initial=0)) + 1

    def __call__(self, rows: Sequence[int] | np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the scores of `rows` x `columns`; higher is more similar."""
        score = np.zeros((len(rows), len(columns)), np.int64)
        for counts in self._histogram.T:
            score += np.minimum.outer(counts[rows], counts[columns])
        for shared in self._shared:
            score = score * self._scale + shared[np.asarray(rows)[:, None], columns].astype(np.int64)
        return score
