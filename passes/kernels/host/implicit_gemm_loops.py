"""The loops of convolution as a product of matrices, see `implicit_gemm`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.integers import ceil_div
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.host.implicit_gemm import Plan, runs
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops, Turn, column_step, load_strided
from patc.passes.kernels.host.panels import Cuts


@dataclass(frozen=True)
class ImplicitGemm:
    """The loops.

    Attributes:
        weights: [block of filters][channel][tap][filter of the block], or [block][tap][channel][filter] where ranges
            have one tap.
        places: of each tap's inputs, counted from a tile's base in their channel.
        memory: for the panels and the sums of all threads; those of this one are from `own` on.
    """

    loops: Loops
    plan: Plan
    weights: ir.Value
    places: ir.Value
    memory: ir.Value
    own: Index

    @staticmethod
    def of_thread(loops: Loops, plan: Plan, memories: Sequence[ir.Value], tiles: Index) -> ImplicitGemm:
        """Return the loops of a thread among which those of a layer are divided.

        Args:
            memories: the weights, the places, and the memory of all threads.
            tiles: row tiles of all images.
        """
        b, work, threads = loops.b, loops.kernel.work, plan.schedule.threads
        weights, places, memory = memories
        slot = loops.kernel.thread(tiles)
        if threads > 1 and plan.schedule.split != "rows":
            # Thread t starts with the block nearest to blocks * t / threads.
            slot = b.divide(b.add(b.mul(work.first_filter, 2 * threads), plan.blocks), 2 * plan.blocks)[0]
        return ImplicitGemm(loops, plan, weights, places, memory, b.mul(slot, sum(plan.sizes)))

    def emit(self) -> None:
        """Emit all loops."""
        self.loops.for_tiles(self._one_tile)

    @property
    def is_far(self) -> bool:
        """Whether no cache near the core holds the weights."""
        return self.loops.kernel.may_be_distant(4 * self.plan.filters * self.plan.depth.channels * self.plan.depth.taps)

    def _one_tile(self, tile: Tile) -> None:
        b, work, group = self.loops.b, self.loops.kernel.work, self.plan.group

        def one_group(first: ir.Value, _: Vectors) -> Vectors:
            last = arith.MinUIOp(b.index(b.add(first, group)), b.index(work.last_filter)).result
            _Group(self, tile, (first, last)).emit()
            return []

        b.loop(work.first_filter, work.last_filter, [], one_group, step=group)


@dataclass(frozen=True)
class _Panel:
    """`vectors` of outputs of a tile, with `before` in front of them."""

    before: Index
    vectors: int


@dataclass(frozen=True)
class _Group:
    """A group of filters, the blocks `blocks`, on a tile."""

    layer: ImplicitGemm
    tile: Tile
    blocks: tuple[ir.Value, ir.Value]

    @property
    def _columns(self) -> int:
        return sum(chunk.valid for chunk in self.tile.chunks)

    @cached_property
    def _cuts(self) -> Cuts:
        return self.layer.plan.cuts(self.tile.rows * self._columns)

    def emit(self) -> None:
        layer, b = self.layer, self.layer.loops.b
        depth = layer.plan.depth
        if depth.by_tap:
            self._first_sums()
        base = layer.loops.base(self.tile)

        def one_part(number: Index) -> None:  # what its taps see overlaps: it stays in a cache
            first = b.mul(number, depth.part)
            last = depth.channels if depth.parts == 1 else b.minimum(b.add(first, depth.part), depth.channels)

            def one_range(tap: Index) -> None:
                self._copy(base, (first, last), tap)
                count = b.mul(b.subtract(b.index(last), b.index(first)), depth.together)
                start = b.add(b.mul(tap, depth.channels), b.mul(first, depth.together))
                self._multiply(start, count, None if depth.by_tap else number)

            if depth.by_tap:
                b.each(0, depth.taps, lambda tap: self._if_seen(tap, lambda: one_range(tap)))
            else:
                one_range(0)

        b.repeat(depth.parts, one_part)
        b.each(*self.blocks, self._finish)

    def _if_seen(self, tap: ir.Value, body: Callable[[], None]) -> None:
        """Emit what is done for a tap of which the tile sees inputs, not only the halo."""
        loops, b = self.layer.loops, self.layer.loops.b
        window, source = loops.window, loops.source
        taps = b.divide(tap, window.kernel[1])
        seen = None
        for axis, (start, count, size) in enumerate(
            ((self.tile.row, self.tile.rows, source.height), (self.tile.column, self._columns, source.width))
        ):
            stride, pad = window.strides[axis], window.pads[axis]
            first = b.add(b.mul(start, stride), b.mul(taps[axis], window.dilations[axis]))
            ends = (
                (arith.CmpIPredicate.ult, first, size + pad),
                (arith.CmpIPredicate.uge, b.add(first, (count - 1) * stride), pad),
            )
            for predicate, place, bound in ends:
                holds = arith.CmpIOp(predicate, b.index(place), b.index(bound)).result
                seen = holds if seen is None else arith.AndIOp(seen, holds).result
        b.when(seen, body)

    def _first_sums(self) -> None:
        """Let the parked sums begin with the bias."""
        layer, b = self.layer, self.layer.loops.b
        bias, lanes, block = layer.loops.epilogue.bias, layer.plan.schedule.lanes, layer.plan.schedule.filters
        vectors = ceil_div(self.tile.rows * self._columns, lanes)

        def one_block(number: ir.Value) -> None:
            filter_ = b.minimum(b.mul(number, block), layer.plan.filters - block)
            for member in range(block):
                first, at = b.splat(0.0, lanes), self._sums(number, member)
                if bias is not None:
                    first = b.broadcast(b.load_scalar(bias, b.add(filter_, member)), lanes)
                self._fill(first, at, vectors)

        b.each(*self.blocks, one_block)

    def _fill(self, value: ir.Value, at: Index, vectors: int) -> None:
        b, lanes = self.layer.loops.b, self.layer.plan.schedule.lanes
        b.each(0, vectors, lambda vector: b.store(value, self.layer.memory, b.add(at, b.mul(vector, lanes)), 0))

    def _sums(self, number: Index, member: Index) -> Index:
        """Return where the sums of a member of a block are."""
        b, plan = self.layer.loops.b, self.layer.plan
        block = b.subtract(b.index(number), b.index(self.blocks[0]))
        line = b.add(b.mul(block, plan.schedule.filters), member)
        return b.add(b.add(self.layer.own, plan.sizes[0]), b.mul(line, plan.line))

    def _copy(self, base: Index, channels: tuple[Index, Index], tap: Index) -> None:
        """Write the panels of a range: some channels, and a tap or all."""
        layer, loops, b = self.layer, self.layer.loops, self.layer.loops.b
        depth, source = layer.plan.depth, loops.source
        lanes, down = layer.plan.schedule.lanes, loops.window.strides[0] * source.layout.pitch
        step = column_step(loops.window, source.layout)
        found = runs(self.tile.rows, self._columns, self._cuts, lanes)

        def one_vector_each(channel: Index, own: Index, number: Index) -> None:
            place = b.add(base, b.load_index(layer.places, b.add(tap, own)))
            place = b.add(place, b.mul(channel, source.layout.plane))
            for run in found:
                first = run.row * down + run.column * step
                vector = load_strided(b, source.memory, (place, first), lanes, 0, step)
                at = b.add(b.add(layer.own, run.first * lanes * depth.longest), b.mul(number, run.vectors * lanes))
                b.store_masked(vector, layer.memory, at, run.place, run.stored)

        def one_channel(channel: ir.Value) -> None:
            number = b.mul(b.subtract(channel, b.index(channels[0])), depth.together)
            b.repeat(depth.together, lambda own: one_vector_each(channel, own, b.add(number, own)))

        b.each(*channels, one_channel)

    def _multiply(self, start: Index, count: Index, number: Index | None) -> None:
        """Add the products of a range to the sums: `count` of each, whose weights are the ones from `start` on.

        Args:
            number: of the range, of which the first one begins the sums; None if they have begun.
        """
        b, plan = self.layer.loops.b, self.layer.plan
        parts = plan.schedule.threads if plan.schedule.split == "filters" else 1
        group = max(1, plan.group // parts)  # blocks at least
        for first, last, vectors, _ in self._cuts.kinds():

            def one_panel(place: ir.Value, vectors: int = vectors) -> None:
                panel = _Panel(self._cuts.units_before(b, place, vectors), vectors)

                def one_block(block: ir.Value) -> None:
                    own = b.add(b.mul(place, group), b.subtract(block, b.index(self.blocks[0])))
                    sums = self._one_block(panel, block, (start, count), Turn(own, self._cuts.count * group))
                    self._park(panel, block, sums, number)

                b.each(*self.blocks, one_block)

            b.each(first, last, one_panel)

    def _one_block(self, panel: _Panel, number: ir.Value, depth: tuple[Index, Index], share: Turn) -> Vectors:
        """Return the sums of a block's products with a panel; `depth` is the first product, and how many they are.

        Args:
            share: of what is done beside the products of a tile.
        """
        layer, b = self.layer, self.layer.loops.b
        plan, memory, vectors = layer.plan, layer.memory, panel.vectors
        lanes, block = plan.schedule.lanes, plan.schedule.filters
        start = b.add(layer.own, b.mul(panel.before, lanes * plan.depth.longest))
        products = plan.depth.channels * plan.depth.taps
        packed = b.mul(b.add(b.mul(number, products), depth[0]), block)

        base = layer.loops.base(self.tile)

        def one_product(turn: ir.Value, sums: Vectors) -> Vectors:
            sums, at, weights = (
                list(sums),
                b.add(start, b.mul(turn, vectors * lanes)),
                b.add(packed, b.mul(turn, block)),
            )
            if layer.is_far:
                b.prefetch(layer.weights, weights, products * block)  # of the next block: they have come by its turn
            elif plan.depth.taps == 1:
                channel = b.add(base, b.mul(b.add(depth[0], turn), layer.loops.source.layout.plane))
                layer.loops.prefetch_next(self.tile, channel, share)
            seen = [b.load(memory, at, vector * lanes, lanes) for vector in range(vectors)]
            for member in range(block):
                weight = b.broadcast(b.load_scalar(layer.weights, b.add(weights, member)), lanes)
                for place, vector in enumerate(seen, member * vectors):
                    sums[place] = b.fma(weight, vector, sums[place])
            return sums

        return b.loop(0, depth[1], [b.splat(0.0, lanes)] * (block * vectors), one_product)

    def _park(self, panel: _Panel, number: ir.Value, sums: Vectors, part: Index | None) -> None:
        """Add the sums of a range to what is parked, or to the bias in the first range."""
        layer, b = self.layer, self.layer.loops.b
        lanes, block, bias = layer.plan.schedule.lanes, layer.plan.schedule.filters, layer.loops.epilogue.bias

        def store(begins: bool) -> None:
            filter_ = b.minimum(b.mul(number, block), layer.plan.filters - block)
            for member in range(block):
                at = b.add(self._sums(number, member), b.mul(panel.before, lanes))
                first = None
                if begins and bias is not None:
                    first = b.broadcast(b.load_scalar(bias, b.add(filter_, member)), lanes)
                for vector, value in enumerate(sums[member * panel.vectors : (member + 1) * panel.vectors]):
                    added = first if begins else b.load(layer.memory, at, vector * lanes, lanes)
                    b.store(value if added is None else b.plus(added, value), layer.memory, at, vector * lanes)

        if part is None or isinstance(part, int):
            store(part == 0)
            return
        b.when_equal(part, 0, lambda: store(True))
        b.when(arith.CmpIOp(arith.CmpIPredicate.ne, part, b.index(0)).result, lambda: store(False))

    def _finish(self, number: ir.Value) -> None:
        """Store the outputs of a block of filters."""
        layer, b, loops = self.layer, self.layer.loops.b, self.layer.loops
        block = layer.plan.schedule.filters
        filter_ = b.minimum(b.mul(number, block), layer.plan.filters - block)

        def one_filter(member: ir.Value) -> None:
            at = self._sums(number, member)
            rows = []
            for row in range(self.tile.rows):
                first, chunks = row * self._columns, self.tile.chunks
                rows.append([b.load(layer.memory, at, first + chunk.column, chunk.lanes) for chunk in chunks])
            loops.store_tile(self.tile, rows, b.add(filter_, member))

        b.each(0, block, one_filter)
