"""Exponential functions."""

from __future__ import annotations

import math as numbers

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.passes.functions.arithmetic import Arithmetic

LOG_2 = (0.693359375, -2.12194440e-4)  # few bits, so that multiples by exponents are exact, and the rest
# Minimax: (exp(r) - 1 - r) / r^2.
_EXP = (0.00138144672, 0.00836878084, 0.0416683927, 0.166665196, 0.49999994)
_ROUNDER = 1.5 * 2**23  # added to a small number, it leaves the number rounded in the last bits
_SPLIT = _ROUNDER + 254.0  # the same for a number n in halves, whose sum is n + 254 as exponents of f32 count from 127
_LIFT = 189.0  # n + 189 is an exponent for n down to -150, and 0, that of zero, for -189
_ZERO = -176.1  # of whose n, -254, both halves are powers of two with no bit set


def exp(a: Arithmetic, x: ir.Value) -> ir.Value:
    """exp(x) = 2^n exp(r), with |r| below half of log 2; 0 or infinite beyond the range of f32."""
    return exp_of_sum(a, x, None)


def exp_of_sum(a: Arithmetic, high: ir.Value, low: ir.Value | None) -> ir.Value:
    """Return exp(high + low): what an f32 holds of a number, and the rest, at most a thousandth of it."""
    above = a.select("ogt", high, a.number(89.0), a.number(89.0), high)
    # What is zero is a product with zero: one that underflows takes a core a hundred cycles, and masks are infinite.
    x = high = a.select("olt", above, a.number(-104.0), a.number(_ZERO), above)
    if low is not None:
        x = a.add(high, low)
    r, shifted = _reduce(a, x, high, _SPLIT)
    return _scaled(a, _near_zero(a, r if low is None else a.add(r, low)), shifted)


def exp_of_negative(a: Arithmetic, x: ir.Value) -> ir.Value:
    """exp(x) for x that is not positive: one power of two, of an ordinary number, is left to scale."""
    x = a.select("olt", x, a.number(-104.0), a.number(-_LIFT * LOG_2[0]), x)
    r, shifted = _reduce(a, x, x, _ROUNDER + _LIFT)
    power = a.from_bits(arith.ShLIOp(a.bits(shifted), a.integer(23)).result)
    return a.mul(a.fma(_near_zero(a, r), power, power), a.number(2.0 ** (127 - _LIFT)))


def exp2(a: Arithmetic, x: ir.Value) -> ir.Value:
    """2^x = 2^n exp(r), with r = (x - n) log 2; 0 or infinite beyond the range of f32."""
    x = a.clamp(x, -151.0, 129.0)
    shifted = a.add(x, a.number(_SPLIT))
    n = a.sub(shifted, a.number(_SPLIT))
    return _scaled(a, _near_zero(a, a.mul(a.sub(x, n), a.number(numbers.log(2.0)))), shifted)


def decay(a: Arithmetic, x: ir.Value) -> ir.Value:
    """exp(-|x|); 0 where that is below the ordinary numbers of f32. Nothing overflows, so that 2^n is one number."""
    x = a.sub(a.number(-0.0), a.abs(x))
    x = a.select("olt", x, a.number(-88.0), a.number(-88.0), x)
    r, shifted = _reduce(a, x, x, _ROUNDER + 127.0)
    power = a.from_bits(arith.ShLIOp(a.bits(shifted), a.integer(23)).result)
    return a.mul(a.polynomial(r, (*_EXP, 1.0, 1.0)), power)


def expm1(a: Arithmetic, x: ir.Value) -> ir.Value:
    """exp(x) - 1 = 2^n (exp(r) - 1) + 2^n - 1, where the sum loses nothing: both parts have one sign, or n is 0 or -1.

    Half of it is doubled, since 2^128 is no f32.
    """
    given = a.clamp(x, -30.0, 89.0)
    r, shifted = _reduce(a, given, given)
    half = a.power_of_two(a.int_sub(_power(a, shifted), a.integer(1)))
    y = a.fma(half, _near_zero(a, r), a.sub(half, a.number(0.5)))
    return a.select("oeq", x, a.number(0.0), x, a.add(y, y))


def _reduce(a: Arithmetic, x: ir.Value, high: ir.Value, rounder: float = _ROUNDER) -> tuple[ir.Value, ir.Value]:
    """Return what is left of `high` without the multiple of log 2 nearest to x, and that multiple in the last bits of a
    number as large as the rounder."""
    shifted = a.fma(x, a.number(numbers.log2(numbers.e)), a.number(rounder))
    n = a.sub(shifted, a.number(rounder))
    return a.fma(n, a.number(-LOG_2[1]), a.fma(n, a.number(-LOG_2[0]), high)), shifted


def _near_zero(a: Arithmetic, r: ir.Value) -> ir.Value:
    """Return exp(r) - 1, with |r| at most half of log 2."""
    return a.fma(a.mul(r, r), a.polynomial(r, _EXP), r)


def _power(a: Arithmetic, shifted: ir.Value) -> ir.Value:
    return a.int_sub(a.bits(shifted), a.integer(int(np.float32(_ROUNDER).view(np.int32))))


def _scaled(a: Arithmetic, y: ir.Value, shifted: ir.Value) -> ir.Value:
    """Return 2^n (1 + y), in two steps, since neither 2^128 nor 2^-140 is an ordinary f32.

    Args:
        shifted: n + `_SPLIT`, n from -254 to 254: a shift by 23 leaves n + 254 of its bits, or half of that.
    """
    whole = a.bits(shifted)
    half = arith.ShRUIOp(whole, a.integer(1)).result
    first, second = (a.from_bits(arith.ShLIOp(part, a.integer(23)).result) for part in (half, a.int_sub(whole, half)))
    return a.mul(a.fma(y, first, first), second)
