"""Batch norm into convolutions: what scales and shifts their channels changes weights and bias instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import linalg, tensor

from patc.passes.base import Pass, PassState, fail
from patc.passes.constants import constant_name, make_constant, read_constant
from patc.passes.evaluate import (
    NotConstant,
    evaluate,
    evaluate_region,
    is_elementwise,
    spread_operand,
    used_arguments,
)

# Number of leading weight axes that make up the filters: G x F of a grouped convolution.
_FILTER_AXES = {
    "linalg.conv_2d_nchw_fchw": 1,
    "linalg.depthwise_conv_2d_nchw_chw": 1,
    "linalg.conv_2d_ngchw_gfchw": 2,
}
_RESHAPES = ("tensor.collapse_shape", "tensor.expand_shape")
_SUFFIX = ".folded"


@dataclass(frozen=True)
class PatternFoldBatchNorm(Pass):
    """Fold per-channel scaling and shifting after a convolution into its weights and bias.

    Each linalg.generic that follows and computes a * x + b, with constants a and b for each channel, is
    folded: a batch norm, a bias, a layer scale. New weights are a * w and the new bias is a * bias + b,
    computed in float64 and rounded once; weights that are zero stay zero. Parameter "conv1.weight" becomes
    "conv1.weight.folded". The bias is the convolution's initial value, `linalg.broadcast` of F values.

    What follows no convolution stays, and a remark says why, as it does where the convolution's result has
    other users or its weights are not constant.

    Requires: linalg on tensors of static shape.
    Ensures: no per-channel arithmetic with constants is the only user of a convolution with constant weights.
        A second run changes nothing.

    Before:
        %c = linalg.conv_2d_nchw_fchw ins(%x, %w) outs(%zero)
        %s = linalg.generic ins(%c, %mean) { arith.subf }
        %m = linalg.generic ins(%s, %inverse_deviation) { arith.mulf }
        %g = linalg.generic ins(%m, %gamma) { arith.mulf }
        %y = linalg.generic ins(%g, %beta) { arith.addf }
    After:
        %b = linalg.broadcast ins(%folded_bias) outs(%e) dimensions = [0, 2, 3]
        %y = linalg.conv_2d_nchw_fchw ins(%x, %folded_weight) outs(%b)

    Raises:
        PatcError: a folded weight or bias is not finite, as after a negative running variance.
    """

    name: ClassVar[str] = "pattern-fold-batch-norm"

    def run(self, module: ir.Module, state: PassState) -> None:
        with module.context:
            for block in _function_blocks(module):
                convolutions = [op.operation for op in block.operations if op.operation.name in _FILTER_AXES]
                folded = [_fold_into(conv, state) for conv in convolutions]
                if any(folded):
                    _erase_dead(block)
                for op in block.operations:
                    _report_unfolded(op.operation, state)


class Affine:
    """a * x + b, where x is the convolution's result and a and b broadcast to its shape."""

    # Makes numpy leave `array * affine` to this class.
    __array_ufunc__ = None

    def __init__(self, scale: Any, shift: Any) -> None:
        self.scale = scale
        self.shift = shift

    def __add__(self, other: Any) -> Affine:
        return Affine(self.scale, self.shift + _known(other))

    def __sub__(self, other: Any) -> Affine:
        return Affine(self.scale, self.shift - _known(other))

    def __rsub__(self, other: Any) -> Affine:
        return -self + other

    def __mul__(self, other: Any) -> Affine:
        return Affine(self.scale * _known(other), self.shift * _known(other))

    def __truediv__(self, other: Any) -> Affine:
        return Affine(self.scale / _known(other), self.shift / _known(other))

    def __neg__(self) -> Affine:
        return Affine(-self.scale, -self.shift)

    __radd__, __rmul__ = __add__, __mul__


def _known(value: Any) -> Any:
    if isinstance(value, Affine):
        raise NotConstant
    return value


@dataclass(frozen=True)
class _Chain:
    """The per-channel arithmetic after a convolution.

    Attributes:
        end: what the convolution shall compute instead.
        scale, shift: F values each, float64.
    """

    end: ir.Value
    scale: np.ndarray
    shift: np.ndarray


def _fold_into(conv: ir.Operation, state: PassState) -> bool:
    """Fold what follows one convolution; return whether anything did."""
    result = _channels_first_result(conv)
    chain = _read_chain(result, state) if _is_static_f32(result) else None
    if chain is None or chain.end == result:
        return False
    weight, bias = _read_weight(conv.operands[1], state), _read_bias(conv.operands[2], result, state)
    if weight is None or bias is None:
        what = "weights are" if weight is None else "initial value is"
        state.remark(conv, f"what follows is not folded into the convolution: its {what} not constant")
        return False
    filters = weight.shape[: _FILTER_AXES[conv.name]]
    scale = chain.scale.reshape(filters + (1,) * (weight.ndim - len(filters)))
    with np.errstate(all="ignore"):
        # Adding zero turns the -0.0 of a pruned weight times a negative scale into 0.0.
        new_weight = (weight * scale + 0.0).astype(np.float32)
        new_bias = (bias * chain.scale + chain.shift).astype(np.float32)
    _require_finite(conv, new_weight.reshape(len(new_bias), -1), new_bias)
    name = _bias_name(conv)
    with conv.location, ir.InsertionPoint(conv):
        conv.operands[1] = _make_weight(conv.operands[1], new_weight, state)
        conv.operands[2] = _make_init(conv.operands[2].type, result.type, make_constant(new_bias, name, state))
    chain.end.replace_all_uses_with(result)
    return True


# What follows a convolution.


def _channels_first_result(conv: ir.Operation) -> ir.Value:
    """Return the N x F x H x W result of a convolution; a grouped one makes N x G x F x H x W first."""
    result = conv.result
    user = _only_user(result)
    if result.type.rank != 5 or user is None or user.name != "tensor.collapse_shape":
        return result
    batch, groups, filters, *size = result.type.shape
    flat = [batch, groups * filters, *size]
    return user.result if list(user.result.type.shape) == flat else result


def _read_chain(result: ir.Value, state: PassState) -> _Chain:
    channels = result.type.shape[1]
    chain = _Chain(result, np.ones(channels), np.zeros(channels))
    while True:
        user = _only_user(chain.end)
        step = _read_affine(user, chain.end, state) if user is not None else None
        if user is None or step is None:
            return chain
        scale, shift = step
        chain = _Chain(user.result, chain.scale * scale, chain.shift * scale + shift)


def _read_affine(op: ir.Operation, data: ir.Value, state: PassState) -> tuple[np.ndarray, np.ndarray] | None:
    """Return scale and shift of a linalg.generic that computes scale * data + shift for each channel."""
    if not is_elementwise(op) or op.result.type != data.type or data.type.rank != 4:
        return None
    maps = [attr.value for attr in op.attributes["indexing_maps"]]
    arguments: dict[int, Any] = {}
    try:
        for number in used_arguments(op):
            operand = op.operands[number]
            if operand == data and maps[number] == maps[-1]:
                arguments[number] = Affine(1.0, 0.0)
            else:
                arguments[number] = spread_operand(op, number, evaluate(operand, state))
        result = evaluate_region(op, arguments)
    except NotConstant:
        return None
    if not isinstance(result, Affine):
        return None
    scale, shift = (_per_channel(values, data.type.shape[1]) for values in (result.scale, result.shift))
    return None if scale is None or shift is None else (scale, shift)


def _per_channel(values: Any, channels: int) -> np.ndarray | None:
    """Return N x C x H x W values (or what broadcasts to them) as C values, if they vary along C only."""
    array = np.asarray(values)
    array = array.reshape((1,) * (4 - array.ndim) + array.shape)
    # The axes of a broadcast view have stride 0: their elements are the same without looking.
    array = array[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)]
    first = array[:1, :, :1, :1]
    if array.shape != first.shape and not np.array_equal(array, np.broadcast_to(first, array.shape)):
        return None
    return np.broadcast_to(first.reshape(-1), channels)


def _only_user(value: ir.Value) -> ir.Operation | None:
    owners = [use.owner.operation for use in value.uses]
    return owners[0] if owners and all(owner == owners[0] for owner in owners) else None


# Weights and bias.


def _root(value: ir.Value) -> ir.Value:
    """Return what a value was reshaped from."""
    while not isinstance(value.owner, ir.Block) and value.owner.operation.name in _RESHAPES:
        value = value.owner.operation.operands[0]
    return value


def _read_weight(value: ir.Value, state: PassState) -> np.ndarray | None:
    array = read_constant(_root(value), state)
    return None if array is None else array.astype(np.float64).reshape(value.type.shape)


def _read_bias(init: ir.Value, result: ir.Value, state: PassState) -> np.ndarray | None:
    try:
        values = evaluate(init, state)
    except NotConstant:
        return None
    return _per_channel(values.reshape(result.type.shape), result.type.shape[1])


def _require_finite(conv: ir.Operation, weight: np.ndarray, bias: np.ndarray) -> None:
    finite = np.isfinite(weight).all(axis=1) & np.isfinite(bias)
    if not finite.all():
        channel = int(np.argmin(finite))
        values = np.append(weight[channel], bias[channel])
        value = values[~np.isfinite(values)][0]
        raise fail(conv, "finite weights after folding batch norm", f"{value} in channel {channel}")


def _folded_name(name: str | None) -> str | None:
    return None if name is None else name.split(_SUFFIX)[0] + _SUFFIX


def _bias_name(conv: ir.Operation) -> str | None:
    """Return the name of the folded bias: after the bias there is, or else after the weight."""
    init = _root(conv.operands[2])
    if not isinstance(init.owner, ir.Block) and init.owner.operation.name == "linalg.broadcast":
        name = constant_name(init.owner.operation.operands[0])
        if name is not None:
            return _folded_name(name)
    weight = constant_name(_root(conv.operands[1]))
    return None if weight is None else _folded_name(weight.split(_SUFFIX)[0].removesuffix(".weight") + ".bias")


def _make_weight(old: ir.Value, array: np.ndarray, state: PassState) -> ir.Value:
    """Build a constant in the form of the one behind `old`, and the reshapes from there."""
    root = _root(old)
    if old == root:
        return make_constant(array, _folded_name(constant_name(root)), state)
    reshape = old.owner.operation
    source = _make_weight(reshape.operands[0], array.reshape(reshape.operands[0].type.shape), state)
    copy = reshape.clone()
    copy.operands[0] = source
    return copy.result


def _make_init(type_: Any, flat_type: Any, bias: ir.Value) -> ir.Value:
    """Build the initial value of a convolution: `bias` broadcast to N x F x H x W, as torch-mlir does."""
    empty = tensor.empty(flat_type.shape, flat_type.element_type)
    init = linalg.broadcast(bias, outs=[empty], dimensions=[0, 2, 3])
    init = init if isinstance(init, ir.Value) else init.results[0]
    if type_ == flat_type:
        return init
    return tensor.expand_shape(type_, init, [[0], [1, 2], [3], [4]], [], type_.shape)


# What is left.


def _report_unfolded(op: ir.Operation, state: PassState) -> None:
    """Remark on the first op of per-channel arithmetic that is not folded."""
    data = _data_operand(op, state)
    if data is None:
        return
    producer = None if isinstance(data.owner, ir.Block) else data.owner.operation
    if producer is None:
        state.remark(op, "not folded into a convolution: its input is an argument")
        return
    if _data_operand(producer, state) is not None:
        return  # not the first
    source = producer if producer.name not in _RESHAPES else _root(data).owner.operation
    if source.name not in _FILTER_AXES:
        state.remark(op, f"not folded into a convolution: its input is the result of '{source.name}'")
    elif _only_user(data) is None:
        state.remark(op, "not folded into the convolution: its result has other users")


def _data_operand(op: ir.Operation, state: PassState) -> ir.Value | None:
    """Return the operand that an op scales or shifts for each channel with a constant tensor."""
    if not is_elementwise(op) or op.result.type.rank != 4:
        return None
    used = [op.operands[number] for number in used_arguments(op)]
    same = [operand for operand in used if operand.type == op.result.type]
    if len(used) < 2 or len(same) != 1 or all(_elements(value) == 1 for value in used if value != same[0]):
        return None
    return same[0] if _read_affine(op, same[0], state) is not None else None


def _elements(value: ir.Value) -> int:
    return int(np.prod(value.type.shape, dtype=np.int64))


def _is_static_f32(value: ir.Value) -> bool:
    type_ = value.type
    return type_.has_static_shape and type_.rank == 4 and isinstance(type_.element_type, ir.F32Type)


def _function_blocks(module: ir.Module) -> list[ir.Block]:
    functions = [op.operation for op in module.body.operations if op.operation.name == "func.func"]
    return [block for function in functions for block in function.regions[0].blocks]


def _erase_dead(block: ir.Block) -> None:
    for op in reversed([op.operation for op in block.operations]):
        pure = op.name.split(".")[0] in ("arith", "linalg", "pattern", "tensor")
        if pure and all(next(iter(result.uses), None) is None for result in op.results):
            op.erase()
