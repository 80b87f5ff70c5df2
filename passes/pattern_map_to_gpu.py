"""`pattern-map-to-gpu`: turn every scheduled pattern op into a kernel of the gpu dialect and a launch of it.

A whole net is a list of launches on two buffers: the arena, which holds inputs, outputs and activations, and the
weights. Kernels find what they work on by offsets, so a net never returns to the host between its layers and needs no
more than two bindings on any device.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch_mlir import ir
from torch_mlir.dialects import func

from patc.dialects.attributes import Layout
from patc.dialects.schedules import Schedule
from patc.passes.algorithms.base import find_algorithm, require_limits
from patc.passes.algorithms.gpu.base import GpuAlgorithm
from patc.passes.algorithms.gpu.elementwise import copy
from patc.passes.algorithms.gpu.launches import GpuKernels, Launches
from patc.passes.algorithms.gpu.memory import NetMemory, Weights
from patc.passes.algorithms.gpu.site import GpuSite
from patc.passes.base import Pass, PassState, fail
from patc.passes.ir.arena import ALIGNMENT, WEIGHTS
from patc.passes.ir.constants import CONSTANTS
from patc.passes.ir.functions import RESHAPES, defined_functions, erase_outlined, through_reshapes, works_on_tensors
from patc.passes.ir.modules import keep_signature
from patc.passes.ir.targets import target_of
from patc.passes.ir.views import is_view
from patc.passes.kernels.gpu.kernel import LANES, SPLIT, Memory
from patc.passes.layers.registry import kind_of
from patc.targets import SPIRV_VULKAN, Target

INPUTS = "pattern.inputs"  # byte offsets of the inputs in the arena
OUTPUTS = "pattern.outputs"
WINDOWS = "pattern.windows"  # first byte and size of each window of the weights, where there are several
LARGEST_BUFFER = (1 << 31) - 1  # bytes: kernels count in 32 bits with a sign


@dataclass(frozen=True)
class PatternMapToGpu(Pass):
    """Lower scheduled pattern ops to gpu kernels and launches, on an arena and a blob of weights.

    Requires: ops with schedules (`pattern-schedule` with a GPU as its target) and constant weights.
    Ensures: no pattern op is left. `@main(arena, weights)` views the two buffers and launches the kernels of each
        layer, in order: one, or for calls of outlined functions several, of which all but the first are marked
        `pattern.continues`. Its attributes `pattern.inputs` and `pattern.outputs` are byte offsets in the arena. Each
        distinct kernel is a `gpu.func` in a `gpu.module` of its own; layers that differ in sizes, strides and weights
        alone share one. The parameter store holds `weights`; kernels see windows of them, from where the view starts
        that a launch gives them. Where there are several the attribute `pattern.windows` says their starts and sizes.

        %y = "pattern.sparse_conv2d"(%x, ...) {schedule = #pattern.schedule<{algorithm = "pattern-direct", ...}>}
      becomes
        %0 = memref.view %arena[%c0][%c4096] : memref<65536xi8> to memref<?xvector<4xf32>>
        gpu.launch_func @pattern_direct_0::@pattern_direct_0 blocks in (%c1, %c64, %c1) threads in (%c64, %c1, %c1)
          args(%0 : memref<?xvector<4xf32>>, %c16 : index, ...)
      with
        gpu.func @pattern_direct_0(...) kernel { per pattern: scf.for kernels { memref.load, math.fma } ; memref.store }

    Idempotent: a function without tensors is left alone.
    """

    name: ClassVar[str] = "pattern-map-to-gpu"

    max_buffer_bytes: int = field(
        default=LARGEST_BUFFER,
        metadata={"help": "most bytes of the arena and of the weights", "minimum": 64, "maximum": LARGEST_BUFFER},
    )

    window_bytes: int = field(
        default=1 << 27,  # what every device of Vulkan binds
        metadata={"help": "bytes of the weights that a kernel sees, where it reads no more", "minimum": 1024},
    )

    def run(self, module: ir.Module, state: PassState) -> None:
        functions = [function for function in defined_functions(module) if works_on_tensors(function)]
        if not functions:
            return
        module.operation.attributes["gpu.container_module"] = ir.UnitAttr.get()
        weights = Weights(self.max_buffer_bytes, self.window_bytes, state.pool)
        kernels = GpuKernels(module)
        for function in functions:
            keep_signature(module, function)
        target = target_of(module)
        if target.algorithms != "gpu":  # a module that was written by hand
            target = SPIRV_VULKAN
        made = [_map(function, kernels, weights, target, state) for function in functions]
        state.parameters[WEIGHTS] = blob = state.pool.blob()
        windows = weights.windows(len(blob))
        for function in made:
            _set_weights_type(function, len(blob))
            if len(windows) > 1:
                function.attributes[WINDOWS] = ir.DenseI64ArrayAttr.get([*itertools.chain(*windows)])
        erase_outlined(module)


def _set_weights_type(function: Any, size: int) -> None:
    block = function.regions[0].blocks[0]
    block.arguments[1].set_type(_bytes_type(size))
    inputs = [argument.type for argument in block.arguments]
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(inputs, []))


def _bytes_type(size: int) -> ir.MemRefType:
    return ir.MemRefType.get([size], ir.IntegerType.get_signless(8))


def _map(function: Any, kernels: GpuKernels, weights: Weights, target: Target, state: PassState) -> Any:
    """Build the launches of a function in front of it, erase it, and return what replaces it."""
    old = function.regions[0].blocks[0]
    layers = [(op, *found) for op in old.operations if (found := _algorithm(op, target)) is not None]
    plans = {op.operation: algorithm.plan(op) for op, algorithm, _ in layers}
    memory = NetMemory(function, weights, state, {op: plan.scratch_bytes for op, plan in plans.items()})
    name = function.attributes["sym_name"].value
    types = [_bytes_type(memory.arena_bytes), _bytes_type(ALIGNMENT)]
    with ir.InsertionPoint(function), function.location:
        new = func.FuncOp(f"{name}.mapped", (types, []))
        block = new.add_entry_block([ir.Location.name("arena"), ir.Location.name("weights")])
    launches = Launches(block, kernels, weights)
    with ir.InsertionPoint(block), function.location:
        for op, algorithm, schedule in layers:
            launches.start_layer()
            with op.location:
                algorithm.emit(GpuSite(op, schedule, memory, launches, plans[op.operation], target))
        outputs = [_output(result, memory, launches) for result in list(old.operations)[-1].operands]
        func.ReturnOp([])
        new.attributes[INPUTS] = ir.DenseI64ArrayAttr.get([memory.start(value) for value in old.arguments])
        new.attributes[OUTPUTS] = ir.DenseI64ArrayAttr.get(outputs)
    function.operation.erase()
    new.attributes["sym_name"] = ir.StringAttr.get(name)
    return new


def _output(value: ir.Value, memory: NetMemory, launches: Launches) -> int:
    """Return where a result is; a constant is copied there first."""
    source, start = memory.tensor(through_reshapes(value)), memory.start(value)
    if source.memory is Memory.WEIGHTS:
        launches.start_layer()
        copy(launches, source, replace(source, memory=Memory.ARENA, start=start))
    return start


def _algorithm(op: Any, target: Target) -> tuple[GpuAlgorithm, Schedule] | None:
    """Return what an op is computed by, and its schedule, or None for one that computes nothing.

    Raises:
        PatcError: there is no kernel for it, or its schedule is beyond the kernel's limits.
    """
    name = op.operation.name
    if name in (*CONSTANTS, "func.return") or is_view(op):
        return None
    if name in RESHAPES:
        given = op.operands[0].type
        if len(given.shape) == 4 and not Layout.of(given).is_packed(*given.shape[2:]):
            raise fail(op, "a packed tensor (run pattern-layout first)", given)
        return None
    kind = kind_of(op)
    if kind is None:
        raise fail(op, "a pattern op, a constant or a reshape", name)
    kind.check_elements(op)
    found = find_algorithm(op, kind.gpu_algorithms(op), lanes=LANES, split=SPLIT)
    require_limits(op, *found, target)
    return found
