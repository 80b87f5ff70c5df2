"""Elementary functions in the bodies of linalg ops, as arithmetic."""

from __future__ import annotations

import math as numbers
from collections.abc import Callable

from torch_mlir import ir
from torch_mlir.dialects import arith, math

from patc.passes.functions import errors, exponentials, hyperbolic, logarithms, powers, trigonometry
from patc.passes.functions.arithmetic import Arithmetic
from patc.passes.functions.quotients import guard_quotients
from patc.passes.functions.signs import is_never_positive

# What processors compute by themselves, or what LLVM makes a few instructions of.
_NATIVE = {
    "math.absf", "math.absi", "math.ceil", "math.copysign", "math.ctlz", "math.ctpop", "math.cttz", "math.floor",
    "math.fma", "math.isfinite", "math.isinf", "math.isnan", "math.isnormal", "math.round", "math.roundeven",
    "math.rsqrt", "math.sqrt", "math.trunc",
}  # fmt: skip


def has_lowering(op: ir.Operation) -> bool:
    """Whether an op can be computed: it is no elementary function, or one that `expand` knows."""
    return not op.name.startswith("math.") or op.name in _NATIVE or op.name in _EXPANSIONS


def expand(root: ir.Operation) -> None:
    """Replace the elementary functions under an op by arithmetic, and let all divisions of integers give a number."""
    guard_quotients(root)
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name in _EXPANSIONS or _cast_of(op):
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
    if cast := _cast_of(op):
        return cast(op.operands[0], kind)
    if op.name == "arith.remf":
        return _remainder(Arithmetic(kind), *op.operands)
    a = Arithmetic(ir.F32Type.get())
    given = [a.convert(operand) if isinstance(operand.type, ir.FloatType) else operand for operand in op.operands]
    is_narrow = op.name == "math.exp" and is_never_positive(op.operands[0])
    function = exponentials.exp_of_negative if is_narrow else _EXPANSIONS[op.name]
    return Arithmetic(kind).convert(function(a, *given))


def _cast_of(op: ir.Operation) -> Callable[[ir.Value, ir.Type], ir.Value] | None:
    """Return what makes instructions of a cast that LLVM would call a library for on some CPUs."""
    if op.name == "arith.extf" and isinstance(op.operands[0].type, ir.BF16Type):
        return _from_brain
    if op.name != "arith.truncf":
        return None
    given, kind = op.operands[0].type, op.results[0].type
    if isinstance(kind, ir.BF16Type):
        return _to_brain
    return _to_half if isinstance(given, ir.F64Type) and isinstance(kind, ir.F16Type) else None


def _from_brain(x: ir.Value, kind: ir.Type) -> ir.Value:
    """A bf16 is the upper half of an f32."""
    a, half = Arithmetic(ir.F32Type.get()), ir.IntegerType.get_signless(16)
    bits = arith.ExtUIOp(a.integer_type, arith.BitcastOp(half, x).result).result
    return Arithmetic(kind).convert(a.from_bits(arith.ShLIOp(bits, a.integer(16)).result))


def _to_brain(x: ir.Value, kind: ir.Type) -> ir.Value:
    """Rounded to nearest, of two to the even one; NaN stays NaN."""
    a, half = Arithmetic(ir.F32Type.get()), ir.IntegerType.get_signless(16)
    single = a.convert(x)
    bits = a.bits(single)
    is_odd = arith.AndIOp(arith.ShRUIOp(bits, a.integer(16)).result, a.integer(1)).result
    rounded = a.int_add(a.int_add(bits, a.integer(0x7FFF)), is_odd)
    quiet = arith.OrIOp(bits, a.integer(1 << 22)).result
    kept = arith.ShRUIOp(a.select("uno", single, single, quiet, rounded), a.integer(16)).result
    return arith.BitcastOp(kind, arith.TruncIOp(half, kept).result).result


def _to_half(x: ir.Value, kind: ir.Type) -> ir.Value:
    """Rounded to f32 first, as PyTorch does."""
    return Arithmetic(kind).convert(Arithmetic(ir.F32Type.get()).convert(x))


def _remainder(a: Arithmetic, x: ir.Value, y: ir.Value) -> ir.Value:
    """x - trunc(x / y) y, as C's fmod where the quotient is exact enough; of x where y is infinite."""
    quotient = math.TruncOp(a.div(x, y)).result
    rest = a.fma(a.sub(a.number(-0.0), quotient), y, x)
    is_whole = a.compare("oeq", a.abs(y), a.number(numbers.inf))
    kept = arith.AndIOp(is_whole, a.compare("one", a.abs(x), a.number(numbers.inf))).result
    return math.CopySignOp(a.choose(kept, x, rest), x).result


_FUNCTIONS: dict[str, Callable[..., ir.Value]] = {
    "exp": exponentials.exp,
    "exp2": exponentials.exp2,
    "expm1": exponentials.expm1,
    "log": logarithms.log,
    "log10": logarithms.log10,
    "log1p": logarithms.log1p,
    "log2": logarithms.log2,
    "cbrt": powers.cbrt,
    "fpowi": powers.fpowi,
    "powf": powers.powf,
    "acosh": hyperbolic.acosh,
    "asinh": hyperbolic.asinh,
    "atanh": hyperbolic.atanh,
    "cosh": hyperbolic.cosh,
    "sinh": hyperbolic.sinh,
    "tanh": hyperbolic.tanh,
    "erf": errors.erf,
    "erfc": errors.erfc,
    "acos": trigonometry.acos,
    "asin": trigonometry.asin,
    "atan": trigonometry.atan,
    "atan2": trigonometry.atan2,
    "cos": trigonometry.cos,
    "sin": trigonometry.sin,
    "tan": trigonometry.tan,
}
_EXPANSIONS = {"arith.remf": _remainder} | {f"math.{name}": function for name, function in _FUNCTIONS.items()}
