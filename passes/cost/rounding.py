"""Rounding errors of a net, modelled: what those of a layer have grown to in the net's outputs, and what less costs.

An error is relative: its root mean square over that of what it is an error of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from patc.numerics import Numerics

PART = 0.02  # of the cycles of a net that may be spent on smaller errors
SHARE = 8  # of what a net's error may be, one part in so many is nothing to care for in a layer
# By a convolution behind them, as measured from layer to layer in residual nets of 50 convolutions with batch norm,
# which takes means away and leaves errors: 70 times from the stem of DeepLab-V3 to its outputs.
GROWTH = 1.08


@dataclass(frozen=True)
class Rounding:
    """Errors that the cheapest algorithm of a layer makes.

    Attributes:
        error: in the outputs of the net.
        extra: cycles that a more exact one takes more; None if there is none.
    """

    error: float
    extra: float | None


def sum_error(products: float, numerics: Numerics) -> float:
    """Return the error of a sum of products of random numbers, one after the other in one accumulator.

    Each step rounds a sum that grows with the root of the steps, by 0.4 of a unit on average.
    """
    return 0.4 * numerics.unit * math.sqrt(products / 2)


def worth_more(layers: Sequence[Rounding], cycles: float, numerics: Numerics) -> list[int]:
    """Return the numbers of the layers that should be computed more exactly.

    The first ones, as far as a part of the cycles of the whole net goes: their errors grow most.
    """
    left, found = PART * cycles, []
    for number, layer in enumerate(layers):
        if layer.extra is None or SHARE * layer.error <= numerics.error_bound:
            continue
        left -= layer.extra
        if left < 0:
            break
        found.append(number)
    return found
