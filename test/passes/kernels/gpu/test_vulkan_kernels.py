"""Kernels on a Vulkan device compute what the ops mean: against the float64 interpreter, on random layers.

The layers are those of `random_layers`. Every kernel is held to be one that spirv-val accepts, where there is one.
"""

from __future__ import annotations

import random
from dataclasses import replace
from shutil import which
from typing import Any

import numpy as np
import pytest
from gpu import check, compile_for_gpu, needs_device, require_valid
from hypothesis import given, settings
from interpreter import interpret
from native import Net, Retile
from networks import LIBRARY, Network, Value, pattern_weight
from random_layers import (
    DENSE_KERNELS,
    POOL_KERNELS,
    RANDOMS,
    REPRODUCIBLE,
    SPARSE_KERNELS,
    RandomNet,
    random_dense,
    random_elementwise,
    random_linear,
    random_pool,
    random_sparse,
    windows,
)

from patc.dialects.schedules import Schedule
from patc.passes.base import PassState
from patc.passes.ir.windows import Window
from patc.pipeline import Pipeline

pytestmark = needs_device


def random_schedules(choices: random.Random) -> Retile | None:
    """Return what keeps the chosen schedules, or what draws random legal ones."""
    return None if choices.random() < 0.4 else lambda op, chosen: random_schedule(op, chosen, choices)


def random_schedule(op: Any, chosen: Schedule, choices: random.Random) -> Schedule:
    if chosen.algorithm == "gemm":
        return chosen  # one of two tiles
    if chosen.algorithm in ("global-pool", "gemv"):
        threads = choices.choice([32, 64, 128])
        return replace(chosen, threads=threads, sums=threads)
    rows, threads = choices.choice([1, 2, 3, 4]), choices.choice([8, 32, 64, 128])
    chosen = replace(chosen, rows=rows, threads=threads)
    if chosen.algorithm in ("pool", "elementwise"):
        return chosen
    sums = choices.choice([1, 2, 4])
    if "format" in op.attributes:
        return replace(chosen, algorithm=choices.choice(["pattern-direct", "dense-direct"]), filters=1, sums=sums)
    group = op.result.type.shape[1] // op.groups.value
    blocks = [size for size in (1, 2, 3, 4) if group % size == 0 or group == op.result.type.shape[1]]
    filters = choices.choice(blocks)
    fits = sums * filters * rows * threads * 16 <= 16384 and op.weight.type.shape[1] > 1
    return replace(chosen, filters=filters, sums=sums if fits else 1)


def check_random(case: RandomNet | None, choices: random.Random) -> None:
    if case is None:
        return
    net, y, others = case
    results = [*others, y] if choices.random() < 0.6 or not others else others
    dtype = choices.choice(["f32", "f32", "f16"])
    model = check(net, results, choices.getrandbits(32), dtype, random_schedules(choices))
    if which("spirv-val"):
        require_valid(model.code)


@given(windows(SPARSE_KERNELS), RANDOMS)
@settings(REPRODUCIBLE, max_examples=20)
def test_sparse_convolutions(case: tuple[Window, tuple[int, int]], choices: random.Random) -> None:
    check_random(random_sparse(*case, choices), choices)


@given(windows(DENSE_KERNELS), RANDOMS)
@settings(REPRODUCIBLE, max_examples=20)
def test_dense_convolutions(case: tuple[Window, tuple[int, int]], choices: random.Random) -> None:
    check_random(random_dense(*case, choices), choices)


@given(windows(POOL_KERNELS), RANDOMS)
@settings(REPRODUCIBLE, max_examples=15)
def test_pools(case: tuple[Window, tuple[int, int]], choices: random.Random) -> None:
    check_random(random_pool(*case, choices), choices)


@given(RANDOMS)
@settings(REPRODUCIBLE, max_examples=8)
def test_linear_layers(choices: random.Random) -> None:
    check_random(random_linear(choices), choices)


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize(("rows", "features", "filters"), [(9, 5, 3), (64, 32, 96), (197, 33, 192), (512, 19, 600)])
def test_linear_layers_of_many_rows(rows: int, features: int, filters: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    net = Net((rows, features))
    weight, bias = rng.standard_normal((filters, features)), rng.standard_normal(filters)
    residuals = None, net.new_input((rows, filters))
    results = [net.dense_layer(net.input, weight, bias, '"relu"', residual) for residual in residuals]
    model = check(net, results, dtype=dtype)
    assert [layer.algorithm for layer in model.layers if layer.op == "linear"] == ["gemm"] * 2
    if which("spirv-val"):
        require_valid(model.code)


@given(RANDOMS)
@settings(REPRODUCIBLE, max_examples=12)
def test_additions_and_activations(choices: random.Random) -> None:
    check_random(random_elementwise(choices), choices)


@pytest.mark.parametrize("mask", LIBRARY)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_pattern(mask: int, stride: int) -> None:
    rng = np.random.default_rng(mask)
    net = Network((1, 5, 9, 11))
    weight = pattern_weight(rng, 6, 5, 0.8, [mask])
    y = net.conv(net.input, weight, rng.standard_normal(6), strides=(stride, stride), activation='"relu"')
    check_sparse(net, y)


@pytest.mark.parametrize("block", [2, 4])
@pytest.mark.parametrize("rows", [1, 2])
def test_filters_that_share_kernels(block: int, rows: int) -> None:
    rng = np.random.default_rng(0)
    net = Network((2, 9, 8, 12))
    kept = pattern_weight(rng, 2, 9, 0.6) != 0
    weight = np.repeat(kept, block, axis=0) * rng.standard_normal((2 * block, 9, 3, 3))
    y = net.conv(net.input, weight, rng.standard_normal(2 * block))
    check_sparse(net, y, lambda _, chosen: replace(chosen, filters=block, rows=rows))


def check_sparse(net: Network, y: Value, retile: Retile | None = None) -> None:
    """Check a net of one convolution, which is encoded and computed pattern by pattern."""
    x = np.random.default_rng(1).standard_normal(net.input.shape, np.float32)
    module, parameters = net.build(y), net.copy_parameters()
    (wanted,) = interpret(module, parameters, [x])
    Pipeline().add("pattern-encode").add("pattern-reorder").run(module, PassState(parameters))

    def direct(op: Any, chosen: Schedule) -> Schedule:
        if "format" not in op.attributes:
            return chosen
        plain = replace(chosen, algorithm="pattern-direct", filters=1, sums=1)
        return plain if retile is None else retile(op, plain)

    (found,) = compile_for_gpu(module, parameters, direct)(x)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_a_large_window_is_a_loop() -> None:
    net = Net((1, 3, 20, 21))
    check(net, [net.window_pool("max", net.input, Window((11, 9), (1, 1), (5, 4, 5, 4)))])
    net = Net((1, 3, 20, 21))
    check(net, [net.window_pool("avg", net.input, Window((13, 7), (2, 1), (6, 3, 6, 3)), counts_pads=False)])


def test_constants_in_the_place_of_activations() -> None:
    rng = np.random.default_rng(0)
    net = Net((2, 3, 5, 7))
    constant = net.constant(rng.standard_normal((2, 3, 5, 7), np.float32))
    total = net.op("pattern.add", [net.input, constant], 'activation = "relu"', net.input.shape)
    check(net, [total, constant])


def test_an_input_that_is_returned() -> None:
    net = Net((1, 2, 3, 5))
    check(net, [net.activate(net.input), net.input])
