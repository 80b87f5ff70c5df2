"""Activations in the epilogue of every sort of layer, by every algorithm and on every sort of machine, as PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from compilers import COMPILERS
from emulated import compile_emulated, needs_arm
from gpu import compile_for_gpu, needs_device
from helpers import assert_close, layer_ops, raised_model, torch_results
from large import LARGE
from native import Retile, compile_native
from tile_schedules import by_winograd
from torch import Tensor, nn
from torch.nn import functional

import patc
from patc.diagnostics import PatcError
from patc.dialects.attributes import Activation
from patc.dialects.schedules import Schedule
from patc.passes.activations.registry import kind_of, kinds
from patc.pipeline import Pipeline
from patc.pruning import PatternSpec, prune_

CHANNELS = 8


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def prelu(channels: int) -> nn.PReLU:
    layer = nn.PReLU(channels)
    nn.init.uniform_(layer.weight, -0.5, 0.5)
    return layer


# The name of each, and what makes it; the second half is written as other front ends write it.
ACTIVATIONS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "relu": ("relu", nn.ReLU),
    "relu6": ("clamp", nn.ReLU6),
    "leaky_relu": ("leaky_relu", lambda: nn.LeakyReLU(0.1)),
    "prelu": ("leaky_relu", lambda: prelu(CHANNELS)),
    "prelu_of_one": ("leaky_relu", lambda: prelu(1)),
    "elu": ("elu", lambda: nn.ELU(0.75)),
    "selu": ("elu", nn.SELU),
    "celu": ("elu", lambda: nn.CELU(0.5)),
    "silu": ("silu", nn.SiLU),
    "gelu": ("gelu", nn.GELU),
    "gelu_tanh": ("gelu_tanh", lambda: nn.GELU(approximate="tanh")),
    "hardswish": ("hardswish", nn.Hardswish),
    "hardsigmoid": ("hardsigmoid", nn.Hardsigmoid),
    "sigmoid": ("sigmoid", nn.Sigmoid),
    "tanh": ("tanh", nn.Tanh),
    "softplus": ("softplus", lambda: nn.Softplus(beta=2.0)),
    "mish": ("mish", nn.Mish),
    "swish": ("silu", lambda: Function(lambda x: x * torch.sigmoid(1.702 * x))),
    "clipped": ("hardswish", lambda: Function(lambda x: x * functional.relu6(x + 3.0) / 6.0)),
    "onnx_hardswish": ("hardswish", lambda: Function(lambda x: x * (x / 6.0 + 0.5).clamp(0.0, 1.0))),
    "onnx_hardsigmoid": ("hardsigmoid", lambda: Function(lambda x: (0.2 * x + 0.5).clamp(0.0, 1.0))),
    "onnx_gelu": ("gelu", lambda: Function(lambda x: 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0))))),
    "onnx_softplus": ("softplus", lambda: Function(lambda x: torch.log(torch.exp(x) + 1.0))),
    "where": ("leaky_relu", lambda: Function(lambda x: torch.where(x >= 0.0, x, 0.2 * x))),
}


def pruned() -> nn.Module:
    layer = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1))
    prune_(layer, PatternSpec.for_compression(2.25))
    return layer


def by(algorithm: str, **fields: Any) -> Retile:
    def retile(op: Any, chosen: Schedule) -> Schedule:
        is_convolution = op.operation.name == "pattern.sparse_conv2d"
        return replace(chosen, algorithm=algorithm, **fields) if is_convolution else chosen

    return retile


# What is in front of the activation, and how it is computed where the cost model might choose otherwise.
SORTS: dict[str, tuple[Callable[[], nn.Module], Retile | None]] = {
    "direct": (lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1), None),
    "winograd": (lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), by_winograd()),
    "pointwise": (lambda: nn.Conv2d(CHANNELS, CHANNELS, 1), None),
    "depthwise": (lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS), None),
    "pattern-direct": (pruned, by("pattern-direct", rows=2, filters=1, sums=1)),
    "input-stationary": (pruned, by("input-stationary", rows=2, filters=4, sums=1)),
    "linear": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, CHANNELS)), None),
    "max-pool": (lambda: nn.MaxPool2d(2), None),
    "mean": (lambda: nn.AvgPool2d(2), None),
    "global-pool": (lambda: nn.AdaptiveAvgPool2d(1), None),
    "sum": (lambda: Function(lambda x: x + functional.max_pool2d(x, 3, 1, 1)), None),
}
# The other half of the suite goes through the same code in other orders.
USUAL = ("direct", "input-stationary", "linear", "global-pool", "sum")
every_sort = pytest.mark.parametrize("sort", SORTS if LARGE else USUAL)


class Branches(nn.Module):
    """A layer of one sort for each activation."""

    def __init__(self, sort: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        make = SORTS[sort][0]
        self.branches = nn.ModuleList(nn.Sequential(make(), activation()) for _, activation in ACTIVATIONS.values())

    def forward(self, x: Tensor) -> list[Tensor]:
        return [branch(x) for branch in self.branches]


def check(sort: str, compiler: Callable[..., Any], **how: Any) -> None:
    model, x = Branches(sort).eval(), 2.0 * torch.randn(2, CHANNELS, 6, 10)
    module, state = raised_model(model, [x])
    if SORTS[sort][0] is pruned:
        Pipeline().add("pattern-encode").add("pattern-reorder").run(module, state)
    found = compiler(module, state.parameters, **how)(x.numpy())
    assert_close(found, torch_results(model, [x]))


@every_sort
def test_this_machine(sort: str) -> None:
    check(sort, compile_native, retile=SORTS[sort][1])


@needs_arm
@every_sort
def test_aarch64(sort: str) -> None:
    check(sort, compile_emulated, retile=SORTS[sort][1])


@needs_device
@every_sort
def test_gpus(sort: str) -> None:
    check(sort, compile_for_gpu)


class Norms(nn.Module):
    """Batch norm between clamps, behind layers of some sorts, and in front of a convolution."""

    def __init__(self, sorts: Sequence[str]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList(SORTS[sort][0]() for sort in sorts)
        self.norms = nn.ModuleList(nn.BatchNorm2d(CHANNELS) for _ in sorts)
        for norm in self.norms:
            nn.init.uniform_(norm.weight, -1.5, 1.5)
            nn.init.normal_(norm.bias)
        self.last = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        pairs = zip(self.layers, self.norms, strict=True)
        found = [functional.hardtanh(norm(functional.relu6(layer(x))), -0.5, 2.0) for layer, norm in pairs]
        return [*found, self.last(self.norms[0](x).relu())]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_batch_norm_behind_a_clamp(compiler: Callable[..., Any]) -> None:
    sorts = ["direct", "winograd", "depthwise", "max-pool", "global-pool", "sum"]
    model, x = Norms(sorts).eval(), 2.0 * torch.randn(2, CHANNELS, 6, 10)
    module, state = raised_model(model, [x])
    kinds_found = [Activation.of(op).kind for op in layer_ops(module)]
    assert kinds_found.count("affine") == len(sorts) + 1
    assert_close(compiler(module, state.parameters)(x.numpy()), torch_results(model, [x]))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_is_recognised_and_fused(name: str) -> None:
    kind, make = ACTIVATIONS[name]
    model = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), nn.BatchNorm2d(CHANNELS), make())
    (op,) = layer_ops(raised_model(model, [torch.randn(1, CHANNELS, 2, 2)])[0])
    assert Activation.of(op).kind == kind


def test_what_is_no_activation_stays() -> None:
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.square(),
        lambda x: functional.softplus(x, threshold=2.0),
        lambda x: x * torch.linspace(-1.0, 1.0, 4).sigmoid(),  # a number for each column
    ]
    for function in functions:
        ops = layer_ops(raised_model(Function(function), [torch.randn(1, 3, 2, 4)])[0])
        assert any(op.operation.name.startswith("linalg.") for op in ops)


def test_numbers_beyond_the_range_of_exponentials_are_those_of_torch() -> None:
    x = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 100.0, -100.0, 1e5, -1e5, 3e38, -3e38, 1e-40, -1e-40])
    x = x.repeat(CHANNELS, 1)[None, :, None].contiguous()
    model = Branches("direct")
    model.branches = nn.ModuleList(make() for _, make in list(ACTIVATIONS.values())[:17])
    with torch.no_grad():
        wanted = [y.float().numpy() for y in model.double()(x.double())]
        model.float()
    for one, other in zip(patc.compile(model.eval(), (x,), threads=1)(x), wanted, strict=True):
        np.testing.assert_allclose(np.asarray(one), other, rtol=1e-5, atol=1e-37)


def test_gelu_is_that_of_torch_from_end_to_end() -> None:
    """From where it is 0 to where it is x: within four units in the last place, or one of 1 below 0."""
    x = torch.linspace(-8.0, 8.0, 60001)[None, None, None]
    model = nn.Sequential(nn.MaxPool2d(1), nn.GELU()).eval()
    found, wanted = patc.compile(model, (x,), threads=1)(x), nn.GELU()(x.double())
    error = (found - wanted).abs()
    assert (error <= 2.0**-21 * wanted.abs())[x > -0.5].all()
    assert (error <= 2.0**-23)[x < 0.0].all() and (found[x < -6.25] == 0.0).all()


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(PatcError, match=r"expected an activation, relu, clamp, .*, mish, got 'swoosh'"):
        kind_of(Activation("swoosh"))
    assert len({kind.name for kind in kinds()}) == len(list(kinds()))
