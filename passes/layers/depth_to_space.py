"""Channels that become places: pixel shuffle, and the phases of transposed convolutions."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import linalg, tensor

from patc.dialects import pattern
from patc.dialects.attributes import Activation
from patc.passes.algorithms.host.depth_to_space import DepthToSpace as HostDepthToSpace
from patc.passes.base import PassState
from patc.passes.layers import reference
from patc.passes.layers.base import (
    Access,
    Channels,
    OneType,
    Operand,
    Raiser,
    Sign,
    WithoutWeights,
    fix_all,
    list_operands,
    sign_of_activation,
)
from patc.passes.raising import depth_to_space


class DepthToSpace(WithoutWeights, OneType):
    """`pattern.depth_to_space`."""

    op = pattern.DepthToSpaceOp
    raisers = (
        Raiser("tensor.collapse_shape", depth_to_space.raise_pixel_shuffle),
        Raiser("tensor.insert_slice", depth_to_space.raise_phases, is_late=True),
    )
    host = (HostDepthToSpace(),)
    gpu = ()
    keeps_scale = False
    quantised = ()
    quantised_gpu = ()

    def operands(self, op: Any) -> tuple[Operand, ...]:
        return list_operands(op, {"input": Access.ELEMENTS})

    def window(self, op: Any) -> None:
        return None

    def is_pointwise(self, op: Any) -> bool:
        return False

    def sign(self, op: Any) -> Sign:
        return Sign.AS_INPUT if Activation.of(op) == Activation() else sign_of_activation(op)

    def channels(self, op: Any, state: PassState) -> Channels:
        return fix_all(op)

    def reference(self, op: Any, state: PassState) -> ir.Value:
        (down, right), (batch, channels, height, width) = op.steps, op.input.type.shape
        value, order = reference.widen(op.input), depth_to_space.ORDERS[op.mode.value]
        shape = [batch, 1, 1, 1, height, width]
        shape[order[1]], shape[order[3]], shape[order[5]] = channels // (down * right), down, right
        apart = ir.RankedTensorType.get(shape, value.type.element_type)
        expanded = tensor.expand_shape(apart, value, depth_to_space.APART, [], shape)
        moved = reference.empty([shape[axis] for axis in order], op)
        turned = linalg.transpose(expanded, outs=[moved], permutation=order).result[0]
        type_ = ir.RankedTensorType.get(list(op.result.type.shape), value.type.element_type)
        return reference.activate(op, tensor.collapse_shape(type_, turned, depth_to_space.TOGETHER), state)
