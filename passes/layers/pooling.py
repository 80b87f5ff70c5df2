"""Pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, linalg

from patc.dialects import pattern
from patc.dialects.attributes import Activation
from patc.passes.algorithms.gpu.global_pool import GlobalPool as GpuGlobalPool
from patc.passes.algorithms.gpu.pool import AveragePool as GpuAveragePool
from patc.passes.algorithms.gpu.pool import MaxPool as GpuMaxPool
from patc.passes.algorithms.gpu.word_pools import AveragePoolWords as GpuAveragePoolWords
from patc.passes.algorithms.gpu.word_pools import GlobalPoolWords as GpuGlobalPoolWords
from patc.passes.algorithms.gpu.word_pools import MaxPoolWords as GpuMaxPoolWords
from patc.passes.algorithms.host.global_pool import GlobalPool
from patc.passes.algorithms.host.pool import AveragePool, MaxPool
from patc.passes.algorithms.host.word_pools import AveragePoolWords, GlobalPoolWords, MaxPoolWords
from patc.passes.base import PassState
from patc.passes.ir.constants import make_constant
from patc.passes.ir.planes import is_global_pool
from patc.passes.ir.quantised import is_quantised
from patc.passes.ir.windows import Window, average_divisors
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
    list_operands,
    sign_of_activation,
)
from patc.passes.layers.flow import Flow
from patc.passes.raising import pools


class _Pool(WithoutWeights, OneType):
    """What layers of pooling have in common: a window on each channel by itself."""

    def window(self, op: Any) -> Window:
        return Window.of(op)

    def is_pointwise(self, op: Any) -> bool:
        return False

    def takes(self, part: str) -> bool:
        return part == "activation"

    def channels(self, op: Any, state: PassState) -> Channels:
        return Channels(tied=(op.input, op.result))


class MaxPool2d(_Pool):
    """`pattern.max_pool2d`."""

    op = pattern.MaxPool2dOp
    fill = "lowest"
    raisers = (Raiser("linalg.pooling_nchw_max", pools.raise_max_pool),)
    host = (MaxPool(),)
    quantised = (MaxPoolWords(),)
    quantised_gpu = (GpuMaxPoolWords(),)
    keeps_scale = True
    gpu = (GpuMaxPool(),)

    def operands(self, op: Any) -> tuple[Operand, ...]:
        return list_operands(op, {"input": Access.WINDOW})

    def sign(self, op: Any) -> Sign:
        if Activation.of(op) != Activation():
            return sign_of_activation(op)
        # A window on padding alone gives minus infinity.
        return Sign.AS_INPUT if self.window(op).always_meets(op.input.type.shape[2:]) else Sign.ANY

    def flow(self, op: Any, state: PassState) -> Flow | None:
        return flow_of(op) if self.window(op).always_meets(op.input.type.shape[2:]) else None

    def reference(self, op: Any, state: PassState) -> ir.Value:
        if is_quantised(op):
            return quantised_reference.largest(op)
        return reference.activate(op, _pool(op, linalg.pooling_nchw_max, reference.scalar(-np.inf, op)), state)


class AvgPool2d(_Pool):
    """`pattern.avg_pool2d`."""

    op = pattern.AvgPool2dOp
    raisers = (
        Raiser("linalg.generic", pools.raise_average),
        Raiser("linalg.generic", pools.raise_undivided_sum, is_late=True),
        Raiser("linalg.pooling_nchw_sum", pools.raise_undivided_sum, is_late=True),
    )
    host = (AveragePool(), GlobalPool())
    quantised = (AveragePoolWords(), GlobalPoolWords())
    quantised_gpu = (GpuAveragePoolWords(), GpuGlobalPoolWords())
    gpu = (GpuAveragePool(), GpuGlobalPool())
    keeps_scale = False

    def operands(self, op: Any) -> tuple[Operand, ...]:
        return list_operands(op, {"input": Access.PLANES if is_global_pool(op) else Access.WINDOW})

    def sign(self, op: Any) -> Sign:
        if Activation.of(op) != Activation():
            return sign_of_activation(op)
        divides_by_less = "divisor" in op.attributes and op.attributes["divisor"].value < 0
        return Sign.ANY if divides_by_less else Sign.AS_INPUT

    def flow(self, op: Any, state: PassState) -> Flow | None:
        divides_by_all = not any(op.pads) and "divisor" not in op.attributes
        return flow_of(op, keeps_numbers=divides_by_all)

    def reference(self, op: Any, state: PassState) -> ir.Value:
        if is_quantised(op):
            return quantised_reference.mean(op, state)
        total = _pool(op, linalg.pooling_nchw_sum, reference.scalar(0.0, op))
        divisors = average_divisors(op)
        if np.all(divisors == divisors[0, 0]):
            divisor = reference.scalar(float(divisors[0, 0]), op)
            mean = reference.elementwise([total], lambda value: arith.divf(value, divisor))
        else:
            table = make_constant(divisors.astype(np.float32), None, state)
            mean = reference.elementwise([total, table], arith.divf)
        return reference.activate(op, mean, state)


def _pool(op: Any, pooling: Callable[..., ir.Value], fill: ir.Value) -> ir.Value:
    window = Window.of(op)
    padded = reference.pad(reference.widen(op.input), window.pads, fill)
    init = linalg.fill(fill, outs=[reference.empty(op.result.type.shape, op)])
    shape = reference.empty(window.kernel, op)
    return pooling(padded, shape, outs=[init], strides=list(window.strides), dilations=list(window.dilations))
