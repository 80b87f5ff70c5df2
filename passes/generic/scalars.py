"""Elementary functions in the bodies of linalg ops, as arithmetic: they need no library, and vectors are made of them.

All are within a few units in the last place of f32, and right for NaN, infinities and numbers without a logarithm.
"""

from __future__ import annotations

import math as numbers
from collections.abc import Callable, Sequence

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, math

from patc.passes.generic.arithmetic import Arithmetic

# What processors compute by themselves, or what LLVM makes a few instructions of.
_NATIVE = {
    "math.absf", "math.absi", "math.ceil", "math.copysign", "math.ctlz", "math.ctpop", "math.cttz", "math.floor",
    "math.fma", "math.isfinite", "math.isinf", "math.isnan", "math.isnormal", "math.round", "math.roundeven",
    "math.rsqrt", "math.sqrt", "math.trunc",
}  # fmt: skip
_SMALL_POWERS = range(-8, 9)  # exponents that become products
_ROOTS = (-0.5, 0.5)  # exponents that become square roots, as in PyTorch: that of minus infinity is NaN


def has_lowering(op: ir.Operation) -> bool:
    """Whether an op can be computed: it is no elementary function, or one that `expand` knows."""
    return not op.name.startswith("math.") or op.name in _NATIVE or op.name in _EXPANSIONS


def expand(root: ir.Operation) -> None:
    """Replace the elementary functions under an op by arithmetic."""
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name in _EXPANSIONS:
            found.append(op)
        return ir.WalkResult.ADVANCE

    root.walk(visit)
    for op in found:
        with ir.InsertionPoint(op), op.location:
            _replace(op, _expanded(op))


def _replace(op: ir.Operation, value: ir.Value) -> None:
    op.results[0].replace_all_uses_with(value)
    op.erase()


def _expanded(op: ir.Operation) -> ir.Value:
    """Return what an op computes, in f32 whatever its type is; f64 keeps its range for remainders only."""
    kind = op.results[0].type
    operands = list(op.operands)
    if op.name == "arith.remf":
        return _remainder(Arithmetic(kind), operands)
    a = Arithmetic(ir.F32Type.get())
    given = [a.convert(operand) if isinstance(operand.type, ir.FloatType) else operand for operand in operands]
    return Arithmetic(kind).convert(_EXPANSIONS[op.name](a, given))


_Expansion = Callable[[Arithmetic, Sequence[ir.Value]], ir.Value]


# Exponential functions.

_LOG2_E = numbers.log2(numbers.e)
_LOG_2 = (0.693359375, -2.12194440e-4)  # few bits, so that multiples by exponents are exact, and the rest
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_ROUNDER = 1.5 * 2**23  # added to a small number, it leaves the number rounded in the last bits


def _exp(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    return _exp_of_sum(a, operands[0], None)


def _exp_of_sum(a: Arithmetic, high: ir.Value, low: ir.Value | None) -> ir.Value:
    """exp(x) = 2^n exp(r), with |r| below half of log 2 (Cephes); beyond these bounds the result is 0 or infinite.

    x is high + low: what an f32 holds of x, and the rest, at most a thousandth of it.
    """
    x = high = a.clamp(high, -105.0, 89.0)
    if low is not None:
        x = a.add(high, low)
    shifted = a.fma(x, a.number(_LOG2_E), a.number(_ROUNDER))
    n = a.sub(shifted, a.number(_ROUNDER))
    r = a.fma(n, a.number(-_LOG_2[1]), a.fma(n, a.number(-_LOG_2[0]), high))
    return _scaled_exp(a, r if low is None else a.add(r, low), shifted)


def _scaled_exp(a: Arithmetic, r: ir.Value, shifted: ir.Value) -> ir.Value:
    """Return 2^n exp(r), with |r| at most half of log 2; n is in the last bits of a number as large as the rounder."""
    y = a.add(a.fma(a.mul(r, r), a.polynomial(r, _EXP), r), a.number(1.0))
    power = a.int_sub(a.bits(shifted), a.integer(int(np.float32(_ROUNDER).view(np.int32))))
    # Two steps, since neither 2^128 nor 2^-140 is an ordinary f32.
    half = arith.ShRSIOp(power, a.integer(1)).result
    return a.mul(a.mul(y, a.power_of_two(half)), a.power_of_two(a.int_sub(power, half)))


def _exp2(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    """2^x = 2^n exp(r), with r = (x - n) log 2; beyond these bounds the result is 0 or infinite."""
    x = a.clamp(operands[0], -151.0, 129.0)
    shifted = a.add(x, a.number(_ROUNDER))
    n = a.sub(shifted, a.number(_ROUNDER))
    return _scaled_exp(a, a.mul(a.sub(x, n), a.number(numbers.log(2.0))), shifted)


def _expm1(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    """exp(x) - 1 without the rounding error of exp(x) near 1 (Kahan)."""
    (x,) = operands
    u = _exp(a, [x])
    small = a.mul(a.sub(u, a.number(1.0)), a.div(x, _log(a, [u])))
    one = a.select("oeq", u, a.number(1.0), x, small)
    far = a.select("ogt", a.abs(x), a.number(20.0), a.sub(u, a.number(1.0)), one)
    return a.select("uno", x, x, x, far)


# Logarithms.

_SQRT_HALF = 0x3F3504F3  # the bits of sqrt(1/2)
_ONE = 0x3F800000
_SMALLEST = float(np.finfo(np.float32).tiny)


def _log(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    """log(x) = k log 2 + log(1 + f), with 1 + f from sqrt(1/2) to sqrt(2) (musl)."""
    (x,) = operands
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
    return _log_of_special(a, x, y)


def _exponent_and_mantissa(a: Arithmetic, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return k and m with x = 2^k m for an ordinary x, with m from sqrt(1/2) to sqrt(2)."""
    tiny = a.compare("olt", x, a.number(_SMALLEST))
    scaled = a.choose(tiny, a.mul(x, a.number(2.0**25)), x)
    bits = a.int_add(a.bits(scaled), a.integer(_ONE - _SQRT_HALF))
    k = a.int_sub(arith.ShRSIOp(bits, a.integer(23)).result, a.integer(127))
    k = a.sub(arith.SIToFPOp(a.type, k).result, a.choose(tiny, a.number(25.0), a.number(0.0)))
    mantissa = a.int_add(arith.AndIOp(bits, a.integer(0x7FFFFF)).result, a.integer(_SQRT_HALF))
    return k, a.from_bits(mantissa)


def _log_of_special(a: Arithmetic, x: ir.Value, y: ir.Value) -> ir.Value:
    """Return y where x has a logarithm, else what is in its place."""
    y = a.select("oeq", x, a.number(numbers.inf), x, y)
    y = a.select("oeq", x, a.number(0.0), a.number(-numbers.inf), y)
    return a.select("ult", x, a.number(0.0), a.number(numbers.nan), y)


_ATANH = (1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0)


def _log_in_two(a: Arithmetic, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return log(x) in f32, and two numbers whose sum it is to some 30 bits; the first has half of the bits of an f32.

    log(m) = 2 atanh(s), with s = (m - 1) / (m + 1). All products whose rounding would matter are of halves, so that
    they are exact whether or not a multiply-add rounds once.
    """
    k, m = _exponent_and_mantissa(a, x)
    f, sum_ = a.sub(m, a.number(1.0)), a.add(m, a.number(1.0))
    s = a.div(f, sum_)
    s_high, sum_high = _upper_half(a, s), _upper_half(a, sum_)
    sum_low = a.sub(m, a.sub(sum_high, a.number(1.0)))
    left = a.sub(a.sub(f, a.mul(s_high, sum_high)), a.mul(s_high, sum_low))
    z = a.mul(s, s)
    low = a.fma(a.mul(s, z), a.polynomial(z, _ATANH), a.div(left, sum_))
    whole, twice = a.mul(k, a.number(_LOG_2[0])), a.add(s_high, s_high)
    high = a.add(whole, twice)
    low = a.add(a.sub(twice, a.sub(high, whole)), a.fma(k, a.number(_LOG_2[1]), a.add(low, low)))
    together = a.add(high, low)
    first = _upper_half(a, together)
    return _log_of_special(a, x, together), first, a.add(a.sub(high, first), low)


def _upper_half(a: Arithmetic, x: ir.Value) -> ir.Value:
    """Return an f32 with the first 12 bits of another: products of two such are exact."""
    return a.from_bits(arith.AndIOp(a.bits(x), a.integer(-(1 << 12))).result)


def _log2(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    return a.mul(_log(a, operands), a.number(_LOG2_E))


def _log10(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    return a.mul(_log(a, operands), a.number(1.0 / numbers.log(10.0)))


def _log1p(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    """log(1 + x) without the rounding error of 1 + x (Kahan)."""
    (x,) = operands
    u = a.add(x, a.number(1.0))
    near = a.mul(_log(a, [u]), a.div(x, a.sub(u, a.number(1.0))))
    near = a.select("oeq", u, a.number(1.0), x, near)
    return a.select("ogt", x, a.number(2.0**24), _log(a, [u]), near)


# Powers.


def _powf(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    """x^y = exp(y log |x|), negative for negative x and odd y, NaN for negative x and y that is not whole."""
    x, y = operands
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
    log, log_high, log_low = _log_in_two(a, a.abs(x))
    product, y_high = a.mul(y, log), _upper_half(a, y)
    low = a.fma(a.sub(y, y_high), log_high, a.mul(y, log_low))
    is_near = a.compare("olt", a.abs(product), a.number(120.0))
    high = a.choose(is_near, a.mul(y_high, log_high), product)
    return _exp_of_sum(a, high, a.choose(is_near, low, a.number(0.0)))


def _fpowi(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    return _powf(a, [operands[0], arith.SIToFPOp(a.type, operands[1]).result])


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
    if isinstance(value.owner, ir.Block) or value.owner.name != "arith.constant":
        return None
    attr = value.owner.attributes["value"]
    return float(attr.value) if isinstance(attr, (ir.FloatAttr, ir.IntegerAttr)) else None


def _cbrt(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    (x,) = operands
    return math.CopySignOp(_power_of_size(a, x, a.number(1.0 / 3.0)), x).result


# Hyperbolic functions and the error function.

_TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)


def _tanh(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    """A polynomial near 0, 1 - 2 / (exp(2 |x|) + 1) elsewhere (Cephes)."""
    (x,) = operands
    size, z = a.abs(x), a.mul(x, x)
    near = a.fma(a.mul(a.polynomial(z, _TANH), z), x, x)
    far = a.add(_exp(a, [a.add(size, size)]), a.number(1.0))
    far = a.sub(a.number(1.0), a.div(a.number(2.0), far))
    return a.select("olt", size, a.number(0.625), near, math.CopySignOp(far, x).result)


def _sinh(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    """e - 1 + (e - 1) / e, halved, with e = exp |x|; exp(|x| / 2) twice where e is infinite but the result is not."""
    (x,) = operands
    e = _expm1(a, [a.abs(x)])
    near = a.mul(a.number(0.5), a.add(e, a.div(e, a.add(e, a.number(1.0)))))
    root = _exp(a, [a.mul(a.number(0.5), a.abs(x))])
    far = a.mul(a.mul(a.number(0.5), root), root)
    return math.CopySignOp(a.select("ogt", a.abs(x), a.number(80.0), far, near), x).result


def _cosh(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    root = _exp(a, [a.mul(a.number(0.5), a.abs(operands[0]))])
    half = a.mul(a.mul(a.number(0.5), root), root)
    return a.add(half, a.div(a.number(0.25), half))


_ERF = (
    (0.00022905065861350646, 0.0034082910107109506, 0.050955695062380861, 0.18520832239976145, 1.128379143519084),
    (-1.1791602954361697e-7, 0.000023547966471313185, 0.0010179625278914885, 0.014070470171167667,
     0.11098505178285362, 0.49746925110067538, 1.0),
)  # fmt: skip


def _erf(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    """A quotient of polynomials (as in XLA and Eigen); beyond these bounds the result is -1 or 1."""
    x = a.clamp(operands[0], -3.832506856900711, 3.832506856900711)
    z = a.mul(x, x)
    return a.div(a.mul(x, a.polynomial(z, _ERF[0])), a.polynomial(z, _ERF[1]))


_ERFC = (
    0.0053413322,
    -0.0164707287,
    0.0370065292,
    -0.0663008236,
    0.093756491,
    -0.101039673,
    0.0680959225,
    0.0153796152,
    -0.139621106,
    1.23299512,
)  # of (x - 4) / (x + 4): (1 + 2 x) exp(x^2) erfc(x) for x from 0.5 to 10.5


def _erfc(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    """1 - erf(x) near 0; exp(-x^2) times a polynomial above, and 2 minus that below."""
    x = a.clamp(operands[0], -10.5, 10.5)
    size, one = a.abs(x), a.number(1.0)
    place = a.div(a.sub(size, a.number(4.0)), a.add(size, a.number(4.0)))
    high = _upper_half(a, size)
    low = a.mul(a.sub(high, size), a.add(high, size))
    power = _exp_of_sum(a, a.sub(a.number(-0.0), a.mul(high, high)), low)
    tail = a.mul(power, a.div(a.polynomial(place, _ERFC), a.add(one, a.add(size, size))))
    far = a.select("olt", x, a.number(0.0), a.sub(a.number(2.0), tail), tail)
    return a.select("olt", size, a.number(0.5), a.sub(one, _erf(a, [x])), far)


# Trigonometric functions.

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
    b = Arithmetic(ir.F64Type.get())
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


def _sin(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    return _sine(a, operands[0], 0)


def _cos(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    return _sine(a, operands[0], 1)


def _tan(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    return a.div(_sin(a, operands), _cos(a, operands))


_ATAN = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)


def _atan(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    """A polynomial up to tan(pi / 8); larger numbers are turned by pi / 4 or pi / 2 (Cephes)."""
    (x,) = operands
    size = a.abs(x)
    far, middle = (
        a.compare("ogt", size, a.number(2.414213562373095)),
        a.compare("ogt", size, a.number(0.4142135623730950)),
    )
    turned = a.div(a.sub(size, a.number(1.0)), a.add(size, a.number(1.0)))
    small = a.choose(far, a.div(a.number(-1.0), size), a.choose(middle, turned, size))
    start = a.choose(far, a.number(numbers.pi / 2), a.choose(middle, a.number(numbers.pi / 4), a.number(0.0)))
    z = a.mul(small, small)
    value = a.add(start, a.fma(a.mul(a.polynomial(z, _ATAN), z), small, small))
    return math.CopySignOp(value, x).result


def _atan2(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    """atan(y / x), turned by pi where x is negative."""
    y, x = operands
    both_zero = a.compare("oeq", a.add(a.abs(x), a.abs(y)), a.number(0.0))
    both_infinite = a.compare("oeq", a.minimum(a.abs(x), a.abs(y)), a.number(numbers.inf))
    ratio = a.choose(both_infinite, a.number(1.0), a.choose(both_zero, a.number(0.0), a.div(a.abs(y), a.abs(x))))
    angle = _atan(a, [ratio])
    is_left = a.compare("olt", math.CopySignOp(a.number(1.0), x).result, a.number(0.0))
    turned = a.choose(is_left, a.sub(a.number(numbers.pi), angle), angle)
    missing = a.compare("uno", x, y)
    return a.choose(missing, a.number(numbers.nan), math.CopySignOp(turned, y).result)


def _asin(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    (x,) = operands
    one = a.number(1.0)
    return _atan(a, [a.div(x, math.SqrtOp(a.mul(a.sub(one, x), a.add(one, x))).result)])


def _acos(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    (x,) = operands
    one = a.number(1.0)
    return _atan2(a, [math.SqrtOp(a.mul(a.sub(one, x), a.add(one, x))).result, x])


def _asinh(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    """log1p(|x| + x^2 / (1 + sqrt(1 + x^2))), log |x| + log 2 where x^2 would be infinite."""
    (x,) = operands
    size = a.abs(x)
    square = a.mul(size, size)
    root = math.SqrtOp(a.add(square, a.number(1.0))).result
    near = _log1p(a, [a.add(size, a.div(square, a.add(root, a.number(1.0))))])
    far = a.add(_log(a, [size]), a.number(numbers.log(2.0)))
    return math.CopySignOp(a.select("ogt", size, a.number(1e8), far, near), x).result


def _acosh(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    """log1p(t + sqrt(2 t + t^2)) with t = x - 1, log x + log 2 where x^2 would be infinite."""
    (x,) = operands
    t = a.sub(x, a.number(1.0))
    near = _log1p(a, [a.add(t, math.SqrtOp(a.fma(t, t, a.add(t, t))).result)])
    far = a.add(_log(a, [x]), a.number(numbers.log(2.0)))
    return a.select("olt", x, a.number(1.0), a.number(numbers.nan), a.select("ogt", x, a.number(1e8), far, near))


def _atanh(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    (x,) = operands
    return a.mul(a.number(0.5), a.sub(_log1p(a, [x]), _log1p(a, [a.sub(a.number(-0.0), x)])))


def _remainder(a: Arithmetic, operands: Sequence[ir.Value]) -> ir.Value:
    """x - trunc(x / y) y, as C's fmod where the quotient is exact enough; of x where y is infinite."""
    x, y = operands
    quotient = math.TruncOp(a.div(x, y)).result
    rest = a.fma(a.sub(a.number(-0.0), quotient), y, x)
    kept = arith.AndIOp(
        a.compare("oeq", a.abs(y), a.number(numbers.inf)), a.compare("one", a.abs(x), a.number(numbers.inf))
    ).result
    return math.CopySignOp(a.choose(kept, x, rest), x).result


_EXPANSIONS: dict[str, _Expansion] = {
    "arith.remf": _remainder,
    "math.acos": _acos,
    "math.acosh": _acosh,
    "math.asin": _asin,
    "math.asinh": _asinh,
    "math.atan": _atan,
    "math.atan2": _atan2,
    "math.atanh": _atanh,
    "math.cbrt": _cbrt,
    "math.cos": _cos,
    "math.cosh": _cosh,
    "math.erf": _erf,
    "math.erfc": _erfc,
    "math.exp": _exp,
    "math.exp2": _exp2,
    "math.expm1": _expm1,
    "math.fpowi": _fpowi,
    "math.log": _log,
    "math.log10": _log10,
    "math.log1p": _log1p,
    "math.log2": _log2,
    "math.powf": _powf,
    "math.sin": _sin,
    "math.sinh": _sinh,
    "math.tan": _tan,
    "math.tanh": _tanh,
}
