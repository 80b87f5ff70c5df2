"""Pattern-direct sparse convolution; see `passes/kernels/host/pattern_direct.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from patc.dialects.attributes import FkwAttr, Library
from patc.dialects.schedules import Schedule
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.patterns import Patterns
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import RegisterTile, TileCost, TiledConvolution, tile_limits
from patc.passes.algorithms.limits import Limit
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.formats.layer_weights import read_fkw
from patc.passes.kernels.host import pattern_direct
from patc.passes.kernels.host.accumulators import longest_part
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.pattern_direct import SparseWeights
from patc.targets import Target


class PatternDirect(HostAlgorithm):
    """Accumulators of a tile stay in registers."""

    name: ClassVar[str] = "pattern-direct"
    runs_in_bands: ClassVar[bool] = True
    skips_zeros: ClassVar[bool] = True

    def applies(self, op: Any) -> bool:
        return isinstance(op.format, FkwAttr)

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        layer, patterns = TiledConvolution.of(op, target, op.input.type.shape[1], threads), Patterns.of(op, state)
        lanes, registers = layer.model.lanes, layer.model.registers
        for tile in layer.tiles():
            # Beside the accumulators: a kernel's weights, for each vector length, and the vectors of one input row.
            spare = registers - patterns.entries * tile.widths - tile.widest - 1
            for sums in (1, 2, 4):
                smallest = tile.rows == sums == 1
                if smallest or (tile.vectors * sums <= spare and sums <= patterns.entries):
                    schedule = Schedule(self.name, tile.rows, tile.columns, lanes, sums=sums)
                    yield layer.candidate(schedule, tile, _cost(layer, patterns, tile, sums))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield from tile_limits(op, schedule, target, schedule.sums)

    def emit(self, site: HostSite) -> None:
        op, source, output = site.op, site.source, site.output
        library, fkw = Library.from_attr(op.format), read_fkw(op, site.state)
        weights = [site.constant(array, origin, "") for array, origin in zip(fkw.arrays, op.arrays, strict=True)]
        in_parts = longest_part(site.element, fkw.values.size / output.shape[1]) is not None

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, *arrays, made, epilogue = arguments
            loops = Loops(kernel, made, epilogue, given)
            pattern_direct.PatternDirect(loops, SparseWeights(library, *arrays), in_parts).emit()

        kept = (fkw.pattern_offsets[:, -1] - fkw.pattern_offsets[:, 0] + len(library.masks)).astype(float)
        site.call([source, *weights, output, site.epilogue], emit, list(kept), any_part=True)


def _cost(layer: TiledConvolution, patterns: Patterns, tile: RegisterTile, sums: int) -> TileCost:
    """Return what a tile with so many sets of accumulators costs."""
    model, geometry, taps, rows = layer.model, layer.geometry, patterns.taps, tile.rows
    cycles = kept = 0.0
    for strip in tile.strips:
        costs = [model.sparse_kernel_cost(shape, rows, strip.chunks, sums, geometry) for shape in taps]
        kernels = sum(count * cost.cycles for count, cost in zip(patterns.counts, costs, strict=True))
        loops = len(taps) * model.loop_cycles(kernels / (layer.filters * len(taps)))
        stores = rows * len(strip.chunks) * sums * model.costs.store_cycles
        distant = model.distant_cycles(patterns.places, rows, strip.chunks, geometry, prefetched=False)
        stores += layer.written_cycles(tile, strip)
        cycles += strip.count * (kernels + layer.filters * (loops + stores) + distant)
        kept += strip.count * kernels
    commonest = patterns.counts.index(max(patterns.counts))
    return TileCost(cycles, patterns.instructions, costs[commonest].bound, kept=kept)
