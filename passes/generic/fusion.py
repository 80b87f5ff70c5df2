"""Fuses linalg ops on tensors: elementwise ones with what reads them, changes of shape and order with products."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch_mlir import ir, passmanager

from patc.passes.ir.bodies import yields_argument
from patc.passes.ir.functions import RESHAPES

_GENERALIZE = "builtin.module(func.func(linalg-generalize-named-ops),canonicalize)"
_FUSE = "builtin.module(func.func(linalg-fuse-elementwise-ops),canonicalize,cse)"


def fuse(module: ir.Module) -> None:
    """Make `linalg.generic` of the named ops of a module's only function, and fuse those that are elementwise.

    What a product or a convolution reads many times is computed once, and not fused with it; but it reads a tensor
    that was only copied in another order or shape where that tensor was before.
    """
    passmanager.PassManager.parse(_GENERALIZE).run(module.operation)
    (function,) = module.body.operations
    read_often = list(dict.fromkeys(_find_read_often(function.entry_block)))
    results = list(function.type.results)
    _return(function, [*_returned(function), *read_often])  # what has two readers is fused with none
    passmanager.PassManager.parse(_FUSE).run(module.operation)
    (function,) = module.body.operations
    _return(function, _returned(function)[: len(results)])
    passmanager.PassManager.parse("builtin.module(canonicalize,cse)").run(module.operation)


def _find_read_often(block: ir.Block) -> Iterator[ir.Value]:
    """Yield what is computed element by element and then read many times by one op."""
    for op in block.operations:
        if op.operation.name != "linalg.generic" or not any("reduction" in str(kind) for kind in op.iterator_types):
            continue
        for value, attr in zip(op.inputs, op.indexing_maps, strict=False):
            source = _source(value)
            if len(attr.value.results) < attr.value.n_dims and _computes(source):
                yield source


def _source(value: ir.Value) -> ir.Value:
    """Return the tensor that a value is a copy of, in another order or shape."""
    while not isinstance(value.owner, ir.Block):
        op = value.owner.opview
        if op.operation.name not in RESHAPES and not _is_copy(op):
            break
        value = op.operands[0]
    return value


def _is_copy(op: Any) -> bool:
    if op.operation.name != "linalg.generic" or len(op.inputs) != 1 or len(op.outputs) != 1:
        return False
    return yields_argument(op.operation)


def _computes(value: ir.Value) -> bool:
    """Whether a tensor is made by an elementwise op."""
    if isinstance(value.owner, ir.Block) or value.owner.name != "linalg.generic":
        return False
    return all("parallel" in str(kind) for kind in value.owner.opview.iterator_types)


def _returned(function: Any) -> list[ir.Value]:
    return list(list(function.entry_block.operations)[-1].operands)


def _return(function: Any, values: list[ir.Value]) -> None:
    """Let a function return some values."""
    end = list(function.entry_block.operations)[-1]
    with ir.InsertionPoint(end), end.location:
        ir.Operation.create("func.return", operands=values)
    end.operation.erase()
    types = [value.type for value in values]
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(function.type.inputs, types))
