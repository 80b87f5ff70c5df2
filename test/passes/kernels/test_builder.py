"""Arithmetic of kernels is that of their elements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from torch_mlir import ir
from torch_mlir.dialects import func

from patc.codegen import host
from patc.context import make_context
from patc.passes.ir.elements import mlir_type
from patc.passes.kernels.builder import Builder
from patc.runtime.native import NativeFunction
from patc.targets import get_target

LANES = 16
Emit = Callable[[Builder, list[ir.Value]], None]


def run(emit: Emit, *arrays: np.ndarray) -> None:
    """Run a kernel on flat arrays; it computes in the element type of the first."""
    with make_context(), ir.Location.unknown():
        module = ir.Module.create()
        types = [ir.MemRefType.get([array.size], mlir_type(array.dtype)) for array in arrays]
        with ir.InsertionPoint(module.body):
            function = func.FuncOp("main", (types, []))
        block = function.add_entry_block()
        with ir.InsertionPoint(block):
            emit(Builder(block, types[0].element_type), list(block.arguments))
            func.ReturnOp([])
        host.lower_to_llvm(module, get_target("host"))
        code = host.compile_object(module)
    NativeFunction(code, "main", len(arrays), threads=1)(*(array.ctypes.data for array in arrays))


def emit_dot_product(b: Builder, memories: list[ir.Value]) -> None:
    """Write what a quantized layer computes: a sum of products in the type of the output, plus 1, clamped."""
    lhs, rhs, output = memories
    total = output.type.element_type
    vectors = [b.convert(b.load(memory, 0, 0, LANES), total) for memory in (lhs, rhs)]
    value = b.plus(b.sum_lanes(b.fma(*vectors, b.splat(0, LANES, total))), b.scalar(1, total))
    b.store(b.at_most(b.at_least(value, b.scalar(-20000, total)), b.scalar(20000, total)), output, 0, 0)
    b.store(b.maximum(value, b.times(value, b.scalar(-1, total))), output, 0, 1)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("factors", "sums"), [("int8", "int32"), ("float16", "float32"), ("float32", "float32")])
def test_sums_of_products(factors: str, sums: str, sign: int) -> None:
    lhs, rhs = np.full(LANES, sign * 100).astype(factors), np.arange(LANES).astype(factors)
    output = np.zeros(2, sums)
    run(emit_dot_product, lhs, rhs, output)
    wanted = sign * 12000 + 1
    assert output.tolist() == [wanted, abs(wanted)]
    run(emit_dot_product, lhs, (2 * rhs).astype(factors), output)
    assert output.tolist() == [sign * 20000, abs(sign * 24000 + 1)]


@pytest.mark.parametrize(
    ("source", "target", "values"),
    [
        ("int8", "float32", [-128, 0, 127]),
        ("float32", "int8", [-128, 0, 127]),
        ("int32", "int8", [-128, 5, 127]),
        ("int16", "int64", [-32768, 1, 32767]),
        ("float16", "float64", [0.5, -2, 65504]),
        ("float64", "float16", [0.5, -2, 65504]),
    ],
)
def test_conversions(source: str, target: str, values: list[float]) -> None:
    def emit(b: Builder, memories: list[ir.Value]) -> None:
        given, output = memories
        element = output.type.element_type
        for place in range(len(values)):
            b.store(b.convert(b.load_scalar(given, place), element), output, 0, place)

    output = np.zeros(len(values), target)
    run(emit, np.array(values, source), output)
    assert output.tolist() == values
