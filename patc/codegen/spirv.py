"""SPIR-V bytes and the list of dispatches, from what `pattern-to-spirv` left."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import gpu
from torch_mlir.passmanager import PassManager

from patc.codegen.program import find_main, memory_bytes
from patc.diagnostics import PatcError
from patc.layers import unnamed_layers
from patc.passes.algorithms.gpu.launches import CONTINUES
from patc.passes.base import PassState, fail
from patc.passes.ir.arena import WEIGHTS
from patc.passes.ir.functions import top_level_ops
from patc.passes.pattern_map_to_gpu import INPUTS, OUTPUTS, WINDOWS
from patc.passes.pattern_to_spirv import shared_bytes, spirv_name, target_environment
from patc.runtime.gpu_code import Dispatch, GpuCode, GpuKernel
from patc.runtime.program import ENTRY, Program


def complete_gpu_program(module: ir.Module, state: PassState, program: Program) -> Program:
    """Return the program of a module of launches and SPIR-V modules; see `patc.backends.base.Backend.complete`.

    Raises:
        PatcError: @main computes nothing, or is not what `pattern-map-to-gpu` makes.
    """
    main = find_main(module)
    arguments = ir.FunctionType(main.attributes["function_type"].value).inputs
    sizes = [size for argument in arguments if (size := memory_bytes(argument)) is not None]
    if len(sizes) != 2 or len(arguments) != 2:
        found = ", ".join(map(str, arguments)) or "nothing"
        raise PatcError(f"expected @{ENTRY} to take an arena and weights, got {found}", main.location)
    for name, infos in ((INPUTS, program.inputs), (OUTPUTS, program.outputs)):
        starts = _numbers(main, name)
        inside = (0 <= start <= sizes[0] - info.nbytes for start, info in zip(starts, infos, strict=False))
        if len(starts) != len(infos) or not all(inside):
            raise fail(main, f"{name} to be places of {len(infos)} tensors in the arena", starts)
    launches = _launches(main)
    if not launches:  # kernels say what an artefact is of
        raise PatcError("expected a model that computes something, got one without layers")
    layers = program.layers or unnamed_layers(sum(CONTINUES not in op.attributes for op in launches))
    weights = state.parameters[WEIGHTS]
    return replace(program, weights=weights, layers=layers, arena_bytes=sizes[0], buffers=state.buffers)


def _launches(main: Any) -> list[Any]:
    return [op for op in top_level_ops(main) if op.operation.name == "gpu.launch_func"]


def generate_code(module: ir.Module) -> GpuCode:
    """Return the kernels and dispatches of @main."""
    main = find_main(module)
    launches = _launches(main)
    whole = main.regions[0].blocks[0].arguments[1].type.shape[0]
    numbers = _numbers(main, WINDOWS) or [0, whole]
    if len(numbers) % 2:
        raise fail(main, f"{WINDOWS} to be starts and sizes", numbers)
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
    for name, kernel in kernels.items():
        if spirv_name(name) not in converted:
            raise fail(kernel, f"spirv.module @{spirv_name(name)} beside it (run pattern-to-spirv first)", "none")
    sources = {name: converted[spirv_name(name)] for name in kernels}
    return GpuCode(
        tuple(_kernel(name, kernels[name], sources[name]) for name in kernels),
        dispatches,
        tuple(_numbers(main, INPUTS)),
        tuple(_numbers(main, OUTPUTS)),
        tuple(windows.items()),
        serialize(module.context, sources),
    )


def _numbers(op: Any, name: str) -> list[int]:
    """Return the elements of an attribute, an array of i64; none where it is missing."""
    if name not in op.attributes:
        return []
    attribute = op.attributes[name]
    if not isinstance(attribute, ir.DenseI64ArrayAttr):
        raise fail(op, f"{name} to be an array<i64>", attribute)
    return list(attribute)


def _dispatch(op: Any, layer: int, windows: list[int]) -> Dispatch:
    kernel = next(iter(op.attributes["kernel"].value))
    groups = (_constant(op, op.gridSizeX), _constant(op, op.gridSizeY), _constant(op, op.gridSizeZ))
    numbers = [value for value in op.kernelOperands if isinstance(value.type, ir.IndexType)]
    views = [value.owner for value in op.kernelOperands if isinstance(value.type, ir.MemRefType)]
    if any(isinstance(view, ir.Block) or view.name != "memref.view" for view in views):
        raise fail(op, "memory to be memref.view of the function's arguments", "other memory")
    shift = max((_constant(op, view.operands[1]) for view in views), default=0)  # those of the arena are 0
    if shift not in windows:
        raise fail(op, f"weights from one of {windows} on", shift)
    return Dispatch(kernel, groups, tuple(_constant(op, value) for value in numbers), layer, windows.index(shift))


def _constant(launch: Any, value: ir.Value) -> int:
    if isinstance(value.owner, ir.Block) or value.owner.name != "arith.constant":
        raise fail(launch, "workgroups and numbers to be constants", value.type)
    number: int = value.owner.attributes["value"].value
    return number


def _kernel(name: str, module: Any, converted: Any) -> GpuKernel:
    functions = [op for op in module.regions[0].blocks[0].operations if op.operation.name == "gpu.func"]
    if len(functions) != 1 or "known_block_size" not in functions[0].attributes:
        raise fail(module, "one gpu.func with known_block_size", f"{len(functions)} functions")
    function = functions[0]
    numbers = [part for part in function.attributes["function_type"].value.inputs if isinstance(part, ir.IndexType)]
    capabilities, extensions = target_environment(str(module))
    needed = str(converted.attributes["vce_triple"]) if "vce_triple" in converted.attributes else ""
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
