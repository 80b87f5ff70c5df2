"""Products of ONNX that torch-mlir lacks, or lowers to other numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from patc.frontend.onnx_writer import Writer, attribute_of

if TYPE_CHECKING:
    import onnx

_LARGEST_DETERMINANT = 32  # rows, of about a dozen nodes each


def _gemm(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Scale the second factor, which torch-mlir forgets to do where nothing is added."""
    a, b, *c = node.input
    alpha = attribute_of(node, "alpha", 1.0)
    kinds = writer.kinds
    if alpha == 1 or writer.element(b) not in (kinds.FLOAT, kinds.FLOAT16, kinds.DOUBLE):
        return None
    dtype = writer.dtype(b)
    scaled = writer.emit("Mul", b, writer.constant(np.array(alpha, dtype)))
    others = [attribute for attribute in node.attribute if attribute.name != "alpha"]
    return writer.emit("Gemm", a, scaled, *c, attributes=others)


def _einsum(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Multiply scalars, of which torch-mlir takes all memory to name the axes, and name the axes of results: those that
    come once, in the order of the alphabet."""
    equation = attribute_of(node, "equation", b"").decode().replace(" ", "")
    if equation.strip(",->"):
        if "->" in equation:
            return None
        letters = equation.replace("...", "").replace(",", "")
        once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        whole = f"{equation}->{'...' * ('...' in equation)}{''.join(once)}"
        return writer.emit("Einsum", *node.input, equation=whole)
    result, *others = node.input
    for other in others:
        result = writer.emit("Mul", result, other)
    return result if others else writer.emit("Identity", result)


def _matmul(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Give a vector that several matrices are multiplied with a second axis: torch-mlir has no lowering otherwise. What
    several matrices are multiplied with one constant is a fully connected layer of all their rows."""
    a, b = node.input
    ranks = len(writer.sizes(a)), len(writer.sizes(b))
    if ranks[0] > 2 and ranks[1] == 2 and b in writer.graph.constants and 0 not in writer.sizes(node.output[0]):
        rows = writer.constant(np.array([-1, writer.sizes(a)[-1]], np.int64))
        shape = writer.constant(np.array(writer.sizes(node.output[0]), np.int64))
        return writer.emit("Reshape", writer.emit("MatMul", writer.emit("Reshape", a, rows), b), shape)
    if min(ranks) != 1 or max(ranks) < 3:
        return None
    shape = writer.constant(np.array(writer.sizes(node.output[0]), np.int64))
    a, b = (
        writer.emit("Reshape", name, writer.constant(np.array(axes, np.int64))) if rank == 1 else name
        for name, rank, axes in zip((a, b), ranks, ([1, -1], [-1, 1]), strict=True)
    )
    return writer.emit("Reshape", writer.emit("MatMul", a, b), shape)


def _det(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Eliminate below the largest element of each column: torch-mlir takes the first one, which may be zero."""
    x = node.input[0]
    *_, size, _ = shape = writer.sizes(x)
    if size > _LARGEST_DETERMINANT:
        return None

    def number(value: Any, dtype: Any = None) -> str:
        return writer.constant(np.array(value, writer.dtype(x) if dtype is None else dtype))

    def part(name: str, axis: int, start: int, end: int = size) -> str:
        return writer.emit("Slice", name, *(number([each], np.int64) for each in (start, end, axis)))

    left, zero, one = writer.emit("Reshape", x, number([-1, size, size], np.int64)), number(0), number(1)
    result = number(np.ones((1, 1, 1)))
    for rows in range(size, 0, -1):
        largest = writer.emit("ArgMax", writer.emit("Abs", part(left, 2, 0, 1)), axis=1)
        chosen = writer.emit("Equal", largest, number(np.arange(rows)[:, None], np.int64))
        kept = writer.emit("Where", chosen, left, zero)
        row = writer.emit("ReduceSum", kept, number([1], np.int64))
        pivot = part(row, 2, 0, 1)
        is_first = writer.emit("Equal", largest, number(0, np.int64))
        sign = writer.emit("Where", is_first, one, number(-1))
        result = writer.emit("Mul", result, writer.emit("Mul", sign, pivot))
        if rows == 1:
            break
        # The first row goes where the largest one was.
        others = writer.emit("Where", part(chosen, 1, 1), part(left, 1, 0, 1), part(left, 1, 1))
        divisor = writer.emit("Where", writer.emit("Equal", pivot, zero), one, pivot)
        factors = writer.emit("Div", part(others, 2, 0, 1), divisor)
        left = writer.emit("Sub", part(others, 2, 1), writer.emit("Mul", factors, part(row, 2, 1)))
    return writer.emit("Reshape", result, number(shape[:-2], np.int64))


PRODUCTS: dict[str, Callable[[Writer, onnx.NodeProto], str | tuple[str, ...] | None]] = {
    "Det": _det,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
