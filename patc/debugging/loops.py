"""Run loops on memory as they stand, each buffer alone and full of NaN before something is written there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.codegen import host
from patc.codegen.program import find_main
from patc.debugging.cuts import set_signature
from patc.parameters import ParameterStore
from patc.passes.ir.arena import WEIGHTS
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.functions import CLOCK, top_level_ops
from patc.passes.ir.modules import clone_module
from patc.runtime.native import NativeFunction
from patc.runtime.program import ENTRY
from patc.sources import module_source
from patc.targets import get_target

_MARGIN = 4096  # bytes before and behind a buffer: a vector may read more than it uses
_NAN = 0xFF


def compute_loops(module: ir.Module, parameters: ParameterStore, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of @main on memory, planned or not, without threads; module and parameters stay as they are.

    Raises:
        PatcError: it cannot be lowered to code for this machine.
    """
    work = clone_module(module)
    outputs = module_source(work, parameters).outputs
    main = find_main(work)
    block = main.regions[0].blocks[0]
    with work.context, ir.Location.unknown():
        buffers = [_filled(array) for array in inputs]
        # Behind inputs and outputs are time stamps and, where memory is planned, the arena and the weights.
        buffers += [_empty(argument.type) for argument in list(block.arguments)[len(inputs) :]]
        if len(buffers) > len(inputs) + len(outputs) + 1:
            buffers[-1] = _filled(parameters[WEIGHTS])
        buffers += _take_buffers(work, main, parameters)
        _stop_clock(main)
        set_signature(main)
    host.lower_to_llvm(work, get_target("host"))
    code = host.compile_object(work)
    NativeFunction(code, ENTRY, len(buffers), threads=1)(*(buffer.ctypes.data for buffer in buffers))
    made = buffers[len(inputs) : len(inputs) + len(outputs)]
    return [
        buffer[: info.nbytes].view(info.dtype).reshape(info.shape) for buffer, info in zip(made, outputs, strict=True)
    ]


def _take_buffers(module: ir.Module, main: Any, parameters: ParameterStore) -> list[np.ndarray]:
    """Turn what a function allocates, and arrays of the store, into arguments, and return their memory."""
    buffers: list[np.ndarray] = []
    for op in list(top_level_ops(main)):
        name = op.operation.name
        key = op.attributes["name"].value if name == "memref.get_global" else ""
        if name != "memref.alloc" and key not in parameters:
            continue
        buffers.append(_filled(parameters[key]) if key else _empty(op.results[0].type))
        op.results[0].replace_all_uses_with(main.regions[0].blocks[0].add_argument(op.results[0].type, op.location))
        op.operation.erase()
    for op in list(module.body.operations):
        if op.operation.name == "memref.global" and op.attributes["sym_name"].value in parameters:
            op.operation.erase()
    return buffers


def _stop_clock(main: Any) -> None:
    """Put a constant where the time is asked for."""
    for op in list(top_level_ops(main)):
        if op.operation.name == "func.call" and op.callee.value == CLOCK:
            with ir.InsertionPoint(op):
                now = arith.ConstantOp(op.results[0].type, ir.IntegerAttr.get(op.results[0].type, 0)).result
            op.results[0].replace_all_uses_with(now)
            op.operation.erase()


def _empty(type_: ir.Type) -> np.ndarray:
    """Return memory for a memref that nothing was written to."""
    size = int(np.prod(ir.MemRefType(type_).shape)) * element_bytes(type_)
    return _buffer(size)


def _filled(array: np.ndarray) -> np.ndarray:
    """Return memory with an array in it."""
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    buffer = _buffer(len(data))
    buffer[:] = data
    return buffer


def _buffer(size: int) -> np.ndarray:
    space = np.full(size + 2 * _MARGIN + 64, _NAN, np.uint8)
    start = -(space.ctypes.data + _MARGIN) % 64 + _MARGIN
    return space[start : start + size]
