"""Layers that work element by element: combinations of two tensors, activations and changes of layout."""

from __future__ import annotations

from typing import Any, ClassVar

from torch_mlir import ir

from patc.dialects import pattern
from patc.dialects.quantised import Quantisation
from patc.passes.algorithms.gpu.base import GpuAlgorithm
from patc.passes.algorithms.gpu.elementwise import Elementwise as GpuElementwise
from patc.passes.algorithms.gpu.words import WordElements as GpuWordElements
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.elementwise import Elementwise
from patc.passes.algorithms.host.words import WordElements
from patc.passes.base import PassState
from patc.passes.ir.quantised import is_quantised
from patc.passes.layers import quantised_reference, reference
from patc.passes.layers.base import (
    Access,
    Channels,
    OneType,
    Operand,
    Raiser,
    Sign,
    WithoutWeights,
    flow_of,
    joined_channels,
    list_operands,
    sign_of_activation,
)
from patc.passes.layers.flow import Flow
from patc.passes.raising import sums


class _Elementwise(WithoutWeights, OneType):
    """What these layers have in common: element i of the result comes from element i of each operand."""

    def window(self, op: Any) -> None:
        return None

    def is_pointwise(self, op: Any) -> bool:
        return False

    def channels(self, op: Any, state: PassState) -> Channels:
        return Channels(tied=(*op.operands, op.result))

    def flow(self, op: Any, state: PassState) -> Flow | None:
        return flow_of(op)


class _Binary(_Elementwise):
    """What combinations of two tensors have in common; the second may be one for all images, channels or places."""

    raisers: ClassVar[tuple[Raiser, ...]] = ()
    host = (Elementwise(),)
    gpu = (GpuElementwise(),)
    keeps_scale = False
    quantised: ClassVar[tuple[HostAlgorithm, ...]] = ()
    quantised_gpu: ClassVar[tuple[GpuAlgorithm, ...]] = ()

    def operands(self, op: Any) -> tuple[Operand, ...]:
        return list_operands(op, {"lhs": Access.ELEMENTS, "rhs": Access.ELEMENTS})

    def channels(self, op: Any, state: PassState) -> Channels:
        return Channels(tied=(op.lhs, *joined_channels(op.rhs, op.result), op.result))

    def sign(self, op: Any) -> Sign:
        return sign_of_activation(op)

    def reference(self, op: Any, state: PassState) -> ir.Value:
        if is_quantised(op):
            return quantised_reference.add(op, state)
        return reference.finish(op, reference.widen(op.lhs), op.rhs, state)


class Add(_Binary):
    """`pattern.add`."""

    op = pattern.AddOp
    quantised = (WordElements(),)
    quantised_gpu = (GpuWordElements(),)
    raisers = (Raiser("linalg.generic", sums.raise_add), Raiser("linalg.generic", sums.raise_binary))


class Subtract(_Binary):
    """`pattern.subtract`."""

    op = pattern.SubtractOp


class Multiply(_Binary):
    """`pattern.multiply`."""

    op = pattern.MultiplyOp


class Divide(_Binary):
    """`pattern.divide`."""

    op = pattern.DivideOp


class Activate(_Elementwise):
    """`pattern.activate`."""

    op = pattern.ActivateOp
    raisers = (Raiser("linalg.generic", sums.raise_activation),)
    host = (Elementwise(),)
    gpu = (GpuElementwise(),)
    keeps_scale = False
    quantised = ()
    quantised_gpu = ()

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
    quantised = (WordElements(),)
    quantised_gpu = (GpuWordElements(),)
    gpu = (GpuElementwise(),)
    keeps_scale = False

    def operands(self, op: Any) -> tuple[Operand, ...]:
        return list_operands(op, {"input": Access.ELEMENTS})

    def sign(self, op: Any) -> Sign:
        return Sign.AS_INPUT

    def reference(self, op: Any, state: PassState) -> ir.Value:
        return quantised_reference.add(op, state) if is_quantised(op) else op.input

    def without_algorithm(self, op: Any, state: PassState) -> ir.Value | None:
        """Build the numbers that integers stand for in f32; what makes these integers stays, for nobody."""
        given = Quantisation.of(op.input.type)
        return None if given is None else quantised_reference.as_integers(op.input.owner.operands[0], given)
