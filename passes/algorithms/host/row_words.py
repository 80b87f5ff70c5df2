"""Depthwise convolutions of quantised planes, by words of neighbours of a row; see
`passes/kernels/host/row_words.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.host.dots import DotConvolution, dot_lanes, layer_of
from patc.passes.algorithms.host.tiles import RegisterTile, TileCost, TiledConvolution, tile_limits
from patc.passes.algorithms.limits import Limit, one_of
from patc.passes.algorithms.quantised import is_depthwise
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.ir.elements import WORD
from patc.passes.ir.windows import Window
from patc.passes.kernels.dots import dots_of
from patc.passes.kernels.host import row_words
from patc.passes.kernels.host.dense_direct import DenseWeights
from patc.passes.kernels.host.dot_direct import Extras
from patc.passes.kernels.host.quantised import QuantisedLoops
from patc.passes.kernels.tiling import Chunk
from patc.targets import Target

_BESIDE = 8  # registers: columns of a row, and words that become of them
_MOST_TAPS = 25  # of a window: each has code of its own, for each row of a tile
_INTERLEAVES = 8  # of vectors, which make words of four filters


class RowWords(DotConvolution):
    """Four filters x outputs of a tile in registers, places in the lanes."""

    name: ClassVar[str] = "row-words"
    filters_are_lanes: ClassVar[bool] = False
    role: ClassVar[str] = "rows"

    def applies(self, op: Any) -> bool:
        height, width = op.kernel_size
        return is_depthwise(op) and width > 1 and height * width <= _MOST_TAPS

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        dots = dots_of(target)
        if dots.of_small_weights is not None:  # their products of neighbours saturate
            return
        layer, costs = layer_of(op, target, threads, dots), _Costs(target, Window.of(op))
        for tile in layer.tiles():
            if WORD * tile.vectors + _BESIDE <= layer.model.registers:
                schedule = Schedule(self.name, tile.rows, tile.columns, layer.model.lanes, WORD)
                yield layer.candidate(schedule, tile, costs.of(layer, tile))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield one_of("filters", schedule.filters, [WORD])
        yield dot_lanes(schedule, target)
        yield from tile_limits(op, schedule, target, WORD)

    def words(self, op: Any, weight: np.ndarray) -> np.ndarray:
        return row_words.pack(weight)

    def write(self, loops: QuantisedLoops, weights: DenseWeights, extras: Extras | None) -> None:
        row_words.RowWords(loops, weights).emit()


class _Costs:
    """What tiles of a layer cost."""

    def __init__(self, target: Target, window: Window) -> None:
        self._target, self._window = target, window
        # Without an instruction that interleaves every other element, a shift goes before.
        self._interleaves = _INTERLEAVES * (2.0 if target.architecture == "x86_64" else 1.0)

    def of(self, layer: TiledConvolution, tile: RegisterTile) -> TileCost:
        """Return the cost of a row of tiles of four filters."""
        cycles = sum(strip.count * self._strip(layer, tile, strip.chunks) for strip in tile.strips)
        cycles += WORD * sum(strip.count * layer.written_cycles(tile, strip) for strip in tile.strips)
        height, width = self._window.kernel
        return TileCost(cycles, WORD * height * len(row_words.runs(width)), "multiply-adds", layer.filters // WORD)

    def _strip(self, layer: TiledConvolution, tile: RegisterTile, chunks: tuple[Chunk, ...]) -> float:
        model, runs = layer.model, row_words.runs(self._window.kernel[1])
        meets = row_words.rows_read(self._window, tile.rows)
        products = WORD * len(runs) * sum(map(len, meets.values())) * model.vector_cycles(model.lanes)
        made = self._interleaves * sum(len(run) > 1 for run in runs) * len(meets) / self._target.pipes
        copies = layer.geometry.strides[1] if layer.geometry.gathered else 1
        loads = copies * self._window.kernel[1] * len(meets) * model.load_cycles(model.lanes, False)
        stores = WORD * tile.rows * model.costs.store_cycles
        return len(chunks) * (model.beside(products + made, loads) + stores) + model.costs.loop_entry_cycles
