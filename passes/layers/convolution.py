"""Convolutions with dense weights, and with sparse ones."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import astuple, fields
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

from patc.dialects import pattern
from patc.dialects.attributes import Library
from patc.numerics import NUMERICS
from patc.passes.algorithms.gpu.dense_direct import DenseDirect, DepthwiseDirect
from patc.passes.algorithms.gpu.pattern_direct import PatternDirect
from patc.passes.base import PassState, fail
from patc.passes.formats.fkr import order_filters
from patc.passes.formats.fkw import Fkw, decode, find_violation, invert, rearrange
from patc.passes.ir.constants import constant_name, make_constant, read_constant, replace_constant
from patc.passes.ir.windows import Window
from patc.passes.layers import reference
from patc.passes.layers.base import (
    Access,
    Channels,
    FilterOrder,
    LayerKind,
    Operand,
    Permutation,
    Sign,
    Work,
    fix_all,
    list_operands,
    operand_number,
    sign_of_activation,
)

_FKW_NAMES = tuple(field.name for field in fields(Fkw))


class _Convolution(LayerKind):
    """What convolutions have in common: the window, and the epilogue with bias, residual and activation."""

    elements = tuple(NUMERICS)
    converts = False
    packs = False
    fill = "zero"
    rereads = True

    def window(self, op: Any) -> Window:
        return Window.of(op)

    def is_pointwise(self, op: Any) -> bool:
        return Window.of(op).is_identity

    def sign(self, op: Any) -> Sign:
        return sign_of_activation(op)


class Conv2d(_Convolution):
    """`pattern.conv2d`."""

    op = pattern.Conv2dOp
    host = ()
    gpu = (DenseDirect(), DepthwiseDirect())

    def operands(self, op: Any) -> tuple[Operand, ...]:
        accesses = {
            "input": Access.WINDOW,
            "weight": Access.WEIGHTS,
            "bias": Access.WEIGHTS,
            "residual": Access.ELEMENTS,
        }
        return list_operands(op, accesses, shared=("input",) if op.groups.value == 1 else ())

    def channels(self, op: Any, state: PassState) -> Channels:
        if not _are_constant([op.weight, op.bias], state) or not (op.groups.value == 1 or _is_depthwise(op)):
            return fix_all(op)
        tied = [op.result, op.residual, op.input if _is_depthwise(op) else None]
        return Channels(tied=tuple(tensor for tensor in tied if tensor is not None))

    def permute(self, op: Any, permutation: Permutation, state: PassState) -> None:
        weight = read_constant(op.weight, state)
        assert weight is not None, "the channels of others are fixed"
        inputs, outputs = permutation.of(op.input), permutation.of(op.result)
        if outputs is not None:
            weight = weight[outputs]
        if inputs is not None and not _is_depthwise(op):
            weight = weight[:, inputs]
        replace_constant(op, operand_number(op, "weight"), weight, state)
        _permute_bias(op, permutation, state)

    def reference(self, op: Any, state: PassState) -> ir.Value:
        return _convolve(op, op.weight, op.groups.value)

    def work(self, op: Any) -> Work:
        weights = math.prod(op.weight.type.shape)
        return Work(weights, weights, 2 * weights * _places(op))


class SparseConv2d(_Convolution):
    """`pattern.sparse_conv2d`."""

    op = pattern.SparseConv2dOp
    host = ()
    gpu = (PatternDirect(), DenseDirect(), DepthwiseDirect())

    def operands(self, op: Any) -> tuple[Operand, ...]:
        accesses = {
            "input": Access.WINDOW,
            "values": Access.WEIGHTS,
            **dict.fromkeys(("index", "offset", "stride", "reorder"), Access.INDICES),
            "bias": Access.WEIGHTS,
            "residual": Access.ELEMENTS,
        }
        return list_operands(op, accesses, shared=("input",))

    def channels(self, op: Any, state: PassState) -> Channels:
        if not _are_constant([*(getattr(op, name) for name in _FKW_NAMES), op.bias], state):
            state.remark(op, "keeps the order of its filters: its arrays are not constant")
            return fix_all(op)
        fkw = _read_fkw(op, state)
        order = order_filters(fkw)
        kernels, entries = op.values.type.shape
        work = kernels * entries * math.prod(op.result.type.shape[2:])
        spans_channels = Library.from_attr(op.library).depth > 1
        return Channels(
            tied=(op.result,) if op.residual is None else (op.result, op.residual),
            fixed=(op.input,) if spans_channels else (),
            order=FilterOrder(order, fkw.reorder[order], work),
        )

    def permute(self, op: Any, permutation: Permutation, state: PassState) -> None:
        assert permutation.filters is not None, "channels said an order"
        inputs, outputs = (_positions(permutation.of(tensor), tensor) for tensor in (op.input, op.result))
        new = rearrange(_read_fkw(op, state), permutation.filters, inputs, outputs)
        for name, array in zip(_FKW_NAMES, astuple(new), strict=True):
            replace_constant(op, operand_number(op, name), array, state)
        _permute_bias(op, permutation, state)

    def reference(self, op: Any, state: PassState) -> ir.Value:
        library = Library.from_attr(op.library)
        name = constant_name(op.values)
        dense = decode(_read_fkw(op, state), library.masks, library.kernel, op.input.type.shape[1])
        return _convolve(op, make_constant(dense, None if name is None else f"{name}.dense", state), groups=1)

    def work(self, op: Any) -> Work:
        dense = op.result.type.shape[1] * op.input.type.shape[1] * math.prod(op.kernel_size)
        kept = math.prod(op.values.type.shape)
        return Work(dense, kept, 2 * kept * _places(op))


def _is_depthwise(op: Any) -> bool:
    """Whether each filter of a dense convolution has one channel of its own."""
    filters, group_channels = op.weight.type.shape[:2]
    return op.groups.value > 1 and group_channels == 1 and filters == op.groups.value


def _places(op: Any) -> int:
    batch, _, height, width = op.result.type.shape
    return int(batch * height * width)


def _are_constant(values: Iterable[ir.Value | None], state: PassState) -> bool:
    return all(value is None or read_constant(value, state) is not None for value in values)


def _read_fkw(op: Any, state: PassState) -> Fkw:
    """Return the kept kernels of a sparse convolution.

    Raises:
        PatcError: an array is not constant, or not valid.
    """
    arrays = {name: read_constant(getattr(op, name), state) for name in _FKW_NAMES}
    for name, array in arrays.items():
        if array is None:
            raise fail(op, f"'{name}' to be a constant", "a value computed at run time")
    fkw = Fkw(**arrays)  # type: ignore[arg-type] # none is None
    violation = find_violation(fkw, op.input.type.shape[1], Library.from_attr(op.library).depth)
    if violation is not None:
        raise fail(op, *violation)
    return fkw


def _permute_bias(op: Any, permutation: Permutation, state: PassState) -> None:
    order = permutation.of(op.result)
    if op.bias is not None and order is not None:
        bias = read_constant(op.bias, state)
        assert bias is not None, "the channels of others are fixed"
        replace_constant(op, operand_number(op, "bias"), bias[order], state)


def _positions(order: np.ndarray | None, value: ir.Value) -> np.ndarray:
    """Return the new number of each channel of a tensor."""
    return np.arange(value.type.shape[1]) if order is None else invert(order)


def _convolve(op: Any, weight: ir.Value, groups: int) -> ir.Value:
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
    if op.residual is not None:
        result = reference.elementwise([result, reference.widen(op.residual)], arith.addf)
    return reference.activate(op, result)
