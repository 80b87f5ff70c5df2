"""Recurrent layers: for each step, the products of the state before it, and the gates while they are in registers.

for each step:
  for each block of units, as many as a vector has lanes:
    for some sequences:
      for k: sums of each gate += weight vector * element k of the state
      gates, new cell and hidden state

Where weights are blocks, each gate goes through the k of its own in which its block has a weight; where they are single
ones, through packs of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.dialects.attributes import Activation
from patc.integers import ceil_div
from patc.passes.formats.packs import TILE
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.columns import Columns
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.packs import Packs
from patc.passes.kernels.host.panels import Cuts
from patc.passes.kernels.host.recurrent_weights import Layer
from patc.passes.kernels.host.weight_vectors import WeightVectors
from patc.passes.kernels.lookups import Lookup
from patc.passes.kernels.values import apply_activation

_UNROLLED = 4  # elements of the state in a turn of the innermost loop, at least


@dataclass(frozen=True)
class _Step:
    """One step in one direction: its number in time, and where the state before and behind it is.

    Attributes:
        old, new: the first of N x P elements.
    """

    direction: Index
    time: Index
    old: Index
    new: Index


@dataclass(frozen=True)
class _Tile:
    """A block of units of one sequence.

    Attributes:
        first: the first of its units.
        valid: units of the block.
        row: the sequence.
    """

    step: _Step
    first: Index
    valid: int
    row: Index


@dataclass(frozen=True)
class Recurrence:
    """The loops of a layer.

    Attributes:
        memory: operands and results by their names; beside them "state", twice D x N x P elements of which the first
            half is the state before the first step; "candidate", "gated" and "update", D x N x H elements of stages,
            where the layer has them. Weights whose name has an "index" and an "offset" beside it are columns of blocks,
            see `Panels.pack_columns`; those with "places" and "packs" are packs, a bundle for each gate of a block.
        lookup: how elements of packs are picked, where there are some.
    """

    kernel: Kernel
    layer: Layer
    memory: Mapping[str, ir.Value]
    lookup: Lookup | None = None

    @property
    def _b(self) -> Builder:
        return self.kernel.b

    def emit_directions(self) -> None:
        """Write all steps of the directions that are the kernel's filters."""
        b, work = self._b, self.kernel.work

        def one(direction: Index) -> None:
            b.each(0, self.layer.sizes.steps, lambda number: self._stages(self._step(number, direction)))

        if self.layer.sizes.directions == 1:
            one(0)
        else:
            b.each(work.first_filter, work.last_filter, one)

    def emit_steps(self) -> None:
        """Write the blocks of units that are the kernel's filters, of the steps that are its tiles; there is one
        direction, and a step has one stage."""
        work = self.kernel.work
        blocks = work.first_filter, work.last_filter
        self._b.each(work.first_tile, work.last_tile, lambda number: self._main(self._step(number, 0), blocks))

    def _step(self, number: Index, direction: Index) -> _Step:
        b, s = self._b, self.layer.sizes
        backward = self.layer.is_backward
        time = number
        if any(backward):
            turned = b.subtract(b.index(s.steps - 1), b.index(number))
            is_first = arith.CmpIOp(arith.CmpIPredicate.eq, b.index(direction), b.index(0)).result
            time = turned if all(backward) else arith.SelectOp(is_first, b.index(number), turned).result
        parity = b.divide(number, 2)[1]
        half = s.directions * s.sequences * s.outputs
        first = b.mul(direction, s.sequences * s.outputs)
        old = b.add(b.mul(parity, half), first)
        new = b.subtract(b.index(b.add(b.mul(first, 2), half)), b.index(old))
        return _Step(direction, time, old, new)

    def _stages(self, step: _Step) -> None:
        self._main(step, (0, self.layer.blocks))
        if self.layer.mode == "gru_reset_first":
            self._for_tiles(step, self.layer.sizes.units, (0, self.layer.blocks), self._candidates)
        if self.layer.is_projected:
            blocks = self.layer.panels["projection"].blocks
            self._for_tiles(step, self.layer.sizes.outputs, (0, blocks), self._project)

    def _main(self, step: _Step, blocks: tuple[Index, Index]) -> None:
        body = {"lstm": self._lstm, "gru": self._gru, "gru_reset_first": self._resets, "rnn": self._rnn}
        self._for_tiles(step, self.layer.sizes.units, blocks, body[self.layer.mode])

    def _for_tiles(
        self, step: _Step, units: int, blocks: tuple[Index, Index], body: Callable[[Index, Sequence[_Tile]], None]
    ) -> None:
        """Write the loops over blocks of units, and over some sequences at a time: `body(block, tiles)`."""
        b, lanes, cuts = self._b, self.layer.lanes, Cuts.evenly(self.layer.sizes.sequences, 1, self.layer.rows)
        whole, rest = divmod(units, lanes)

        def one(block: Index, valid: int) -> None:
            for low, high, height, _ in cuts.kinds():

                def some(number: Index, height: int = height) -> None:
                    row = cuts.units_before(b, number, height)
                    tiles = [_Tile(step, b.mul(block, lanes), valid, b.add(row, line)) for line in range(height)]
                    body(block, tiles)

                if high - low == 1:
                    some(low)
                else:
                    b.each(low, high, some)

        first, last = blocks
        b.each(first, b.minimum(last, whole), lambda block: one(block, lanes))
        if rest:
            b.each(b.maximum_index(first, whole), last, lambda block: one(block, rest))

    # The modes ------------------------------------------------------------------------------------

    def _lstm(self, block: Index, tiles: Sequence[_Tile]) -> None:
        b, (a, candidate, last) = self._b, self.layer.activations
        sums = self._sums(block, tiles, "weight", self._starts(tiles, range(4)))
        for tile, (i, f, g, o) in zip(tiles, sums, strict=True):
            at = self._unit(tile)
            before = self._load("final_cell", at, tile)
            i, f = self._peep(tile, i, before, 0), self._peep(tile, f, before, 1)
            gated = b.times(self._activate(a, i), self._activate(candidate, g))
            cell = b.fma(self._activate(a, f), before, gated)
            o = self._activate(a, self._peep(tile, o, cell, 2))
            hidden = b.times(o, apply_activation(b, cell, last))
            self._store(self._inside(tile, cell, before), "final_cell", at, tile)
            if self.layer.is_projected:
                self._store(hidden, "gated", at, tile)
            else:
                self._finish(tile, hidden)

    def _gru(self, block: Index, tiles: Sequence[_Tile]) -> None:
        b, (a, candidate, _) = self._b, self.layer.activations
        starts = [[*gates, self._bias(tile, 2)] for gates, tile in zip(self._starts(tiles, (0, 1)), tiles, strict=True)]
        sums = self._sums(block, tiles, "weight", starts)
        for tile, (r, z, n) in zip(tiles, sums, strict=True):
            n = b.fma(self._activate(a, r), n, self._input(tile, 2))
            self._mix(tile, self._activate(candidate, n), self._activate(a, z))

    def _resets(self, block: Index, tiles: Sequence[_Tile]) -> None:
        a = self.layer.activations[0]
        sums = self._sums(block, tiles, "weight", self._starts(tiles, (0, 1)))
        for tile, (r, z) in zip(tiles, sums, strict=True):
            before = self._load("state", self._place(tile, tile.step.old), tile)
            self._store(self._b.times(self._activate(a, r), before), "gated", self._unit(tile), tile)
            self._store(self._activate(a, z), "update", self._unit(tile), tile)

    def _candidates(self, block: Index, tiles: Sequence[_Tile]) -> None:
        sums = self._sums(block, tiles, "candidate", self._starts(tiles, (2,)))
        for tile, (n,) in zip(tiles, sums, strict=True):
            update = self._load("update", self._unit(tile), tile)
            self._mix(tile, self._activate(self.layer.activations[1], n), update)

    def _rnn(self, block: Index, tiles: Sequence[_Tile]) -> None:
        sums = self._sums(block, tiles, "weight", self._starts(tiles, (0,)))
        for tile, (value,) in zip(tiles, sums, strict=True):
            self._finish(tile, self._activate(self.layer.activations[0], value))

    def _project(self, block: Index, tiles: Sequence[_Tile]) -> None:
        zero = [[self._b.splat(0.0, self.layer.lanes)] for _ in tiles]
        sums = self._sums(block, tiles, "projection", zero)
        for tile, (value,) in zip(tiles, sums, strict=True):
            self._finish(tile, value)

    # Their parts ----------------------------------------------------------------------------------

    def _sums(self, block: Index, tiles: Sequence[_Tile], name: str, starts: Sequence[Vectors]) -> list[Vectors]:
        """Return for each tile the sums of its gates, from given ones on, of the products with some panels."""
        b, lanes, panels, weight = self._b, self.layer.lanes, self.layer.panels[name], self.memory[name]
        gates, source = len(panels.taken), self.memory["state" if name == "weight" else "gated"]
        rows = [
            b.add(tile.step.old, b.mul(tile.row, panels.depth)) if name == "weight" else self._row(tile, panels.depth)
            for tile in tiles
        ]
        number = b.add(b.mul(tiles[0].step.direction, panels.blocks), block)
        if f"{name}.index" in self.memory:
            columns = Columns(b, lanes, *(self.memory[f"{name}{part}"] for part in ("", ".index", ".offset")))
            return self._sums_of_columns(columns, b.mul(number, gates), (source, rows), starts)
        if f"{name}.packs" in self.memory:
            assert self.lookup is not None, "there are no packs else"
            values, places, offset = (self.memory[f"{name}{part}"] for part in ("", ".places", ".packs"))
            packs = Packs(b, self.lookup, values, places, offset, lanes, TILE, panels.depth)
            bundles = [b.add(b.mul(number, gates), gate) for gate in range(gates)]
            by_gate = [start[gate] for gate in range(gates) for start in starts]
            sums = packs.sums(bundles, (source, rows), by_gate)
            return [sums[line :: len(tiles)] for line in range(len(tiles))]
        stored = WeightVectors(b, weight, lanes, gates)
        sets = ceil_div(self.kernel.costs.sums_in_flight, gates * len(tiles))
        unrolled = math.lcm(ceil_div(_UNROLLED, sets) * sets, stored.group)
        base = b.mul(number, ceil_div(panels.depth, stored.group) * stored.elements)

        def some(turn: Index, sums: Vectors, count: int = unrolled) -> Vectors:
            sums, first = list(sums), b.mul(turn, unrolled)
            weights = b.add(base, b.mul(turn, unrolled // stored.group * stored.elements))
            for k in range(count):
                vectors = [stored.load(weights, k, gate) for gate in range(gates)]
                for line, row in enumerate(rows):
                    element = b.load_scalar(source, b.add(b.add(row, first), k))
                    factor, at = b.broadcast(element, lanes), (k % sets * len(rows) + line) * gates
                    for gate, vector in enumerate(vectors):
                        sums[at + gate] = b.fma(factor, vector, sums[at + gate])
            return sums

        has_scales = f"{name}.scales" in self.memory
        first = [b.splat(0.0, lanes) if has_scales else value for gates_ in starts for value in gates_]
        sums = [*first, *[b.splat(0.0, lanes)] * ((sets - 1) * len(first))]
        turns, rest = divmod(panels.depth, unrolled)
        if turns:
            sums = b.loop(0, turns, sums, some)
        if rest:
            sums = some(turns, sums, rest)
        for other in range(1, sets):
            for number in range(len(first)):
                sums[number] = b.plus(sums[number], sums[other * len(first) + number])
        if has_scales:
            scales = [self._scales(tiles[0], name, gate) for gate in panels.taken]
            places = [(line, gate) for line in range(len(tiles)) for gate in range(gates)]
            sums = [b.fma(sums[n], scales[gate], starts[line][gate]) for n, (line, gate) in enumerate(places)]
        return [sums[line * gates : (line + 1) * gates] for line in range(len(tiles))]

    def _sums_of_columns(
        self, columns: Columns, number: Index, given: tuple[ir.Value, list[Index]], starts: Sequence[Vectors]
    ) -> list[Vectors]:
        """Return what `_sums` does, of the columns of each gate in turn.

        Args:
            number: of the first gate's columns.
            given: memory of the elements that they multiply, and where each tile's begin.
        """
        sets = ceil_div(self.kernel.costs.sums_in_flight, len(starts))
        gates = [
            columns.sums(self._b.add(number, gate), given, [start[gate] for start in starts], sets)
            for gate in range(len(starts[0]))
        ]
        return [list(sums) for sums in zip(*gates, strict=True)]

    def _starts(self, tiles: Sequence[_Tile], gates: Sequence[int]) -> list[Vectors]:
        """Return the products with the layer's input, and the biases, of some gates."""
        has_bias = "bias" in self.memory
        return [
            [
                self._b.plus(self._input(tile, gate), self._bias(tile, gate)) if has_bias else self._input(tile, gate)
                for gate in gates
            ]
            for tile in tiles
        ]

    def _input(self, tile: _Tile, gate: int) -> ir.Value:
        b, s = self._b, self.layer.sizes
        row = self._turn(tile, s.gates * s.units)
        return self._load("input", b.add(row, tile.first), tile, gate * s.units)

    def _bias(self, tile: _Tile, gate: int) -> ir.Value:
        b, s = self._b, self.layer.sizes
        if "bias" not in self.memory:
            return b.splat(0.0, self.layer.lanes)
        first = b.add(b.mul(tile.step.direction, s.gates * s.units), tile.first)
        return self._load("bias", first, tile, gate * s.units)

    def _scales(self, tile: _Tile, name: str, gate: int) -> ir.Value:
        """Return the scales of the rows of a gate."""
        b, panels = self._b, self.layer.panels[name]
        first = b.add(b.mul(tile.step.direction, panels.gates * panels.units), tile.first)
        return self._load(f"{name}.scales", first, tile, gate * panels.units)

    def _peep(self, tile: _Tile, value: ir.Value, cell: ir.Value, number: int) -> ir.Value:
        b, units = self._b, self.layer.sizes.units
        if "peepholes" not in self.memory:
            return value
        first = b.add(b.mul(tile.step.direction, 3 * units), tile.first)
        return b.fma(self._load("peepholes", first, tile, number * units), cell, value)

    def _activate(self, activation: Activation, value: ir.Value) -> ir.Value:
        if self.layer.limits is not None:
            value = apply_activation(self._b, value, self.layer.limits)
        return apply_activation(self._b, value, activation)

    def _mix(self, tile: _Tile, new: ir.Value, update: ir.Value) -> None:
        """Store (1 - update) * new + update * the state before."""
        before = self._load("state", self._place(tile, tile.step.old), tile)
        self._finish(tile, self._b.fma(update, arith.SubFOp(before, new).result, new))

    def _finish(self, tile: _Tile, hidden: ir.Value) -> None:
        """Store a new hidden state, and the result of the step."""
        b, s = self._b, self.layer.sizes
        result = hidden
        if "lengths" in self.memory:
            result = self._inside(tile, hidden, b.splat(0.0, self.layer.lanes))
            hidden = self._inside(tile, hidden, self._load("state", self._place(tile, tile.step.old), tile))
        self._store(result, "result", b.add(self._turn(tile, s.outputs), tile.first), tile)
        self._store(hidden, "state", self._place(tile, tile.step.new), tile)
        self._store(hidden, "final_hidden", b.add(self._row(tile, s.outputs), tile.first), tile)

    def _inside(self, tile: _Tile, value: ir.Value, other: ir.Value) -> ir.Value:
        """Return a value in steps before the end of the sequence, and another one behind it."""
        b = self._b
        if "lengths" not in self.memory:
            return value
        length = b.load_index(self.memory["lengths"], tile.row)
        is_inside = arith.CmpIOp(arith.CmpIPredicate.slt, b.index(tile.step.time), length).result
        return arith.SelectOp(is_inside, value, other).result

    # Addresses ------------------------------------------------------------------------------------

    def _row(self, tile: _Tile, width: int) -> Index:
        """Return where a sequence begins in D x N x width elements."""
        b = self._b
        return b.mul(b.add(b.mul(tile.step.direction, self.layer.sizes.sequences), tile.row), width)

    def _turn(self, tile: _Tile, width: int) -> Index:
        """Return where a sequence's step begins in T x N x D width elements."""
        b, s, step = self._b, self.layer.sizes, tile.step
        row = b.add(b.mul(b.add(b.mul(step.time, s.sequences), tile.row), s.directions), step.direction)
        return b.mul(row, width)

    def _unit(self, tile: _Tile) -> Index:
        return self._b.add(self._row(tile, self.layer.sizes.units), tile.first)

    def _place(self, tile: _Tile, start: Index) -> Index:
        """Return where a tile's part of a state is that begins at `start`."""
        return self._b.add(self._b.add(start, self._b.mul(tile.row, self.layer.sizes.outputs)), tile.first)

    def _load(self, name: str, base: Index, tile: _Tile, offset: int = 0) -> ir.Value:
        return self._b.load_masked(self.memory[name], base, offset, self.layer.lanes, tile.valid)

    def _store(self, value: ir.Value, name: str, base: Index, tile: _Tile) -> None:
        self._b.store_masked(value, self.memory[name], base, 0, tile.valid)


def emit_start(b: Builder, layer: Layer, memory: Mapping[str, ir.Value]) -> None:
    """Write what goes before the first step: state and cell begin as they are given."""
    s = layer.sizes
    rows = s.directions * s.sequences
    for source, target, width in (("hidden", "state", s.outputs), ("cell", "final_cell", s.units)):
        if source in memory:
            whole, rest = divmod(rows * width, layer.lanes)

            def copy(number: Index, valid: int = layer.lanes, source: str = source, target: str = target) -> None:
                at = b.mul(number, layer.lanes)
                value = b.load_masked(memory[source], at, 0, layer.lanes, valid)
                b.store_masked(value, memory[target], at, 0, valid)

            b.each(0, whole, copy)
            if rest:
                copy(whole, rest)
