"""What Winograd convolution F(4x4, r x r) does to a tile: its matrices, as operations on vectors.

An axis of a tile has 4 outputs, r + 3 inputs, and as many points at which the polynomials of inputs and kernel are
multiplied (Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, Fast Algorithms for Convolutional
Neural Networks, CVPR 2016).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.passes.kernels.builder import Builder, Vectors

TILE = 4  # rows and columns of outputs


@dataclass(frozen=True)
class Transform:
    """The points of an axis: 0, +-near, +-far, infinity and, for 4 taps, -1, in this order.

    A kernel of 3 taps leaves the point -1 out; its products may be added to those of a kernel of 4 taps.
    """

    near: float
    far: float

    def weights(self, taps: int) -> np.ndarray:
        """Return the matrix G, (taps + 3) x taps."""
        points = [0.0, self.near, -self.near, self.far, -self.far, -1.0][: taps + 2]
        rows = []
        for point in points:
            scale = math.prod(point - other for other in points if other != point)
            rows.append([point**power / scale for power in range(taps)])
        rows.insert(5, [0.0] * (taps - 1) + [1.0])
        return np.array(rows)

    def inputs(self, b: Builder, given: Vectors) -> Vectors:
        """Return B^T of six or seven vectors."""
        if len(given) == 6:
            return self._six_inputs(b, given)
        # The polynomials of the other points have one factor more, x + 1.
        sums = [b.plus(given[place + 1], given[place]) for place in range(6)]
        return [*self._six_inputs(b, sums), self._even_points(b, given[1:6])]

    def _even_points(self, b: Builder, given: Vectors) -> ir.Value:
        """Return (x^2 - near^2) (x^2 - far^2) of the five coefficients."""
        near, far, lanes = self.near**2, self.far**2, given[0].type.shape[0]
        rest = b.fma(b.splat(-near - far, lanes), given[2], given[4])
        return b.fma(b.splat(near * far, lanes), given[0], rest)

    def _six_inputs(self, b: Builder, given: Vectors) -> Vectors:
        _, d1, d2, d3, d4, _ = given
        lanes = d1.type.shape[0]

        def pair(point: float, others: float) -> Vectors:
            factor = b.splat(-others * others, lanes)
            even, odd = b.fma(factor, d2, d4), b.fma(factor, d1, d3)
            # Additions run beside multiply-adds on many cores, so three operations take less time than two
            # multiply-adds.
            scaled = b.times(b.splat(point, lanes), odd)
            return [b.plus(even, scaled), arith.SubFOp(even, scaled).result]

        ends = self._even_points(b, given[:5]), self._even_points(b, given[1:])
        return [ends[0], *pair(self.near, self.far), *pair(self.far, self.near), ends[1]]

    def outputs(self, b: Builder, products: Vectors) -> Vectors:
        """Return A^T of six or seven vectors."""
        m0, m1, m2, m3, m4, m5, *extra = products
        lanes = m0.type.shape[0]
        near_sum, near_difference = b.plus(m1, m2), arith.SubFOp(m1, m2).result
        far_sum, far_difference = b.plus(m3, m4), arith.SubFOp(m3, m4).result

        def powers(power: int, near: ir.Value, far: ir.Value, rest: Vectors) -> ir.Value:
            factor = b.splat(self.near**power, lanes)
            first = b.fma(factor, near, rest[0]) if rest else b.times(factor, near)
            return b.fma(b.splat(self.far**power, lanes), far, first)

        return [
            b.plus(b.plus(m0, *extra) if extra else m0, b.plus(near_sum, far_sum)),
            powers(1, near_difference, far_difference, [arith.NegFOp(value).result for value in extra]),
            powers(2, near_sum, far_sum, extra),
            powers(3, near_difference, far_difference, [arith.SubFOp(m5, *extra).result if extra else m5]),
        ]


# Of the simple points, those with the smallest errors: a quarter of those at the usual +-1 and +-2 for 3 taps. All
# constants that follow are exact in f32.
TRANSFORMS = {3: Transform(near=0.75, far=1.5), 4: Transform(near=0.5, far=2.0)}


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
