"""Layers with weights, as they become quantised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch_mlir import ir

from patc.dialects.joins import Join
from patc.dialects.quantised import Quantisation
from patc.passes.base import PassState
from patc.passes.formats.layer_weights import find_dense_weight
from patc.passes.ir.constants import constant_name, make_constant, read_constant
from patc.passes.ir.quantised import IntegerWeights, Known
from patc.passes.ir.ranges import read_correction


def joins_simply(op: Any, state: PassState) -> bool:
    """Return whether weights and bias are constants of f32, and a residual is one that is added before the
    activation."""
    weight, join = find_dense_weight(op, state), Join.of(op)
    if weight is None or weight.array.dtype.name != "float32":
        return False
    if op.bias is not None and read_constant(op.bias, state) is None:
        return False
    if op.residual is None:
        return True
    is_added = join.function == "add" and not join.is_last
    return is_added and list(op.residual.type.shape) == list(op.result.type.shape)


def with_integers(
    op: Any,
    dense: type,
    given: Mapping[int, ir.Value],
    result: ir.Type,
    state: PassState,
    known: Known | None,
    **attributes: Any,
) -> ir.Value:
    """Build a layer with weights of i8 at the insertion point; those of a sparse one are decoded.

    Args:
        dense: the op with dense weights.
        given: activations by the numbers of the operands: the input is the first, a residual the last.
        known: see `LayerKind.quantise`.
        attributes: of the op, beside its activation and how a residual joins.
    """
    weight, source = find_dense_weight(op, state), given[0]
    quantisation = Quantisation.of(source.type)
    assert weight is not None and quantisation is not None, "it can be quantised"
    bias = None if op.bias is None else read_constant(op.bias, state)
    correction = read_correction(op, len(weight.array))
    if correction is not None:
        bias = correction if bias is None else bias + correction
    integers = IntegerWeights.of(weight.array, bias, quantisation, known)

    def constant(array: Any, origin: ir.Value, role: str = "int8") -> ir.Value:
        name = constant_name(origin)
        return make_constant(array, None if name is None else f"{name}.{role}", state)

    def constant_bias(array: Any) -> ir.Value:
        return constant(array, weight.origin, "int8.bias") if op.bias is None else constant(array, op.bias)

    # What is added up in f32 takes a residual in f32.
    residual = op.residual if op.residual is None or Quantisation.of(result) is None else given[max(given)]
    made = dense(
        result=result,
        input=source,
        weight=constant(integers.weight, weight.origin),
        bias=None if integers.bias is None else constant_bias(integers.bias),
        residual=residual,
        activation=op.activation,
        **attributes,
    )
    made.attributes["scales"] = ir.DenseF32ArrayAttr.get(integers.scales.tolist())
    return made.result
