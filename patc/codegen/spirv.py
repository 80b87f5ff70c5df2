"""SPIR-V bytes and the list of dispatches, from what `pattern-to-spirv` left."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import gpu
from torch_mlir.passmanager import PassManager

from patc.codegen.program import find_main
from patc.diagnostics import PatcError
from patc.layers import unnamed_layers
from patc.passes.algorithms.gpu.launches import CONTINUES
from patc.passes.base import PassState
from patc.passes.ir.arena import WEIGHTS
from patc.passes.ir.functions import top_level_ops
from patc.passes.pattern_map_to_gpu import INPUTS, OUTPUTS, WINDOWS
from patc.passes.pattern_to_spirv import shared_bytes, spirv_name, target_environment
from patc.runtime.gpu_code import Dispatch, GpuCode, GpuKernel
from patc.runtime.program import Program


def complete_gpu_program(module: ir.Module, state: PassState, program: Program) -> Program:
    """Return the program of a module of launches and SPIR-V modules; see `patc.backends.base.Backend.complete`."""
    main = find_main(module)
    arena = main.regions[0].blocks[0].arguments[0].type
    launches = _launches(main)
    if not launches:  # kernels say what an artefact is of
        raise PatcError("expected a model that computes something, got one without layers")
    layers = program.layers or unnamed_layers(sum(CONTINUES not in op.attributes for op in launches))
    memory = {"arena_bytes": arena.shape[0], "buffers": state.buffers}
    return replace(program, weights=state.parameters[WEIGHTS], layers=layers, **memory)


def _launches(main: Any) -> list[Any]:
    return [op for op in top_level_ops(main) if op.operation.name == "gpu.launch_func"]


def generate_code(module: ir.Module) -> GpuCode:
    """Return the kernels and dispatches of @main."""
    main = find_main(module)
    launches = _launches(main)
    whole = main.regions[0].blocks[0].arguments[1].type.shape[0]
    numbers = list(main.attributes[WINDOWS]) if WINDOWS in main.attributes else [0, whole]
    windows = dict(zip(numbers[::2], numbers[1::2], strict=True))
    layers = itertools.accumulate(int(CONTINUES not in op.attributes) for op in launches)
    dispatches = tuple(_dispatch(op, layer - 1, [*windows]) for op, layer in zip(launches, layers, strict=True))
    used = {dispatch.kernel for dispatch in dispatches}
    kernels = {
        op.attributes["sym_name"].value: op
        for op in module.body.operations
        if op.operation.name == "gpu.module" and op.attributes["sym_name"].value in used
    }
    converted = {
        op.attributes["sym_name"].value: op for op in module.body.operations if op.operation.name == "spirv.module"
    }
    sources = {name: converted[spirv_name(name)] for name in kernels}
    return GpuCode(
        tuple(_kernel(name, kernels[name], sources[name]) for name in kernels),
        dispatches,
        tuple(main.attributes[INPUTS]),
        tuple(main.attributes[OUTPUTS]),
        tuple(windows.items()),
        serialize(module.context, sources),
    )


def _dispatch(op: Any, layer: int, windows: list[int]) -> Dispatch:
    kernel = next(iter(op.attributes["kernel"].value))
    groups = (_constant(op.gridSizeX), _constant(op.gridSizeY), _constant(op.gridSizeZ))
    numbers = [value for value in op.kernelOperands if isinstance(value.type, ir.IndexType)]
    views = [value.owner for value in op.kernelOperands if isinstance(value.type, ir.MemRefType)]
    shifts = [_constant(view.operands[1]) for view in views]  # those of the arena are 0
    return Dispatch(kernel, groups, tuple(map(_constant, numbers)), layer, windows.index(max(shifts, default=0)))


def _constant(value: ir.Value) -> int:
    number: int = value.owner.attributes["value"].value
    return number


def _kernel(name: str, module: Any, converted: Any) -> GpuKernel:
    function = next(op for op in module.regions[0].blocks[0].operations if op.operation.name == "gpu.func")
    numbers = [part for part in function.attributes["function_type"].value.inputs if isinstance(part, ir.IndexType)]
    capabilities, extensions = target_environment(str(module))
    needed = str(converted.attributes["vce_triple"])
    return GpuKernel(
        name,
        next(iter(function.attributes["known_block_size"])),
        shared_bytes(function),
        4 * len(numbers),
        tuple(part for part in capabilities if part in needed),
        tuple(part for part in extensions if part in needed),
    )


def serialize(context: ir.Context, sources: dict[str, Any]) -> dict[str, bytes]:
    """Return the SPIR-V binaries of `spirv.module`s by name."""
    with context, ir.Location.unknown():
        module = ir.Module.create()
        module.operation.attributes["gpu.container_module"] = ir.UnitAttr.get()
        for name, source in sources.items():
            with ir.InsertionPoint(module.body):
                kernel = gpu.GPUModuleOp(name)
            kernel.attributes["targets"] = ir.ArrayAttr.get([source.attributes["spirv.target_env"]])
            with ir.InsertionPoint(kernel.bodyRegion.blocks.append()):
                source.operation.clone()
        PassManager.parse("builtin.module(gpu-module-to-binary)").run(module.operation)
        binaries = [op for op in module.body.operations if op.operation.name == "gpu.binary"]
        return {op.attributes["sym_name"].value: bytes(gpu.ObjectAttr(op.objects[0]).object) for op in binaries}
