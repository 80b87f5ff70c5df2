"""`pattern-shrink`: channels that pruning left without a purpose go, so that the layers around them are smaller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import tensor

from patc.dialects.attributes import i64
from patc.passes.base import Pass, PassState
from patc.passes.ir.constants import replace_constant
from patc.passes.ir.functions import defined_functions, rebuild
from patc.passes.layers.base import Permutation, operand_number, permute_activation
from patc.passes.layers.flow import Flow
from patc.passes.layers.registry import kind_of

_LEAST_REMOVED = 1 / 16  # of a tensor's channels: for less, sizes that are no multiples of anything do not pay
_CONCAT, _SLICE, _FLATTEN = "tensor.concat", "tensor.extract_slice", "tensor.collapse_shape"


@dataclass(frozen=True)
class PatternShrink(Pass):
    """Remove channels that hold one number everywhere, and channels that nothing reads.

    A filter of zeros makes a channel of one number, activation(bias). What reads such a channel is computed without it:
    the number goes into the bias, or where zeros are padded to the planes into the weights of another channel that
    holds a number. So structured pruning gives a smaller dense net. Columns of zeros leave the channels unread, and the
    filters that compute them go as well.

    Pools, activations, depthwise convolutions, residuals and additions need the same channels of all their tensors: a
    channel goes where each of them can do without it. Concatenations, slices and flattening are followed. Tensors of
    which fewer than a sixteenth of the channels would go, and arguments and results of the net, keep all of them.

        %y = "pattern.conv2d"(%x, %w, %b) {activation = "relu", ...}    filters 1 and 3 of 4 are zero, bias 1 and 3: -1
        %z = "pattern.conv2d"(%y, %v) : tensor<1x4x8x8xf32>, ...
    ->
        %y = "pattern.conv2d"(%x, %w', %b')                             filters 0 and 2
        %z = "pattern.conv2d"(%y, %v') : tensor<1x2x8x8xf32>, ...

    Requires: nothing; layers whose weights are not constant keep their channels.
    Ensures: the results are those of before, but for sums of constants that are rounded once. A second run changes
        nothing. A remark on each layer with weights that lost channels.
    """

    name: ClassVar[str] = "pattern-shrink"

    def run(self, module: ir.Module, state: PassState) -> None:
        with module.context, ir.Location.unknown():
            for function in defined_functions(module):
                ops = list(function.regions[0].blocks[0].operations)
                channels = _Channels(ops, state)
                if channels.find_needed():
                    plans = [_Plan.of(op, channels) for op in ops]
                    for plan in filter(None, plans):
                        plan.carry_out(state)


class _Channels:
    """The channels of the tensors of a block.

    Attributes:
        needed: which of them have to be computed, of each tensor that may have fewer.
        constants: what they hold, see `Known`.
    """

    def __init__(self, ops: Sequence[Any], state: PassState) -> None:
        self.ops = ops
        self.flows: dict[Any, Flow] = {}
        self.needed: dict[ir.Value, np.ndarray] = {}
        self.constants: dict[ir.Value, np.ndarray] = {}
        for op in ops:
            kind = kind_of(op)
            flow = None if kind is None else kind.flow(op, state)
            if flow is not None and _have_channels(flow):
                self.flows[op.operation] = flow
                self.constants[op.result] = flow.constants(self.known)
            elif _is_moved(op):
                self.constants[op.result] = self._moved(op)

    def known(self, value: ir.Value) -> np.ndarray:
        """Return what the channels of a tensor hold, or NaN."""
        return self.constants.get(value, np.full(value.type.shape[1], np.nan))

    def kept(self, value: ir.Value) -> np.ndarray | None:
        """Return the channels that stay; None for all."""
        needed = self.needed.get(value)
        return None if needed is None or needed.all() else np.flatnonzero(needed)

    def find_needed(self) -> bool:
        """Find the channels that are needed; return whether any are not."""
        whole: set[ir.Value] = set()
        while True:
            self.needed = {value: np.full(value.type.shape[1], value in whole) for value in self.constants}
            self._find_all()
            for needed in self.needed.values():
                needed[0] |= not needed.any()
            self._find_all()
            little = {value for value, needed in self.needed.items() if 1 - _LEAST_REMOVED < needed.mean() < 1}
            if not little:
                return any(not needed.all() for needed in self.needed.values())
            whole |= little

    def _find_all(self) -> None:
        """Need what ops need, until nothing is missing."""
        before = -1
        while before < (before := sum(int(needed.sum()) for needed in self.needed.values())):
            for op in reversed(self.ops):
                self._find_needs_of(op)

    def _find_needs_of(self, op: Any) -> None:
        flow = self.flows.get(op.operation)
        if flow is None and not _is_moved(op):
            for value in op.operands:
                self._need(value, True)
        elif flow is None:
            self._find_needs_of_moved(op)
        else:
            if flow.spread is not None:
                self._need(flow.spread, True)
            if flow.is_mixed:
                self._need(op.operands[0], self._columns(flow))
            together = np.array([self._needs(value) for value in flow.tied]).any(0)
            for value in flow.tied:
                self._need(value, together)

    def _find_needs_of_moved(self, op: Any) -> None:
        source, needed = op.operands[0], self._needs(op.result)
        if op.operation.name == _CONCAT:
            bounds = np.cumsum([value.type.shape[1] for value in op.operands])[:-1]
            for value, own in zip(op.operands, np.split(needed, bounds), strict=True):
                self._need(value, own)
            self._need(op.result, np.concatenate([self._needs(value) for value in op.operands]))
        elif op.operation.name == _FLATTEN:
            per = len(needed) // source.type.shape[1]
            self._need(source, needed.reshape(-1, per).any(1))
            self._need(op.result, np.repeat(self._needs(source), per))
        else:
            part = slice(op.static_offsets[1], op.static_offsets[1] + len(needed))
            wanted = np.zeros(source.type.shape[1], bool)
            wanted[part] = needed
            self._need(source, wanted)
            self._need(op.result, self._needs(source)[part])

    def _moved(self, op: Any) -> np.ndarray:
        """Return what the channels of a tensor hold that is made of others without arithmetic."""
        if op.operation.name == _CONCAT:
            return np.concatenate([self.known(value) for value in op.operands])
        source, count = self.known(op.operands[0]), op.result.type.shape[1]
        if op.operation.name == _FLATTEN:
            return np.repeat(source, count // len(source))
        return source[op.static_offsets[1] :][:count]

    def _columns(self, flow: Flow) -> np.ndarray:
        """Return the channels of a mixed operand that a layer reads: others hold numbers that go elsewhere."""
        assert flow.factors is not None, "only layers with weights mix channels"
        read, held = flow.factors[self._needs(flow.op.result)].any((0, 2)), self.known(flow.op.operands[0])
        columns = read & np.isnan(held)
        if (read & ~np.isnan(held) & (held != 0)).any() and not _folds_into_bias(flow):
            columns[_substitute(held)] = True
        return columns

    def _needs(self, value: ir.Value) -> np.ndarray:
        return self.needed.get(value, np.ones(value.type.shape[1], bool))

    def _need(self, value: ir.Value, channels: Any) -> None:
        if value in self.needed:
            self.needed[value] |= channels


def _substitute(held: np.ndarray) -> int:
    """Return the channel that stays for those that hold other numbers: it holds the largest."""
    return int(np.nanargmax(np.abs(held)))


def _folds_into_bias(flow: Flow) -> bool:
    return flow.keeps_numbers and flow.bias is not None


def _have_channels(flow: Flow) -> bool:
    """Whether the tensors of a layer have channels at all: those of nets of numbers and lists have none."""
    return all(value.type.rank > 1 for value in (flow.op.operands[0], *flow.tied))


def _is_moved(op: Any) -> bool:
    """Whether channels of a result are those of an operand: a concatenation, a slice of channels, or flattening."""
    name = op.operation.name
    if name not in (_CONCAT, _SLICE, _FLATTEN) or str(op.result.type.element_type) != "f32":
        return False
    source, result = op.operands[0].type, op.result.type
    if not result.has_static_shape or not source.has_static_shape or source.rank < 2:
        return False
    if name == _CONCAT:
        return bool(op.operation.attributes["dim"].value == 1)
    if name == _FLATTEN:
        groups = [[int(axis) for axis in group] for group in op.operation.attributes["reassociation"]]
        return groups == [[0], [*range(1, source.rank)]]
    others = source.rank == result.rank and all(
        axis == 1 or source.shape[axis] == result.shape[axis] for axis in range(source.rank)
    )
    return others and len(op.operands) == 1 and set(op.static_strides) == {1}


@dataclass(frozen=True)
class _Plan:
    """What becomes of an op whose result or input loses channels.

    Attributes:
        flow: None for one that moves channels.
        parts: the channels of its operands that stay, of the result those; None for all.
        held: what the channels of the first operand hold.
    """

    op: Any
    flow: Flow | None
    parts: tuple[np.ndarray | None, ...]
    result: np.ndarray | None
    held: np.ndarray

    @staticmethod
    def of(op: Any, channels: _Channels) -> _Plan | None:
        flow = channels.flows.get(op.operation)
        if flow is None and not _is_moved(op):
            return None
        parts, result = tuple(map(channels.kept, op.operands)), channels.kept(op.result)
        if result is None and all(part is None for part in parts):
            return None
        return _Plan(op, flow, parts, result, channels.known(op.operands[0]))

    def carry_out(self, state: PassState) -> None:
        """Rewrite the op, whose operands have lost their channels already."""
        op, type_ = self.op, self.op.result.type
        shape = list(type_.shape)
        shape[1] = shape[1] if self.result is None else len(self.result)
        new = ir.RankedTensorType.get(shape, type_.element_type)
        with ir.InsertionPoint(op), op.location:
            if self.flow is None:
                op.result.replace_all_uses_with(self._move(new))
                op.operation.erase()
                return
            permute_activation(op, Permutation(lambda value: self.result, None))
            changes = self._shrink_weights(self.flow, state) if self.flow.factors is not None else {}
            rebuild(op, result=new, **changes)

    def _move(self, type_: ir.Type) -> ir.Value:
        op = self.op
        if op.operation.name == _CONCAT:
            return tensor.concat(type_, 1, list(op.operands))
        if op.operation.name == _FLATTEN:
            return tensor.collapse_shape(type_, op.operands[0], op.operation.attributes["reassociation"])
        kept, first = self.parts[0], op.static_offsets[1]
        offsets = [*op.static_offsets]
        offsets[1] = first if kept is None else int(np.searchsorted(kept, first))
        return tensor.ExtractSliceOp(
            type_, op.operands[0], [], [], [], offsets, list(type_.shape), [1] * type_.rank
        ).result

    def _shrink_weights(self, flow: Flow, state: PassState) -> dict[str, Any]:
        """Replace weights and bias, and return what else of the op changes."""
        op, weight, bias = self.op, flow.factors, flow.bias
        assert weight is not None
        taps, part = op.weight.type.shape[2:], self.parts[0]
        if flow.is_mixed and part is not None:
            weight, bias = self._fold(flow, part)
        if self.result is not None:
            weight, bias = weight[self.result], None if bias is None else bias[self.result]
        shaped = weight.reshape(*weight.shape[:2], *taps).astype(np.float32)
        replace_constant(op, operand_number(op, "weight"), shaped, state)
        if bias is not None:
            replace_constant(op, operand_number(op, "bias"), bias.astype(np.float32), state)
        state.remark(op, self._describe(flow))
        return {"groups": i64(len(weight))} if not flow.is_mixed else {}

    def _fold(self, flow: Flow, part: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return weights and bias without the columns that go, whose numbers are added to the bias or a column."""
        weight, held, bias = flow.factors, self.held, flow.bias
        assert weight is not None
        goes = np.ones(len(held), bool)
        goes[part] = False
        goes &= np.nan_to_num(held) != 0
        if not goes.any():
            return weight[:, part], bias
        if _folds_into_bias(flow):
            return weight[:, part], bias + weight[:, goes].sum(2) @ held[goes]
        weight, one = weight.copy(), _substitute(held)
        weight[:, one] += np.einsum("fct,c->ft", weight[:, goes], held[goes] / held[one])
        return weight[:, part], bias

    def _describe(self, flow: Flow) -> str:
        """Return what the layer lost, in words."""
        words = []
        for name, part, whole in (
            ("inputs", self.parts[0], len(self.held)),
            ("filters", self.result, self.op.result.type.shape[1]),
        ):
            if part is not None and not (name == "inputs" and not flow.is_mixed):
                words.append(f"{len(part)} of {whole} {name}")
        return f"shrinks to {' and '.join(words)}: the others are constant or not read"
