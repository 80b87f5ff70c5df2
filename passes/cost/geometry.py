"""Which input elements, sub-rows and cache lines the register tile of a convolution reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from patc.integers import ceil_div
from patc.passes.kernels.tiling import Chunk

Place: TypeAlias = tuple[int, int, int]  # channel, row and column of an input element


@dataclass(frozen=True)
class Geometry:
    """How a window meets its input.

    Attributes:
        strides, dilations: vertical and horizontal.
        phases, pitch: of the input's layout.
        gathered: columns `stride` apart are picked from a row that is not split into phases.
        channels: input channels that a tile reads.
        plane_bytes: of the input.
        element_bytes: of all tensors.
    """

    strides: tuple[int, int]
    dilations: tuple[int, int]
    phases: int
    pitch: int
    channels: int
    plane_bytes: int
    element_bytes: int = 4

    @property
    def gathered(self) -> bool:
        return self.phases != self.strides[1]

    def needed(self, taps: Sequence[Place], rows: int) -> set[Place]:
        """Return the input elements that the first column of a tile of `rows` reads."""
        return {
            (channel, row * self.strides[0] + dy * self.dilations[0], dx * self.dilations[1])
            for row in range(rows)
            for channel, dy, dx in taps
        }

    def columns_read(self, columns: int, taps: int) -> int:
        """Return the columns of the input that so many columns beside each other read by so many taps of a row."""
        return len({x * self.strides[1] + dx * self.dilations[1] for x in range(columns) for dx in range(taps)})

    def offsets_by_row(self, needed: set[Place]) -> dict[Place, set[int]]:
        """Return for each sub-row, by (channel, y, phase), the offsets at which vectors start."""
        rows: dict[Place, set[int]] = {}
        for channel, y, x in needed:
            offset, phase = divmod(x, self.phases)
            rows.setdefault((channel, y, phase), set()).add(offset)
        return rows

    def lines(self, needed: set[Place], chunks: Sequence[Chunk], line_bytes: int) -> float:
        """Return the cache lines that the input elements for `chunks` lie in."""
        rows = self.offsets_by_row(needed)
        columns = sum(chunk.lanes for chunk in chunks) * (self.strides[1] if self.gathered else 1)
        apart = sum(ceil_div(self.element_bytes * (columns + max(offsets)), line_bytes) for offsets in rows.values())
        read = self.element_bytes * len({(channel, y) for channel, y, _ in rows}) * self.pitch
        contiguous = read / line_bytes + 1
        return min(float(apart), contiguous)
