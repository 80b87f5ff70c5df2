"""Blocks that lose whole rows and whole columns, so that what is left of each is a smaller dense matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patc.pruning.constraints.base import Constraint

_STARTS = 8  # rows, the largest of each block, that the search starts from beside all of them
_TURNS = 6
_HALVINGS = 30


@dataclass(frozen=True)
class CrossedConstraint(Constraint):
    """The matrix of a weight in blocks of `rows` x `columns`, which divide it. A unit is a single weight: a budget is
    what all blocks together keep.

    Which rows and columns to remove so that the most of the norm stays is a hard problem; this finds, for a price of a
    weight, rows and columns of each block of which no single one is worth removing or adding, and the price for which
    the budget is met. Of blocks that keep all of their rows, or all of their columns, that is the nearest point.
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
        return int((there.any(2).sum(1) * there.any(1).sum(1)).sum())

    def mask(self, weight: Tensor, keep: int) -> Tensor:
        squares = self._blocks(weight.detach().double().square())
        low, high = 0.0, float(squares.amax(0).amax() if squares.numel() else 0.0) * self.rows * self.columns + 1e-300
        best = self._choose(squares, high)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            chosen = self._choose(squares, middle)
            if int(chosen.sum()) > keep:
                low = middle
            else:
                high, best = middle, chosen
        return self.site.restore(self._matrix(best))

    def group_squares(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns of all blocks."""
        blocks = self._blocks(weight.square())
        rows, columns = blocks.sum(2).flatten(), blocks.sum(1).flatten()
        sizes = [torch.full_like(rows, self.columns), torch.full_like(columns, self.rows)]
        return torch.cat([rows, columns]), torch.cat(sizes)

    def _choose(self, squares: Tensor, price: float) -> Tensor:
        """Return what is kept (blocks, rows, columns) when a kept weight costs `price`: the best of several starts."""
        worth = squares - price
        order = torch.sort(squares.sum(2), dim=1, descending=True, stable=True).indices
        best, value = torch.zeros_like(worth, dtype=torch.bool), worth.new_zeros(len(worth))
        for start in range(-1, min(self.rows, _STARTS)):
            rows = torch.ones_like(worth[:, :, 0], dtype=torch.bool)
            if start >= 0:
                rows = torch.zeros_like(rows).scatter_(1, order[:, start : start + 1], True)
            found = _turn_by_turn(worth, rows)
            reached = torch.where(found, worth, 0.0).sum((1, 2))
            better = reached > value
            value = torch.where(better, reached, value)
            best = torch.where(better[:, None, None], found, best)
        return best

    def _blocks(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the weight's shape as (blocks, rows, columns)."""
        matrix = self.site.matrix(tensor)
        tiles = matrix.reshape(len(matrix) // self.rows, self.rows, -1, self.columns).transpose(1, 2)
        return tiles.reshape(-1, self.rows, self.columns)

    def _matrix(self, blocks: Tensor) -> Tensor:
        """Undo `_blocks`, but for the shape."""
        tiles = blocks.reshape(self.site.filters // self.rows, -1, self.rows, self.columns).transpose(1, 2)
        return tiles.reshape(self.site.filters, -1)


def _turn_by_turn(worth: Tensor, rows: Tensor) -> Tensor:
    """Return the rows and columns of each block of which no single one is worth removing or adding.

    Args:
        worth: of each weight (blocks, rows, columns).
        rows: to start with (blocks, rows).
    """
    columns = torch.zeros_like(worth[:, 0], dtype=torch.bool)
    for _ in range(_TURNS):
        before = rows, columns
        columns = torch.where(rows[:, :, None], worth, 0.0).sum(1) > 0
        rows = torch.where(columns[:, None], worth, 0.0).sum(2) > 0
        if torch.equal(before[0], rows) and torch.equal(before[1], columns):
            break
    return rows[:, :, None] & columns[:, None]
