"""Rows and columns of a matrix whose elements add up to the most, for many matrices at once."""

from __future__ import annotations

import torch
from torch import Tensor

ENUMERATED = 8  # rows of which all subsets are tried
_SINGLE = 16  # rows, the largest of each matrix, that a search starts from alone
_CLIMBING = 8  # starts, the best of each matrix, from which single rows are changed
_TURNS = 6
_ELEMENTS = 1 << 22  # of the tensors in between


def best_rows(worth: Tensor, known: Tensor) -> Tensor:
    """Return the rows of each matrix that hold the most with the columns that suit them: bool (matrices, rows).

    The columns that suit rows are those whose sum over them is positive. Of up to `ENUMERATED` rows the answer is
    exact. Of more it is the best of local searches: rows and columns by turns, then the row whose change gains the
    most, until none does. The problem is the bipartite boolean quadratic one, which is NP-hard.

    Args:
        worth: float64 (matrices, rows, columns), of either sign.
        known: bool (matrices, n, rows), to start searches from as well.
    """
    height, width = worth.shape[1:]
    if height <= ENUMERATED:
        parts = worth.split(max(1, _ELEMENTS // (width << height)))
        return torch.cat([_enumerate(part) for part in parts])
    parts = worth.split(max(1, _ELEMENTS // (height * width)))
    starts = known.split(len(parts[0]))
    return torch.cat([_search(part, some) for part, some in zip(parts, starts, strict=True)])


def _enumerate(worth: Tensor) -> Tensor:
    height = worth.shape[1]
    numbers = torch.arange(1 << height, device=worth.device)
    subsets = (numbers[:, None] >> torch.arange(height, device=worth.device)) & 1
    reached = (subsets.to(worth.dtype) @ worth).clamp_(min=0.0).sum(2)
    return subsets.bool()[reached.argmax(1)]


def _search(worth: Tensor, known: Tensor) -> Tensor:
    """Return the best of searches from known rows, the largest ones alone, and parts of them: all, half, a quarter."""
    height = worth.shape[1]
    order = torch.sort(worth.clamp(min=0.0).sum(2), dim=1, descending=True, stable=True).indices
    place = torch.argsort(order, dim=1)
    starts = [place < height >> halved for halved in range(height.bit_length())]
    starts += [place == one for one in range(min(height, _SINGLE))]
    rows = _turn_by_turn(worth, torch.cat([known, torch.stack(starts, 1)], 1).to(worth.dtype))
    reached = (rows @ worth).clamp_(min=0.0).sum(2)
    best = rows[:, 0]
    value = worth.new_full((len(worth),), -1.0)
    for one in reached.topk(min(_CLIMBING, rows.shape[1]), dim=1).indices.unbind(1):
        climbed, now = _climb(worth, rows[torch.arange(len(rows), device=rows.device), one])
        better = now > value
        best, value = torch.where(better[:, None], climbed, best), torch.where(better, now, value)
    return best > 0


def _turn_by_turn(worth: Tensor, rows: Tensor) -> Tensor:
    """Return rows (matrices, n, rows), 0 or 1, that suit the columns that suit them."""
    for _ in range(_TURNS):
        columns = (rows @ worth > 0).to(worth.dtype)
        before, rows = rows, (columns @ worth.transpose(1, 2) > 0).to(worth.dtype)
        if torch.equal(before, rows):
            break
    return rows


def _climb(worth: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Add or remove the row whose change gains the most, with the columns that then suit, while there is one; return
    the rows (matrices, rows), 0 or 1, and what they hold (matrices,)."""
    rows = rows.clone()
    sums = (rows[:, None] @ worth)[:, 0]
    value = sums.clamp(min=0.0).sum(1)
    moving = torch.arange(len(worth), device=worth.device)
    for _ in range(2 * worth.shape[1]):
        signs = 1 - 2 * rows[moving]
        changed = torch.addcmul(sums[moving][:, None], signs[:, :, None], worth[moving])
        reached, place = changed.clamp_(min=0.0).sum(2).max(1)
        better = reached > value[moving] * (1 + 1e-12)
        moving, place = moving[better], place[better]
        if not len(moving):
            break
        sign = 1 - 2 * rows[moving, place]
        rows[moving, place] += sign
        sums[moving] += sign[:, None] * worth[moving, place]
        value[moving] = reached[better]
    return rows, value
