"""Whole modules: copies of them, and what their functions were before they worked on memory."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.passes.base import fail

SIGNATURES = "pattern.signatures"  # of a module: the types of its functions on tensors, by name
IMAGES = "pattern.images"  # of a module whose batch is dynamic: that of its tensors, which is the largest


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
    known = {item.name: item.attr for item in _signatures(module)}
    known[function.attributes["sym_name"].value] = function.attributes["function_type"]
    module.operation.attributes[SIGNATURES] = ir.DictAttr.get(known, context=module.context)


def read_signature(module: ir.Module, function: Any) -> ir.FunctionType:
    """Return the type of a function, that on tensors where it had one.

    Raises:
        PatcError: what the module says of it is no type of a function.
    """
    known, name = _signatures(module), function.attributes["sym_name"].value
    type_ = known[name] if name in known else function.attributes["function_type"]
    if not isinstance(type_, ir.TypeAttr) or not isinstance(type_.value, ir.FunctionType):
        raise PatcError(f"expected {SIGNATURES} of the module to be types of functions, got {type_}", function.location)
    return type_.value


def _signatures(module: ir.Module) -> ir.DictAttr:
    attributes = module.operation.attributes
    known = attributes[SIGNATURES] if SIGNATURES in attributes else ir.DictAttr.get({}, context=module.context)
    if not isinstance(known, ir.DictAttr):
        place = module.operation.location
        raise PatcError(f"expected {SIGNATURES} of the module to be a dictionary, got {known}", place)
    return known


def set_most_images(module: ir.Module, images: int) -> None:
    """Let a module take any batch up to that of its tensors."""
    with module.context:
        module.operation.attributes[IMAGES] = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), images)


def most_images(module: ir.Module) -> int:
    """Return the largest batch of a module that takes any up to it; 0 where the batch is fixed.

    Raises:
        PatcError: the attribute is no number of images.
    """
    attributes = module.operation.attributes
    if IMAGES not in attributes:
        return 0
    value = attributes[IMAGES]
    if not isinstance(value, ir.IntegerAttr) or value.value < 2:
        raise fail(module.operation, f"{IMAGES} to be a number of images from 2 on", value)
    return int(value.value)


def module_of(op: Any) -> Any:
    """Return the module that an op is in."""
    module = op.operation
    while module.name != "builtin.module":
        module = module.parent
    return module


def parts_of_images(op: Any) -> list[float]:
    """Return how many images calls have, of those of the tensors of an op: all, or of a dynamic batch several parts
    that its schedule has to suit."""
    most = most_images(module_of(op))
    if op.results[0].type.shape[0] != most:  # it computes one of them
        return [1.0]
    return [images / most for images in range(2, most + 1)] if most > 1 else [1.0]
