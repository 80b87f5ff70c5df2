"""Run a module as it stands: the oracle that pass tests compare with.

A `pattern` module is decoded by `convert-pattern-to-linalg` and a linalg module is taken as it is; both are
bufferized, lowered to plain loops and run in this process. Nothing here is fast, and nothing is shared with
the code generators that are tested against it.
"""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir, passmanager
from torch_mlir.dialects import linalg
from torch_mlir.execution_engine import ExecutionEngine
from torch_mlir.runtime import get_ranked_memref_descriptor

from patc.diagnostics import PatcError, first_line
from patc.dialects.pattern import ParameterOp
from patc.locks import compiling
from patc.parameters import ParameterStore
from patc.passes.base import PassState
from patc.passes.convert_pattern_to_linalg import ConvertPatternToLinalg
from patc.passes.functions.quotients import guard_quotients
from patc.passes.ir.elements import numpy_type
from patc.passes.ir.functions import return_into_arguments
from patc.passes.vectors.vector_addresses import constant

_BUFFERIZE = (
    "builtin.module(one-shot-bufferize{allow-return-allocs-from-loops bufferize-function-boundaries"
    " function-boundary-type-conversion=identity-layout-map},canonicalize,cse,buffer-deallocation-pipeline,"
    "convert-bufferization-to-memref)"
)
_TO_LOOPS = "builtin.module(convert-linalg-to-loops)"
_TO_LLVM = (
    "builtin.module(convert-vector-to-scf,expand-strided-metadata,lower-affine,"
    "convert-scf-to-cf,convert-math-to-llvm,convert-math-to-libm,convert-vector-to-llvm,"
    "finalize-memref-to-llvm,convert-arith-to-llvm,convert-index-to-llvm,convert-ub-to-llvm,"
    "convert-func-to-llvm,convert-cf-to-llvm,reconcile-unrealized-casts)"
)
_ALIGNMENT = 64
# Loops of more turns take longer than to optimise them.
_MANY_TURNS = 1_000_000_000
_LOOPS = ("scf.for", "scf.while", "scf.parallel", "scf.forall", "affine.for", "affine.parallel")


@compiling()
def execute(
    module: ir.Module,
    parameters: ParameterStore | None,
    inputs: Sequence[np.ndarray],
    function: str = "main",
) -> list[np.ndarray]:
    """Compute one function of a module of tensors; the module and the parameters stay as they are.

    Args:
        module: `pattern` ops of any stage before specialise, linalg on tensors, or both.
        parameters: the arrays behind `pattern.parameter` ops; None when there are none.
        inputs: one array an argument, of the argument's shape and element type.
        function: the name of the function.

    Returns:
        One array a result.

    Raises:
        PatcError: there is no such function, an input does not fit, a parameter is missing, or the module
            holds something that upstream passes cannot lower to loops.
    """
    given = parameters or ParameterStore()
    state = PassState(ParameterStore({name: given[name] for name in given}))
    with module.context, ir.Location.unknown():
        work = _copy(module)
        ConvertPatternToLinalg().run(work, state)
        entry = _find_function(work, function)
        arrays = _check_inputs(entry, inputs)
        results = [_aligned(np.empty(type_.shape, type_.dtype)) for type_ in _results(entry)]
        arrays += _parameters_to_arguments(entry, state.parameters)
        return_into_arguments(entry)
        entry.attributes["llvm.emit_c_interface"] = ir.UnitAttr.get()
        turns = _lower(work)
        _run(work, function, [_aligned(array) for array in arrays] + results, 2 if turns > _MANY_TURNS else 0)
    return results


@dataclass(frozen=True)
class _TensorType:
    shape: tuple[int, ...]
    dtype: np.dtype

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape)) or 'scalar'} of {self.dtype}"


def _copy(module: ir.Module) -> ir.Module:
    copy = ir.Module.create(module.operation.location)
    for op in module.body.operations:
        copy.body.append(op.operation.clone())
    return copy


def _find_function(module: ir.Module, name: str) -> Any:
    functions = [op for op in module.body.operations if op.operation.name == "func.func"]
    found = [op for op in functions if op.name.value == name and not op.is_external]
    if not found:
        names = ", ".join(f"'{op.name.value}'" for op in functions) or "none"
        raise PatcError(f"expected a function '{name}' with a body, found {names}", module.operation.location)
    return found[0]


def _tensor_type(type_: ir.Type, entry: Any) -> _TensorType:
    is_tensor = isinstance(type_, ir.RankedTensorType) and type_.has_static_shape
    dtype = numpy_type(type_) if is_tensor else None
    if dtype is None:
        expected = "expected arguments and results that are tensors of static shape"
        raise PatcError(f"{expected}, got {type_}", entry.location)
    return _TensorType(tuple(type_.shape), dtype)


def _results(entry: Any) -> list[_TensorType]:
    return [_tensor_type(type_, entry) for type_ in entry.type.results]


def _check_inputs(entry: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    types = [_tensor_type(type_, entry) for type_ in entry.type.inputs]
    if len(inputs) != len(types):
        raise PatcError(f"expected {len(types)} inputs, got {len(inputs)}", entry.location)
    arrays = [np.asarray(array) for array in inputs]
    for number, (array, type_) in enumerate(zip(arrays, types, strict=True)):
        found = _TensorType(array.shape, array.dtype)
        if found != type_:
            raise PatcError(f"expected input {number} to be {type_}, got {found}", entry.location)
    return arrays


def _parameters_to_arguments(entry: Any, parameters: ParameterStore) -> list[np.ndarray]:
    """Turn every `pattern.parameter` into an argument; return their arrays in argument order."""
    block = entry.entry_block
    arrays: list[np.ndarray] = []
    arguments: dict[str, ir.Value] = {}
    for op in _operations(entry):
        if op.name != ParameterOp.OPERATION_NAME:
            continue
        name = op.attributes["name"].value
        array = parameters[name]
        found, expected = _TensorType(array.shape, array.dtype), _tensor_type(op.result.type, op)
        if found != expected:
            raise PatcError(f"expected parameter '{name}' to be {expected}, got {found}", op.location)
        if name not in arguments:
            arguments[name] = block.add_argument(op.result.type, op.location)
            arrays.append(array)
        op.result.replace_all_uses_with(arguments[name])
        op.erase()
    return arrays


def _lower(module: ir.Module) -> float:
    """Lower a module to the LLVM dialect, and return how many turns its loops make."""
    _run_passes(module, _BUFFERIZE)
    _replace_copies(module)
    _run_passes(module, _TO_LOOPS)
    turns = _turns(module.operation)
    guard_quotients(module.operation)  # which decides what they are
    _run_passes(module, _TO_LLVM)
    # The translation to LLVM IR ends the process on an op that it does not know.
    names = Counter(op.name for op in _operations(module))
    left = {name: count for name, count in names.items() if not name.startswith(("llvm.", "builtin.module"))}
    if left:
        ops = ", ".join(f"{name} x{count}" for name, count in sorted(left.items()))
        raise PatcError(f"cannot run: no lowering for {ops}", module.operation.location)
    return turns


def _turns(op: Any) -> float:
    """Return how many turns the innermost loops of an op make; infinity where that is not known."""
    inner = sum(_turns(each.operation) for region in op.regions for block in region for each in block)
    if op.name not in _LOOPS:
        return inner
    bounds = [constant(value) for value in list(op.operands)[:3]] if op.name == "scf.for" else []
    known = [bound for bound in bounds if bound is not None]
    return len(range(*known)) * max(1, inner) if len(known) == 3 else math.inf


def _run_passes(module: ir.Module, pipeline: str) -> None:
    try:
        passmanager.PassManager.parse(pipeline).run(module.operation)
    except ir.MLIRError as error:
        reason = error.error_diagnostics[0] if error.error_diagnostics else None
        message = reason.message if reason else first_line(error)
        location = reason.location if reason else module.operation.location
        raise PatcError(f"cannot run: {message}", location) from None


def _replace_copies(module: ir.Module) -> None:
    """Turn memref.copy into linalg.copy: the former calls a runtime library that is not in the wheel."""
    for op in _operations(module):
        if op.name == "memref.copy":
            with op.location, ir.InsertionPoint(op):
                linalg.copy(op.operands[0], outs=[op.operands[1]])
            op.erase()


def _run(module: ir.Module, function: str, arrays: Sequence[np.ndarray], level: int) -> None:
    descriptors = [get_ranked_memref_descriptor(array) for array in arrays]
    pointers = [ctypes.pointer(ctypes.pointer(descriptor)) for descriptor in descriptors]
    try:
        engine = ExecutionEngine(module, opt_level=level, enable_object_dump=False)
        engine.lookup(function)
    except RuntimeError:  # what the loader found missing it has written to standard error
        called = ", ".join(sorted(_declared_functions(module)))
        raise PatcError(f"cannot run: expected functions {called} in the process, found not all") from None
    engine.invoke(function, *pointers)


def _declared_functions(module: ir.Module) -> list[str]:
    functions = [op for op in module.body.operations if op.operation.name == "llvm.func"]
    return [f"'{op.sym_name.value}'" for op in functions if not list(op.operation.regions[0].blocks)]


def _aligned(array: np.ndarray) -> np.ndarray:
    """Return `array` itself or a copy that is contiguous and begins at a cache line."""
    if array.flags.c_contiguous and array.ctypes.data % _ALIGNMENT == 0:
        return array
    space = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -space.ctypes.data % _ALIGNMENT
    copy = space[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _operations(root: Any) -> list[ir.Operation]:
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        found.append(op)
        return ir.WalkResult.ADVANCE

    root.operation.walk(visit)
    return found
