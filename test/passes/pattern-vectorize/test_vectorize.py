"""pattern-vectorize: the rewritten loops compute the very same bits, with fewer unaligned loads."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native import NATIVE_TARGETS, Net, check
from networks import CONTEXT, LIBRARY, pattern_weight
from torch_mlir import ir

from patc.passes.base import PassState
from patc.passes.pattern_vectorize import PatternVectorize
from patc.pipeline import Pipeline
from patc.targets import get_target

SHIFTS = get_target("host").cheap_shift if "x86-64-v4" in NATIVE_TARGETS else False


@pytest.mark.skipif(not SHIFTS, reason="the pass changes nothing for this machine")
@given(st.randoms(use_true_random=False))
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_bits_stay(choices: random.Random) -> None:
    height, width, channels = choices.randint(1, 9), choices.randint(9, 70), choices.randint(1, 5)
    rng = np.random.default_rng(choices.getrandbits(32))
    net = Net((1, channels, height, width))
    x = net.activate(net.input) if choices.random() < 0.5 else net.input
    strides = choices.choice([(1, 1), (1, 1), (2, 2)])
    weight = pattern_weight(rng, 4, channels, 0.8, LIBRARY)
    if choices.random() < 0.5:
        weight = rng.standard_normal(weight.shape)
    y = net.conv(x, weight, strides=strides)
    before = check(net, [y], without=["pattern-vectorize"])
    after = check(net, [y])
    np.testing.assert_array_equal(after[0], before[0])


def vectorize(text: str, target: str = "x86-64-v4") -> str:
    module = ir.Module.parse(text, CONTEXT)
    Pipeline([PatternVectorize(target=target)]).run(module)
    return str(module)


def loop(body: str, before: str = "", after: str = "") -> str:
    """Return a loop over %base in steps of 16."""
    return f"""
    func.func @main(%x: memref<1024xf32>, %y: memref<1024xf32>) {{
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %c512 = arith.constant 512 : index
      %step = arith.constant 16 : index
      {before}
      scf.for %base = %c0 to %c512 step %step {{
        {body}
      }}
      {after}
      return
    }}"""


def row_of_loads(*offsets: int) -> str:
    """Return 16-lane loads at base + offset, each stored somewhere."""
    lines = []
    for number, offset in enumerate(offsets):
        lines += [
            f"%o{number} = arith.constant {offset} : index",
            f"%a{number} = arith.addi %base, %o{number} : index",
            f"%v{number} = vector.load %x[%a{number}] : memref<1024xf32>, vector<16xf32>",
            f"vector.store %v{number}, %y[%c0] : memref<1024xf32>, vector<16xf32>",
        ]
    return "\n".join(lines)


def count(text: str, op: str) -> int:
    return sum(f" {op} " in line for line in text.splitlines())


@pytest.mark.parametrize(
    ("offsets", "loads", "shifts"),
    [
        ((1,), 2, 1),
        ((0, 1), 2, 1),
        ((1, 17), 3, 2),
        ((0, 1, 16, 17, 32), 3, 2),
        ((0, 2), 2, 0),
        ((0, 15), 2, 0),
        ((1, 2), 3, 1),
        ((33,), 2, 1),
    ],
)
def test_aligned_vectors_are_loaded_once(offsets: tuple[int, ...], loads: int, shifts: int) -> None:
    text = vectorize(loop(row_of_loads(*offsets)))
    assert (count(text, "vector.load"), count(text, "vector.shuffle")) == (loads, shifts)


def test_targets_without_a_cheap_shift_keep_their_loads() -> None:
    text = str(ir.Module.parse(loop(row_of_loads(0, 1)), CONTEXT))
    assert vectorize(text, "x86-64-v3") == text


def test_a_second_run_changes_nothing() -> None:
    once = vectorize(loop(row_of_loads(0, 1, 2, 17)))
    assert vectorize(once) == once


def test_addresses_may_use_constants_that_come_later() -> None:
    """A constant behind the loop is none that the loop can use."""
    vectorize(loop(row_of_loads(1), after="%late = arith.constant 32 : index"))
    vectorize(loop(row_of_loads(17), after="%late = arith.constant 32 : index"))


def test_loads_stay_behind_the_stores_before_them() -> None:
    """What is stored between two loads of the same memory is seen by the second."""
    body = """
        %first = vector.load %x[%base] : memref<1024xf32>, vector<16xf32>
        vector.store %first, %y[%base] : memref<1024xf32>, vector<16xf32>
        %behind = arith.addi %base, %c1 : index
        vector.store %first, %x[%behind] : memref<1024xf32>, vector<16xf32>
        %second = vector.load %x[%behind] : memref<1024xf32>, vector<16xf32>
        vector.store %second, %y[%behind] : memref<1024xf32>, vector<16xf32>"""
    lines = vectorize(loop(body)).splitlines()
    into_x = next(number for number, line in enumerate(lines) if "vector.store" in line and "%arg0" in line)
    shuffle = [number for number, line in enumerate(lines) if "vector.shuffle" in line]
    if shuffle:
        sources = lines[shuffle[0]].split("vector.shuffle ")[1].split(" [")[0].split(", ")
        for source in sources:
            made = next(number for number, line in enumerate(lines) if f"{source} = " in line)
            assert made > into_x, "a vector from before the store is used after it"


def test_functions_without_loops_stay() -> None:
    module = ir.Module.parse("func.func private @declared()", CONTEXT)
    with module.context, ir.Location.unknown():
        PatternVectorize(target="x86-64-v4").run(module, PassState())
    assert "declared" in str(module)
