"""The patterns of a sparse convolution, as its tiles are costed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from patc.dialects.attributes import Library
from patc.passes.base import PassState
from patc.passes.cost.geometry import Place
from patc.passes.formats.layer_weights import pattern_counts


@dataclass(frozen=True)
class Patterns:
    """The patterns of a layer.

    Attributes:
        entries: of each pattern.
        taps: of each pattern.
        places: all that any pattern reads.
        counts: kept kernels of each pattern.
    """

    entries: int
    taps: list[tuple[Place, ...]]
    places: tuple[Place, ...]
    counts: list[float]

    @staticmethod
    def of(op: Any, state: PassState) -> Patterns:
        library = Library.from_attr(op.format)
        taps = [library.places(pattern) for pattern in range(len(library.masks))]
        places = tuple(sorted(set(itertools.chain.from_iterable(taps))))
        return Patterns(library.entries, taps, places, pattern_counts(op, library, state))

    @property
    def instructions(self) -> int:
        """Multiply-adds of all loops for one vector."""
        return self.entries * len(self.taps)
