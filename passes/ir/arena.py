"""Where buffers lie in an arena: those that do not live together share memory (best fit by size, largest first). And
where constants lie in a blob, which the modules of several shapes share."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.dialects.schedules import Buffer
from patc.integers import ceil_div
from patc.passes.ir.elements import element_bytes

ALIGNMENT = 64  # bytes: a cache line
WEIGHTS = "weights"  # the name in the parameter store of the blob of all constants
_SAMPLES = 256


@dataclass(frozen=True)
class Lifetime:
    """A buffer: bytes, and the first and last op of a block that touches it."""

    size: int
    first: int
    last: int


def lifetime_of(op: Any, order: dict[ir.Operation, int]) -> Lifetime:
    """Return when an allocation is used, by the ops of a block in their order."""
    places = []
    pending = [op.results[0]]
    while pending:
        for use in pending.pop().uses:
            user = use.owner.operation
            pending.extend(user.results)
            while user not in order:
                user = user.parent.operation
            places.append(order[user])
    type_ = op.results[0].type
    size = type_.shape[0] * element_bytes(type_)
    return Lifetime(size, min(places, default=0), max(places, default=0))


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


def describe_buffers(buffers: Sequence[Lifetime], starts: Sequence[int], layers: Sequence[int]) -> tuple[Buffer, ...]:
    """Return where buffers are, in numbers of layers.

    Args:
        starts: what `place` returned.
        layers: the last top-level op of each layer, or the op that is the layer.
    """

    def layer_of(op: int) -> int:
        return min(bisect.bisect_left(layers, op), max(len(layers) - 1, 0))

    return tuple(
        Buffer(start, each.size, layer_of(each.first), layer_of(each.last))
        for each, start in zip(buffers, starts, strict=True)
    )


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


class WeightPool:
    """The constants of modules, each on a cache line of one blob. What a module adds is found again by its content when
    the next one adds it: nets for several shapes have their weights once."""

    def __init__(self) -> None:
        self.size = 0
        self._slack = 0
        self._blob = np.zeros(0, np.uint8)
        self._added: list[tuple[int, np.ndarray]] = []  # since the blob was made
        self._known: dict[tuple[int, bytes], list[int]] = {}

    def add(self, array: np.ndarray) -> int:
        """Return the first byte of an array in the blob."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for start in self._known.get(_sample(data), ()):
            if np.array_equal(self._blob[start : start + len(data)], data):
                return start
        start = self.size
        self._added.append((start, data))
        self.size = round_up(start + len(data))
        return start

    def reserve(self, slack: int) -> None:
        """Leave room behind the last array, which is read over its end."""
        self._slack = max(self._slack, round_up(slack))

    def blob(self) -> np.ndarray:
        """Return all arrays in one; the pool keeps no other memory of them."""
        blob = np.zeros(max(self.size + self._slack, ALIGNMENT), np.uint8)
        blob[: len(self._blob)] = self._blob
        for start, data in self._added:
            blob[start : start + len(data)] = data
            self._known.setdefault(_sample(data), []).append(start)
        self._blob, self._added = blob, []
        return blob


def _sample(data: np.ndarray) -> tuple[int, bytes]:
    """Return what tells most arrays apart: size and some of the bytes."""
    return len(data), data[:: max(1, len(data) // _SAMPLES)].tobytes()
