"""Blocks that lose whole rows and whole columns, so that what is left of each is a smaller dense matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patc.pruning.constraints.base import Constraint
from patc.pruning.constraints.crossings import best_rows

_HALVINGS = 30


@dataclass(frozen=True)
class CrossedConstraint(Constraint):
    """The matrix of a weight in blocks of `rows` x `columns`, which divide it. A unit is a single weight: a budget is
    what all blocks together keep.

    Which rows and columns hold the most of the norm is a hard problem. A price of a weight is sought for which the
    blocks, each for itself, keep as many weights as the budget has; what is left of it then goes to the rows and
    columns that hold the most for their size. Where the shorter side of blocks is at most `crossings.ENUMERATED` each
    is the best for its price, and no weight of the set is nearer by more than the price times what was left of the
    budget (weak duality). Of larger blocks it is the best of several searches (see `crossings.best_rows`).
    """

    rows: int
    columns: int

    @property
    def units(self) -> int:
        return self.site.size

    @property
    def unit_weights(self) -> int:
        return 1

    def scores(self, weight: Tensor) -> Tensor:
        return self.site.matrix(weight.detach().double().square()).flatten()

    def count(self, weight: Tensor) -> int:
        there = self._blocks(weight.detach()) != 0
        return _size(there.any(2), there.any(1))

    def mask(self, weight: Tensor, keep: int) -> Tensor:
        squares = self._blocks(weight.detach().double().square())
        low, high = 0.0, float(squares.amax()) + 1e-300
        most = squares.amax(2) > 0, squares.amax(1) > 0
        least = torch.zeros_like(most[0]), torch.zeros_like(most[1])
        if _size(*most) <= keep:
            return self.site.restore(self._matrix(most[0][:, :, None] & most[1][:, None]))
        for _ in range(_HALVINGS):
            # What a block keeps for both prices it keeps for those in between.
            open_ = torch.cat([one != other for one, other in zip(most, least, strict=True)], 1).any(1)
            if not open_.any():
                break
            middle = (low + high) / 2
            chosen = _choose(
                squares[open_] - middle, [(rows[open_], columns[open_]) for rows, columns in (most, least)]
            )
            rows, columns = (one.masked_scatter(open_[:, None], part) for one, part in zip(least, chosen, strict=True))
            chosen = rows, columns
            if _size(*chosen) > keep:
                low, most = middle, chosen
            else:
                high, least = middle, chosen
        rows, columns = _spend(squares, *least, keep)
        return self.site.restore(self._matrix(rows[:, :, None] & columns[:, None]))

    def group_squares(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns of all blocks."""
        blocks = self._blocks(weight.square())
        rows, columns = blocks.sum(2).flatten(), blocks.sum(1).flatten()
        sizes = [torch.full_like(rows, self.columns), torch.full_like(columns, self.rows)]
        return torch.cat([rows, columns]), torch.cat(sizes)

    def _blocks(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the weight's shape as (blocks, rows, columns)."""
        matrix = self.site.matrix(tensor)
        tiles = matrix.reshape(len(matrix) // self.rows, self.rows, -1, self.columns).transpose(1, 2)
        return tiles.reshape(-1, self.rows, self.columns)

    def _matrix(self, blocks: Tensor) -> Tensor:
        """Undo `_blocks`, but for the shape."""
        tiles = blocks.reshape(self.site.filters // self.rows, -1, self.rows, self.columns).transpose(1, 2)
        return tiles.reshape(self.site.filters, -1)


def _size(rows: Tensor, columns: Tensor) -> int:
    """Return how many weights rows and columns of blocks hold."""
    return int((rows.sum(1) * columns.sum(1)).sum())


def _choose(worth: Tensor, known: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the rows and columns of blocks whose elements add up to the most.

    Args:
        known: rows and columns that may be near.
    """
    if worth.shape[1] <= worth.shape[2]:
        rows = best_rows(worth, torch.stack([rows for rows, _ in known], 1))
        return rows, torch.where(rows[:, :, None], worth, 0.0).sum(1) > 0
    columns = best_rows(worth.transpose(1, 2), torch.stack([columns for _, columns in known], 1))
    return torch.where(columns[:, None], worth, 0.0).sum(2) > 0, columns


def _spend(squares: Tensor, rows: Tensor, columns: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Return rows and columns with those added that hold the most for their size, while at most `keep` weights stay."""
    left = keep - _size(rows, columns)
    while left > 0:
        # A block that keeps nothing may begin with a column of the row that has its largest weight.
        largest = torch.nn.functional.one_hot(squares.amax(2).argmax(1), squares.shape[1]).bool()
        begun = torch.where((rows.any(1) & columns.any(1))[:, None], rows, largest)
        more_columns = torch.where(begun[:, :, None], squares, 0.0).sum(1), begun.sum(1, keepdim=True), columns, left
        more_rows = torch.where(columns[:, None], squares, 0.0).sum(2), columns.sum(1, keepdim=True), rows, left
        by_column, by_row = _gains(*more_columns), _gains(*more_rows)
        least = min(float(by_column.max()), float(by_row.max()))
        if by_column.max() >= by_row.max():
            added = _take(by_column, begun.sum(1, keepdim=True), least, left)
            rows, columns = torch.where((added.any(1) & ~columns.any(1))[:, None], begun, rows), columns | added
        else:
            added = _take(by_row, columns.sum(1, keepdim=True), least, left)
            rows = rows | added
        if not added.any():
            break
        left = keep - _size(rows, columns)
    return rows, columns


def _gains(norms: Tensor, sizes: Tensor, chosen: Tensor, left: int) -> Tensor:
    """Return norm for size of rows, or columns, that may be added (blocks, rows); 0 for others."""
    may = ~chosen & (sizes > 0) & (sizes <= left)
    return torch.where(may, norms / sizes.clamp(min=1), 0.0)


def _take(gains: Tensor, sizes: Tensor, least: float, left: int) -> Tensor:
    """Return the largest gains, none smaller than `least`, whose sizes together are at most `left`."""
    flat, places = torch.sort(gains.flatten(), descending=True, stable=True)
    fits = (sizes.expand_as(gains).flatten()[places].cumsum(0) <= left) & (flat > 0) & (flat >= least)
    return torch.zeros_like(gains, dtype=torch.bool).flatten().scatter_(0, places, fits).reshape(gains.shape)
