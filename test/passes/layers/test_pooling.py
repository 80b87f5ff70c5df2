"""Pools of every form compute what PyTorch computes: all parameters, on small planes, on every target."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gpu import needs_device
from helpers import assert_close, layer_ops, raised_model, torch_results
from torch import Tensor, nn
from torch.nn import functional

import patc
from patc.codegen.reference import execute

POOLS_A_NET = 14


class Branches(nn.Module):
    """Several functions of one input."""

    def __init__(self, functions: list[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: Tensor) -> list[Tensor]:
        return [function(x) for function in self.functions]


def random_pool(choices: random.Random, size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """Return a pool that torch takes for planes of a size: kernels, strides, pads and flags of every relation."""
    while True:
        kernel, stride = ((choices.randint(1, most), choices.randint(1, most)) for most in (5, 6))
        options: dict[str, Any] = {
            "padding": (choices.randint(0, kernel[0] // 2), choices.randint(0, kernel[1] // 2)),
            "ceil_mode": choices.choice([True, False]),
        }
        if choices.choice(["max", "mean"]) == "max":
            function = functional.max_pool2d
            options["dilation"] = choices.choice([1, 1, 2, (3, 1)])
        else:
            function = functional.avg_pool2d
            options["count_include_pad"] = choices.choice([True, False])
            options["divisor_override"] = choices.choice([None, None, None, 1, 3, -7])
        pool = functools.partial(function, kernel_size=kernel, stride=stride, **options)
        try:
            pool(torch.zeros(1, 1, *size))
        except RuntimeError:  # no window fits
            continue
        return pool


def random_case(seed: int) -> tuple[Branches, Tensor]:
    choices = random.Random(seed)
    size = (choices.randint(1, 9), choices.randint(1, 20))
    model = Branches([random_pool(choices, size) for _ in range(POOLS_A_NET)])
    generator = torch.Generator().manual_seed(seed)
    # Mostly below zero, where padding with zeros would win a maximum.
    return model.eval(), torch.randn(2, 3, *size, generator=generator) - choices.choice([0, 3])


@pytest.mark.parametrize("seed", range(4))
def test_random_pools(seed: int) -> None:
    model, x = random_case(seed)
    wanted = torch_results(model, [x])
    module, state = raised_model(model, [x])
    assert_close(execute(module, state.parameters, [x.numpy()]), wanted)
    assert_close([y.numpy() for y in patc.compile(model, (x,))(x)], wanted)


@needs_device
@pytest.mark.parametrize("seed", [100, 101])
def test_random_pools_on_a_gpu(seed: int) -> None:
    model, x = random_case(seed)
    found = patc.compile(model, (x,), target="spirv-vulkan")(x)
    assert_close([y.numpy() for y in found], torch_results(model, [x]))


LARGE = [nn.AvgPool2d((20, 9), (7, 6), (3, 4), ceil_mode=True).eval(), nn.MaxPool2d((9, 40), (2, 9), (4, 3)).eval()]


@pytest.mark.parametrize("pool", LARGE, ids=str)
@pytest.mark.parametrize("target", ["x86-64-v3", pytest.param("spirv-vulkan", marks=needs_device)])
def test_large_windows_on_other_targets(pool: nn.Module, target: str) -> None:
    x = torch.randn(1, 3, 41, 60, generator=torch.Generator().manual_seed(1)) - 3
    assert_close([patc.compile(pool, (x,), target=target)(x).numpy()], torch_results(pool, [x]))


@pytest.mark.parametrize("pool", LARGE, ids=str)
def test_large_windows_are_two_layers(pool: nn.Module) -> None:
    x = torch.randn(1, 2, 41, 60, generator=torch.Generator().manual_seed(2))
    module, state = raised_model(pool, [x])
    assert len(layer_ops(module)) == 2
    assert_close(execute(module, state.parameters, [x.numpy()]), torch_results(pool, [x]))


# name: pool, height and width, attributes that it is raised with
CASES: dict[str, tuple[nn.Module, tuple[int, int], str]] = {
    "picks every second": (nn.AvgPool2d(1, 2), (5, 5), "kernel = array<i64: 1, 1>"),
    "strides beyond the window": (nn.AvgPool2d(2, 3, ceil_mode=True), (6, 7), "count_include_pad = false"),
    "maximum, strides beyond the window": (nn.MaxPool2d(1, 3, ceil_mode=True), (6, 7), "kernel = array<i64: 1, 1>"),
    "rounds up and counts pads": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), (8, 8), "uncounted_pads = array<i64: 2, 2>"),
    "another divisor": (nn.AvgPool2d(2, divisor_override=3), (4, 4), "divisor = 3.000000e+00"),
    "division only": (nn.AvgPool2d(1, divisor_override=2), (3, 4), "divisor = 2.000000e+00"),
    "sums": (nn.AvgPool2d((3, 4), divisor_override=1), (3, 4), "divisor = 1.000000e+00"),
    "kernel larger than the input": (nn.AvgPool2d(4, 1, 2), (2, 3), "pads = array<i64: 2, 2, 2, 2>"),
    "adaptive, overlapping windows": (nn.AdaptiveAvgPool2d(7), (8, 8), "kernel = array<i64: 2, 2>"),
    "adaptive maximum": (nn.AdaptiveMaxPool2d((3, 1)), (9, 4), "kernel = array<i64: 3, 4>"),
    "adaptive, one size kept": (nn.AdaptiveAvgPool2d((None, 2)), (3, 6), "kernel = array<i64: 1, 3>"),
}


@pytest.mark.parametrize("name", CASES)
def test_pools_that_are_raised(name: str) -> None:
    model, size, attributes = CASES[name]
    x = torch.linspace(-3, -1, 2 * 3 * size[0] * size[1]).reshape(2, 3, *size)
    module, state = raised_model(model, [x])
    (op,) = layer_ops(module)
    assert attributes in str(op)
    assert_close(execute(module, state.parameters, [x.numpy()]), torch_results(model, [x]))


def test_a_mean_that_changes_the_sign_does_not_keep_a_maximum_from_zero() -> None:
    """The halo of a max pool is zero where its input cannot be negative, as after relu: here it is."""
    model = Branches([
        lambda x: functional.max_pool2d(functional.avg_pool2d(functional.relu(x), 2, 1, divisor_override=-3), 2, 2, 1),
        lambda x: functional.max_pool2d(x.clamp(0.5, -0.5), 2, 2, 1),
    ]).eval()  # fmt: skip
    x = torch.rand(1, 2, 6, 6) + 1
    assert_close([y.numpy() for y in patc.compile(model, (x,))(x)], torch_results(model, [x]))


def test_pools_of_one_plane_of_one_element() -> None:
    model, x = Branches([nn.MaxPool2d(1, 2), nn.AvgPool2d(1, 3), nn.AvgPool2d(2, 1, 1)]).eval(), torch.ones(1, 1, 1, 1)
    found = patc.compile(model, (x,))(x)
    np.testing.assert_array_equal(found[2].numpy(), torch_results(model, [x])[2])
    assert found[0].item() == found[1].item() == 1


@pytest.mark.parametrize("target", ["host", pytest.param("spirv-vulkan", marks=needs_device)])
def test_a_maximum_of_padding_alone_is_minus_infinity(target: str) -> None:
    """Also where the input cannot be negative, and for the maximum of such maxima."""
    pool = nn.MaxPool2d(2, 1, 1, 2)
    model = Branches([lambda x: pool(x.relu()), lambda x: functional.max_pool2d(pool(x.relu()), 2, 2, 1)]).eval()
    for size in (1, 2, 5):
        x = torch.linspace(-1, 1, size * size).reshape(1, 1, size, size)
        for found, wanted in zip(patc.compile(model, (x,), target=target)(x), torch_results(model, [x]), strict=True):
            np.testing.assert_array_equal(found.numpy(), wanted)
