"""Linear layers of packs; see `passes/kernels/host/pack_permute.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from patc.dialects.attributes import PacksAttr
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.buffers import Buffer
from patc.passes.algorithms.host.images import Reach
from patc.passes.algorithms.host.site import NO_EPILOGUE, HostSite
from patc.passes.algorithms.host.tiles import core_model, memory_bound, register_limit
from patc.passes.algorithms.limits import Limit, multiple_of, one_of
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.formats.layer_weights import read_arrays
from patc.passes.formats.packs import TILE, first_packs
from patc.passes.ir.elements import element_bytes
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.pack_permute import PackPermute as Kernels
from patc.passes.kernels.host.pack_permute import put_in_place
from patc.passes.kernels.host.packs import Packs
from patc.passes.kernels.lookups import lookup_of
from patc.targets import Target


class PackPermute(HostAlgorithm):
    """Weights of several filters, one in each lane, times inputs that permutes pick out of registers."""

    name: ClassVar[str] = "pack-permute"
    reaches: ClassVar[Reach] = Reach.ROUNDED
    skips_zeros: ClassVar[bool] = True

    def applies(self, op: Any) -> bool:
        return "format" in op.attributes and isinstance(op.format, PacksAttr)

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        lookup, tile = lookup_of(target), op.format.columns
        (packs, slots), (bundles, tiles) = op.array("values").type.shape, op.array("counts").type.shape
        if lookup is None or tile != TILE or slots % lookup.lanes or op.result.type.shape[1] < lookup.lanes:
            return  # files may have packs of any sizes
        model, (rows, inputs) = core_model(op, target), op.input.type.shape
        size, lanes = element_bytes(op.input.type), lookup.lanes
        vectors, table = slots // lanes, tile // lanes
        picked = vectors * max(lookup.cycles, model.vector_cycles(lanes))
        for most in sorted({min(rows, _MOST_ROWS), min(rows, 2), 1}, reverse=True):
            fitting = (model.registers - _OTHERS - table * most) // (vectors * most)
            group = min(_MOST_BUNDLES, bundles, 1 << max(0, fitting).bit_length() - 1) if fitting > 0 else 1
            schedule = Schedule(self.name, most, 1, lanes, group * slots)
            groups, turns = ceil_div(bundles, group), ceil_div(rows, most)
            loaded = groups * tiles * most * table / model.costs.loads_per_cycle
            computed = packs * most * picked + bundles * tiles * _ENTRY + loaded
            if most * inputs * size > model.costs.first_level_bytes:
                # Each group goes through the rows once more; what comes from the second level hides behind products.
                lines = groups * most * inputs * size / model.costs.line_bytes
                computed = max(computed, lines * model.costs.line_cycles * model.costs.streamed_lines)
            stored = bundles * vectors * most * model.costs.store_cycles
            cycles = turns * (computed + stored)
            found = Candidate(schedule, cycles, cycles, "arithmetic", cycles)
            streamed = memory_bound(model, schedule, float((size + 1) * packs * slots))
            yield max(streamed, found, key=lambda each: each.cycles)

    def filter_blocks(self, op: Any, schedule: Schedule) -> int:
        (_, slots), (bundles, _) = op.array("values").type.shape, op.array("counts").type.shape
        return ceil_div(bundles, schedule.filters // slots)

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        lookup, (bundles, _), slots = lookup_of(target), op.array("counts").type.shape, op.array("values").type.shape[1]
        yield one_of("lanes", schedule.lanes, [] if lookup is None else [lookup.lanes])
        yield multiple_of("filters", schedule.filters, slots, bundles * slots)
        rows = min(schedule.rows, op.input.type.shape[0])
        yield register_limit(rows * schedule.filters // schedule.lanes, schedule, target)

    def emit(self, site: HostSite) -> None:
        op, schedule = site.op, site.schedule
        lookup = lookup_of(site.target)
        assert lookup is not None, "there are no candidates else"
        values, index, counts, reorder = read_arrays(op, site.state)
        (bundles, tiles), slots = counts.shape, values.shape[1]
        offset = first_packs(counts)
        given = [
            site.constant(array, op.array(name), role)
            for array, name, role in (
                (values, "values", "values"), (index, "index", "index"), (offset, "counts", "offset"),
            )
        ]  # fmt: skip
        group, rows = schedule.filters // slots, op.input.type.shape[0]
        by_bundle = counts.sum(1, dtype=np.float64) + tiles
        costs = [float(by_bundle[first : first + group].sum()) for first in range(0, bundles, group)]
        in_place = len(reorder) == bundles * slots and bool((reorder == np.arange(len(reorder))).all())
        sums = site.output
        if not in_place:
            sums = Buffer(site.memory.allocate(rows * bundles * slots, site.element), (rows, bundles * slots), None)

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            source, values, index, offset, made, epilogue = arguments
            packs = Packs(kernel.b, lookup, values, index, offset, slots, op.format.columns, source.width)
            Kernels(Loops(kernel, made, epilogue, source), packs, bundles).emit()

        epilogue = site.epilogue if in_place else NO_EPILOGUE
        site.call_in_groups([site.source, *given, sums, epilogue], emit, costs)
        if not in_place:
            self._put_in_place(site, sums, reorder)

    def _put_in_place(self, site: HostSite, sums: Buffer, reorder: np.ndarray) -> None:
        places = np.argsort(reorder, kind="stable").astype(np.int32)
        given = site.constant(places, site.op.array("reorder"), "places")

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            source, places, made, epilogue = arguments
            put_in_place(Loops(kernel, made, epilogue, source), places)

        single = site.scheduled(replace(site.schedule, rows=1))
        costs = [1.0] * ceil_div(len(reorder), site.schedule.lanes)
        single.call_in_groups([sums, given, site.output, site.epilogue], emit, costs)


_ENTRY = 3.0  # cycles to begin and end the packs of a bundle in a tile
_MOST_ROWS = 4
_MOST_BUNDLES = 4
_OTHERS = 4  # registers of values, places and what is picked
