"""What combines two activations, as arithmetic on scalars or vectors."""

from __future__ import annotations

from collections.abc import Callable

from torch_mlir import ir
from torch_mlir.dialects import arith

# Functions of a value and the residual that joins it, by the names of `patc.dialects.joins`.
JOINS: dict[str, Callable[[ir.Value, ir.Value], ir.Value]] = {
    "add": arith.addf,
    "subtract": arith.subf,
    "subtract_from": lambda value, residual: arith.subf(residual, value),
    "multiply": arith.mulf,
    "divide": arith.divf,
}
