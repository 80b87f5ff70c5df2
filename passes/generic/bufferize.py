"""From a function of linalg on tensors to steps on flat memory: loop nests over static buffers, one after the other."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch_mlir import ir, passmanager
from torch_mlir.dialects import linalg, tensor

from patc.diagnostics import PatcError
from patc.passes.functions.expand import expand
from patc.passes.ir.functions import return_into_arguments, walk_ops

_ON_SCALARS = "builtin.module(func.func(convert-elementwise-to-linalg))"  # arith and math ops on whole tensors
_BUFFERIZE = (
    "builtin.module(eliminate-empty-tensors,empty-tensor-to-alloc-tensor,"
    "one-shot-bufferize{allow-unknown-ops=true allow-return-allocs-from-loops=true bufferize-function-boundaries=true"
    " function-boundary-type-conversion=identity-layout-map},func.func(tm-tensor-bufferize),canonicalize,cse)"
)
_GENERALIZE = "builtin.module(func.func(linalg-generalize-named-ops,tm-tensor-to-loops))"
_VIEWS = (
    "memref.cast",
    "memref.collapse_shape",
    "memref.expand_shape",
    "memref.reinterpret_cast",
    "memref.subview",
    "memref.transpose",
)


@dataclass(frozen=True)
class Steps:
    """What a function does, on memory.

    Attributes:
        module: owns the ops; of one function whose arguments are the inputs, the constants and the results.
        constants: the arrays behind the arguments of that name.
        ops: what computes, in order: `linalg.generic` on memrefs, or ops with loops of their own.
        buffers: the memory that the function needs for itself: results of its `memref.alloc` ops.
    """

    module: ir.Module
    arguments: list[ir.Value]
    constants: list[np.ndarray]
    ops: list[Any] = field(default_factory=list)
    buffers: list[ir.Value] = field(default_factory=list)


def bufferize(function: Any) -> Steps:
    """Return the steps of a function on tensors, which stays as it is.

    Raises:
        PatcError: it holds what cannot be put in static memory.
    """
    with function.operation.context, function.location:
        module = ir.Module.create()
        copy = function.operation.clone(ir.InsertionPoint(module.body))
        del copy.attributes["sym_visibility"]  # a private function without callers would go
        block = copy.regions[0].blocks[0]
        constants = _take_constants(block)
        _part_starts(copy)
        return_into_arguments(copy)
        _run(module, _ON_SCALARS)
        expand(copy)
        _run(module, _BUFFERIZE)
        _replace_copies(module)
        _run(module, _GENERALIZE)
        block = module.body.operations[0].regions[0].blocks[0]
        steps = Steps(module, list(block.arguments), constants)
        for op in block.operations:
            _sort(op, steps)
        return steps


def root(value: ir.Value) -> ir.Value:
    """Return the memory that a view looks at: an argument or what was allocated."""
    while not isinstance(value.owner, ir.Block) and value.owner.name in _VIEWS:
        value = value.owner.operands[0]
    return value


def used_memories(step: Any, known: Collection[ir.Value]) -> list[ir.Value]:
    """Return those of the known memories that a step reads or writes."""
    found: dict[ir.Value, None] = {}
    pending = [step.operation]
    while pending:
        operation = pending.pop()

        def visit(inner: ir.Operation) -> ir.WalkResult:
            for value in inner.operands:
                memory = root(value)
                if memory in known:
                    found[memory] = None
                elif not isinstance(value.owner, ir.Block) and value.owner.operation.block == step.operation.block:
                    pending.append(value.owner.operation)
            return ir.WalkResult.ADVANCE

        operation.walk(visit)
    return list(found)


def _run(module: ir.Module, pipeline: str) -> None:
    try:
        passmanager.PassManager.parse(pipeline).run(module.operation)
    except ir.MLIRError as error:
        reason = error.error_diagnostics[0] if error.error_diagnostics else None
        place = module.body.operations[0].location
        raise PatcError(f"cannot compile: {reason.message if reason else error}", place) from None


def _take_constants(block: ir.Block) -> list[np.ndarray]:
    """Turn tensors in the text into fills or, where their elements differ, into arguments; return those arrays."""
    arrays = []
    for op in list(block.operations):
        if op.operation.name != "arith.constant" or not isinstance(op.result.type, ir.RankedTensorType):
            continue
        attr = op.operation.attributes["value"]
        if attr.is_splat:
            with ir.InsertionPoint(op), op.location:
                shape, element = list(op.result.type.shape), op.result.type.element_type
                number = ir.Operation.create(
                    "arith.constant", results=[element], attributes={"value": attr.get_splat_value()}
                ).result
                made = linalg.fill(number, outs=[tensor.EmptyOp(shape, element).result])
        else:
            made = block.add_argument(op.result.type, op.location)
            arrays.append(np.array(attr).reshape(tuple(attr.type.shape)))
        op.result.replace_all_uses_with(made)
        op.operation.erase()
    return arrays


def _part_starts(function: Any) -> None:
    """Give each op that writes into an empty or a filled tensor one of its own.

    MLIR puts one that several ops share into the memory of a result, and lets them write there before it is read.
    """
    for op in walk_ops(function):
        if op.operation.name.startswith(("linalg.", "tm_tensor.")) and hasattr(op, "outputs"):
            for value in op.outputs:
                if _is_fill(value):
                    _take_copy(op, value)
    for op in walk_ops(function):
        for value in list(op.operands):
            if not isinstance(value.owner, ir.Block) and value.owner.name == "tensor.empty":
                _take_copy(op, value)


def _is_fill(value: ir.Value) -> bool:
    owner = value.owner
    if isinstance(owner, ir.Block):
        return False
    return owner.name == "linalg.fill" or (owner.name == "linalg.generic" and not len(owner.opview.inputs))


def _take_copy(op: Any, value: ir.Value) -> None:
    """Give an op a copy of what makes one of its operands, if others use that too."""
    if len(list(value.uses)) < 2:
        return
    made = value.owner.clone(ir.InsertionPoint(op)).results[0]
    for index, operand in enumerate(op.operands):
        if operand == value:
            op.operation.operands[index] = made


def _replace_copies(module: ir.Module) -> None:
    """Turn memref.copy into linalg.copy: the former may call a runtime library."""
    for op in walk_ops(module):
        if op.operation.name == "memref.copy":
            with ir.InsertionPoint(op), op.location:
                linalg.copy(op.operands[0], outs=[op.operands[1]])
            op.operation.erase()


def _sort(op: Any, steps: Steps) -> None:
    """Note what an op of the function is to its steps."""
    name = op.operation.name
    if name == "memref.alloc":
        steps.buffers.append(op.result)
    elif name == "linalg.generic":
        steps.ops.append(op)
    elif len(op.operation.regions) > 0:
        _require_loops(op)
        steps.ops.append(op)
    elif name not in (*_VIEWS, "func.return", "memref.dealloc", "memref.load", "memref.dim"):
        is_pure = name.split(".")[0] in ("arith", "math")
        if not is_pure:
            raise PatcError(f"cannot compile: {name}", op.location)


def _require_loops(op: Any) -> None:
    """Refuse an op with loops of its own whose body needs memory, or hands tensors to linalg."""
    for inner in walk_ops(op):
        name = inner.operation.name
        if name.split(".")[0] == "linalg" or name == "memref.alloc":
            raise PatcError(f"cannot compile: {op.operation.name} around {name}", op.location)
