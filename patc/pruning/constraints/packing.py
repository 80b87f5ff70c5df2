"""Gather-scatter packs: which weights of a tile go together, so that no two of a pack read the same bank.

A tile has R rows and W columns of the weight's matrix; the bank of a column is its number mod B. A pack has at most B
weights of a tile, at most k of each row and one of each bank, where R k = B. The edges of a bipartite graph, between k
copies of each row and the banks, have as many colours as a node has edges at most: weights make n packs when no row has
more than k n of them and no bank more than n.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_AT_ONCE = 1 << 22  # numbers of tiles that are sorted together


@dataclass(frozen=True)
class Packing:
    """What packs are.

    Attributes:
        banks: B.
        per_row: k, which divides B.
        columns: W, which B divides; at most 32 k.
    """

    banks: int
    per_row: int
    columns: int

    @property
    def rows(self) -> int:
        """R, of a tile."""
        return self.banks // self.per_row

    @property
    def most(self) -> int:
        """Packs of a tile without zeros."""
        return self.columns // self.per_row

    def tiles(self, matrix: Tensor) -> Tensor:
        """Return (rows, columns) as (tiles, R, W), those of the first R rows in front."""
        cut = matrix.reshape(len(matrix) // self.rows, self.rows, -1, self.columns)
        return cut.transpose(1, 2).flatten(0, 1)

    def matrix(self, tiles: Tensor, rows: int) -> Tensor:
        """Undo `tiles`."""
        return tiles.reshape(rows // self.rows, -1, self.rows, self.columns).transpose(1, 2).reshape(rows, -1)

    def needed(self, there: Tensor) -> Tensor:
        """Return the fewest packs that hold the weights which are there (tiles, R, W): (tiles,)."""
        rows = there.sum(2).amax(1)
        banks = there.sum(1).unflatten(1, (-1, self.banks)).sum(1).amax(1)
        return torch.maximum((rows + self.per_row - 1) // self.per_row, banks)

    def fill(self, squares: Tensor) -> Tensor:
        """Return the pack of each weight (tiles, R, W), from 0: the largest go first, each to the first that takes it.

        Packs are no more than needed; what no pack takes, goes to the last one.
        """
        last = (self.needed(squares > 0) - 1).clamp_min(0)
        parts = zip(self._cut(squares), self._cut(last), strict=True)
        return torch.cat([self._fill(*part) for part in parts])

    def choose(self, squares: Tensor, packs: Tensor) -> Tensor:
        """Return which weights (tiles, R, W) stay of tiles of so many packs: the largest first, as long as their row
        and bank have room."""
        parts = zip(self._cut(squares), self._cut(packs), strict=True)
        return torch.cat([self._choose(*part) for part in parts])

    def _cut(self, tensor: Tensor) -> tuple[Tensor, ...]:
        return tensor.split(max(1, _AT_ONCE // (self.rows * self.columns)))

    def _fill(self, squares: Tensor, last: Tensor) -> Tensor:
        # Bit p of a row's j-th number: whether pack p has j + 1 weights of it. A weight finds at most 2 (W/k - 1) packs
        # closed, so that 63 bits do.
        taken = [squares.new_zeros((len(squares), self.rows), dtype=torch.int64) for _ in range(self.per_row)]
        closed = squares.new_zeros((len(squares), self.banks), dtype=torch.int64)
        bits = torch.empty_like(squares, dtype=torch.int64).flatten(1)
        for cell in self._descending(squares):
            row, bank = self._place(cell)
            full, used = taken[-1].gather(1, row), closed.gather(1, bank)
            free = ~(full | used)
            bit = carry = free & -free
            bits.scatter_(1, cell, bit)
            closed.scatter_(1, bank, used | bit)
            for member in taken:
                before = member.gather(1, row)
                member.scatter_(1, row, before | carry)
                carry = carry & before
        packs = torch.frexp(bits.double()).exponent.long() - 1
        return torch.minimum(packs, last[:, None]).reshape(squares.shape)

    def _choose(self, squares: Tensor, packs: Tensor) -> Tensor:
        rows = packs[:, None].repeat(1, self.rows) * self.per_row
        banks = packs[:, None].repeat(1, self.banks)
        found = torch.zeros_like(squares, dtype=torch.bool).flatten(1)
        there = squares.flatten(1) > 0
        for cell in self._descending(squares):
            row, bank = self._place(cell)
            in_row, in_bank = rows.gather(1, row), banks.gather(1, bank)
            kept = (in_row > 0) & (in_bank > 0) & there.gather(1, cell)
            found.scatter_(1, cell, kept)
            rows.scatter_(1, row, in_row - kept.long())
            banks.scatter_(1, bank, in_bank - kept.long())
        return found.reshape(squares.shape)

    def _place(self, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Return the row and the bank of places in tiles."""
        return cell // self.columns, cell % self.banks

    @staticmethod
    def _descending(squares: Tensor) -> Tensor:
        """Return the places of each tile's weights, the largest first: (R * W, tiles, 1)."""
        return torch.sort(squares.flatten(1), dim=1, descending=True, stable=True).indices.T.contiguous()[..., None]
