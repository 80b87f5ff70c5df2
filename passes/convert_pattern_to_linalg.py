"""The reference lowering: what a `pattern` module means, in plain linalg on tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

from patc.dialects.attributes import Activation, Library, int_array
from patc.dialects.pattern import LayoutAttr, ParameterOp
from patc.passes.base import Pass, PassState, fail
from patc.passes.formats.fkw import Fkw, decode, find_violation
from patc.passes.ir.constants import constant_name, make_constant, read_constant
from patc.passes.ir.windows import average_divisors


@dataclass(frozen=True)
class ConvertPatternToLinalg(Pass):
    """Decode `pattern` ops of any stage before specialise into linalg ops that compute the same numbers.

    Requires: the arrays of `pattern.sparse_conv2d` are constants.
    Ensures: no `pattern` op but `pattern.parameter`, and no `#pattern.layout` in any type or signature. FKW
        arrays become one dense weight, in the parameter store if the values were there. Ops on f16 compute in f32
        and round their result.

    Before:
        %y = "pattern.conv2d"(%x, %w, %b) {activation = "relu", pads = array<i64: 1, 1, 1, 1>, ...}
    After:
        %p = tensor.pad %x low[0, 0, 1, 1] high[0, 0, 1, 1] ...
        %i = linalg.broadcast ins(%b) outs(%e) dimensions = [0, 2, 3]
        %c = linalg.conv_2d_nchw_fchw ins(%p, %w) outs(%i)
        %y = linalg.generic ins(%c) { arith.maximumf }
    """

    name: ClassVar[str] = "convert-pattern-to-linalg"

    def run(self, module: ir.Module, state: PassState) -> None:
        with module.context:
            _strip_layouts(module)
            for op in _pattern_ops(module):
                with op.location, ir.InsertionPoint(op):
                    lowered = _convert(_LOWERINGS[op.operation.name](op, state), op.result.type.element_type)
                op.result.replace_all_uses_with(lowered)
                _erase_with_dead_constants(op)


# Lowerings, one an op: each builds linalg at the insertion point and returns the value to use instead.


def _lower_conv2d(op: Any, state: PassState) -> ir.Value:
    return _convolve(op, op.weight, op.groups.value)


def _lower_sparse_conv2d(op: Any, state: PassState) -> ir.Value:
    library, channels = Library.from_attr(op.library), op.input.type.shape[1]
    arrays = Fkw(**{field.name: _constant_operand(op, field.name, state) for field in fields(Fkw)})
    if (violation := find_violation(arrays, channels, library.depth)) is not None:
        raise fail(op, *violation)
    name = constant_name(op.values)
    dense = decode(arrays, library.masks, library.kernel, channels)
    weight = make_constant(dense, None if name is None else f"{name}.dense", state)
    return _convolve(op, weight, groups=1)


def _lower_linear(op: Any, state: PassState) -> ir.Value:
    destination = _empty(reversed(op.weight.type.shape), op)
    transposed = linalg.transpose(_widen(op.weight), outs=[destination], permutation=[1, 0]).result[0]
    shape = list(op.result.type.shape)
    init = _zeros(shape, op) if op.bias is None else _broadcast(op.bias, shape, [0], op)
    return _activate(op, linalg.matmul(_widen(op.input), transposed, outs=[init]))


def _lower_max_pool2d(op: Any, state: PassState) -> ir.Value:
    lowest = _scalar(-np.inf, op)
    return _pool(op, linalg.pooling_nchw_max, lowest)


def _lower_avg_pool2d(op: Any, state: PassState) -> ir.Value:
    total = _pool(op, linalg.pooling_nchw_sum, _scalar(0.0, op))
    divisors = average_divisors(op)
    if np.all(divisors == divisors[0, 0]):
        divisor = _scalar(float(divisors[0, 0]), op)
        return _elementwise([total], lambda value: arith.divf(value, divisor))
    return _elementwise([total, make_constant(divisors.astype(np.float32), None, state)], arith.divf)


def _lower_add(op: Any, state: PassState) -> ir.Value:
    return _activate(op, _elementwise([_widen(op.lhs), _widen(op.rhs)], arith.addf))


def _lower_activate(op: Any, state: PassState) -> ir.Value:
    return _activate(op, _widen(op.input))


def _lower_relayout(op: Any, state: PassState) -> ir.Value:
    return op.input


_LOWERINGS: dict[str, Callable[[Any, PassState], ir.Value]] = {
    "pattern.conv2d": _lower_conv2d,
    "pattern.sparse_conv2d": _lower_sparse_conv2d,
    "pattern.linear": _lower_linear,
    "pattern.max_pool2d": _lower_max_pool2d,
    "pattern.avg_pool2d": _lower_avg_pool2d,
    "pattern.add": _lower_add,
    "pattern.activate": _lower_activate,
    "pattern.relayout": _lower_relayout,
}

# What the lowerings share.


def _convolve(op: Any, weight: ir.Value, groups: int) -> ir.Value:
    """Build pad, bias, convolution, residual and activation of a convolution."""
    shape = list(op.result.type.shape)
    padded, weight = _pad(_widen(op.input), int_array(op.pads), _scalar(0.0, op)), _widen(weight)
    init = _zeros(shape, op) if op.bias is None else _broadcast(op.bias, shape, [0, 2, 3], op)
    geometry = {"strides": list(op.strides), "dilations": list(op.dilations)}
    if groups == 1:
        result = linalg.conv_2d_nchw_fchw(padded, weight, outs=[init], **geometry)
    else:
        split = [_split(value, axis, groups) for value, axis in ((padded, 1), (weight, 0), (init, 1))]
        grouped = linalg.conv_2d_ngchw_gfchw(split[0], split[1], outs=[split[2]], **geometry)
        result = tensor.collapse_shape(init.type, grouped, _split_dimensions(1))
    if op.residual is not None:
        result = _elementwise([result, _widen(op.residual)], arith.addf)
    return _activate(op, result)


def _pool(op: Any, pooling: Callable[..., ir.Value], fill: ir.Value) -> ir.Value:
    padded = _pad(_widen(op.input), int_array(op.pads), fill)
    init = linalg.fill(fill, outs=[_empty(op.result.type.shape, op)])
    window = _empty(list(op.kernel), op)
    return pooling(padded, window, outs=[init], strides=list(op.strides), dilations=list(op.dilations))


def _activate(op: Any, value: ir.Value) -> ir.Value:
    activation = Activation.from_attr(op.activation)
    if activation.kind == "none":
        return value
    minimum = _scalar(activation.minimum, op)
    if activation.kind == "relu":
        return _elementwise([value], lambda x: arith.maximumf(x, minimum))
    maximum = _scalar(activation.maximum, op)
    return _elementwise([value], lambda x: arith.minimumf(arith.maximumf(x, minimum), maximum))


def _elementwise(
    inputs: Sequence[ir.Value], compute: Callable[..., ir.Value], element: ir.Type | None = None
) -> ir.Value:
    """Build a linalg.generic over the first input's elements; the last dimensions of the others follow it.

    Args:
        element: of the result, that of the first input by default.
    """
    shape, given = inputs[0].type.shape, inputs[0].type.element_type
    element = element or given
    result_type, rank = ir.RankedTensorType.get(shape, element), len(shape)
    dims = [ir.AffineExpr.get_dim(i) for i in range(rank)]
    inits = [tensor.empty(result_type.shape, element)]
    maps = [ir.AffineMap.get(rank, 0, dims[rank - value.type.rank :]) for value in (*inputs, *inits)]
    parallel = ir.Attribute.parse("#linalg.iterator_type<parallel>")
    op = linalg.GenericOp(
        [result_type],
        inputs,
        inits,
        ir.ArrayAttr.get([ir.AffineMapAttr.get(map_) for map_ in maps]),
        ir.ArrayAttr.get([parallel] * rank),
    )
    body = op.regions[0].blocks.append(*[given] * len(inputs), element)
    with ir.InsertionPoint(body):
        linalg.yield_([compute(*body.arguments[: len(inputs)])])
    return op.result


def _widen(value: ir.Value) -> ir.Value:
    """Return a tensor in f32 if it is of a narrower type."""
    is_narrow = isinstance(value.type.element_type, ir.F16Type)
    return _convert(value, ir.F32Type.get()) if is_narrow else value


def _convert(value: ir.Value, element: ir.Type) -> ir.Value:
    """Return a tensor with its elements in another floating-point type."""
    given = value.type.element_type
    if given == element:
        return value
    convert = arith.extf if given.width < element.width else arith.truncf
    return _elementwise([value], lambda x: convert(element, x), element)


def _pad(value: ir.Value, pads: Sequence[int], fill: ir.Value) -> ir.Value:
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


def _split(value: ir.Value, axis: int, groups: int) -> ir.Value:
    """Split one dimension into groups x the rest."""
    shape = list(value.type.shape)
    shape[axis : axis + 1] = [groups, shape[axis] // groups]
    type_ = ir.RankedTensorType.get(shape, value.type.element_type)
    return tensor.expand_shape(type_, value, _split_dimensions(axis), [], shape)


def _split_dimensions(axis: int) -> list[list[int]]:
    return [[axis, axis + 1] if i == axis else [i + (i > axis)] for i in range(4)]


def _computed_in(op: Any) -> ir.Type:
    """Return the element type that an op is computed in: that of its result, but f32 where that is narrower."""
    element = op.result.type.element_type
    return ir.F32Type.get() if isinstance(element, ir.F16Type) else element


def _scalar(value: float, op: Any) -> ir.Value:
    element = _computed_in(op)
    return arith.ConstantOp(element, ir.FloatAttr.get(element, value)).result


def _empty(shape: Iterable[int], op: Any) -> ir.Value:
    return tensor.empty(list(shape), _computed_in(op))


def _zeros(shape: Sequence[int], op: Any) -> ir.Value:
    return linalg.fill(_scalar(0.0, op), outs=[_empty(shape, op)])


def _broadcast(value: ir.Value, shape: Sequence[int], dimensions: list[int], op: Any) -> ir.Value:
    return linalg.broadcast(_widen(value), outs=[_empty(shape, op)], dimensions=dimensions).result[0]


def _constant_operand(op: Any, name: str, state: PassState) -> np.ndarray:
    array = read_constant(getattr(op, name), state)
    if array is None:
        raise fail(op, f"'{name}' to be a constant", "a value computed at run time")
    return array


def _pattern_ops(module: ir.Module) -> list[Any]:
    """Return the ops to lower, in the order of the text."""
    found: list[Any] = []

    def visit(operation: ir.Operation) -> ir.WalkResult:
        if operation.name in _LOWERINGS:
            found.append(operation.opview)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit, ir.WalkOrder.PRE_ORDER)
    return found


def _erase_with_dead_constants(op: Any) -> None:
    operands = list(op.operation.operands)
    op.operation.erase()
    for value in operands:
        owner = value.owner
        if isinstance(owner, ir.Block):
            continue
        is_constant = owner.operation.name in (ParameterOp.OPERATION_NAME, "arith.constant")
        if is_constant and not list(value.uses):
            owner.operation.erase()


def _strip_layouts(module: ir.Module) -> None:
    """Remove `#pattern.layout` from the types of all values and function signatures."""

    def visit(operation: ir.Operation) -> ir.WalkResult:
        blocks = [block for region in operation.regions for block in region.blocks]
        arguments = [argument for block in blocks for argument in block.arguments]
        for value in [*operation.results, *arguments]:
            value.set_type(_without_layout(value.type))
        if operation.name == "func.func":
            signature = operation.attributes["function_type"].value
            plain = [[_without_layout(t) for t in types] for types in (signature.inputs, signature.results)]
            operation.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(*plain))
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)


def _without_layout(type_: ir.Type) -> ir.Type:
    if isinstance(type_, ir.RankedTensorType) and isinstance(type_.encoding, LayoutAttr):
        return ir.RankedTensorType.get(type_.shape, type_.element_type)
    return type_
