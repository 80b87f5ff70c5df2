"""Transposes that make places of channels, and slices put between each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import tensor

from patc.dialects.attributes import Activation, i64_array
from patc.dialects.pattern import Conv2dOp, DepthToSpaceOp
from patc.passes.base import PassState
from patc.passes.ir.constants import constant_name, make_constant, read_constant
from patc.passes.raising.linalg_layers import tensor_like

# Where the dimensions of the result, height and width in two each, are in the input, its channels in three: of channels
# that have their phases behind each other, and of phases that have their channels behind each other.
ORDERS = {"CRD": [0, 1, 4, 2, 5, 3], "DCR": [0, 3, 4, 1, 5, 2]}
APART, TOGETHER = [[0], [1, 2, 3], [4], [5]], [[0], [1], [2, 3], [4, 5]]


def raise_pixel_shuffle(op: Any, state: PassState) -> ir.Value | None:
    """Raise a transpose between an expand_shape and a collapse_shape."""
    turn = op.operands[0].owner
    if isinstance(turn, ir.Block) or turn.name != "linalg.transpose" or _groups(op) != TOGETHER:
        return None
    apart, order = turn.operands[0].owner, list(turn.opview.permutation)
    if isinstance(apart, ir.Block) or apart.name != "tensor.expand_shape" or _groups(apart) != APART:
        return None
    mode = next((mode for mode, known in ORDERS.items() if known == order), None)
    if mode is None:
        return None
    shape = turn.results[0].type.shape
    return _build(apart.operands[0], (shape[3], shape[5]), mode, op.result.type)


def _groups(op: Any) -> list[list[int]]:
    return [[int(axis) for axis in group] for group in op.operation.attributes["reassociation"]]


def _build(source: ir.Value, steps: tuple[int, int], mode: str, type_: ir.Type) -> ir.Value:
    return DepthToSpaceOp(
        input=source,
        result=type_,
        steps=i64_array(steps),
        mode=ir.StringAttr.get(mode),
        activation=Activation().to_attr(),
    ).result


def raise_phases(op: Any, state: PassState) -> ir.Value | None:
    """Raise slices of equal size, one for each place within a stride, that are put between each other."""
    if op.result.type.rank != 4:
        return None
    phases, steps = _read_phases(op)
    count = math.prod(steps)
    if count == 1 or len(phases) < count:
        return None
    type_ = op.result.type
    values = [phases[divmod(number, steps[1])] for number in range(count)]
    sizes = {(steps[0] * value.type.shape[2], steps[1] * value.type.shape[3]) for value in values}
    if sizes != {tuple(type_.shape[2:])}:
        return None
    joined = _as_one(values, state)
    if joined is None:
        shape = [type_.shape[0], count * type_.shape[1], *values[0].type.shape[2:]]
        joined = tensor.concat(tensor_like(shape, values[0]), 1, values)
    return _build(joined, steps, "DCR", type_)


def _read_phases(op: Any) -> tuple[dict[tuple[int, int], ir.Value], tuple[int, int]]:
    """Return the slices that a chain of insertions puts between each other by their places, and the strides; no slices
    where it does anything else."""
    phases: dict[tuple[int, int], ir.Value] = {}
    steps = op.static_strides[2], op.static_strides[3]
    value = op.result
    while not isinstance(value.owner, ir.Block) and value.owner.name == "tensor.insert_slice":
        inner, source = value.owner.opview, value.owner.operands[0]
        offsets = list(inner.static_offsets)
        is_phase = list(inner.static_strides) == [1, 1, *steps] and list(inner.static_sizes) == list(source.type.shape)
        is_whole = offsets[:2] == [0, 0] and list(source.type.shape[:2]) == list(value.type.shape[:2])
        if len(value.owner.operands) > 2 or len(offsets) != 4 or not (is_phase and is_whole):
            return {}, steps
        phases.setdefault((offsets[2], offsets[3]), source)
        value = value.owner.operands[1]
    places = {(down, right) for down in range(steps[0]) for right in range(steps[1])}
    return (phases if set(phases) == places else {}), steps


def _as_one(values: Sequence[ir.Value], state: PassState) -> ir.Value | None:
    """Return one convolution for several of the same window over the same input, or None."""
    layers: list[Any] = [value.owner.opview if not isinstance(value.owner, ir.Block) else None for value in values]
    if not all(isinstance(layer, Conv2dOp) and len(list(layer.result.uses)) == 1 for layer in layers):
        return None
    first = layers[0]
    kept = ("strides", "pads", "dilations", "groups", "activation")
    alike = all(
        layer.input == first.input
        and layer.bias == first.bias
        and layer.residual is None
        and layer.weight.type == first.weight.type
        and all(layer.attributes[name] == first.attributes[name] for name in kept)
        for layer in layers
    )
    arrays = [array for layer in layers if (array := read_constant(layer.weight, state)) is not None]
    bias = None if first.bias is None else read_constant(first.bias, state)
    are_known = len(arrays) == len(layers) and (first.bias is None) == (bias is None)
    if not alike or not are_known or first.groups.value != 1 or Activation.of(first).arrays:
        return None
    weight = make_constant(np.concatenate(arrays), constant_name(first.weight), state)
    if bias is not None:
        bias = make_constant(np.tile(bias, len(layers)), constant_name(first.bias), state)
    batch, filters, *size = first.result.type.shape
    result = tensor_like([batch, len(layers) * filters, *size], first.result)
    same = {name: getattr(first, name) for name in ("input", *kept)}
    return Conv2dOp(result=result, weight=weight, bias=bias, **same).result
