"""Groups of ops that can be computed together, and the order of ops in a block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch_mlir import ir

from patc.passes.ir.functions import RESHAPES, through_reshapes


def is_copied(value: ir.Value) -> bool:
    """Whether each reader of a value may have one of its own: a number, a tensor of one number, one without values, or
    what is computed of such."""
    if isinstance(value.owner, ir.Block):
        return False
    op = value.owner.operation
    if op.name == "arith.constant":
        attr = op.attributes["value"]
        return not isinstance(attr, (ir.DenseElementsAttr, ir.DenseResourceElementsAttr)) or attr.is_splat
    is_linalg = op.name.split(".")[0] in ("linalg", "tensor", "arith", "math")
    return is_linalg and all(is_copied(read) for read in outer_operands(op))


def outer_operands(op: Any) -> list[ir.Value]:
    """Return what an op and the ops in its regions read from outside."""
    inside = {op.operation}
    found: list[ir.Value] = []

    def visit(inner: ir.Operation) -> ir.WalkResult:
        inside.add(inner)
        for value in inner.operands:
            owner = value.owner.owner if isinstance(value.owner, ir.Block) else value.owner
            if owner.operation not in inside:
                found.append(value)
        return ir.WalkResult.ADVANCE

    op.operation.walk(visit, ir.WalkOrder.PRE_ORDER)
    return found


def makes_tensors(op: Any) -> bool:
    """Whether an op has a tensor among its results; one that makes numbers only is copied to where they are used."""
    return any(isinstance(result.type, ir.RankedTensorType) for result in op.results)


def find_groups(function: Any, left: Sequence[Any]) -> list[list[Any]]:
    """Return the ops of a list in groups, each in the order of the block.

    Ops are in one group where one reads what the other makes, unless an op that is not in the list comes between them.
    Ops that make no tensors, reshapes, and those whose results are copied are in no group; see `is_copied`.
    """
    block = function.regions[0].blocks[0]
    names = {op.operation for op in left}
    members = {op.operation: op for op in block.operations if op.operation in names and _is_member(op, names)}
    levels: dict[ir.Operation, int] = {}
    groups: dict[ir.Operation, list[ir.Operation]] = {}
    for op in block.operations:
        operation = op.operation
        made_by = {value.owner.operation for value in _tensors(op) if not isinstance(value.owner, ir.Block)}
        if operation not in members:
            levels[operation] = max((levels.get(maker, -1) for maker in made_by), default=-1)
            continue
        # A step up for each op between that reads one group and feeds the next.
        steps = [levels.get(maker, -1) + (maker not in members) for maker in made_by]
        levels[operation] = max(steps, default=0)
        groups[operation] = [operation]
        for maker in made_by:
            if maker in members and levels[maker] == levels[operation]:
                _join(groups, groups[maker], groups[operation])
    order = {op.operation: number for number, op in enumerate(block.operations)}
    distinct = {id(group): sorted(group, key=order.__getitem__) for group in groups.values()}
    return [[members[operation] for operation in group] for group in distinct.values()]


def _is_member(op: Any, names: set[ir.Operation]) -> bool:
    if not makes_tensors(op) or op.operation.name in RESHAPES:
        return False
    if not all(is_copied(result) for result in op.results):
        return True
    block = op.operation.block
    return any(owner_in(use.owner, block) not in names for result in op.results for use in result.uses)


def owner_in(user: Any, block: ir.Block) -> ir.Operation:
    """Return the op of a block that an op is, or is in a region of."""
    operation = user.operation
    while operation.block != block:
        operation = operation.parent.operation
    return operation


def _tensors(op: Any) -> Iterator[ir.Value]:
    """Yield the tensors that an op reads, itself or by numbers that come from them."""
    for value in outer_operands(op):
        if isinstance(value.type, ir.RankedTensorType):
            if not is_copied(value):
                yield through_reshapes(value)
        elif not isinstance(value.owner, ir.Block):
            yield from _tensors(value.owner)


def _join(groups: dict[ir.Operation, list[ir.Operation]], first: list[Any], second: list[Any]) -> None:
    if first is second:
        return
    first += second
    for operation in second:
        groups[operation] = first


def users_outside(value: ir.Value, members: set[Any], block: ir.Block) -> bool:
    """Whether any op of a block that is not in a group reads a value, itself or by numbers that come from it."""
    for use in value.uses:
        user = owner_in(use.owner, block)
        if user in members:
            continue
        if user.operation.name in RESHAPES:
            if users_outside(user.results[0], members, block):
                return True
            continue
        if makes_tensors(user) or not list(user.results):
            return True
        if any(users_outside(result, members, block) for result in user.results):
            return True
    return False


def sort_block(block: ir.Block) -> None:
    """Move the ops of a block so that each comes after what it reads; else they stay in their order."""
    placed: set[ir.Operation] = set()
    order: list[ir.Operation] = []
    before = [op.operation for op in block.operations]
    for operation in before:
        pending = [operation]
        while pending:
            if pending[-1] in placed:
                pending.pop()
                continue
            makers = [value.owner for value in outer_operands(pending[-1]) if not isinstance(value.owner, ir.Block)]
            missing = [maker.operation for maker in makers if maker.operation not in placed]
            if missing:
                pending += missing
            else:
                placed.add(pending[-1])
                order.append(pending.pop())
    if order == before:
        return
    for operation in order[:-1]:
        operation.move_before(order[-1])
