"""Sums of terms R . x . C^T over planes x of one tensor: all that interpolation, and pads that are no constant, are.

Matrices R make rows of the result of rows of x, and C columns of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.passes.ir.resampling import Axis

_MOST_TAPS = 16  # of an axis; what has more is a pool, or a product of matrices
_MOST_BUFFERED = 1 << 15  # elements of the rows that one row of the result is made of

Term = tuple[np.ndarray, np.ndarray]  # matrices: rows of the result x rows of the source, and the same of columns


@dataclass(frozen=True)
class Planes:
    """A sum of terms R . x . C^T, over the planes x of a tensor; None stands for a tensor of zeros."""

    source: ir.Value | None
    terms: tuple[Term, ...]

    __array_ufunc__ = None  # arrays leave arithmetic with them to this class

    @staticmethod
    def identity(value: ir.Value) -> Planes:
        height, width = size_of(value.type.shape)
        return Planes(value, ((np.eye(height), np.eye(width)),))

    @property
    def is_identity(self) -> bool:
        return len(self.terms) == 1 and all(np.array_equal(each, np.eye(len(each))) for each in self.terms[0])

    @property
    def repeats(self) -> bool:
        """Whether a row or column of the source is used more than once."""
        return any(np.any(np.count_nonzero(each, axis=0) > 1) for term in self.terms for each in term)

    def axes(self) -> tuple[Axis, Axis] | None:
        """Return rows and columns where there is one term, whose places all come from some, and that is none of what
        is done better otherwise; else None."""
        if len(self.terms) != 1 or not all(np.all(np.any(matrix != 0, axis=1)) for matrix in self.terms[0]):
            return None
        (height, width), total = self.terms[0], float(self.terms[0][0][0].sum())
        factor = total if total else 1.0  # weights of rows that are ones are left out
        rows, columns = Axis.of(height / factor), Axis.of(width * factor)
        is_small = max(len(rows.places), len(columns.places)) <= _MOST_TAPS
        return (rows, columns) if is_small and rows.span * columns.size <= _MOST_BUFFERED else None

    def mapped(self, rows: np.ndarray | None, columns: np.ndarray | None) -> Planes:
        """Return what becomes of it where matrices apply to rows and columns."""
        done = [(r if rows is None else rows @ r, c if columns is None else columns @ c) for r, c in self.terms]
        return Planes(self.source, _merged(done))

    def __add__(self, other: Any) -> Planes:
        if not isinstance(other, Planes):
            return NotImplemented
        sources = [each.source for each in (self, other) if each.source is not None]
        if any(source != sources[0] for source in sources):
            return NotImplemented
        return Planes(sources[0] if sources else None, _merged([*self.terms, *other.terms]))

    def __neg__(self) -> Planes:
        return self * np.float64(-1.0)

    def __sub__(self, other: Any) -> Planes:
        return self + -other if isinstance(other, Planes) else NotImplemented

    def __mul__(self, factor: Any) -> Planes:
        """Return it times numbers that are one for all, or one for each row or column."""
        if not isinstance(factor, (np.ndarray, np.generic)):
            return NotImplemented
        numbers = np.asarray(factor, np.float64)
        if numbers.size == 1:
            return Planes(self.source, tuple((r * float(numbers.ravel()[0]), c) for r, c in self.terms))
        height, width = size_of(numbers.shape) if numbers.ndim in (3, 4) else (1, 1)
        if numbers.size not in (height, width):  # others differ by image or channel
            return NotImplemented
        each = numbers.reshape(-1, 1)
        is_row = height == numbers.size
        return Planes(self.source, _merged([(r * each, c) if is_row else (r, c * each) for r, c in self.terms]))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Planes:
        return self * (1.0 / divisor) if isinstance(divisor, np.ndarray) else NotImplemented

    def gathered(self, rows: np.ndarray, columns: np.ndarray) -> Planes:
        """Return the rows and columns of some numbers."""
        return Planes(self.source, _merged([(r[rows], c[columns]) for r, c in self.terms]))

    def placed(self, offsets: Sequence[int], size: Sequence[int]) -> Planes:
        """Return it in planes of another size that are zero elsewhere."""
        grown = []
        for matrices in self.terms:
            wider = [np.zeros((n, each.shape[1])) for n, each in zip(size, matrices, strict=True)]
            for whole, first, part in zip(wider, offsets, matrices, strict=True):
                whole[first : first + len(part)] = part
            grown.append((wider[0], wider[1]))
        return Planes(self.source, tuple(grown))

    def without(self, offsets: Sequence[int], size: Sequence[int]) -> Planes | None:
        """Return it with a part made zero; None where that makes no such sum of it."""
        kept = []
        for matrices in self.terms:
            inside = []
            for matrix, first, count in zip(matrices, offsets, size, strict=True):
                inside.append(np.zeros(len(matrix), bool))
                inside[-1][first : first + count] = True
            used = [np.any(matrix != 0, axis=1) for matrix in matrices]
            if not all(np.any(part & use) for part, use in zip(inside, used, strict=True)):
                kept.append(matrices)  # none of it is there
            elif not np.any(used[1] & ~inside[1]):
                kept.append((np.where(inside[0][:, None], 0.0, matrices[0]), matrices[1]))
            elif not np.any(used[0] & ~inside[0]):
                kept.append((matrices[0], np.where(inside[1][:, None], 0.0, matrices[1])))
            else:
                return None
        return Planes(self.source, _merged(kept))


def _merged(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Add up terms whose rows, or columns, are multiples of each other, while there are any; those of zeros go."""
    left = [term for term in terms if all(np.any(matrix) for matrix in term)]
    place = 0
    while place < len(left):
        rows, columns = left[place]
        for number, (other_rows, other_columns) in enumerate(left[:place]):
            if (factor := _multiple(other_rows, rows)) is not None:
                left[number] = (rows, columns + factor * other_columns)
            elif (factor := _multiple(other_columns, columns)) is not None:
                left[number] = (rows + factor * other_rows, columns)
            else:
                continue
            del left[place]
            place = -1  # the sum may have a partner
            break
        place += 1
    return tuple(term for term in left if all(np.any(matrix) for matrix in term))


def _multiple(matrix: np.ndarray, other: np.ndarray) -> float | None:
    """Return the number that makes the one matrix of the other, or None."""
    place = np.unravel_index(np.argmax(other != 0), other.shape)
    factor = float(matrix[place] / other[place])
    return factor if np.allclose(matrix, factor * other, rtol=1e-9, atol=1e-12) else None


def size_of(shape: Sequence[int]) -> tuple[int, int]:
    """Return height and width of planes; lines are planes of one row."""
    return (shape[2], shape[3]) if len(shape) == 4 else (1, shape[2])
