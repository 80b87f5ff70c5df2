"""Gathers, slices and sums that together resample planes: interpolation, and pads that are no constant.

They are recognised by what they compute, see `planes`: the constants of such a chain say which sum of terms each value
is, and what is one term in the end is a `pattern.resample`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import tensor

from patc.dialects.attributes import Activation
from patc.dialects.pattern import ResampleOp
from patc.passes.base import PassState
from patc.passes.ir.bodies import (
    Interpreter,
    Rule,
    Scalar,
    constant_number,
    is_elementwise,
    loop_numbers,
    used_arguments,
)
from patc.passes.ir.constants import make_constant
from patc.passes.ir.elements import numpy_type
from patc.passes.ir.functions import erase_dead
from patc.passes.ir.resampling import Axis
from patc.passes.raising.evaluate import NotConstant, evaluate, evaluate_operand
from patc.passes.raising.linalg_layers import tensor_like
from patc.passes.raising.planes import Planes, size_of

_CONCAT, _INSERT, _SLICE = "tensor.concat", "tensor.insert_slice", "tensor.extract_slice"


def raise_resampling(block: ir.Block, state: PassState) -> None:
    """Replace the chains of a block that resample planes, or lines, by `pattern.resample`; those of others stay."""
    known: dict[ir.Value, Planes] = {}
    for op in (op.operation for op in block.operations):
        if op.name in _ENDS and len(op.results) == 1 and _is_on_planes(op.results[0].type):
            found = _read(op, known, state)
            if found is not None:
                known[op.results[0]] = found
    replaced: set[ir.Operation] = set()
    for value, planes in reversed(known.items()):
        if all(use.owner.operation in replaced for use in value.uses):
            replaced.add(value.owner.operation)
            continue
        axes = planes.axes()
        if axes is None or not (value.owner.operation.name == "linalg.generic" or planes.repeats):
            continue
        replaced.add(value.owner.operation)
        with value.owner.location, ir.InsertionPoint(value.owner):
            value.replace_all_uses_with(_build(planes, axes, value, state))
    if replaced:
        erase_dead(block)


def _is_on_planes(type_: Any) -> bool:
    return type_.has_static_shape and type_.rank in (3, 4) and isinstance(type_.element_type, ir.F32Type)


def _build(planes: Planes, axes: tuple[Axis, Axis], like: ir.Value, state: PassState) -> ir.Value:
    """Build the op; lines are planes of one row to it. Planes that stay as they are need none."""
    source, is_line = planes.source, like.type.rank == 3
    assert source is not None, "it has a term"
    if planes.is_identity:
        return source
    if is_line:
        batch, channels, columns = source.type.shape
        shape = [batch, channels, 1, columns]
        source = tensor.expand_shape(tensor_like(shape, source), source, [[0], [1], [2, 3]], [], shape)
    places = [make_constant(axis.places, "resample", state) for axis in axes]
    weights = [None if axis.weights is None else make_constant(axis.weights, "resample", state) for axis in axes]
    made = ResampleOp(
        input=source,
        rows=places[0],
        columns=places[1],
        row_weights=weights[0],
        column_weights=weights[1],
        result=tensor_like([*source.type.shape[:2], axes[0].size, axes[1].size], like),
        activation=Activation().to_attr(),
    ).result
    return tensor.collapse_shape(like.type, made, [[0], [1], [2, 3]]) if is_line else made


# What ops make.


def _read(op: ir.Operation, known: Mapping[ir.Value, Planes], state: PassState) -> Planes | None:
    """Return what an op makes of planes, or None."""
    try:
        return _ENDS[op.name](op, known, state)
    except (NotConstant, TypeError):
        return None


def _planes_of(value: ir.Value, known: Mapping[ir.Value, Planes]) -> Planes:
    """Return a tensor as planes, which may be its own, or those that it is cut from."""
    if value in known:
        return known[value]
    owner = None if isinstance(value.owner, ir.Block) else value.owner.operation
    if owner is None or owner.name != _SLICE or len(owner.operands) > 1:
        return Planes.identity(value)
    offsets, strides, whole = owner.opview.static_offsets, owner.opview.static_strides, owner.operands[0]
    if any(stride != 1 for stride in strides) or list(whole.type.shape[:2]) != list(value.type.shape[:2]):
        return Planes.identity(value)
    (height, width), (top, left) = size_of(value.type.shape), size_of(offsets) if len(offsets) == 4 else (0, offsets[2])
    return _planes_of(whole, known).gathered(np.arange(top, top + height), np.arange(left, left + width))


def _read_generic(op: ir.Operation, known: Mapping[ir.Value, Planes], state: PassState) -> Planes | None:
    """Return what a linalg.generic gathers from planes, or computes of them element by element."""
    body = [inner.operation for inner in op.regions[0].blocks[0].operations]
    gathered = [inner.operands[0] for inner in body if inner.name == "tensor.extract"]
    if not is_elementwise(op) or not (gathered or any(value in known for value in op.operands)):
        return None
    if not all(_is_on_planes(value.type) for value in gathered):
        return None
    maps = [attr.value for attr in op.attributes["indexing_maps"]]
    arguments: dict[int, Scalar] = {}
    for place in used_arguments(op):
        value = op.operands[place]
        if value in known and maps[place] == maps[-1]:
            arguments[place] = known[value]
        else:
            arguments[place] = _typed(evaluate_operand(op, place, state), value.type.element_type)
    outside: dict[ir.Value, Scalar] = {value: _planes_of(value, known) for value in gathered}
    made = _BODIES.run(op, arguments, outside | _rounded(body))
    return made if isinstance(made, Planes) else None


def _rounded(body: Sequence[ir.Operation]) -> dict[ir.Value, Scalar]:
    """Return the constants in other types that a body takes from outside."""
    found: dict[ir.Value, Scalar] = {}
    for value in (operand for op in body for operand in op.operands):
        made = None if isinstance(value.owner, ir.Block) else value.owner.operation
        if (
            made is not None
            and made.name == "arith.truncf"
            and (known := constant_number(made.operands[0])) is not None
        ):
            found[value] = _typed(known, value.type)
    return found


def _read_concat(op: ir.Operation, known: Mapping[ir.Value, Planes], state: PassState) -> Planes | None:
    """Return rows or columns one after the other."""
    shape, axis = op.results[0].type.shape, op.attributes["dim"].value
    if axis < 2:
        return None
    made, offset = Planes(None, ()), [0, 0]
    for value in op.operands:
        made = made + _planes_of(value, known).placed(offset, size_of(shape))
        offset[axis - len(shape)] += value.type.shape[axis]
    return made


def _read_insertion(op: ir.Operation, known: Mapping[ir.Value, Planes], state: PassState) -> Planes | None:
    """Return planes with a part replaced."""
    source, whole = op.operands[0], op.operands[1]
    offsets, strides = list(op.opview.static_offsets), list(op.opview.static_strides)
    is_part = list(source.type.shape[:2]) == list(whole.type.shape[:2]) and all(stride == 1 for stride in strides)
    if len(op.operands) != 2 or source.type.rank != whole.type.rank or not is_part:
        return None
    if whole not in known and np.any(evaluate(whole, state)):
        return None
    first = (offsets[2], offsets[3]) if len(offsets) == 4 else (0, offsets[2])
    around = known.get(whole, Planes(None, ())).without(first, size_of(source.type.shape))
    return None if around is None else around + _planes_of(source, known).placed(first, size_of(whole.type.shape))


_ENDS: dict[str, Callable[[ir.Operation, Mapping[ir.Value, Planes], PassState], Planes | None]] = {
    "linalg.generic": _read_generic,
    _CONCAT: _read_concat,
    _INSERT: _read_insertion,
}


# Bodies, whose numbers are computed in the types that they have there: places are rounded.


def _typed(value: Scalar, type_: ir.Type) -> Scalar:
    if isinstance(value, Planes):
        return value
    dtype = np.dtype(np.int64) if isinstance(type_, ir.IndexType) else numpy_type(type_)
    return None if dtype is None else np.asarray(value).astype(dtype)


def _rule(compute: Callable[..., Scalar]) -> Rule:
    """Return the rule of an op that computes numbers of the types of its operands."""

    def run(op: ir.Operation, *operands: Scalar) -> Scalar | None:
        typed = [_typed(value, operand.type) for value, operand in zip(operands, op.operands, strict=True)]
        return None if any(each is None for each in typed) else _typed(compute(*typed), op.results[0].type)

    return run


def _extract(op: ir.Operation, source: Scalar, *places: Scalar) -> Scalar | None:
    """Return the rows and columns that are read at each point, of all images and channels in their order."""
    if not isinstance(source, Planes):
        return None
    loops, extents = op.parent.results[0].type.shape, op.operands[0].type.shape
    if len(loops) != len(extents) or list(loops[:2]) != list(extents[:2]):
        return None
    numbers = []
    for axis, place in enumerate(places):
        size = loops[axis]
        alone = [size if other == axis else 1 for other in range(len(loops))]
        if place.ndim and place.size > 1 and list(place.shape) != alone:
            return None
        numbers.append(np.broadcast_to(np.asarray(place).reshape(-1), [size]))
        if np.any(numbers[-1] < 0) or np.any(numbers[-1] >= extents[axis]):
            return None
    if not all(np.array_equal(numbers[axis], np.arange(loops[axis])) for axis in (0, 1)):
        return None
    rows = numbers[2] if len(loops) == 4 else np.zeros(1, np.int64)
    return source.gathered(rows, numbers[-1])


def _compare(op: ir.Operation, lhs: Scalar, rhs: Scalar) -> Scalar | None:
    compare = _COMPARISONS.get((op.name, op.attributes["predicate"].value))
    return None if compare is None else compare(np.asarray(lhs), np.asarray(rhs))


_COMPARISONS: dict[tuple[str, int], Callable[..., Scalar]] = {
    **{("arith.cmpi", number): each for number, each in enumerate(
        (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge))},
    **{("arith.cmpf", first + number): each for first in (1, 8) for number, each in enumerate(
        (operator.eq, operator.gt, operator.ge, operator.lt, operator.le, operator.ne))},
}  # fmt: skip


def _select(condition: Scalar, chosen: Scalar, otherwise: Scalar) -> Scalar | None:
    return (
        None
        if any(isinstance(each, Planes) for each in (chosen, otherwise))
        else np.where(condition, chosen, otherwise)
    )


_FUNCTIONS: dict[str, Callable[..., Scalar]] = {
    **dict.fromkeys(("arith.addf", "arith.addi"), operator.add),
    **dict.fromkeys(("arith.subf", "arith.subi"), operator.sub),
    **dict.fromkeys(("arith.mulf", "arith.muli"), operator.mul),
    **dict.fromkeys(("arith.maximumf", "arith.maxnumf", "arith.maxsi"), np.maximum),
    **dict.fromkeys(("arith.minimumf", "arith.minnumf", "arith.minsi"), np.minimum),
    **dict.fromkeys(
        ("arith.index_cast", "arith.sitofp", "arith.extf", "arith.truncf", "arith.extsi", "arith.trunci"), operator.pos
    ),
    "arith.divf": operator.truediv,
    "arith.negf": operator.neg,
    "arith.fptosi": np.trunc,
    "arith.select": _select,
    "math.floor": np.floor,
    "math.ceil": np.ceil,
    "math.roundeven": np.rint,
    "math.absf": np.abs,
    "arith.andi": operator.and_,
    "arith.ori": operator.or_,
}
_BODIES = Interpreter(
    {
        **{name: _rule(compute) for name, compute in _FUNCTIONS.items()},
        **dict.fromkeys(("arith.cmpi", "arith.cmpf"), _compare),
        "linalg.index": lambda op: loop_numbers(op),
        "tensor.extract": _extract,
    },
    ignored=("cf.assert",),
)
