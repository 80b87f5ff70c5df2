"""Compile a `pattern` module for this machine and call it, with every byte it must not use made to show.

Memory that the caller gives is full of NaN wherever the compiled code has to write before it reads, and has a margin
of NaN on both sides that must still be there afterwards. With `fenced` a page that cannot be touched follows each
buffer, so that even a read behind its end ends the process: call that in a process of its own.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.codegen import host
from patc.dialects.attributes import Schedule
from patc.parameters import ParameterStore
from patc.passes.base import PassState
from patc.passes.pattern_plan_memory import WEIGHTS
from patc.pipeline import Pipeline
from patc.runtime.native import NativeFunction
from patc.targets import get_target

MARGIN = 256
NAN_BYTE = 0xFF
ELEMENT_BYTES = {"f32": 4, "i64": 8, "i8": 1}

Retile = Callable[[Any, Schedule], Schedule]


def run_native(
    module: ir.Module,
    parameters: ParameterStore,
    inputs: Sequence[np.ndarray],
    *,
    target: str = "host",
    threads: int = 1,
    retile: Retile | None = None,
    fenced: bool = False,
) -> list[np.ndarray]:
    """Compile `@main` and return its results for `inputs`; see `compile_native`."""
    native = compile_native(module, parameters, target=target, threads=threads, retile=retile)
    return native(*inputs, fenced=fenced)


def compile_native(
    module: ir.Module,
    parameters: ParameterStore,
    *,
    target: str = "host",
    threads: int = 1,
    retile: Retile | None = None,
) -> Native:
    """Run `pattern-layout` and what follows it on a module in place, and compile it.

    Args:
        module: pattern ops on tensors, without layouts.
        parameters: the arrays of its `pattern.parameter` ops; the passes add some.
        target: name of a target whose code this machine runs.
        threads: parts that each layer is divided into.
        retile: returns the schedule to use for an op, given the one that was chosen.
    """
    state = PassState(parameters)
    results = list(main_body(module).operations)[-1].operands
    shapes = tuple(tuple(result.type.shape) for result in results)
    pipeline = Pipeline.named("host", target=target, threads=threads)
    names = [item.name for item in pipeline.passes]
    first, scheduled = names.index("pattern-layout"), names.index("pattern-schedule") + 1
    Pipeline(pipeline.passes[first:scheduled]).run(module, state)
    if retile is not None:
        change_schedules(module, retile)
    Pipeline(pipeline.passes[scheduled:]).run(module, state)
    sizes = tuple(_bytes(argument.type) for argument in main_body(module).arguments)
    host.lower_to_llvm(module, get_target(target))
    function = NativeFunction(host.compile_object(module), "main", len(sizes), threaded=threads > 1)
    return Native(function, sizes, shapes, state.parameters[WEIGHTS])


def main_body(module: ir.Module) -> Any:
    """Return the block of `@main`."""
    functions = [op for op in module.body.operations if op.operation.name == "func.func"]
    return next(op for op in functions if op.name.value == "main").regions[0].blocks[0]


def change_schedules(module: ir.Module, retile: Retile) -> None:
    """Replace the schedule of each layer of `@main` by what `retile` makes of it."""
    with module.context:
        for op in main_body(module).operations:
            if "schedule" in op.attributes:
                chosen = Schedule.from_attr(op.attributes["schedule"])
                op.attributes["schedule"] = retile(op, chosen).to_attr()


def _bytes(type_: Any) -> int:
    return type_.shape[0] * ELEMENT_BYTES[str(type_.element_type)]


@dataclass(frozen=True)
class Native:
    """A compiled `@main`.

    Attributes:
        function: takes the addresses of inputs, outputs, time stamps, arena and weights.
        sizes: bytes behind each address.
        shapes: of the outputs.
        weights: the blob.
    """

    function: NativeFunction
    sizes: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    weights: np.ndarray

    @property
    def arena_bytes(self) -> int:
        """Bytes of the arena."""
        return self.sizes[-2]

    def __call__(self, *inputs: np.ndarray, fenced: bool = False) -> list[np.ndarray]:
        """Return the outputs as float32 arrays.

        Raises:
            AssertionError: the code wrote outside its buffers, or to its inputs or weights.
        """
        first = len(inputs)
        own = range(len(self.sizes) - 2, len(self.sizes))  # arena and weights start on a cache line
        make = _Fenced if fenced else _Margined
        memories = [make(size, aligned=number in own) for number, size in enumerate(self.sizes)]
        for memory, array in zip(memories, [*inputs], strict=False):
            memory.fill(array.astype(np.float32))
        memories[-1].fill(self.weights)
        self.function(*(memory.address for memory in memories))
        for memory, array in zip(memories, inputs, strict=False):
            np.testing.assert_array_equal(memory.bytes.view(np.float32), array.astype(np.float32).reshape(-1))
        np.testing.assert_array_equal(memories[-1].bytes, self.weights)
        for number, memory in enumerate(memories):
            assert memory.intact(), f"wrote outside argument {number}"
        outputs = memories[first : first + len(self.shapes)]
        return [
            memory.bytes.view(np.float32).reshape(shape).copy()
            for memory, shape in zip(outputs, self.shapes, strict=True)
        ]


class _Margined:
    """NaN bytes between margins; on a cache line, or on no boundary but that of an element."""

    def __init__(self, size: int, aligned: bool) -> None:
        self._whole = np.full(size + 2 * MARGIN + 64, NAN_BYTE, np.uint8)
        start = MARGIN + -(self._whole.ctypes.data + MARGIN) % 64 + (0 if aligned else 4)
        self._start, self._end = start, start + size
        self.bytes = self._whole[self._start : self._end]

    @property
    def address(self) -> int:
        return int(self.bytes.ctypes.data)

    def fill(self, array: np.ndarray) -> None:
        self.bytes[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    def intact(self) -> bool:
        margins = (self._whole[: self._start], self._whole[self._end :])
        return all((margin == NAN_BYTE).all() for margin in margins)


class _Fenced:
    """NaN bytes that end where a page begins that cannot be touched; aligned ones may end up to 63 bytes before."""

    def __init__(self, size: int, aligned: bool) -> None:
        page = mmap.PAGESIZE
        pages = -(-size // page) * page
        self._map = mmap.mmap(-1, pages + page)
        whole = np.frombuffer(self._map, np.uint8)
        whole[:pages] = NAN_BYTE
        libc = ctypes.CDLL(None, use_errno=True)
        fence = ctypes.c_void_p(whole.ctypes.data + pages)
        if libc.mprotect(fence, ctypes.c_size_t(page), 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
        start = pages - size - ((pages - size) % 64 if aligned else 0)
        self._start = start
        self._whole = whole
        self.bytes = whole[start : start + size]

    @property
    def address(self) -> int:
        return int(self.bytes.ctypes.data)

    def fill(self, array: np.ndarray) -> None:
        self.bytes[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    def intact(self) -> bool:
        return bool((self._whole[: self._start] == NAN_BYTE).all())
