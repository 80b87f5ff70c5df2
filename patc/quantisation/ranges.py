"""Ranges of numbers that integers of eight bits stand for, from the numbers that were seen."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

BINS = 2048
_STEPS = np.linspace(1.0, 0.2, 33)  # parts of the range that was seen, at either end
RANGES = ("histogram", "minmax")


@dataclass
class Extent:
    """The smallest and the largest number that were seen, and 0; NaN if one was."""

    low: float = 0.0
    high: float = 0.0

    def observe(self, array: np.ndarray) -> None:
        self.low, self.high = float(np.minimum(self.low, array.min())), float(np.maximum(self.high, array.max()))


@dataclass
class Histogram:
    """How often numbers were seen, in `BINS` equal parts of an extent."""

    extent: Extent
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS))

    def observe(self, array: np.ndarray) -> None:
        if self.extent.high > self.extent.low:
            self.counts += np.histogram(array, BINS, (self.extent.low, self.extent.high))[0]

    def best_range(self) -> tuple[float, float]:
        """Return the range of which integers of eight bits are off least, in squares added up: numbers beyond an end
        become the last integer there, and a smaller range has finer steps."""
        low, high = self.extent.low, self.extent.high
        if high <= low:
            return low, high
        width = (high - low) / BINS
        centers = low + width * (np.arange(BINS) + 0.5)
        seen = self.counts > 0
        centers, counts = centers[seen], self.counts[seen]
        best = (np.inf, low, high)
        for left in _STEPS if low < 0 else _STEPS[:1]:
            for right in _STEPS if high > 0 else _STEPS[:1]:
                first, last = low * left, high * right
                scale = (last - first) / 255.0
                zero = np.rint(-first / scale)
                nearest = (np.clip(np.rint(centers / scale) + zero, 0, 255) - zero) * scale
                error = float(((nearest - centers) ** 2 * counts).sum())
                best = min(best, (error, first, last))
        return best[1], best[2]
