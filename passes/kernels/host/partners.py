"""Which entries of weights are multiplied together: two whose weights are small together, see `Dots.together`."""

from __future__ import annotations

import numpy as np

from patc.passes.ir.elements import WORD

_NEVER = 255  # what no entry has room beside


def slots_of(weights: np.ndarray, counts: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an order of entries in which two neighbours, of slots 2n and 2n + 1, are multiplied together.

    Of the first two weights of both words those of one sign are at most `most` together, and of the last two. An entry
    without a partner has the first of two slots.

    Args:
        weights: of entries, words of i32 that keep to `most` alone; those of a loop are neighbours.
        counts: of the entries of each loop.
        most: at most 254.

    Returns:
        the slot of each entry in its loop, and how many slots each loop has, an even number.
    """
    starts = np.cumsum(counts) - counts
    loops = np.repeat(np.arange(len(counts)), counts)
    needs = _needs(weights)
    # Those that are hardest to find a partner for come first.
    order = np.lexsort((-needs.sum(axis=0, dtype=int), -needs.max(axis=0, initial=0).astype(int), loops))
    ranks = np.arange(len(weights)) - starts[loops]
    # One rank more, at which no loop has an entry.
    table = np.full((len(needs), len(counts), counts.max(initial=0) + 1), _NEVER, np.uint8)
    table[:, loops, ranks] = needs[:, order]
    slots, sizes = _slots(table, np.arange(table.shape[2]) < counts[:, None], most)
    found = np.empty(len(weights), int)
    found[order] = slots[loops, ranks]
    return found, sizes


def _needs(weights: np.ndarray) -> np.ndarray:
    """Return the sums of positive and of negative weights in either half of a word, 4 x N of u8."""
    halves = np.ascontiguousarray(weights).view(np.int8).astype(int).reshape(-1, 2, WORD // 2)
    sums = [np.maximum(sign * halves, 0).sum(axis=2).T for sign in (1, -1)]
    return np.concatenate(sums).astype(np.uint8)


def _slots(table: np.ndarray, is_free: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the slots of entries by loops and ranks, and how many each loop has: each entry gets the first one behind
    it that fits.

    Args:
        table: what entries need, kinds x loops x ranks.
        is_free: which ranks of loops have an entry; changed.
    """
    slots, sizes = np.zeros(is_free.shape, int), np.zeros(len(is_free), int)
    for rank in range(is_free.shape[1] - 1):
        (loops,) = np.nonzero(is_free[:, rank])
        room = most - table[:, loops, rank, None]
        fits = is_free[loops, rank + 1 :] & np.all(table[:, loops, rank + 1 :] <= room, axis=0)
        slots[loops, rank] = sizes[loops]
        (have,) = np.nonzero(fits.any(axis=1))
        partners = rank + 1 + fits[have].argmax(axis=1)
        slots[loops[have], partners] = sizes[loops[have]] + 1
        is_free[loops[have], partners] = False
        sizes[loops] += 2
    return slots, sizes
