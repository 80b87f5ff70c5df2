"""What is known of the sign of a number in the body of a linalg op, from how it was made."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir

from patc.passes.ir.functions import RESHAPES


def is_never_positive(value: ir.Value) -> bool:
    """Whether a number is 0, below that or NaN: an element of a tensor less the largest of some with it among them, as
    in a softmax."""
    if isinstance(value.owner, ir.Block) or value.owner.name != "arith.subf":
        return False
    element, largest = value.owner.operands
    block = value.owner.operation.block
    if block.owner.name != "linalg.generic":
        return False
    op, arguments = block.owner.opview, list(block.arguments)
    if element not in arguments or largest not in arguments:
        return False
    given = [(op.operands[n], _places(op, n)) for n in (arguments.index(element), arguments.index(largest))]
    return all(places is not None for _, places in given) and _is_among(*given)


def _is_among(element: tuple[ir.Value, Any], largest: tuple[ir.Value, Any]) -> bool:
    """Whether a tensor of maxima has at some places the largest of elements that are those at other places, too."""
    maker = _source(largest[0]).owner
    if isinstance(maker, ir.Block) or maker.name != "linalg.generic" or len(maker.operands) != 2:
        return False
    maxima = maker.opview
    body = list(maxima.regions[0].blocks[0].operations)
    if [op.operation.name for op in body] != ["arith.maximumf", "linalg.yield"]:
        return False
    if set(body[0].operands) != set(maxima.regions[0].blocks[0].arguments):
        return False
    read, written = _places(maxima, 0), _places(maxima, 1)
    if _source(maxima.operands[0]) != _source(element[0]) or read is None or written is None:
        return False
    if len(set(read)) < len(read):  # of a diagonal
        return False
    same = dict(zip(element[1], read, strict=True))  # loops of the op -> loops of the maxima
    return [same.get(loop) for loop in largest[1]] == written


def _source(value: ir.Value) -> ir.Value:
    """Return what a tensor was reshaped from by dimensions of size 1."""
    while not isinstance(value.owner, ir.Block) and value.owner.name in RESHAPES:
        given = value.owner.operands[0]
        if _sizes(given) != _sizes(value):
            break
        value = given
    return value


def _sizes(value: ir.Value) -> list[int]:
    return [size for size in value.type.shape if size != 1]


def _places(op: Any, number: int) -> list[int] | None:
    """Return the loop that steps over each dimension of an operand, but for those of size 1; None where one is none."""
    found = op.attributes["indexing_maps"][number].value
    places = []
    for size, result in zip(op.operands[number].type.shape, found.results, strict=True):
        if size == 1:
            continue
        if not isinstance(result, ir.AffineDimExpr):
            return None
        places.append(result.position)
    return places
