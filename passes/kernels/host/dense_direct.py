"""Dense-direct convolution: filters x outputs of a tile in registers.

    for tile of `rows` x `columns` outputs:
      for block of filters:
        accumulators = bias
        for input channel:
          for tap: accumulators += weight * input vector
        store activation(accumulators + residual)

A long sum in a narrow type is made in parts, one a range of input channels.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch_mlir import ir

from patc.integers import ceil_div
from patc.passes.ir.elements import element_bytes
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.host.accumulators import join, longest_part, zeros_like
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops, Turn

_COLUMNS = 8  # of a larger one that have code: times its stride, so that all turns read alike


@dataclass(frozen=True)
class DenseWeights:
    """Packed weights in memory: [block of filters][input channel][tap][filter of the block], flat.

    Attributes:
        channels: input channels of one group.
        filters: filters of one group.
    """

    values: ir.Value
    channels: int
    filters: int

    def prefetch_next(self, loops: Loops, tile: Tile, weights: Index, size: int) -> None:
        """Ask for some of the next block's weights of a channel, so that they have come when its turn does. Each tile
        of this block asks for others: few loads can wait for the second level at a time.

        Args:
            weights: address of this block's in the channel.
            size: how many there are.
        """
        b, line = loops.b, loops.kernel.line(self.values.type)
        for place in loops.turn(tile).places(b, ceil_div(size, line)):
            b.prefetch(self.values, b.add(weights, b.mul(place, line)), self.channels * size)


@dataclass(frozen=True)
class DenseDirect:
    """The loops: `schedule.filters` filters share the input vectors. The last block of a layer starts at
    `filters - block`, so it may overlap its neighbour. A layer with one channel a group is a depthwise one."""

    loops: Loops
    weights: DenseWeights

    @property
    def _block(self) -> int:
        return self.loops.schedule.filters

    @property
    def _taps(self) -> int:
        height, width = self.loops.window.kernel
        return height * width

    def emit(self) -> None:
        """Emit all loops."""
        self.loops.for_work(self.one_block, filters_first=self.weights.channels == 1 or self._is_far)

    @property
    def _is_far(self) -> bool:
        """Whether weights are read once, for all tiles: of weights and inputs, those stay in cache that would take
        longer to come again."""
        kernel, source, output, weights = self.loops.kernel, self.loops.source, self.loops.output, self.weights
        size = element_bytes(weights.values.type) * weights.channels * self._taps * self.loops.channels
        rows = output.images * ceil_div(output.height, self.loops.schedule.rows)
        inputs = source.bytes * ceil_div(self.loops.channels, self._block)
        return kernel.may_be_distant(size) and (not kernel.may_be_distant(source.bytes) or size * rows > inputs)

    @property
    def _blocks_in_turn(self) -> int:
        """Blocks of filters that a thread computes of a tile one after the other, on the same inputs; at least."""
        schedule = self.loops.schedule
        blocks = ceil_div(self.weights.filters, self._block)
        return max(1, blocks // schedule.threads) if schedule.split == "filters" else blocks

    def one_block(self, tile: Tile, number: Index) -> None:
        """Compute a tile of a block of filters."""
        loops, b, weights, block = self.loops, self.loops.b, self.weights, self._block
        base = loops.base(tile)
        filter_ = b.minimum(b.mul(number, block), loops.channels - block)
        group = b.divide(filter_, weights.filters)[0] if weights.filters < loops.channels else 0
        plane = b.add(base, b.mul(group, weights.channels * loops.source.layout.plane))
        packed = b.mul(number, weights.channels * self._taps * block)
        accumulators: Vectors = []
        if weights.channels == 1:
            self._prefetch_below(tile, plane)
        for member in range(0, block, loops.group):
            loops.prefetch_ends(tile, b.add(filter_, member))
        for member in range(block):
            accumulators += loops.first_accumulators(tile, b.add(filter_, member))
        accumulators = self._all_channels(tile, plane, (packed, number), accumulators)
        area = tile.rows * len(tile.chunks)
        for first in range(0, block, loops.group):
            members = range(first, first + loops.group)
            own = [tile.by_row(accumulators[member * area : (member + 1) * area]) for member in members]
            loops.store_group(tile, own, b.add(filter_, first))

    def _all_channels(self, tile: Tile, plane: Index, block: tuple[Index, Index], accumulators: Vectors) -> Vectors:
        """Add all products.

        Args:
            plane: address of the tile in the first channel.
            block: address of the block's weights, and its number.
        """
        b, channels, (packed, number) = self.loops.b, self.weights.channels, block
        turn = Turn(number, self._blocks_in_turn)
        longest = longest_part(b.element, channels * self._taps)
        part = channels if longest is None else max(1, longest // self._taps)  # channels of a part of a long sum

        def one_channel(channel: Index, accumulators: Vectors) -> Vectors:
            base = b.add(plane, b.mul(channel, self.loops.source.layout.plane))
            weights = b.add(packed, b.mul(channel, self._taps * self._block))
            if self._is_far:
                self.weights.prefetch_next(self.loops, tile, weights, self._taps * self._block)
            elif self._taps == 1:
                self.loops.prefetch_next(tile, base, turn)
            return self._one_channel(tile, base, weights, accumulators)

        def some_channels(number: Index, totals: Vectors) -> Vectors:
            first = b.mul(number, part)
            last = b.minimum(b.add(first, part), channels)
            return join(b, [*totals, *b.loop(first, last, zeros_like(b, totals), one_channel)], 2)

        if channels == 1:
            return one_channel(0, accumulators)
        if longest is not None:
            return b.loop(0, ceil_div(channels, part), accumulators, some_channels)
        return b.loop(0, channels, accumulators, one_channel)

    def _one_channel(self, tile: Tile, base: Index, weights: Index, accumulators: Vectors) -> Vectors:
        """Add one input channel's products to the accumulators of a block of filters."""
        b, loops, (height, width) = self.loops.b, self.loops, self.loops.window.kernel
        if self.weights.channels == self._block == 1 and self._taps <= loops.most_taps:
            return self._by_input_row(tile, base, weights, accumulators)
        if self._taps <= loops.most_taps:
            for y in range(height):
                accumulators = self._columns(tile, (base, weights), (y, range(width)), accumulators)
            return list(accumulators)
        down = loops.window.dilations[0] * loops.source.layout.pitch

        def one_row(y: Index, found: Vectors) -> Vectors:
            places = b.add(base, b.mul(y, down)), b.add(weights, b.mul(y, width * self._block))
            return self._row_in_turns(tile, places, found)

        return one_row(0, accumulators) if height == 1 else b.loop(0, height, accumulators, one_row)

    def _by_input_row(self, tile: Tile, base: Index, weights: Index, accumulators: Vectors) -> Vectors:
        """Add the products of a filter of one channel, which has no other filter's to do while it waits for inputs:
        each is loaded once, for all sums of the tile that it belongs to, and none waits in a register for its turn."""
        b, loops, window, accumulators = self.loops.b, self.loops, self.loops.window, list(accumulators)
        height, width = window.kernel
        uses: dict[int, list[tuple[int, int]]] = {}
        for row, y in itertools.product(range(tile.rows), range(height)):
            uses.setdefault(row * window.strides[0] + y * window.dilations[0], []).append((row, y))
        for _, pairs in sorted(uses.items()):
            for x, (position, chunk), (row, y) in itertools.product(range(width), enumerate(tile.chunks), pairs):
                vector = loops.input_vector(base, row, (0, y, x), chunk)
                scalar = b.load_scalar(self.weights.values, b.add(weights, y * width + x))
                weight, place = b.broadcast(scalar, vector.type.shape[0]), row * len(tile.chunks) + position
                accumulators[place] = loops.product(weight, vector, accumulators[place])
        return accumulators

    def _prefetch_below(self, tile: Tile, base: Index) -> None:
        """Ask for what the tile below reads of a channel and this one does not, if it may be far away."""
        loops, window, source = self.loops, self.loops.window, self.loops.source
        if tile.rows == loops.output.height or not loops.kernel.may_be_distant(source.bytes):
            return
        taps = itertools.product(range(window.kernel[0])[-window.strides[0] :], range(window.kernel[1]))
        line, lines = loops.kernel.line(source.memory.type), set[int]()
        for (y, x), row, chunk in itertools.product(taps, range(tile.rows, 2 * tile.rows), tile.chunks):
            first, last = loops.input_range(row, (0, y, x), chunk)
            lines.update(range(first // line, last // line + 1))

        def ask() -> None:
            for each in sorted(lines):
                loops.b.prefetch(source.memory, base, each * line)

        more = loops.has_more_rows(tile)
        if more is None:
            ask()
        else:  # what another thread reads would come from its core, which wants it itself
            loops.b.when(more, ask)

    def _row_in_turns(self, tile: Tile, places: tuple[Index, Index], accumulators: Vectors) -> Vectors:
        """Add the products of the first row of a wide window: some columns have code, which is run for all."""
        b, window = self.loops.b, self.loops.window
        group = _COLUMNS * window.strides[1]
        turns = window.kernel[1] // group
        phases = window.strides[1] if self.loops.source.layout.phases == window.strides[1] else 1
        right = group * window.dilations[1] // phases

        def some_columns(turn: Index, found: Vectors) -> Vectors:
            moved = b.add(places[0], b.mul(turn, right)), b.add(places[1], b.mul(turn, group * self._block))
            return self._columns(tile, moved, (0, range(group)), found)

        if turns:
            accumulators = b.loop(0, turns, accumulators, some_columns)
        return self._columns(tile, places, (0, range(turns * group, window.kernel[1])), accumulators)

    def _columns(
        self, tile: Tile, places: tuple[Index, Index], taps: tuple[int, range], accumulators: Vectors
    ) -> Vectors:
        """Add the products of some columns of a row of the window.

        Args:
            places: addresses of the tile in the channel, and of the channel's weights.
            taps: the row, and the columns.
        """
        b, loops, block = self.loops.b, self.loops, self._block
        accumulators = list(accumulators)
        area = tile.rows * len(tile.chunks)
        (base, weights), (y, columns) = places, taps
        for x in columns:
            number = y * loops.window.kernel[1] + x
            tap = (0, y, x)
            vectors = [loops.input_vector(base, row, tap, chunk) for row in range(tile.rows) for chunk in tile.chunks]
            for member in range(block):
                scalar = b.load_scalar(self.weights.values, b.add(weights, number * block + member))
                for place, vector in enumerate(vectors, member * area):
                    weight = b.broadcast(scalar, vector.type.shape[0])
                    accumulators[place] = loops.product(weight, vector, accumulators[place])
        return accumulators
