"""Weights in gather-scatter packs: tiles of the weight's matrix with as many packs each as their weights are worth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patc.packing import alike
from patc.pruning.constraints.base import Constraint, largest
from patc.pruning.constraints.packing import Packing


@dataclass(frozen=True)
class GatherScatterConstraint(Constraint):
    """The matrix of a weight in tiles; a unit is a pack, which stores as many weights as there are banks.

    Which packs stay is decided by what a tile's packs hold when its weights fill them one by one, the largest first;
    then those that fit so many packs stay, again the largest first. The nearest point is found exactly where a tile is
    one row (`per_row` = `banks`); elsewhere a flow finds it, which holds little more.

    Attributes:
        packing: of a tile.
        permutes_rows: whether any rows may make a tile; else they are neighbours.
    """

    packing: Packing
    permutes_rows: bool

    @property
    def units(self) -> int:
        return self.site.size // self.packing.banks

    @property
    def unit_weights(self) -> int:
        return self.packing.banks

    def scores(self, weight: Tensor) -> Tensor:
        squares = self._squares(weight)
        return self._scores(self._tiles(squares, self._rows(squares)))

    def mask(self, weight: Tensor, keep: int) -> Tensor:
        squares = self._squares(weight)
        rows = self._rows(squares)
        found = self._chosen(squares, rows, keep)
        if self.permutes_rows and self._count(found) > keep:  # these rows cannot be found again
            found = self._chosen(squares, self._in_place(squares), keep)
        return self.site.restore(found)

    def group_squares(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Packs, as the largest weights fill them."""
        squares = self._squares(weight)
        rows = self._rows(squares)
        packs = self.packing.fill(self._tiles(squares, rows)).flatten(1)
        given = self._tiles(self.site.matrix(weight).square(), rows).flatten(1)
        groups = given.new_zeros(len(given), self.packing.most).scatter_add(1, packs, given).flatten()
        return groups, torch.full_like(groups, self.unit_weights, requires_grad=False)

    def count(self, weight: Tensor) -> int:
        """Return how many packs hold what is not zero: of rows that may change places, in the best order found."""
        return self._count(self.site.matrix(weight.detach()) != 0)

    def _count(self, there: Tensor) -> int:
        return int(self.packing.needed(self._tiles(there, self._rows(there.double()))).sum())

    def _squares(self, weight: Tensor) -> Tensor:
        return self.site.matrix(weight.detach().double().square())

    def _tiles(self, matrix: Tensor, rows: Tensor) -> Tensor:
        return self.packing.tiles(matrix[rows])

    def _scores(self, tiles: Tensor) -> Tensor:
        """Return what each pack of each tile holds, no more than those before it."""
        packs = self.packing.fill(tiles).flatten(1)
        held = tiles.new_zeros(len(tiles), self.packing.most).scatter_add(1, packs, tiles.flatten(1))
        return torch.cummin(held, 1).values.flatten()

    def _chosen(self, squares: Tensor, rows: Tensor, keep: int) -> Tensor:
        """Return which weights of the matrix stay in `keep` packs of tiles of these rows."""
        tiles = self._tiles(squares, rows)
        scores = self._scores(tiles)
        packs = (largest(scores, keep) & (scores > 0)).reshape(len(tiles), -1).sum(1)
        found = torch.empty_like(squares, dtype=torch.bool)
        found[rows] = self.packing.matrix(self.packing.choose(tiles, packs), len(squares))
        return found

    def _in_place(self, matrix: Tensor) -> Tensor:
        return torch.arange(len(matrix), device=matrix.device)

    def _rows(self, squares: Tensor) -> Tensor:
        """Return the rows of the tiles, R after R: in an order by their norms, by where their weights are, or in place,
        whichever needs the fewest packs."""
        if not self.permutes_rows or self.packing.rows == 1:
            return self._in_place(squares)
        counts = (squares > 0).unflatten(1, (-1, self.packing.columns)).sum(2)
        orders = [torch.sort(squares.sum(1), descending=True, stable=True).indices]
        if bool((counts < self.packing.columns).any()):  # else it is all the same
            found = torch.from_numpy(alike(counts.cpu().numpy(), self.packing.rows))
            orders += [found.to(squares.device), self._in_place(squares)]
        return min(orders, key=lambda rows: int(self.packing.needed(self._tiles(squares > 0, rows)).sum()))
