"""`pattern-map-to-gpu`: turn every scheduled pattern op into a kernel of the gpu dialect and a launch of it.

A whole net is a list of launches on two buffers: the arena, which holds inputs, outputs and activations, and the
weights. Kernels find what they work on by offsets, so a net never returns to the host between its layers and needs no
more than two bindings on any device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, func, gpu, memref

from patc.dialects import pattern
from patc.dialects.attributes import Activation, Layout, Library, Schedule
from patc.integers import ceil_div
from patc.passes.base import Pass, PassState, fail
from patc.passes.formats.layer_weights import read_dense_weight, read_fkw, require_array
from patc.passes.ir import windows
from patc.passes.ir.arena import ALIGNMENT, WEIGHTS, Lifetime, place, round_up
from patc.passes.ir.constants import constant_name, read_constant
from patc.passes.ir.elements import element_bytes, mlir_type, numpy_type, require_elements
from patc.passes.ir.functions import UniqueFunctions, defined_functions, through_reshapes, works_on_tensors
from patc.passes.ir.planes import as_planes
from patc.passes.kernels.gpu import convolution, pooling
from patc.passes.kernels.gpu.convolution import DenseArrays, GpuArray, GpuEpilogue, SparseArrays
from patc.passes.kernels.gpu.kernel import LANES, SPLIT, BufferArgument, Kernel, Memory
from patc.passes.kernels.gpu.tensors import GpuTensor, has_vector_rows
from patc.passes.kernels.gpu.weights import pack_features, pack_kernels, pack_taps, share_kernels

INPUTS = "pattern.inputs"  # byte offsets of the inputs in the arena
OUTPUTS = "pattern.outputs"
LARGEST_BUFFER = (1 << 31) - 1  # bytes: kernels count in 32 bits with a sign
_Emit = Callable[[Kernel], None]
_Grid = tuple[int, int, int]


@dataclass(frozen=True)
class PatternMapToGpu(Pass):
    """Lower scheduled pattern ops to gpu kernels and launches, on an arena and a blob of weights.

    Requires: ops with schedules (`pattern-schedule` with a GPU as its target) and constant weights.
    Ensures: no pattern op is left. `@main(arena, weights)` views the two buffers and launches one kernel a layer, in
        order; its attributes `pattern.inputs` and `pattern.outputs` are byte offsets in the arena. Each distinct kernel
        is a `gpu.func` in a `gpu.module` of its own; layers that differ in sizes, strides and weights alone share one.
        The parameter store holds `weights`.

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

    def run(self, module: ir.Module, state: PassState) -> None:
        functions = [function for function in defined_functions(module) if works_on_tensors(function)]
        if not functions:
            return
        module.operation.attributes["gpu.container_module"] = ir.UnitAttr.get()
        blob = _Blob(self.max_buffer_bytes)
        kernels = _Kernels(module)
        made = [_Mapper(function, kernels, blob, state).run() for function in functions]
        state.parameters[WEIGHTS] = blob.bytes()
        for function in made:
            _set_weights_type(function, len(state.parameters[WEIGHTS]))


def _set_weights_type(function: Any, size: int) -> None:
    block = function.regions[0].blocks[0]
    block.arguments[1].set_type(_bytes_type(size))
    inputs = [argument.type for argument in block.arguments]
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(inputs, []))


def _bytes_type(size: int) -> ir.MemRefType:
    return ir.MemRefType.get([size], ir.IntegerType.get_signless(8))


class _Blob:
    """The constant arrays of all functions, each on a cache line."""

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self._arrays: list[np.ndarray] = []
        self._starts: dict[object, int] = {}
        self._size = 0
        self._slack = ALIGNMENT

    def add(self, key: object, array: np.ndarray) -> int:
        """Return the first byte of an array; what has the same key is there once."""
        if key not in self._starts:
            self._starts[key] = self._size
            self._arrays.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            self._size = round_up(self._size + array.nbytes)
        return self._starts[key]

    def reserve(self, slack: int) -> None:
        """Leave room behind the last array, which is read over its end."""
        self._slack = max(self._slack, round_up(slack))

    def bytes(self) -> np.ndarray:
        """Return all arrays in one."""
        blob = np.zeros(self._size + self._slack, np.uint8)
        for start, array in zip(self._starts.values(), self._arrays, strict=True):
            blob[start : start + len(array)] = array
        return blob


@dataclass(frozen=True)
class _Made:
    """A kernel, and what its launch for one layer has to give."""

    name: str
    arguments: list[BufferArgument | int]


class _Kernels:
    """The kernels of a module; of equal ones the first stays."""

    def __init__(self, module: ir.Module) -> None:
        self._module = module
        self._functions = UniqueFunctions(module)

    def get(self, schedule: Schedule, element: ir.Type, emit: _Emit) -> _Made:
        """Return the kernel that `emit` writes."""
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
            types = [argument.type for argument in block.arguments]
            function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, []))
        return _Made(self._functions.keep(module, schedule.algorithm, function), kernel.arguments)


class _Mapper:
    """Rewrites one function."""

    def __init__(self, function: Any, kernels: _Kernels, blob: _Blob, state: PassState) -> None:
        self._function = function
        self._kernels = kernels
        self._blob = blob
        self.state = state
        self._starts: dict[ir.Value, int] = {}
        self._arena_bytes = 0
        self._numbers: dict[int, ir.Value] = {}
        self._views: dict[BufferArgument, ir.Value] = {}

    def run(self) -> Any:
        """Build the new function in front of the old one, erase that, and return the new one."""
        old = self._function.regions[0].blocks[0]
        for op in old.operations:
            _check(op)
        results = list(old.operations)[-1].operands
        self._plan(old, results)
        name = self._function.attributes["sym_name"].value
        types = [_bytes_type(self._arena_bytes), _bytes_type(ALIGNMENT)]
        with ir.InsertionPoint(self._function), self._function.location:
            function = func.FuncOp(f"{name}.mapped", (types, []))
            block = function.add_entry_block([ir.Location.name("arena"), ir.Location.name("weights")])
        self._block = block
        with ir.InsertionPoint(block), self._function.location:
            for op in old.operations:
                if type(op) in _EMITTERS:
                    with op.location:
                        _EMITTERS[type(op)](self, op, Schedule.from_attr(op.attributes["schedule"]))
            outputs = [self._output(result) for result in results]
            func.ReturnOp([])
            function.attributes[INPUTS] = ir.DenseI64ArrayAttr.get([self._starts[value] for value in old.arguments])
            function.attributes[OUTPUTS] = ir.DenseI64ArrayAttr.get(outputs)
        self._function.operation.erase()
        function.attributes["sym_name"] = ir.StringAttr.get(name)
        return function

    # Memory -------------------------------------------------------------------------------------------

    def _plan(self, block: ir.Block, results: Any) -> None:
        """Place inputs, activations and results in the arena; constants that are returned get a place as well."""
        ops = list(block.operations)
        order = {op.operation: number for number, op in enumerate(ops)}
        values = list(block.arguments) + [op.results[0] for op in ops if type(op) in _EMITTERS]
        returned = dict.fromkeys(map(through_reshapes, results))
        values += [value for value in returned if value not in values]
        lifetimes = []
        slack = 0
        for value in values:
            is_argument = isinstance(value.owner, ir.Block)
            first = 0 if is_argument else order[value.owner.operation]
            last = len(ops) if value in returned else max([first, *(order[user] for user, _ in _readers(value))])
            lifetimes.append(Lifetime(_size(value), first, last))
            slack = max(slack, _overrun(value))
        starts, size = place(lifetimes)
        self._starts = dict(zip(values, starts, strict=True))
        self._arena_bytes = round_up(size + slack)
        if self._arena_bytes > self._blob.largest:
            raise fail(self._function, f"activations of at most {self._blob.largest} bytes", self._arena_bytes)

    def tensor(self, value: ir.Value) -> GpuTensor:
        """Return an activation, or a constant in its place."""
        root = through_reshapes(value)
        array = read_constant(root, self.state)
        if array is None:
            memory, start = Memory.ARENA, self._starts[root]
        else:
            memory, start = Memory.WEIGHTS, self.constant(array, root, "").start
            self._blob.reserve(_overrun(root))
        shape = tuple(value.type.shape)
        layout = Layout.of(value.type) if len(shape) == 4 else Layout.packed(1, shape[-1])
        return GpuTensor(memory, start, value.type.element_type, *as_planes(shape), layout)

    def _output(self, value: ir.Value) -> int:
        """Return where a result is; a constant is copied there first."""
        root = through_reshapes(value)
        if read_constant(root, self.state) is not None:
            source = self.tensor(root)
            target = replace(source, memory=Memory.ARENA, start=self._starts[root])
            schedule = Schedule("elementwise", 1, LANES, LANES, split="pixels", threads=64)
            grid = _grid(target, schedule, target.channels)
            emit = _elementwise_kernel([source], target, Activation(), schedule)
            self.launch(schedule, target.element, grid, emit)
        return self._starts[root]

    def constant(self, array: np.ndarray, origin: ir.Value, role: str) -> GpuArray:
        """Return an array in the buffer of weights; `origin` is the constant that it was made from."""
        key = (constant_name(origin) or origin, role, array.nbytes)
        start = self._blob.add(key, array)
        if start + array.nbytes > self._blob.largest:
            raise fail(self._function, f"weights of at most {self._blob.largest} bytes", start + array.nbytes)
        return GpuArray(start, mlir_type(array.dtype))

    # Launches -----------------------------------------------------------------------------------------

    def launch(self, schedule: Schedule, element: ir.Type, grid: _Grid, emit: _Emit) -> None:
        """Launch the kernel that `emit` writes on `grid` workgroups."""
        made = self._kernels.get(schedule, element, emit)
        operands = [
            self._number(argument) if isinstance(argument, int) else self._view(argument) for argument in made.arguments
        ]
        threads = (schedule.threads, 1, 1)
        gpu.LaunchFuncOp(
            [made.name, made.name],
            tuple(map(self._number, grid)),
            tuple(map(self._number, threads)),
            operands,
        )

    def _number(self, value: int) -> ir.Value:
        if value not in self._numbers:
            with ir.InsertionPoint.at_block_begin(self._block), self._function.location:
                self._numbers[value] = arith.ConstantOp(ir.IndexType.get(), value).result
        return self._numbers[value]

    def _view(self, argument: BufferArgument) -> ir.Value:
        """Return a whole buffer as elements of a type."""
        if argument not in self._views:
            memory = self._block.arguments[argument.memory.value]
            lanes = argument.type.shape[0] if isinstance(argument.type, ir.VectorType) else 1
            # The weights have their final size when all is gathered, and no kernel asks for it.
            size = self._arena_bytes if argument.memory is Memory.ARENA else ALIGNMENT
            count = self._number(size // (lanes * element_bytes(argument.type)))
            kind = ir.MemRefType.get([ir.ShapedType.get_dynamic_size()], argument.type)
            self._views[argument] = memref.ViewOp(kind, memory, self._number(0), [count]).result
        return self._views[argument]


# Values and ops ---------------------------------------------------------------------------------------


def _check(op: Any) -> None:
    """Refuse what there is no kernel for."""
    name = op.operation.name
    if name in ("func.return", "pattern.parameter", "arith.constant"):
        return
    if name == "tensor.collapse_shape":
        given = op.operands[0].type
        if len(given.shape) == 4 and not Layout.of(given).is_packed(*given.shape[2:]):
            raise fail(op, "a packed tensor (run pattern-layout first)", given)
        return
    if type(op) not in _EMITTERS:
        raise fail(op, "a pattern op, a constant or a flatten", name)
    if "schedule" not in op.attributes:
        raise fail(op, "a 'schedule' attribute (run pattern-schedule first)", "none")
    schedule = Schedule.from_attr(op.attributes["schedule"])
    if schedule.algorithm not in _ALGORITHMS[type(op)] or schedule.lanes != LANES or schedule.split != SPLIT:
        expected = f"a schedule for a GPU (run pattern-schedule with target=spirv-vulkan): {_ALGORITHMS[type(op)][0]}"
        raise fail(op, f"{expected} of {LANES} lanes by {SPLIT}", f"{schedule.algorithm} by {schedule.split}")
    require_elements(op)
    if "pads" in op.attributes and schedule.algorithm != "global-pool":
        _check_input(op)


def _check_input(op: Any) -> None:
    """Refuse an input whose rows do not start on vectors, or whose halo does not cover the pads."""
    pads, layout = list(op.pads), Layout.of(op.input.type)
    halo = (layout.top, layout.left, layout.bottom, layout.right)
    if not has_vector_rows(layout) or any(pad > side for pad, side in zip(pads, halo, strict=True)):
        expected = f"an input with a halo of at least {pads} and rows of {LANES}-element vectors"
        raise fail(op, f"{expected} (run pattern-layout with target=spirv-vulkan first)", op.input.type)


def _readers(value: ir.Value) -> list[tuple[ir.Operation, ir.Value]]:
    """Return the ops that read the memory of a value, each with the value that it reads: one of another shape maybe."""
    found = []
    for use in value.uses:
        user = use.owner.operation
        is_reshape = user.name == "tensor.collapse_shape"
        found += [(user, value), *_readers(user.results[0])] if is_reshape else [(user, value)]
    return found


def _size(value: ir.Value) -> int:
    """Return the bytes of a tensor, its halo included."""
    type_ = value.type
    planes = type_.shape[0] * type_.shape[1] * Layout.of(type_).plane if len(type_.shape) == 4 else 0
    return element_bytes(type_) * (planes or int(np.prod(type_.shape, dtype=np.int64)))


def _overrun(value: ir.Value) -> int:
    """Return how many bytes behind a tensor its readers may touch: rows and columns that are cut off later."""
    elements = ALIGNMENT
    for user, read in _readers(value):
        if "schedule" not in user.attributes:
            continue
        shape = read.type.shape
        layout = Layout.of(read.type) if len(shape) == 4 else Layout.packed(1, shape[-1])
        rows = Schedule.from_attr(user.attributes["schedule"]).rows
        slides = "strides" in user.attributes
        window = windows.Window.of(user.opview) if slides else windows.Window((1, 1))
        height, width = (window.dilations[axis] * window.kernel[axis] for axis in (0, 1))
        down, right = window.strides
        elements = max(elements, (rows * down + height) * layout.pitch + LANES * right + width + ALIGNMENT)
    return element_bytes(value.type) * elements


def _grid(output: GpuTensor, schedule: Schedule, blocks: int) -> _Grid:
    """Return the workgroups along pixels, blocks of filters and images."""
    pixels = output.vectors * ceil_div(output.height, schedule.rows)
    return ceil_div(pixels, schedule.threads // schedule.sums), blocks, output.images


# One function a kind of layer -------------------------------------------------------------------------


def _bias(mapper: _Mapper, op: Any) -> GpuArray | None:
    if op.bias is None:
        return None
    return mapper.constant(require_array(op, op.bias, "bias", mapper.state), op.bias, "")


def _epilogue(mapper: _Mapper, op: Any) -> GpuEpilogue:
    residual = mapper.tensor(op.residual) if op.residual is not None else None
    return GpuEpilogue(_bias(mapper, op), residual, Activation.from_attr(op.activation))


def _map_sparse(mapper: _Mapper, op: Any, schedule: Schedule) -> None:
    if schedule.algorithm != "pattern-direct":
        _map_dense(mapper, op, schedule)
        return
    source, output, library = mapper.tensor(op.input), mapper.tensor(op.result), Library.from_attr(op.library)
    fkw = read_fkw(op, mapper.state)
    block = schedule.filters
    if not share_kernels(fkw, block):
        raise fail(op, f"{block} filters each that keep the same kernels, for a schedule of {block} filters", "others")
    plane = source.layout.plane // LANES
    arrays = pack_kernels(fkw, block, plane)
    held = {role: mapper.constant(array, op.values, f"{role}.{block}.{plane}") for role, array in arrays.items()}
    weights = SparseArrays(library=library, **held)
    epilogue, window = _epilogue(mapper, op), windows.Window.of(op)

    def emit(k: Kernel) -> None:
        convolution.pattern_direct(k, source, weights, output, epilogue, window, schedule)

    mapper.launch(schedule, output.element, _grid(output, schedule, output.channels // block), emit)


def _map_dense(mapper: _Mapper, op: Any, schedule: Schedule) -> None:
    source, output = mapper.tensor(op.input), mapper.tensor(op.result)
    weight = read_dense_weight(op, mapper.state)
    filters, channels, height, width = weight.array.shape
    block = schedule.filters
    group = filters // weight.groups
    if weight.groups > 1 and group % block:
        raise fail(op, f"groups of a multiple of {block} filters, for a schedule of {block} filters", group)
    values = mapper.constant(pack_taps(weight.array, block), weight.origin, f"taps{block}")
    weights = DenseArrays(values, (height, width), channels, group, filters)
    epilogue, window = _epilogue(mapper, op), windows.Window.of(op)

    def emit(k: Kernel) -> None:
        convolution.dense_direct(k, source, weights, output, epilogue, window, schedule)

    mapper.launch(schedule, output.element, _grid(output, schedule, ceil_div(filters, block)), emit)


def _map_pool(mapper: _Mapper, op: Any, schedule: Schedule) -> None:
    source, output = mapper.tensor(op.input), mapper.tensor(op.result)
    if schedule.algorithm == "global-pool":
        _map_global_pool(mapper, op, schedule, source, output)
        return
    window, kernel = windows.Window.of(op), (op.kernel[0], op.kernel[1])
    maximum = isinstance(op, pattern.MaxPool2dOp)
    divisors = np.ones((1, 1)) if maximum else windows.average_divisors(op)
    scale: float | GpuTensor = 1.0 / float(divisors[0, 0])
    if np.any(divisors != divisors[0, 0]):
        scale = _reciprocals(mapper, op, divisors, output)

    def emit(k: Kernel) -> None:
        pooling.pool(k, source, output, kernel, window, schedule, maximum=maximum, scale=scale)

    mapper.launch(schedule, output.element, _grid(output, schedule, output.channels), emit)


def _reciprocals(mapper: _Mapper, op: Any, divisors: np.ndarray, output: GpuTensor) -> GpuTensor:
    """Return one over the divisor of each output place, as a single plane."""
    row = LANES * output.vectors
    # Rows too many at the end, for threads that compute several.
    table = np.zeros((output.height + 16, row), numpy_type(output.element))
    table[: output.height, : output.width] = 1.0 / divisors
    array = mapper.constant(table, op.result, "reciprocals")
    layout = Layout(row=row, plane=table.size)
    return GpuTensor(Memory.WEIGHTS, array.start, array.element, 1, 1, output.height, output.width, layout)


def _map_global_pool(mapper: _Mapper, op: Any, schedule: Schedule, source: GpuTensor, output: GpuTensor) -> None:
    if not source.is_aligned and not source.layout.is_packed(source.height, source.width):
        raise fail(op, f"a packed input, or rows of {LANES}-element vectors", op.input.type)

    def emit(k: Kernel) -> None:
        pooling.global_pool(k, source, output, schedule)

    mapper.launch(schedule, output.element, (1, output.channels, output.images), emit)


def _map_elementwise(mapper: _Mapper, op: Any, schedule: Schedule) -> None:
    sources = [mapper.tensor(operand) for operand in op.operands]
    output = mapper.tensor(op.result)
    activation = Activation.from_attr(op.activation) if "activation" in op.attributes else Activation()
    emit = _elementwise_kernel(sources, output, activation, schedule)
    mapper.launch(schedule, output.element, _grid(output, schedule, output.channels), emit)


def _elementwise_kernel(
    sources: list[GpuTensor], output: GpuTensor, activation: Activation, schedule: Schedule
) -> _Emit:
    return lambda k: pooling.elementwise(k, sources, output, activation, schedule)


def _map_linear(mapper: _Mapper, op: Any, schedule: Schedule) -> None:
    source, output = mapper.tensor(op.input), mapper.tensor(op.result)
    packed = pack_features(require_array(op, op.weight, "weight", mapper.state), schedule.filters)
    values = mapper.constant(packed, op.weight, f"features{schedule.filters}")
    weights, activation = pooling.LinearArrays(values, _bias(mapper, op)), Activation.from_attr(op.activation)

    def emit(k: Kernel) -> None:
        pooling.linear(k, source, weights, output, activation, schedule)

    grid = (ceil_div(output.width, schedule.filters), source.channels, 1)
    mapper.launch(schedule, output.element, grid, emit)


_EMITTERS: dict[type, Callable[[_Mapper, Any, Schedule], None]] = {
    pattern.SparseConv2dOp: _map_sparse,
    pattern.Conv2dOp: _map_dense,
    pattern.MaxPool2dOp: _map_pool,
    pattern.AvgPool2dOp: _map_pool,
    pattern.AddOp: _map_elementwise,
    pattern.ActivateOp: _map_elementwise,
    pattern.RelayoutOp: _map_elementwise,
    pattern.LinearOp: _map_linear,
}
_ALGORITHMS: dict[type, tuple[str, ...]] = {
    pattern.SparseConv2dOp: ("pattern-direct", "dense-direct"),
    pattern.Conv2dOp: ("dense-direct", "depthwise-direct"),
    pattern.MaxPool2dOp: ("pool",),
    pattern.AvgPool2dOp: ("pool", "global-pool"),
    pattern.AddOp: ("elementwise",),
    pattern.ActivateOp: ("elementwise",),
    pattern.RelayoutOp: ("elementwise",),
    pattern.LinearOp: ("gemv",),
}
