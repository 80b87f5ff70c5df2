"""Arithmetic of sliding windows: how many positions a window has, and how much of it lies on the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

Tap: TypeAlias = tuple[int, int, int]  # of a kernel: input channel after the first, row, column


@dataclass(frozen=True)
class Window:
    """A window over the height and width of an NCHW tensor; `pads` is (top, left, bottom, right)."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)

    @staticmethod
    def of(op: Any) -> Window:
        """Return the window of a convolution or of a pooling layer."""
        return Window(op.kernel_size, tuple(op.strides), tuple(op.pads), tuple(op.dilations))

    @property
    def top(self) -> int:
        """Rows of padding above the input."""
        return self.pads[0]

    @property
    def left(self) -> int:
        """Columns of padding on the left of the input."""
        return self.pads[1]

    def result_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Return the height and width of the result for an input of height and width `size`."""
        height, width = (self._positions(size[axis], axis) for axis in (0, 1))
        return height, width

    def with_result_size(self, size: Sequence[int], result: Sequence[int]) -> Window | None:
        """Return the window with `result` positions on an input of `size`, or None.

        Padding at the bottom and on the right that no position needs is cut off where what is unread is a stride or
        more.
        """
        top, left, *ends = self.pads
        for axis in (0, 1):
            unread = self._unread(size[axis], result[axis], axis)
            if unread >= self.strides[axis]:
                cut = min(unread, ends[axis])
                unread, ends[axis] = unread - cut, ends[axis] - cut
            if not 0 <= unread < self.strides[axis]:
                return None
        return replace(self, pads=(top, left, ends[0], ends[1]))

    def taps_inside(self, size: Sequence[int]) -> np.ndarray:
        """Return, for each position of the window (height x width), how many taps do not read padding."""
        rows, columns = (self._axis_taps_inside(size[axis], axis) for axis in (0, 1))
        return np.outer(rows, columns)

    def always_meets(self, size: Sequence[int]) -> bool:
        """Return whether the window reads some element of an input of height and width `size` at each position."""
        return not any(self.pads) or bool(self.taps_inside(size).all())

    def divisors(self, size: Sequence[int], uncounted: Sequence[int] = (0, 0)) -> np.ndarray:
        """Return, for each position, how many taps count where padding does: all but those on the last `uncounted` rows
        and columns of the padding."""
        top, left, bottom, right = self.pads
        rows, columns = uncounted
        counted = (size[0] + top + bottom - rows, size[1] + left + right - columns)
        return replace(self, pads=(0, 0, rows, columns)).taps_inside(counted)

    @property
    def is_identity(self) -> bool:
        """Whether the window reads every element once and nothing else."""
        return self.kernel == (1, 1) and self.strides == (1, 1) and not any(self.pads)

    def along(self, axis: int) -> Window:
        """Return the window of one row (axis 1) or column (0) that does to its axis what this one does."""

        def only(values: Sequence[int], other: int) -> tuple[int, int]:
            return (values[0], other) if axis == 0 else (other, values[1])

        before, after = only(self.pads[:2], 0), only(self.pads[2:], 0)
        return Window(only(self.kernel, 1), only(self.strides, 1), (*before, *after), only(self.dilations, 1))

    def _positions(self, size: int, axis: int) -> int:
        return self._unread(size, 1, axis) // self.strides[axis] + 1

    def _unread(self, size: int, positions: int, axis: int) -> int:
        """Return how many rows (or columns) of the padded input are behind the last position."""
        padded = size + self.pads[axis] + self.pads[axis + 2]
        extent = self.dilations[axis] * (self.kernel[axis] - 1) + 1
        return padded - (positions - 1) * self.strides[axis] - extent

    def _axis_taps_inside(self, size: int, axis: int) -> np.ndarray:
        first = np.arange(self._positions(size, axis)) * self.strides[axis] - self.pads[axis]
        taps = first[:, None] + np.arange(self.kernel[axis]) * self.dilations[axis]
        return ((taps >= 0) & (taps < size)).sum(axis=1)


def has_one_divisor(op: Any) -> bool:
    """Return whether an average pooling divides all sums by one number."""
    divisors = average_divisors(op)
    return bool(np.all(divisors == divisors[0, 0]))


def average_divisors(op: Any) -> np.ndarray:
    """Return what an average pooling divides the sum at each position by, height x width."""
    window, size = Window.of(op), op.input.type.shape[2:]
    if "divisor" in op.attributes:
        return np.full(window.result_size(size), op.attributes["divisor"].value)
    if op.count_include_pad.value:
        return window.divisors(size, uncounted_pads(op))
    return np.maximum(window.taps_inside(size), 1)


def uncounted_pads(op: Any) -> tuple[int, int]:
    """Return how many rows at the bottom and columns on the right of the padding an average pooling does not count."""
    if "uncounted_pads" not in op.attributes:
        return 0, 0
    rows, columns = op.attributes["uncounted_pads"]
    return rows, columns
