"""Integers divided by zero, and the least number over -1: numbers come out, of compiled code and of the reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from emulated import needs_arm

from patc.bench.emulator import run_program
from patc.codegen.reference import execute
from patc.compiler import compile_model
from patc.context import make_context
from patc.execution import run_module
from patc.mlir_files import parse_module

MODULE = """
#all = affine_map<(d0) -> (d0)>
func.func @main(%x: tensor<35xKIND>, %y: tensor<35xKIND>) -> tensor<35xKIND> {
  %e = tensor.empty() : tensor<35xKIND>
  %r = linalg.generic {indexing_maps = [#all, #all, #all], iterator_types = ["parallel"]}
      ins(%x, %y : tensor<35xKIND>, tensor<35xKIND>) outs(%e : tensor<35xKIND>) {
  ^bb0(%a: KIND, %b: KIND, %out: KIND):
    %0 = arith.NAME %a, DIVISOR : KIND
    linalg.yield %0 : KIND
  } -> tensor<35xKIND>
  return %r : tensor<35xKIND>
}
"""


def truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (-1 if (a < 0) != (b < 0) else 1)


EXACT: dict[str, Callable[[int, int], int]] = {
    "divsi": truncated,
    "remsi": lambda a, b: a - truncated(a, b) * b,
    "floordivsi": lambda a, b: a // b,
    "ceildivsi": lambda a, b: -(-a // b),
    "divui": lambda a, b: a // b,
    "remui": lambda a, b: a % b,
    "ceildivui": lambda a, b: -(-a // b),
}


def numbers(kind: str, name: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Return dividends and divisors with all kinds of ends among them, and what should come out."""
    signed = np.dtype(f"int{kind[1:]}")
    meant = signed if name.endswith("si") else np.dtype(f"uint{kind[1:]}")
    ends = [0, 1, -1, 2, -7, np.iinfo(signed).min, np.iinfo(signed).max]
    pairs = [(a, b) for a in ends for b in (0, -1, 1, -3, np.iinfo(signed).min)]
    given = [np.array(each, signed) for each in zip(*pairs, strict=True)]
    wanted = [
        EXACT[name](int(a), int(b)) if b else 0 for a, b in zip(*(each.view(meant) for each in given), strict=True)
    ]
    return given, np.array(wanted, object) % (1 << 8 * signed.itemsize)


def check(found: np.ndarray, wanted: np.ndarray) -> None:
    bits = found.view(f"uint{8 * found.dtype.itemsize}")
    assert [int(each) for each in bits] == list(wanted)


@pytest.mark.parametrize("kind", ["i8", "i32", "i64"])
@pytest.mark.parametrize("name", EXACT)
def test_any_divisor_gives_a_number(name: str, kind: str) -> None:
    text = MODULE.replace("KIND", kind).replace("NAME", name).replace("DIVISOR", "%b")
    module, parameters = parse_module(text, make_context())
    given, wanted = numbers(kind, name)
    check(execute(module, parameters, given)[0], wanted)
    check(run_module(module, parameters, given, target="host", threads=1)[0], wanted)


@needs_arm
@pytest.mark.parametrize("name", ["divsi", "remui"])
def test_other_cpus_give_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.mlir"
    path.write_text(MODULE.replace("KIND", "i32").replace("NAME", name).replace("DIVISOR", "%b"))
    given, wanted = numbers("i32", name)
    (found,) = run_program(compile_model(path, None, target="aarch64-linux").program, given)
    check(found, wanted)


@pytest.mark.parametrize("divisor", [0, -1])
def test_constant_divisors(divisor: int) -> None:
    text = MODULE.replace("KIND", "i32").replace("NAME", "divsi").replace("DIVISOR", "%c")
    text = text.replace("    %0 =", f"    %c = arith.constant {divisor} : i32\n    %0 =")
    module, parameters = parse_module(text, make_context())
    x = np.arange(-17, 18, dtype=np.int32)
    (found,) = run_module(module, parameters, [x, x], target="host", threads=1)
    assert np.array_equal(found, x * divisor)
