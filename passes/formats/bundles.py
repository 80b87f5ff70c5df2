"""What formats have in common that store neighbouring filters together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patc.passes.formats.base import Arrays, WeightFormat


class FilterBundles(WeightFormat):
    """Stored filters are in bundles and keep their places there; each bundle reads the input channels that it names.

    The first array has the weights, as many of each filter of a bundle; the last one the output channel of each stored
    filter.
    """

    def kept_weights(self, shapes: Sequence[Sequence[int]]) -> int:
        return shapes[0][0] * shapes[0][1]

    @property
    def reads_neighbours(self) -> bool:
        return False

    def order_filters(self, arrays: Arrays) -> np.ndarray:
        return np.arange(len(arrays[-1]))

    def output_channels(self, arrays: Arrays) -> np.ndarray:
        return arrays[-1]

    def permute_filters(self, arrays: Arrays, order: np.ndarray, positions: np.ndarray) -> Arrays:
        assert (order == np.arange(len(order))).all(), "filters of bundles keep their places"
        *stored, reorder = arrays
        return *stored, positions[reorder].astype(reorder.dtype)

    def shares(self, arrays: Arrays) -> tuple[float, ...]:
        return (1.0,)
