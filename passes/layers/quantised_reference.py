"""What layers on quantised activations mean, in linalg on integers and f32: the arithmetic of docs/int8.md.

Integers are i32 without their zero point, so that padding is 0. A quantised tensor becomes one of i8 where
`convert-pattern-to-linalg` gives all values such types; until then casts stand between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import arith, builtin, linalg, math, tensor

from patc.dialects.attributes import Activation
from patc.dialects.quantised import Quantisation
from patc.passes.base import PassState
from patc.passes.ir.constants import make_constant
from patc.passes.ir.quantised import Rounding, mean_factor, only_limits, operand_factor, sum_factors, unit_of
from patc.passes.ir.windows import Window
from patc.passes.layers import reference


def convolve(op: Any, state: PassState) -> ir.Value:
    """Build a convolution."""
    shape, window, i32 = list(op.result.type.shape), Window.of(op), _i32()
    given = reference.pad(integers(op.input), window.pads, _constant(i32, 0))
    weight, first = reference.elementwise([op.weight], lambda x: arith.extsi(i32, x), i32), _first(op, shape, [0, 2, 3])
    geometry = {"strides": list(window.strides), "dilations": list(window.dilations)}
    groups = op.groups.value
    if groups == 1:
        sums = linalg.conv_2d_nchw_fchw(given, weight, outs=[first], **geometry)
    else:
        parts = [reference.split(value, axis, groups) for value, axis in ((given, 1), (weight, 0), (first, 1))]
        grouped = linalg.conv_2d_ngchw_gfchw(parts[0], parts[1], outs=[parts[2]], **geometry)
        sums = tensor.collapse_shape(first.type, grouped, reference.split_dimensions(1))
    return _finish(op, sums, [0, 2, 3], state)


def multiply(op: Any, state: PassState) -> ir.Value:
    """Build a fully connected layer."""
    i32 = _i32()
    weight = reference.elementwise([op.weight], lambda x: arith.extsi(i32, x), i32)
    columns = tensor.empty(list(reversed(weight.type.shape)), i32)
    columns = linalg.transpose(weight, outs=[columns], permutation=[1, 0]).result[0]
    sums = linalg.matmul(integers(op.input), columns, outs=[_first(op, list(op.result.type.shape), [0])])
    return _finish(op, sums, [0], state)


def add(op: Any, state: PassState) -> ir.Value:
    """Build the sum of an op's operands, of which each may be quantised."""
    terms = [_term(op, value) for value in op.operands]
    total = terms[0] if len(terms) == 1 else reference.elementwise(terms, arith.addf)
    return _rounded(op, total, state)


def largest(op: Any) -> ir.Value:
    """Build max pooling, whose result stands for the same as the input."""
    window, lowest = Window.of(op), _constant(_i32(), -512)
    made = _pool(op, linalg.pooling_nchw_max, reference.pad(integers(op.input), window.pads, lowest), lowest)
    given = Quantisation.of(op.input.type)
    assert given is not None, "integers are read"
    padding = _constant(_i32(), given.lowest - given.zero_point)  # of windows on nothing else
    return _stored(reference.elementwise([made], lambda x: arith.maxsi(x, padding)), given)


def mean(op: Any, state: PassState) -> ir.Value:
    """Build average pooling with one divisor."""
    zero, f32 = _constant(_i32(), 0), ir.F32Type.get()
    sums = _pool(op, linalg.pooling_nchw_sum, reference.pad(integers(op.input), Window.of(op).pads, zero), zero)
    factor = float(mean_factor(op))
    value = reference.elementwise([sums], lambda x: arith.mulf(arith.sitofp(f32, x), _constant(f32, factor)), f32)
    return _rounded(op, value, state)


def _pool(op: Any, pooling: Callable[..., ir.Value], padded: ir.Value, first: ir.Value) -> ir.Value:
    window, i32 = Window.of(op), _i32()
    init = linalg.fill(first, outs=[tensor.empty(list(op.result.type.shape), i32)])
    extent = tensor.empty(list(window.kernel), i32)
    return pooling(padded, extent, outs=[init], strides=list(window.strides), dilations=list(window.dilations))


def integers(value: ir.Value) -> ir.Value:
    """Return a quantised tensor as integers without their zero point."""
    given, i32 = Quantisation.of(value.type), _i32()
    assert given is not None, "others are no integers"
    stored = ir.RankedTensorType.get(value.type.shape, ir.IntegerType.get_signless(8))
    bytes_ = builtin.unrealized_conversion_cast([stored], [value])
    extend = arith.extsi if given.signed else arith.extui

    def number(x: ir.Value) -> ir.Value:
        return arith.subi(extend(i32, x), _constant(i32, given.zero_point))

    return reference.elementwise([bytes_], number, i32)


def as_floats(value: ir.Value) -> ir.Value:
    """Return the integers of a quantised tensor as floats, in which they are exact."""
    f32 = ir.F32Type.get()
    return reference.elementwise([integers(value)], lambda x: arith.sitofp(f32, x), f32)


def from_floats(op: Any, value: ir.Value) -> ir.Value:
    """Return such floats as the result of an op."""
    result, i32 = Quantisation.of(op.result.type), _i32()
    assert result is not None, "integers are made"
    return _stored(reference.elementwise([value], lambda x: arith.fptosi(i32, x), i32), result)


def as_integers(value: ir.Value, given: Quantisation) -> ir.Value:
    """Return the real numbers of what numbers are as integers, without any integer."""
    f32 = ir.F32Type.get()

    def rounded(x: ir.Value) -> ir.Value:
        scale, low, high = (
            _constant(f32, end)
            for end in (given.scale, given.lowest - given.zero_point, given.highest - given.zero_point)
        )
        number = arith.minimumf(arith.maximumf(math.roundeven(arith.divf(x, scale)), low), high)
        return arith.mulf(number, scale)

    return reference.elementwise([value], rounded)


def _term(op: Any, value: ir.Value) -> ir.Value:
    """Return an operand in units of what is added up."""
    f32 = ir.F32Type.get()
    if Quantisation.of(value.type) is None:
        unit = float(unit_of(op))
        return reference.elementwise([value], lambda x: arith.divf(x, _constant(f32, unit)))
    factor = float(operand_factor(op, value))

    def scaled(x: ir.Value) -> ir.Value:
        return arith.mulf(arith.sitofp(f32, x), _constant(f32, factor))

    return reference.elementwise([integers(value)], scaled, f32)


def _first(op: Any, shape: list[int], dimensions: list[int]) -> ir.Value:
    """Return what sums begin with."""
    i32 = _i32()
    init = tensor.empty(shape, i32)
    if op.bias is None:
        return linalg.fill(_constant(i32, 0), outs=[init])
    return linalg.broadcast(op.bias, outs=[init], dimensions=dimensions).result[0]


def _finish(op: Any, sums: ir.Value, dimensions: list[int], state: PassState) -> ir.Value:
    """Return what the sums of a layer with weights become."""
    f32, shape = ir.F32Type.get(), list(sums.type.shape)
    factors = make_constant(sum_factors(op), None, state)
    spread = linalg.broadcast(factors, outs=[tensor.empty(shape, f32)], dimensions=dimensions).result[0]
    value = reference.elementwise([sums, spread], lambda x, y: arith.mulf(arith.sitofp(f32, x), y), f32)
    if Quantisation.of(op.result.type) is None:
        return reference.finish(op, value, op.residual, state)
    if op.residual is not None:
        value = reference.elementwise([value, _term(op, op.residual)], arith.addf)
    return _rounded(op, value, state)


def _rounded(op: Any, value: ir.Value, state: PassState) -> ir.Value:
    """Return the result of an op from floats in units of what is added up."""
    result, activation, f32 = Quantisation.of(op.result.type), Activation.of(op), ir.F32Type.get()
    if result is None:
        return value
    rounding = Rounding.of(result, activation)
    if not only_limits(activation):
        last = float(rounding.last_factor)
        activated = reference.activate(op, value, state)
        value = reference.elementwise([activated], lambda x: arith.mulf(x, _constant(f32, last)))

    def integer(x: ir.Value) -> ir.Value:
        low, high = (_constant(f32, float(end)) for end in (rounding.lowest, rounding.highest))
        return arith.fptosi(_i32(), math.roundeven(arith.minimumf(arith.maximumf(x, low), high)))

    return _stored(reference.elementwise([value], integer, _i32()), result)


def _stored(value: ir.Value, result: Quantisation) -> ir.Value:
    """Return integers without their zero point as a quantised tensor."""
    byte = ir.IntegerType.get_signless(8)

    def stored(x: ir.Value) -> ir.Value:
        return arith.trunci(byte, arith.addi(x, _constant(_i32(), result.zero_point)))

    bytes_ = reference.elementwise([value], stored, byte)
    return builtin.unrealized_conversion_cast([ir.RankedTensorType.get(value.type.shape, result.to_type())], [bytes_])


def _i32() -> ir.Type:
    return ir.IntegerType.get_signless(32)


def _constant(type_: ir.Type, value: float) -> ir.Value:
    attr = ir.FloatAttr.get(type_, value) if isinstance(type_, ir.FloatType) else ir.IntegerAttr.get(type_, int(value))
    return arith.ConstantOp(type_, attr).result
