"""Whole modules: copies of them, and what their functions were before they worked on memory."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir

SIGNATURES = "pattern.signatures"  # of a module: the types of its functions on tensors, by name


def clone_module(module: ir.Module) -> ir.Module:
    """Return a copy in the same context."""
    copy = ir.Module.create(module.operation.location)
    for item in module.operation.attributes:
        name = item.name if isinstance(item, ir.NamedAttribute) else item
        copy.operation.attributes[name] = module.operation.attributes[name]
    for op in module.body.operations:
        copy.body.append(op.operation.clone())
    return copy


def keep_signature(module: ir.Module, function: Any) -> None:
    """Let the module say how a function on tensors is called, before its arguments become flat memory."""
    attributes = module.operation.attributes
    known = {item.name: item.attr for item in attributes[SIGNATURES]} if SIGNATURES in attributes else {}
    known[function.attributes["sym_name"].value] = function.attributes["function_type"]
    attributes[SIGNATURES] = ir.DictAttr.get(known, context=module.context)


def read_signature(module: ir.Module, function: Any) -> ir.FunctionType:
    """Return the type of a function, that on tensors where it had one."""
    attributes, name = module.operation.attributes, function.attributes["sym_name"].value
    if SIGNATURES in attributes and name in attributes[SIGNATURES]:
        return ir.FunctionType(attributes[SIGNATURES][name].value)
    return ir.FunctionType(function.attributes["function_type"].value)
