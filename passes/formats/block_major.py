"""FKW arrays by blocks of input channels, for `passes/kernels/host/pattern_packed.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from patc.integers import ceil_div
from patc.passes.formats.fkw import Fkw


@dataclass(frozen=True)
class BlockMajor:
    """The kept kernels of one convolution, by block of channels, then filter, then shape, then channel.

    Attributes:
        values: K x E, the entries of each kernel.
        bounds: B * F * S + 1, the first kernel of each (block, stored filter, shape), and K.
        channel: K, the input channel of each kernel, counted from the first of its block.
        pattern: K.
    """

    values: np.ndarray
    bounds: np.ndarray
    channel: np.ndarray
    pattern: np.ndarray

    def places(self, step: int, first: np.ndarray) -> np.ndarray:
        """Return where each kernel's shape begins among the elements of a block.

        Args:
            step: elements from one channel to the next.
            first: where the shape begins in a channel, by pattern.
        """
        return (self.channel * step + first[self.pattern]).astype(np.int32)


def by_blocks(fkw: Fkw, channels: int, block: int, shapes: Sequence[int]) -> BlockMajor:
    """Sort kept kernels by blocks of so many of the input channels.

    Args:
        shapes: the number of the shape of each pattern.
    """
    owner, pattern = fkw.owners()
    blocks, kinds = ceil_div(channels, block), max(shapes) + 1
    index = fkw.index.astype(np.int64)
    cell = (index // block * len(fkw.reorder) + owner) * kinds + np.array(shapes)[pattern]
    order = np.lexsort((index, cell))
    counts = np.bincount(cell, minlength=blocks * len(fkw.reorder) * kinds)
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return BlockMajor(fkw.values[order], bounds, (index % block)[order], pattern[order])
