"""Fully connected layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import linalg

from patc.dialects import pattern
from patc.numerics import NUMERICS
from patc.passes.algorithms.gpu.gemv import Gemv as GpuGemv
from patc.passes.algorithms.host.gemv import Gemv
from patc.passes.base import PassState
from patc.passes.ir.constants import read_constant, replace_constant
from patc.passes.layers import reference
from patc.passes.layers.base import (
    Access,
    Channels,
    LayerKind,
    Operand,
    Permutation,
    Raiser,
    Sign,
    Work,
    fix_all,
    list_operands,
    operand_number,
    sign_of_activation,
)
from patc.passes.raising import products


class Linear(LayerKind):
    """`pattern.linear`."""

    op = pattern.LinearOp
    elements = tuple(NUMERICS)
    converts = False
    packs = False
    keeps_types = False
    fill = "zero"
    rereads = False
    raisers = (Raiser("linalg.matmul", products.raise_matmul),)
    host = (Gemv(),)
    gpu = (GpuGemv(),)

    def operands(self, op: Any) -> tuple[Operand, ...]:
        accesses = {"input": Access.PACKED, "weight": Access.WEIGHTS, "bias": Access.WEIGHTS}
        return list_operands(op, accesses, shared=("input",))

    def window(self, op: Any) -> None:
        return None

    def is_pointwise(self, op: Any) -> bool:
        return False

    def sign(self, op: Any) -> Sign:
        return sign_of_activation(op)

    def channels(self, op: Any, state: PassState) -> Channels:
        if read_constant(op.weight, state) is None:
            return fix_all(op)
        return Channels(fixed=(op.result,))

    def permute(self, op: Any, permutation: Permutation, state: PassState) -> None:
        weight, order = read_constant(op.weight, state), permutation.of(op.input)
        assert weight is not None and order is not None, "all else is fixed"
        # Each channel has as many columns as the flattened tensor had pixels.
        columns = np.take(weight.reshape(len(weight), len(order), -1), order, axis=1)
        replace_constant(op, operand_number(op, "weight"), columns.reshape(weight.shape), state)

    def reference(self, op: Any, state: PassState) -> ir.Value:
        weight, shape = reference.widen(op.weight), list(op.result.type.shape)
        destination = reference.empty(reversed(op.weight.type.shape), op)
        transposed = linalg.transpose(weight, outs=[destination], permutation=[1, 0]).result[0]
        init = reference.zeros(shape, op) if op.bias is None else reference.broadcast(op.bias, shape, [0], op)
        return reference.activate(op, linalg.matmul(reference.widen(op.input), transposed, outs=[init]))

    def work(self, op: Any) -> Work:
        weights = math.prod(op.weight.type.shape)
        return Work(weights, weights, 2 * weights * op.result.type.shape[0])

    def shares(self, op: Any, state: PassState) -> tuple[float, ...]:
        return ()
