"""From a module of loops and memory to a program that can be saved and run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.layers import unnamed_layers
from patc.passes.base import PassState
from patc.passes.ir.arena import WEIGHTS
from patc.passes.ir.elements import element_bytes, numpy_type
from patc.passes.ir.functions import defined_functions, walk_ops
from patc.runtime.object_code import INTERFACE
from patc.runtime.program import ENTRY, Program


def find_main(module: ir.Module) -> Any:
    """Return the function that a program runs, or None."""
    named = (function for function in defined_functions(module) if function.attributes["sym_name"].value == ENTRY)
    return next(named, None)


def complete_program(module: ir.Module, state: PassState, program: Program) -> Program:
    """Return what the last pass made of a model for a CPU; see `patc.backends.base.Backend.complete`.

    Raises:
        PatcError: @main does not take what the passes for CPUs let it take, or wants threads that there are not.
    """
    main = find_main(module)
    arguments = ir.FunctionType(main.attributes["function_type"].value).inputs
    tensors = (*program.inputs, *program.outputs)
    counted = [place for place, each in enumerate(arguments) if isinstance(each, ir.IndexType)] == [len(tensors) + 1]
    if counted:
        arguments = [*arguments[: len(tensors) + 1], *arguments[len(tensors) + 2 :]]
    sizes = [memory_bytes(argument) for argument in arguments]
    if len(sizes) <= len(tensors) or None in sizes or sizes[: len(tensors)] != [info.nbytes for info in tensors]:
        taken = f"the memory of {len(program.inputs)} inputs and {len(program.outputs)} outputs, and of time stamps"
        found = ", ".join(map(str, arguments)) or "nothing"
        raise PatcError(f"expected @{ENTRY} to take {taken}, got {found}", main.location)
    if program.threads == 1 and any(op.operation.name == "omp.parallel" for op in walk_ops(main)):
        raise PatcError("expected threads, among which the layers are divided already, got 1", main.location)
    # After the inputs, the outputs, the time stamps and, of any number of images, their number `pattern-plan-memory`
    # adds the arena and the weights, but a model that needs neither has none.
    memories = arguments[len(tensors) + 1 :]
    program = replace(program, counts_images=counted)
    if not program.layers:
        stamps = ir.MemRefType(arguments[len(tensors)]).shape[0]
        program = replace(program, layers=unnamed_layers(stamps - 1))
    program = replace(program, buffers=state.buffers)
    if memories:
        arena_bytes = ir.MemRefType(memories[0]).shape[0]
        program = replace(program, weights=state.parameters[WEIGHTS], arena_bytes=arena_bytes)
    return program


def memory_bytes(type_: ir.Type) -> int | None:
    """Return the size of a memref of one dimension, of elements as tensors have them; None for another type."""
    if not isinstance(type_, ir.MemRefType) or type_.rank != 1 or not type_.has_static_shape:
        return None
    return None if numpy_type(type_) is None else type_.shape[0] * element_bytes(type_)


def state_interface(module: ir.Module, stated: bytes) -> None:
    """Add the constant by which a loader sees what the code was compiled for."""
    numbers = ", ".join(map(str, np.frombuffer(stated, "<i8")))
    count = len(stated) // 8
    text = f"llvm.mlir.global external constant @{INTERFACE}(dense<[{numbers}]> : tensor<{count}xi64>)"
    with module.context, ir.Location.unknown():
        module.body.append(ir.Operation.parse(f"{text} : !llvm.array<{count} x i64>"))
