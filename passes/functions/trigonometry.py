"""Trigonometric functions and their inverses."""

from __future__ import annotations

import math as numbers

from torch_mlir import ir
from torch_mlir.dialects import arith, math

from patc.passes.functions.arithmetic import Arithmetic

_SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
_HALF_PI = (1.57079632679489655800e00, 6.12323399573676603587e-17)  # the f64 nearest to pi / 2, and what it lacks
_WIDE_ROUNDER = 1.5 * 2**52


def _quarters(a: Arithmetic, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return how many times pi / 2 lies in an f32, as bits, and what is left, at most pi / 4: computed in f64.

    What is left is right to 1e-10 up to |x| = 1e6 on any machine, and up to 1e15 where a multiply-add rounds once, as
    on all processors; elsewhere its error is |x| 1e-16. Neighbours above 1e15 are many turns apart: what they get is
    some sine, between -1 and 1.
    """
    b = a.wide()
    wide = b.convert(x)
    shifted = b.fma(wide, b.number(2.0 / numbers.pi), b.number(_WIDE_ROUNDER))
    n = b.sub(shifted, b.number(_WIDE_ROUNDER))
    rest = b.fma(n, b.number(-_HALF_PI[1]), b.fma(n, b.number(-_HALF_PI[0]), wide))
    return arith.TruncIOp(a.integer_type, b.bits(shifted)).result, a.clamp(a.convert(rest), -0.786, 0.786)


def _sine(a: Arithmetic, x: ir.Value, turns: int) -> ir.Value:
    """Return the sine of x + turns pi / 2."""
    quarters, r = _quarters(a, x)
    quarters = a.int_add(quarters, a.integer(turns))
    z = a.mul(r, r)
    sine = a.fma(a.mul(a.polynomial(z, _SIN), z), r, r)
    cosine = a.fma(a.mul(a.polynomial(z, _COS), z), z, a.fma(z, a.number(-0.5), a.number(1.0)))
    zero = a.integer(0)
    is_even = arith.CmpIOp(arith.CmpIPredicate.eq, arith.AndIOp(quarters, a.integer(1)).result, zero).result
    is_up = arith.CmpIOp(arith.CmpIPredicate.eq, arith.AndIOp(quarters, a.integer(2)).result, zero).result
    value = a.choose(is_even, sine, cosine)
    return a.choose(is_up, value, a.sub(a.number(-0.0), value))


def sin(a: Arithmetic, x: ir.Value) -> ir.Value:
    """Return the sine of an angle in radians."""
    return _sine(a, x, 0)


def cos(a: Arithmetic, x: ir.Value) -> ir.Value:
    """Return the cosine of an angle in radians."""
    return _sine(a, x, 1)


def tan(a: Arithmetic, x: ir.Value) -> ir.Value:
    """Return the tangent of an angle in radians."""
    return a.div(sin(a, x), cos(a, x))


_ATAN = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)


def atan(a: Arithmetic, x: ir.Value) -> ir.Value:
    """A polynomial up to tan(pi / 8); larger numbers are turned by pi / 4 or pi / 2 (Cephes)."""
    size = a.abs(x)
    far, middle = (a.compare("ogt", size, a.number(bound)) for bound in (2.414213562373095, 0.4142135623730950))
    turned = a.div(a.sub(size, a.number(1.0)), a.add(size, a.number(1.0)))
    small = a.choose(far, a.div(a.number(-1.0), size), a.choose(middle, turned, size))
    start = a.choose(far, a.number(numbers.pi / 2), a.choose(middle, a.number(numbers.pi / 4), a.number(0.0)))
    z = a.mul(small, small)
    value = a.add(start, a.fma(a.mul(a.polynomial(z, _ATAN), z), small, small))
    return math.CopySignOp(value, x).result


def atan2(a: Arithmetic, y: ir.Value, x: ir.Value) -> ir.Value:
    """atan(y / x), turned by pi where x is negative."""
    both_zero = a.compare("oeq", a.add(a.abs(x), a.abs(y)), a.number(0.0))
    both_infinite = a.compare("oeq", a.minimum(a.abs(x), a.abs(y)), a.number(numbers.inf))
    ratio = a.choose(both_infinite, a.number(1.0), a.choose(both_zero, a.number(0.0), a.div(a.abs(y), a.abs(x))))
    angle = atan(a, ratio)
    is_left = a.compare("olt", math.CopySignOp(a.number(1.0), x).result, a.number(0.0))
    turned = a.choose(is_left, a.sub(a.number(numbers.pi), angle), angle)
    missing = a.compare("uno", x, y)
    return a.choose(missing, a.number(numbers.nan), math.CopySignOp(turned, y).result)


def asin(a: Arithmetic, x: ir.Value) -> ir.Value:
    """Return the angle in radians whose sine is x, and whose tangent is x / sqrt(1 - x * x)."""
    one = a.number(1.0)
    return atan(a, a.div(x, math.SqrtOp(a.mul(a.sub(one, x), a.add(one, x))).result))


def acos(a: Arithmetic, x: ir.Value) -> ir.Value:
    """Return the angle in radians whose cosine is x: that of the point x, sqrt(1 - x * x)."""
    one = a.number(1.0)
    return atan2(a, math.SqrtOp(a.mul(a.sub(one, x), a.add(one, x))).result, x)
