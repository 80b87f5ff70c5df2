"""Arithmetic on scalars or vectors of one floating-point type, for writing formulas."""

from __future__ import annotations

from collections.abc import Sequence

from torch_mlir import ir
from torch_mlir.dialects import arith, math

_PREDICATES = {name: getattr(arith.CmpFPredicate, name.upper()) for name in ("oeq", "ogt", "olt", "one", "ult", "uno")}


class Arithmetic:
    """Builds operations on floating-point scalars or vectors at the current insertion point.

    Products and sums may become one multiply-add; nothing else is taken liberties with, so that NaN, infinities and the
    order of sums stay.

    Args:
        kind: the type that is computed in, of floating-point numbers or of vectors of them.
    """

    def __init__(self, kind: ir.Type) -> None:
        self.type = kind
        self.element = kind.element_type if isinstance(kind, ir.VectorType) else kind
        self.lanes = kind.shape[0] if isinstance(kind, ir.VectorType) else 1
        self.integer_type = self._of(ir.IntegerType.get_signless(self.element.width))
        self._contract = ir.Attribute.parse("#arith.fastmath<contract>")

    def number(self, value: float) -> ir.Value:
        """Return a constant."""
        return _constant(self.type, ir.FloatAttr.get(self.element, value))

    def integer(self, value: int) -> ir.Value:
        """Return a constant of the integer type of equal width."""
        element = ir.IntegerType.get_signless(self.element.width)
        return _constant(self.integer_type, ir.IntegerAttr.get(element, value))

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a + b."""
        return arith.AddFOp(a, b, fastmath=self._contract).result

    def sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a - b."""
        return arith.SubFOp(a, b, fastmath=self._contract).result

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a b."""
        return arith.MulFOp(a, b, fastmath=self._contract).result

    def div(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a / b."""
        return arith.DivFOp(a, b).result

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Return a b + c, rounded once."""
        return math.FmaOp(a, b, c).result

    def abs(self, a: ir.Value) -> ir.Value:
        """Return |a|."""
        return math.AbsFOp(a).result

    def minimum(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return the smaller number, NaN where either is."""
        return arith.MinimumFOp(a, b).result

    def clamp(self, a: ir.Value, low: float, high: float) -> ir.Value:
        """Return a, or the bound that it is beyond; NaN stays."""
        above = self.select("ogt", a, self.number(high), self.number(high), a)
        return self.select("olt", above, self.number(low), self.number(low), above)

    def polynomial(self, x: ir.Value, coefficients: Sequence[float]) -> ir.Value:
        """Return the polynomial with these coefficients, the highest first."""
        value = self.number(coefficients[0])
        for coefficient in coefficients[1:]:
            value = self.fma(value, x, self.number(coefficient))
        return value

    def compare(self, predicate: str, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return whether a relation as "olt" holds."""
        return arith.CmpFOp(_PREDICATES[predicate], a, b).result

    def choose(self, condition: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a where a condition holds, else b."""
        return arith.SelectOp(condition, a, b).result

    def select(self, predicate: str, x: ir.Value, y: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a where a relation of x and y holds, else b."""
        return self.choose(self.compare(predicate, x, y), a, b)

    def invert(self, condition: ir.Value) -> ir.Value:
        """Return whether a condition does not hold."""
        one = ir.IntegerAttr.get(ir.IntegerType.get_signless(1), 1)
        return arith.XOrIOp(condition, _constant(condition.type, one)).result

    def int_add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return the sum of integers."""
        return arith.AddIOp(a, b).result

    def int_sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return the difference of integers."""
        return arith.SubIOp(a, b).result

    def bits(self, a: ir.Value) -> ir.Value:
        """Return the bits of a number as an integer."""
        return arith.BitcastOp(self.integer_type, a).result

    def from_bits(self, a: ir.Value) -> ir.Value:
        """Return the number with the bits of an integer."""
        return arith.BitcastOp(self.type, a).result

    def power_of_two(self, exponent: ir.Value) -> ir.Value:
        """Return 2^n as f32; n is an integer from -126 to 127, or -127 for zero."""
        biased = self.int_add(exponent, self.integer(127))
        return self.from_bits(arith.ShLIOp(biased, self.integer(23)).result)

    def whole(self, a: ir.Value) -> ir.Value:
        """Return integers as floating-point numbers."""
        return arith.SIToFPOp(self.type, a).result

    def wide(self) -> Arithmetic:
        """Return the arithmetic on as many f64."""
        return Arithmetic(self._of(ir.F64Type.get()))

    def convert(self, value: ir.Value) -> ir.Value:
        """Return a floating-point number in this type."""
        given = value.type.element_type if isinstance(value.type, ir.VectorType) else value.type
        if given.width == self.element.width:
            return value
        return (arith.ExtFOp if given.width < self.element.width else arith.TruncFOp)(self.type, value).result

    def _of(self, element: ir.Type) -> ir.Type:
        """Return the type of as many other elements."""
        return ir.VectorType.get(self.type.shape, element) if isinstance(self.type, ir.VectorType) else element


def _constant(type_: ir.Type, attr: ir.Attribute) -> ir.Value:
    is_vector = isinstance(type_, ir.VectorType)
    return arith.ConstantOp(type_, ir.DenseElementsAttr.get_splat(type_, attr) if is_vector else attr).result
