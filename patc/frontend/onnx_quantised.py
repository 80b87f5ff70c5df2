"""Quantised operations of ONNX as arithmetic on f32: what they compute, not how fast integers would be.

Integers of 8 bits, and their products, are exact in f32; sums are as long as they stay below 2^24.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from patc.diagnostics import PatcError
from patc.frontend.onnx_writer import Writer, attribute_of

if TYPE_CHECKING:
    import onnx

_EXACT = 1 << 24  # below it f32 holds all integers


def _quantize(writer: Writer, node: onnx.NodeProto) -> str | None:
    x, scale, zero = _inputs(node, 3)
    element = writer.element(node.output[0])
    if not _has_range(writer, element) or not _is_float(writer, x) or attribute_of(node, "block_size", 0):
        return None
    axis = attribute_of(node, "axis", 1)
    divided = writer.emit("Div", x, _along(writer, scale, x, axis))
    return _saturate(writer, node, divided, _along(writer, zero, x, axis) if zero else "")


def _dequantize(writer: Writer, node: onnx.NodeProto) -> str | None:
    x, scale, zero = _inputs(node, 3)
    if not _is_integer(writer, x) or not _is_float(writer, scale) or attribute_of(node, "block_size", 0):
        return None
    axis = attribute_of(node, "axis", 1)
    return writer.emit("Mul", _real(writer, x, zero, axis), _along(writer, scale, x, axis))


def _product_of_integers(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Write a product whose result is integers of 32 bits."""
    a, b, a_zero, b_zero = _inputs(node, 4)
    is_matmul = node.op_type == "MatMulInteger"
    if not _is_integer(writer, a) or not _is_integer(writer, b):
        return None
    one, other = _operands(writer, node, (a, a_zero), (b, b_zero))
    int32 = writer.kinds.INT32
    if is_matmul and writer.sizes(b)[-2:][0] * 255 * 255 >= _EXACT:
        return writer.emit("MatMul", writer.cast(one, int32), writer.cast(other, int32))
    return writer.cast(writer.emit("MatMul" if is_matmul else "Conv", one, other, attributes=node.attribute), int32)


def _product(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Write a product whose result is quantised."""
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero, bias = _inputs(node, 9)
    known = _has_range(writer, writer.element(node.output[0])) and _is_float(writer, scale)
    if not known or not _is_integer(writer, a) or not _is_integer(writer, b):
        return None
    is_matmul = node.op_type == "QLinearMatMul"
    operands = _operands(writer, node, (a, a_zero), (b, b_zero))
    if bias:
        operands.append(writer.cast(bias, writer.kinds.FLOAT))
    product = writer.emit("MatMul" if is_matmul else "Conv", *operands, attributes=node.attribute)
    if not is_matmul:
        b_scale = _along(writer, b_scale, a, 1)
    factor = writer.emit("Div", writer.emit("Mul", a_scale, b_scale), scale)
    return _saturate(writer, node, writer.emit("Mul", product, factor), zero)


def _operands(writer: Writer, node: onnx.NodeProto, one: tuple[str, str], other: tuple[str, str]) -> list[str]:
    """Return the operands of a product, each given with its zero points, as floats without these."""
    ranks = [len(writer.sizes(x)) for x, _ in (one, other)]
    axes = (1, 0) if "Conv" in node.op_type else (ranks[0] - 2, ranks[1] - 1)
    return [_real(writer, x, zero, axis) for (x, zero), axis in zip((one, other), axes, strict=True)]


def _real(writer: Writer, x: str, zero: str, axis: int) -> str:
    """Return x - zero as f32."""
    value = writer.numbers.get(x) or writer.cast(x, writer.kinds.FLOAT)
    return writer.emit("Sub", value, _along(writer, zero, x, axis)) if zero and not _is_zero(writer, zero) else value


def _saturate(writer: Writer, node: onnx.NodeProto, value: str, zero: str) -> str:
    """Return a value rounded, with the zero point added, as integers of the result's type."""
    element = writer.element(node.output[0])
    rounded = writer.emit("Round", value)
    if zero and not _is_zero(writer, zero):
        rounded = writer.emit("Add", rounded, writer.cast(zero, writer.kinds.FLOAT))
    low, high = (0, 255) if element == writer.kinds.UINT8 else (-128, 127)
    numbers = writer.emit("Clip", rounded, writer.constant(np.float32(low)), writer.constant(np.float32(high)))
    writer.numbers[node.output[0]] = numbers
    # By way of 32 bits: see the rule of Cast.
    return writer.emit("Cast", writer.emit("Cast", numbers, to=writer.kinds.INT32), to=element)


def _along(writer: Writer, name: str, like: str, axis: int) -> str:
    """Return one number, or one for each place along an axis of `like`, as f32 in a form that broadcasts."""
    floats = writer.cast(name, writer.kinds.FLOAT)
    sizes, rank = writer.sizes(name), len(writer.sizes(like))
    if len(sizes) != 1 or rank < 2:
        return floats
    if not -rank <= axis < rank:
        place = f"{writer.graph.path}: {writer.name}"
        raise PatcError(f"expected an axis of a tensor of {rank} dimensions, found {axis}", place)
    form = [1] * rank
    form[axis] = sizes[0]
    return writer.emit("Reshape", floats, writer.constant(np.array(form, np.int64)))


def _inputs(node: onnx.NodeProto, count: int) -> list[str]:
    return [*node.input, *[""] * (count - len(node.input))]


def _is_zero(writer: Writer, name: str) -> bool:
    array = writer.graph.constants.get(name)
    return array is not None and not array.any()


def _is_float(writer: Writer, name: str) -> bool:
    return writer.element(name) == writer.kinds.FLOAT


def _is_integer(writer: Writer, name: str) -> bool:
    return writer.element(name) in (writer.kinds.INT8, writer.kinds.UINT8, writer.kinds.INT32)


def _has_range(writer: Writer, element: int) -> bool:
    return element in (writer.kinds.INT8, writer.kinds.UINT8)


QUANTISED = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "MatMulInteger": _product_of_integers,
    "ConvInteger": _product_of_integers,
    "QLinearMatMul": _product,
    "QLinearConv": _product,
}
