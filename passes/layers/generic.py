"""Calls of functions that `pattern-outline` made: any linalg on tensors."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import func

from patc.numerics import NUMERICS
from patc.passes.algorithms.gpu.generic import Generic as GenericOnGpu
from patc.passes.algorithms.host.generic import Generic as GenericLoops
from patc.passes.base import PassState, fail
from patc.passes.ir.elements import numpy_type
from patc.passes.ir.functions import OPS
from patc.passes.layers.base import Access, Channels, Operand, Sign, WithoutWeights, fix_all


class Generic(WithoutWeights):
    """`func.call` with `pattern.ops`."""

    op = func.CallOp
    elements = tuple(NUMERICS)
    converts = True
    packs = True
    keeps_types = True
    fill = "zero"
    raisers = ()
    rereads = False
    host = (GenericLoops(),)
    gpu = (GenericOnGpu(),)
    keeps_scale = False
    quantised = ()
    quantised_gpu = ()

    def claims(self, op: Any) -> bool:
        return OPS in op.attributes

    def operands(self, op: Any) -> tuple[Operand, ...]:
        return tuple(Operand(f"operand{number}", number, Access.PACKED) for number in range(len(op.operands)))

    def window(self, op: Any) -> None:
        return None

    def is_pointwise(self, op: Any) -> bool:
        return False

    def sign(self, op: Any) -> Sign:
        return Sign.ANY

    def channels(self, op: Any, state: PassState) -> Channels:
        return fix_all(op)

    def reference(self, op: Any, state: PassState) -> ir.Value | None:
        return None  # the function is linalg

    def check_elements(self, op: Any) -> None:
        for value in (*op.operands, *op.results):
            if numpy_type(value.type) is None:
                raise fail(op, "tensors of numbers", value.type)
