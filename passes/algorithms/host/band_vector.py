"""Linear layers of bands; see `passes/kernels/host/band_vector.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from patc.dialects.attributes import BandsAttr
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.images import Reach
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import core_model, memory_bound, register_limit
from patc.passes.algorithms.limits import Limit, divisor_of, one_of
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.core import CoreModel
from patc.passes.formats.layer_weights import read_arrays
from patc.passes.ir.elements import element_bytes
from patc.passes.kernels.host.band_vector import BandVector as Kernels
from patc.passes.kernels.host.columns import Columns
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops
from patc.targets import Target


class BandVector(HostAlgorithm):
    """Columns of neighbouring filters times elements of the input: zeros are neither stored nor computed."""

    name: ClassVar[str] = "band-vector"
    reaches: ClassVar[Reach] = Reach.ROUNDED
    skips_zeros: ClassVar[bool] = True

    def applies(self, op: Any) -> bool:
        return "format" in op.attributes and isinstance(op.format, BandsAttr)

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model, (rows, features), filters = core_model(op, target), op.input.type.shape, op.result.type.shape[1]
        columns, band = op.array("values").type.shape
        lanes, size = min(model.lanes, band), element_bytes(op.input.type)
        vectors = band // lanes
        streamed = float(size * band * columns)
        # Beside the sums of a tile: the weights of columns, and elements of the input that wait for them.
        most = max(1, min(_MOST_ROWS, model.registers * 5 // 8 // vectors))
        for tile in sorted({min(rows, most), min(rows, most, 4), 1}, reverse=True):
            schedule = Schedule(self.name, tile, 1, lanes, band)
            turns = ceil_div(rows, tile)
            multiplied = columns * band / filters * _column_cycles(model, tile, vectors, lanes)
            if tile * features * size > model.costs.first_level_bytes:
                # Each band goes through the rows once more, in order: what comes from the second level hides behind
                # multiply-adds, or these behind it.
                lines = tile * min(features * size / model.costs.line_bytes, columns * band / filters)
                multiplied = max(multiplied, lines * model.costs.line_cycles * model.costs.streamed_lines)
            stored = band / lanes * tile * model.costs.store_cycles
            computed = turns * filters / band * (multiplied + stored + _ENTRY)
            found = Candidate(schedule, computed, computed, "arithmetic", computed)
            yield max(memory_bound(model, schedule, streamed), found, key=lambda each: each.cycles)

    def filter_blocks(self, op: Any, schedule: Schedule) -> int:
        return int(op.result.type.shape[1]) // schedule.filters

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        band = op.array("values").type.shape[1]
        yield one_of("filters", schedule.filters, [band])
        yield divisor_of("lanes", schedule.lanes, band)
        rows = min(schedule.rows, op.input.type.shape[0])
        yield register_limit(rows * band // schedule.lanes, schedule, target)

    def emit(self, site: HostSite) -> None:
        op, schedule = site.op, site.schedule
        *arrays, reorder = read_arrays(op, site.state)
        assert (reorder == np.arange(len(reorder))).all(), "the outputs of linear layers keep their places"
        names = op.format.array_names()
        given = [site.constant(*each) for each in zip(arrays, op.arrays, names, strict=False)]
        sums = min(schedule.rows, op.input.type.shape[0]) * schedule.filters // schedule.lanes
        chains = max(1, min(8, ceil_div(site.costs.sums_in_flight, sums)))

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            source, values, index, offset, made, epilogue = arguments
            columns = Columns(kernel.b, schedule.lanes, values, index, offset, schedule.filters // schedule.lanes)
            Kernels(Loops(kernel, made, epilogue, source), columns, chains).emit()

        site.call_in_groups([site.source, *given, site.output, site.epilogue], emit, list(np.diff(arrays[2]) + 1.0))


_ENTRY = 20.0  # cycles to begin and end a band
_MOST_ROWS = 10


def _column_cycles(model: CoreModel, rows: int, vectors: int, lanes: int) -> float:
    """Return the cycles of one column: multiply-adds, or loads of its weights, its place and the rows' elements."""
    multiplied = rows * vectors * model.vector_cycles(lanes)
    return max(multiplied, (rows + vectors + 1) / model.costs.loads_per_cycle)
