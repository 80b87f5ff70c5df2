"""Kernels of a GPU and their launches; launches that differ in sizes, strides and places alone share a kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch_mlir import ir
from torch_mlir.dialects import arith, gpu, memref

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.gpu.memory import Weights
from patc.passes.ir.arena import ALIGNMENT
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.functions import UniqueFunctions
from patc.passes.kernels.gpu.kernel import EXACT, BufferArgument, Kernel, Memory, WeightsPlace

CONTINUES = "pattern.continues"  # marks a launch of the same layer as the one before
Emit: TypeAlias = Callable[[Kernel], None]
Grid: TypeAlias = tuple[int, int, int]  # workgroups along x, y and z


@dataclass(frozen=True)
class _Made:
    """A kernel, and what its launch for one layer has to give."""

    name: str
    arguments: list[BufferArgument | WeightsPlace | int]


class GpuKernels:
    """The kernels of a module."""

    def __init__(self, module: ir.Module) -> None:
        self._module = module
        self._functions = UniqueFunctions(module)

    def get(self, schedule: Schedule, element: ir.Type, emit: Emit) -> _Made:
        """Return the kernel that `emit` writes, to compute in `element`."""
        threads = schedule.threads
        with ir.InsertionPoint(self._module.body), ir.Location.name(schedule.algorithm):
            module = gpu.GPUModuleOp("kernel")
            with ir.InsertionPoint(module.bodyRegion.blocks.append()):
                empty = ir.FunctionType.get([], [])
                function = gpu.GPUFuncOp(empty, "kernel", kernel=True, known_block_size=[threads, 1, 1])
            block = function.add_entry_block()
            with ir.InsertionPoint(block):
                kernel = Kernel(block, element, threads)
                emit(kernel)
                gpu.ReturnOp([])
            if kernel.is_exact:
                module.attributes[EXACT] = ir.UnitAttr.get()
            types = [argument.type for argument in block.arguments]
            function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, []))
        return _Made(self._functions.keep(module, schedule.algorithm, function), kernel.arguments)


class Launches:
    """The launches of one function.

    Args:
        block: its body, with arena and weights as arguments.
    """

    def __init__(self, block: ir.Block, kernels: GpuKernels, weights: Weights) -> None:
        self._block = block
        self._kernels = kernels
        self._weights = weights
        self._numbers: dict[int, ir.Value] = {}
        self._views: dict[tuple[BufferArgument, int], ir.Value] = {}
        self._continues = False

    def start_layer(self) -> None:
        """Let what follows be launches of another layer."""
        self._continues = False

    def add(self, schedule: Schedule, element: ir.Type, grid: Grid, emit: Emit) -> None:
        """Launch the kernel that `emit` writes, to compute in `element`."""
        made = self._kernels.get(schedule, element, emit)
        window = self._weights.window([argument for argument in made.arguments if isinstance(argument, WeightsPlace)])
        operands = [self._operand(argument, window) for argument in made.arguments]
        threads = (schedule.threads, 1, 1)
        launch = gpu.LaunchFuncOp(
            [made.name, made.name],
            tuple(map(self._number, grid)),
            tuple(map(self._number, threads)),
            operands,
        )
        if self._continues:
            launch.attributes[CONTINUES] = ir.UnitAttr.get()
        self._continues = True

    def _number(self, value: int) -> ir.Value:
        if value not in self._numbers:
            with ir.InsertionPoint.at_block_begin(self._block), self._block.owner.location:
                self._numbers[value] = arith.ConstantOp(ir.IndexType.get(), value).result
        return self._numbers[value]

    def _operand(self, argument: BufferArgument | WeightsPlace | int, window: int) -> ir.Value:
        """Return what a launch gives for an argument, for a kernel that sees the weights from byte `window` on."""
        if isinstance(argument, int):
            return self._number(argument)
        if isinstance(argument, WeightsPlace):
            return self._number((argument.start - window) // argument.unit + argument.more)
        return self._view(argument, window if argument.memory is Memory.WEIGHTS else 0)

    def _view(self, argument: BufferArgument, start: int) -> ir.Value:
        """Return a buffer from a byte on as elements of a type."""
        if (argument, start) not in self._views:
            memory = self._block.arguments[argument.memory.value]
            lanes = argument.type.shape[0] if isinstance(argument.type, ir.VectorType) else 1
            # The weights have their final size when all is gathered, and no kernel asks for it.
            size = memory.type.shape[0] if argument.memory is Memory.ARENA else ALIGNMENT
            count = self._number(size // (lanes * element_bytes(argument.type)))
            kind = ir.MemRefType.get([ir.ShapedType.get_dynamic_size()], argument.type)
            self._views[argument, start] = memref.ViewOp(kind, memory, self._number(start), [count]).result
        return self._views[argument, start]
