"""The cost model "neon": AArch64 cores, on which nothing was measured.

Instructions that enter the core and pipes that they occupy are counted, as `patc bench --model-cycles` does for the
code that comes out.
"""

from __future__ import annotations

from collections.abc import Sequence

from patc.integers import ceil_div
from patc.passes.cost.core import CoreModel, StationaryCost
from patc.passes.cost.geometry import Geometry, Place
from patc.passes.kernels.tiling import Chunk


class NeonModel(CoreModel):
    """Models a core that multiplies by an element of a vector of weights, and has store pipes that multiply."""

    def _stationary_cost(
        self, taps: tuple[Place, ...], rows: int, chunks: tuple[Chunk, ...], sums: int, geometry: Geometry
    ) -> StationaryCost:
        loads, _ = self._loads_and_shifts(geometry.needed(taps, rows), chunks, geometry)
        vectors = rows * len(chunks)
        # Sums are loaded and stored in pairs, and a store occupies a pipe that multiplies.
        multiply = vectors * (len(taps) + 1)
        return StationaryCost(
            kernel=max(multiply * self.vector_cycles(self.lanes), self._issued(multiply)) + self.costs.kernel_cycles,
            cell=loads,
            filter=self.costs.stationary_ends_cycles * vectors,
            # One for the weights, and four for accumulators on their way.
            registers=len(taps) * vectors + 5,
            lines=vectors,
        )

    def _issued_by_sparse(self, multiply_adds: int, needed: set[Place], chunks: Sequence[Chunk], on: Geometry) -> float:
        rows = on.offsets_by_row(needed)
        bases = len({offset for offsets in rows.values() for offset in offsets})
        # Two vectors are loaded to pick one from; else one instruction loads two neighbouring vectors.
        vectors = 2 * on.strides[1] * len(chunks) if on.gathered else ceil_div(len(chunks), 2)
        return self._issued(multiply_adds + bases + vectors * sum(map(len, rows.values())))

    def _issued_by_dense(self, multiply_adds: int, loads: float) -> float:
        return self._issued(multiply_adds + loads)

    def _weight_loads(self, filters: int) -> float:
        return filters / self.lanes

    def _issued(self, instructions: float) -> float:
        """Return the cycles in which one turn of a loop enters the core."""
        return (instructions + self.costs.loop_instructions) / self.target.decoded
