"""Sizes that the arguments of a module leave open, as numbers: MLIR's own passes carry them on to what is computed.

func.func @main(%arg0: tensor<?x3x?x?xf32>) -> tensor<?x5xf32>      becomes, for arg0=1x3x64x64,
func.func @main(%arg0: tensor<1x3x64x64xf32>) -> tensor<1x5xf32>
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import tensor

from patc.codegen.program import find_main
from patc.diagnostics import PatcError, nearest
from patc.frontend.lowering import set_type
from patc.frontend.shapes import Shapes
from patc.passes.ir.functions import walk_ops
from patc.upstream import UpstreamPass

_CARRYING = (
    UpstreamPass("resolve-ranked-shaped-type-result-dims"),
    UpstreamPass("canonicalize"),
    UpstreamPass("cse"),
)
_EXAMPLE = (1, 3, 224, 224)  # of four sizes; of others there is no usual one


def argument_name(place: int) -> str:
    """Return what an argument of @main is called: those of MLIR have no names."""
    return f"arg{place}"


def open_batch(main: Any, given: Shapes | None, place: str) -> dict[str, tuple[int, ...]]:
    """Return shapes of the arguments of @main, which leave their batch open: that of one image where none is given.

    Raises:
        PatcError: the file says how many images there are.
    """
    types = _types(main)
    shapes = _by_name(types, given, place)
    for name, type_ in types.items():
        sizes = _sizes(type_)
        if sizes[:1] != [None]:
            expected = "expected inputs whose first size the file leaves open for dynamic_batch"
            raise PatcError(f"{expected}, found {_describe(name, type_)}", place)
        if name not in shapes and None not in sizes[1:]:
            shapes[name] = (1, *(size for size in sizes if size is not None))
    return shapes


def set_shapes(module: ir.Module, given: Shapes | None, place: str) -> None:
    """Give the arguments of @main, and all that follows from them, static shapes; leave a module that has them.

    Raises:
        PatcError: there is no such argument, its shape is another one, shapes contradict each other, or sizes stay
            unknown.
    """
    main = find_main(module)
    types = {} if main is None else _types(main)
    if not any(None in _sizes(type_) for type_ in types.values()):
        return
    shapes = _by_name(types, given, place)
    for name, shape in shapes.items():
        known = _sizes(types[name])
        fits = len(known) == len(shape) and all(size > 0 for size in shape)
        if not fits or any(size not in (None, given) for size, given in zip(known, shape, strict=True)):
            raise PatcError(f"expected input {_describe(name, types[name])}, got {'x'.join(map(str, shape))}", place)
    unknown = [name for name, type_ in types.items() if None in _sizes(type_) and name not in shapes]
    if unknown:
        listed = ", ".join(_describe(name, types[name]) for name in unknown)
        advice = f"give them as in --shape {unknown[0]}={_example(types[unknown[0]])}"
        raise PatcError(f"expected inputs of known shapes, found {listed}; {advice}", place)
    for argument, name in zip(main.entry_block.arguments, types, strict=True):
        if None in _sizes(argument.type):
            _narrow(argument, shapes[name])
    set_type(main)
    _carry(module, main)
    _require_static(main)


def _types(main: Any) -> dict[str, ir.Type]:
    return {argument_name(place): type_ for place, type_ in enumerate(main.type.inputs)}


def _sizes(type_: ir.Type) -> list[int | None]:
    """Return the sizes of a tensor, None for those that are open; [] for other types."""
    if not isinstance(type_, ir.RankedTensorType):
        return []
    return [None if type_.is_dynamic_dim(axis) else type_.get_dim_size(axis) for axis in range(type_.rank)]


def _describe(name: str, type_: ir.Type) -> str:
    sizes = ("?" if size is None else str(size) for size in _sizes(type_))
    return f"'{name}' ({' x '.join(sizes) or type_})"


def _example(type_: ir.Type) -> str:
    sizes = _sizes(type_)
    usual = _EXAMPLE if len(sizes) == len(_EXAMPLE) else (1,) * len(sizes)
    return "x".join(str(size or other) for size, other in zip(sizes, usual, strict=True))


def _by_name(types: dict[str, ir.Type], given: Shapes | None, place: str) -> dict[str, tuple[int, ...]]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        if len(given) != len(types):
            raise PatcError(f"expected {len(types)} example inputs, found {len(given)}", place)
        return dict(zip(types, given, strict=True))
    for name in given:
        if name not in types:
            known = ", ".join(_describe(*item) for item in types.items())
            raise PatcError(f"expected shapes for inputs of {known}; got '{name}'{nearest(name, list(types))}", place)
    return dict(given)


def _narrow(argument: Any, shape: Sequence[int]) -> None:
    """Give an argument a static shape; what reads it goes on with the one that it had."""
    before = argument.type
    argument.set_type(ir.RankedTensorType.get(shape, before.element_type, loc=argument.owner.owner.location))
    with argument.owner.owner.location, ir.InsertionPoint.at_block_begin(argument.owner):
        cast = tensor.CastOp(before, argument)
    argument.replace_all_uses_except(cast.result, [cast.operation])


def _carry(module: ir.Module, main: Any) -> None:
    """Carry sizes on until nothing becomes known any more."""
    unknown, goes_on = len(_open_values(main)), True
    while goes_on:
        for step in _CARRYING:
            step.run(module)
        narrowed = sum(narrow(op) for kind, narrow in _NARROWED.items() for op in _of_kind(main, kind))
        before, unknown = unknown, len(_open_values(main))
        goes_on = narrowed > 0 or unknown < before
    for op in _of_kind(main, "cf.assert"):
        if _constant(op.operands[0]) == [0]:
            raise PatcError(f"expected shapes that go together, found: {op.attributes['msg'].value}", op.location)
    for op in _of_kind(main, "func.return"):
        for index, value in enumerate(op.operands):
            op.operands[index] = _uncast(value)
    set_type(main)
    UpstreamPass("canonicalize").run(module)


def _require_static(main: Any) -> None:
    for value in _open_values(main):
        uses = [use.owner for use in value.uses if value.owner.name == "tensor.cast"]
        op = uses[0] if uses else value.owner
        expected = "expected sizes that follow from those of the inputs"
        raise PatcError(f"{expected}, found {value.type} at {op.name}", op.location)


def _open_values(main: Any) -> list[Any]:
    """Return what ops make with sizes that are not known."""
    return [result for op in walk_ops(main) for result in op.results if None in _sizes(result.type)]


def _of_kind(main: Any, name: str) -> list[ir.Operation]:
    return [op.operation for op in walk_ops(main) if op.operation.name == name]


def _narrow_concat(op: ir.Operation) -> bool:
    """Let a concatenation of tensors of known sizes make one; return whether it did not."""
    axis, parts, after = op.attributes["dim"].value, [_uncast(value) for value in op.operands], op.results[0].type
    sizes = [_sizes(part.type) for part in parts]
    if None in _sizes(after) and not any(None in part for part in sizes):
        shape = list(sizes[0])
        shape[axis] = sum(part[axis] or 0 for part in sizes)
        with op.location, ir.InsertionPoint(op):
            made = tensor.ConcatOp(ir.RankedTensorType.get(shape, after.element_type), axis, parts).result
        _replace(op, made)
        return True
    return False


def _narrow_reshape(op: ir.Operation) -> bool:
    """Write a reshape to a constant shape as a collapse and an expansion; return whether it was to one."""
    source, shape = _uncast(op.operands[0]), _constant(op.operands[1])
    before = _sizes(source.type)
    if shape is None or None in before:
        return False
    count = math.prod(size for size in before if size is not None)
    if math.prod(shape) != count or min(shape, default=1) < 0:
        raise PatcError(f"expected a shape of {count} elements, found {'x'.join(map(str, shape))}", op.location)
    element = source.type.element_type
    with op.location, ir.InsertionPoint(op):
        flat, type_ = source, ir.RankedTensorType.get([count], element)
        if not before:
            flat = tensor.ExpandShapeOp(type_, source, [], [], [count]).result
        elif len(before) > 1:
            flat = tensor.CollapseShapeOp(type_, source, [[*range(len(before))]]).result
        made, type_ = flat, ir.RankedTensorType.get(shape, element)
        if not shape:
            made = tensor.CollapseShapeOp(type_, flat, []).result
        elif len(shape) > 1:
            made = tensor.ExpandShapeOp(type_, flat, [[*range(len(shape))]], [], shape).result
    _replace(op, made)
    return True


_NARROWED = {"tensor.concat": _narrow_concat, "tensor.reshape": _narrow_reshape}  # that no pass carries sizes through


def _replace(op: ir.Operation, made: Any) -> None:
    """Let what reads an op read a value of a more static type."""
    with op.location, ir.InsertionPoint(op):
        cast = tensor.CastOp(op.results[0].type, made).result
    op.results[0].replace_all_uses_with(cast)
    op.erase()


def _constant(value: Any) -> list[int] | None:
    """Return the integers of a constant; None for other values."""
    maker = value.owner
    if not isinstance(maker, ir.Block) and maker.name == "arith.constant":
        attribute = maker.attributes["value"]
        if isinstance(attribute, ir.DenseIntElementsAttr):
            return [int(number) for number in attribute]
        if isinstance(attribute, (ir.IntegerAttr, ir.BoolAttr)):
            return [int(attribute.value)]
    return None


def _uncast(value: Any) -> Any:
    """Return the value of a more static type that a cast makes `value` of."""
    maker = value.owner
    is_cast = not isinstance(maker, ir.Block) and maker.name == "tensor.cast"
    return maker.operands[0] if is_cast and None not in _sizes(maker.operands[0].type) else value
