"""Layers on large planes, one behind the other, that run band by band; see `rings`.

What lies between two layers is in a ring. Kernels address it as if memory held the whole tensor: from an address before
the ring, by the rows that came before those in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import func, memref

from patc.dialects.attributes import Layout
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.buffers import Buffer, flat_type, slack
from patc.passes.algorithms.host.memory import Memory
from patc.passes.algorithms.host.rings import Plan, Ring
from patc.passes.algorithms.host.site import Argument, Emit, HostSite, divide, unbounded, unbounded_type
from patc.passes.algorithms.host.stamps import Stamps
from patc.passes.ir.elements import element_bytes
from patc.passes.kernels.builder import Builder, Index
from patc.passes.kernels.host.moves import emit_move

_LINE = 64  # bytes: planes of a ring are an odd number of cache lines apart, so that they share no set of a cache


@dataclass(frozen=True)
class Stream:
    """Layers that run band by band.

    Attributes:
        layers: algorithm, op and schedule of each.
        plan: what each band does.
        inside: numbers of the layers whose results only layers of the stream read: they are in rings.
    """

    layers: tuple[tuple[HostAlgorithm, Any, Schedule], ...]
    plan: Plan
    inside: tuple[int, ...]


@dataclass(frozen=True)
class _Call:
    """A layer's kernel, what it is called with, and what each filter, or block of them, costs."""

    name: str
    memories: Sequence[ir.Value]
    costs: Sequence[float]


class _StreamSite(HostSite):
    """A layer whose kernel is called for each band."""

    found: _Call

    def call(self, arguments: Sequence[Argument | ir.Value], emit: Emit, costs: Sequence[float], **how: Any) -> None:
        name, memories = self._kernel(arguments, emit)
        self.found = _Call(name, memories, costs)


@dataclass(frozen=True)
class _Held:
    """A ring in memory.

    Attributes:
        root: the memory, in bytes.
        buffer: what kernels see of the tensor, if it began with the ring.
        channels: planes.
    """

    ring: Ring
    root: ir.Value
    buffer: Buffer
    channels: int

    @property
    def layout(self) -> Layout:
        assert self.buffer.layout is not None, "planes have one"
        return self.buffer.layout

    @staticmethod
    def of(ring: Ring, value: ir.Value, memory: Memory) -> _Held:
        layout, size = Layout.of(value.type), element_bytes(value.type)
        line = _LINE // size
        plane = (ceil_div(ring.rows * layout.pitch, line) | 1) * line
        channels = value.type.shape[1]
        elements = channels * plane + slack(value)
        root = memory.allocate(elements * size, ir.IntegerType.get_signless(8))
        type_ = flat_type(elements, value.type.element_type)
        seen = memref.ViewOp(type_, root, memory.builder.index(0), []).result
        shape = tuple(value.type.shape)
        buffer = Buffer(seen, shape, replace(layout, plane=plane), end=layout.plane)
        return _Held(ring, root, buffer, channels)


@dataclass(frozen=True)
class StreamEmission:
    """The loop over the bands of a stream.

    Attributes:
        calls: of each layer.
        held: the rings, by the layers that write them.
        cuts: the first filter of each thread, of layers whose filters threads divide.
    """

    stream: Stream
    memory: Memory
    calls: list[_Call] = field(default_factory=list)
    held: dict[int, _Held] = field(default_factory=dict)
    cuts: dict[int, ir.Value] = field(default_factory=dict)

    @property
    def b(self) -> Builder:
        return self.memory.builder

    @cached_property
    def threads(self) -> int:
        return max(schedule.threads for _, _, schedule in self.stream.layers)

    def emit(self) -> ir.Value:
        """Emit the loop, and return where the time stamps that each layer took are."""
        plan, b = self.stream.plan, self.b
        for number in self.stream.inside:
            value = self.stream.layers[number][1].result
            self.held[number] = _Held.of(plan.rings[number], value, self.memory)
            self.memory.rings[value] = self.held[number].buffer
        for algorithm, op, schedule in self.stream.layers:
            site = _StreamSite(op, schedule, self.memory)
            with op.location:
                algorithm.emit(site)
            self.calls.append(site.found)
            if schedule.threads > 1 and schedule.split == "filters":
                cuts = [share[0][2] for share in divide(schedule, (0, 1), site.found.costs)]
                self.cuts[len(self.calls) - 1] = self._numbers("cuts", np.array([*cuts, len(site.found.costs)]))
        table = self._table()
        bounds = self._numbers("bands", table)
        stamps = Stamps.start(self.memory, len(self.stream.layers))
        images = self.stream.layers[0][1].result.type.shape[0]
        counted = self.memory.images
        turns = images * plan.bands if counted is None else counted.times(images // counted.most * plan.bands)

        def one_band(turn: ir.Value) -> None:
            image, band = b.divide(turn, plan.bands) if images > 1 else (0, turn)
            _Band(self, image, bounds, b.mul(band, table.shape[1]), stamps).emit()

        b.each(0, turns, one_band)
        return stamps.spent

    def _table(self) -> np.ndarray:
        """Return bands x numbers: the first tile of each layer and the one after the last, then of each ring the first
        row that it has, how many rows on those begin that the next band finds, and how many these are."""
        plan, found = self.stream.plan, []
        for band, tiles in enumerate(plan.tiles):
            row = [bound for bounds in tiles for bound in bounds]
            for ring in (plan.rings[number] for number in self.stream.inside):
                last = min(band + 1, plan.bands - 1)
                row += [ring.starts[band], ring.starts[last] - ring.starts[band], ring.kept[last] * (last > band)]
            found.append(row)
        return np.array(found)

    def _numbers(self, name: str, array: np.ndarray) -> ir.Value:
        """Return constant integers in memory."""
        symbol, type_ = self.memory.kernels.add_global(name, array.astype(np.int32), inline=True)
        return memref.GetGlobalOp(type_, symbol).result


@dataclass(frozen=True)
class _Band:
    """A turn of the loop.

    Attributes:
        bounds: the table of all bands; the band's numbers begin at `place`.
        stamps: of the layers.
    """

    whole: StreamEmission
    image: Index
    bounds: ir.Value
    place: Index
    stamps: Stamps

    @property
    def b(self) -> Builder:
        return self.whole.b

    def emit(self) -> None:
        """Let each layer compute its tiles, then move what the next band reads."""
        layers = self.whole.stream.layers
        views = {held.buffer.memory: self._view(place, held) for place, held in enumerate(self.whole.held.values())}
        for number, call in enumerate(self.whole.calls):
            arguments = [views.get(memory) or unbounded(memory) for memory in call.memories]
            self._compute(number, arguments, layers[number][2])
        for place, held in enumerate(self.whole.held.values()):
            self._move(place, held)

    def _number(self, column: int) -> ir.Value:
        return self.b.load_index(self.bounds, self.b.add(self.place, column))

    def _of_ring(self, place: int, item: int) -> ir.Value:
        return self._number(2 * len(self.whole.calls) + 3 * place + item)

    def _view(self, place: int, held: _Held) -> ir.Value:
        """Return a ring as kernels see it."""
        b, layout = self.b, held.layout
        lost = b.add(b.mul(self._of_ring(place, 0), layout.pitch), b.mul(self.image, held.channels * layout.plane))
        shift = b.mul(lost, -element_bytes(held.buffer.memory.type))
        return memref.ViewOp(unbounded_type(held.buffer.memory), held.root, b.index(shift), []).result

    def _compute(self, number: int, arguments: Sequence[ir.Value], schedule: Schedule) -> None:
        """Call the kernel of a layer for all threads."""
        b, call = self.b, self.whole.calls[number]
        _, tiles = self.whole.stream.plan.tiles[-1][number]  # of an image
        before = b.mul(self.image, tiles)
        first, last = (b.add(self._number(2 * number + side), before) for side in (0, 1))
        count, blocks = schedule.threads, len(call.costs)

        def part(thread: Index) -> None:
            own: list[Index] = [first, last, 0, blocks]
            if count > 1 and schedule.split == "rows":
                rows = b.subtract(b.index(last), b.index(first))
                steps = [b.mul(rows, b.add(thread, side)) for side in (0, 1)]
                own[:2] = [b.add(first, b.divide(step, count)[0]) for step in steps]
            elif count > 1:
                own[2:] = [b.load_index(self.whole.cuts[number], b.add(thread, side)) for side in (0, 1)]
            func.CallOp([], call.name, [*arguments, *(b.index(bound) for bound in own)])
            b.when_equal(thread, 0, lambda: self.stamps.add(number))

        self._share(count, part)

    def _move(self, place: int, held: _Held) -> None:
        """Move the rows that the next band reads to the front of their ring."""
        b, layout = self.b, held.layout
        start, count = (b.mul(self._of_ring(place, item), layout.pitch) for item in (1, 2))
        lanes, ring, threads = self.whole.stream.layers[0][2].lanes, held.buffer.memory, self.whole.threads

        def write(block: ir.Block) -> None:
            emit_move(Builder(block, ring.type.element_type), block.arguments, layout.plane, lanes)

        types = [unbounded_type(ring), *[b.index_type] * 4]
        name = self.whole.memory.kernels.add("ring-move", types, write)
        memory = unbounded(ring)

        def part(thread: Index) -> None:
            ends = [b.divide(b.mul(b.add(thread, side), held.channels), threads)[0] for side in (0, 1)]
            func.CallOp([], name, [memory, b.index(start), b.index(count), *(b.index(end) for end in ends)])

        self._share(threads, part)

    def _share(self, count: int, body: Callable[[Index], None]) -> None:
        """Let so many threads run `body(number)`; all wait for the last."""
        if self.whole.threads == 1:
            body(0)
        else:
            self.b.parallel(count, body)
