"""The emission site of a layer on CPUs: what an algorithm knows of the layer, and how it calls what it writes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import func, memref, scf

from patc.costs import CoreCosts
from patc.dialects.attributes import Activation
from patc.dialects.joins import Join
from patc.dialects.schedules import Schedule
from patc.passes.algorithms.host.buffers import Buffer, flat_type
from patc.passes.algorithms.host.memory import Memory
from patc.passes.base import PassState
from patc.passes.formats.channel_major import cut_evenly
from patc.passes.formats.layer_weights import require_array
from patc.passes.ir.elements import numpy_type
from patc.passes.ir.planes import is_flat, kernel_plane, row_tiles
from patc.passes.ir.windows import Window
from patc.passes.kernels.builder import Builder
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


Emit: TypeAlias = Callable[[Kernel, list[Any]], None]


@dataclass(frozen=True)
class StoredEpilogue:
    """The epilogue of a layer, with its arrays in memory; see `Epilogue`."""

    bias: ir.Value | None
    residual: Buffer | None
    activation: Activation
    table: ir.Value | None = None
    join: Join = field(default_factory=Join)

    @property
    def memories(self) -> list[ir.Value]:
        residual = [] if self.residual is None else self.residual.memories
        return [*([] if self.bias is None else [self.bias]), *residual, *([] if self.table is None else [self.table])]

    def inside(self, arguments: Iterator[ir.Value]) -> Epilogue:
        bias = None if self.bias is None else next(arguments)
        residual = None if self.residual is None else self.residual.inside(arguments)
        table = None if self.table is None else next(arguments)
        return Epilogue(bias, residual, self.activation, table, self.join)


NO_EPILOGUE = StoredEpilogue(None, None, Activation())


class HostSite:
    """A layer to be computed.

    Attributes:
        op: the layer.
        schedule: how it is computed.
        memory: of the function that calls the layer's kernels.
        tiles: first of the row tiles that are computed, counted through all images, and the one after the last.
    """

    def __init__(self, op: Any, schedule: Schedule, memory: Memory) -> None:
        self.op = op
        self.schedule = schedule
        self.memory = memory
        self.tiles = (0, row_tiles(op, schedule))

    def scheduled(self, schedule: Schedule, tiles: tuple[int, int] | None = None) -> HostSite:
        """Return the site for another schedule of the layer, or for a part of its computation."""
        other = copy.copy(self)
        other.schedule, other.tiles = schedule, tiles or (0, row_tiles(self.op, schedule))
        return other

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
        """Element type of the first result."""
        return self.op.results[0].type.element_type

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
        bias, residual = getattr(self.op, "bias", None), getattr(self.op, "residual", None)
        stored = None if bias is None else self.constant(require_array(self.op, bias, "bias", self.state), bias, "")
        activation, table = Activation.of(self.op), None
        if activation.arrays:
            array = np.array(activation.arrays, numpy_type(self.element)).ravel()
            table = self.constant(array, self.op.result, "activation")
        joined = None if residual is None else self.buffer(residual)
        return StoredEpilogue(stored, joined, activation, table, Join.of(self.op))

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
    ) -> None:
        """Call a kernel for all parts of a layer.

        Args:
            arguments: of the kernel.
            emit: writes the kernel, from its arguments as it sees them.
            costs: of each filter, or block of filters.
            is_small: compile it for little code rather than for little time.
            meets: whether threads, which divide filters, wait for each other after each row tile.
        """
        b, unbound = self.memory.builder, [_unbounded(memory) for each in arguments for memory in _memories(each)]

        def write(block: ir.Block) -> None:
            given = iter(block.arguments)
            seen = [next(given) if isinstance(each, ir.Value) else each.inside(given) for each in arguments]
            emit(Kernel(Builder(block, self.element), Work(*given), self.schedule, self.window, self.costs), seen)

        types = [memory.type for memory in unbound] + [b.index_type] * 4
        name = self.memory.kernels.add(self.schedule.algorithm, types, write, is_small=is_small)
        parts = divide(self.schedule, self.tiles, costs)
        if len(parts) == 1:
            func.CallOp([], name, [*unbound, *(b.index(bound) for bound in parts[0])])
            return
        symbol, type_ = self.memory.kernels.add_global(f"{name}.parts", np.array(parts, np.int32), inline=True)
        bounds = memref.GetGlobalOp(type_, symbol).result

        def share(tile: ir.Value | None) -> None:
            loop = scf.ParallelOp([], [b.index(0)], [b.index(len(parts))], [b.index(1)], [])
            body = loop.regions[0].blocks.append(b.index_type)
            with ir.InsertionPoint(body):
                first = b.mul(body.arguments[0], 4)
                part = [b.load_index(bounds, b.add(first, bound)) for bound in range(0 if tile is None else 2, 4)]
                tiles = [] if tile is None else [tile, b.index(b.add(tile, 1))]
                func.CallOp([], name, [*unbound, *tiles, *part])
                scf.ReduceOp([], 0)

        if meets:
            b.each(*self.tiles, share)
        else:
            share(None)


def _memories(argument: Argument | ir.Value) -> list[ir.Value]:
    return [argument] if isinstance(argument, ir.Value) else argument.memories


def _unbounded(memory: ir.Value) -> ir.Value:
    """Return a memref as kernels see it."""
    kind = flat_type(UNBOUNDED, memory.type.element_type)
    return memref.ReinterpretCastOp(kind, memory, [], [], [], [0], [UNBOUNDED], [1]).result


def divide(schedule: Schedule, tiles: tuple[int, int], costs: Sequence[float]) -> list[tuple[int, int, int, int]]:
    """Return (first tile, last tile, first filter, last filter) of each thread's part, of nearly equal cost.

    Args:
        tiles: the first one, and the one after the last.
        costs: of each filter, or block of filters.
    """
    first, last = tiles
    threads = schedule.threads
    if threads == 1:
        return [(first, last, 0, len(costs))]
    if schedule.split == "rows":
        cuts = [first + (last - first) * part // threads for part in range(threads + 1)]
        return [(cuts[part], cuts[part + 1], 0, len(costs)) for part in range(threads)]
    cuts = cut_evenly(list(costs), threads)
    return [(first, last, cuts[part], cuts[part + 1]) for part in range(threads)]
