"""`pattern-specialize`: turn every scheduled pattern op into a specialised loop nest on memory.

Each op becomes a call of a kernel function; ops that differ only in their weights share one. Tensors become flat
memrefs in their layout, weights become `memref.global`s that hold exactly the arrays the kernels read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, func, memref, scf

from patc.dialects import pattern
from patc.dialects.attributes import Activation, Layout, Library, Schedule
from patc.integers import ceil_div
from patc.passes.base import Pass, PassState, fail
from patc.passes.formats.channel_major import by_channel, cut_evenly
from patc.passes.formats.layer_weights import read_dense_weight, read_fkw, require_array
from patc.passes.ir import windows
from patc.passes.ir.constants import constant_name, read_constant
from patc.passes.ir.elements import element_bytes, mlir_type, numpy_type, require_elements
from patc.passes.ir.functions import (
    UniqueFunctions,
    declare_function,
    defined_functions,
    through_reshapes,
    works_on_tensors,
)
from patc.passes.ir.planes import as_planes, is_flat, is_global_pool, kernel_plane, row_tiles
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder
from patc.passes.kernels.host import convolution, linear, pooling, winograd, winograd_repair, winograd_stages
from patc.passes.kernels.host.input_stationary import ChannelMajorWeights, input_stationary
from patc.passes.kernels.host.winograd_transforms import TILE
from patc.passes.kernels.tiling import Tensor
from patc.passes.pattern_parallelize import CLOCK
from patc.passes.pattern_plan_memory import ENTRY

SLACK_BYTES = 256  # that vector loads may read behind the last plane of a buffer, for each step of their stride

# Kernels see every array as this long, so that layers which differ only in channels and kept weights share one. What
# lies behind an array is never touched.
UNBOUNDED = 1 << 30


@dataclass(frozen=True)
class PatternSpecialize(Pass):
    """Lower scheduled pattern ops to loop nests over vectors, one branch-free loop a pattern.

    Requires: ops with schedules (`pattern-schedule`) and constant weights.
    Ensures: no pattern op is left. `@main(inputs..., outputs..., timestamps)` works on flat memrefs; it allocates
        one buffer a tensor (see `pattern-plan-memory`) and calls one kernel a layer, in `scf.parallel` over the
        parts of a layer that is divided among threads.

        %y = "pattern.sparse_conv2d"(%x, ...) {schedule = #pattern.schedule<{rows = 4, columns = 64, ...}>}
      becomes
        %y = memref.alloc() : memref<237632xf32>
        func.call @pattern_direct_0(%x, ..., %y, ...)
      with
        scf.for tiles { scf.for filters { per pattern: scf.for kernels { vector.load, math.fma } ; vector.store } }

    Idempotent: a module without pattern ops is left alone.
    """

    name: ClassVar[str] = "pattern-specialize"

    def run(self, module: ir.Module, state: PassState) -> None:
        kernels = _Kernels(module, state)
        for function in defined_functions(module):
            if works_on_tensors(function):
                _Specializer(module, function, kernels, state).run()


def _flat(elements: int, element: ir.Type) -> ir.MemRefType:
    return ir.MemRefType.get([elements], element)


def _elements(shape: list[int], layout: Layout | None) -> int:
    """Elements of a tensor in memory, without slack."""
    if layout is None or len(shape) != 4:
        return int(np.prod(shape, dtype=np.int64))
    return shape[0] * shape[1] * layout.plane


@dataclass(frozen=True)
class _Buffer:
    """A tensor in memory."""

    memory: ir.Value
    shape: tuple[int, ...]
    layout: Layout | None

    def tensor(self, memory: ir.Value) -> Tensor:
        """Return the tensor as a kernel sees it through its own argument."""
        images, channels, height, width = as_planes(self.shape)
        return Tensor(memory, images, channels, height, width, self.layout or Layout.packed(height, width))

    def flat(self, rows: int) -> _Buffer:
        """Return the tensor with each plane, whose rows follow each other, as other rows."""
        images, channels, height, width = self.shape
        plane = (self.layout or Layout.packed(height, width)).plane
        columns = height * width // rows
        return _Buffer(self.memory, (images, channels, rows, columns), Layout(row=columns, plane=plane))


def _slack(value: ir.Value) -> int:
    """Elements behind a buffer that its users may read."""
    users = [use.owner.opview for use in value.uses]
    stride = max((max(user.strides) for user in users if "strides" in user.attributes), default=1)
    return SLACK_BYTES // element_bytes(value.type) * stride


class _Kernels:
    """The kernel functions of a module; of equal ones the first stays."""

    def __init__(self, module: ir.Module, state: PassState) -> None:
        self._module = module
        self._state = state
        self._functions = UniqueFunctions(module)
        self._globals: dict[str, ir.Type] = {}

    def get(
        self, algorithm: str, types: list[ir.Type], element: ir.Type, emit: Callable[[Builder, list[Any]], None]
    ) -> str:
        """Return the name of the function that `emit(builder, arguments)` writes, to compute in `element`."""
        with ir.InsertionPoint(self._module.body), ir.Location.name(algorithm):
            function = func.FuncOp("kernel", (types, []), visibility="private")
            function.attributes["llvm.no_inline"] = ir.UnitAttr.get()
            if algorithm == winograd_repair.ALGORITHM:
                function.attributes["llvm.minsize"] = ir.UnitAttr.get()
            block = function.add_entry_block()
            with ir.InsertionPoint(block):
                emit(Builder(block, element), list(block.arguments))
                func.ReturnOp([])
        return self._functions.keep(function, algorithm)

    def add_global(self, name: str, array: np.ndarray, inline: bool) -> tuple[str, ir.MemRefType]:
        """Add a flat constant array; its values go into the text or into the parameter store."""
        flat = np.ascontiguousarray(array).reshape(-1)
        type_ = _flat(len(flat), mlir_type(flat.dtype))
        if not inline:
            name = self._state.parameters.add(name, flat)
        else:
            while name in self._globals:
                name += "_"
        self._globals[name] = type_
        value = ir.DenseElementsAttr.get(flat, type=type_.element_type, shape=[len(flat)]) if inline else None
        with ir.InsertionPoint.at_block_begin(self._module.body):
            memref.GlobalOp(name, type_, sym_visibility="private", initial_value=value, constant=inline or None)
        return name, type_


class _Specializer:
    """Rewrites one function."""

    def __init__(self, module: ir.Module, function: Any, kernels: _Kernels, state: PassState) -> None:
        self._module = module
        self._function = function
        self._kernels = kernels
        self.state = state
        self._buffers: dict[ir.Value, _Buffer] = {}
        self._outputs: dict[ir.Value, ir.Value] = {}
        self._constants: dict[object, ir.Value] = {}

    def run(self) -> None:
        """Build the new function after the old one and erase that."""
        old = self._function.regions[0].blocks[0]
        layers = [op for op in old.operations if type(op) in _EMITTERS]
        results = list(old.operations)[-1].operands
        inputs = [self._boundary_type(argument) for argument in old.arguments]
        outputs = [self._boundary_type(result) for result in results]
        types = [*inputs, *outputs, _flat(len(layers) + 1, ir.IntegerType.get_signless(64))]
        name = self._function.attributes["sym_name"].value
        with ir.InsertionPoint(self._function), self._function.location:
            function = func.FuncOp(f"{name}.specialized", (types, []))
            function.attributes[ENTRY] = ir.UnitAttr.get()
            block = function.add_entry_block()
        with ir.InsertionPoint(block), self._function.location:
            for argument, memory in zip(old.arguments, list(block.arguments)[: len(inputs)], strict=True):
                self._buffers[argument] = self._buffer(argument, memory)
            self._choose_outputs(results, list(block.arguments)[len(inputs) : len(inputs) + len(outputs)])
            declare_function(self._module, CLOCK, "i64")
            self._b = Builder(block)
            self._block = block
            ticks = block.arguments[len(types) - 1]
            self._timestamp(ticks, 0)
            for op in old.operations:
                self._convert(op)
                if type(op) in _EMITTERS:
                    self._timestamp(ticks, layers.index(op) + 1)
            self._copy_outputs(results, list(block.arguments)[len(inputs) : len(inputs) + len(outputs)])
            func.ReturnOp([])
        self._function.operation.erase()
        function.attributes["sym_name"] = ir.StringAttr.get(name)

    def _boundary_type(self, value: ir.Value) -> ir.MemRefType:
        return _flat(_elements(list(value.type.shape), None), value.type.element_type)

    def _buffer(self, value: ir.Value, memory: ir.Value) -> _Buffer:
        layout = Layout.of(value.type) if len(value.type.shape) == 4 else None
        return _Buffer(memory, tuple(value.type.shape), layout)

    def _choose_outputs(self, results: Any, memories: list[ir.Value]) -> None:
        """Let the layer that makes a result write it straight to the caller's memory."""
        for result, memory in zip(results, memories, strict=True):
            source = through_reshapes(result)
            # What other layers read needs room behind it, which the caller's memory does not have.
            read = any(type(use.owner.opview) in _EMITTERS for use in source.uses)
            if not isinstance(source.owner, ir.Block) and source not in self._outputs and not read:
                self._outputs[source] = memory

    def _copy_outputs(self, results: Any, memories: list[ir.Value]) -> None:
        """Copy results that were not made in the caller's memory."""
        for result, memory in zip(results, memories, strict=True):
            source = through_reshapes(result)
            if source not in self._outputs or self._outputs[source] != memory:
                made, size = self.buffer(source).memory, memory.type.shape[0]
                if made.type != memory.type:
                    made = memref.ReinterpretCastOp(memory.type, made, [], [], [], [0], [size], [1]).result
                memref.CopyOp(made, memory)

    def _timestamp(self, ticks: ir.Value, position: int) -> None:
        """Store the time, for profiles."""
        now = func.CallOp([ir.IntegerType.get_signless(64)], CLOCK, []).result
        self._b.store(now, ticks, position, 0)

    def _convert(self, op: Any) -> None:
        operation = op.operation
        if operation.name in ("func.return", "pattern.parameter", "arith.constant"):
            return
        if operation.name == "tensor.collapse_shape":
            source = self.buffer(op.operands[0])
            self._buffers[op.results[0]] = _Buffer(source.memory, tuple(op.results[0].type.shape), None)
            return
        if type(op) not in _EMITTERS:
            raise fail(op, "a pattern op, a constant or a flatten", operation.name)
        require_elements(op)
        if "schedule" not in op.attributes:
            raise fail(op, "a 'schedule' attribute (run pattern-schedule first)", "none")
        _require_halo(op)
        with op.location:
            _EMITTERS[type(op)](self, op, Schedule.from_attr(op.attributes["schedule"]))

    # Pieces that the layers share ---------------------------------------------------------------------

    def result(self, op: Any) -> _Buffer:
        """Return the buffer of an op's result: the caller's memory or a new allocation."""
        value = op.results[0]
        memory = self._outputs.get(value)
        if memory is None:
            layout = Layout.of(value.type) if len(value.type.shape) == 4 else None
            elements = _elements(list(value.type.shape), layout) + _slack(value)
            memory = memref.AllocOp(_flat(elements, value.type.element_type), [], []).result
        self._buffers[value] = self._buffer(value, memory)
        return self._buffers[value]

    def buffer(self, value: ir.Value) -> _Buffer:
        """Return the buffer of an activation, or of a constant in its place."""
        if value not in self._buffers:
            array = read_constant(value, self.state)
            if array is None:  # every other op was converted before
                raise fail(value.owner, "values in the text", value.owner.attributes.get("value", "none"))
            self._buffers[value] = self._buffer(value, self.constant(array, value, ""))
        return self._buffers[value]

    def constant(self, array: np.ndarray, origin: ir.Value, role: str) -> ir.Value:
        """Return an array in memory; it keeps name and form of the constant `origin` that it was made from."""
        name = constant_name(origin)
        key = (name or origin, role)
        if key not in self._constants:
            label = ".".join(part for part in (name or "constant", role) if part)
            symbol, type_ = self._kernels.add_global(label, array, inline=name is None)
            self._constants[key] = memref.GetGlobalOp(type_, symbol).result
        return self._constants[key]

    def status(self, element: ir.Type) -> ir.Value:
        """Return memory of one element, zero when the function starts."""
        with ir.InsertionPoint.at_block_begin(self._block):
            memory = memref.AllocOp(_flat(1, element), [], []).result
            zero = arith.ConstantOp(element, 0.0).result
            memref.StoreOp(zero, memory, [arith.ConstantOp(self._b.index_type, 0).result])
        return memory

    def call(
        self,
        op: Any,
        schedule: Schedule,
        memories: list[ir.Value],
        weights: list[float],
        tiles: int,
        emit: Callable[[Builder, list[Any], convolution.Work], None],
        first_tile: int = 0,
    ) -> None:
        """Call the kernel for all parts of a layer.

        Args:
            memories: the kernel's memrefs.
            weights: cost of each filter or block of filters.
            tiles: row tiles of all images.
            emit: writes the kernel from its memref arguments and its share of the work.
            first_tile: where the tiles start.
        """
        memories = [_unbounded(memory) for memory in memories]
        types = [memory.type for memory in memories] + [self._b.index_type] * 4

        def write(b: Builder, arguments: list[Any]) -> None:
            emit(b, arguments[:-4], convolution.Work(*arguments[-4:]))

        name = self._kernels.get(schedule.algorithm, types, op.result.type.element_type, write)
        shares = divide(schedule, tiles, weights)
        parts = [(first + first_tile, last + first_tile, *rest) for first, last, *rest in shares]
        if len(parts) == 1:
            func.CallOp([], name, [*memories, *(self._b.index(bound) for bound in parts[0])])
            return
        table = np.array(parts, np.int32)
        symbol, type_ = self._kernels.add_global(f"{name}.parts", table, inline=True)
        bounds = memref.GetGlobalOp(type_, symbol).result
        loop = scf.ParallelOp([], [self._b.index(0)], [self._b.index(len(parts))], [self._b.index(1)], [])
        body = loop.regions[0].blocks.append(self._b.index_type)
        with ir.InsertionPoint(body):
            first = self._b.mul(body.arguments[0], 4)
            part = [self._b.load_index(bounds, self._b.add(first, bound)) for bound in range(4)]
            func.CallOp([], name, [*memories, *part])
            scf.ReduceOp([], 0)


def _require_halo(op: Any) -> None:
    """Refuse a window that would read around its input where no halo is."""
    if "pads" not in op.attributes:
        return
    pads, layout = list(op.pads), Layout.of(op.input.type)
    if any(pad > side for pad, side in zip(pads, (layout.top, layout.left, layout.bottom, layout.right), strict=True)):
        raise fail(op, f"an input with a halo of at least {pads} (run pattern-layout first)", op.input.type)


def _unbounded(memory: ir.Value) -> ir.Value:
    """Return a memref as kernels see it."""
    kind = _flat(UNBOUNDED, memory.type.element_type)
    return memref.ReinterpretCastOp(kind, memory, [], [], [], [0], [UNBOUNDED], [1]).result


def divide(schedule: Schedule, tiles: int, weights: list[float]) -> list[tuple[int, int, int, int]]:
    """Return (first tile, last tile, first filter, last filter) of each thread's part, of nearly equal cost."""
    threads = schedule.threads
    if threads == 1:
        return [(0, tiles, 0, len(weights))]
    if schedule.split == "rows":
        cuts = [tiles * part // threads for part in range(threads + 1)]
        return [(cuts[part], cuts[part + 1], 0, len(weights)) for part in range(threads)]
    cuts = cut_evenly(weights, threads)
    return [(0, tiles, cuts[part], cuts[part + 1]) for part in range(threads)]


_MakeEpilogue = Callable[[list[Any]], convolution.Epilogue]


def _epilogue(specializer: _Specializer, op: Any, schedule: Schedule) -> tuple[list[ir.Value], _MakeEpilogue]:
    """Return the memrefs of bias and residual, and what makes the epilogue from a kernel's arguments."""
    activation = Activation.from_attr(op.activation)
    memories = []
    if op.bias is not None:
        memories.append(specializer.constant(require_array(op, op.bias, "bias", specializer.state), op.bias, ""))
    residual = None
    if getattr(op, "residual", None) is not None:
        residual = _as_kernel_sees(specializer.buffer(op.residual), op, schedule)
        memories.append(residual.memory)
    has_bias = op.bias is not None

    def make(arguments: list[Any]) -> convolution.Epilogue:
        rest = list(arguments)
        bias = rest.pop(0) if has_bias else None
        return convolution.Epilogue(bias, residual.tensor(rest.pop(0)) if residual else None, activation)

    return memories, make


def _emit_sparse(specializer: _Specializer, op: Any, schedule: Schedule) -> None:
    if schedule.algorithm == "pattern-direct":
        _emit_pattern_direct(specializer, op, schedule)
    elif schedule.algorithm == "input-stationary":
        _emit_input_stationary(specializer, op, schedule)
    else:
        _emit_dense(specializer, op, schedule)


def _emit_pattern_direct(specializer: _Specializer, op: Any, schedule: Schedule) -> None:
    source, output = _ends(specializer, op, schedule)
    library = Library.from_attr(op.format)
    weights = []
    fkw = read_fkw(op, specializer.state)
    for array, operand in zip(fkw.arrays, op.arrays, strict=True):
        weights.append(specializer.constant(array, operand, ""))
    extra, epilogue = _epilogue(specializer, op, schedule)
    window = windows.Window.of(op)

    def emit(b: Builder, arguments: list[Any], work: convolution.Work) -> None:
        values, index, offset, stride, reorder = arguments[1:6]
        arrays = convolution.SparseWeights(values, index, offset, stride, reorder, library)
        made = output.tensor(arguments[6])
        convolution.sparse_convolution(
            b,
            work,
            source.tensor(arguments[0]),
            arrays,
            made,
            epilogue(arguments[7:]),
            window,
            schedule,
            in_parts=in_parts,
        )

    products = fkw.values.size / output.shape[1]
    in_parts = convolution.is_long_sum(op.result.type.element_type, products)
    kept = (fkw.stride[:, -1] - fkw.stride[:, 0] + len(library.masks)).astype(float)
    memories = [source.memory, *weights, output.memory, *extra]
    specializer.call(op, schedule, memories, list(kept), row_tiles(op, schedule), emit)


def _emit_input_stationary(specializer: _Specializer, op: Any, schedule: Schedule) -> None:
    source, output = _ends(specializer, op, schedule)
    library, fkw = Library.from_attr(op.format), read_fkw(op, specializer.state)
    blocks = ceil_div(output.shape[1], schedule.filters)
    if schedule.split == "filters":
        blocks = ceil_div(blocks, schedule.threads) * schedule.threads
    arrays = by_channel(fkw, blocks)
    weights = []
    for role in ("values", "place", "bounds", "channels", "firsts", "reorder", "count"):
        weights.append(specializer.constant(getattr(arrays, role), op.array("values"), f"{role}{blocks}"))
    block = ceil_div(arrays.block, 64) * 64  # the same for layers that are alike, so that they share a kernel
    extra, epilogue = _epilogue(specializer, op, schedule)
    window = windows.Window.of(op)

    def emit(b: Builder, arguments: list[Any], work: convolution.Work) -> None:
        values, place, bounds, channels, firsts, reorder, count = arguments[1:8]
        held = ChannelMajorWeights(values, place, bounds, channels, firsts, reorder, count, library, block)
        made = output.tensor(arguments[8])
        input_stationary(b, work, source.tensor(arguments[0]), held, made, epilogue(arguments[9:]), window, schedule)

    memories = [source.memory, *weights, output.memory, *extra]
    specializer.call(op, schedule, memories, arrays.kept(), row_tiles(op, schedule), emit)


def _ends(specializer: _Specializer, op: Any, schedule: Schedule) -> tuple[_Buffer, _Buffer]:
    """Return the input and the result of a convolution."""
    source, output = specializer.buffer(op.input), specializer.result(op)
    return _as_kernel_sees(source, op, schedule), _as_kernel_sees(output, op, schedule)


def _as_kernel_sees(buffer: _Buffer, op: Any, schedule: Schedule) -> _Buffer:
    """Return a tensor that a convolution reads or writes; see `kernel_plane`."""
    return buffer.flat(kernel_plane(op, schedule.threads)[0]) if is_flat(op) else buffer


def pack_filters(weight: np.ndarray, block: int) -> np.ndarray:
    """Return F x C x KH x KW weights as [block][channel][tap][filter of the block]; the last block may overlap."""
    filters, channels = weight.shape[:2]
    firsts = [min(first, filters - block) for first in range(0, filters, block)]
    blocks = [weight[first : first + block].reshape(block, channels, -1).transpose(1, 2, 0) for first in firsts]
    return np.stack(blocks)


def _emit_winograd(specializer: _Specializer, op: Any, schedule: Schedule) -> None:
    source, output = specializer.buffer(op.input), specializer.result(op)
    weight = read_dense_weight(op, specializer.state)
    filters, channels, *kernel = weight.array.shape
    element = op.result.type.element_type
    if element != ir.F32Type.get():  # the transforms would lose most of the bits of a narrower type
        raise fail(op, "f32 tensors for algorithm 'winograd'", op.result.type)
    phases = Layout.of(op.input.type).phases
    if not winograd.applies(kernel, op.strides, op.dilations, weight.groups, phases):
        rule = (
            "algorithm 'winograd' for one group and no dilation and a kernel of 3x3, 4x4 or, with strides and input "
            "phases of 2, 5x5 to 8x8"
        )
        found = f"groups {weight.groups}, dilations {list(op.dilations)}, kernel {kernel}, strides {list(op.strides)}"
        raise fail(op, rule, f"{found}, phases {phases}")
    images, _, height, width = output.shape
    band = min(ceil_div(schedule.rows, TILE), images * ceil_div(height, TILE))
    block = schedule.filters
    cut = band, schedule.lanes, block, schedule.columns
    layer = winograd.Layer(images, channels, filters, height, width, *cut, kernel[0], op.strides[0])
    transformed = winograd.transform_weights(weight.array, layer.stride)
    blocks = np.stack([pack_filters(part[:, :, None, None], block) for part in transformed])
    packed = specializer.constant(blocks, weight.origin, f"winograd{block}")
    own_bands = schedule.split == "rows" and layer.bands >= schedule.threads
    copies, kept = (schedule.threads, layer.kept) if own_bands else (1, filters)
    sizes = [copies * count * layer.channel for count in (layer.depth, kept)]
    planes, sums = (memref.AllocOp(_flat(size, element), [], []).result for size in sizes)
    extra, epilogue = _epilogue(specializer, op, schedule)
    window = windows.Window.of(op)
    status = specializer.status(element)
    again = winograd_repair.repair_schedule(layer, schedule)
    matrices = specializer.constant(winograd_repair.restoring_matrices(layer), weight.origin, "restoring")
    places = winograd_repair.places(layer, source.tensor(source.memory).layout, window)
    places = specializer.constant(places, op.result, "places")
    kernels = [packed, matrices, places]

    def emit_repair(b: Builder, arguments: list[Any], work: convolution.Work) -> None:
        given, packed, matrices, places, status, made, *rest = arguments
        arrays = winograd_repair.Weights(packed, matrices, places)
        tensors = source.tensor(given), arrays, status, output.tensor(made)
        winograd_repair.repair(b, work, layer, *tensors, epilogue(rest), window, again)

    def emit_bands(b: Builder, arguments: list[Any], work: convolution.Work) -> None:
        given, planes, weights, sums, status, made, *rest = arguments
        tensors = source.tensor(given), planes, weights, sums, output.tensor(made)
        seen = winograd_stages.compute_bands(b, work, layer, schedule.threads, *tensors, epilogue(rest), window)
        winograd_repair.report(b, seen, status)

    if own_bands:
        memories = [source.memory, planes, packed, sums, status, output.memory, *extra]
        specializer.call(op, schedule, memories, [1.0], layer.bands, emit_bands)
        memories = [source.memory, *kernels, status, output.memory, *extra]
        specializer.call(op, again, memories, [1.0] * filters, row_tiles(op, again), emit_repair)
        return

    def emit_input(b: Builder, arguments: list[Any], work: convolution.Work) -> None:
        part, start = (work.first_filter, work.last_filter), winograd_stages.first_row(b, layer, work.first_tile)
        winograd_stages.transform_input(b, layer, part, start, source.tensor(arguments[0]), arguments[1], 0, window)

    def emit_products(b: Builder, arguments: list[Any], work: convolution.Work) -> None:
        planes, weights, sums = arguments
        positions, part = (work.first_tile, work.last_tile), (work.first_filter, work.last_filter)
        winograd_stages.multiply(b, layer, positions, part, planes, 0, weights, winograd_stages.Products(sums))

    def emit_output(b: Builder, arguments: list[Any], work: convolution.Work) -> None:
        sums, status, made, *rest = arguments
        part, start = (work.first_filter, work.last_filter), winograd_stages.first_row(b, layer, work.first_tile)
        products, seen = winograd_stages.Products(sums), winograd_stages.nothing_seen(b, layer)
        tensors = products, output.tensor(made), epilogue(rest)
        seen = winograd_stages.transform_output(b, layer, part, start, *tensors, seen)
        winograd_repair.report(b, seen, status)

    even = layer.positions % schedule.threads == 0 or layer.blocks % schedule.threads != 0
    stages = {
        name: replace(schedule, algorithm=f"winograd-{name}", split=split)
        for name, split in {"input": "filters", "products": "rows" if even else "filters", "output": "filters"}.items()
    }
    for number in range(layer.bands):
        memories = [source.memory, planes]
        specializer.call(op, stages["input"], memories, [1.0] * channels, 1, emit_input, number)
        memories, positions = [planes, packed, sums], layer.positions
        specializer.call(op, stages["products"], memories, [1.0] * layer.blocks, positions, emit_products)
        memories = [sums, status, output.memory, *extra]
        specializer.call(op, stages["output"], memories, [1.0] * filters, 1, emit_output, number)
    memories = [source.memory, *kernels, status, output.memory, *extra]
    specializer.call(op, again, memories, [1.0] * filters, row_tiles(op, again), emit_repair)


def _emit_dense(specializer: _Specializer, op: Any, schedule: Schedule) -> None:
    if schedule.algorithm == "winograd":
        _emit_winograd(specializer, op, schedule)
        return
    source, output = _ends(specializer, op, schedule)
    weight = read_dense_weight(op, specializer.state)
    filters, channels, *kernel = weight.array.shape
    packed = specializer.constant(
        pack_filters(weight.array, schedule.filters), weight.origin, f"packed{schedule.filters}"
    )
    extra, epilogue = _epilogue(specializer, op, schedule)
    window, group = windows.Window.of(op), filters // weight.groups

    def emit(b: Builder, arguments: list[Any], work: convolution.Work) -> None:
        weights = convolution.DenseWeights(arguments[1], (kernel[0], kernel[1]), channels, group)
        made = output.tensor(arguments[2])
        convolution.dense_convolution(
            b, work, source.tensor(arguments[0]), weights, made, epilogue(arguments[3:]), window, schedule
        )

    blocks = ceil_div(filters, schedule.filters)
    memories = [source.memory, packed, output.memory, *extra]
    specializer.call(op, schedule, memories, [1.0] * blocks, row_tiles(op, schedule), emit)


def _emit_pool(specializer: _Specializer, op: Any, schedule: Schedule) -> None:
    if is_global_pool(op):
        _emit_global_pool(specializer, op, schedule)
        return
    source, output = specializer.buffer(op.input), specializer.result(op)
    window, kernel = windows.Window.of(op), (op.kernel[0], op.kernel[1])
    maximum = isinstance(op, pattern.MaxPool2dOp)
    memories = [source.memory, output.memory]
    divisors = np.ones((1, 1)) if maximum else windows.average_divisors(op)
    scale = 1.0 / float(divisors[0, 0])
    is_table = bool(np.any(divisors != divisors[0, 0]))
    if is_table:
        table = _reciprocals(divisors, tiling.covered(output.shape[3], schedule.lanes), op.result.type)
        memories.append(specializer.constant(table, op.result, "reciprocals"))

    def emit(b: Builder, arguments: list[Any], work: convolution.Work) -> None:
        pooling.pool(
            b,
            work,
            source.tensor(arguments[0]),
            output.tensor(arguments[1]),
            kernel,
            window,
            schedule,
            maximum=maximum,
            scale=arguments[2] if is_table else scale,
        )

    specializer.call(op, schedule, memories, [1.0] * output.shape[1], row_tiles(op, schedule), emit)


def _reciprocals(divisors: np.ndarray, covered: int, type_: Any) -> np.ndarray:
    """Return one over the divisor of each output place; columns beyond the row hold zero."""
    table = np.zeros((divisors.shape[0], covered), numpy_type(type_))
    table[:, : divisors.shape[1]] = 1.0 / divisors
    return table


def _emit_global_pool(specializer: _Specializer, op: Any, schedule: Schedule) -> None:
    source, output = specializer.buffer(op.input), specializer.result(op)

    def emit(b: Builder, arguments: list[Any], work: convolution.Work) -> None:
        pooling.global_pool(b, work, source.tensor(arguments[0]), output.tensor(arguments[1]), schedule)

    weights = [1.0] * output.shape[1]
    specializer.call(op, schedule, [source.memory, output.memory], weights, output.shape[0], emit)


def _emit_elementwise(specializer: _Specializer, op: Any, schedule: Schedule) -> None:
    operands = list(op.operands)
    sources = [specializer.buffer(operand) for operand in operands]
    output = specializer.result(op)
    activation = Activation.from_attr(op.activation) if "activation" in op.attributes else Activation()

    def emit(b: Builder, arguments: list[Any], work: convolution.Work) -> None:
        tensors = [source.tensor(argument) for source, argument in zip(sources, arguments[:-1], strict=True)]
        pooling.elementwise(b, work, tensors, output.tensor(arguments[-1]), activation, schedule)

    memories = [source.memory for source in sources] + [output.memory]
    channels = as_planes(output.shape)[1]
    specializer.call(op, schedule, memories, [1.0] * channels, row_tiles(op, schedule), emit)


def pack_features(weight: np.ndarray, block: int, lanes: int) -> np.ndarray:
    """Return F x C weights as [block of filters][vector of features][filter][lane], padded with zeros."""
    filters, features = weight.shape
    vectors = ceil_div(features, lanes)
    padded = np.pad(weight, ((0, 0), (0, vectors * lanes - features)))
    firsts = [min(first, filters - block) for first in range(0, filters, block)]
    rows = np.concatenate([np.arange(first, first + block) for first in firsts])
    return padded[rows].reshape(len(firsts), block, vectors, lanes).transpose(0, 2, 1, 3)


def _emit_linear(specializer: _Specializer, op: Any, schedule: Schedule) -> None:
    source, output = specializer.buffer(op.input), specializer.result(op)
    array = pack_features(require_array(op, op.weight, "weight", specializer.state), schedule.filters, schedule.lanes)
    weight = specializer.constant(array, op.weight, f"packed{schedule.filters}x{schedule.lanes}")
    extra, epilogue = _epilogue(specializer, op, schedule)
    images, features = source.shape
    shape = linear.LinearShape(images, features, output.shape[1])

    def emit(b: Builder, arguments: list[Any], work: convolution.Work) -> None:
        given, weights, made, *rest = arguments
        linear.linear(b, work, given, weights, made, shape, epilogue(rest), schedule)

    blocks = ceil_div(shape.filters, schedule.filters)
    memories = [source.memory, weight, output.memory, *extra]
    specializer.call(op, schedule, memories, [1.0] * blocks, 1, emit)


_EMITTERS: dict[type, Callable[[_Specializer, Any, Schedule], None]] = {
    pattern.SparseConv2dOp: _emit_sparse,
    pattern.Conv2dOp: _emit_dense,
    pattern.MaxPool2dOp: _emit_pool,
    pattern.AvgPool2dOp: _emit_pool,
    pattern.AddOp: _emit_elementwise,
    pattern.ActivateOp: _emit_elementwise,
    pattern.RelayoutOp: _emit_elementwise,
    pattern.LinearOp: _emit_linear,
}
