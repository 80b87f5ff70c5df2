"""Fully connected layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import linalg

from patc.dialects import pattern
from patc.passes.algorithms.gpu.dots import DotGemm as GpuDotGemm
from patc.passes.algorithms.gpu.dots import DotRows as GpuDotRows
from patc.passes.algorithms.gpu.gemm import Gemm as GpuGemm
from patc.passes.algorithms.gpu.gemv import Gemv as GpuGemv
from patc.passes.algorithms.host.band_vector import BandVector
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.dots import DotRows
from patc.passes.algorithms.host.gemm import Gemm
from patc.passes.algorithms.host.gemv import Gemv
from patc.passes.algorithms.host.pack_permute import PackPermute
from patc.passes.algorithms.host.zero_skip import ZeroSkip
from patc.passes.base import PassState
from patc.passes.ir.constants import constant_name, make_constant, read_constant, replace_constant
from patc.passes.ir.quantised import Known, is_quantised
from patc.passes.ir.stored import cannot_store, decoded, store_weights
from patc.passes.layers import quantised_reference, reference
from patc.passes.layers.base import (
    Access,
    Channels,
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
from patc.passes.raising import products
from patc.targets import Target

_EPILOGUE = {"bias": Access.WEIGHTS, "residual": Access.PACKED}


class _Linear(OneType):
    """What fully connected layers have in common."""

    host: ClassVar[tuple[HostAlgorithm, ...]] = (Gemv(), Gemm(), ZeroSkip())
    gpu = (GpuGemv(), GpuGemm())
    keeps_scale = False

    def window(self, op: Any) -> None:
        return None

    def is_pointwise(self, op: Any) -> bool:
        return False

    def sign(self, op: Any) -> Sign:
        return sign_of_activation(op)

    def shares(self, op: Any, state: PassState) -> tuple[float, ...]:
        return ()

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
        return with_integers(op, pattern.LinearOp, given, result, state, known)


class Linear(_Linear):
    """`pattern.linear`."""

    op = pattern.LinearOp
    sparse = pattern.SparseLinearOp
    raisers = (Raiser("linalg.matmul", products.raise_matmul),)
    quantised = (DotRows(),)
    quantised_gpu = (GpuDotRows(), GpuDotGemm())

    def operands(self, op: Any) -> tuple[Operand, ...]:
        accesses = {"input": Access.PACKED, "weight": Access.WEIGHTS, **_EPILOGUE}
        return list_operands(op, accesses, shared=("input",))

    def channels(self, op: Any, state: PassState) -> Channels:
        if read_constant(op.weight, state) is None or is_quantised(op):
            return fix_all(op)
        return Channels(fixed=(op.result, *joined_channels(op.residual, op.result)))

    def flow(self, op: Any, state: PassState) -> Flow | None:
        return weighted_flow(op, is_mixed=True, keeps_numbers=True, state=state)

    def permute(self, op: Any, permutation: Permutation, state: PassState) -> None:
        weight, order = read_constant(op.weight, state), permutation.of(op.input)
        assert weight is not None and order is not None, "all else is fixed"
        # Each channel has as many columns as the flattened tensor had pixels.
        columns = np.take(weight.reshape(len(weight), len(order), -1), order, axis=1)
        replace_constant(op, operand_number(op, "weight"), columns.reshape(weight.shape), state)

    def reference(self, op: Any, state: PassState) -> ir.Value:
        if is_quantised(op):
            return quantised_reference.multiply(op, state)
        return _multiply(op, decoded(op, op.weight, state), state)

    def store(self, op: Any, bits: int, state: PassState) -> tuple[bool, str]:
        if reason := cannot_store(op.weight, state):
            return False, reason
        return True, store_weights(op, operand_number(op, "weight"), bits, state)

    def work(self, op: Any) -> Work:
        weights = math.prod(op.weight.type.shape)
        return Work(weights, weights, 2 * weights * op.result.type.shape[0])


class SparseLinear(_Linear):
    """`pattern.sparse_linear`; without an algorithm for its format it is computed dense."""

    host = (BandVector(), PackPermute(), Gemv(), Gemm(), ZeroSkip())
    op = pattern.SparseLinearOp
    sparse = None
    raisers = ()
    quantised = Linear.quantised
    quantised_gpu = Linear.quantised_gpu

    def operands(self, op: Any) -> tuple[Operand, ...]:
        accesses = {"input": Access.PACKED, **array_accesses(op), **_EPILOGUE}
        return list_operands(op, accesses, shared=("input",))

    def channels(self, op: Any, state: PassState) -> Channels:
        if not are_constant(op.arrays, state):
            return fix_all(op)
        stored, _ = read_weights(op, state)
        inputs = (op.input,) if stored.reads_neighbours else ()
        return Channels(fixed=(op.result, *joined_channels(op.residual, op.result), *inputs))

    def permute(self, op: Any, permutation: Permutation, state: PassState) -> None:
        order, features = permutation.of(op.input), op.input.type.shape[1]
        assert order is not None, "all else is fixed"
        stored, arrays = read_weights(op, state)
        # Each channel has as many columns as the flattened tensor had pixels.
        columns = np.arange(features).reshape(len(order), -1)[order].ravel()
        replace_arrays(op, stored.permute_channels(arrays, positions(columns, features)), state)

    def store(self, op: Any, bits: int, state: PassState) -> tuple[bool, str]:
        return False, "its zeros are left out"

    def reference(self, op: Any, state: PassState) -> ir.Value:
        name = constant_name(op.arrays[0])
        stored, arrays = read_weights(op, state)
        dense = stored.decode(arrays, op.input.type.shape[1])[:, :, 0, 0]
        return _multiply(op, make_constant(dense, None if name is None else f"{name}.dense", state), state)

    def work(self, op: Any) -> Work:
        dense, kept = op.input.type.shape[1] * op.result.type.shape[1], kept_weights(op)
        return Work(dense, kept, 2 * kept * op.result.type.shape[0])


def _multiply(op: Any, weight: ir.Value, state: PassState) -> ir.Value:
    """Build product, bias, residual and activation of a linear layer."""
    shape = list(op.result.type.shape)
    columns = reference.transposed(weight, op)
    init = reference.zeros(shape, op) if op.bias is None else reference.broadcast(op.bias, shape, [0], op)
    product = linalg.matmul(reference.widen(op.input), columns, outs=[init])
    return reference.finish(op, product, op.residual, state)
