"""Zeros around what is spread among zeros: a pad in front of a transposed convolution, or of a scatter with steps.

torch-mlir spreads elements by a `tensor.insert_slice` with steps into zeros. Where they come from a `tensor.pad` of
zeros, MLIR's canonicalizer inserts what was padded instead, and moves it by the pad as it stands, not by as many steps.
So such a pad is written as a scatter without steps:

    %y = torch.aten.constant_pad_nd %x, [l, r], 0
  becomes
    %y = torch.aten.slice_scatter %zeros, %x, axis, l, l + n, 1
"""

from __future__ import annotations

from typing import Any

from torch_mlir import ir

from patc.passes.ir.functions import walk_ops

_PAD, _CONVOLUTION, _SCATTER = "torch.aten.constant_pad_nd", "torch.aten.convolution", "torch.aten.slice_scatter"
_TRANSPOSED, _STEP = 6, 5  # numbers of operands
_TYPES = {"f16": 5, "f32": 6, "f64": 7, "bf16": 15}  # torch's numbers of element types


def keep_apart(module: ir.Module) -> None:
    """Let no pad of the torch dialect stand in front of what spreads elements among zeros."""
    for op in walk_ops(module):
        if _spreads(op):
            place = int(op.operation.name == _SCATTER)
            pad = op.operands[place].owner
            if not isinstance(pad, ir.Block) and pad.operation.name == _PAD:
                with op.location, ir.InsertionPoint(op):
                    scattered = _scattered(pad)
                if scattered is not None:
                    op.operands[place] = scattered


def _spreads(op: Any) -> bool:
    name = op.operation.name
    if name == _CONVOLUTION:
        return bool(_value(op.operands[_TRANSPOSED]))
    return name == _SCATTER and _value(op.operands[_STEP]) != 1


def _scattered(pad: Any) -> ir.Value | None:
    """Return the result of a pad with zeros as scatters of its operand, one for each axis; None of others, and where
    sizes or pads are not known, or cut off."""
    x, pads, value = pad.operands
    sizes, around = _sizes(x.type), [_value(each) for each in pads.owner.operands]
    if _value(value) != 0 or sizes is None or any(not isinstance(each, int) or each < 0 for each in around):
        return None
    element = str(x.type).rsplit(",", 1)[1].rstrip(">")
    if element not in _TYPES:
        return None
    result = x
    for number in range(len(around) // 2):
        axis, before, after = len(sizes) - 1 - number, around[2 * number], around[2 * number + 1]
        if before or after:
            end = before + sizes[axis]
            sizes[axis] = end + after
            zeros = _zeros(sizes, element)
            numbers = [_integer(each) for each in (axis, before, end, 1)]
            result = _make(_SCATTER, [zeros, result, *numbers], zeros.type)
    return result


def _zeros(sizes: list[int], element: str) -> ir.Value:
    type_ = ir.Type.parse(f"!torch.vtensor<[{','.join(map(str, sizes))}],{element}>")
    shape = _make("torch.prim.ListConstruct", [_integer(size) for size in sizes], ir.Type.parse("!torch.list<int>"))
    none = _make("torch.constant.none", [], ir.Type.parse("!torch.none"))
    return _make("torch.aten.zeros", [shape, _integer(_TYPES[element]), none, none, none], type_)


def _integer(value: int) -> ir.Value:
    attribute = {"value": ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)}
    return _make("torch.constant.int", [], ir.Type.parse("!torch.int"), attribute)


def _make(name: str, operands: list[ir.Value], type_: ir.Type, attributes: dict[str, Any] | None = None) -> ir.Value:
    return ir.Operation.create(name, [type_], operands, attributes=attributes or {}).results[0]


def _value(value: ir.Value) -> Any:
    """Return a constant number or truth; None for others."""
    owner = value.owner
    is_constant = not isinstance(owner, ir.Block) and owner.operation.name.startswith("torch.constant.")
    return owner.operation.attributes["value"].value if is_constant and "value" in owner.operation.attributes else None


def _sizes(type_: ir.Type) -> list[int] | None:
    """Return the sizes of a torch tensor type, all of which are known; else None."""
    inside = str(type_).partition("<[")[2].partition("]")[0].split(",")
    return [int(each) for each in inside] if all(each.strip().isdigit() for each in inside) else None
