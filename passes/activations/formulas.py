"""What formulas of activations are written in: Python's operators, and the functions of `Formulas`.

They run on numpy arrays, and on terms that build operations: vectors in kernels, scalars in the bodies of linalg ops.
"""

from __future__ import annotations

import math as numbers
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, math

from patc.passes.functions import errors, exponentials, hyperbolic, logarithms
from patc.passes.functions.arithmetic import Arithmetic


class Formulas(Protocol):
    """Functions of numbers, each of which is an array, a term or a float."""

    def exp(self, x: Any) -> Any: ...
    def decay(self, x: Any) -> Any:
        """Return exp(-|x|)."""

    def expm1(self, x: Any) -> Any: ...
    def log1p(self, x: Any) -> Any: ...
    def tanh(self, x: Any) -> Any: ...
    def gelu(self, x: Any) -> Any:
        """Return x times the share of a normal distribution below x."""

    def at_least(self, x: Any, bound: Any) -> Any:
        """Return max(x, bound); NaN stays NaN."""

    def at_most(self, x: Any, bound: Any) -> Any:
        """Return min(x, bound); NaN stays NaN."""

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        """Return a where a comparison of two numbers holds, else b."""


ON_ARRAYS: Any = SimpleNamespace(
    exp=np.exp,
    decay=lambda x: np.exp(-np.abs(x)),
    expm1=np.expm1,
    log1p=np.log1p,
    tanh=np.tanh,
    gelu=lambda x: (np.vectorize(numbers.erf)(x * numbers.sqrt(0.5)) + 1.0) * 0.5 * x,
    at_least=np.maximum,
    at_most=np.minimum,
    where=np.where,
)


class Term:
    """A scalar or a vector that operators build operations on."""

    def __init__(self, a: Arithmetic, value: ir.Value) -> None:
        self.a = a
        self.value = value

    def of(self, other: Term | float) -> ir.Value:
        """Return another term or a number as a value beside this one."""
        return other.value if isinstance(other, Term) else self.a.number(other)

    def __add__(self, other: Term | float) -> Term:
        return Term(self.a, self.a.add(self.value, self.of(other)))

    def __sub__(self, other: Term | float) -> Term:
        return Term(self.a, self.a.sub(self.value, self.of(other)))

    def __mul__(self, other: Term | float) -> Term:
        return Term(self.a, self.a.mul(self.value, self.of(other)))

    def __truediv__(self, other: Term | float) -> Term:
        return Term(self.a, self.a.div(self.value, self.of(other)))

    def __neg__(self) -> Term:
        return self * -1.0

    def __abs__(self) -> Term:
        return Term(self.a, self.a.abs(self.value))

    def __gt__(self, other: Term | float) -> ir.Value:
        return self.a.compare("ogt", self.value, self.of(other))

    __radd__, __rmul__ = __add__, __mul__


class InKernels:
    """Formulas whose functions are arithmetic."""

    def exp(self, x: Term) -> Term:
        return Term(x.a, exponentials.exp(x.a, x.value))

    def decay(self, x: Term) -> Term:
        return Term(x.a, exponentials.decay(x.a, x.value))

    def expm1(self, x: Term) -> Term:
        return Term(x.a, exponentials.expm1(x.a, x.value))

    def log1p(self, x: Term) -> Term:
        return Term(x.a, logarithms.log1p(x.a, x.value))

    def tanh(self, x: Term) -> Term:
        return Term(x.a, hyperbolic.tanh(x.a, x.value))

    def gelu(self, x: Term) -> Term:
        return Term(x.a, errors.gelu(x.a, x.value))

    def at_least(self, x: Term, bound: Term | float) -> Term:
        limit = x.of(bound)  # this form is a single instruction on x86
        return Term(x.a, x.a.select("ogt", limit, x.value, limit, x.value))

    def at_most(self, x: Term, bound: Term | float) -> Term:
        limit = x.of(bound)
        return Term(x.a, x.a.select("olt", limit, x.value, limit, x.value))

    def where(self, condition: ir.Value, a: Term | float, b: Term | float) -> Term:
        known = a if isinstance(a, Term) else b
        assert isinstance(known, Term)
        return Term(known.a, known.a.choose(condition, known.of(a), known.of(b)))


class InLinalg(InKernels):
    """Formulas whose functions are operations of their own."""

    def exp(self, x: Term) -> Term:
        return Term(x.a, math.ExpOp(x.value).result)

    def decay(self, x: Term) -> Term:
        return self.exp(-abs(x))

    def expm1(self, x: Term) -> Term:
        return Term(x.a, math.ExpM1Op(x.value).result)

    def log1p(self, x: Term) -> Term:
        return Term(x.a, math.Log1pOp(x.value).result)

    def tanh(self, x: Term) -> Term:
        return Term(x.a, math.TanhOp(x.value).result)

    def gelu(self, x: Term) -> Term:
        return (Term(x.a, math.ErfOp((x * numbers.sqrt(0.5)).value).result) + 1.0) * 0.5 * x

    def at_least(self, x: Term, bound: Term | float) -> Term:
        return Term(x.a, arith.MaximumFOp(x.value, x.of(bound)).result)

    def at_most(self, x: Term, bound: Term | float) -> Term:
        return Term(x.a, arith.MinimumFOp(x.value, x.of(bound)).result)
