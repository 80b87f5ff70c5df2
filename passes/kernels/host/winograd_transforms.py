"""What Winograd convolution F(4x4, r x r) does to a tile: its matrices, as operations on vectors.

An axis of a tile has 4 outputs, r + 3 inputs, and as many points at which the polynomials of inputs and kernel are
multiplied (Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, Fast Algorithms for Convolutional
Neural Networks, CVPR 2016).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.passes.kernels.builder import Builder, Vectors

TILE = 4  # rows and columns of outputs


TAPS = (3, 4)  # of a kernel along an axis

# The points of an axis; infinity is one more, and comes before the last of these. A kernel of 3 taps leaves that one
# out: its products may be added to those of a kernel of 4 taps. All constants that follow are exact in f32.
#
# The point 1 has all of what inputs have in common. Where they are nearly equal, as on a plain page, the products of
# other points see their differences alone, which are exact; without that point rounding errors of whole inputs would
# take their place, 200 times as large. Random inputs have the least errors at +-0.75 and +-1.5, 0.7 times these.
POINTS = (0.0, 1.0, -1.0, 2.0, -0.5, -2.0)


def weight_matrix(taps: int) -> np.ndarray:
    """Return the matrix G, (taps + 3) x taps."""
    rows = [*_by_points(taps)]
    return np.array([*rows[:5], rows[-1], *rows[5:-1]])


def _by_points(taps: int) -> np.ndarray:
    """Return the rows of G in the order of points, and then that of infinity."""
    points = POINTS[: taps + 2]
    rows = []
    for point in points:
        scale = math.prod(point - other for other in points if other != point)
        rows.append([point**power / scale for power in range(taps)])
    return np.array([*rows, [0.0] * (taps - 1) + [1.0]])


@functools.cache
def amplification(taps: int) -> float:
    """Return how much larger errors of products are in the outputs of a tile, relative to these, than in the products.

    Root mean square over outputs, of random inputs and kernels: along an axis variances grow so.
    """
    points, grown = POINTS[: taps + 2], 0.0
    last = 1.0 / TILE  # infinity is in the last output alone
    for point, kernel in zip((*points, math.inf), np.square(_by_points(taps)).sum(1), strict=True):
        others = [other for other in points if other != point]
        outputs = last if point == math.inf else sum(point ** (2 * power) for power in range(TILE)) / TILE
        grown += float(outputs * kernel * np.square(np.poly(others)).sum())
    return grown / taps


def transform_inputs(b: Builder, given: Vectors) -> Vectors:
    """Return B^T of six or seven vectors, made of their differences but for the point 1."""
    lanes = given[0].type.shape[0]

    def less(one: ir.Value, other: ir.Value) -> ir.Value:
        return arith.SubFOp(one, other).result

    def by_others(terms: Vectors) -> ir.Value:
        """Return the coefficient of x^2 in (x^2 - 1.5 x - 1) of three."""
        return b.fma(b.splat(-1.5, lanes), terms[1], less(terms[2], terms[0]))

    steps = [less(later, sooner) for sooner, later in zip(given, given[2:], strict=False)]  # times x^2 - 1
    sums = [b.plus(given[place + 1], given[place]) for place in range(2, len(given) - 3)]
    differences = [less(given[place + 1], given[place]) for place in range(2, len(given) - 3)]
    extra = []
    if len(given) == 7:
        extra = [by_others(steps[1:4])]
        # The polynomials of the other points have one factor more.
        factor = b.splat(-POINTS[5], lanes)
        steps, sums, differences = (
            [b.fma(factor, sooner, later) for sooner, later in itertools.pairwise(terms)]
            for terms in (steps, sums, differences)
        )
    factor = b.splat(-1.5, lanes)
    return [
        by_others(steps[:3]),
        b.fma(factor, sums[0], b.plus(steps[2], steps[1])),
        b.fma(factor, differences[0], less(steps[2], steps[1])),
        b.fma(b.splat(0.5, lanes), steps[1], steps[2]),
        b.fma(b.splat(-2.0, lanes), steps[1], steps[2]),
        by_others(steps[1:]),
        *extra,
    ]


def transform_outputs(b: Builder, products: Vectors) -> Vectors:
    """Return A^T of six or seven vectors."""
    m0, m1, m2, m3, m4, m5, *extra = products
    lanes = m0.type.shape[0]
    total, difference = b.plus(m1, m2), arith.SubFOp(m1, m2).result

    def powers(power: int, first: ir.Value) -> ir.Value:
        for point, value in zip(POINTS[3:], [m3, m4, *extra], strict=False):
            first = b.fma(b.splat(point**power, lanes), value, first)
        return first

    return [
        b.plus(b.plus(m0, total), b.plus(b.plus(m3, *extra) if extra else m3, m4)),
        powers(1, difference),
        powers(2, total),
        powers(3, b.plus(m5, difference)),
    ]


# Vectors whose elements have names

Label: TypeAlias = tuple[int, int]  # row of tiles in the vector, and column


@dataclass(frozen=True)
class Named:
    """A vector with the name of each element; None is one that does not matter."""

    value: ir.Value
    labels: tuple[Label | None, ...]


def regroup(b: Builder, sources: Sequence[Named], wanted: Sequence[Sequence[Label]]) -> Vectors:
    """Return vectors of the elements that are wanted.

    What the wanted vectors have in common in several sources is collected in one vector first, as far as it fits:
    vectors that want neighbouring elements should be asked for together.
    """
    asked = {label for labels in wanted for label in labels}
    lanes = max(len(labels) for labels in wanted)
    collected: list[Named] = []
    for source in sorted(sources, key=lambda source: -len(source.labels)):
        found = [label for label in source.labels if label in asked]
        if not found:
            continue
        known = [label for label in collected[-1].labels if label in asked] if collected else []
        if collected and len(known) + len(found) <= lanes:
            collected[-1] = _merge(b, collected[-1], source, [*known, *found])
        else:
            collected.append(source)
    return [_gather(b, collected, labels) for labels in wanted]


def _gather(b: Builder, sources: Sequence[Named], labels: Sequence[Label]) -> ir.Value:
    """Return a vector of elements of several sources."""
    first, *others = (source for source in sources if {*source.labels} & {*labels})
    for other in others or [first]:
        known = {*first.labels, *other.labels}
        first = _merge(b, first, other, [label if label in known else None for label in labels])
    return first.value


def _merge(b: Builder, one: Named, other: Named, labels: Sequence[Label | None]) -> Named:
    """Shuffle two vectors into one."""
    length = max(len(one.labels), len(other.labels))
    one, other = _widen(b, one, length), _widen(b, other, length)
    places: dict[Label | None, int] = {None: POISON}
    for place, label in enumerate([*one.labels, *other.labels]):
        places.setdefault(label, place)
    return Named(b.shuffle(one.value, other.value, [places[label] for label in labels]), tuple(labels))


POISON = -1  # in a shuffle: any element


def _widen(b: Builder, vector: Named, length: int) -> Named:
    """Append elements that do not matter."""
    count = len(vector.labels)
    if count == length:
        return vector
    picks = [*range(count), *[POISON] * (length - count)]
    return Named(b.shuffle(vector.value, vector.value, picks), (*vector.labels, *[None] * (length - count)))
