"""NaN and infinities go through pools, activations and sums as they do in PyTorch, on every target."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from compilers import compile_reference
from emulated import compile_emulated, needs_arm
from gpu import compile_for_gpu, needs_device
from helpers import raised_model
from native import NATIVE_TARGETS, compile_native
from torch import Tensor, nn
from torch.nn import functional

from patc.codegen.reference import execute
from patc.passes.base import PassState
from patc.pipeline import Pipeline

INFINITY = math.inf
SPECIAL = (math.nan, INFINITY, -INFINITY, -0.0, 1e-40)
WEIGHT = torch.linspace(-1, 1, 4 * 3 * 9).reshape(4, 3, 3, 3)

Function = Callable[[Tensor], "list[Tensor]"]


class Branches(nn.Module):
    """A function with several results."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.function(x)


def special_values(shape: Sequence[int], seed: int = 0) -> Tensor:
    """Return normally distributed numbers among which each special value is at every twentieth place."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    for value in SPECIAL:
        x[torch.rand(*shape, generator=generator) < 0.05] = value
    return x


def max_pools(x: Tensor) -> list[Tensor]:
    pool = functional.max_pool2d
    return [
        pool(x, 2),
        pool(functional.relu(x), 3, 2, 1),
        pool(x, 3, 2, 1, ceil_mode=True),
        pool(x, 3, 1, 1),
        pool(x, 2, 3, ceil_mode=True),
        pool(x, (1, 3), (1, 2), (0, 1)),
        pool(x, 2, 1, 1, dilation=2),
        pool(x, 5, 3, 2),
        pool(x, 1, 2),
    ]


def means(x: Tensor) -> list[Tensor]:
    pool = functional.avg_pool2d
    return [
        pool(x, 2),
        pool(x, 3, 2, 1),
        pool(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        pool(x, 2, divisor_override=-3),
        functional.adaptive_avg_pool2d(x, 1),
        x.mean((2, 3)),
    ]


def activations(x: Tensor) -> list[Tensor]:
    bounds = [(0.5, -0.5), (0.1, None), (None, 0.1), (-INFINITY, 2), (-1, INFINITY), (INFINITY, -INFINITY)]
    clamped = [x.clamp(minimum, maximum) for minimum, maximum in bounds]
    return [functional.relu(x), functional.relu6(x), functional.hardtanh(x, -0.5, 0.25), *clamped]


def sums(x: Tensor) -> list[Tensor]:
    convolved = functional.conv2d(x, WEIGHT[:3], None, 1, 1)
    return [x + x, functional.relu(x + functional.relu(x)), functional.relu6(convolved + x), 1 - x * 0.5]


def layers(x: Tensor) -> list[Tensor]:
    flat = x.mean((2, 3))
    return [
        functional.relu(functional.conv2d(x, WEIGHT, None, 2, 1)),
        functional.conv2d(x, WEIGHT[:3, :1], None, 1, 1, 1, 3),
        functional.relu6(functional.linear(flat, WEIGHT[:, :, 0, 0])),
    ]


FUNCTIONS = (max_pools, means, activations, sums, layers)
compiled_for_each = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)


def check(function: Function, compiler: Callable[..., Callable[..., list[np.ndarray]]], bound: float = 1e-5) -> None:
    """Require NaN and infinities where torch has them, and its numbers elsewhere."""
    model, x = Branches(function).eval(), special_values((2, 3, 11, 19))
    with torch.no_grad():
        wanted = [y.numpy() for y in model(x)]
    module, state = raised_model(model, [x])
    found = compiler(module, state.parameters)(x.numpy())
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        np.testing.assert_allclose(one, other, rtol=bound, atol=bound, err_msg=f"result {number}")


@compiled_for_each
def test_reference(function: Function) -> None:
    check(function, compile_reference)


@compiled_for_each
@pytest.mark.parametrize("target", NATIVE_TARGETS)
def test_this_machine(function: Function, target: str) -> None:
    check(function, lambda module, parameters: compile_native(module, parameters, target=target))


@needs_arm
@compiled_for_each
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_aarch64(function: Function, dtype: str) -> None:
    def compiler(module: object, parameters: object) -> Callable[..., list[np.ndarray]]:
        Pipeline().add("pattern-demote", dtype=dtype).run(module, PassState(parameters))
        return compile_emulated(module, parameters)

    check(function, compiler, bound=1e-5 if dtype == "f32" else 2e-2)


@needs_device
@compiled_for_each
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_gpu(function: Function, dtype: str) -> None:
    bound = 1e-5 if dtype == "f32" else 2e-2
    check(function, lambda module, parameters: compile_for_gpu(module, parameters, dtype=dtype), bound)


def test_nothing_but_minus_infinity() -> None:
    """What a maximum starts from, and what surrounds its input, is no number that could win."""
    model = Branches(lambda x: [functional.max_pool2d(x, 2), functional.max_pool2d(x, 3, 2, 1)]).eval()
    x = torch.full((1, 2, 6, 6), -INFINITY)
    module, state = raised_model(model, [x])
    reference = execute(module, state.parameters, [x.numpy()])
    for found in (*reference, *compile_native(module, state.parameters)(x.numpy())):
        assert (found == -INFINITY).all()
