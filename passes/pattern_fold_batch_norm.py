"""Batch norm into convolutions: what scales and shifts their channels changes weights and bias instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import linalg, tensor

from patc.diagnostics import layer_name
from patc.passes.base import Pass, PassState, fail
from patc.passes.ir.bodies import is_elementwise, used_arguments
from patc.passes.ir.constants import constant_name, make_constant, read_constant
from patc.passes.ir.functions import defined_functions, erase_dead
from patc.passes.raising.channel_affine import Chain, only_user, per_channel, read_affine, read_chain
from patc.passes.raising.evaluate import NotConstant, evaluate
from patc.passes.raising.functions import find_activations
from patc.passes.raising.linalg_layers import reshape_sources
from patc.passes.raising.lines import normalize_convolutions

# Number of leading weight axes that make up the filters: G x F of a grouped convolution.
_FILTER_AXES = {
    "linalg.conv_2d_nchw_fchw": 1,
    "linalg.depthwise_conv_2d_nchw_chw": 1,
    "linalg.conv_2d_ngchw_gfchw": 2,
}
_SUFFIX = ".folded"


@dataclass(frozen=True)
class PatternFoldBatchNorm(Pass):
    """Fold per-channel scaling and shifting after a convolution into its weights and bias.

    Each linalg.generic that follows and computes a * x + b, with constants a and b for each channel, is
    folded: a batch norm, a bias, a layer scale. New weights are a * w and the new bias is a * bias + b,
    computed in float64 and rounded once; weights that are zero stay zero. Parameter "conv1.weight" becomes
    "conv1.weight.folded". The bias is the convolution's initial value, `linalg.broadcast` of F values.

    1-D convolutions become 2-D ones of height 1 first, and what follows them element by element becomes 2-D too.

    What follows no convolution becomes a depthwise 1x1 convolution of its own, and a remark says why, as it does
    where the convolution's result has other users or its weights are not constant. What follows a cast of integers,
    as the bytes of an image, stays.

    Requires: linalg on tensors of static shape.
    Ensures: no per-channel arithmetic with constants on N x C x H x W tensors is left, but for that of casts and the
        division of a sum by one number, which makes a mean. A second run changes nothing.

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
            for block in (function.regions[0].blocks[0] for function in defined_functions(module)):
                normalize_convolutions(block, state)
                barred = {op.result for found in find_activations(block, state) for op in found.ops}
                convolutions = [op.operation for op in block.operations if op.operation.name in _FILTER_AXES]
                folded = [_fold_into(conv, barred, state) for conv in convolutions]
                if any(folded):
                    erase_dead(block)
                if _separate_left(block, barred, state):
                    erase_dead(block)


def _fold_into(conv: ir.Operation, barred: set[ir.Value], state: PassState) -> bool:
    """Fold what follows one convolution; return whether anything did."""
    result = _channels_first_result(conv)
    chain = read_chain(result, state, barred=barred) if _is_static_f32(result) else None
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
    _require_finite(conv, new_weight.reshape(len(new_bias), -1), new_bias, "weights after folding batch norm")
    name = _bias_name(conv)
    with conv.location, ir.InsertionPoint(conv):
        conv.operands[1] = _make_weight(conv.operands[1], new_weight, state)
        conv.operands[2] = _make_init(conv.operands[2].type, result.type, make_constant(new_bias, name, state))
    chain.end.replace_all_uses_with(result)
    return True


def _channels_first_result(conv: ir.Operation) -> ir.Value:
    """Return the N x F x H x W result of a convolution; a grouped one makes N x G x F x H x W first."""
    result = conv.result
    user = only_user(result)
    if result.type.rank != 5 or user is None or user.name != "tensor.collapse_shape":
        return result
    batch, groups, filters, *size = result.type.shape
    flat = [batch, groups * filters, *size]
    return user.result if list(user.result.type.shape) == flat else result


# Weights and bias.


def _root(value: ir.Value) -> ir.Value:
    """Return what a value was reshaped from."""
    return [value, *reshape_sources(value)][-1]


def _read_weight(value: ir.Value, state: PassState) -> np.ndarray | None:
    array = read_constant(_root(value), state)
    return None if array is None else array.astype(np.float64).reshape(value.type.shape)


def _read_bias(init: ir.Value, result: ir.Value, state: PassState) -> np.ndarray | None:
    try:
        values = evaluate(init, state)
    except NotConstant:
        return None
    return per_channel(values.reshape(result.type.shape), result.type.shape[1])


def _require_finite(op: ir.Operation, weight: np.ndarray, bias: np.ndarray, what: str) -> None:
    finite = np.isfinite(weight).all(axis=1) & np.isfinite(bias)
    if not finite.all():
        channel = int(np.argmin(finite))
        values = np.append(weight[channel], bias[channel])
        value = values[~np.isfinite(values)][0]
        raise fail(op, f"finite {what}", f"{value} in channel {channel}")


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


# What follows no convolution.


def _separate_left(block: ir.Block, barred: set[ir.Value], state: PassState) -> bool:
    """Give each chain of per-channel arithmetic that is left a convolution of its own; return whether there was one.

    Args:
        barred: results of the ops of activations, which may begin with an addition.
    """
    done: set[ir.Operation] = set()
    for op in [op.operation for op in block.operations]:
        data = _scaled_operand(op, state) if op not in done and not barred.intersection(op.results) else None
        if data is not None:
            chain = read_chain(data, state, op, barred)
            if np.all(chain.scale == 1) and not np.any(chain.shift):
                chain.end.replace_all_uses_with(data)
            elif _is_plain(chain, data):
                continue
            elif not _is_cast(data):
                _separate(chain, data, state)
            done.update(chain.ops)
    return bool(done)


def _is_plain(chain: Chain, data: ir.Value) -> bool:
    """Whether a chain is a product with one number, far from convolutions, whose layouts it would share: any linalg
    that it stands among does that as well."""
    is_uniform = np.all(chain.scale == chain.scale[0]) and not np.any(chain.shift)
    users = [use.owner.operation.name for use in chain.end.uses]
    near = [_root(data).owner.operation.name] if not isinstance(_root(data).owner, ir.Block) else []
    return bool(is_uniform) and not any(name in (*_FILTER_AXES, "tensor.pad") for name in (*near, *users))


def _separate(chain: Chain, data: ir.Value, state: PassState) -> None:
    """Compute a chain by a depthwise 1x1 convolution."""
    op, channels = chain.ops[0], data.type.shape[1]
    with np.errstate(all="ignore"):
        weight, bias = (values.astype(np.float32) for values in (chain.scale, chain.shift))
    _require_finite(op, weight.reshape(channels, 1), bias, "factors and terms")
    _report_separated(op, data, state)
    name = layer_name(op.location)
    with op.location, ir.InsertionPoint(op):
        weights = make_constant(weight.reshape(channels, 1, 1), name and f"{name}.scale", state)
        init = _make_init(data.type, data.type, make_constant(bias, name and f"{name}.shift", state))
        result = linalg.depthwise_conv_2d_nchw_chw(data, weights, outs=[init])
    chain.end.replace_all_uses_with(result)


def _scaled_operand(op: ir.Operation, state: PassState) -> ir.Value | None:
    """Return the operand that an op scales and shifts for each channel, but for the division that makes a mean of a
    sum."""
    if not is_elementwise(op) or not _is_static_f32(op.result):
        return None
    for operand in dict.fromkeys(op.operands[number] for number in used_arguments(op)):
        affine = read_affine(op, operand, state)
        if affine is None:
            continue
        scale, shift = affine
        is_division = np.all(scale == scale[0]) and scale[0] not in (0, 1) and not np.any(shift)
        if not is_division or not _is_sum(operand):
            return operand
    return None


def _is_cast(value: ir.Value) -> bool:
    """Whether a value was made of integers, as the bytes of an image: what normalizes them is computed with the cast,
    in one loop of linalg."""
    value = _root(value)
    while not isinstance(value.owner, ir.Block) and value.owner.operation.name == "linalg.transpose":
        value = _root(value.owner.operation.operands[0])
    if isinstance(value.owner, ir.Block) or value.owner.operation.name != "linalg.generic":
        return False
    return isinstance(value.owner.operation.operands[0].type.element_type, ir.IntegerType)


def _is_sum(value: ir.Value) -> bool:
    """Whether a value is a sum over windows, or over height and width."""
    value = _root(value)
    if isinstance(value.owner, ir.Block):
        return False
    op = value.owner.operation
    kinds = [str(kind) for kind in op.attributes["iterator_types"]] if op.name == "linalg.generic" else []
    return op.name == "linalg.pooling_nchw_sum" or any("reduction" in kind for kind in kinds)


def _report_separated(op: ir.Operation, data: ir.Value, state: PassState) -> None:
    root = _root(data)
    if isinstance(root.owner, ir.Block):
        reason = "into a convolution: its input is an argument"
    elif root.owner.operation.name not in _FILTER_AXES:
        reason = f"into a convolution: its input is the result of '{root.owner.operation.name}'"
    elif only_user(data) is None:
        reason = "into the convolution: its result has other users"
    else:
        return  # there is a remark on the convolution
    state.remark(op, f"not folded {reason}")


def _is_static_f32(value: ir.Value) -> bool:
    type_ = value.type
    return type_.has_static_shape and type_.rank == 4 and isinstance(type_.element_type, ir.F32Type)
