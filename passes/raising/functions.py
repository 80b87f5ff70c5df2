"""Activations in linalg: elementwise ops that together compute a known function of one tensor.

They are recognised by what they compute: their bodies are run on sample numbers, and compared with the formulas.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import Activation
from patc.passes.activations.base import ActivationKind
from patc.passes.activations.formulas import ON_ARRAYS
from patc.passes.activations.registry import kinds
from patc.passes.base import PassState
from patc.passes.ir.bodies import is_elementwise, used_arguments
from patc.passes.ir.functions import erase_dead
from patc.passes.raising.activations import activate
from patc.passes.raising.evaluate import NotConstant, evaluate_operand, evaluate_region

_MOST_OPS = 16  # of a function
_HALF = (0.125, *np.arange(0.25, 12.25, 0.25).tolist(), 16.0, 24.0, 40.0, 80.0, 1e4, 1e30)
_SAMPLES = np.array([*(-number for number in reversed(_HALF)), 0.0, *_HALF])
_PLACES = {number: place for place, number in enumerate(_SAMPLES.tolist())}
_BY_THEMSELVES = ("relu", "clamp")  # what other raisers know, with what is around it


@dataclass(frozen=True)
class FoundActivation:
    """Ops that compute an activation.

    Attributes:
        end: the last of them.
        source: the tensor that they compute it of.
        ops: all of them.
    """

    end: ir.Operation
    source: ir.Value
    ops: tuple[ir.Operation, ...]
    activation: Activation


def find_activations(block: ir.Block, state: PassState) -> list[FoundActivation]:
    """Return the activations of a block, last to first; what is part of one of them alone is none by itself."""
    order = {op.operation: place for place, op in enumerate(block.operations)}
    found: list[FoundActivation] = []
    seen: set[ir.Operation] = set()
    for op in reversed(list(order)):
        if not _is_on_f32(op) or all(use.owner.operation in seen for use in op.result.uses):
            continue
        activation = _read_activation(op, order, state)
        if activation is not None:
            seen.update(activation.ops)
            found.append(activation)
    return found


def raise_activations(block: ir.Block, state: PassState) -> None:
    """Replace the activations of a block by `pattern.activate`."""
    for found in find_activations(block, state):
        with found.end.location, ir.InsertionPoint(found.end):
            made = activate(found.source, found.activation)
        assert made is not None
        found.end.result.replace_all_uses_with(made)
    erase_dead(block)


def _is_on_f32(op: ir.Operation) -> bool:
    return is_elementwise(op) and isinstance(op.result.type.element_type, ir.F32Type) and _is_static(op)


def _is_static(op: ir.Operation) -> bool:
    return bool(op.result.type.has_static_shape) and op.result.type.rank > 0


def _read_activation(end: ir.Operation, order: dict[ir.Operation, int], state: PassState) -> FoundActivation | None:
    """Return the activation that ends with an op: that of the nearest tensor, and of one farther back if constants of
    the same function take what is between."""
    best: FoundActivation | None = None
    for source, ops in _sources(end, order, state):
        values = _run(source, ops, order, state)
        if values is None or _is_affine(values):
            continue
        activation = next(filter(None, (_match(kind, values) for kind in kinds())), None)
        if best is None:
            if activation is not None and activation.kind not in _BY_THEMSELVES:
                best = FoundActivation(end, source, tuple(ops), activation)
        elif activation is None or activation.arrays or activation.kind != best.activation.kind:
            break
        elif activation != best.activation:
            best = FoundActivation(end, source, tuple(ops), activation)
    return best


def _sources(
    end: ir.Operation, order: dict[ir.Operation, int], state: PassState
) -> Iterator[tuple[ir.Value, list[ir.Operation]]]:
    """Yield the tensors that alone determine what an op computes, nearest first, and the ops from each to there."""
    ops: list[ir.Operation] = []
    open_: dict[ir.Value, None] = {}
    op = end
    while len(ops) < _MOST_OPS:
        ops.append(op)
        operands = _data(op, state)
        if not operands:
            return
        open_.update(dict.fromkeys(operands))
        if len(open_) == 1:
            (source,) = open_
            if source.type == end.result.type:
                yield source, list(ops)
        value = max(open_, key=lambda value: -1 if isinstance(value.owner, ir.Block) else order[value.owner.operation])
        if isinstance(value.owner, ir.Block) or not is_elementwise(value.owner.operation):
            return
        del open_[value]
        op = value.owner.operation


def _data(op: ir.Operation, state: PassState) -> list[ir.Value]:
    """Return the operands that are not constant; none where one of them is not read element by element, or where there
    is a constant that is neither one number nor one for each channel."""
    channels = op.result.type.shape[1] if op.result.type.rank > 1 else 1
    maps, found = [attr.value for attr in op.attributes["indexing_maps"]], []
    for place in used_arguments(op):
        value = op.operands[place]
        if not isinstance(value.type, ir.RankedTensorType):
            return []
        try:
            array = evaluate_operand(op, place, state)
        except NotConstant:
            if maps[place] != maps[-1] or list(value.type.shape) != list(op.result.type.shape):
                return []
            found.append(value)
            continue
        if array.size > 1 and (array.size != channels or array.shape[1] != channels):
            return []
    return found


def _run(
    source: ir.Value, ops: list[ir.Operation], order: dict[ir.Operation, int], state: PassState
) -> np.ndarray | None:
    """Return what ops compute of the samples: one number for each, or one for each and each channel; None where that is
    not known, or is not finite though the sample is small."""
    known: dict[ir.Value, Any] = {source: _SAMPLES.reshape(-1, *[1] * source.type.rank)}
    try:
        for op in sorted(ops, key=order.__getitem__):
            arguments = {place: _argument(op, place, known, state) for place in used_arguments(op)}
            known[op.result] = evaluate_region(op, arguments)
    except NotConstant:
        return None
    values = np.asarray(known[ops[0].result])
    if not values.ndim or len(values) != len(_SAMPLES) or not np.all(np.isfinite(values[np.abs(_SAMPLES) < 50.0])):
        return None
    return values.reshape(len(_SAMPLES), -1)


def _argument(op: ir.Operation, place: int, known: dict[ir.Value, Any], state: PassState) -> Any:
    value = op.operands[place]
    return known[value] if value in known else evaluate_operand(op, place, state)[None]


def _is_affine(values: np.ndarray) -> bool:
    """Whether a function is a x + b, which batch norm is."""
    shift = values[_PLACES[0.0]]
    with np.errstate(all="ignore"):
        line = shift + (values[_PLACES[1.0]] - shift) * _SAMPLES[:, None]
        return bool(np.all(np.abs(values - line) <= 1e-6 * (1.0 + np.abs(line))))


def _match(kind: ActivationKind, values: np.ndarray) -> Activation | None:
    """Return the activation of a kind that has these values, infinities of overflows aside, or None."""
    with np.errstate(all="ignore"):
        constants = kind.guess(lambda number: values[_PLACES[number]])
        if constants is None or not np.all(np.isfinite([np.max(np.abs(constant)) for constant in constants])):
            return None
        wanted = np.broadcast_to(kind.compute(ON_ARRAYS, _SAMPLES[:, None], constants), values.shape)
        far = np.abs(values - wanted) > kind.tolerance * (1.0 + np.abs(wanted))
    if np.any(far & np.isfinite(values)):
        return None
    return Activation(kind.name, tuple(_constant(np.atleast_1d(constant)) for constant in constants))


def _constant(array: np.ndarray) -> float | tuple[float, ...]:
    numbers = array.astype(np.float32).astype(np.float64).tolist()
    return tuple(numbers) if any(number != numbers[0] for number in numbers) else float(numbers[0])
