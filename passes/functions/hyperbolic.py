"""Hyperbolic functions and their inverses."""

from __future__ import annotations

import math as numbers

from torch_mlir import ir
from torch_mlir.dialects import math

from patc.passes.functions.arithmetic import Arithmetic
from patc.passes.functions.exponentials import exp, expm1
from patc.passes.functions.logarithms import log, log1p

_TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)


def tanh(a: Arithmetic, x: ir.Value) -> ir.Value:
    """A polynomial near 0, 1 - 2 / (exp(2 |x|) + 1) elsewhere (Cephes)."""
    size, z = a.abs(x), a.mul(x, x)
    near = a.fma(a.mul(a.polynomial(z, _TANH), z), x, x)
    far = a.add(exp(a, a.add(size, size)), a.number(1.0))
    far = a.sub(a.number(1.0), a.div(a.number(2.0), far))
    return a.select("olt", size, a.number(0.625), near, math.CopySignOp(far, x).result)


def sinh(a: Arithmetic, x: ir.Value) -> ir.Value:
    """e - 1 + (e - 1) / e, halved, with e = exp |x|; exp(|x| / 2) twice where e is infinite but the result is not."""
    e = expm1(a, a.abs(x))
    near = a.mul(a.number(0.5), a.add(e, a.div(e, a.add(e, a.number(1.0)))))
    root = exp(a, a.mul(a.number(0.5), a.abs(x)))
    far = a.mul(a.mul(a.number(0.5), root), root)
    return math.CopySignOp(a.select("ogt", a.abs(x), a.number(80.0), far, near), x).result


def cosh(a: Arithmetic, x: ir.Value) -> ir.Value:
    """Half of exp(|x|) and of its inverse; the exponential is a square, which overflows only where the result does."""
    root = exp(a, a.mul(a.number(0.5), a.abs(x)))
    half = a.mul(a.mul(a.number(0.5), root), root)
    return a.add(half, a.div(a.number(0.25), half))


def asinh(a: Arithmetic, x: ir.Value) -> ir.Value:
    """log1p(|x| + x^2 / (1 + sqrt(1 + x^2))), log |x| + log 2 where x^2 would be infinite."""
    size = a.abs(x)
    square = a.mul(size, size)
    root = math.SqrtOp(a.add(square, a.number(1.0))).result
    near = log1p(a, a.add(size, a.div(square, a.add(root, a.number(1.0)))))
    far = a.add(log(a, size), a.number(numbers.log(2.0)))
    return math.CopySignOp(a.select("ogt", size, a.number(1e8), far, near), x).result


def acosh(a: Arithmetic, x: ir.Value) -> ir.Value:
    """log1p(t + sqrt(2 t + t^2)) with t = x - 1, log x + log 2 where x^2 would be infinite."""
    t = a.sub(x, a.number(1.0))
    near = log1p(a, a.add(t, math.SqrtOp(a.fma(t, t, a.add(t, t))).result))
    far = a.add(log(a, x), a.number(numbers.log(2.0)))
    return a.select("olt", x, a.number(1.0), a.number(numbers.nan), a.select("ogt", x, a.number(1e8), far, near))


def atanh(a: Arithmetic, x: ir.Value) -> ir.Value:
    """Half of the difference of two logarithms, which are exact near zero."""
    return a.mul(a.number(0.5), a.sub(log1p(a, x), log1p(a, a.sub(a.number(-0.0), x))))
