"""Layers that work element by element: additions, gates of channels, activations and changes of layout."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import arith, tensor

from patc.dialects import pattern
from patc.passes.algorithms.gpu.elementwise import Elementwise as GpuElementwise
from patc.passes.algorithms.gpu.elementwise import Scale as GpuScale
from patc.passes.algorithms.host.elementwise import Elementwise
from patc.passes.algorithms.host.elementwise import Scale as HostScale
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
    list_operands,
    sign_of_activation,
)
from patc.passes.raising import sums


class _Elementwise(WithoutWeights, OneType):
    """What these layers have in common: element i of the result comes from element i of each operand."""

    def window(self, op: Any) -> None:
        return None

    def is_pointwise(self, op: Any) -> bool:
        return False

    def channels(self, op: Any, state: PassState) -> Channels:
        return Channels(tied=(*op.operands, op.result))


class Add(_Elementwise):
    """`pattern.add`."""

    op = pattern.AddOp
    raisers = (Raiser("linalg.generic", sums.raise_add),)
    host = (Elementwise(),)
    gpu = (GpuElementwise(),)

    def operands(self, op: Any) -> tuple[Operand, ...]:
        return list_operands(op, {"lhs": Access.ELEMENTS, "rhs": Access.ELEMENTS})

    def sign(self, op: Any) -> Sign:
        return sign_of_activation(op)

    def reference(self, op: Any, state: PassState) -> ir.Value:
        lhs, rhs = reference.widen(op.lhs), reference.widen(op.rhs)
        return reference.activate(op, reference.elementwise([lhs, rhs], arith.addf), state)


class Scale(_Elementwise):
    """`pattern.scale`."""

    op = pattern.ScaleOp
    raisers = (Raiser("linalg.generic", sums.raise_scale),)
    host = (HostScale(),)
    gpu = (GpuScale(),)

    def operands(self, op: Any) -> tuple[Operand, ...]:
        return list_operands(op, {"input": Access.ELEMENTS, "factor": Access.ELEMENTS})

    def sign(self, op: Any) -> Sign:
        return sign_of_activation(op)

    def reference(self, op: Any, state: PassState) -> ir.Value:
        flat = ir.RankedTensorType.get(op.factor.type.shape[:2], op.factor.type.element_type)
        factors = tensor.collapse_shape(flat, op.factor, [[0], [1, 2, 3]])
        spread = reference.broadcast(factors, op.result.type.shape, [2, 3], op)
        product = reference.elementwise([reference.widen(op.input), spread], arith.mulf)
        return reference.activate(op, product, state)


class Activate(_Elementwise):
    """`pattern.activate`."""

    op = pattern.ActivateOp
    raisers = (Raiser("linalg.generic", sums.raise_activation),)
    host = (Elementwise(),)
    gpu = (GpuElementwise(),)

    def operands(self, op: Any) -> tuple[Operand, ...]:
        return list_operands(op, {"input": Access.ELEMENTS})

    def sign(self, op: Any) -> Sign:
        return sign_of_activation(op)

    def reference(self, op: Any, state: PassState) -> ir.Value:
        return reference.activate(op, reference.widen(op.input), state)


class Relayout(_Elementwise):
    """`pattern.relayout`."""

    op = pattern.RelayoutOp
    converts = True
    raisers = ()
    host = (Elementwise(),)
    gpu = (GpuElementwise(),)

    def operands(self, op: Any) -> tuple[Operand, ...]:
        return list_operands(op, {"input": Access.ELEMENTS})

    def sign(self, op: Any) -> Sign:
        return Sign.AS_INPUT

    def reference(self, op: Any, state: PassState) -> ir.Value:
        return op.input
