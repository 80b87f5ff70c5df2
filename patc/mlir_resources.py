"""Constants whose bytes stand at the end of a text, as torch-mlir writes them: they become parameters."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.dialects.pattern import ParameterOp
from patc.numerics import MLIR_TYPES
from patc.parameters import ParameterStore

_SECTION = "{-#"
# A name as MLIR writes it, then the alignment in four bytes, then the values.
_RESOURCE = re.compile(r'("[^"]*"|[\w.$-]+): "0x[0-9A-Fa-f]{8}([0-9A-Fa-f]*)"')
_HANDLE = re.compile(r'dense_resource<("[^"]*"|[\w.$-]+)>')


def take_resources(module: ir.Module, store: ParameterStore) -> None:
    """Replace the `arith.constant` ops of a module that hold a `dense_resource` by `pattern.parameter` ops.

    Args:
        store: gets the arrays, with the names of the resources.

    Raises:
        PatcError: a resource that was left out of the text, of another size, or of elements that patc does not have.
    """
    found = _find(module)
    if not found:
        return
    text = module.operation.get_asm(assume_verified=True)
    resources = dict(_RESOURCE.findall(text, text.rfind(_SECTION) if _SECTION in text else len(text)))
    names: dict[str, str] = {}
    for op, handle in found:
        type_ = op.results[0].type
        if handle not in resources:
            raise PatcError(f"expected the values of dense_resource<{handle}> in the text, found none", op.location)
        if handle not in names:
            names[handle] = store.add(handle.strip('"'), _array(type_, bytes.fromhex(resources[handle]), op))
        with ir.InsertionPoint(op):
            name = ir.StringAttr.get(names[handle], context=module.context)
            parameter = ParameterOp(result=type_, name=name, loc=op.location)
        op.results[0].replace_all_uses_with(parameter.result)
        op.erase()


def _find(module: ir.Module) -> list[tuple[ir.Operation, str]]:
    found: list[tuple[ir.Operation, str]] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        attr = op.attributes["value"] if op.name == "arith.constant" else None
        # The bindings have no class for these; those that they have one for may be long as text.
        handle = _HANDLE.match(str(attr)) if type(attr) is ir.Attribute else None
        if handle is not None:
            found.append((op, handle[1]))
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return found


def _array(type_: Any, data: bytes, op: ir.Operation) -> np.ndarray:
    element = MLIR_TYPES.get(str(type_.element_type))
    if element is None:
        raise PatcError(f"expected a constant of {', '.join(MLIR_TYPES)}, got {type_.element_type}", op.location)
    wanted = element.bytes * math.prod(type_.shape)
    if len(data) != wanted:
        raise PatcError(f"expected a resource of {wanted} bytes for {type_}, got {len(data)}", op.location)
    return np.frombuffer(data, element.dtype).reshape(tuple(type_.shape)).copy()
