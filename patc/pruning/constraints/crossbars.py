"""Weights on crossbars: the columns or rows of tiles, each kept or removed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patc.pruning.constraints.base import Constraint, largest
from patc.pruning.report import LayerReport
from patc.pruning.tiling import number_parts, sum_parts


@dataclass(frozen=True)
class CrossbarConstraint(Constraint):
    """The weights of a layer on tiles: inputs are a tile's rows, outputs its columns, a unit is a column or a row.

    Attributes:
        size: most rows and columns of a tile.
        by_column: whether units are columns: what an output reads of the inputs of a tile.
    """

    size: int
    by_column: bool

    @property
    def units(self) -> int:
        outputs, inputs = self._counts
        return outputs * inputs

    @property
    def unit_weights(self) -> int:
        """Of the largest ones: tiles of a layer may differ by one."""
        return -(-self.site.size // self.units)

    def scores(self, weight: Tensor) -> Tensor:
        return self._sums(weight.detach().double().square())

    def mask(self, weight: Tensor, keep: int) -> Tensor:
        scores = self.scores(weight)
        kept = (largest(scores, keep) & (scores > 0)).reshape(self._counts)
        outputs, inputs = self._numbers()
        return kept[outputs][:, inputs].reshape(self.site.shape)

    def group_squares(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        squares = self._sums(weight.square())
        return squares, self._sums(torch.ones_like(weight, requires_grad=False))

    def report(self, keep: int) -> LayerReport:
        there = self.scores(self.weight) > 0
        sizes = self._sums(torch.ones_like(self.weight, requires_grad=False))
        kept, stored = int(there.sum()), int(sizes[there].sum())
        return LayerReport(self.name, self.site.shape, self.kind, self.units, kept, self.site.size, stored, {})

    @property
    def _counts(self) -> tuple[int, int]:
        """Units of an input and of an output."""
        outputs, inputs = (int(numbers.max()) + 1 for numbers in self._numbers())
        return outputs, inputs

    def _numbers(self) -> tuple[Tensor, Tensor]:
        """Return the number of each output's part, and of each input's."""
        outputs, inputs = self.site.filters, self.site.size // self.site.filters
        sizes = (1, self.size) if self.by_column else (self.size, 1)
        device = self.weight.device
        return number_parts(outputs, sizes[0]).to(device), number_parts(inputs, sizes[1]).to(device)

    def _sums(self, tensor: Tensor) -> Tensor:
        outputs, inputs = self._numbers()
        return sum_parts(sum_parts(tensor.flatten(1), inputs, 1), outputs, 0).flatten()
