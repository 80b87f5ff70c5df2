"""Concatenations and slices of channels: nothing moves where the tensors that they join or cut lie in one memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch_mlir import ir

from patc.dialects.attributes import Layout
from patc.dialects.quantised import Quantisation
from patc.passes.base import fail
from patc.passes.ir.constants import CONSTANTS
from patc.passes.ir.functions import RESHAPES

_CONCAT, _SLICE = "tensor.concat", "tensor.extract_slice"


def is_concat(op: Any) -> bool:
    """Whether an op joins planes along their channels."""
    return op.operation.name == _CONCAT and op.operation.attributes["dim"].value == 1 and _are_planes(op.result.type)


def is_view(op: Any) -> bool:
    """Whether an op is such a concatenation, or picks channels that follow each other."""
    if op.operation.name != _SLICE:
        return is_concat(op)
    source, result = op.operands[0].type, op.result.type
    if len(op.operands) > 1 or not (_are_planes(source) and _are_planes(result)):
        return False
    others = [axis for axis in (0, 2, 3) if source.shape[axis] != result.shape[axis]]
    return not others and list(op.static_strides) == [1] * 4


def _are_planes(type_: ir.Type) -> bool:
    is_number = isinstance(type_.element_type, ir.FloatType) or Quantisation.of(type_) is not None
    return type_.rank == 4 and type_.has_static_shape and is_number


@dataclass(frozen=True)
class Part:
    """Where a tensor lies: from a channel of another one on."""

    root: ir.Value
    channel: int

    def moved(self, channels: int) -> Part:
        return Part(self.root, self.channel + channels)


@dataclass
class Views:
    """The tensors of a block that views make or read.

    Attributes:
        parts: where they lie.
        copies: views and the numbers of operands that have to be copied to where the result lies: they lie elsewhere.
    """

    parts: dict[ir.Value, Part] = field(default_factory=dict)
    copies: list[tuple[Any, int]] = field(default_factory=list)

    @staticmethod
    def of(block: ir.Block, packs: Callable[[ir.Value], bool] = lambda value: False) -> Views:
        """Return the tensors of a block.

        Args:
            packs: tells of a value whether it is row-major anyway: such ones are no parts of concatenations.
        """
        views = Views()
        ops = [op for op in block.operations if is_view(op)]
        cuts = [op for op in ops if not is_concat(op)]
        views.copies = [(op, 0) for op in cuts if _is_elsewhere(op.operands[0])]
        for op in reversed([op for op in ops if is_concat(op)]):
            views._join(op, packs)
        for op in cuts:
            start = _start(op.result)
            views.parts[op.result] = views.parts.setdefault(start.root, Part(start.root, 0)).moved(start.channel)
        return views

    def _join(self, op: Any, packs: Callable[[ir.Value], bool]) -> None:
        """Place the operands of a concatenation in its result, later ones first: those may hold it as well."""
        starts, ends = [], [0]
        for operand in op.operands:
            starts.append(_start(operand))
            ends.append(ends[-1] + operand.type.shape[1])
        if op.result not in self.parts:
            self.parts[op.result] = self._where_all_lie(starts, ends) or Part(op.result, 0)
        here = self.parts[op.result]
        for number, start in enumerate(starts):
            wanted = here.moved(ends[number] - start.channel)
            is_placed = start.root in self.parts or _is_elsewhere(start.root)
            if not is_placed and not packs(start.root) and _fits(number, starts, ends):
                self.parts[start.root] = wanted
            if self.parts.get(start.root) != wanted:
                self.copies.append((op, number))

    def _where_all_lie(self, starts: list[Part], ends: list[int]) -> Part | None:
        """Return where the operands of a concatenation lie already, if that is one behind the other."""
        found = {
            self.parts[start.root].moved(start.channel - end) if start.root in self.parts else None
            for start, end in zip(starts, ends, strict=False)
        }
        return found.pop() if len(found) == 1 else None


def _fits(number: int, starts: list[Part], ends: list[int]) -> bool:
    """Whether the tensor that an operand is, or is cut from, can lie in the result: no other operand is in its way."""
    root = starts[number].root
    first = ends[number] - starts[number].channel
    last = first + root.type.shape[1]
    others = [place for place in range(len(starts)) if ends[place] < last and ends[place + 1] > first]
    agree = all(starts[place].root == root and ends[place] - starts[place].channel == first for place in others)
    return first >= 0 and last <= ends[-1] and agree


def _start(value: ir.Value) -> Part:
    """Return what a tensor is cut from, and where it begins there; the tensor itself if it is no slice."""
    channel = 0
    while not isinstance(value.owner, ir.Block) and value.owner.name == _SLICE and is_view(value.owner.opview):
        channel += value.owner.opview.static_offsets[1]
        value = value.owner.operands[0]
    return Part(value, channel)


def _is_elsewhere(value: ir.Value) -> bool:
    """Whether a tensor has memory of its own, whatever reads it."""
    return isinstance(value.owner, ir.Block) or value.owner.operation.name in (*CONSTANTS, *RESHAPES)


def find_parts(block: ir.Block) -> dict[ir.Value, Part]:
    """Return where the tensors lie that views make or read.

    Raises:
        PatcError: one of them has to be copied, or has another layout; `pattern-layout` sees to that.
    """
    views = Views.of(block)
    for op, number in views.copies:
        raise fail(op, "operands in the result's memory (run pattern-layout first)", f"operand {number}")
    for value, part in views.parts.items():
        if Layout.of(value.type) != Layout.of(part.root.type):
            raise fail(value.owner, "one layout of what lies together (run pattern-layout first)", value.type)
    return views.parts
