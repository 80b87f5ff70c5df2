"""Pattern-direct sparse convolution: the accumulators of a tile stay in registers, one loop a pattern.

    for tile of `rows` x `columns` outputs:
      for filter:
        accumulators = bias
        for pattern: for kept kernel of the pattern:
          for tap: accumulators += weight * input vector
        store activation(accumulators + residual)

A long sum in a narrow type is made in parts, one a pattern.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir

from patc.dialects.attributes import Library
from patc.passes.ir.windows import Tap
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.host.accumulators import join, zeros_like
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops


@dataclass(frozen=True)
class SparseWeights:
    """The FKW arrays in memory, flat; see `pattern.sparse_conv2d`."""

    library: Library
    values: ir.Value
    index: ir.Value
    offset: ir.Value
    pattern_offsets: ir.Value
    reorder: ir.Value


@dataclass(frozen=True)
class PatternDirect:
    """The loops.

    Attributes:
        in_parts: each pattern has a sum of its own.
    """

    loops: Loops
    weights: SparseWeights
    in_parts: bool

    def emit(self) -> None:
        """Emit all loops: a filter's kept kernels, pattern by pattern, each pattern's loop without a branch."""
        self.loops.for_work(self._one_filter)

    def _one_filter(self, tile: Tile, stored: ir.Value) -> None:
        b, weights, loops = self.loops.b, self.weights, self.loops
        patterns, sets = len(weights.library.masks), loops.schedule.sums
        base = loops.base(tile)
        channel = b.load_index(weights.reorder, stored)
        first = b.load_index(weights.offset, stored)
        strides = b.mul(stored, patterns + 1)
        bounds = [
            b.add(first, b.load_index(weights.pattern_offsets, b.add(strides, pattern)))
            for pattern in range(patterns + 1)
        ]
        loops.prefetch_ends(tile, channel)
        accumulators = loops.first_accumulators(tile, channel)
        accumulators += zeros_like(b, accumulators) * (sets - 1)
        for pattern in range(patterns):
            one_kernel = _Pattern(loops, weights, tile, base, pattern).add_kernel
            if self.in_parts and pattern > 0:
                part = b.loop(bounds[pattern], bounds[pattern + 1], zeros_like(b, accumulators), one_kernel)
                accumulators = join(b, [*accumulators, *part], 2)
            else:
                accumulators = b.loop(bounds[pattern], bounds[pattern + 1], accumulators, one_kernel)
        loops.store_tile(tile, tile.by_row(join(b, accumulators, sets)), channel)


@dataclass(frozen=True)
class _Pattern:
    """The kernels of one pattern on a tile; `base` is the tile's address in the first channel of the input."""

    loops: Loops
    weights: SparseWeights
    tile: Tile
    base: Index
    number: int

    def add_kernel(self, kernel: ir.Value, accumulators: Vectors) -> Vectors:
        """Add one kept kernel's products. Input vectors are visited row by row and each is loaded once for all the taps
        and output rows that want it (load redundancy elimination), so that few are alive at a time. Where there are
        several sets of accumulators, tap t adds to set t modulo their number."""
        b, tile, entries = self.loops.b, self.tile, self.weights.library.entries
        plane = b.mul(b.load_index(self.weights.index, kernel), self.loops.source.layout.plane)
        scalars = [b.load_scalar(self.weights.values, b.add(b.mul(kernel, entries), entry)) for entry in range(entries)]
        base = b.add(self.base, plane)
        lanes = sorted({chunk.lanes for chunk in tile.chunks})
        weights = [{count: b.broadcast(scalar, count) for count in lanes} for scalar in scalars]
        accumulators = list(accumulators)
        width = len(tile.chunks)
        area = tile.rows * width
        sets = len(accumulators) // area
        taps = self.weights.library.places(self.number)
        for position, users in self._loads(taps):
            chunk = tile.chunks[position]
            row, number = users[0]
            vector = self.loops.input_vector(base, row, taps[number], chunk)
            for row, number in users:
                place = number % sets * area + row * width + position
                accumulators[place] = b.fma(weights[number][chunk.lanes], vector, accumulators[place])
        return accumulators

    def _loads(self, taps: Sequence[Tap]) -> list[tuple[int, list[tuple[int, int]]]]:
        """Return the input vectors of a kernel, row by row: the number of the chunk, and output row and number of each
        tap that reads it."""
        window = self.loops.window
        uses: dict[tuple[int, int, int, int], list[tuple[int, int]]] = {}
        for row, (number, (channel, dy, dx)) in itertools.product(range(self.tile.rows), enumerate(taps)):
            y = row * window.strides[0] + dy * window.dilations[0]
            for position in range(len(self.tile.chunks)):
                uses.setdefault((channel, y, position, dx), []).append((row, number))
        return [(position, users) for (_, _, position, _), users in sorted(uses.items())]
