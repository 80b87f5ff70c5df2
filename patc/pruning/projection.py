"""The nearest pattern-sparse weights: the projection that one-shot pruning and ADMM share (paper, section 6.1)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from patc.pruning.kernels import PrunedLayer
from patc.pruning.libraries import Library, taps


@dataclass(frozen=True)
class Choice:
    """What a layer keeps.

    Attributes:
        patterns: number of each unit's best pattern (units,) int64.
        kept: whether the unit is kept (units,) bool.
    """

    patterns: Tensor
    kept: Tensor


def project(layer: PrunedLayer, weight: Tensor, keep: int, balanced: bool = False) -> Choice:
    """Return the patterns and kernels that keep the most of the squared norm of `weight`.

    Each unit gets the pattern that keeps the most of it, then the `keep` units of the largest norm under their
    patterns stay; a unit that is zero anyway never does. With `balanced`, every row of units keeps keep / rows, and
    the rest goes to the best of those that come next in their rows.

    Ties are decided for the earlier pattern and the earlier unit, so that equal weights give equal results.
    """
    best, patterns = best_patterns(layer.squares_of(weight), layer.masks)
    kept = _largest_in_rows(best, layer.rows, keep) if balanced else _largest(best, keep)
    return Choice(patterns, kept & (best > 0))


def keep_mask(layer: PrunedLayer, choice: Choice) -> Tensor:
    """Return which weights of the layer a choice keeps: bool of the weight's shape."""
    return layer.mask_of(layer.bits[choice.patterns] & choice.kept[:, None])


def best_patterns(squares: Tensor, masks: Library) -> tuple[Tensor, Tensor]:
    """Return the largest squared norm a pattern keeps of each unit (units,), and that pattern's number.

    Args:
        squares: (units, taps).
    """
    norms = _pattern_norms(squares, masks)
    best = next(norms)
    chosen = torch.zeros(len(squares), dtype=torch.int64, device=squares.device)
    for number, norm in enumerate(norms, start=1):
        better = norm > best
        best = torch.where(better, norm, best)
        chosen[better] = number
    return best, chosen


def _pattern_norms(squares: Tensor, masks: Library) -> Iterator[Tensor]:
    for mask in masks:
        # Added one by one: the order of a library call's sum, and with it a tie, depends on the machine.
        yield functools.reduce(torch.add, [squares[:, tap] for tap in taps(mask)])


def _largest(scores: Tensor, keep: int) -> Tensor:
    # A stable sort, not topk: among equals topk keeps whichever it meets first.
    order = torch.sort(scores, descending=True, stable=True).indices
    kept = torch.zeros_like(scores, dtype=torch.bool)
    kept[order[:keep]] = True
    return kept


def _largest_in_rows(scores: Tensor, rows: int, keep: int) -> Tensor:
    each, rest = divmod(keep, rows)
    order = torch.sort(scores.reshape(rows, -1), dim=1, descending=True, stable=True).indices
    ranks = torch.argsort(order, dim=1).reshape(-1)
    next_in_row = torch.where(ranks == each, scores, -1.0)
    return (ranks < each) | (_largest(next_in_row, rest) & (ranks == each))
