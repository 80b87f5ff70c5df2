"""Logarithms."""

from __future__ import annotations

import math as numbers

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.passes.functions.arithmetic import Arithmetic
from patc.passes.functions.exponentials import LOG_2

_SQRT_HALF = 0x3F3504F3  # the bits of sqrt(1/2)
_ONE = 0x3F800000
_SMALLEST = float(np.finfo(np.float32).tiny)
_ATANH = (1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0)


def log(a: Arithmetic, x: ir.Value) -> ir.Value:
    """log(x) = k log 2 + log(1 + f), with 1 + f from sqrt(1/2) to sqrt(2) (musl)."""
    k, mantissa = _exponent_and_mantissa(a, x)
    f = a.sub(mantissa, a.number(1.0))
    s = a.div(f, a.add(f, a.number(2.0)))
    z = a.mul(s, s)
    w = a.mul(z, z)
    even = a.mul(w, a.polynomial(w, (0.24279078841, 0.40000972152)))
    odd = a.mul(z, a.polynomial(w, (0.28498786688, 0.66666662693)))
    half = a.mul(a.number(0.5), a.mul(f, f))
    low = a.mul(s, a.add(half, a.add(even, odd)))
    low = a.sub(a.fma(k, a.number(9.0580006145e-06), low), half)
    y = a.fma(k, a.number(6.9313812256e-01), a.add(low, f))
    return _of_special(a, x, y)


def log2(a: Arithmetic, x: ir.Value) -> ir.Value:
    """Return the logarithm to base 2."""
    return a.mul(log(a, x), a.number(numbers.log2(numbers.e)))


def log10(a: Arithmetic, x: ir.Value) -> ir.Value:
    """Return the logarithm to base 10."""
    return a.mul(log(a, x), a.number(1.0 / numbers.log(10.0)))


def log1p(a: Arithmetic, x: ir.Value) -> ir.Value:
    """log(1 + x) without the rounding error of 1 + x (Kahan)."""
    u = a.add(x, a.number(1.0))
    whole = log(a, u)
    near = a.mul(whole, a.div(x, a.sub(u, a.number(1.0))))
    near = a.select("oeq", u, a.number(1.0), x, near)
    return a.select("ogt", x, a.number(2.0**24), whole, near)


def log_in_two(a: Arithmetic, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return log(x) in f32, and two numbers whose sum it is to some 30 bits; the first has half of the bits of an f32.

    log(m) = 2 atanh(s), with s = (m - 1) / (m + 1). All products whose rounding would matter are of halves, so that
    they are exact whether or not a multiply-add rounds once.
    """
    k, m = _exponent_and_mantissa(a, x)
    f, sum_ = a.sub(m, a.number(1.0)), a.add(m, a.number(1.0))
    s = a.div(f, sum_)
    s_high, sum_high = upper_half(a, s), upper_half(a, sum_)
    sum_low = a.sub(m, a.sub(sum_high, a.number(1.0)))
    left = a.sub(a.sub(f, a.mul(s_high, sum_high)), a.mul(s_high, sum_low))
    z = a.mul(s, s)
    low = a.fma(a.mul(s, z), a.polynomial(z, _ATANH), a.div(left, sum_))
    whole, twice = a.mul(k, a.number(LOG_2[0])), a.add(s_high, s_high)
    high = a.add(whole, twice)
    low = a.add(a.sub(twice, a.sub(high, whole)), a.fma(k, a.number(LOG_2[1]), a.add(low, low)))
    together = a.add(high, low)
    first = upper_half(a, together)
    return _of_special(a, x, together), first, a.add(a.sub(high, first), low)


def upper_half(a: Arithmetic, x: ir.Value) -> ir.Value:
    """Return an f32 with the first 12 bits of another: products of two such are exact."""
    return a.from_bits(arith.AndIOp(a.bits(x), a.integer(-(1 << 12))).result)


def _exponent_and_mantissa(a: Arithmetic, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return k and m with x = 2^k m for an ordinary x, with m from sqrt(1/2) to sqrt(2)."""
    tiny = a.compare("olt", x, a.number(_SMALLEST))
    scaled = a.choose(tiny, a.mul(x, a.number(2.0**25)), x)
    bits = a.int_add(a.bits(scaled), a.integer(_ONE - _SQRT_HALF))
    k = a.whole(a.int_sub(arith.ShRSIOp(bits, a.integer(23)).result, a.integer(127)))
    k = a.sub(k, a.choose(tiny, a.number(25.0), a.number(0.0)))
    mantissa = a.int_add(arith.AndIOp(bits, a.integer(0x7FFFFF)).result, a.integer(_SQRT_HALF))
    return k, a.from_bits(mantissa)


def _of_special(a: Arithmetic, x: ir.Value, y: ir.Value) -> ir.Value:
    """Return y where x has a logarithm, else what is in its place."""
    y = a.select("oeq", x, a.number(numbers.inf), x, y)
    y = a.select("oeq", x, a.number(0.0), a.number(-numbers.inf), y)
    return a.select("ult", x, a.number(0.0), a.number(numbers.nan), y)
