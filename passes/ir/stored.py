"""Weights that are integers in memory, with a scale for each filter, of layers that compute in f32: kernels expand them
as they load them. Of one bit they are 1 or -1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch_mlir import ir

from patc.dialects.quantised import Quantisation
from patc.passes.base import PassState, fail
from patc.passes.ir.constants import constant_name, make_constant, read_constant
from patc.passes.ir.elements import stored_bytes
from patc.passes.ir.quantised import multiples

BITS = "pattern.weight_bits"  # of a layer whose weights are to be stored so: i64, of `CHOICES`
CHOICES = (8, 1)
_LEVELS = 127.0  # of eight bits, on either side of 0
_ROUNDED = 2.0**-44  # of the squares of numbers that were computed in f32


def read_bits(op: Any) -> int | None:
    """Return in how many bits a layer's weights are to be stored; None where nothing is said.

    Raises:
        PatcError: in another number than there are kernels for.
    """
    found = op.attributes.get(BITS, None)
    if found is None:
        return None
    if not isinstance(found, ir.IntegerAttr) or found.value not in CHOICES:
        raise fail(op, f"{BITS} to be {' or '.join(map(str, CHOICES))}", found)
    return int(found.value)


def holds_integers(op: Any) -> bool:
    """Return whether the weights of a layer that computes in f32 are integers in memory."""
    return "scales" in op.attributes and Quantisation.of(op.operands[0].type) is None


def holds_bits(op: Any) -> bool:
    """Return whether they are of one bit."""
    return holds_integers(op) and str(op.weight.type.element_type) == "i1"


def read_scales(op: Any, name: str = "scales") -> np.ndarray | None:
    """Return the scales of such weights, an f32 a filter; None of others."""
    return np.array(list(op.attributes[name]), np.float32) if holds_integers(op) else None


def integers_of(weight: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return F x C weights as integers, i8 or bool, and their scales, F of f32.

    Weights that are multiples of a number already stay exactly that. Else the largest of a filter becomes 127 or, with
    one bit, the scale is the mean of their magnitudes, by which the squared error is least. What one bit holds exactly
    is stored in one.
    """
    sizes = np.abs(weight)
    largest = sizes.max(axis=1)
    if bits == 1 or (sizes == largest[:, None]).all():
        return weight >= 0, sizes.mean(axis=1, dtype=np.float64).astype(np.float32)
    steps = multiples(weight, np.zeros(0, np.float32))
    scales = np.where(np.isnan(steps), largest / np.float32(_LEVELS), steps).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        integers = np.rint(weight.astype(np.float64) / scales[:, None])
    integers = np.where(scales[:, None] > 0, np.clip(integers, -_LEVELS, _LEVELS), 0.0)
    return integers.astype(np.int8), scales


def numbers_of(integers: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return the weights that integers stand for, in f32."""
    factors = integers if integers.dtype != bool else np.where(integers, np.int8(1), np.int8(-1))
    numbers: np.ndarray = factors.astype(np.float32) * scales[:, None]
    return numbers


def decoded(op: Any, weight: ir.Value, state: PassState, name: str = "scales") -> ir.Value:
    """Return weights of a layer as a constant of f32, built at the insertion point; as they are where they are no
    integers.

    Raises:
        PatcError: integers that are no constant.
    """
    scales = read_scales(op, name)
    if scales is None:
        return weight
    integers = read_constant(weight, state)
    if integers is None:
        raise fail(op, "constant weights", weight.type)
    stored = constant_name(weight)
    return make_constant(numbers_of(integers, scales), None if stored is None else f"{stored}.f32", state)


def cannot_store(weight: ir.Value, state: PassState) -> str:
    """Return why weights cannot become integers in memory; "" where they can."""
    array = read_constant(weight, state)
    if array is None or array.dtype != np.float32:
        return "they are no constants of f32"
    return "" if np.isfinite(array).all() else "they are not finite"


def store_weights(op: Any, operand: int, bits: int, state: PassState, name: str = "scales") -> str:
    """Make the weights of a layer, a constant operand of f32, integers; return what reports say of them.

    Args:
        name: of the attribute with the scales.
    """
    weight = op.operands[operand]
    array = read_constant(weight, state)
    assert array is not None, "the layer has asked for it"
    integers, scales = integers_of(array, bits)
    stored = constant_name(weight)
    with ir.InsertionPoint(op), op.location:
        made = make_constant(integers, None if stored is None else f"{stored}.{integers.dtype.name}", state)
    op.operation.operands[operand] = made
    op.attributes[name] = ir.DenseF32ArrayAttr.get(scales.tolist())
    signal = (array.astype(np.float64) ** 2).sum()
    noise = ((array.astype(np.float64) - numbers_of(integers, scales)) ** 2).sum()
    size = "a bit" if integers.dtype == bool else "a byte"
    is_exact = noise <= signal * _ROUNDED
    exactness = "exactly" if is_exact else f"with a signal-to-noise of {10 * np.log10(signal / noise):.1f} dB"
    return f"its weights take {size} each, {exactness}"


def tensor_bytes(op: Any, value: ir.Value) -> int:
    """Return the bytes of an operand or a result of a layer, of which weights of one bit take an eighth."""
    is_bit = str(value.type.element_type) == "i1" and holds_integers(op)
    return -(-stored_bytes(value.type) // 8) if is_bit else stored_bytes(value.type)
