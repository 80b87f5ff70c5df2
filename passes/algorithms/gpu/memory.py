"""Where the tensors of a net are on a GPU: activations in an arena, constants in a blob of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import Layout
from patc.dialects.quantised import Quantisation
from patc.dialects.schedules import Schedule
from patc.passes.base import PassState, fail
from patc.passes.ir.arena import ALIGNMENT, Lifetime, WeightPool, describe_buffers, place, round_up
from patc.passes.ir.constants import constant_name, read_constant
from patc.passes.ir.elements import WORD, element_bytes, memory_shape, memory_type, mlir_type
from patc.passes.ir.functions import RESHAPES, through_reshapes
from patc.passes.ir.planes import as_planes
from patc.passes.ir.records import read_record
from patc.passes.ir.views import find_parts, is_view
from patc.passes.ir.windows import Window
from patc.passes.kernels.gpu.kernel import LANES, Memory, WeightsPlace
from patc.passes.kernels.gpu.layer import GpuArray
from patc.passes.kernels.gpu.tensors import GpuTensor

_WINDOWS = 256  # what windows start on a multiple of: any device binds buffers from there


class Weights:
    """The constant arrays of all functions, each on a cache line.

    A kernel sees a window of them, since devices need not bind more than 128 MB at once. It is the only one where all
    fit.

    Attributes:
        largest: most bytes of a buffer.
        seen: bytes of a window, of more only where a kernel reads more.
    """

    def __init__(self, largest: int, seen: int, pool: WeightPool) -> None:
        self.largest, self.seen = largest, seen
        self._pool = pool
        self._starts: dict[object, int] = {}
        self._sizes: dict[int, int] = {}  # of arrays, by their first byte
        self._windows: dict[int, int] = {}  # the bytes that are read of each, by its first one
        self._slack = 0
        self.reserve(ALIGNMENT)

    def add(self, key: object, array: np.ndarray) -> int:
        """Return the first byte of an array; what has the same key is there once, or again where the other is too far
        away for a kernel that reads others."""
        is_far = self._pool.size > self.seen and self._pool.size - self._starts.get(key, 0) > self.seen // 4
        if key not in self._starts or is_far:
            self._starts[key] = self._pool.add(array)
            self._sizes[self._starts[key]] = array.nbytes
        return self._starts[key]

    def window(self, places: Sequence[WeightsPlace]) -> int:
        """Return where the window starts in which a kernel finds some places."""
        if not places:
            return 0
        low = min(place.start for place in places)
        high = max(place.start + self._sizes[place.start] for place in places) + self._slack
        start, step = 0, self.seen // 2 // _WINDOWS * _WINDOWS
        if high > self.seen:
            start = low // step * step if high - low // step * step <= self.seen else low // _WINDOWS * _WINDOWS
        self._windows[start] = max(self._windows.get(start, 0), high - start)
        return start

    def windows(self, total: int) -> list[tuple[int, int]]:
        """Return the first byte of each window, and its bytes, of weights of `total` bytes."""
        sizes = {start: min(total - start, max(self.seen, read)) for start, read in self._windows.items()}
        return sorted(sizes.items()) or [(0, total)]

    def reserve(self, slack: int) -> None:
        """Leave room behind the last array, which is read over its end."""
        self._slack = max(self._slack, slack)
        self._pool.reserve(slack)


class NetMemory:
    """The memory of one function: inputs, activations and results have places in the arena, and so have constants that
    are returned.

    Args:
        scratch: bytes that each layer needs for itself.

    Attributes:
        arena_bytes: of the arena.

    Raises:
        PatcError: the arena is larger than a buffer may be.
    """

    def __init__(self, function: Any, weights: Weights, state: PassState, scratch: Mapping[ir.Operation, int]) -> None:
        self.state = state
        self._function = function
        self._weights = weights
        block = function.regions[0].blocks[0]
        ops = list(block.operations)
        order = {op.operation: number for number, op in enumerate(ops)}
        returned = dict.fromkeys(map(through_reshapes, ops[-1].operands))
        values = list(block.arguments) + [value for op in ops if "schedule" in op.attributes for value in op.results]
        values += [value for value in returned if value not in values]
        self._parts = find_parts(block)
        together: dict[ir.Value, list[ir.Value]] = {}
        for value in values:
            together.setdefault(self._parts[value].root if value in self._parts else value, []).append(value)
        lifetimes = []
        for root, some in together.items():
            touched = [0 if isinstance(value.owner, ir.Block) else order[value.owner.operation] for value in some]
            touched += [order[user] for value in some for user, _ in _readers(value)]
            touched += [len(ops)] * any(value in returned for value in some)
            lifetimes.append(Lifetime(_size(root), min(touched), max(touched)))
        needing = [op for op, needed in scratch.items() if needed]
        lifetimes += [Lifetime(scratch[op], order[op], order[op]) for op in needing]
        starts, size = place(lifetimes)
        state.buffers = describe_buffers(lifetimes, starts, [order[op] for op in scratch])
        self._starts = dict(zip(together, starts, strict=False))
        self._scratch = dict(zip(needing, starts[len(together) :], strict=True))
        self.arena_bytes = round_up(size + max(map(_overrun, values), default=0))
        if self.arena_bytes > weights.largest:
            raise fail(function, f"activations of at most {weights.largest} bytes", self.arena_bytes)

    @property
    def seen_bytes(self) -> int:
        """Bytes of the weights that a kernel sees at once."""
        return self._weights.seen

    def start(self, value: ir.Value) -> int:
        """Return the first byte of a value in the arena."""
        value = through_reshapes(value)
        if value not in self._parts:
            return self._starts[value]
        part, plane = self._parts[value], Layout.of(value.type).plane
        planes = part.channel if Quantisation.of(value.type) is None else part.channel // WORD
        return self._starts[part.root] + planes * plane * element_bytes(value.type)

    def scratch(self, op: Any) -> int:
        """Return the first byte in the arena of what a layer has for itself; 0 where it needs nothing."""
        return self._scratch.get(op.operation, 0)

    def tensor(self, value: ir.Value) -> GpuTensor:
        """Return an activation, or a constant in its place."""
        root = through_reshapes(value)
        array = read_constant(root, self.state)
        if array is None:
            memory, start = Memory.ARENA, self.start(root)
        else:
            memory, start = Memory.WEIGHTS, self.constant(array, root, "").start
            self._weights.reserve(_overrun(root))
        shape = memory_shape(value.type)
        layout = Layout.of(value.type) if len(shape) == 4 else Layout.packed(1, *shape[-1:] or (1,))
        images, channels, height, width = as_planes(shape)
        planes = memory_shape(self._parts[root].root.type)[1] if root in self._parts and root == value else channels
        size, quantisation = (images, channels, height, width), Quantisation.of(value.type)
        return GpuTensor(memory, start, memory_type(value.type), *size, layout, planes, quantisation)

    def constant(self, array: np.ndarray, origin: ir.Value, role: str) -> GpuArray:
        """Return an array in the buffer of weights.

        Args:
            origin: the constant that it was made from.
            role: what sets it apart from other arrays of that constant.

        Raises:
            PatcError: the weights are larger than a buffer may be.
        """
        key = (constant_name(origin) or origin, role, array.nbytes)
        start = self._weights.add(key, array)
        if start + array.nbytes > self._weights.largest:
            raise fail(self._function, f"weights of at most {self._weights.largest} bytes", start + array.nbytes)
        return GpuArray(start, mlir_type(array.dtype))


def _readers(value: ir.Value) -> list[tuple[ir.Operation, ir.Value]]:
    """Return the ops that read the memory of a value, each with the value that it reads: one of another shape maybe."""
    found = []
    for use in value.uses:
        user = use.owner.operation
        is_seen_through = user.name in RESHAPES or is_view(user.opview)
        found += [(user, value), *_readers(user.results[0])] if is_seen_through else [(user, value)]
    return found


def _size(value: ir.Value) -> int:
    """Return the bytes of a tensor, its halo included."""
    type_ = value.type
    shape = memory_shape(type_)
    planes = shape[0] * shape[1] * Layout.of(type_).plane if len(shape) == 4 else 0
    return element_bytes(type_) * (planes or int(np.prod(shape, dtype=np.int64)))


def _overrun(value: ir.Value) -> int:
    """Return how many bytes behind a tensor its readers may touch: rows and columns that are cut off later."""
    elements = ALIGNMENT
    for user, read in _readers(value):
        if "schedule" not in user.attributes:
            continue
        shape = memory_shape(read.type)
        layout = Layout.of(read.type) if len(shape) == 4 else Layout.packed(1, *shape[-1:] or (1,))
        rows = read_record(user, Schedule).rows
        window = Window.of(user.opview) if "strides" in user.attributes else Window((1, 1))
        height, width = (window.dilations[axis] * window.kernel[axis] for axis in (0, 1))
        down, right = window.strides
        elements = max(elements, (rows * down + height) * layout.pitch + LANES * right + width + ALIGNMENT)
    return element_bytes(value.type) * elements
