"""Recurrent layers as kernels see them, and their weights: of each gate the rows of as many units as a vector has lanes
follow each other, so that a block of units reads one stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import Activation
from patc.dialects.recurrent import RecurrentSizes
from patc.integers import ceil_div
from patc.passes.kernels.builder import Builder, Index
from patc.passes.kernels.host.weight_vectors import pack_bits


@dataclass(frozen=True)
class Layer:
    """What is computed, see `pattern.recurrent`.

    Attributes:
        lanes: units of a block.
        rows: sequences that share the vectors of weights.
        activations, limits: as `RecurrentOp` says.
    """

    mode: str
    is_backward: tuple[bool, ...]
    sizes: RecurrentSizes
    activations: tuple[Activation, Activation, Activation]
    limits: Activation | None
    is_projected: bool
    lanes: int
    rows: int

    @staticmethod
    def of(op: Any, lanes: int, rows: int) -> Layer:
        backward = {"forward": (False,), "reverse": (True,), "both": (False, True)}[op.direction.value]
        is_projected = op.projection is not None
        return Layer(op.mode.value, backward, op.sizes, op.three_activations, op.limits, is_projected, lanes, rows)

    @property
    def blocks(self) -> int:
        """Of the units of one direction."""
        return ceil_div(self.sizes.units, self.lanes)

    @property
    def has_stages(self) -> bool:
        """Whether a step needs all units of its first part before it goes on."""
        return self.mode == "gru_reset_first" or self.is_projected

    @property
    def panels(self) -> dict[str, Panels]:
        """What each part of a step reads of the weights, by the name that it has in memory."""
        s = self.sizes
        parts = {"weight": (0, 1), "candidate": (2,)}
        if self.mode != "gru_reset_first":
            parts = {"weight": tuple(range(s.gates))}
        panels = {name: Panels(s.gates, gates, s.units, s.outputs, self) for name, gates in parts.items()}
        return {**panels, **({"projection": Panels(1, (0,), s.outputs, s.units, self)} if self.is_projected else {})}


@dataclass(frozen=True)
class Panels:
    """The rows of some gates, as [direction][block of units][depth][gate][lane].

    Attributes:
        gates: that the matrix has, each so many `units` rows of `depth` elements, for each direction.
        taken: the gates that are here.
    """

    gates: int
    taken: tuple[int, ...]
    units: int
    depth: int
    layer: Layer

    @property
    def blocks(self) -> int:
        return ceil_div(self.units, self.layer.lanes)

    @property
    def block(self) -> int:
        """Elements of a block."""
        return self.depth * len(self.taken) * self.layer.lanes

    @property
    def size(self) -> int:
        """Elements of all blocks."""
        return self.layer.sizes.directions * self.blocks * self.block

    def pack(self, matrix: np.ndarray) -> np.ndarray:
        """Return the panels of a matrix, with zeros in the place of units that there are not; see `WeightVectors` for
        bits."""
        lanes = self.layer.lanes
        rows = matrix.reshape(self.layer.sizes.directions, self.gates, self.units, self.depth)[:, list(self.taken)]
        rows = np.pad(rows, ((0, 0), (0, 0), (0, -self.units % lanes), (0, 0)))
        cut = rows.reshape(len(rows), len(self.taken), self.blocks, lanes, self.depth)
        packed = np.ascontiguousarray(cut.transpose(0, 2, 4, 1, 3))
        return pack_bits(packed).ravel() if packed.dtype == bool else packed.ravel()

    def columns(self, matrix: np.ndarray) -> np.ndarray:
        """Return which elements each block of a gate multiplies by a weight: bool, [direction][block][gate][depth]."""
        return (self._by_gate(matrix) != 0).any(-1)

    def pack_columns(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the columns that have a weight, in the order of `columns`: their weights, [column][lane]; the element
        that each multiplies; and the first of each direction, block and gate, and their number."""
        panels = self._by_gate(matrix)
        kept = (panels != 0).any(-1)
        offset = np.concatenate([[0], np.cumsum(kept.sum(-1).ravel())])
        return panels[kept].ravel(), np.nonzero(kept)[-1].astype(np.int32), offset.astype(np.int32)

    def rows(self, matrix: np.ndarray) -> np.ndarray:
        """Return the weights of each unit, by direction, block, gate and lane: (rows, depth)."""
        return self._by_gate(matrix).swapaxes(-1, -2).reshape(-1, self.depth)

    def _by_gate(self, matrix: np.ndarray) -> np.ndarray:
        """Return the panels as [direction][block][gate][depth][lane]."""
        panels = self.pack(matrix).reshape(-1, self.blocks, self.depth, len(self.taken), self.layer.lanes)
        return panels.transpose(0, 1, 3, 2, 4)

    def emit(self, b: Builder, source: ir.Value, packed: ir.Value) -> None:
        """Write the loops that pack a matrix in memory; what stands for units that there are not does not matter."""
        lanes, count = self.layer.lanes, len(self.taken)

        def one(number: ir.Value) -> None:
            direction, block, k = b.digits(number, (self.layer.sizes.directions, self.blocks, self.depth))
            first = b.mul(block, lanes)
            valid = b.minimum(b.subtract(b.index(self.units), b.index(first)), lanes)
            for place, gate in enumerate(self.taken):
                row = b.add(b.mul(b.add(b.mul(direction, self.gates), gate), self.units), first)

                def copy(lane: ir.Value, row: Index = row, place: int = place) -> None:
                    value = b.load_scalar(source, b.add(b.mul(b.add(row, lane), self.depth), k))
                    b.store(value, packed, b.add(b.mul(b.add(b.mul(number, count), place), lanes), lane), 0)

                b.each(0, valid, copy)

        b.each(0, self.layer.sizes.directions * self.blocks * self.depth, one)
