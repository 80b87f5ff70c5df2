"""The register tiles that are worth a thought, and what tiles of convolutions cost whatever their loops are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from patc.dialects.attributes import Layout
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.limits import Limit, at_most
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.core import CoreModel
from patc.passes.cost.geometry import Geometry
from patc.passes.cost.models import cost_model
from patc.passes.ir.elements import compute_type, element_bytes, memory_shape
from patc.passes.ir.planes import as_planes, is_flat, kernel_plane
from patc.passes.ir.stored import tensor_bytes
from patc.passes.kernels import tiling
from patc.passes.kernels.tiling import Strip
from patc.targets import Target

TALLEST = 16  # rows of a tile
MOST_REGISTERS = 128  # of a tile's sums, which have code of their own: four times what any CPU has
WIDEST = 14  # halves of a vector that the columns of a tile fill


@dataclass(frozen=True)
class RegisterTile:
    """`rows` x `columns` outputs of a plane; `strips` are the tiles of a row."""

    rows: int
    columns: int
    strips: list[Strip]

    @property
    def widest(self) -> int:
        """Vectors of a row."""
        return max(len(strip.chunks) for strip in self.strips)

    @property
    def widths(self) -> int:
        """The largest number of different vector lengths in a strip."""
        return max(len({chunk.lanes for chunk in strip.chunks}) for strip in self.strips)

    @property
    def vectors(self) -> int:
        return self.rows * self.widest


def register_tiles(height: int, width: int, lanes: int) -> Iterator[RegisterTile]:
    """Yield the tiles of a plane, narrow ones first, and of equally wide ones low ones first."""
    # Of heights that make equally many tiles, the least will do.
    heights = sorted({ceil_div(height, tiles) for tiles in range(ceil_div(height, TALLEST), height + 1)})
    for columns, strips in column_choices(width, lanes):
        for rows in heights:
            yield RegisterTile(rows, columns, strips)


def column_choices(width: int, lanes: int) -> Iterator[tuple[int, list[Strip]]]:
    """Yield the tile widths that cut a row into vectors without gaps between the strips, and those strips."""
    half = max(lanes // 2, 4)
    for columns in sorted({min(width, step * half) for step in range(1, WIDEST + 1)}):
        if tiling.cuts_no_vector(columns, width, lanes):
            yield columns, tiling.strips(width, columns, lanes)


def register_limit(vectors: int, schedule: Schedule, target: Target) -> Limit:
    """Return the limit of so many vectors of sums, which have code of their own."""
    return at_most("registers of a tile", vectors * max(1, schedule.lanes // target.lanes), MOST_REGISTERS)


def tile_limits(
    op: Any, schedule: Schedule, target: Target, sums: int = 1, plane: tuple[int, int] | None = None
) -> Iterator[Limit]:
    """Yield the limits of tiles of `schedule.rows` x `schedule.columns` outputs, which have code of their own.

    Args:
        sums: vectors of sums for each vector of outputs.
        plane: height and width of what is tiled; those of the result if None.
    """
    if plane is None:
        is_planar = len(op.results[0].type.shape) == 4
        plane = kernel_plane(op, schedule.row_parts) if is_planar else as_planes(op.results[0].type.shape)[2:]
    (height, width), lanes = plane, schedule.lanes
    is_whole = tiling.cuts_no_vector(schedule.columns, width, lanes)
    yield Limit("columns", schedule.columns, f"whole vectors of {lanes} or fewer, or {width} or more", is_whole)
    vectors = min(schedule.rows, height) * tiling.vectors(min(schedule.columns, width), lanes) * sums
    yield register_limit(vectors, schedule, target)


def core_model(op: Any, target: Target) -> CoreModel:
    """Return the cost model of a target for what a layer's result is computed in."""
    model: CoreModel = cost_model(target, element_bytes(compute_type(op.result.type)))
    return model


@dataclass(frozen=True)
class TiledConvolution:
    """A convolution, as its register tiles are costed.

    Attributes:
        model: of the machine.
        batch, filters, height, width: of the result as the kernel sees it.
        geometry: how the window meets the input.
        distant: tensors, of the result and a residual, that are behind the caches of a core.
        phases: of the result's layout.
        given: bytes of the input, of all groups.
    """

    model: CoreModel
    batch: int
    filters: int
    height: int
    width: int
    geometry: Geometry
    distant: int
    phases: int
    given: float

    @staticmethod
    def of(op: Any, target: Target, channels: int, threads: int) -> TiledConvolution:
        """Return a layer whose filters read so many channels each, and whose rows so many threads divide."""
        model, layout, size = core_model(op, target), Layout.of(op.result.type), element_bytes(op.result.type)
        batch, filters = op.result.type.shape[:2]
        is_distant = size * batch * memory_shape(op.result.type)[1] * layout.plane > model.costs.second_level_bytes
        distant = (1 if op.residual is None else 2) * is_distant
        plane, geometry = kernel_plane(op, threads), _geometry(op, channels)
        given = float(batch * memory_shape(op.input.type)[1] * geometry.plane_bytes)
        return TiledConvolution(model, batch, filters, *plane, geometry, distant, layout.phases, given)

    def tiles(self) -> Iterator[RegisterTile]:
        """Yield the tiles that are worth a thought."""
        yield from register_tiles(self.height, self.width, self.model.lanes)

    def written_cycles(self, tile: RegisterTile, strip: Strip) -> float:
        """Return the cycles in which one filter of a tile waits for the lines that it writes, and adds up there."""
        written = self.model.written_cycles(tile.rows, strip.chunks, self.phases, self.geometry.element_bytes)
        return self.distant * written

    @property
    def inputs(self) -> float:
        """Bytes of all inputs of a group."""
        return float(self.batch * self.geometry.channels * self.geometry.plane_bytes)

    def read_ahead(self, tile: RegisterTile) -> float:
        """Return the cycles in which the input comes from behind the second-level cache, asked for in time. From memory
        it comes the faster the more of a plane a tile reads in one place."""
        costs = self.model.costs
        if not self.is_far(self.given):
            return 0.0
        cycles = self.given / costs.line_bytes * costs.prefetched_line_cycles
        if self.given <= costs.memory_bytes:
            return cycles
        places = 1 if tile.columns >= self.width else tile.rows * sum(strip.count for strip in tile.strips)
        planes = self.given / self.geometry.plane_bytes
        return cycles + planes * ceil_div(self.height, tile.rows) * places * costs.place_cycles

    def is_far(self, size: float) -> bool:
        """Whether so many bytes may not stay in the second-level cache; see `Kernel.may_be_distant`."""
        return size > self.model.costs.second_level_bytes // 2

    def streamed(self, tile: RegisterTile, weights: float, blocks: int, filters_first: bool, cycles: float) -> float:
        """Return the cycles in which multiply-adds wait for what does not stay near: inputs once, or again for each
        block of filters, or weights again for each tile.

        Args:
            weights: bytes of all weights; `filters_first` ones are read once.
            cycles: of a row of tiles of one block of filters.
        """
        costs = self.model.costs
        rows = self.batch * ceil_div(self.height, tile.rows)
        first = rows * cycles * self.given / self.inputs  # each group's first block, while inputs come
        once = math.hypot(first, self.read_ahead(tile)) - first
        if not self.is_far(weights):
            return once
        if filters_first:
            are_near = self.inputs + weights / blocks <= costs.second_level_bytes
            again = 0.0 if are_near else blocks * self.inputs / costs.planes_bytes_per_cycle
            return again + weights / costs.stream_bytes_per_cycle
        tiles = rows * sum(strip.count for strip in tile.strips)
        return once + tiles * weights / costs.planes_bytes_per_cycle

    def candidate(self, schedule: Schedule, tile: RegisterTile, cost: TileCost) -> Candidate:
        """Return a candidate; tiles of nearly equal speed are ranked by their code: caches and compile time count
        too."""
        cycles = cost.cycles * (self.batch * ceil_div(self.height, tile.rows) * cost.repeats) + cost.streamed
        vectors = sum(len(strip.chunks) for strip in tile.strips)
        code = 1.0 + self.model.costs.code_cost * (cost.instructions * tile.rows) * vectors
        kept = None if cost.kept is None else cost.kept * cycles / cost.cycles
        return Candidate(schedule, cycles, cycles * code, cost.bound, kept)


@dataclass(frozen=True)
class TileCost:
    """What a tile costs.

    Attributes:
        cycles: of all strips of a row of tiles.
        instructions: multiply-adds of the kernel for one vector.
        bound: what most cycles are spent on.
        repeats: how often the row of tiles is computed, for blocks of filters.
        kept: of the cycles, those of kept kernels; None for dense weights.
        streamed: cycles in which weights and inputs of all tiles come from behind the second-level cache.
    """

    cycles: float
    instructions: int
    bound: str
    repeats: int = 1
    kept: float | None = None
    streamed: float = 0.0


def _geometry(op: Any, channels: int) -> Geometry:
    layout = Layout.of(op.input.type)
    size = element_bytes(op.input.type)
    pitch = kernel_plane(op)[1] if is_flat(op) else layout.pitch
    window = tuple(op.strides), tuple(op.dilations)
    return Geometry(*window, layout.phases, pitch, channels, size * layout.plane, size)


def memory_bound(model: CoreModel, schedule: Schedule, moved_bytes: float) -> Candidate:
    """Return a candidate that does little beside loads and stores."""
    cycles = moved_bytes / model.costs.memory_bytes_per_cycle
    return Candidate(schedule, cycles, cycles, "memory")


def moved_bytes(op: Any) -> float:
    """Return the bytes of all tensors of a layer."""
    return float(sum(tensor_bytes(op, value) for value in (*op.operands, op.result)))


def plane_schedule(op: Any, algorithm: str, lanes: int, vectors: int) -> Schedule:
    """Return how planes are gone through with up to `vectors` vectors in flight, four of them of one row."""
    *_, height, width = as_planes(op.result.type.shape)
    tiles = [RegisterTile(1, columns, strips) for columns, strips in column_choices(width, lanes)]
    columns = max(tile.columns for tile in tiles if tile.widest <= 4)
    rows = max(1, min(height, vectors // tiling.vectors(columns, lanes)))
    return Schedule(algorithm, rows, columns, lanes)
