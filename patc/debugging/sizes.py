"""Smaller tensors in a module of layers: fewer images, rows, columns and channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.codegen.program import find_main
from patc.debugging.cuts import Case, set_signature
from patc.passes.base import PassState
from patc.passes.ir.constants import CONSTANTS
from patc.passes.layers.base import Permutation
from patc.passes.layers.registry import kind_of

_BATCH, _CHANNELS, _ROWS, _COLUMNS = range(4)


@dataclass(frozen=True)
class Change:
    """Part of what an axis has, in some tensors.

    Attributes:
        axis: of the tensors.
        kept: the indices that stay.
        values: the tensors, by their places among all values of @main; None for those whose sizes follow from others.
    """

    axis: int
    kept: range
    values: frozenset[int] | None = None

    def __str__(self) -> str:
        names = {_BATCH: "image", _CHANNELS: "channel", _ROWS: "row", _COLUMNS: "column"}
        return f"{len(self.kept)} {names[self.axis]}{'s' if len(self.kept) != 1 else ''}"


def changes(case: Case) -> list[list[Change]]:
    """Return for each size that can shrink how, the smallest result first."""
    values = _values(case.module)
    arguments = list(_body(case.module).arguments)
    found = []
    for axis in (_BATCH, _ROWS, _COLUMNS):
        largest = max((value.type.shape[axis] for value in arguments if _rank(value) > max(axis, 1)), default=1)
        found.append([Change(axis, kept) for kept in _parts(largest)])
    for members in _channel_classes(case, values):
        size = values[min(members)].type.shape[_CHANNELS]
        found.append([Change(_CHANNELS, kept, members) for kept in _parts(size)])
    return found


def apply(case: Case, change: Change) -> Case | None:
    """Return a case with smaller tensors; None where some layer does not go with them."""
    work = case.clone()
    with work.module.context, ir.Location.unknown():
        try:
            inputs = _drop_channels(work, change) if change.axis == _CHANNELS else _shrink(work, change)
            set_signature(find_main(work.module))
            if inputs is None or not work.module.operation.verify():
                return None
        except Exception:  # kinds and verifiers may trip over what nobody else makes
            return None
    return Case(work.module, work.parameters, inputs)


def _parts(size: int) -> Iterator[range]:
    """Yield parts of an axis: of one element, two, three, four, five, eight, nine, ..., from its start and its end."""
    power = 1
    while power < size:
        for count in (power, power + 1) if power > 1 else (power,):
            if count < size:
                yield range(count)
                yield range(size - count, size)
        power *= 2


def _channel_classes(case: Case, values: Sequence[ir.Value]) -> list[frozenset[int]]:
    """Return sets of values whose channels go together, without those that some op keeps as they are."""
    numbers = {value: number for number, value in enumerate(values)}
    parents = list(range(len(values)))
    fixed: set[int] = set()

    def find(number: int) -> int:
        while parents[number] != number:
            number = parents[number]
        return number

    state = PassState(case.parameters.copy())
    for op in _body(case.module).operations:
        kind = kind_of(op)
        if kind is None:
            if op.operation.name not in (*CONSTANTS, "func.return"):
                fixed |= {numbers[value] for value in (*op.operands, *op.results)}
            continue
        channels = kind.channels(op, state)
        fixed |= {numbers[value] for value in channels.fixed}
        for value in channels.tied[1:]:
            parents[find(numbers[value])] = find(numbers[channels.tied[0]])
    roots = {find(number) for number in fixed}
    classes: dict[int, set[int]] = {}
    for number, value in enumerate(values):
        is_constant = not isinstance(value.owner, ir.Block) and value.owner.name in CONSTANTS
        if not is_constant and _rank(value) > 1 and find(number) not in roots:
            classes.setdefault(find(number), set()).add(number)
    return [frozenset(members) for members in classes.values()]


def _drop_channels(work: Case, change: Change) -> list[np.ndarray]:
    """Let all layers follow a choice of channels, as they follow another order of them."""
    values = _values(work.module)
    assert change.values is not None, "channels belong to a class"
    orders = {values[number]: np.array(change.kept) for number in change.values}
    old = {value: value.type.shape[_CHANNELS] for value in orders}
    state = PassState(work.parameters)
    ops = list(_body(work.module).operations)
    for op in ops:
        kind = kind_of(op)
        if kind is not None and any(value in orders for value in (*op.operands, *op.results)):
            if "groups" in op.attributes and op.attributes["groups"].value == old.get(op.operands[0], 0) > 1:
                groups = ir.IntegerType.get_signless(64)
                op.attributes["groups"] = ir.IntegerAttr.get(groups, len(change.kept))
            kind.permute(op, Permutation(orders.get, None), state)
    inputs = list(work.inputs)
    for number, argument in enumerate(_body(work.module).arguments):
        if argument in orders:
            inputs[number] = np.ascontiguousarray(np.take(inputs[number], change.kept, _CHANNELS))
    for value in orders:
        _resize(value, {_CHANNELS: len(change.kept)})
    return inputs


def _shrink(work: Case, change: Change) -> list[np.ndarray] | None:
    """Keep part of the images, rows or columns of the arguments; results follow."""
    block = _body(work.module)
    axis, size = change.axis, change.kept.stop if change.kept.start else None
    largest = max(value.type.shape[axis] for value in block.arguments if _rank(value) > axis)
    assert size is None or size == largest, "parts begin or end with the axis"
    old = {value: value.type.shape[axis] for value in _values(work.module) if _rank(value) > axis}
    new = {value: len(change.kept) for value in block.arguments if old.get(value) == largest}
    for op in block.operations:
        if not _follow(op, axis, old, new):
            return None
    inputs = list(work.inputs)
    for number, argument in enumerate(block.arguments):
        if argument in new:
            count = old[argument] - new[argument] if change.kept.start else 0
            kept = range(count, count + new[argument])
            inputs[number] = np.ascontiguousarray(np.take(inputs[number], kept, axis))
    for value, count in new.items():
        _resize(value, {axis: count})
    return inputs


def _follow(op: Any, axis: int, old: dict[ir.Value, int], new: dict[ir.Value, int]) -> bool:
    """Say what size the results of an op get, and arguments that go with them; return whether that is known."""
    if not any(value in new for value in op.operands) or op.operation.name == "func.return":
        return True
    kind = kind_of(op)
    if kind is None:
        return False
    window = kind.window(op) if axis in (_ROWS, _COLUMNS) else None
    first = op.operands[0]
    for result in op.results:
        if result not in old:
            continue
        if window is not None and first in new:
            size = [new[first]] * 2
            count = window.result_size(size)[axis - _ROWS]
        elif old[result] == old.get(first, 0):
            count = new.get(first, old[result])
        else:
            count = old[result]
        if count < 1:
            return False
        new[result] = count
        for value in op.operands[1:]:
            is_argument = isinstance(value.owner, ir.Block) and value not in new
            if is_argument and old.get(value) == old[result]:
                new[value] = count
    return True


def _resize(value: ir.Value, sizes: dict[int, int]) -> None:
    shape = [sizes.get(axis, size) for axis, size in enumerate(value.type.shape)]
    value.set_type(ir.RankedTensorType.get(shape, value.type.element_type, value.type.encoding))


def _values(module: ir.Module) -> list[ir.Value]:
    block = _body(module)
    return [*block.arguments, *(result for op in block.operations for result in op.results)]


def _rank(value: ir.Value) -> int:
    return value.type.rank if isinstance(value.type, ir.RankedTensorType) else 0


def _body(module: ir.Module) -> ir.Block:
    return find_main(module).regions[0].blocks[0]
