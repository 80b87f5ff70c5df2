"""Planes resampled; see `passes/kernels/host/resampling.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import column_choices, core_model, memory_bound, moved_bytes, tile_limits
from patc.passes.algorithms.limits import Limit
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.formats.layer_weights import require_array
from patc.passes.ir.elements import numpy_type
from patc.passes.ir.resampling import Axis, is_copy
from patc.passes.kernels.host import resampling
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops
from patc.targets import Target

TALLEST = 32  # rows of a tile: each begins with rows of the input that the tile before has had, too


class Resample(HostAlgorithm):
    """Columns of each row of the input first, which the rows of the result then add up."""

    name: ClassVar[str] = "resample"

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model = core_model(op, target)
        height, width = op.result.type.shape[2:]
        columns = max(columns for columns, strips in column_choices(width, model.lanes) if len(strips[0].chunks) <= 4)
        yield memory_bound(model, Schedule(self.name, min(height, TALLEST), columns, model.lanes), moved_bytes(op))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield from tile_limits(op, replace(schedule, rows=1), target)

    def emit(self, site: HostSite) -> None:
        op, output = site.op, site.output
        rows, columns = _axis(site, "rows", "row_weights"), _axis(site, "columns", "column_weights")
        lanes, type_ = site.schedule.lanes, op.result.type
        tables = [site.constant(resampling.row_table(rows), op.rows, "table")]
        if rows.weights is not None:
            tables.append(site.constant(rows.weights.astype(numpy_type(type_)), op.row_weights, "table"))
        if columns.weights is not None:
            covered = ceil_div(columns.size, lanes) * lanes
            padded = np.pad(columns.weights, [(0, 0), (0, covered - columns.size)]).astype(numpy_type(type_))
            tables.append(site.constant(padded, op.column_weights, "table"))

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, epilogue, made, table, *weights = arguments
            numbers = iter(weights)
            row_weights, column_weights = (None if axis.weights is None else next(numbers) for axis in (rows, columns))
            loops = Loops(kernel, made, epilogue, given)
            resampling.Resampling(loops, rows, columns, table, row_weights, column_weights).emit()

        site.call([site.source, site.epilogue, output, *tables], emit, [1.0] * output.shape[1])


class ResampleWords(Resample):
    """The same of words, which are copied: there is one tap without a weight along either axis."""

    def applies(self, op: Any) -> bool:
        return is_copy(op)


def _axis(site: HostSite, name: str, weights: str) -> Axis:
    """Return one axis of the layer.

    Raises:
        PatcError: its numbers are not constant.
    """
    op, given = site.op, getattr(site.op, weights)
    places = require_array(op, getattr(op, name), name, site.state)
    return Axis(places, None if given is None else require_array(op, given, weights, site.state))
