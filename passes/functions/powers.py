"""Powers and roots."""

from __future__ import annotations

import math as numbers

from torch_mlir import ir
from torch_mlir.dialects import arith, math

from patc.passes.functions.arithmetic import Arithmetic
from patc.passes.functions.exponentials import exp_of_sum
from patc.passes.functions.logarithms import log_in_two, upper_half
from patc.passes.ir.bodies import constant_number

_SMALL_POWERS = range(-8, 9)  # exponents that become products
_ROOTS = (-0.5, 0.5)  # exponents that become square roots, as in PyTorch: that of minus infinity is NaN


def powf(a: Arithmetic, x: ir.Value, y: ir.Value) -> ir.Value:
    """x^y = exp(y log |x|), negative for negative x and odd y, NaN for negative x and y that is not whole."""
    exponent = _constant(y)
    if exponent is not None and (exponent in _ROOTS or exponent in _SMALL_POWERS):
        return _small_power(a, x, exponent)
    size = _power_of_size(a, x, y)
    whole = a.compare("oeq", math.TruncOp(y).result, y)
    half = a.mul(y, a.number(0.5))
    odd = arith.AndIOp(whole, a.compare("one", math.TruncOp(half).result, half)).result
    # Not copysign: Mesa's software driver for Vulkan gets its bits wrong here, though the SPIR-V is right.
    is_signed = arith.CmpIOp(arith.CmpIPredicate.slt, a.bits(x), a.integer(0)).result
    signed = a.choose(arith.AndIOp(odd, is_signed).result, a.sub(a.number(-0.0), size), size)
    below = a.compare("olt", x, a.number(0.0))
    finite = a.compare("one", a.abs(x), a.number(numbers.inf))
    invalid = arith.AndIOp(arith.AndIOp(below, finite).result, a.invert(whole)).result
    made = a.choose(invalid, a.number(numbers.nan), signed)
    one = arith.OrIOp(a.compare("oeq", y, a.number(0.0)), a.compare("oeq", x, a.number(1.0))).result
    return a.choose(one, a.number(1.0), made)


def _power_of_size(a: Arithmetic, x: ir.Value, y: ir.Value) -> ir.Value:
    """|x|^y, within 1e-6 of it: the logarithm has the bits that the exponent makes significant."""
    y = a.clamp(y, -(2.0**40), 2.0**40)  # enough for 0 or infinity, and finite: 1 to any power is 1
    log, log_high, log_low = log_in_two(a, a.abs(x))
    product, y_high = a.mul(y, log), upper_half(a, y)
    low = a.fma(a.sub(y, y_high), log_high, a.mul(y, log_low))
    is_near = a.compare("olt", a.abs(product), a.number(120.0))
    high = a.choose(is_near, a.mul(y_high, log_high), product)
    return exp_of_sum(a, high, a.choose(is_near, low, a.number(0.0)))


def fpowi(a: Arithmetic, x: ir.Value, y: ir.Value) -> ir.Value:
    """Return x to a whole power."""
    return powf(a, x, a.whole(y))


def _small_power(a: Arithmetic, x: ir.Value, exponent: float) -> ir.Value:
    """Return x to a small whole power or a root, by products."""
    product = math.SqrtOp(x).result if exponent in _ROOTS else x if exponent else a.number(1.0)
    for _ in range(int(abs(exponent)) - 1):
        product = a.mul(product, x)
    return a.div(a.number(1.0), product) if exponent < 0 else product


def _constant(value: ir.Value) -> float | None:
    """Return the number that a value always is, or None."""
    while not isinstance(value.owner, ir.Block) and value.owner.name in ("arith.truncf", "arith.extf", "arith.sitofp"):
        value = value.owner.operands[0]
    found = constant_number(value)
    return None if found is None else float(found)


def cbrt(a: Arithmetic, x: ir.Value) -> ir.Value:
    """A power, and a step of Newton's method; |x| is made ordinary before, zeros and infinities stay."""
    tiny = a.compare("olt", a.abs(x), a.number(2.0**-100))
    size = a.choose(tiny, a.mul(a.abs(x), a.number(2.0**48)), a.abs(x))
    y = _power_of_size(a, size, a.number(1.0 / 3.0))
    y = a.sub(y, a.mul(a.sub(y, a.div(size, a.mul(y, y))), a.number(1.0 / 3.0)))
    y = a.choose(tiny, a.mul(y, a.number(2.0**-16)), y)
    stays = arith.OrIOp(a.compare("oeq", x, a.number(0.0)), a.compare("oeq", a.abs(x), a.number(numbers.inf))).result
    return a.choose(stays, x, math.CopySignOp(y, x).result)
