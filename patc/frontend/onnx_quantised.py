"""Quantised operations of ONNX as arithmetic on f32: what they compute, not how fast integers would be.

Integers of 16 bits, and products of those of 8, are exact in f32; sums are as long as they stay below 2^24.
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
    if not _has_range(writer, element) or not _is_float(writer, x):
        return None
    axis, block = attribute_of(node, "axis", 1), attribute_of(node, "block_size", 0)
    divided = writer.emit("Div", writer.cast(x, writer.kinds.FLOAT), _along(writer, scale, x, axis, block))
    return _saturate(writer, node, divided, _along(writer, zero, x, axis, block) if zero else "")


def _dequantize(writer: Writer, node: onnx.NodeProto) -> str | None:
    x, scale, zero = _inputs(node, 3)
    kinds = writer.kinds
    known = _is_integer(writer, x) or writer.element(x) in (kinds.INT16, kinds.UINT16)
    if not known or not _is_float(writer, scale):
        return None
    axis, block = attribute_of(node, "axis", 1), attribute_of(node, "block_size", 0)
    product = writer.emit("Mul", _real(writer, x, zero, axis, block), _along(writer, scale, x, axis, block))
    element = writer.element(node.output[0])
    return product if element == kinds.FLOAT else writer.emit("Cast", product, to=element)


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
    scales = [writer.cast(name, writer.kinds.FLOAT) for name in (a_scale, scale)]
    scales.append(writer.cast(b_scale, writer.kinds.FLOAT) if is_matmul else _along(writer, b_scale, a, 1))
    factor = writer.emit("Div", writer.emit("Mul", scales[0], scales[2]), scales[1])
    return _saturate(writer, node, writer.emit("Mul", product, factor), zero)


def _operands(writer: Writer, node: onnx.NodeProto, one: tuple[str, str], other: tuple[str, str]) -> list[str]:
    """Return the operands of a product, each given with its zero points, as floats without these."""
    ranks = [len(writer.sizes(x)) for x, _ in (one, other)]
    axes = (1, 0) if "Conv" in node.op_type else (ranks[0] - 2, ranks[1] - 1)
    return [_real(writer, x, zero, axis) for (x, zero), axis in zip((one, other), axes, strict=True)]


def _real(writer: Writer, x: str, zero: str, axis: int, block: int = 0) -> str:
    """Return x - zero as f32."""
    value = writer.numbers.get(x) or writer.cast(x, writer.kinds.FLOAT)
    if not zero or _is_zero(writer, zero):
        return value
    return writer.emit("Sub", value, _along(writer, zero, x, axis, block))


def _saturate(writer: Writer, node: onnx.NodeProto, value: str, zero: str) -> str:
    """Return a value rounded, with the zero point added, as integers of the result's type."""
    element = writer.element(node.output[0])
    rounded = writer.emit("Round", value)
    if zero and not _is_zero(writer, zero):
        rounded = writer.emit("Add", rounded, writer.cast(zero, writer.kinds.FLOAT))
    limits = np.iinfo(writer.dtype(node.output[0]))
    numbers = writer.emit("Clip", rounded, *(writer.constant(np.float32(end)) for end in (limits.min, limits.max)))
    writer.numbers[node.output[0]] = numbers
    # By way of 32 bits: see the rule of Cast.
    return writer.emit("Cast", writer.emit("Cast", numbers, to=writer.kinds.INT32), to=element)


def _along(writer: Writer, name: str, like: str, axis: int, block: int = 0) -> str:
    """Return one number, or one for each place along an axis of `like`, as f32 in a form that broadcasts.

    Args:
        block: places along the axis that share a number, where `name` has all axes of `like`; 0 for no blocks.
    """
    floats = writer.cast(name, writer.kinds.FLOAT)
    sizes, rank = writer.sizes(name), len(writer.sizes(like))
    if block > 0 and len(sizes) == rank and -rank <= axis < rank:
        place = axis % rank
        shapes = ([*sizes[: place + 1], count, *sizes[place + 1 :]] for count in (1, block))
        split, repeated = (writer.constant(np.array(shape, np.int64)) for shape in shapes)
        spread = writer.emit("Expand", writer.emit("Reshape", floats, split), repeated)
        whole = [size * block if other == place else size for other, size in enumerate(sizes)]
        flat = writer.emit("Reshape", spread, writer.constant(np.array(whole, np.int64)))
        ends = ([0], [writer.sizes(like)[place]], [place])  # the last block may be shorter
        return writer.emit("Slice", flat, *(writer.constant(np.array(end, np.int64)) for end in ends))
    if len(sizes) != 1 or rank < 2:
        return floats
    if not -rank <= axis < rank:
        where = f"{writer.graph.path}: {writer.name}"
        raise PatcError(f"expected an axis of a tensor of {rank} dimensions, found {axis}", where)
    form = [1] * rank
    form[axis] = sizes[0]
    return writer.emit("Reshape", floats, writer.constant(np.array(form, np.int64)))


def _inputs(node: onnx.NodeProto, count: int) -> list[str]:
    return [*node.input, *[""] * (count - len(node.input))]


def _is_zero(writer: Writer, name: str) -> bool:
    array = writer.graph.constants.get(name)
    return array is not None and not array.any()


def _is_float(writer: Writer, name: str) -> bool:
    return writer.element(name) in (writer.kinds.FLOAT, writer.kinds.FLOAT16, writer.kinds.BFLOAT16)


def _is_integer(writer: Writer, name: str) -> bool:
    return writer.element(name) in (writer.kinds.INT8, writer.kinds.UINT8, writer.kinds.INT32)


def _has_range(writer: Writer, element: int) -> bool:
    kinds = writer.kinds
    return element in (kinds.INT8, kinds.UINT8, kinds.INT16, kinds.UINT16)


QUANTISED = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "MatMulInteger": _product_of_integers,
    "ConvInteger": _product_of_integers,
    "QLinearMatMul": _product,
    "QLinearConv": _product,
}
