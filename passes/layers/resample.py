"""Planes resampled: interpolation, and pads that repeat what is inside."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

from patc.dialects import pattern
from patc.passes.algorithms.gpu.resample import Resample as GpuResample
from patc.passes.algorithms.gpu.resample import ResampleWords as GpuResampleWords
from patc.passes.algorithms.host.resample import Resample as HostResample
from patc.passes.algorithms.host.resample import ResampleWords
from patc.passes.base import PassState
from patc.passes.formats.layer_weights import require_array
from patc.passes.ir.constants import make_constant
from patc.passes.ir.quantised import is_quantised
from patc.passes.ir.resampling import is_copy
from patc.passes.layers import quantised_reference, reference
from patc.passes.layers.base import (
    Access,
    Channels,
    OneType,
    Operand,
    Sign,
    WithoutWeights,
    flow_of,
    joined_channels,
    list_operands,
    sign_of_activation,
)
from patc.passes.layers.flow import Flow


class Resample(WithoutWeights, OneType):
    """`pattern.resample`; `passes/raising/resampling.py` finds them."""

    op = pattern.ResampleOp
    raisers = ()
    host = (HostResample(),)
    quantised = (ResampleWords(),)
    quantised_gpu = (GpuResampleWords(),)
    keeps_scale = True
    gpu = (GpuResample(),)

    def operands(self, op: Any) -> tuple[Operand, ...]:
        accesses = {
            "input": Access.ELEMENTS,
            "rows": Access.INDICES,
            "columns": Access.INDICES,
            "row_weights": Access.WEIGHTS,
            "column_weights": Access.WEIGHTS,
            "residual": Access.ELEMENTS,
        }
        return list_operands(op, accesses)

    def window(self, op: Any) -> None:
        return None

    def is_pointwise(self, op: Any) -> bool:
        return False

    def sign(self, op: Any) -> Sign:
        return Sign.AS_INPUT if is_copy(op) else sign_of_activation(op)

    def flow(self, op: Any, state: PassState) -> Flow | None:
        return flow_of(op, keeps_numbers=False)

    def channels(self, op: Any, state: PassState) -> Channels:
        return Channels(tied=(op.input, *joined_channels(op.residual, op.result), op.result))

    def reference(self, op: Any, state: PassState) -> ir.Value:
        is_copied = is_quantised(op)
        source = quantised_reference.as_floats(op.input) if is_copied else reference.widen(op.input)
        taps: list[list[ir.Value]] = []
        for name, weights in (("rows", "row_weights"), ("columns", "column_weights")):
            places = require_array(op, getattr(op, name), name, state).astype(np.int64)
            given = getattr(op, weights)
            known = np.ones(places.shape) if given is None else require_array(op, given, weights, state)
            taps.append(
                [
                    make_constant(each, None, state)
                    for pair in zip(places, known.astype(np.float32), strict=True)
                    for each in pair
                ]
            )
        made = _gather(op, source, *taps)
        return (
            quantised_reference.from_floats(op, made) if is_copied else reference.finish(op, made, op.residual, state)
        )


def _gather(op: Any, source: ir.Value, rows: list[ir.Value], columns: list[ir.Value]) -> ir.Value:
    """Build the sums over taps; each tap is its places and its weights."""
    shape, element = list(op.result.type.shape), source.type.element_type
    type_, index = ir.RankedTensorType.get(shape, element), ir.IndexType.get()
    identity = ir.AffineMap.get_identity(4)
    maps = [ir.AffineMap.get(4, 0, [ir.AffineExpr.get_dim(axis)]) for axis in [2] * len(rows) + [3] * len(columns)]
    made = linalg.GenericOp(
        [type_],
        [*rows, *columns],
        [tensor.empty(shape, element)],
        ir.ArrayAttr.get([ir.AffineMapAttr.get(map_) for map_ in (*maps, identity)]),
        ir.ArrayAttr.get([ir.Attribute.parse("#linalg.iterator_type<parallel>")] * 4),
    )
    body = made.regions[0].blocks.append(*(value.type.element_type for value in (*rows, *columns)), element)
    with ir.InsertionPoint(body):
        given = list(body.arguments)[:-1]
        places = [arith.IndexCastOp(index, each).result for each in given[::2]]
        weights = given[1::2]
        image, channel = (linalg.IndexOp(axis).result for axis in (0, 1))
        total, count = None, len(rows) // 2
        for row in range(count):
            for column in range(count, len(places)):
                read = tensor.ExtractOp(source, [image, channel, places[row], places[column]]).result
                part = arith.mulf(arith.mulf(read, weights[row]), weights[column])
                total = part if total is None else arith.addf(total, part)
        linalg.yield_([total])
    return made.result
