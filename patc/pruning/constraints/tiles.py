"""Tiles of the weight's matrix, each kept or removed: blocks, columns of bands, rows, filters, single weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patc.pruning.constraints.base import Constraint, largest


@dataclass(frozen=True)
class TileConstraint(Constraint):
    """The matrix of a weight in tiles of `rows` x `columns`, which divide it.

    Attributes:
        rows, columns: of a tile: 8 x 1 is a column of a band of eight rows, 1 x all a filter, 1 x 1 a weight.
    """

    rows: int
    columns: int

    @property
    def units(self) -> int:
        return self.site.size // self.unit_weights

    @property
    def unit_weights(self) -> int:
        return self.rows * self.columns

    def scores(self, weight: Tensor) -> Tensor:
        # A square of a float32 is exact in float64 and cannot underflow or overflow there.
        return self._sums(weight.detach().double().square())

    def mask(self, weight: Tensor, keep: int) -> Tensor:
        scores = self.scores(weight)
        kept = (largest(scores, keep) & (scores > 0)).reshape(self.site.filters // self.rows, -1)
        tiles = kept.repeat_interleave(self.rows, 0).repeat_interleave(self.columns, 1)
        return self.site.restore(tiles)

    def group_squares(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        squares = self._sums(weight.square())
        return squares, torch.full_like(squares, self.unit_weights, requires_grad=False)

    def _sums(self, tensor: Tensor) -> Tensor:
        filters = self.site.filters
        tiles = self.site.matrix(tensor).reshape(filters // self.rows, self.rows, -1, self.columns)
        return tiles.sum((1, 3)).flatten()
