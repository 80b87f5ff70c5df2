"""Matrix products of linalg to fully connected layers."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir

from patc.dialects.attributes import Activation
from patc.dialects.pattern import LinearOp
from patc.passes.base import PassState
from patc.passes.raising.linalg_layers import linear_weight, read_init


def raise_matmul(op: Any, state: PassState) -> ir.Value | None:
    """Return the linear layer that a product with a constant weight is, or None."""
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
