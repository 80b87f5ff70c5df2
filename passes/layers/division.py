"""What it costs threads to divide a layer: lines that cores fetch from each other, and weights that all of them read.

Cycles are those of all threads together, as those of a layer on one core are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch_mlir import ir

from patc.costs import CoreCosts
from patc.dialects.attributes import Layout
from patc.dialects.schedules import FILTERS, ROWS
from patc.integers import ceil_div
from patc.passes.cost.division import Read
from patc.passes.ir.elements import element_bytes, memory_shape, stored_bytes
from patc.passes.ir.planes import as_planes
from patc.passes.layers.base import LayerKind, Operand


@dataclass(frozen=True)
class Division:
    """A layer that threads divide.

    Attributes:
    """

    op: Any
    kind: LayerKind
    costs: CoreCosts
    threads: int

    @property
    def elsewhere(self) -> float:
        """The part of what all threads wrote that one of them did not write."""
        return 1.0 - 1.0 / self.threads

    @cached_property
    def overhead(self) -> float:
        """Cycles that to divide rows costs: lines that two threads write, and weights that all of them read."""
        if self.threads == 1:
            return 0.0
        lines = self._border_lines(self.op.results[0].type) * self.costs.remote_line_cycles
        return lines + (self.threads - 1) * self._weight_bytes / self.costs.stream_bytes_per_cycle

    def reads(self, layers: Mapping[Any, int]) -> Iterator[Read]:
        """Yield what it reads of other layers.

        Args:
            layers: the number of each by its operation.
        """
        for operand in self.kind.operands(self.op):
            if not operand.access.is_constant:
                value = self.op.operands[operand.number]
                for number, size in _writers(value, layers):
                    yield Read(number, self._fetched(operand, value.type, size))

    def _fetched(self, operand: Operand, type_: ir.Type, size: float) -> dict[tuple[str, str], float]:
        """Return the cycles to fetch so many bytes of an operand, by what divides the layer that wrote it and this."""
        once = size * self.elsewhere / self.costs.remote_bytes_per_cycle
        lines = self._border_lines(type_, self._halo_rows) * size / _bytes(type_)
        filters = self.threads * once if operand.is_shared else once
        return {
            (ROWS, ROWS): lines * self.costs.remote_line_cycles,
            (FILTERS, ROWS): once,
            (ROWS, FILTERS): filters,
            (FILTERS, FILTERS): filters if operand.is_shared else 0.0,
        }

    @cached_property
    def _halo_rows(self) -> float:
        """Rows on the other side of a border that a thread reads."""
        window = self.kind.window(self.op)
        if window is None:
            return 0.0
        reach = window.dilations[0] * (window.kernel[0] - 1) + 1
        return max(0, reach - window.strides[0]) / 2

    def _border_lines(self, type_: ir.Type, rows: float = 0.0) -> float:
        """Return the lines of a tensor on the other side of a border between threads' rows, or half on it."""
        images, channels, height, width = as_planes(memory_shape(type_))
        pitch = Layout.of(type_).pitch if type_.rank == 4 else width
        size, line = element_bytes(type_), self.costs.line_bytes
        cut = 0.0 if size * pitch % line == 0 else 0.5
        lines = cut + rows * ceil_div(size * width, line)
        borders = 2 * (self.threads - 1)  # each from both sides
        return images * channels * borders * lines if height > 1 else 0.0

    @cached_property
    def _weight_bytes(self) -> float:
        operands = self.kind.operands(self.op)
        return sum(_bytes(self.op.operands[each.number].type) for each in operands if each.access.is_constant)


def _writers(value: ir.Value, layers: Mapping[Any, int]) -> Iterator[tuple[int, float]]:
    """Yield the number of each layer that wrote a part of a value, and the bytes of it."""
    if isinstance(value.owner, ir.Block):
        return
    if value.owner in layers:
        yield layers[value.owner], _bytes(value.type)
        return
    for operand in value.owner.operands:
        if isinstance(operand.type, ir.RankedTensorType):
            for number, size in _writers(operand, layers):
                yield number, min(size, _bytes(value.type))


def _bytes(type_: ir.Type) -> float:
    return float(stored_bytes(type_))
