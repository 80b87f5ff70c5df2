"""Builders of the linalg ops that `LayerKind.reference` is made of; each inserts at the insertion point.

Ops are computed in the type that sums of their elements are made in: those on f16 in f32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

from patc.dialects.attributes import Activation
from patc.dialects.joins import Join
from patc.passes.activations.formulas import InLinalg, Term
from patc.passes.activations.registry import kind_of
from patc.passes.base import PassState
from patc.passes.functions.arithmetic import Arithmetic
from patc.passes.functions.joins import JOINS
from patc.passes.ir.constants import make_constant
from patc.passes.ir.elements import accumulator_type


def activate(op: Any, value: ir.Value, state: PassState) -> ir.Value:
    """Apply the activation of an op."""
    activation = Activation.of(op)
    shape = value.type.shape
    others = [axis for axis in range(len(shape)) if axis != 1]
    arrays = [make_constant(np.array(array, np.float32), None, state) for array in activation.arrays]
    return apply(activation, value, *(broadcast(array, shape, others, op) for array in arrays))


def apply(activation: Activation, value: ir.Value, *arrays: ir.Value) -> ir.Value:
    """Apply an activation.

    Args:
        arrays: the constants that are one number a channel, in the form of the value.
    """
    if activation.kind == "none":
        return value

    def compute(x: ir.Value, *numbers: ir.Value) -> ir.Value:
        a = Arithmetic(x.type)
        known = (Term(a, number) for number in numbers)
        constants = tuple(next(known) if isinstance(each, tuple) else each for each in activation.constants)
        result: Term = kind_of(activation).compute(InLinalg(), Term(a, x), constants)
        return result.value

    return elementwise([value, *arrays], compute)


def finish(op: Any, value: ir.Value, residual: ir.Value | None, state: PassState) -> ir.Value:
    """Apply the activation of an op to a value that a residual joins, if there is one."""
    join = Join.of(op)

    def joined(value: ir.Value) -> ir.Value:
        return value if residual is None else elementwise([value, widen(residual)], JOINS[join.function])

    return joined(activate(op, value, state)) if join.is_last else activate(op, joined(value), state)


def elementwise(
    inputs: Sequence[ir.Value], compute: Callable[..., ir.Value], element: ir.Type | None = None
) -> ir.Value:
    """Build a linalg.generic over the first input's elements; the last dimensions of the others follow it, but for
    those of one element.

    Args:
        element: of the result, that of the first input by default.
    """
    shape, element = inputs[0].type.shape, element or inputs[0].type.element_type
    result_type, rank = ir.RankedTensorType.get(shape, element), len(shape)
    inits = [tensor.empty(result_type.shape, element)]
    maps = [_map_to(value.type.shape, shape) for value in (*inputs, *inits)]
    parallel = ir.Attribute.parse("#linalg.iterator_type<parallel>")
    op = linalg.GenericOp(
        [result_type],
        inputs,
        inits,
        ir.ArrayAttr.get([ir.AffineMapAttr.get(map_) for map_ in maps]),
        ir.ArrayAttr.get([parallel] * rank),
    )
    body = op.regions[0].blocks.append(*(value.type.element_type for value in inputs), element)
    with ir.InsertionPoint(body):
        linalg.yield_([compute(*body.arguments[: len(inputs)])])
    return op.result


def _map_to(shape: Sequence[int], loops: Sequence[int]) -> ir.AffineMap:
    """Return where a tensor of some shape is read in loops over more dimensions, or over more elements of them."""
    first = len(loops) - len(shape)
    places = [
        ir.AffineExpr.get_dim(first + axis) if size == loops[first + axis] else ir.AffineExpr.get_constant(0)
        for axis, size in enumerate(shape)
    ]
    return ir.AffineMap.get(len(loops), 0, places)


def widen(value: ir.Value) -> ir.Value:
    """Return a tensor in the type that sums of its elements are made in."""
    return convert(value, accumulator_type(value.type))


def convert(value: ir.Value, element: ir.Type) -> ir.Value:
    """Return a tensor with its elements in another floating-point type."""
    given = value.type.element_type
    if given == element:
        return value
    convert = arith.extf if given.width < element.width else arith.truncf
    return elementwise([value], lambda x: convert(element, x), element)


def replace_results(op: Any, computed: ir.Value | Sequence[ir.Value]) -> None:
    """Put what `LayerKind.reference` made in the place of an op's results, in their types."""
    values = [computed] if isinstance(computed, ir.Value) else computed
    for result, value in zip(op.results, values, strict=True):
        result.replace_all_uses_with(convert(value, result.type.element_type))


def transposed(value: ir.Value, op: Any) -> ir.Value:
    """Return a matrix with its rows as columns, in the type that an op is computed in."""
    destination = empty(reversed(value.type.shape), op)
    return linalg.transpose(widen(value), outs=[destination], permutation=[1, 0]).result[0]


def pad(value: ir.Value, pads: Sequence[int], fill: ir.Value) -> ir.Value:
    """Put `fill` around an NCHW tensor; `pads` is (top, left, bottom, right)."""
    if not any(pads):
        return value
    top, left, bottom, right = pads
    batch, channels, height, width = value.type.shape
    shape = [batch, channels, top + height + bottom, left + width + right]
    type_ = ir.RankedTensorType.get(shape, value.type.element_type)
    op = tensor.PadOp(type_, value, [], [], [0, 0, top, left], [0, 0, bottom, right])
    body = op.regions[0].blocks.append(*[ir.IndexType.get()] * 4)
    with ir.InsertionPoint(body):
        tensor.yield_(fill)
    return op.result


def split(value: ir.Value, axis: int, groups: int) -> ir.Value:
    """Split one dimension into groups x the rest."""
    shape = list(value.type.shape)
    shape[axis : axis + 1] = [groups, shape[axis] // groups]
    type_ = ir.RankedTensorType.get(shape, value.type.element_type)
    return tensor.expand_shape(type_, value, split_dimensions(axis), [], shape)


def split_dimensions(axis: int) -> list[list[int]]:
    """Return the groups of dimensions that `split` made of each dimension of a rank 4 tensor."""
    return [[axis, axis + 1] if i == axis else [i + (i > axis)] for i in range(4)]


def computed_in(op: Any) -> ir.Type:
    """Return the element type that an op is computed in, which may be wider than that of its result."""
    return accumulator_type(op.result.type)


def scalar(value: float, op: Any) -> ir.Value:
    """Return a number in the type that an op is computed in."""
    element = computed_in(op)
    return arith.ConstantOp(element, ir.FloatAttr.get(element, value)).result


def empty(shape: Iterable[int], op: Any) -> ir.Value:
    """Return a tensor without values, of the type that an op is computed in."""
    return tensor.empty(list(shape), computed_in(op))


def zeros(shape: Sequence[int], op: Any) -> ir.Value:
    """Return a tensor of zeros, of the type that an op is computed in."""
    return linalg.fill(scalar(0.0, op), outs=[empty(shape, op)])


def broadcast(value: ir.Value, shape: Sequence[int], dimensions: list[int], op: Any) -> ir.Value:
    """Repeat a tensor along `dimensions` of `shape`."""
    return linalg.broadcast(widen(value), outs=[empty(shape, op)], dimensions=dimensions).result[0]
