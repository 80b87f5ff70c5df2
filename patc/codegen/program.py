"""From a module of loops and memory to a program that can be saved and run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.codegen import aarch64, host
from patc.layers import LayerReport
from patc.passes.base import PassState
from patc.passes.ir.arena import WEIGHTS
from patc.passes.ir.functions import defined_functions
from patc.runtime.artefact import digest_weights
from patc.runtime.description import describe, interface
from patc.runtime.object_code import INTERFACE
from patc.runtime.program import ENTRY, Program, TensorInfo
from patc.targets import Target

# From a module of loops and memory, which is lowered in place, and a target to the bytes of `Program.code`.
Generate = Callable[[ir.Module, Target], bytes]


def find_main(module: ir.Module) -> Any:
    """Return the function that a program runs, or None."""
    named = (function for function in defined_functions(module) if function.attributes["sym_name"].value == ENTRY)
    return next(named, None)


def compile_code(module: ir.Module, target: Target) -> bytes:
    """Return an object file with `main`."""
    if target.is_aarch64 and target.cpu:
        return aarch64.emit_object(aarch64.optimize(aarch64.lower_to_llvm_ir(module, target), target), target)
    host.lower_to_llvm(module, target)
    return host.compile_object(module)


def generate_program(
    module: ir.Module,
    state: PassState,
    *,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    structure: Any,
    target: Target,
    threads: int,
    layers: Sequence[LayerReport],
    generate: Generate = compile_code,
) -> Program:
    """Compile what the last pass made of a model, by `generate`; see `Program` for the other arguments.

    The module is lowered in place, and `state` keeps no parameter but the weights.
    """
    arguments = ir.FunctionType(find_main(module).attributes["function_type"].value).inputs
    # After the inputs, the outputs and the time stamps `pattern-plan-memory` adds the arena and the weights, but a
    # model that needs neither has none.
    memories = arguments[len(inputs) + len(outputs) + 1 :]
    weights = state.parameters[WEIGHTS] if memories else np.zeros(0, np.uint8)
    # Code generation takes the most memory: what else is left of the weights goes before it starts.
    state.parameters.keep_only({WEIGHTS})
    program = Program(
        code=b"",
        weights=weights,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        structure=structure,
        arena_bytes=ir.MemRefType(memories[0]).shape[0] if memories else 0,
        backend=target.backend,
        target=target.name,
        features=target.features,
        threads=threads,
        layers=tuple(layers),
    )
    state_interface(module, interface(describe(program), digest_weights(weights)))
    return replace(program, code=generate(module, target))


def state_interface(module: ir.Module, stated: bytes) -> None:
    """Add the constant by which a loader sees what the code was compiled for."""
    numbers = ", ".join(map(str, np.frombuffer(stated, "<i8")))
    count = len(stated) // 8
    text = f"llvm.mlir.global external constant @{INTERFACE}(dense<[{numbers}]> : tensor<{count}xi64>)"
    with module.context, ir.Location.unknown():
        module.body.append(ir.Operation.parse(f"{text} : !llvm.array<{count} x i64>"))
