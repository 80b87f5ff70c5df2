"""FKW arrays sorted by input channel, for `passes/kernels/host/input_stationary.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patc.passes.formats.fkw import Fkw


@dataclass(frozen=True)
class ChannelMajor:
    """The kept kernels of one convolution, by block of filters, then input channel, then pattern, then filter.

    Attributes:
        values: K x E, the entries of each kernel.
        place: K, the filter of each kernel, counted from the first of its block.
        bounds: B * N * P + 1, the first kernel of each (block, channel, pattern), and K.
        channels: N + 1, the (first) input channels that any kernel reads, ascending, and the first of them again.
        firsts: B + 1, the first stored filter of each block, and F.
        reorder: F, the output channel of each stored filter.
    """

    values: np.ndarray
    place: np.ndarray
    bounds: np.ndarray
    channels: np.ndarray
    firsts: np.ndarray
    reorder: np.ndarray

    @property
    def count(self) -> np.ndarray:
        """The number of channels, as an array."""
        return np.array([len(self.channels) - 1], np.int32)

    @property
    def block(self) -> int:
        """Filters of the largest block."""
        return int(np.diff(self.firsts).max())

    def kept(self) -> list[float]:
        """Return the kept kernels of each block."""
        blocks = len(self.firsts) - 1
        cells = (len(self.bounds) - 1) // blocks
        return [float(self.bounds[(block + 1) * cells] - self.bounds[block * cells]) for block in range(blocks)]


def cut_evenly(costs: np.ndarray | list[float], parts: int) -> list[int]:
    """Cut a sequence into `parts` ranges of nearly equal cost; return the start of each, and the end."""
    total = np.concatenate([[0.0], np.cumsum(costs)])
    cuts = [int(np.argmin(np.abs(total - total[-1] * part / parts))) for part in range(parts + 1)]
    cuts[0], cuts[-1] = 0, len(costs)
    return cuts


def cut_blocks(lengths: np.ndarray, blocks: int) -> np.ndarray:
    """Cut filters into `blocks` ranges of nearly equal kept kernels; return the first filter of each, and F.

    Args:
        lengths: kept kernels of each stored filter.
    """
    return np.array(cut_evenly(lengths + 1.0, blocks), np.int32)


def by_channel(fkw: Fkw, blocks: int) -> ChannelMajor:
    """Sort kept kernels by channel within `blocks` blocks of filters."""
    patterns = fkw.pattern_offsets.shape[1] - 1
    owner, pattern = fkw.owners()
    firsts = cut_blocks(np.diff(fkw.offset), blocks)
    block = np.searchsorted(firsts, owner, side="right") - 1
    channels, position = np.unique(fkw.index, return_inverse=True)
    cell = (block * len(channels) + position) * patterns + pattern
    order = np.argsort(cell, kind="stable")  # kernels are sorted by filter already
    counts = np.bincount(cell, minlength=blocks * len(channels) * patterns)
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    place = (owner - firsts[block])[order].astype(np.int16)
    followed = np.append(channels, channels[0] if len(channels) else 0).astype(np.int32)
    return ChannelMajor(fkw.values[order], place, bounds, followed, firsts, fkw.reorder)
