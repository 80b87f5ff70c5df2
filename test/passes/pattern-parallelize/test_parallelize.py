"""pattern-parallelize: however many threads there are, and however layers are divided, the bits are the same."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from native import Net, check, main_body
from networks import CONTEXT, LIBRARY, Value, pattern_weight
from repository import run_function
from torch_mlir import ir

from patc.dialects.schedules import Schedule
from patc.passes import pattern_parallelize
from patc.passes.base import PassState
from patc.pipeline import Pipeline


def small_net(net: Net) -> list[Value]:
    """Add a convolution, a residual, a pool, a mean and a linear layer; two results, one of them twice."""
    rng = np.random.default_rng(0)
    a = net.conv(net.input, pattern_weight(rng, 6, 4, 0.7, LIBRARY), activation='"relu"')
    b = net.conv(a, pattern_weight(rng, 6, 6, 0.7, LIBRARY), residual=a, activation='"relu"')
    c = net.pool("max", b, (3, 3), (2, 2), (1, 1, 1, 1))
    d = net.conv(c, rng.standard_normal((5, 6, 1, 1)), pads=(0, 0, 0, 0))
    mean = net.global_pool(d)
    y = net.dense_layer(net.flatten(mean), rng.standard_normal((7, 5), np.float32))
    return [y, c, y]


def net() -> Net:
    return Net((2, 4, 11, 13))


def run(threads: int, retile: Callable[[Any, Schedule], Schedule] | None = None) -> list[np.ndarray]:
    made = net()
    return check(made, small_net(made), threads=threads, retile=retile)


def parallelized(text: str) -> ir.Module:
    """Return what the pass makes of a module."""
    module = ir.Module.parse(text, CONTEXT)
    Pipeline.parse("pattern-parallelize").run(module)
    return module


@pytest.fixture(scope="module")
def alone() -> list[np.ndarray]:
    """The results of one thread."""
    return run(1)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_bits_do_not_depend_on_threads(threads: int, alone: list[np.ndarray]) -> None:
    for found, wanted in zip(run(threads), alone, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("split", ["rows", "filters"])
def test_bits_do_not_depend_on_the_split(split: str, alone: list[np.ndarray]) -> None:
    for found, wanted in zip(run(3, lambda op, chosen: replace(chosen, split=split)), alone, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("seed", range(3))
def test_layers_may_have_different_numbers_of_parts(seed: int, alone: list[np.ndarray]) -> None:
    """A layer of one part runs on one thread; one of more parts than threads takes turns."""
    choices = random.Random(seed)
    found = run(2, lambda op, chosen: replace(chosen, threads=choices.choice([1, 2, 5])))
    for one, wanted in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one, wanted)


@pytest.mark.parametrize("longest", [1, 3, 128])
def test_long_nets_take_several_regions(longest: int, alone: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pattern_parallelize, "_LONGEST", longest)
    for found, wanted in zip(run(3), alone, strict=True):
        np.testing.assert_array_equal(found, wanted)
    made = net()
    module = made.build(*small_net(made))
    Pipeline.named("host", threads=3).run(module, PassState(made.copy_parameters()))
    names = [op.operation.name for op in main_body(module).operations]
    assert (names.count("omp.parallel") > 1) == (longest < 128)


def print_bits(threads: int) -> None:
    print(*(array.tobytes().hex() for array in run(threads)))


def test_runtime_may_give_fewer_threads(alone: list[np.ndarray]) -> None:
    printed = run_function(__file__, "print_bits(3)", OMP_THREAD_LIMIT="1")
    assert printed.split() == [array.tobytes().hex() for array in alone]


def test_threads_wait_after_each_layer_but_not_for_time_stamps() -> None:
    made = net()
    module = made.build(*small_net(made))
    pipeline = Pipeline.named("host", threads=3)
    first = [item.name for item in pipeline.passes].index("pattern-layout")
    Pipeline(pipeline.passes[first:]).run(module, PassState(made.copy_parameters()))
    (region,) = [op for op in main_body(module).operations if op.operation.name == "omp.parallel"]
    names = [op.operation.name for op in region.regions[0].blocks[0].operations]
    stages = [name for name in names if name in ("scf.for", "scf.if", "omp.barrier")]
    loops = stages.count("scf.for")
    assert loops >= 7
    assert all(after == "omp.barrier" for stage, after in itertools.pairwise(stages) if stage == "scf.for")
    # Thread 0 packs the few rows of the linear layer; after the last layer it copies the result that is returned twice.
    assert stages.count("omp.barrier") == loops + 2


def test_functions_are_merged_one_by_one() -> None:
    text = """
    func.func @a(%x: memref<4xf32>) {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %c2 = arith.constant 2 : index
      scf.parallel (%i) = (%c0) to (%c2) step (%c1) {
        func.call @layer(%x, %i) : (memref<4xf32>, index) -> ()
        scf.reduce
      }
      return
    }
    func.func @b(%x: memref<4xf32>) {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %c4 = arith.constant 4 : index
      scf.parallel (%i) = (%c0) to (%c4) step (%c1) {
        func.call @layer(%x, %i) : (memref<4xf32>, index) -> ()
        scf.reduce
      }
      return
    }
    func.func private @layer(memref<4xf32>, index)"""
    module = parallelized(text)
    found = str(module)
    assert found.count("omp.parallel") == 2
    assert found.count("func.func private @omp_get_thread_num()") == 1


def test_turns_of_a_loop_are_shared_and_what_lies_between_is_of_one_thread() -> None:
    """Every thread reads its numbers; thread 0 alone copies what the others made, who wait for it."""
    text = """
    func.func @main(%x: memref<4xf32>, %y: memref<4xf32>, %table: memref<2xi32>, %n: index) {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %c2 = arith.constant 2 : index
      %left = arith.remui %n, %c2 : index
      scf.for %turn = %c0 to %left step %c1 {
        %number = memref.load %table[%turn] : memref<2xi32>
        %place = arith.index_cast %number : i32 to index
        scf.parallel (%i) = (%c0) to (%c2) step (%c1) {
          func.call @layer(%x, %place) : (memref<4xf32>, index) -> ()
          scf.reduce
        }
        memref.copy %x, %y : memref<4xf32> to memref<4xf32>
      }
      return
    }
    func.func private @layer(memref<4xf32>, index)"""
    module = parallelized(text)
    (region,) = [op for op in main_body(module).operations if op.operation.name == "omp.parallel"]
    (loop,) = [op for op in region.regions[0].blocks[0].operations if op.operation.name == "scf.for"]
    names = [op.operation.name for op in loop.regions[0].blocks[0].operations]
    stages = [name for name in names if not name.startswith("arith.")]
    assert stages == ["memref.load", "scf.for", "omp.barrier", "scf.if", "omp.barrier", "scf.yield"]


def test_threads_wait_for_a_loop_of_one_thread() -> None:
    text = """
    func.func @main(%x: memref<4xf32>, %y: memref<4xf32>) {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %c2 = arith.constant 2 : index
      scf.parallel (%i) = (%c0) to (%c2) step (%c1) {
        func.call @layer(%x, %i) : (memref<4xf32>, index) -> ()
        scf.reduce
      }
      scf.for %turn = %c0 to %c2 step %c1 {
        memref.copy %x, %y : memref<4xf32> to memref<4xf32>
      }
      scf.parallel (%i) = (%c0) to (%c2) step (%c1) {
        func.call @layer(%y, %i) : (memref<4xf32>, index) -> ()
        scf.reduce
      }
      return
    }
    func.func private @layer(memref<4xf32>, index)"""
    module = parallelized(text)
    (region,) = [op for op in main_body(module).operations if op.operation.name == "omp.parallel"]
    names = [op.operation.name for op in region.regions[0].blocks[0].operations]
    stages = [name for name in names if name in ("scf.for", "scf.if", "omp.barrier")]
    assert stages == ["scf.for", "omp.barrier", "scf.if", "omp.barrier", "scf.for", "omp.barrier"]
