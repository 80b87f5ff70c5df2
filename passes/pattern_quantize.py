"""`pattern-quantize`: compute layers on integers of eight bits, where the ranges of activations are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.dialects import pattern
from patc.dialects.quantised import Quantisation
from patc.passes.base import Pass, PassState, fail
from patc.passes.formats.layer_weights import find_dense_weight
from patc.passes.ir.elements import WORD, with_element
from patc.passes.ir.functions import (
    RESHAPES,
    defined_functions,
    erase_dead,
    readers,
    through_reshapes,
    top_level_ops,
    works_on_tensors,
)
from patc.passes.ir.quantised import Known, is_quantised, multiples
from patc.passes.ir.ranges import BIASES, KEPT, RANGE, STEPS, read_biases, read_range, read_steps, write_range
from patc.passes.ir.stored import BITS, read_bits
from patc.passes.ir.targets import OVERRIDE, target_of
from patc.passes.ir.views import is_concat
from patc.passes.kernels.dots import dots_of
from patc.passes.layers.base import LayerKind
from patc.passes.layers.registry import kind_of
from patc.targets import Target


@dataclass(frozen=True)
class PatternQuantize(Pass):
    """Give activations whose ranges are known a quantised type, and the layers between them weights of i8.

    Requires: functions of pattern ops. An op, or an argument of a function, says the range of its f32 result as
        `pattern.range`; the state's `calibrate` writes that, if there is one. Or numbers in f32 come from integers and
        become integers, by `pattern.relayout`, as front ends write it for files that are quantised: then layers
        between these compute the integers themselves. Without ranges that is so for layers whose weights are multiples
        of a number, from -128 to 127 times, for each filter; `pattern.steps` of the function has such
        numbers, `pattern.biases` the integers of its biases that f32 does not tell.
    Ensures: a layer with weights, of a kind with kernels for it, reads quantised activations where the ranges of these
        are known and it has no attribute `pattern.keep`; what follows it without weights of its own does, too. Results
        that other layers read, and those of the function, are f32; `pattern.relayout` stands between. Weights are
        symmetric, one scale a filter; `pattern.correction` of a layer is added to its bias. Integers have the sign that
        the target's dot products want. A remark names each
        layer with weights that stays in f32, and each place between layers where integers stop or begin. A layer with
        an attribute `pattern.weight_bits` (8 or 1) computes in f32 with weights that are integers in memory, where its
        kind has kernels for that; a remark says how near they are. Without any of these nothing changes.

        %y = "pattern.conv2d"(%x, %w, %b) {activation = "relu", pattern.range = array<f32: 0.0, 5.1>, ...}
      becomes
        %q = "pattern.relayout"(%x) : (tensor<1x3x8x8xf32>) -> tensor<1x3x8x8x!pattern.quantised<ui8, 0.02 : f32, 128>>
        %y = "pattern.conv2d"(%q, %w, %b) {activation = "relu", scales = array<f32: ...>, ...}

        %y = "pattern.linear"(%x, %w) {pattern.weight_bits = 8, ...} : (tensor<1x512xf32>, tensor<64x512xf32>) -> ...
      becomes
        %y = "pattern.linear"(%x, %w) {scales = array<f32: ...>, ...} : (tensor<1x512xf32>, tensor<64x512xi8>) -> ...

    Idempotent: quantised layers are left alone.
    """

    name: ClassVar[str] = "pattern-quantize"

    target: str = field(default="", metadata={"help": OVERRIDE})

    def run(self, module: ir.Module, state: PassState) -> None:
        if state.calibrate is not None:
            state.calibrate(module, state)
        target = target_of(module, self.target)
        with module.context, ir.Location.unknown():
            for function in defined_functions(module):
                ops = list(top_level_ops(function))
                values = [*function.regions[0].blocks[0].arguments, *(value for op in ops for value in op.results)]
                if not works_on_tensors(function):
                    continue
                for op in ops:
                    _store_weights(op, target, state)
                has_ranges = any(read_range(value) is not None for value in values)
                known = Known(read_steps(function), read_biases(function))
                for name in (STEPS, BIASES):
                    if name in function.attributes:
                        del function.attributes[name]
                if has_ranges or any(map(is_quantised, ops)):
                    _Function(ops, target, has_ranges, known, state).quantise()
                    erase_dead(function.regions[0].blocks[0])
                    _remark_copies(function, state)


def _store_weights(op: Any, target: Target, state: PassState) -> None:
    """Make the weights of a layer of which that is asked integers in memory."""
    bits, kind = read_bits(op), kind_of(op)
    if bits is None:
        return
    if kind is None or target.algorithms == "gpu":
        where = "on what is no layer" if kind is None else f"for target '{target.name}'"
        raise fail(op, f"no {BITS} {where}", bits)
    is_stored, reason = kind.store(op, bits, state)
    del op.attributes[BITS]
    state.remark(op, reason if is_stored else f"its weights stay in f32: {reason}")


class _Function:
    """The layers of a function on their way to integers.

    Args:
        target: whose dot products say whether activations are stored with a sign.
        rounds: whether weights that are no multiples of anything may become some.
        known: `scales` are what weights of any layer may be multiples of, see `multiples`.
    """

    def __init__(self, ops: list[Any], target: Target, rounds: bool, known: Known, state: PassState) -> None:
        self._ops, self._target, self._state = ops, target, state
        self._signed = dots_of(target).signed
        self._rounds, self._known = rounds, known
        self._copies: dict[ir.Value, ir.Value] = {}
        self._scales: dict[ir.Operation, np.ndarray] = {}

    def quantise(self) -> None:
        for op in self._ops:
            if is_concat(op):
                _join_ranges(op)
            for result in op.results:
                if (given := Quantisation.of(result.type)) is not None:
                    result.set_type(with_element(result.type, given.stored_as(self._signed).to_type()))
        for op in self._ops:
            kind = kind_of(op)
            if kind is None:
                continue
            if is_quantised(op):
                self._join(op)
                continue
            has_weights = bool(kind.work(op).weights)
            if not self._can(op, kind):
                if has_weights:
                    self._state.remark(op, f"stays in f32: {self._reason(op, kind)}")
            elif has_weights or any(self._made(op.operands[number]) for number in kind.activations(op)):
                self._quantise(op, kind)

    def _can(self, op: Any, kind: LayerKind) -> bool:
        """Return whether a layer can read quantised activations."""
        is_kept = not self._knows_inputs(op, kind) or KEPT in op.attributes
        if is_kept or not kind.can_quantise(op, self._target, self._state):
            return False
        # What has no weights makes integers or none.
        is_told = bool(kind.work(op).weights) or self._own_type(op, kind) is not None
        return is_told and self._fits(op, kind)

    def _knows_inputs(self, op: Any, kind: LayerKind) -> bool:
        return all(self._type(op.operands[number]) is not None for number in kind.activations(op))

    def _own_type(self, op: Any, kind: LayerKind) -> Any:
        """Return what the result of a layer is as integers, where that is known."""
        own = self._type(op.operands[0]) if kind.keeps_scale else self._read_type(op.result) or self._type(op.result)
        return None if own is None else with_element(op.result.type, own.element_type)

    def _fits(self, op: Any, kind: LayerKind) -> bool:
        """Return whether weights, if there are any, can be integers."""
        return self._rounds or not kind.work(op).weights or not np.isnan(self._find_scales(op)).any()

    def _find_scales(self, op: Any) -> np.ndarray:
        if op.operation not in self._scales:
            weight = find_dense_weight(op, self._state)
            assert weight is not None, "the layer can be quantised"
            self._scales[op.operation] = multiples(weight.array, self._known.scales)
        return self._scales[op.operation]

    def _reason(self, op: Any, kind: LayerKind) -> str:
        if KEPT in op.attributes:
            return "it is to be kept"
        if not kind.can_quantise(op, self._target, self._state):
            return "there are no kernels for it on integers"
        if self._knows_inputs(op, kind) and not self._fits(op, kind):
            return "its weights are no integers of eight bits"
        return "the range of its input is not known"

    def _quantise(self, op: Any, kind: LayerKind) -> None:
        """Let a layer work on integers, with a result in f32 behind it for those that do not."""
        own = self._own_type(op, kind)
        has_weights = bool(kind.work(op).weights)
        wanted = own is not None and (not has_weights or self._is_wanted(op.result))
        known = replace(self._known, scales=self._find_scales(op)) if has_weights else None
        with ir.InsertionPoint(op), op.location:
            given = {number: self._quantised(op.operands[number]) for number in kind.activations(op)}
            type_ = own if wanted and own is not None else op.result.type
            real = on_integers(op, kind, given, type_, known, self._state)
        if RANGE in op.attributes:
            real.owner.attributes[RANGE] = op.attributes[RANGE]
        op.result.replace_all_uses_with(real)
        op.operation.erase()

    def _join(self, op: Any) -> None:
        """Let what makes integers of numbers take the integers that these were made of."""
        value, type_ = op.operands[0], op.results[0].type
        given = Quantisation.of(type_)
        if given is None or Quantisation.of(value.type) is not None or not self._is_made(value):
            return
        with ir.InsertionPoint(op), op.location:
            made = self._copied(value, type_)
            if made.type != type_:
                made = pattern.RelayoutOp(input=made, result=type_).result
        op.results[0].replace_all_uses_with(made)
        op.operation.erase()

    def _is_made(self, value: ir.Value) -> bool:
        """Return whether a tensor in f32 is made of integers alone, which are words as it is."""
        if self._made(value) is not None:
            return True
        owner = None if isinstance(value.owner, ir.Block) else value.owner.opview
        if owner is None or not (_joins_words(owner) or (owner.operation.name in RESHAPES and _keeps_words(owner))):
            return False
        return all(self._is_made(operand) for operand in owner.operands)

    def _read_type(self, value: ir.Value) -> ir.Type | None:
        """Return the quantised type that all readers of a tensor in f32 give it, where they do."""
        users = [use.owner.opview for use in value.uses]
        types = [user.results[0].type for user in users if user.operation.name == pattern.RelayoutOp.OPERATION_NAME]
        is_one = len(types) == len(users) and len({str(type_) for type_ in types}) == 1
        return types[0] if is_one and Quantisation.of(types[0]) is not None else None

    def _is_wanted(self, value: ir.Value) -> bool:
        """Return whether any reader of a value can read integers."""
        for use in value.uses:
            user = use.owner.opview
            if user.operation.name == pattern.RelayoutOp.OPERATION_NAME and is_quantised(user):
                return True
            if (user.operation.name in RESHAPES and _keeps_words(user)) or _joins_words(user):
                if self._is_wanted(user.results[0]):
                    return True
                continue
            kind = kind_of(user)
            if kind is not None and use.operand_number in kind.activations(user) and self._can(user, kind):
                return True
        return False

    def _type(self, value: ir.Value) -> ir.Type | None:
        """Return the quantised type of a tensor in f32 with a range; None where there is none."""
        source = through_reshapes(value)
        if (made := self._made(source)) is not None:
            return with_element(value.type, made.type.element_type)
        return type_in_range(value, self._signed)

    def _made(self, value: ir.Value) -> ir.Value | None:
        """Return the integers that a tensor in f32 was made of, if it was."""
        owner = value.owner
        if isinstance(owner, ir.Block):
            return None
        is_copy = owner.operation.name == pattern.RelayoutOp.OPERATION_NAME
        return owner.operands[0] if is_copy and Quantisation.of(owner.operands[0].type) is not None else None

    def _quantised(self, value: ir.Value) -> ir.Value:
        """Return a tensor in f32 as integers, at the insertion point if they are not there yet."""
        if (made := self._made(value)) is not None:
            return made
        if value not in self._copies:
            type_ = self._type(value)
            assert type_ is not None, "only what has a type is asked for"
            self._copies[value] = self._copied(value, type_)
        return self._copies[value]

    def _copied(self, value: ir.Value, type_: ir.Type) -> ir.Value:
        """Return a tensor in f32 as integers, with what leaves these as they are made again for them."""
        if (made := self._made(value)) is not None:
            return made
        owner = value.owner
        if not isinstance(owner, ir.Block) and owner.name in RESHAPES and _keeps_words(owner.opview):
            source = self._quantised(owner.operands[0])
            copy = owner.operation.clone()
            copy.operands[0] = source
            copy.results[0].set_type(with_element(value.type, source.type.element_type))
            return copy.results[0]
        if not isinstance(owner, ir.Block) and _joins_words(owner.opview):
            return self._joined(owner, type_)
        return pattern.RelayoutOp(input=value, result=type_).result

    def _joined(self, concat: Any, type_: Any) -> ir.Value:
        """Return a concatenation of integers of one scale."""
        parts = []
        for operand in concat.operands:
            part, wanted = self._quantised(operand), with_element(operand.type, type_.element_type)
            parts.append(part if part.type == wanted else pattern.RelayoutOp(input=part, result=wanted).result)
        copy = concat.operation.clone()
        for number, part in enumerate(parts):
            copy.operands[number] = part
        copy.results[0].set_type(type_)
        return copy.results[0]


def _remark_copies(function: Any, state: PassState) -> None:
    """Say where integers stop or begin between layers."""
    for op in top_level_ops(function):
        if op.operation.name != pattern.RelayoutOp.OPERATION_NAME or not is_quantised(op):
            continue
        (value,), (made,) = op.operands, op.results
        if Quantisation.of(value.type) is None and not isinstance(through_reshapes(value).owner, ir.Block):
            state.remark(op, "makes integers of numbers that are computed in f32")
        if Quantisation.of(made.type) is None and any(user.operation.name != "func.return" for user in readers(made)):
            state.remark(op, "makes numbers in f32 of integers, for what has no kernels on them")


def _join_ranges(concat: Any) -> None:
    """Give a concatenation and all that it joins the range of all of them, where that is known."""
    found = [read_range(operand) for operand in concat.operands]
    if None in found or any(isinstance(operand.owner, ir.Block) for operand in concat.operands):
        return
    known = [limits for limits in found if limits is not None]
    low, high = min(limits[0] for limits in known), max(limits[1] for limits in known)
    for value in (*concat.operands, concat.result):
        write_range(value, low, high)


def _joins_words(op: Any) -> bool:
    """Return whether an op joins planes of whole words along their channels."""
    return is_concat(op) and not any(operand.type.shape[1] % WORD for operand in op.operands)


def _keeps_words(op: Any) -> bool:
    """Return whether a reshape leaves words as they are: between planes of one place and rows."""
    shapes = [list(value.type.shape) for value in (op.operands[0], op.results[0])]
    planes, rows = sorted(shapes, key=len, reverse=True)
    return len(planes) == 4 and len(rows) == 2 and planes == [*rows, 1, 1]


def on_integers(
    op: Any, kind: LayerKind, given: Mapping[int, ir.Value], made: ir.Type, known: Known | None, state: PassState
) -> ir.Value:
    """Build a layer on integers at the insertion point, and return its result in f32.

    Args:
        given: its activations, quantised, by the numbers of the operands.
        made: the type of what it makes, which may be quantised.
        known: see `LayerKind.quantise`.
    """
    result = kind.quantise(op, given, made, state, known)
    return result if made == op.result.type else pattern.RelayoutOp(input=result, result=op.result.type).result


def type_in_range(value: ir.Value, signed: bool) -> ir.Type | None:
    """Return the quantised type of a tensor in f32 by the range that it, or what it is a reshape of, has; None where
    neither has one."""
    limits = read_range(value) or read_range(through_reshapes(value))
    if limits is None or str(value.type.element_type) != "f32" or value.type.rank not in (2, 4):
        return None
    return with_element(value.type, quantisation_of(*limits, signed).to_type())


def quantisation_of(low: float, high: float, signed: bool) -> Quantisation:
    """Return integers for a range of numbers; 0 is among them, exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    lowest = -128 if signed else 0
    # The smallest scale keeps what is divided by it, and by a weight's, within f32.
    scale = np.float32(max((high - low) / 255.0, 2.0**-40))
    return Quantisation(float(scale), lowest + int(np.clip(np.rint(-low / float(scale)), 0, 255)), signed)
