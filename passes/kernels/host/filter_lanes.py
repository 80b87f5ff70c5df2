"""Filter-lanes convolution: the lanes of a vector are filters, and each input is a scalar for all of them.

    for block of filters, a few vectors of them:
      for tile of `rows` x `columns` outputs:
        accumulators = bias                              # registers: outputs x vectors
        for input channel:
          for row of taps, and input that it reads:
            for tap of the row: accumulators += weight vectors * input
        transpose accumulators; store activation(accumulators + residual)

No lane is wasted where planes are narrow, and strides and dilations cost nothing: `dense_direct`, whose lanes are
columns, wins where rows fill vectors. Both add up in the same order.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch_mlir import ir

from patc.integers import ceil_div
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.host.dense_direct import DenseWeights
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.panels import transpose
from patc.passes.kernels.tiling import Chunk

_AHEAD = 12  # channels; a channel takes about as many cycles as a line needs from the second-level cache


def places(rows: int, chunks: tuple[Chunk, ...]) -> list[tuple[int, int] | None]:
    """Return row and column of the output in each lane of a tile's chunks, row by row; None in lanes behind a row."""
    found: list[tuple[int, int] | None] = []
    for row in range(rows):
        for chunk in chunks:
            lanes = range(chunk.lanes)
            found += [(row, chunk.column + lane) if lane < chunk.valid else None for lane in lanes]
    return found


@dataclass(frozen=True)
class FilterLanes:
    """The loops; `schedule.lanes` are those of the vectors of columns that are stored, half of a vector of filters.

    Attributes:
        scratch: outputs of a block of filters, `size` elements a filter.
    """

    loops: Loops
    weights: DenseWeights
    scratch: ir.Value
    size: int

    @staticmethod
    def of(loops: Loops, weights: DenseWeights) -> FilterLanes:
        schedule, output = loops.schedule, loops.output
        rows, lanes = min(schedule.rows, output.height), 2 * schedule.lanes
        strips = tiling.strips(output.width, schedule.columns, schedule.lanes)
        size = max(ceil_div(len(places(rows, strip.chunks)), lanes) * lanes for strip in strips)
        return FilterLanes(loops, weights, loops.b.scratch(schedule.filters * size), size)

    @property
    def _lanes(self) -> int:
        return 2 * self.loops.schedule.lanes

    @property
    def _vectors(self) -> int:
        return self.loops.schedule.filters // self._lanes

    @property
    def _taps(self) -> int:
        height, width = self.loops.window.kernel
        return height * width

    @property
    def _is_far(self) -> bool:
        """Whether no cache near the core holds the weights: then they are read once, for all tiles. Else the inputs of
        a tile stay for all filters."""
        return self.loops.kernel.may_be_distant(4 * self.weights.channels * self._taps * self.loops.channels)

    def emit(self) -> None:
        """Emit all loops."""
        self.loops.for_work(self._one_block, filters_first=self._is_far)

    def _one_block(self, tile: Tile, number: ir.Value) -> None:
        loops, b, weights, block = self.loops, self.loops.b, self.weights, self.loops.schedule.filters
        taps, height = self._taps, loops.window.kernel[0]
        filter_ = b.minimum(b.mul(number, block), loops.channels - block)
        group = b.divide(filter_, weights.filters)[0] if weights.filters < loops.channels else 0
        plane = b.add(loops.base(tile), b.mul(group, weights.channels * loops.source.layout.plane))
        packed = b.mul(number, weights.channels * taps * block)
        found = places(tile.rows, tile.chunks)
        outputs = [place for place in found if place is not None]

        def one_channel(channel: Index, accumulators: Vectors) -> Vectors:
            base = b.add(plane, b.mul(channel, loops.source.layout.plane))
            first = b.add(packed, b.mul(channel, taps * block))
            if self._is_far:
                weights.prefetch_next(loops, tile, first, taps * block)
            elif taps == 1:
                self._prefetch(outputs, base, first)
            for row in range(height):
                accumulators = self._one_row(outputs, row, (base, first), accumulators)
            return accumulators

        sums = b.loop(0, weights.channels, self._first(filter_, len(outputs)), one_channel)
        self._transpose(found, sums)

        def finish(number: ir.Value) -> None:
            first = b.mul(number, loops.group)
            group = [tile.by_row(self._loaded(tile, b.add(first, member))) for member in range(loops.group)]
            loops.store_group(tile, group, b.add(filter_, first))

        b.each(0, block // loops.group, finish)

    def _prefetch(self, outputs: list[tuple[int, int]], base: Index, weights: Index) -> None:
        """Ask the second-level cache for what a later channel needs; the arguments are addresses in this one."""
        b, source, block = self.loops.b, self.loops.source, self.loops.schedule.filters
        for line in range(0, block, self.loops.kernel.line(self.weights.values.type)):
            b.prefetch(self.weights.values, weights, _AHEAD * block + line)
        for output in (outputs[0], outputs[-1]):
            b.prefetch(source.memory, base, self._place(output, (0, 0)) + _AHEAD * source.layout.plane)

    def _first(self, filter_: Index, outputs: int) -> Vectors:
        """Return the accumulators: each output's vectors of filters, which begin with the bias."""
        b, bias, lanes = self.loops.b, self.loops.epilogue.bias, self._lanes
        if bias is None:
            return [b.splat(0.0, lanes)] * (outputs * self._vectors)
        return [b.load(bias, filter_, vector * lanes, lanes) for vector in range(self._vectors)] * outputs

    def _one_row(
        self, outputs: list[tuple[int, int]], row: int, at: tuple[Index, Index], accumulators: Vectors
    ) -> Vectors:
        """Add the products of a row of taps, in one channel.

        Taps beside each other read the same inputs: each is loaded once, and multiplied for all of them at once. Tap by
        tap it would be kept from one to the next, in a register that an accumulator needs. Inputs come in the order of
        the outputs, and of the taps of an output, so that an accumulator meets its taps in order.

        Args:
            at: address of the tile in the channel, and of the channel's weights.
        """
        b, lanes, (base, weights), block = self.loops.b, self._lanes, at, self.loops.schedule.filters
        width = self.loops.window.kernel[1]
        readers: dict[int, list[tuple[int, int]]] = {}  # by the place of an input: outputs and columns of taps
        for (number, output), column in itertools.product(enumerate(outputs), range(width)):
            readers.setdefault(self._place(output, (row, column)), []).append((number, column))
        starts = [(row * width + column) * block for column in range(width)]
        vectors = [
            [b.load(self.weights.values, weights, start + v * lanes, lanes) for v in range(self._vectors)]
            for start in starts
        ]
        made = list(accumulators)
        for place, pairs in readers.items():
            factor = b.broadcast(b.load_scalar(self.loops.source.memory, b.add(base, place)), lanes)
            for number, column in pairs:
                for vector, weight in enumerate(vectors[column], number * self._vectors):
                    made[vector] = self.loops.product(factor, weight, made[vector])
        return made

    def _place(self, output: tuple[int, int], tap: tuple[int, int]) -> int:
        """Return where, after the tile's base, the input lies that an output reads through a tap."""
        window, layout = self.loops.window, self.loops.source.layout
        y = output[0] * window.strides[0] + tap[0] * window.dilations[0] - window.top + layout.top
        x = output[1] * window.strides[1] + tap[1] * window.dilations[1] - window.left + layout.left
        position, phase = divmod(x, layout.phases)
        return y * layout.pitch + phase * layout.row + position

    def _transpose(self, found: list[tuple[int, int] | None], sums: Vectors) -> None:
        """Write each filter's outputs to the scratch memory, in the lanes of the tile's chunks."""
        b, lanes, vectors = self.loops.b, self._lanes, self._vectors
        for vector in range(vectors):
            given = iter(sums[vector::vectors])
            filled = [sums[vector] if place is None else next(given) for place in found]
            filled += [sums[vector]] * (-len(filled) % lanes)
            for start in range(0, len(filled), lanes):
                for member, value in enumerate(transpose(b, filled[start : start + lanes]), vector * lanes):
                    b.store(value, self.scratch, member * self.size, start)

    def _loaded(self, tile: Tile, member: Index) -> Vectors:
        b, start, loaded = self.loops.b, 0, []
        for _ in range(tile.rows):
            for chunk in tile.chunks:
                loaded.append(b.load(self.scratch, b.mul(member, self.size), start, chunk.lanes))
                start += chunk.lanes
        return loaded
