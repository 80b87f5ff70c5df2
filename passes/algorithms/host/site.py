"""The emission site of a layer on CPUs: what an algorithm knows of the layer, and how it calls what it writes."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import func, memref

from patc.costs import CoreCosts
from patc.dialects.attributes import Activation
from patc.dialects.joins import Join
from patc.dialects.quantised import Quantisation
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.buffers import Buffer, flat_type
from patc.passes.algorithms.host.memory import Memory
from patc.passes.base import PassState
from patc.passes.formats.channel_major import cut_evenly
from patc.passes.formats.layer_weights import require_array
from patc.passes.ir.elements import WORD, compute_type, memory_type, numpy_type
from patc.passes.ir.planes import is_flat, kernel_plane, row_tiles
from patc.passes.ir.stored import read_scales
from patc.passes.ir.windows import Window
from patc.passes.kernels.builder import Builder, Index
from patc.passes.kernels.host.kernel import Epilogue, Kernel, Work
from patc.targets import Target

# Kernels see every array as this long, so that layers which differ only in channels and kept weights share one. What
# lies behind an array is never touched.
UNBOUNDED = 1 << 30


class Argument(Protocol):
    """What a kernel is called with, as one or several memrefs."""

    @property
    def memories(self) -> list[ir.Value]: ...

    def inside(self, arguments: Iterator[ir.Value]) -> Any:
        """Return it as the kernel sees it, through the next of its arguments."""


@dataclass(frozen=True)
class Number:
    """A number that a kernel knows when it is written, or is called with."""

    value: Index

    @property
    def memories(self) -> list[ir.Value]:
        return [self.value] if isinstance(self.value, ir.Value) else []

    def inside(self, arguments: Iterator[ir.Value]) -> Index:
        return next(arguments) if isinstance(self.value, ir.Value) else self.value


Emit: TypeAlias = Callable[[Kernel, list[Any]], None]
Ends: TypeAlias = Callable[[int], tuple[int, int]]
Part: TypeAlias = tuple[int, int, int, int]  # first tile, last tile, first filter, last filter; the last are behind it
_NOTHING: Part = (0, 0, 0, 0)
_UNEVEN = 1.05  # beyond it both tiles and filters are cut, which calls kernels three times


@dataclass(frozen=True)
class StoredEpilogue:
    """The epilogue of a layer, with its arrays in memory; see `Epilogue`."""

    bias: ir.Value | None
    residual: Buffer | None
    activation: Activation
    table: ir.Value | None = None
    join: Join = field(default_factory=Join)
    scales: ir.Value | None = None

    @property
    def memories(self) -> list[ir.Value]:
        residual = [] if self.residual is None else self.residual.memories
        given = [self.bias, *residual, self.table, self.scales]
        return [memory for memory in given if memory is not None]

    def inside(self, arguments: Iterator[ir.Value]) -> Epilogue:
        bias = None if self.bias is None else next(arguments)
        residual = None if self.residual is None else self.residual.inside(arguments)
        table = None if self.table is None else next(arguments)
        scales = None if self.scales is None else next(arguments)
        return Epilogue(bias, residual, self.activation, table, self.join, scales)


NO_EPILOGUE = StoredEpilogue(None, None, Activation())


class HostSite:
    """A layer to be computed.

    Attributes:
        op: the layer.
        schedule: how it is computed.
        memory: of the function that calls the layer's kernels.
        tiles: first of the row tiles that are computed, counted through all images, and the one after the last.
        images: those of a call, of a dynamic batch; None where all are computed.
    """

    def __init__(self, op: Any, schedule: Schedule, memory: Memory) -> None:
        self.op = op
        self.schedule = schedule
        self.memory = memory
        self.tiles = (0, row_tiles(op, schedule))
        self.images = memory.images

    def scheduled(self, schedule: Schedule, tiles: tuple[int, int] | None = None) -> HostSite:
        """Return the site for another schedule of the layer, or for a part of its computation."""
        other = copy.copy(self)
        other.schedule, other.tiles = schedule, tiles or (0, row_tiles(self.op, schedule))
        return other

    def of_all_images(self) -> HostSite:
        """Return the site for all images, however many a call has."""
        other = copy.copy(self)
        other.images = None
        return other

    def share_of(self, size: int, count: int) -> int:
        """Return how many of some things, which all images have, so many images have."""
        assert self.images is not None, "asked of a dynamic batch"
        return size * count // self.images.most

    def of_call(self, size: int) -> Number:
        """Return how many of some things, of which there are so many for all images, those of a call have."""
        return Number(size if self.images is None else self.images.times(self.share_of(size, 1)))

    @property
    def state(self) -> PassState:
        return self.memory.state

    @property
    def target(self) -> Target:
        return self.memory.kernels.target

    @property
    def costs(self) -> CoreCosts:
        return self.memory.kernels.costs

    @property
    def element(self) -> ir.Type:
        """Element type of the first result in memory."""
        return memory_type(self.op.results[0].type)

    @cached_property
    def window(self) -> Window:
        """What the layer moves over its input; one element where it moves nothing."""
        return Window.of(self.op) if "pads" in self.op.attributes else Window((1, 1))

    @cached_property
    def source(self) -> Buffer:
        """The first operand."""
        return self.buffer(self.op.operands[0])

    @cached_property
    def output(self) -> Buffer:
        """The result; to ask for it allocates it."""
        return self._as_kernel_sees(self.memory.result(self.op.results[0]))

    @cached_property
    def epilogue(self) -> StoredEpilogue:
        """Bias, residual and activation, of those that the layer has.

        Raises:
            PatcError: a bias that is not constant.
        """
        bias = getattr(self.op, "bias", None)
        array = None if bias is None else require_array(self.op, bias, "bias", self.state)
        return self.epilogue_with(None if array is None else self.constant(array, bias, ""))

    def epilogue_with(self, stored: ir.Value | None) -> StoredEpilogue:
        """Return the epilogue with another bias, which is in memory."""
        residual = getattr(self.op, "residual", None)
        activation, table = Activation.of(self.op), None
        if activation.arrays:
            array = np.array(activation.arrays, numpy_type(compute_type(self.op.result.type)))
            if Quantisation.of(self.op.result.type) is not None:  # whole words
                array = np.pad(array, ((0, 0), (0, -array.shape[1] % WORD)))
            table = self.constant(array.ravel(), self.op.result, "activation")
        joined = None if residual is None else self.buffer(residual)
        scales = read_scales(self.op)
        factors = None if scales is None else self.constant(scales, self.op.weight, "scales")
        return StoredEpilogue(stored, joined, activation, table, Join.of(self.op), factors)

    def buffer(self, value: ir.Value) -> Buffer:
        """Return an operand that is an activation."""
        return self._as_kernel_sees(self.memory.buffer(value))

    def constant(self, array: np.ndarray, origin: ir.Value, role: str) -> ir.Value:
        """Return an array in memory; see `Memory.constant`."""
        return self.memory.constant(array, origin, role)

    def _as_kernel_sees(self, buffer: Buffer) -> Buffer:
        """Return a tensor that the layer reads or writes; see `kernel_plane`."""
        if not is_flat(self.op) or buffer.shape[2:] != tuple(self.op.result.type.shape[2:]):
            return buffer
        return buffer.flat(kernel_plane(self.op, self.schedule.row_parts)[0])

    def call(
        self,
        arguments: Sequence[Argument | ir.Value],
        emit: Emit,
        costs: Sequence[float],
        *,
        is_small: bool = False,
        meets: bool = False,
        any_part: bool = False,
        at: tuple[Index, Index] | None = None,
        ends: Ends | None = None,
    ) -> None:
        """Call a kernel for all parts of a layer.

        Args:
            arguments: of the kernel.
            emit: writes the kernel, from its arguments as it sees them.
            costs: of each filter, or block of filters.
            at: the row tiles, known where the code runs, of which threads divide the filters.
            ends: returns, for as many images of a dynamic batch, the row tile and the filter to end before; None where
                each image has as many row tiles, and all filters.
            is_small: compile it for little code rather than for little time.
            meets: whether threads, which divide filters, wait for each other after each row tile.
            any_part: whether parts may be of some row tiles and of some filters; else they are of all tiles or of all
                filters.
        """
        name, memories = self._kernel(arguments, emit, is_small=is_small)
        b, unbound = self.memory.builder, [unbounded(memory) for memory in memories]
        shares = self._shares(costs, ends if at is None else _all_of(costs), any_part)
        if len(shares) == len(shares[0]) == 1:
            tiles = list(at or shares[0][0][0][:2])
            func.CallOp([], name, [*unbound, *(b.index(bound) for bound in (*tiles, *shares[0][0][0][2:]))])
            return
        threads, pieces = len(shares[-1]), len(shares[-1][0])
        bounds, before = self._table(name, shares)

        def part(thread: Index, tiles: list[Index]) -> None:
            def call(piece: Index) -> None:
                first = b.add(b.mul(b.add(b.mul(thread, pieces), piece), 4), before)
                own = [b.load_index(bounds, b.add(first, bound)) for bound in range(len(tiles), 4)]
                func.CallOp([], name, [*unbound, *(b.index(bound) for bound in (*tiles, *own))])

            b.repeat(pieces, call)

        def share(tiles: list[Index]) -> None:
            if threads == 1:
                part(0, tiles)
                return
            b.parallel(threads, lambda thread: part(thread, tiles))

        if meets:
            b.each(*self.tiles, lambda tile: share([tile, b.add(tile, 1)]))
        else:
            share(list(at or ()))

    def call_in_groups(self, arguments: Sequence[Argument | ir.Value], emit: Emit, costs: Sequence[float]) -> None:
        """Call a kernel for all parts of a layer on rows, whose tiles are groups of `schedule.rows` of them."""
        rows = self.output.shape[0]
        size = min(self.schedule.rows, rows)

        def ends(count: int) -> tuple[int, int]:
            return ceil_div(self.share_of(rows, count), size), len(costs)

        self.scheduled(self.schedule, (0, ceil_div(rows, size))).call(arguments, emit, costs, ends=ends)

    def _shares(self, costs: Sequence[float], ends: Ends | None, any_part: bool) -> list[list[tuple[Part, ...]]]:
        """Return the parts of each thread; of a dynamic batch for each number of images, from none on."""
        first, last = self.tiles
        images = self.images
        if images is None:
            return [divide(self.schedule, self.tiles, costs, any_part=any_part)]
        most = images.most
        ends = ends or (lambda count: (first + self.share_of(last - first, count), len(costs)))
        found = []
        for count in range(most + 1):
            tile, filter_ = ends(max(count, 1))
            found.append(divide(self.schedule, (first, tile), costs[:filter_], any_part=any_part))
        if all(share == found[-1] for share in found):
            return found[-1:]
        pieces = max(len(share[0]) for share in found)
        return [[(*parts, *[_NOTHING] * (pieces - len(parts))) for parts in share] for share in found]

    def _table(self, name: str, shares: Sequence[Sequence[tuple[Part, ...]]]) -> tuple[ir.Value, Index]:
        """Return the parts of threads in memory, and where those of the call's images begin."""
        numbers = np.array(shares, np.int32)
        symbol, type_ = self.memory.kernels.add_global(f"{name}.parts", numbers.reshape(-1, 4), inline=True)
        with ir.InsertionPoint.at_block_begin(self.memory.block):  # the call may be in a loop
            bounds = memref.GetGlobalOp(type_, symbol).result
        images = self.images
        return bounds, images.times(numbers[0].size) if images is not None and len(shares) > 1 else 0

    def _kernel(
        self, arguments: Sequence[Argument | ir.Value], emit: Emit, *, is_small: bool = False
    ) -> tuple[str, list[ir.Value]]:
        """Return the name of a kernel, and what it is called with but for its part of the layer."""
        memories = [memory for each in arguments for memory in _memories(each)]

        def write(block: ir.Block) -> None:
            given = iter(block.arguments)
            seen = [next(given) if isinstance(each, ir.Value) else each.inside(given) for each in arguments]
            emit(Kernel(Builder(block, self.element), Work(*given), self.schedule, self.window, self.costs), seen)

        types = [unbounded_type(memory) for memory in memories] + [self.memory.builder.index_type] * 4
        return self.memory.kernels.add(self.schedule.algorithm, types, write, is_small=is_small), memories


def _memories(argument: Argument | ir.Value) -> list[ir.Value]:
    return [argument] if isinstance(argument, ir.Value) else argument.memories


def _all_of(costs: Sequence[float]) -> Ends:
    """Return the end of one tile and of all filters, for any number of images."""
    return lambda count: (1, len(costs))


def unbounded_type(memory: ir.Value) -> ir.Type:
    """Return the type of a memref as kernels see it, or that of a number."""
    if isinstance(memory.type, ir.IndexType):
        return memory.type
    return flat_type(UNBOUNDED, memory.type.element_type)


def unbounded(memory: ir.Value) -> ir.Value:
    """Return a memref as kernels see it, or a number."""
    if isinstance(memory.type, ir.IndexType):
        return memory
    return memref.ReinterpretCastOp(unbounded_type(memory), memory, [], [], [], [0], [UNBOUNDED], [1]).result


def divide(
    schedule: Schedule, tiles: tuple[int, int], costs: Sequence[float], *, any_part: bool = False
) -> list[tuple[Part, ...]]:
    """Return the parts of each thread, of nearly equal cost: equally many for each, of which some may be empty.

    Args:
        tiles: the first one, and the one after the last.
        costs: of each filter, or block of filters.
        any_part: cut both tiles and filters where shares are uneven otherwise.
    """
    first, last = tiles
    threads, by_rows = schedule.threads, schedule.split == "rows"
    if threads == 1:
        return [((first, last, 0, len(costs)),)]
    if by_rows:
        cuts = [first + (last - first) * part // threads for part in range(threads + 1)]
        shares: list[tuple[Part, ...]] = [((cuts[part], cuts[part + 1], 0, len(costs)),) for part in range(threads)]
    else:
        cuts = cut_evenly(list(costs), threads)
        shares = [((first, last, cuts[part], cuts[part + 1]),) for part in range(threads)]
    if not any_part or unevenness(shares, costs) <= _UNEVEN:
        return shares
    rows = [1.0] * (last - first)
    if by_rows:
        return [tuple((first + a, first + b, c, d) for a, b, c, d in each) for each in _cut_both(rows, costs, threads)]
    return [tuple((first + a, first + b, c, d) for c, d, a, b in each) for each in _cut_both(costs, rows, threads)]


def unevenness(shares: Sequence[Sequence[Part]], costs: Sequence[float]) -> float:
    """Return the work of the thread that has most, in that of even shares."""
    work = [sum((last - first) * sum(costs[low:high]) for first, last, low, high in parts) for parts in shares]
    return max(work) * len(work) / max(sum(work), 1e-9)


def _cut_both(outer: Sequence[float], inner: Sequence[float], threads: int) -> Iterator[tuple[Part, ...]]:
    """Yield the parts of each thread, three ranges of outer and inner elements: the rest of an element, whole ones, and
    the beginning of another one. What a pair of elements costs is the product of their costs."""
    outside, inside = (np.concatenate([[0.0], np.cumsum(costs)]) for costs in (outer, inner))
    points = [(0, 0)]
    for thread in range(1, threads):
        place = outside[-1] * thread / threads
        whole = int(np.searchsorted(outside, place, "right")) - 1
        rest = (place - outside[whole]) / max(outside[whole + 1] - outside[whole], 1e-9) * inside[-1]
        points.append(max(points[-1], divmod(whole * len(inner) + int(np.argmin(np.abs(inside - rest))), len(inner))))
    points.append((len(outer), 0))
    for (begin, start), (end, stop) in itertools.pairwise(points):
        if begin == end:
            yield (begin, end + (stop > start), start, stop), _NOTHING, _NOTHING
        else:
            whole = begin + (start > 0)
            yield (begin, whole, start, len(inner)), (whole, end, 0, len(inner)), (end, end + (stop > 0), 0, stop)
