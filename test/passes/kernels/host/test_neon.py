"""Code for AArch64 computes what the ops mean: nets and every kind of kernel, run in an emulator.

The layers are those of `random_layers` and `edge_layers`, random ones and those that stand at an end of something; a page that cannot be
touched follows every buffer.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from edge_layers import CASES, FENCED
from emulated import compile_emulated, needs_arm
from helpers import assert_close, torch_results
from hypothesis import given, settings
from native import Net, check
from networks import Value
from random_layers import (
    DENSE_KERNELS,
    POOL_KERNELS,
    RANDOMS,
    REPRODUCIBLE,
    SPARSE_KERNELS,
    RandomNet,
    random_dense,
    random_elementwise,
    random_fkw,
    random_linear,
    random_pool,
    random_sparse,
    windows,
)
from tile_schedules import by_winograd, random_schedules
from torch import nn

from patc.bench.emulator import run_program
from patc.compiler import compile_model
from patc.dialects.schedules import Schedule
from patc.passes.ir.windows import Window
from patc.pruning import PatternSpec, prune_

pytestmark = needs_arm

TARGETS = ["aarch64-linux", "aarch64-linux:cortex-a55", "aarch64-android:apple-m1"]


# Random layers


def check_random(case: RandomNet | None, choices: random.Random) -> None:
    """Check a net for any CPU, with the chosen schedules or random ones."""
    if case is None:
        return
    net, y, others = case
    check(
        net,
        [*others, y],
        seed=choices.getrandbits(32),
        compiler=compile_emulated,
        target=choices.choice(TARGETS),
        retile=random_schedules(choices),
    )


@given(windows(SPARSE_KERNELS), RANDOMS)
@settings(REPRODUCIBLE, max_examples=15)
def test_sparse_convolutions(case: tuple[Window, tuple[int, int]], choices: random.Random) -> None:
    check_random(random_sparse(*case, choices), choices)


@given(windows(DENSE_KERNELS), RANDOMS)
@settings(REPRODUCIBLE, max_examples=15)
def test_dense_convolutions(case: tuple[Window, tuple[int, int]], choices: random.Random) -> None:
    check_random(random_dense(*case, choices), choices)


@given(windows(POOL_KERNELS), RANDOMS)
@settings(REPRODUCIBLE, max_examples=10)
def test_pools(case: tuple[Window, tuple[int, int]], choices: random.Random) -> None:
    check_random(random_pool(*case, choices), choices)


@given(RANDOMS)
@settings(REPRODUCIBLE, max_examples=6)
def test_linear_layers(choices: random.Random) -> None:
    check_random(random_linear(choices), choices)


@given(RANDOMS)
@settings(REPRODUCIBLE, max_examples=8)
def test_elementwise_layers(choices: random.Random) -> None:
    check_random(random_elementwise(choices), choices)


@pytest.mark.parametrize("case", [*CASES, *FENCED])
def test_ends(case: str) -> None:
    shape, make = {**CASES, **FENCED}[case]
    net = Net(shape)
    check(net, make(net), compiler=compile_emulated)


# Every kind of kernel

SHAPE = (1, 16, 12, 14)
ENTRIES = 4
MASKS = (27, 54, 216, 432)
CLAMP = "#pattern.clamp<0.0 : f32, 6.0 : f32>"


def pruned(net: Net, stride: int = 1, residual: bool = False, kernel: tuple[int, ...] = (3, 3)) -> list[Value]:
    """Add a pattern-pruned convolution of 16 filters; a third kernel size is its depth."""
    rng = np.random.default_rng(0)
    depth = kernel[2] if len(kernel) > 2 else 1
    arrays = random_fkw(rng, 16, net.input.shape[1], len(MASKS), ENTRIES, depth, 5)
    pads = (kernel[0] // 2,) * 4
    window = Window(kernel[:2], (stride, stride), pads)
    other = net.new_input((1, 16, *window.result_size(net.input.shape[2:]))) if residual else None
    bias = rng.standard_normal(16)
    return [net.sparse_conv(net.input, arrays, kernel, MASKS, window, bias, other, CLAMP if residual else '"relu"')]


def dense(net: Net, filters: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Value]:
    weight = np.random.default_rng(0).standard_normal((filters, net.input.shape[1] // groups, kernel, kernel))
    return [net.conv(net.input, weight, strides=(stride, stride), pads=(kernel // 2,) * 4, groups=groups)]


def linear(net: Net) -> list[Value]:
    return [net.dense_layer(net.input, np.random.default_rng(0).standard_normal((11, 70)))]


def max_pool(net: Net) -> list[Value]:
    return [net.pool("max", net.input, (3, 3), pads=(1, 1, 1, 1))]


Make: TypeAlias = Callable[[Net], list[Value]]
KERNELS: dict[str, tuple[str, tuple[int, ...], Make]] = {
    "patterns": ("pattern-direct", SHAPE, pruned),
    "patterns of stride 2": ("pattern-direct", SHAPE, lambda net: pruned(net, 2)),
    "patterns with residual and clamp": ("pattern-direct", SHAPE, lambda net: pruned(net, residual=True)),
    "patterns of 1x1": ("pattern-direct", (1, 27, 8, 8), lambda net: pruned(net, kernel=(1, 1, 9))),
    "inputs stay": ("input-stationary", SHAPE, pruned),
    "inputs stay, stride 2": ("input-stationary", SHAPE, lambda net: pruned(net, 2)),
    "inputs stay, residual and clamp": ("input-stationary", SHAPE, lambda net: pruned(net, residual=True)),
    "patterns as dense weights": ("dense-direct", SHAPE, pruned),
    "dense": ("dense-direct", (1, 3, 12, 14), lambda net: dense(net, 6, 5)),
    "dense of 1x1": ("dense-direct", (1, 27, 8, 8), lambda net: dense(net, 12, 1)),
    "dense of stride 2": ("dense-direct", (1, 3, 12, 14), lambda net: dense(net, 6, 3, 2)),
    "groups": ("dense-direct", (1, 6, 12, 14), lambda net: dense(net, 6, 3, groups=2)),
    "depthwise": ("depthwise-direct", (1, 6, 12, 14), lambda net: dense(net, 6, 3, groups=6)),
    "depthwise of stride 2": ("depthwise-direct", (1, 6, 12, 14), lambda net: dense(net, 6, 3, 2, groups=6)),
    "Winograd": ("winograd", (1, 8, 19, 22), lambda net: dense(net, 8, 3)),
    "Winograd of stride 2": ("winograd", (1, 3, 23, 32), lambda net: dense(net, 8, 7, 2)),
    "max pool": ("pool", SHAPE, max_pool),
    "mean pool": ("pool", SHAPE, lambda net: [net.pool("avg", net.input)]),
    "global pool": ("global-pool", SHAPE, lambda net: [net.global_pool(net.input)]),
    "addition": ("elementwise", SHAPE, lambda net: [net.add(net.input, net.new_input(SHAPE))]),
    "linear": ("gemv", (2, 70), linear),
}


@pytest.mark.parametrize("case", KERNELS)
def test_kinds_of_kernels(case: str) -> None:
    algorithm, shape, make = KERNELS[case]
    used = []

    def retile(op: Any, chosen: Schedule) -> Schedule:
        """Return a schedule of the case's algorithm."""
        if algorithm == "winograd":
            chosen = by_winograd()(op, chosen)
        elif "format" in op.attributes:
            filters = {"pattern-direct": 1, "input-stationary": 8, "dense-direct": 4}[algorithm]
            chosen = replace(chosen, algorithm=algorithm, rows=2, columns=8, filters=filters, sums=1)
        used.append(chosen.algorithm)
        return chosen

    net = Net(shape)
    check(net, make(net), compiler=compile_emulated, retile=retile)
    assert algorithm in used


# Whole nets


class Mobile(nn.Module):
    """Layers of every kind: a stem, a pruned residual block, a depthwise one, pools and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 7, 2, 3)
        self.first, self.second = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.wide, self.deep = nn.Conv2d(16, 36, 1), nn.Conv2d(36, 36, 3, 2, 1, groups=36)
        self.narrow, self.last = nn.Conv2d(36, 16, 1), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = nn.functional.max_pool2d(torch.relu(self.stem(x)), 3, 2, 1)
        x = torch.relu(self.norm(self.second(torch.relu(self.first(x)))) + x)
        x = nn.functional.relu6(self.deep(nn.functional.relu6(self.wide(x))))
        x = nn.functional.avg_pool2d(self.narrow(x), 2)
        return self.last(x.mean((2, 3))), x


@pytest.mark.parametrize(
    ("target", "pointwise"),
    [
        ("aarch64-linux", "dense"),
        ("aarch64-linux:cortex-a53", "groups"),
        ("aarch64-linux:cortex-a55", "dense"),
        ("aarch64-android:apple-m1", "groups"),
    ],
)
def test_whole_nets(target: str, pointwise: str) -> None:
    model, x = mobile(pointwise)
    program = compile_model(model, (x,), target=target, threads=1).program
    assert_close(run_program(program, [x.numpy()]), torch_results(model, [x]))


def test_whole_net_in_half_precision() -> None:
    model, x = mobile("groups")
    program = compile_model(model, (x,), target="aarch64-linux", threads=1, dtype="f16").program
    assert_close(run_program(program, [x.numpy()]), torch_results(model, [x]), bound=2e-2)


def mobile(pointwise: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a pruned net and an input of two images."""
    torch.manual_seed(0)
    model = Mobile().eval()
    prune_(model, PatternSpec(connectivity=2.0, pointwise=pointwise))
    return model, torch.randn(2, 3, 45, 50)
