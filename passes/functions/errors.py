"""The error function, and what it lacks of one."""

from __future__ import annotations

from torch_mlir import ir
from torch_mlir.dialects import math

from patc.passes.functions.arithmetic import Arithmetic
from patc.passes.functions.exponentials import exp_of_sum
from patc.passes.functions.logarithms import upper_half

# Minimax polynomials: of x^2, erf(x) / x - 1 up to |x| = 1; of |x| - 2.4, erf |x| from there to 3.95.
_NEAR = (7.85386073e-05, -0.000801019371, 0.00518832775, -0.0268538129, 0.112835854, -0.37612626, 0.128379166)
_FAR = (
    -9.00667601e-06, 3.19129758e-05, 3.20415857e-05, -0.000326839217, 0.000562907429,
    0.000233474537, -0.00311404234, 0.00789467711, -0.0121066142,
    0.0124677354, -0.00853501726, 0.00355570321, 0.999311507,
)  # fmt: skip
# Minimax of x: the fourth root of the share of a normal distribution above x, up to 6.2; below 0 from there to the end.
_TAIL = (
    4.35785511e-08, -7.81647984e-07, 2.35988019e-06, 3.5778701e-05, -0.000255870851, -0.000104507587,
    0.00384929738, 0.00462741672, -0.0501935042, -0.167734266, 0.840896428,
)  # fmt: skip
_TAIL_END = 6.21
# Of (x - 4) / (x + 4): (1 + 2 x) exp(x^2) erfc(x) for x from 0.5 to 10.5.
_ERFC = (
    0.0053413322, -0.0164707287, 0.0370065292, -0.0663008236, 0.093756491,
    -0.101039673, 0.0680959225, 0.0153796152, -0.139621106, 1.23299512,
)  # fmt: skip


def erf(a: Arithmetic, x: ir.Value) -> ir.Value:
    """A polynomial near 0 and another one elsewhere, which ends with 1."""
    size = a.abs(x)
    near = a.fma(a.polynomial(a.mul(x, x), _NEAR), x, x)
    far, one = a.polynomial(a.sub(size, a.number(2.4)), _FAR), a.number(1.0)
    far = a.select("ogt", size, a.number(3.92), one, a.select("ogt", far, one, one, far))
    return a.select("olt", size, one, near, math.CopySignOp(far, x).result)


def erfc(a: Arithmetic, x: ir.Value) -> ir.Value:
    """1 - erf(x) near 0; exp(-x^2) times a polynomial above, and 2 minus that below."""
    x = a.clamp(x, -10.5, 10.5)
    size, one = a.abs(x), a.number(1.0)
    place = a.div(a.sub(size, a.number(4.0)), a.add(size, a.number(4.0)))
    high = upper_half(a, size)
    low = a.mul(a.sub(high, size), a.add(high, size))
    power = exp_of_sum(a, a.sub(a.number(-0.0), a.mul(high, high)), low)
    tail = a.mul(power, a.div(a.polynomial(place, _ERFC), a.add(one, a.add(size, size))))
    far = a.select("olt", x, a.number(0.0), a.sub(a.number(2.0), tail), tail)
    return a.select("olt", size, a.number(0.5), a.sub(one, erf(a, x)), far)


def gelu(a: Arithmetic, x: ir.Value) -> ir.Value:
    """x times the share of a normal distribution below x; of that above |x|, times |x|, the error is 4e-8."""
    zero, end, size = a.number(0.0), a.number(_TAIL_END), a.abs(x)
    root = a.polynomial(a.select("olt", end, size, end, size), _TAIL)  # NaN stays
    root = a.select("ogt", zero, root, zero, root)
    square = a.mul(root, root)
    above = a.mul(square, square)
    return a.mul(x, a.select("ogt", x, zero, a.sub(a.number(1.0), above), above))
