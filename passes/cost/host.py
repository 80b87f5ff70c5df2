"""The cost model "host": x86-64 cores, whose kernels were measured.

Its constants were fitted to measured tiles of 3x3 layers (64 channels at 56x56 to 512 at 2x2, stride 1 and 2); the
median error over those tiles is 8%. What enters the core a cycle bound none of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from patc.integers import ceil_div
from patc.passes.cost.core import CoreModel, StationaryCost
from patc.passes.cost.geometry import Geometry, Place
from patc.passes.kernels import tiling
from patc.passes.kernels.tiling import Chunk


class HostModel(CoreModel):
    """Models a core that broadcasts weights from memory, and loads and stores beside its multiply-adds."""

    @property
    def looks_ahead(self) -> bool:
        return True

    def _stationary_cost(
        self, taps: tuple[Place, ...], rows: int, chunks: tuple[Chunk, ...], sums: int, geometry: Geometry
    ) -> StationaryCost:
        """Fitted to tiles of 1x1 and 3x3 layers (64 channels at 56x56 to 2048 at 7x7); the median error is 5%."""
        costs, size = self.costs, geometry.element_bytes
        packing = tiling.packing(rows, chunks, self.lanes, self.pipe_lanes, sums)
        packs = packing.packs
        multiply = sum(len(taps) // pack.taps * self.vector_cycles(pack.lanes) for pack in packs)
        loaded = sum(self.load_cycles(pack.lanes, True, size) for pack in packs)
        loaded += (len(taps) + 1) / costs.loads_per_cycle
        needed = geometry.needed(taps, rows)
        loads, shifts = self._loads_and_shifts(needed, packing.chunks, geometry)
        vectors = rows * len(packing.chunks)
        made = [pack for pack in packs if pack.taps * len(pack.pieces) > 1]
        shared = {position for pack in made for _, position in pack.pieces}
        inputs = sum(len(taps) // pack.taps for pack in packs if pack.pieces[0][1] in shared)
        inputs += len(needed) * (len(packing.chunks) - len(shared))
        packed = costs.stationary_packs * len(taps) * (vectors - len(packs))
        registers = inputs + len(taps) * len({pack.lanes for pack in packs if pack.taps == 1})
        # Without one for an accumulator, one of the others goes and comes again.
        beside = sum(len(taps) // pack.taps for pack in packs if pack.taps > 1)
        spilled = 2 * self.load_cycles(self.lanes, True, size) if registers >= self.registers else 0.0
        return StationaryCost(
            kernel=costs.stationary_fma * multiply
            + costs.stationary_sums * loaded
            + costs.stationary_beside * beside
            + spilled,
            cell=costs.stationary_inputs * (loads + shifts) + packed,
            filter=costs.stationary_ends_cycles * vectors,
            # A kernel's weights for each vector length; accumulators come and go.
            registers=registers,
            lines=ceil_div(size * packing.lanes, costs.line_bytes),
        )

    def _issued_by_sparse(self, multiply_adds: int, needed: set[Place], chunks: Sequence[Chunk], on: Geometry) -> float:
        return 0.0

    def _issued_by_dense(self, multiply_adds: int, loads: float) -> float:
        return 0.0

    def _weight_loads(self, filters: int) -> float:
        return filters
