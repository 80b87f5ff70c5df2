"""Where buffers lie in an arena: those that do not live together share memory (best fit by size, largest first)."""

from __future__ import annotations

from dataclasses import dataclass

from patc.integers import ceil_div

ALIGNMENT = 64  # bytes: a cache line
WEIGHTS = "weights"  # the name in the parameter store of the blob of all constants


@dataclass(frozen=True)
class Lifetime:
    """A buffer: bytes, and the first and last top-level op that touches it."""

    size: int
    first: int
    last: int


def place(buffers: list[Lifetime]) -> tuple[list[int], int]:
    """Return the offset of each buffer and the size of the arena; buffers that live together do not overlap."""
    offsets = [0] * len(buffers)
    placed: list[int] = []
    for number in sorted(range(len(buffers)), key=lambda n: (-round_up(buffers[n].size), n)):
        buffer = buffers[number]
        size = round_up(buffer.size)
        taken = sorted(
            (offsets[other], offsets[other] + round_up(buffers[other].size))
            for other in placed
            if buffers[other].first <= buffer.last and buffer.first <= buffers[other].last
        )
        offsets[number] = _best_gap(taken, size)
        placed.append(number)
    total = max((offset + round_up(buffer.size) for offset, buffer in zip(offsets, buffers, strict=True)), default=0)
    return offsets, total


def _best_gap(taken: list[tuple[int, int]], size: int) -> int:
    """Return the start of the smallest gap between taken intervals that fits `size`, or their end."""
    best, best_size, end = None, 0, 0
    for start, stop in taken:
        gap = start - end
        if gap >= size and (best is None or gap < best_size):
            best, best_size = end, gap
        end = max(end, stop)
    return end if best is None else best


def round_up(size: int) -> int:
    """Return the next multiple of `ALIGNMENT`."""
    return ceil_div(size, ALIGNMENT) * ALIGNMENT
