"""Loops that show one property of a core each, as LLVM IR: every instruction of them is wanted, and none can go.

A probe is a function of two pointers: to numbers (turns first), and to memory that it works on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

UNROLLED = 16
LINE = 64  # bytes between the loads of a probe
OPERATIONS = 2 * UNROLLED  # cycles of a turn of `clock`: each waits for the one before, on any core


@dataclass(frozen=True)
class Probe:
    """A function.

    Attributes:
        name: of the function.
        text: LLVM IR.
        amount: what one turn does: multiply-adds, loads, bytes or cycles, as its maker says.
        declared: a function that the text calls.
    """

    name: str
    text: str
    amount: float
    declared: str = ""


def _loop(name: str, body: Sequence[str], phis: Sequence[tuple[str, str, str, str]] = (), before: str = "") -> str:
    """Return a function that runs `body` as often as the first number says.

    Args:
        phis: type, name, first and next value of what goes round.
        before: what is done once.
    """
    carried = "".join(
        f"  {into} = phi {type_} [ {first}, %entry ], [ {next_}, %loop ]\n" for type_, into, first, next_ in phis
    )
    kept = "".join(f"  store {type_} {next_}, ptr %data, align 4\n" for type_, _, _, next_ in phis)
    lines = "".join(f"  {line}\n" for line in body)
    return f"""define void @{name}(ptr %given, ptr %data) nounwind {{
entry:
  %turns = load i64, ptr %given
{before}  br label %loop
loop:
  %turn = phi i64 [ 0, %entry ], [ %after, %loop ]
{carried}{lines}  %after = add i64 %turn, 1
  %more = icmp ult i64 %after, %turns
  br i1 %more, label %loop, label %done
done:
{kept}  ret void
}}
"""


def clock() -> Probe:
    """Return a chain of additions and exclusive ors; the amount is cycles."""
    body = []
    for number in range(UNROLLED):
        body += [f"%x{number} = xor i64 %y{number}, %turns", f"%y{number + 1} = add i64 %x{number}, %turns"]
    return Probe("probe_clock", _loop("probe_clock", body, [("i64", "%y0", "1", f"%y{UNROLLED}")]), OPERATIONS)


def multiply_adds(lanes: int, chains: int, name: str, beside: int = 0, start: int = 0) -> Probe:
    """Return chains of multiply-adds of vectors; the amount is multiply-add instructions.

    Args:
        beside: loads of such vectors from the first-level cache in a turn, that nothing waits for.
        start: byte of a line at which these begin.
    """
    vector = f"<{lanes} x float>"
    starts = "".join(
        f"  %a{chain} = getelementptr i8, ptr %data, i64 {4 * lanes * chain}\n"
        f"  %s{chain} = load {vector}, ptr %a{chain}, align 4\n"
        for chain in range(chains + 2)
    )
    body, steps = [], max(1, UNROLLED // chains)
    for step in range(steps):
        body += [
            f"%x{chain}.{step + 1} = call {vector} @llvm.fma.v{lanes}f32({vector} %x{chain}.{step}, "
            f"{vector} %s{chains}, {vector} %s{chains + 1})"
            for chain in range(chains)
        ]
    for number in reversed(range(beside)):
        load = [f"%l{number} = getelementptr i8, ptr %data, i64 {LINE * (number % UNROLLED) + start}"]
        load += [f"%v{number} = load volatile {vector}, ptr %l{number}, align 4"]
        place = number * chains * steps // beside
        body[place:place] = load
    phis = [(vector, f"%x{chain}.0", f"%s{chain}", f"%x{chain}.{steps}") for chain in range(chains)]
    declared = f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})\n"
    return Probe(name, _loop(name, body, phis, starts), chains * steps, declared)


def loads(lanes: int, name: str, start: int = 0) -> Probe:
    """Return loads of vectors from the first-level cache, each from byte `start` of a line; the amount is loads."""
    body = []
    for number in range(UNROLLED):
        body += [
            f"%a{number} = getelementptr i8, ptr %data, i64 {LINE * number + start}",
            f"%v{number} = load volatile <{lanes} x float>, ptr %a{number}, align 4",
        ]
    return Probe(name, _loop(name, body), UNROLLED)


def lines(lanes: int, name: str, apart: int = 256) -> Probe:
    """Return loads of all of a buffer, over and over: of 256 bytes in a row, and then of those `apart` bytes further
    on, an odd multiple of 256. Its bytes, a power of two, are the second number. The amount is bytes."""
    return _over_buffer(lanes, name, apart, f"load volatile <{lanes} x float>, ptr %a{{0}}, align 4")


def writes(lanes: int, name: str) -> Probe:
    """Return the same with stores of zeros, in order."""
    return _over_buffer(lanes, name, 256, f"store volatile <{lanes} x float> zeroinitializer, ptr %a{{0}}, align 4")


def _over_buffer(lanes: int, name: str, apart: int, access: str) -> Probe:
    before = "  %size.at = getelementptr i64, ptr %given, i64 1\n  %size = load i64, ptr %size.at\n"
    body = [f"%start = mul i64 %turn, {apart}", "%mask = sub i64 %size, 1", "%place = and i64 %start, %mask"]
    for number in range(256 // (4 * lanes)):
        body += [
            f"%o{number} = add i64 %place, {4 * lanes * number}",
            f"%a{number} = getelementptr i8, ptr %data, i64 %o{number}",
            (f"%v{number} = " if access.startswith("load") else "") + access.format(number),
        ]
    return Probe(name, _loop(name, body, before=before), 256)
