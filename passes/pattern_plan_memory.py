"""`pattern-plan-memory`: one static arena for activations and one blob for weights, both from the caller.

Buffers whose lives do not overlap share memory (best fit by size, the largest first), so that nothing is allocated at
run time and neighbouring layers stay in cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, memref

from patc.dialects.schedules import Buffer
from patc.passes.base import Pass, PassState
from patc.passes.ir.arena import ALIGNMENT, WEIGHTS, Lifetime, describe_buffers, lifetime_of, place
from patc.passes.ir.elements import numpy_type
from patc.passes.ir.functions import CLOCK, ENTRY, defined_functions, is_stamp, top_level_ops


@dataclass(frozen=True)
class PatternPlanMemory(Pass):
    """Place every buffer in one arena and every constant array in one blob.

    Requires: functions on static memrefs (`pattern-specialize`).
    Ensures: public functions have two more arguments, `arena` and `weights` (memref<?xi8> of the sizes they need); no
        `memref.alloc` and no `memref.global` is left in use; the parameter store holds `weights`.

        %0 = memref.alloc() : memref<1024xf32>
        %1 = memref.get_global @w : memref<64xf32>
      becomes
        %0 = memref.view %arena[%c0][] : memref<8192xi8> to memref<1024xf32>
        %1 = memref.view %weights[%c64][] : memref<320xi8> to memref<64xf32>

    Idempotent: a module without allocations and globals is left alone.
    """

    name: ClassVar[str] = "pattern-plan-memory"

    def run(self, module: ir.Module, state: PassState) -> None:
        functions = [function for function in defined_functions(module) if _has_memory(function)]
        if functions:
            for op in [op for function in functions for op in _find(function, "memref.get_global")]:
                if next(iter(op.results[0].uses), None) is None:
                    op.operation.erase()  # packed for all that reads it
            globals_ = [op for function in functions for op in _find(function, "memref.get_global")]
            starts = _gather(module, globals_, state)
            state.parameters[WEIGHTS] = blob = state.pool.blob()
            for function in functions:
                state.buffers = _plan_function(function, starts, len(blob))
        for op in list(module.body.operations):
            if op.operation.name == "memref.global":
                op.operation.erase()


def _has_memory(function: Any) -> bool:
    """Whether a function has buffers or constants to place, or is one of those that are called with memory for them."""
    named = any(_find(function, name) for name in ("memref.alloc", "memref.get_global"))
    return named or ENTRY in function.attributes


def _find(function: Any, name: str) -> list[Any]:
    """Return the ops of the function's top level that have this name."""
    return [op for op in top_level_ops(function) if op.operation.name == name]


def _plan_function(function: Any, starts: dict[str, int], weight_bytes: int) -> tuple[Buffer, ...]:
    """Give a function its memory, and return what lies where in the arena."""
    block = function.regions[0].blocks[0]
    allocations, globals_ = _find(function, "memref.alloc"), _find(function, "memref.get_global")
    order = {op.operation: number for number, op in enumerate(block.operations)}
    lifetimes = [_lifetime(op, order) for op in allocations]
    offsets, arena_bytes = place(lifetimes)
    stamps = [order[op.operation] for op in _find(function, "func.call") if op.callee.value == CLOCK]
    buffers = describe_buffers(lifetimes, offsets, stamps[1:])
    i8 = ir.IntegerType.get_signless(8)
    types = [ir.MemRefType.get([max(size, ALIGNMENT)], i8) for size in (arena_bytes, weight_bytes)]
    names = ("arena", "weights")
    arena, weights = (
        block.add_argument(type_, ir.Location.name(name)) for type_, name in zip(types, names, strict=True)
    )
    inputs = [argument.type for argument in block.arguments]
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(inputs, []))
    if ENTRY in function.attributes:
        del function.attributes[ENTRY]
    for op, offset in zip(allocations, offsets, strict=True):
        _replace_by_view(op, arena, offset)
    for op in globals_:
        _replace_by_view(op, weights, starts[op.attributes["name"].value])
    return buffers


def _lifetime(op: Any, order: dict[ir.Operation, int]) -> Lifetime:
    """Return when a buffer is used. The thread that takes time stamps writes them while others are in layers behind
    (`pattern-parallelize`): what holds those is for nothing else."""
    lifetime = lifetime_of(op, order)
    holds_stamps = is_stamp(op.results[0].type.element_type) and any(
        use.owner.operation.name == "memref.store" for use in op.results[0].uses
    )
    return replace(lifetime, first=0, last=len(order)) if holds_stamps else lifetime


def _replace_by_view(op: Any, memory: ir.Value, offset: int) -> None:
    with ir.InsertionPoint(op), op.location:
        shift = arith.ConstantOp(ir.IndexType.get(), offset).result
        view = memref.ViewOp(op.results[0].type, memory, shift, []).result
    op.results[0].replace_all_uses_with(view)
    op.operation.erase()


def _gather(module: ir.Module, globals_: list[Any], state: PassState) -> dict[str, int]:
    """Return the offset of each global in the blob."""
    definitions = {
        op.attributes["sym_name"].value: op for op in module.body.operations if op.operation.name == "memref.global"
    }
    names = dict.fromkeys(op.attributes["name"].value for op in globals_)
    return {name: state.pool.add(_values(definitions[name], state)) for name in names}


def _values(definition: Any, state: PassState) -> np.ndarray:
    if "initial_value" not in definition.attributes:
        return state.parameters[definition.attributes["sym_name"].value]
    attr = definition.attributes["initial_value"]
    element = numpy_type(attr.type)
    if attr.is_splat:
        return np.full(attr.type.shape, attr.get_splat_value().value, element)
    return np.array(attr).astype(element, copy=False)
