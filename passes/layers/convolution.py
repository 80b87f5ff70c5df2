"""Convolutions with dense weights, and with sparse ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import linalg, tensor

from patc.dialects import pattern
from patc.dialects.attributes import i64
from patc.passes.algorithms.gpu.dense_direct import DenseDirect as GpuDenseDirect
from patc.passes.algorithms.gpu.dense_direct import DepthwiseDirect as GpuDepthwiseDirect
from patc.passes.algorithms.gpu.dots import DotDirect as GpuDotDirect
from patc.passes.algorithms.gpu.pattern_direct import PatternDirect as GpuPatternDirect
from patc.passes.algorithms.host.band_direct import BandDirect
from patc.passes.algorithms.host.block_words import BlockWords
from patc.passes.algorithms.host.dense_direct import DenseDirect, DepthwiseDirect
from patc.passes.algorithms.host.dots import DotDirect, DotLanes
from patc.passes.algorithms.host.filter_lanes import FilterLanes
from patc.passes.algorithms.host.implicit_gemm import ImplicitGemm
from patc.passes.algorithms.host.input_stationary import InputStationary
from patc.passes.algorithms.host.pack_direct import PackDirect
from patc.passes.algorithms.host.pattern_direct import PatternDirect
from patc.passes.algorithms.host.pattern_packed import PatternPacked
from patc.passes.algorithms.host.row_words import RowWords
from patc.passes.algorithms.host.tap_direct import TapDirect
from patc.passes.algorithms.host.window_words import WindowWords
from patc.passes.algorithms.host.winograd import Winograd
from patc.passes.base import PassState
from patc.passes.formats.layer_weights import groups_of, read_arrays
from patc.passes.formats.registry import format_of
from patc.passes.ir.constants import constant_name, make_constant, read_constant, replace_constant
from patc.passes.ir.quantised import Known, is_quantised
from patc.passes.ir.windows import Window
from patc.passes.layers import quantised_reference, reference
from patc.passes.layers.base import (
    Access,
    Channels,
    FilterOrder,
    OneType,
    Operand,
    Permutation,
    Raiser,
    Sign,
    Work,
    fix_all,
    joined_channels,
    list_operands,
    operand_number,
    permute_activation,
    sign_of_activation,
    weighted_flow,
)
from patc.passes.layers.flow import Flow
from patc.passes.layers.quantised import joins_simply, with_integers
from patc.passes.layers.sparse import (
    are_constant,
    array_accesses,
    kept_weights,
    positions,
    read_weights,
    replace_arrays,
)
from patc.passes.raising import convolutions
from patc.targets import Target


class _Convolution(OneType):
    """What convolutions have in common: the window, and the epilogue with bias, residual and activation."""

    rereads = True
    keeps_scale = False

    def window(self, op: Any) -> Window:
        return Window.of(op)

    def is_pointwise(self, op: Any) -> bool:
        return bool(op.is_pointwise)

    def sign(self, op: Any) -> Sign:
        return sign_of_activation(op)

    def can_quantise(self, op: Any, target: Target, state: PassState) -> bool:
        return super().can_quantise(op, target, state) and joins_simply(op, state)

    def quantise(
        self,
        op: Any,
        given: Mapping[int, ir.Value],
        result: ir.Type,
        state: PassState,
        known: Known | None = None,
    ) -> ir.Value:
        window = {name: op.attributes[name] for name in ("strides", "pads", "dilations")}
        return with_integers(op, pattern.Conv2dOp, given, result, state, known, groups=i64(groups_of(op)), **window)


class Conv2d(_Convolution):
    """`pattern.conv2d`."""

    op = pattern.Conv2dOp
    sparse = pattern.SparseConv2dOp
    raisers = (
        Raiser("linalg.conv_2d_nchw_fchw", convolutions.raise_conv2d),
        Raiser("linalg.conv_2d_ngchw_gfchw", convolutions.raise_grouped),
        Raiser("linalg.depthwise_conv_2d_nchw_chw", convolutions.raise_depthwise),
    )
    host = (DenseDirect(), DepthwiseDirect(), FilterLanes(), ImplicitGemm(), Winograd())
    quantised = (DotDirect(), DotLanes(), RowWords(), WindowWords(), BlockWords())
    quantised_gpu = (GpuDotDirect(),)
    gpu = (GpuDenseDirect(), GpuDepthwiseDirect())

    def operands(self, op: Any) -> tuple[Operand, ...]:
        accesses = {
            "input": Access.WINDOW,
            "weight": Access.WEIGHTS,
            "bias": Access.WEIGHTS,
            "residual": Access.ELEMENTS,
        }
        return list_operands(op, accesses, shared=("input",) if op.groups.value == 1 else ())

    def channels(self, op: Any, state: PassState) -> Channels:
        is_known = are_constant([op.weight, op.bias], state) and not is_quantised(op)
        if not is_known or not (op.groups.value == 1 or _is_depthwise(op)):
            return fix_all(op)
        tied = [op.input] if _is_depthwise(op) else []
        return Channels(tied=(op.result, *joined_channels(op.residual, op.result), *tied))

    def flow(self, op: Any, state: PassState) -> Flow | None:
        if op.groups.value > 1 and not _is_depthwise(op):
            return None
        return weighted_flow(op, is_mixed=op.groups.value == 1, keeps_numbers=not any(op.pads), state=state)

    def permute(self, op: Any, permutation: Permutation, state: PassState) -> None:
        weight = read_constant(op.weight, state)
        assert weight is not None, "the channels of others are fixed"
        inputs, outputs = permutation.of(op.input), permutation.of(op.result)
        if outputs is not None:
            weight = weight[outputs]
        if inputs is not None and not _is_depthwise(op):
            weight = weight[:, inputs]
        replace_constant(op, operand_number(op, "weight"), weight, state)
        _permute_epilogue(op, permutation, state)

    def reference(self, op: Any, state: PassState) -> ir.Value:
        if is_quantised(op):
            return quantised_reference.convolve(op, state)
        return _convolve(op, op.weight, op.groups.value, state)

    def work(self, op: Any) -> Work:
        weights = math.prod(op.weight.type.shape)
        return Work(weights, weights, 2 * weights * _places(op))

    def shares(self, op: Any, state: PassState) -> tuple[float, ...]:
        return ()


class SparseConv2d(_Convolution):
    """`pattern.sparse_conv2d`."""

    op = pattern.SparseConv2dOp
    sparse = None
    raisers = ()
    quantised = Conv2d.quantised
    quantised_gpu = Conv2d.quantised_gpu
    host = (
        PatternDirect(),
        PatternPacked(),
        InputStationary(),
        TapDirect(),
        BandDirect(),
        PackDirect(),
        DenseDirect(),
        DepthwiseDirect(),
        Winograd(),
    )
    gpu = (GpuPatternDirect(), GpuDenseDirect(), GpuDepthwiseDirect())

    def operands(self, op: Any) -> tuple[Operand, ...]:
        accesses = {
            "input": Access.WINDOW,
            **array_accesses(op),
            "bias": Access.WEIGHTS,
            "residual": Access.ELEMENTS,
        }
        return list_operands(op, accesses, shared=("input",) if groups_of(op) == 1 else ())

    def channels(self, op: Any, state: PassState) -> Channels:
        if not are_constant([*op.arrays, op.bias], state):
            state.remark(op, "keeps the order of its filters: its arrays are not constant")
            return fix_all(op)
        stored, arrays = read_weights(op, state)
        if groups_of(op) > 1:
            tied = (op.input, op.result, *joined_channels(op.residual, op.result))
            return Channels(tied=tied) if _is_depthwise(op) else fix_all(op)
        order = stored.order_filters(arrays)
        work = kept_weights(op) * math.prod(op.result.type.shape[2:])
        return Channels(
            tied=(op.result, *joined_channels(op.residual, op.result)),
            fixed=(op.input,) if stored.reads_neighbours else (),
            order=FilterOrder(order, stored.output_channels(arrays)[order], work),
        )

    def permute(self, op: Any, permutation: Permutation, state: PassState) -> None:
        inputs, outputs = (positions(permutation.of(tensor), tensor.type.shape[1]) for tensor in (op.input, op.result))
        stored, arrays = read_weights(op, state)
        filters = np.arange(op.result.type.shape[1]) if permutation.filters is None else permutation.filters
        arrays = stored.permute_channels(stored.permute_filters(arrays, filters, outputs), inputs)
        replace_arrays(op, arrays, state)
        _permute_epilogue(op, permutation, state)

    def reference(self, op: Any, state: PassState) -> ir.Value:
        name = constant_name(op.arrays[0])
        stored, arrays = read_weights(op, state)
        groups = groups_of(op)
        dense = stored.decode(arrays, op.input.type.shape[1], groups)
        weight = make_constant(dense, None if name is None else f"{name}.dense", state)
        return _convolve(op, weight, groups, state)

    def work(self, op: Any) -> Work:
        dense = op.result.type.shape[1] * op.input.type.shape[1] // groups_of(op) * math.prod(op.kernel_size)
        kept = kept_weights(op)
        return Work(dense, kept, 2 * kept * _places(op))

    def shares(self, op: Any, state: PassState) -> tuple[float, ...]:
        return format_of(op).shares(read_arrays(op, state)) if are_constant(op.arrays, state) else ()


def _is_depthwise(op: Any) -> bool:
    """Whether each filter of a convolution has one channel of its own, of several."""
    groups = groups_of(op)
    return bool(groups > 1 and op.input.type.shape[1] == op.result.type.shape[1] == groups)


def _places(op: Any) -> int:
    batch, _, height, width = op.result.type.shape
    return int(batch * height * width)


def _permute_epilogue(op: Any, permutation: Permutation, state: PassState) -> None:
    order = permutation.of(op.result)
    if op.bias is not None and order is not None:
        bias = read_constant(op.bias, state)
        assert bias is not None, "the channels of others are fixed"
        replace_constant(op, operand_number(op, "bias"), bias[order], state)
    permute_activation(op, permutation)


def _convolve(op: Any, weight: ir.Value, groups: int, state: PassState) -> ir.Value:
    """Build pad, bias, convolution, residual and activation of a convolution."""
    shape, window = list(op.result.type.shape), Window.of(op)
    padded = reference.pad(reference.widen(op.input), window.pads, reference.scalar(0.0, op))
    weight = reference.widen(weight)
    init = reference.zeros(shape, op) if op.bias is None else reference.broadcast(op.bias, shape, [0, 2, 3], op)
    geometry = {"strides": list(window.strides), "dilations": list(window.dilations)}
    if groups == 1:
        result = linalg.conv_2d_nchw_fchw(padded, weight, outs=[init], **geometry)
    else:
        split = [reference.split(value, axis, groups) for value, axis in ((padded, 1), (weight, 0), (init, 1))]
        grouped = linalg.conv_2d_ngchw_gfchw(split[0], split[1], outs=[split[2]], **geometry)
        result = tensor.collapse_shape(init.type, grouped, reference.split_dimensions(1))
    return reference.finish(op, result, op.residual, state)
