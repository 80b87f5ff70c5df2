"""Products of matrices: tiles of sums in registers, a panel of the right one and some rows of the left one in cache.

for each block of rows:                 # they stay in the second-level cache
  for each panel of columns:            # it stays in the first-level cache, or is a stream from the second
    for each tile of rows of the block: # its sums are in registers
      for k: sums += row element * panel vector
      store activation(sums + bias + residual)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch_mlir import ir

from patc.integers import ceil_div
from patc.passes.kernels.builder import Builder, Index, Vectors, element_type
from patc.passes.kernels.host.kernel import Epilogue
from patc.passes.kernels.host.panels import Cuts
from patc.targets import Target

_UNROLLED = 4  # products of each sum in a turn of the innermost loop
_WIDTHS = (1, 2, 3, 4)  # vectors of a tile


@dataclass(frozen=True)
class Factor:
    """A factor as tiles read it.

    Attributes:
        memory: that it is in.
        step: elements from one line (row of the left one, column of the right one) to the next.
        depth_step: elements from one product to the next.
        pitch: elements from one product to the next in panels; 0 for one that is no panels. Panels of the right one
            have as many as they have lanes.
    """

    memory: ir.Value
    step: int
    depth_step: int
    pitch: int = 0


@dataclass(frozen=True)
class Matmul:
    """The loops of out[m, n] = activation(out[m, n] or 0 + sum over k of lhs[m, k] * rhs[k, n] + bias[n]).

    Attributes:
        rows: how they are cut into tiles, in units of one.
        columns: how they are cut into panels, in units of one vector; those of the result follow each other.
        depth: products of a sum.
        lhs, rhs: the factors.
        output: memory of the result.
        output_step: elements from one row of the result to the next.
        adds: whether the products are added to what the result holds.
        epilogue: what happens to the sums; a residual lies as the result does.
    """

    b: Builder
    rows: Cuts
    columns: Cuts
    depth: int
    lhs: Factor
    rhs: Factor
    output: ir.Value
    output_step: int
    adds: bool
    epilogue: Epilogue

    def emit(self, starts: tuple[Index, Index, Index], tiles: tuple[Index, Index], panels: tuple[Index, Index]) -> None:
        """Write the loops over some tiles of rows and some panels; lhs, rhs and output begin at `starts`."""
        b = self.b
        for first, last, vectors, valid in self.columns.kinds():

            def one_panel(panel: ir.Value, vectors: int = vectors, valid: int = valid) -> None:
                column = b.mul(self.columns.units_before(b, panel, vectors), self.columns.unit)
                strip = _Strip(column, vectors, valid)
                for low, high, height, _ in self.rows.kinds():

                    def one_tile(tile: ir.Value, height: int = height) -> None:
                        self._tile(starts, tile, height, strip)

                    b.each(b.maximum_index(tiles[0], low), b.minimum(tiles[1], high), one_tile)

            b.each(b.maximum_index(panels[0], first), b.minimum(panels[1], last), one_panel)

    def _tile(self, starts: tuple[Index, Index, Index], tile: ir.Value, height: int, strip: _Strip) -> None:
        b, lanes = self.b, self.columns.unit
        row = self.rows.units_before(b, tile, height)
        lhs = b.add(starts[0], b.mul(b.mul(tile, self.depth), self.lhs.pitch) if self.lhs.pitch else 0)
        if not self.lhs.pitch:
            lhs = b.add(lhs, b.mul(row, self.lhs.step))
        rhs = b.add(starts[1], b.mul(strip.column, self.depth if self.rhs.pitch else 1))
        out = b.add(b.add(starts[2], b.mul(row, self.output_step)), strip.column)
        for line in range(height):
            for vector in range(strip.vectors):  # what the sums will be stored to may be behind the caches
                b.prefetch(self.output, out, line * self.output_step + vector * lanes, write=True)
        sums = self._products(height, strip, lhs, rhs, self._first(height, strip, out))
        for number, value in enumerate(sums):
            line, vector = divmod(number, strip.vectors)
            first, valid = vector * lanes, strip.lanes_of(vector, lanes)
            if self.epilogue.scales is not None:
                value = b.times(value, b.load_bounded(self.epilogue.scales, strip.column, first, lanes, valid))
            if self.epilogue.bias is not None:
                value = b.plus(value, b.load_bounded(self.epilogue.bias, strip.column, first, lanes, valid))
            arrays = [
                b.load_bounded(self.epilogue.table, strip.column, first + place * self.columns.size, lanes, valid)
                for place in range(len(self.epilogue.activation.arrays))
            ]
            place, residual = line * self.output_step + first, self.epilogue.residual
            joined = None if residual is None else b.load_bounded(residual.memory, out, place, lanes, valid)
            b.store_masked(self.epilogue.finish(b, value, joined, arrays), self.output, out, place, valid)

    def _first(self, height: int, strip: _Strip, out: Index) -> Vectors:
        b, lanes = self.b, self.columns.unit
        if not self.adds:
            return [b.splat(0.0, lanes, element_type(self.output))] * (height * strip.vectors)
        places = [(line, vector) for line in range(height) for vector in range(strip.vectors)]
        return [
            b.load_bounded(self.output, out, line * self.output_step + v * lanes, lanes, strip.lanes_of(v, lanes))
            for line, v in places
        ]

    def _products(self, height: int, strip: _Strip, lhs: Index, rhs: Index, sums: Vectors) -> Vectors:
        """Return the sums of a tile whose factors begin at two addresses."""
        b = self.b
        step = self._step(height, strip)

        def some(turn: Index, carried: Vectors) -> Vectors:
            k = b.mul(turn, _UNROLLED)
            bases = self._at(lhs, self._lhs_step, k), self._at(rhs, self._rhs_step(strip), k)
            for offset in range(_UNROLLED):
                carried = step(bases, offset, carried)
            return carried

        turns, rest = divmod(self.depth, _UNROLLED)
        if turns:
            sums = b.loop(0, turns, sums, some)
        bases = (
            self._at(lhs, self._lhs_step, turns * _UNROLLED),
            self._at(rhs, self._rhs_step(strip), turns * _UNROLLED),
        )
        for offset in range(rest):
            sums = step(bases, offset, sums)
        return sums

    def _at(self, base: Index, step: int, k: Index) -> Index:
        return self.b.add(base, self.b.mul(k, step))

    @property
    def _lhs_step(self) -> int:
        return self.lhs.pitch or self.lhs.depth_step

    def _rhs_step(self, strip: _Strip) -> int:
        return strip.vectors * self.columns.unit if self.rhs.pitch else self.rhs.depth_step

    def _step(self, height: int, strip: _Strip) -> Callable[[tuple[Index, Index], int, Vectors], Vectors]:
        """Return what adds one product to each sum of a tile."""
        b, lanes = self.b, self.columns.unit

        def step(bases: tuple[Index, Index], k: int, sums: Vectors) -> Vectors:
            sums, at = list(sums), k * self._rhs_step(strip)
            vectors = [self._panel_vector(bases[1], at, strip, number) for number in range(strip.vectors)]
            for line in range(height):
                place = k * self._lhs_step + line * (1 if self.lhs.pitch else self.lhs.step)
                factor = b.broadcast(b.load_scalar(self.lhs.memory, b.add(bases[0], place)), lanes)
                for number, vector in enumerate(vectors, line * strip.vectors):
                    sums[number] = b.fma(factor, vector, sums[number])
            return sums

        return step

    def _panel_vector(self, base: Index, at: int, strip: _Strip, number: int) -> ir.Value:
        lanes, offset = self.columns.unit, at + number * self.columns.unit
        if self.rhs.pitch:  # constants may be integers
            return self.b.convert(self.b.load(self.rhs.memory, base, offset, lanes), element_type(self.output))
        return self.b.load_bounded(self.rhs.memory, base, offset, lanes, strip.lanes_of(number, lanes))


@dataclass(frozen=True)
class _Strip:
    """The columns of a panel: the first, how many vectors they are, and how many columns."""

    column: Index
    vectors: int
    valid: int

    def lanes_of(self, vector: int, lanes: int) -> int:
        """Return how many lanes of a vector are columns."""
        return min(lanes, self.valid - vector * lanes)


def tile_shape(rows: int, columns: int, target: Target) -> tuple[int, int]:
    """Return height and vectors of the register tile that computes a product in the fewest instructions."""
    tiles = [((target.registers - 1) // vectors - 1, vectors) for vectors in _WIDTHS]
    shapes = [(min(height, 14), vectors) for height, vectors in tiles if height > 0]
    return min(shapes, key=lambda tile: _instructions(rows, columns, target, tile))


def tile_width(rows: int, columns: int, target: Target, height: int) -> int:
    """Return the vectors of the register tile of a given height that computes a product in the fewest instructions."""
    widths = [vectors for vectors in _WIDTHS if (height + 1) * vectors < target.registers]
    return min(widths, key=lambda vectors: _instructions(rows, columns, target, (height, vectors)), default=1)


def _instructions(rows: int, columns: int, target: Target, tile: tuple[int, int]) -> float:
    (height, vectors), lanes = tile, target.lanes
    down, across = Cuts.evenly(rows, 1, height), Cuts.evenly(columns, lanes, vectors)
    height, vectors = down.longest, across.longest
    # Multiply-adds, loads of either factor (two start in a cycle, like multiply-adds), and the latency of few sums.
    sums = rows * ceil_div(columns, lanes)
    loads = down.count * ceil_div(columns, lanes) + across.count * rows
    busy = min(1.0, height * vectors / target.core_costs().sums_in_flight)
    return (max(sums, loads) + 0.25 * min(sums, loads)) / busy
