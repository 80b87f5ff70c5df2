"""Where the designed patterns come from: filters that a few patterns add up to (paper, section 4).

Applying patterns to all kernels of many layers averages them: as an image passes through the net, the mean pattern acts
on it like a filter. So the library is made of patterns whose sum is proportional to a filter that is good for images:

- the Gaussian, in its binomial form: [1 1] * [1 1] = [1 2 1], and the outer product of that with itself;
- the enhanced Laplacian of Gaussian (ELoG): the cross [[0, p, 0], [p, 1, p], [0, p, 0]] with p = 0.75, interpolated
  (each element to the n-th power) n = 8 times, which makes the centre ten times its neighbours.

The paper shows the four patterns of either filter. Here they are searched for: four patterns that rotations and mirror
images map to each other, whose sum points in the direction of the filter, and among equals the most compact ones.
For 5x5 kernels, of which the paper says only that they have patterns of their own, both filters are convolved with
themselves, as [1 4 6 4 1] = [1 2 1] * [1 2 1], and the same search runs on six entries.
"""

from __future__ import annotations

import numpy as np

from patc.pruning.libraries import Library, candidates

ELOG_P = 0.75
ELOG_N = 8
_TOLERANCE = 1e-9  # cosines that differ by less are equal: those of 5x5 patterns are at least 1e-6 apart


def gaussian(size: int = 3) -> np.ndarray:
    """Return the binomial Gaussian, size x size integers: [[1, 2, 1], [2, 4, 2], [1, 2, 1]] for 3."""
    line = np.ones(1, np.int64)
    for _ in range(size - 1):
        line = np.convolve(line, [1, 1])
    return np.outer(line, line)


def elog(size: int = 3, p: float = ELOG_P, n: int = 1) -> np.ndarray:
    """Return the ELoG filter, size x size with 1 in the centre, interpolated n times.

    For n = 1 it is what one layer of patterns has to add up to; the whole filter is that of n = `ELOG_N`.
    """
    cross = np.array([[0, p, 0], [p, 1, p], [0, p, 0]]) ** n
    result = cross
    for _ in range((size - 3) // 2):
        result = _convolve(result, cross)
    return result / result.max()


def derive(target: np.ndarray, entries: int = 4) -> Library:
    """Return the four patterns that add up to `target`, a symmetric size x size filter, ascending.

    They are images of each other under the rotations and mirror images of the square. Chosen is the four whose sum has
    the largest cosine to the target, then the one whose taps are nearest to each other, then the least mask.
    """
    size = len(target)
    masks = np.array(candidates(entries, size), np.int64)
    images = np.stack([_moved(masks, taps) for taps in _symmetries(size)])
    grids = np.stack([images >> tap & 1 for tap in range(size * size)], axis=-1).sum(0).astype(float)
    images.sort(axis=0)
    # A pattern of four different images occurs twice among the eight; of each four the least stands for all.
    is_first = (images[0] == masks) & ((images[1:] != images[:-1]).sum(0) == 3)
    masks, images, grids = masks[is_first], images[:, is_first], grids[is_first]
    wanted = target.reshape(-1) / np.linalg.norm(target)
    cosines = grids @ wanted / np.linalg.norm(grids, axis=1)
    best = np.flatnonzero(cosines > cosines.max() - _TOLERANCE)
    chosen = min(best, key=lambda i: (_spread(int(masks[i]), size), masks[i]))
    return tuple(int(mask) for mask in np.unique(images[:, chosen]))


def sum_of_patterns(masks: Library, size: int = 3) -> np.ndarray:
    """Return how many of the patterns hold each tap, size x size."""
    counts = [sum(mask >> tap & 1 for mask in masks) for tap in range(size * size)]
    return np.array(counts).reshape(size, size)


def _convolve(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    result = np.zeros((len(a) + len(b) - 1,) * 2)
    for (dy, dx), factor in np.ndenumerate(b):
        result[dy : dy + len(a), dx : dx + len(a)] += factor * a
    return result


def _symmetries(size: int) -> list[np.ndarray]:
    """Return for each of the square's eight symmetries where every tap goes."""
    grid = np.arange(size * size).reshape(size, size)
    return [np.rot90(side, turns).reshape(-1) for side in (grid, grid.T) for turns in range(4)]


def _moved(masks: np.ndarray, taps: np.ndarray) -> np.ndarray:
    result = np.zeros_like(masks)
    for source, place in enumerate(taps):
        result |= (masks >> source & 1) << int(place)
    return result


def _spread(mask: int, size: int) -> int:
    """Return the sum of squared distances between a pattern's taps."""
    places = np.array([divmod(tap, size) for tap in range(size * size) if mask >> tap & 1])
    return int(((places[:, None] - places[None]) ** 2).sum())
