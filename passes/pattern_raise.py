"""linalg on tensors to the `pattern` dialect: one op a layer, with its epilogue."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import tensor

from patc.diagnostics import PatcError, describe_location
from patc.dialects.attributes import Activation, f32, i64, i64_array
from patc.dialects.pattern import ActivateOp, AddOp, AvgPool2dOp, Conv2dOp, LinearOp, MaxPool2dOp
from patc.passes.base import Pass, PassState
from patc.passes.ir.constants import constant_name, make_constant
from patc.passes.ir.windows import Window
from patc.passes.raising.elementwise import Elementwise, read_elementwise
from patc.passes.raising.epilogue import clamp, fuse_epilogues, has_one_use, is_linear, rebuild_layer
from patc.passes.raising.linalg_layers import (
    NO_WINDOW,
    convolution_window,
    in_shape,
    is_lowest,
    linear_weight,
    pool_window,
    read_f32,
    read_init,
    reshape_sources,
    sum_window,
)

_Raiser = Callable[[Any, PassState], "ir.Value | None"]


@dataclass(frozen=True)
class PatternRaise(Pass):
    """Raise linalg on tensors to `pattern` ops, one a layer.

    Bias, residual addition and relu or clamp go into the convolution or linear layer before them. A residual
    that two convolutions could take goes to the later one; a sum that none can take becomes `pattern.add`, an
    activation that no layer can take `pattern.activate`. Flattening stays `tensor.collapse_shape`.

    Requires: f32 tensors of static shape, NCHW; batch norm folded.
    Ensures: functions hold `pattern` ops, constants and flattening `tensor.collapse_shape` only; each op has
        the location of the layer it came from. A second run changes nothing.

    Before:
        %p = tensor.pad %x low[0, 0, 1, 1] high[0, 0, 1, 1] ...
        %i = linalg.broadcast ins(%b) outs(%e) dimensions = [0, 2, 3]
        %c = linalg.conv_2d_nchw_fchw ins(%p, %w) outs(%i)
        %s = linalg.generic ins(%c, %skip) { arith.addf }
        %y = linalg.generic ins(%s) { arith.cmpf ugt, arith.select }
    After:
        %y = "pattern.conv2d"(%x, %w, %b, %skip) {activation = "relu", pads = array<i64: 1, 1, 1, 1>, ...}
    """

    name: ClassVar[str] = "pattern-raise"

    def run(self, module: ir.Module, state: PassState) -> None:
        functions = [op for op in module.body.operations if op.operation.name == "func.func"]
        functions = [function for function in functions if not function.is_external]
        with module.context:
            for function in functions:
                _raise_layers(function.entry_block, state, _RAISERS)
                _erase_dead(function.entry_block)  # dead users would keep values from being fused
                _raise_layers(function.entry_block, state, _LATE_RAISERS)
                _erase_dead(function.entry_block)
                fuse_epilogues(function.entry_block)
                _erase_dead(function.entry_block)
        _report_left(functions)


def _raise_layers(block: ir.Block, state: PassState, raisers: Mapping[str, _Raiser]) -> None:
    """Replace each linalg op by the pattern op with the same result; the ops in front of it become dead."""
    for op in list(block.operations):
        raiser = raisers.get(op.operation.name)
        if raiser is None or _unsupported_type(op) is not None:
            continue
        with op.location, ir.InsertionPoint(op):
            raised = raiser(op, state)
        if raised is not None:
            op.operation.result.replace_all_uses_with(raised)
            op.operation.erase()


# Raisers, one a linalg op: each returns the value that replaces the op's result, or None where nothing fits.


def _raise_conv2d(op: Any, state: PassState) -> ir.Value | None:
    return _build_conv2d(op, op.operands[1], list(op.result.type.shape), 1, state)


def _raise_depthwise(op: Any, state: PassState) -> ir.Value | None:
    channels, *kernel = op.operands[1].type.shape
    weight = in_shape(op.operands[1], [channels, 1, *kernel], state)
    return weight and _build_conv2d(op, weight, list(op.result.type.shape), channels, state)


def _raise_grouped(op: Any, state: PassState) -> ir.Value | None:
    groups, filters, channels, *kernel = op.operands[1].type.shape
    batch, _, _, *size = op.result.type.shape
    weight = in_shape(op.operands[1], [groups * filters, channels, *kernel], state)
    result = weight and _build_conv2d(op, weight, [batch, groups * filters, *size], groups, state)
    if result is None:
        return None
    # The collapse_shape that comes next undoes this one.
    dimensions, shape = [[0], [1, 2], [3], [4]], list(op.result.type.shape)
    return tensor.expand_shape(op.result.type, result, dimensions, [], shape)


def _build_conv2d(op: Any, weight: ir.Value, shape: list[int], groups: int, state: PassState) -> ir.Value | None:
    """Build the convolution of a linalg one with pads and bias; `shape` is that of the 4-D result."""
    _, group_channels, *kernel = weight.type.shape
    padded_shape = [shape[0], groups * group_channels, *op.operands[0].type.shape[-2:]]
    padded = in_shape(op.operands[0], padded_shape, state)
    init = read_init(op.operands[2], shape)
    source, window = convolution_window(op, padded, kernel, shape) if padded and init else NO_WINDOW
    if source is None or window is None or init is None:
        return None
    return Conv2dOp(
        input=source,
        weight=weight,
        bias=init.bias,
        residual=init.residual,
        result=_tensor(shape, op.result),
        groups=i64(groups),
        activation=Activation().to_attr(),
        **_window_attributes(window),
    ).result


def _raise_matmul(op: Any, state: PassState) -> ir.Value | None:
    weight = linear_weight(op, state)
    init = read_init(op.operands[2], list(op.result.type.shape))
    if weight is None or init is None or init.residual is not None:
        return None
    return LinearOp(
        input=op.operands[0],
        weight=weight,
        bias=init.bias,
        result=op.result.type,
        activation=Activation().to_attr(),
    ).result


def _raise_max_pool(op: Any, state: PassState) -> ir.Value | None:
    source, window = pool_window(op, is_lowest)
    if source is None or window is None or window.is_identity:
        return source
    kernel, geometry = i64_array(window.kernel), _window_attributes(window)
    return MaxPool2dOp(input=source, result=op.result.type, kernel=kernel, **geometry).result


def _raise_undivided_sum(op: Any, state: PassState) -> ir.Value | None:
    """Raise a sum pool, or a sum over height and width, that nothing divides; remove one of single elements."""
    source, window = sum_window(op)
    if source is None or window is None:
        return None
    if window.is_identity:
        return _flat_like(source, op.result)
    return _flat_like(_build_average(source, window, _divided_by(1.0)), op.result)


def _raise_generic(op: Any, state: PassState) -> ir.Value | None:
    meaning = read_elementwise(op, state)
    if meaning is None:
        return None
    activation = clamp(meaning.minimum, meaning.maximum)
    if np.any(meaning.divisor != 1.0):
        return _activate(_raise_average(meaning), activation)
    if meaning.channel_terms:
        return _activate(_raise_bias(op, meaning, state), activation)
    if len(meaning.terms) == 1:
        return _activate(meaning.terms[0], activation)
    if len(meaning.terms) != 2:
        return None
    lhs, rhs = meaning.terms
    return AddOp(lhs=lhs, rhs=rhs, result=op.result.type, activation=activation.to_attr()).result


def _raise_average(meaning: Elementwise) -> ir.Value | None:
    """Raise a sum pool or a sum over height and width, divided by the number of elements."""
    if len(meaning.terms) != 1 or meaning.channel_terms:
        return None
    pool = meaning.terms[0].owner
    source, window = sum_window(pool)
    if source is None or window is None:
        return None
    divisor = _read_divisor(meaning.divisor, window, source.type.shape[2:])
    if divisor is None:
        return None
    with pool.location:
        return _flat_like(_build_average(source, window, divisor), pool.result)


def _build_average(source: ir.Value, window: Window, divisor: dict[str, ir.Attribute]) -> ir.Value:
    """Build average pooling; `divisor` holds the attributes that say what is counted."""
    optional = {name: divisor[name] for name in divisor if name != "count_include_pad"}
    average = AvgPool2dOp(
        input=source,
        result=_tensor([*source.type.shape[:2], *window.result_size(source.type.shape[2:])], source),
        kernel=i64_array(window.kernel),
        count_include_pad=divisor["count_include_pad"],
        **_window_attributes(window),
    )
    for name, attribute in optional.items():
        average.operation.attributes[name] = attribute
    return average.result


def _read_divisor(divisor: np.ndarray, window: Window, size: Sequence[int]) -> dict[str, ir.Attribute] | None:
    """Return the attributes of the average pooling that divides by `divisor`, which is of any shape that broadcasts to
    the positions of the window, or None."""
    if np.allclose(divisor, math.prod(window.kernel)):
        return {"count_include_pad": _bool_attr(True)}
    if _same_everywhere(divisor, window.taps_inside(size)):
        return {"count_include_pad": _bool_attr(False)}
    _, _, bottom, right = window.pads
    for uncounted in itertools.product(range(bottom + 1), range(right + 1)):
        if _same_everywhere(divisor, window.divisors(size, uncounted)):
            return {"count_include_pad": _bool_attr(True), "uncounted_pads": i64_array(uncounted)}
    return _divided_by(float(divisor.flat[0])) if np.all(divisor == divisor.flat[0]) else None


def _divided_by(number: float) -> dict[str, ir.Attribute]:
    return {"count_include_pad": _bool_attr(True), "divisor": f32(number)}


def _raise_bias(op: Any, meaning: Elementwise, state: PassState) -> ir.Value | None:
    """Give a sum with one value a channel to the layer before it, or to a second one where others read its result."""
    if len(meaning.terms) != 1 or len(meaning.channel_terms) != 1:
        return None
    layer = meaning.terms[0].owner
    takes_bias = isinstance(layer, (Conv2dOp, LinearOp)) and is_linear(layer)
    channels = op.result.type.shape[1]
    bias = in_shape(meaning.channel_terms[0], [channels], state) if takes_bias else None
    if bias is None:
        return None
    if layer.bias is not None:
        arrays = [read_f32(value, state) for value in (layer.bias, bias)]
        if arrays[0] is None or arrays[1] is None:
            return None
        bias = make_constant(arrays[0] + arrays[1], constant_name(layer.bias), state)
    if not has_one_use(layer.result):
        layer = layer.operation.clone().opview
    return rebuild_layer(layer, bias=bias)


def _raise_reshape(op: Any, state: PassState) -> ir.Value | None:
    """Remove a reshape that undoes another; make one flattening out of several."""
    sources = reshape_sources(op.result)
    shape = list(op.result.type.shape)
    for source in sources:
        if list(source.type.shape) == shape:
            return source
    root = sources[-1]
    flattens = len(shape) == 2 and root.type.rank == 4 and root.type.shape[0] == shape[0]
    if not flattens or len(sources) == 1:
        return None
    return _flat_like(root, op.result)


_RAISERS: dict[str, _Raiser] = {
    "linalg.conv_2d_nchw_fchw": _raise_conv2d,
    "linalg.conv_2d_ngchw_gfchw": _raise_grouped,
    "linalg.depthwise_conv_2d_nchw_chw": _raise_depthwise,
    "linalg.matmul": _raise_matmul,
    "linalg.pooling_nchw_max": _raise_max_pool,
    "linalg.generic": _raise_generic,
    "tensor.collapse_shape": _raise_reshape,
    "tensor.expand_shape": _raise_reshape,
}
# For what is left when everything else is raised.
_LATE_RAISERS: dict[str, _Raiser] = dict.fromkeys(("linalg.pooling_nchw_sum", "linalg.generic"), _raise_undivided_sum)


# Types and attributes.


def _activate(value: ir.Value | None, activation: Activation) -> ir.Value | None:
    if value is None or activation == Activation():
        return value
    return ActivateOp(input=value, result=value.type, activation=activation.to_attr()).result


def _tensor(shape: Sequence[int], like: ir.Value) -> ir.Type:
    return ir.RankedTensorType.get(list(shape), like.type.element_type)


def _flat_like(value: ir.Value, result: ir.Value) -> ir.Value:
    """Return the NCHW `value` as it is where `result` has rank 4, flattened where it has rank 2."""
    return value if result.type.rank == 4 else tensor.collapse_shape(result.type, value, [[0], [1, 2, 3]])


def _window_attributes(window: Window) -> dict[str, ir.Attribute]:
    return {name: i64_array(getattr(window, name)) for name in ("strides", "pads", "dilations")}


def _bool_attr(value: bool) -> ir.Attribute:
    """Return an i1 attribute; the op builders take a false `ir.BoolAttr`, being falsy, for a missing one."""
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(1), int(value))


def _same_everywhere(divisor: np.ndarray, counts: np.ndarray) -> bool:
    return np.shape(divisor)[-2:] == counts.shape and np.allclose(divisor, counts)


# What is left.


def _unsupported_type(op: Any) -> ir.Type | None:
    """Return the type that keeps an op from being raised: anything but an f32 tensor of static shape."""
    for value in [*op.operation.results, *op.operation.operands]:
        is_f32 = isinstance(value.type, ir.RankedTensorType) and isinstance(value.type.element_type, ir.F32Type)
        if not is_f32 or not value.type.has_static_shape:
            return value.type
    return None


def _erase_dead(block: ir.Block) -> None:
    for op in reversed(list(block.operations)):
        operation = op.operation
        is_pure = operation.name.split(".")[0] in ("pattern", "linalg", "tensor", "arith")
        if is_pure and not any(list(result.uses) for result in operation.results):
            operation.erase()


# Destinations and their initial values: of no interest beside the op that they are for.
_SCAFFOLDING = ("tensor.empty", "linalg.fill")


def _report_left(functions: Sequence[Any]) -> None:
    """Raise one error that names every op that no raiser took."""
    left = [op for function in functions for op in function.entry_block.operations if not _may_stay(op)]
    left = [op for op in left if op.operation.name not in _SCAFFOLDING] or left
    if not left:
        return
    places: dict[str, list[str]] = {}
    for op in left:
        places.setdefault(_describe(op), []).append(describe_location(op.location))
    listed = ", ".join(f"{what}{_count(where)}{_list_places(where)}" for what, where in places.items())
    raise PatcError(f"cannot raise: {listed}", left[0].location)


def _may_stay(op: Any) -> bool:
    name = op.operation.name
    if name == "tensor.collapse_shape":
        source, result = (list(value.type.shape) for value in (op.operands[0], op.result))
        return len(source) == 4 and len(result) == 2 and source[0] == result[0]
    return name.startswith("pattern.") or name in ("arith.constant", "func.return")


def _describe(op: Any) -> str:
    """Return the name of an op, and the type that keeps a layer from being raised."""
    name = op.operation.name
    is_layer = name in (*_RAISERS, *_LATE_RAISERS) and name.startswith("linalg.") and name != "linalg.generic"
    wrong = _unsupported_type(op) if is_layer else None
    return name if wrong is None else f"{name} of {wrong}"


def _count(places: list[str]) -> str:
    return f" x{len(places)}" if len(places) > 1 else ""


def _list_places(places: list[str]) -> str:
    distinct = [place for place in dict.fromkeys(places) if place]
    return f" ({', '.join(distinct)})" if distinct else ""
