"""Compile `pattern` nets for this machine and call them, with every byte they must not use made to show.

Memory that the caller gives is full of NaN wherever the compiled code has to write before it reads, and has a margin
of NaN on both sides that must still be there afterwards. With `fenced` a page that cannot be touched follows each
buffer, so that even a read behind its end ends the process: do that in a process of its own.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from interpreter import interpret
from networks import CONTEXT, Network, Value
from torch_mlir import ir
from torch_mlir.dialects import arith, math

from patc.dialects.schedules import Schedule
from patc.execution import compile_module
from patc.integers import ceil_div
from patc.parameters import ParameterStore
from patc.passes.base import PassState
from patc.passes.ir.windows import Window
from patc.passes.kernels.builder import element_type
from patc.pipeline import Pipeline
from patc.runtime.native import NativeFunction
from patc.runtime.program import ENTRY, Program
from patc.targets import TARGETS, get_target, host_features

MARGIN = 256
NAN_BYTE = 0xFF
BOUNDS = {"f32": 1e-5, "f16": 5e-2}
NATIVE_TARGETS = ("host", *(name for name, target in TARGETS.items() if host_features() >= {*target.features}))

Retile = Callable[[Any, Schedule], Schedule]


@dataclass(frozen=True)
class Typed(Value):
    """A value of another element type than f32."""

    text: str = ""

    @property
    def type(self) -> str:
        return self.text


@dataclass
class Net(Network):
    """A network with several inputs, and with all that the ops can say."""

    more_inputs: list[Value] = field(default_factory=list)

    @property
    def inputs(self) -> list[Value]:
        return [self.input, *self.more_inputs]

    def new_input(self, shape: tuple[int, ...]) -> Value:
        self.more_inputs.append(Value(f"%more{len(self.more_inputs)}", shape))
        return self.more_inputs[-1]

    def sparse_conv(
        self,
        x: Value,
        arrays: Sequence[np.ndarray],
        kernel: Sequence[int],
        masks: Sequence[int],
        window: Window,
        bias: np.ndarray | None = None,
        residual: Value | None = None,
        activation: str = '"none"',
    ) -> Value:
        """Add a layer with values, index, offset, pattern_offsets and reorder `arrays`; a third kernel size is the depth."""
        operands = [x, *(self.constant(array) for array in arrays)]
        operands += [self.constant(bias)] if bias is not None else []
        operands += [residual] if residual is not None else []
        segments = [*[1] * 6, 0, int(bias is not None), int(residual is not None)]
        attributes = (
            f"{_window(window)}, format = #pattern.fkw<{_array(kernel)}, {_array(masks)}>, "
            f"activation = {activation}, operandSegmentSizes = array<i32: {_list(segments)}>"
        )
        shape = (x.shape[0], len(arrays[-1]), *window.result_size(x.shape[2:]))
        return self.op("pattern.sparse_conv2d", operands, attributes, shape)

    def window_pool(self, kind: str, x: Value, window: Window, counts_pads: bool = False) -> Value:
        attributes = f"{_window(window)}, kernel = {_array(window.kernel)}"
        attributes += f", count_include_pad = {str(counts_pads).lower()}" if kind == "avg" else ""
        shape = (*x.shape[:2], *window.result_size(x.shape[2:]))
        return self.op(f"pattern.{kind}_pool2d", [x], attributes, shape)

    def global_pool(self, x: Value) -> Value:
        height, width = x.shape[2:]
        return self.window_pool("avg", x, Window((height, width)))

    def dense_layer(
        self,
        x: Value,
        weight: np.ndarray,
        bias: np.ndarray | None = None,
        activation: str = '"none"',
        residual: Value | None = None,
    ) -> Value:
        operands = [x, self.constant(weight)]
        operands += [self.constant(bias)] if bias is not None else []
        operands += [residual] if residual is not None else []
        segments = f"array<i32: 1, 1, {int(bias is not None)}, {int(residual is not None)}>"
        attributes = f"activation = {activation}, operandSegmentSizes = {segments}"
        return self.op("pattern.linear", operands, attributes, (x.shape[0], len(weight)))

    def constant(self, array: np.ndarray) -> Value:
        """Add a parameter of the array's own element type, f32 for float64."""
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        name = self.parameters.add(f"array{len(self.lines)}", array)
        element = {"float32": "f32", "int16": "i16", "int32": "i32"}[array.dtype.name]
        shape = "x".join(map(str, array.shape))
        value = Typed(f"%{len(self.lines)}", array.shape, f"tensor<{shape}x{element}>")
        self.lines.append(f'{value.name} = "pattern.parameter"() {{name = "{name}"}} : () -> {value.type}')
        return value

    def build(self, *results: Value) -> ir.Module:
        heads = ", ".join(f"{value.name}: {value.type}" for value in self.inputs)
        names, types = (", ".join(getattr(value, key) for value in results) for key in ("name", "type"))
        head = f"func.func @main({heads}) -> ({types}) {{"
        module = ir.Module.parse("\n".join([head, *self.lines, f"return {names} : {types}", "}"]), CONTEXT)
        assert module.operation.verify()
        return module


def _array(numbers: Sequence[int]) -> str:
    return f"array<i64: {_list(numbers)}>"


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _window(window: Window) -> str:
    values = {"strides": window.strides, "pads": window.pads, "dilations": window.dilations}
    return ", ".join(f"{name} = {_array(numbers)}" for name, numbers in values.items())


def check(
    net: Network,
    results: Sequence[Value],
    seed: int = 0,
    fenced: bool = False,
    dtype: str = "f32",
    compiler: Callable[..., Any] | None = None,
    **how: Any,
) -> list[np.ndarray]:
    """Require the compiled net to compute what the interpreter does, for normally distributed inputs.

    The bound is 1e-5 of the largest result, or of the inputs' scale where that is larger: sums may cancel. Where an
    activation clamps sums that are much larger, whose rounding errors stay, it is 1e-5 of those. With `dtype` "f16" it
    is 5e-2: weights and inputs are rounded for both, sums and what is between layers for one.

    Args:
        compiler: `compile_native`, or another function that makes a callable of a module and its parameters.
        how: what `compiler` takes.

    Returns:
        the results, float32.
    """
    rng = np.random.default_rng(seed)
    inputs = net.inputs if isinstance(net, Net) else [net.input]
    arrays = [rng.standard_normal(value.shape, np.float32) for value in inputs]
    if dtype == "f16":
        arrays = [array.astype(np.float16).astype(np.float32) for array in arrays]
    module, parameters = net.build(*results), net.copy_parameters()
    Pipeline().add("pattern-demote", dtype=dtype).run(module, PassState(parameters))
    wanted = interpret(module, parameters, arrays)
    found = (compiler or compile_native)(module, parameters, **how)(*arrays, fenced=fenced)
    bound = BOUNDS[dtype]
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        error = np.abs(one - other).max()
        if not error <= bound * max(1.0, np.abs(other).max()):
            assert error <= bound * largest_sum(net.build(*results), net.copy_parameters(), arrays), "results differ"
    return found


def largest_sum(module: ir.Module, parameters: ParameterStore, arrays: Sequence[np.ndarray]) -> float:
    """Return the largest magnitude among the results of a net without its clamps."""
    for op in main_body(module).operations:
        if "activation" in op.attributes and "clamp" in str(op.attributes["activation"]):
            op.attributes["activation"] = ir.StringAttr.get("none", module.context)
    return max(float(np.abs(result).max()) for result in interpret(module, parameters, arrays))


def compile_native(
    module: ir.Module, parameters: ParameterStore, *, target: str = "host", threads: int = 1, **how: Any
) -> Native:
    """Compile a module for a target whose code this machine runs. See `lower` for the arguments."""
    state = lower(module, parameters, target=target, threads=threads, **how)
    if get_target(target).architecture != "aarch64":
        _multiply_halves_in_f32(module)
    program = compile_module(module, state.parameters, target=target, threads=threads, stage="parallelize")
    return Native(NativeFunction(program.code, ENTRY, len(memory_sizes(program)), program.threads), program)


def lower(
    module: ir.Module,
    parameters: ParameterStore,
    *,
    target: str,
    threads: int = 1,
    retile: Retile | None = None,
    without: Sequence[str] = (),
) -> PassState:
    """Run `pattern-layout` and what follows it on a module, in place.

    Args:
        module: pattern ops on tensors, without layouts.
        parameters: the arrays of its `pattern.parameter` ops; the passes add some.
        target: name of the target.
        threads: parts that each layer is divided into.
        retile: returns the schedule to use for an op, given the one that was chosen.
        without: names of passes to leave out.
    """
    state = PassState(parameters)
    pipeline = Pipeline.named("host", target=get_target(target), threads=threads)
    pipeline.passes = [item for item in pipeline.passes if item.name not in without]
    pipeline.until("schedule").after("demote").run(module, state)
    if retile is not None:
        change_schedules(module, retile)
    return pipeline.after("schedule").run(module, state)


def memory_sizes(program: Program) -> tuple[int, ...]:
    """Return the bytes behind each address that `main` takes: inputs, outputs, time stamps, arena and weights."""
    tensors = (info.nbytes for info in (*program.inputs, *program.outputs))
    return (*tensors, 8 * (len(program.layers) + 1), program.arena_bytes, program.weights.nbytes)


def _multiply_halves_in_f32(module: ir.Module) -> None:
    """Let multiply-adds of f16 round twice, to f32 and then to f16: for one that rounds once LLVM would call a function
    an element, as most x86 CPUs have none. All else that kernels do with f16 it does in f32 by itself."""
    found: list[ir.Operation] = []

    def collect(op: ir.Operation) -> ir.WalkResult:
        if op.name == "math.fma" and element_type(op.results[0]) == ir.F16Type.get():
            found.append(op)
        return ir.WalkResult.ADVANCE

    with module.context:
        module.operation.walk(collect)
        for op in found:
            with ir.InsertionPoint(op), op.location:
                half = op.results[0].type
                wide = ir.VectorType.get(half.shape, ir.F32Type.get())
                operands = [arith.ExtFOp(wide, operand).result for operand in op.operands]
                rounded = arith.TruncFOp(half, math.FmaOp(*operands).result).result
            op.results[0].replace_all_uses_with(rounded)
            op.erase()


def main_body(module: ir.Module) -> Any:
    """Return the block of `@main`."""
    functions = [op for op in module.body.operations if op.operation.name == "func.func"]
    return next(op for op in functions if op.name.value == "main").regions[0].blocks[0]


def scheduled_ops(module: ir.Module) -> Iterator[tuple[Any, Schedule]]:
    """Yield each op of `@main` that has a schedule, and the schedule."""
    for op in main_body(module).operations:
        if "schedule" in op.attributes:
            yield op, Schedule.from_attr(op.attributes["schedule"])


def change_schedules(module: ir.Module, retile: Retile) -> None:
    """Replace the schedule of each layer of `@main` by what `retile` makes of it."""
    with module.context:
        for op, chosen in scheduled_ops(module):
            op.attributes["schedule"] = retile(op, chosen).to_attr()


@dataclass(frozen=True)
class Native:
    """A compiled `@main`.

    Attributes:
        function: takes the addresses of inputs, outputs, time stamps, arena and weights.
        program: that it belongs to.
    """

    function: NativeFunction
    program: Program

    def __call__(self, *inputs: np.ndarray, fenced: bool = False) -> list[np.ndarray]:
        """Return the outputs.

        Raises:
            AssertionError: the code changed its inputs or weights, or wrote outside its buffers.
        """
        sizes, infos = memory_sizes(self.program), self.program.outputs
        own = len(sizes) - 2  # arena and weights, the last two, start on a cache line
        make = _Fenced if fenced else _Margined
        memories = [make(size, aligned=number >= own) for number, size in enumerate(sizes)]
        given = [*zip(memories, inputs, strict=False), (memories[-1], self.program.weights)]
        for memory, array in given:
            memory.bytes[:] = _as_bytes(array)
        self.function(*(memory.address for memory in memories))
        for memory, array in given:
            np.testing.assert_array_equal(memory.bytes, _as_bytes(array))
        for number, memory in enumerate(memories):
            assert memory.intact(), f"wrote outside the memory of argument {number}"
        outputs = memories[len(inputs) : len(inputs) + len(infos)]
        return [
            memory.bytes.view(info.dtype).reshape(info.shape).copy()
            for memory, info in zip(outputs, infos, strict=True)
        ]


def _as_bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


class _Margined:
    """NaN bytes between margins; on a cache line, or on no boundary but that of an element."""

    def __init__(self, size: int, aligned: bool) -> None:
        self._whole = np.full(size + 2 * MARGIN + 64, NAN_BYTE, np.uint8)
        self._start = MARGIN + -(self._whole.ctypes.data + MARGIN) % 64 + (0 if aligned else 4)
        self._end = self._start + size
        self.bytes = self._whole[self._start : self._end]

    @property
    def address(self) -> int:
        return int(self.bytes.ctypes.data)

    def intact(self) -> bool:
        margins = (self._whole[: self._start], self._whole[self._end :])
        return all((margin == NAN_BYTE).all() for margin in margins)


class _Fenced:
    """NaN bytes before a page that cannot be touched; up to 63 bytes before it where they start on a cache line."""

    def __init__(self, size: int, aligned: bool) -> None:
        page = mmap.PAGESIZE
        pages = ceil_div(size, page) * page
        self._map = mmap.mmap(-1, pages + page)
        self._whole = np.frombuffer(self._map, np.uint8)
        self._whole[:pages] = NAN_BYTE
        fence = ctypes.c_void_p(self._whole.ctypes.data + pages)
        if ctypes.CDLL(None, use_errno=True).mprotect(fence, ctypes.c_size_t(page), 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
        self._start = pages - size - ((pages - size) % 64 if aligned else 0)
        self.bytes = self._whole[self._start : self._start + size]

    @property
    def address(self) -> int:
        return int(self.bytes.ctypes.data)

    def intact(self) -> bool:
        return bool((self._whole[: self._start] == NAN_BYTE).all())
