"""One input that is infinite or NaN reaches the outputs whose windows it is in, and no other: on every target, by every
algorithm. Zeros that were pruned reach nothing, where kernels skip them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gpu
import numpy as np
import pytest
from emulated import compile_emulated, needs_arm
from interpreter import interpret
from native import Net, compile_native
from networks import Value
from random_layers import random_fkw
from tile_schedules import by_winograd

from patc.dialects.schedules import Schedule
from patc.passes.ir.windows import Window

MASKS = (27, 54, 216, 432)
Make = Callable[[Net, np.random.Generator], Value]


def pruned(net: Net, rng: np.random.Generator, stride: int = 1) -> Value:
    arrays = random_fkw(rng, 8, net.input.shape[1], len(MASKS), 4, 1, 3)
    return net.sparse_conv(net.input, arrays, (3, 3), MASKS, Window((3, 3), (stride, stride), (1, 1, 1, 1)))


def dense(net: Net, rng: np.random.Generator, kernel: int = 3, stride: int = 1, groups: int = 1) -> Value:
    weight = rng.standard_normal((8, net.input.shape[1] // groups, kernel, kernel))
    return net.conv(net.input, weight, strides=(stride, stride), pads=(kernel // 2,) * 4, groups=groups)


SHAPE = (1, 8, 11, 22)
CASES: dict[str, tuple[str, tuple[int, ...], Make]] = {
    "patterns": ("pattern-direct", SHAPE, pruned),
    "patterns of stride 2": ("pattern-direct", SHAPE, lambda net, rng: pruned(net, rng, 2)),
    "inputs stay": ("input-stationary", SHAPE, pruned),
    "dense": ("dense-direct", SHAPE, dense),
    "dense of stride 2": ("dense-direct", SHAPE, lambda net, rng: dense(net, rng, 5, 2)),
    "depthwise": ("depthwise-direct", SHAPE, lambda net, rng: dense(net, rng, groups=8)),
    "1x1 of small planes": ("dense-direct", (1, 8, 7, 7), lambda net, rng: dense(net, rng, 1)),
    "Winograd": ("winograd", SHAPE, dense),
    "Winograd of stride 2": ("winograd", (1, 3, 23, 32), lambda net, rng: dense(net, rng, 7, 2)),
    "global pool": ("global-pool", (2, 8, 7, 7), lambda net, rng: net.global_pool(net.input)),
    "linear": ("gemv", (3, 70), lambda net, rng: net.dense_layer(net.input, rng.standard_normal((11, 70)))),
}
COMPILERS = {
    "host": compile_native,
    "two threads": lambda module, parameters, **how: compile_native(module, parameters, threads=2, **how),
    "emulator": compile_emulated,
    "gpu": gpu.compile_for_gpu,
}


@pytest.mark.parametrize(
    "machine",
    ["host", "two threads", pytest.param("emulator", marks=needs_arm), pytest.param("gpu", marks=gpu.needs_device)],
)
@pytest.mark.parametrize("case", CASES)
def test_one_input_reaches_its_windows_alone(case: str, machine: str) -> None:
    algorithm, shape, make = CASES[case]
    if machine == "gpu" and algorithm in ("winograd", "input-stationary"):
        return  # there are none
    rng = np.random.default_rng(0)
    net = Net(shape)
    y = make(net, rng)

    def retile(op: Any, chosen: Schedule) -> Schedule:
        if machine == "gpu":
            return chosen
        if algorithm == "winograd":
            return by_winograd(rows=8)(op, chosen)
        if "format" in op.attributes:
            filters = {"pattern-direct": 1, "input-stationary": 8}[algorithm]
            return replace(chosen, algorithm=algorithm, rows=2, columns=8, filters=filters, sums=1)
        if op.operation.name == "pattern.conv2d":
            return replace(chosen, algorithm=algorithm, rows=2, columns=8, filters=min(chosen.filters, 4))
        return chosen

    module, parameters = net.build(y), net.copy_parameters()
    compiled = COMPILERS[machine](net.build(y), net.copy_parameters(), retile=retile)
    for value in (np.nan, np.inf, -np.inf):
        x = rng.standard_normal(shape).astype(np.float32)
        place = tuple(rng.integers(size) for size in shape)
        wanted = []
        for finite in (0.0, 1.0):
            x[place] = finite
            wanted.append(interpret(module, parameters, [x])[0])
        x[place] = value
        (found,) = compiled(x)
        reached = wanted[0] != wanted[1]
        np.testing.assert_array_equal(np.isfinite(found), ~reached)
        assert np.abs(found - wanted[0])[~reached].max(initial=0.0) <= 1e-5 * np.abs(wanted[0]).max()
