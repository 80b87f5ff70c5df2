"""Two activations that are combined, alone and in the epilogues of layers, as PyTorch computes them on every machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compilers import COMPILERS
from half import needs_half
from helpers import assert_close, layer_ops, raised_model, torch_results
from torch import Tensor, nn
from torch.nn import functional

import patc
from patc.dialects.joins import Join


class Joins(nn.Module):
    """Every function, before and behind activations, with whole residuals, maps of gates and gates of channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = [3, 3, 1, 1, 3, 3, 1, 3]
        self.convolutions = nn.ModuleList(nn.Conv2d(8, 8, size, padding=size // 2) for size in sizes)
        self.map = nn.Conv2d(8, 1, 1)
        self.gates, self.wide, self.narrow = nn.Linear(8, 8), nn.Linear(33, 20), nn.Linear(20, 33)

    def forward(self, x: Tensor, image: Tensor) -> list[Tensor]:
        layers = iter(self.convolutions)
        x = next(layers)(x).relu()
        y = x + functional.silu(next(layers)(x))
        z = y - next(layers)(y)
        where = self.map(z).sigmoid()
        gates = self.gates(z.mean((2, 3))).sigmoid()[:, :, None, None]
        found = [next(layers)(z) * where, (next(layers)(z) * gates).relu(), next(layers)(z).relu() - where]
        found += [next(layers)(z).sigmoid() / (1.0 + gates), functional.max_pool2d(z, 3, 1, 1) * where]
        found += [z - functional.max_pool2d(z, 3, 1, 1), x / (where + 1.0), (x * y).relu(), y * gates + x]
        found += [image + next(layers)(x), x * image]
        rows = found[0].flatten(2)
        wide = functional.gelu(self.wide(rows))
        return [*found, rows + self.narrow(wide), rows * self.narrow(wide).sigmoid(), rows - self.narrow(wide)]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_combinations(compiler: Callable[..., Any]) -> None:
    model, x = Joins().eval(), [torch.randn(images, 8, 3, 11) for images in (2, 1)]
    module, state = raised_model(model, x)
    assert not any(op.operation.name.startswith("linalg.") for op in layer_ops(module))
    assert_close(compiler(module, state.parameters)(*(each.numpy() for each in x)), torch_results(model, x))


@pytest.mark.parametrize("dtype, bound", [("f32", 1e-5), pytest.param("f16", 2e-2, marks=needs_half)])
def test_threads_and_half_precision(dtype: str, bound: float) -> None:
    model, x = Joins().eval(), [torch.randn(images, 8, 3, 11) for images in (2, 1)]
    compiled = patc.compile(model, tuple(x), threads=2, dtype=dtype)
    assert_close([y.numpy() for y in compiled(*x)], torch_results(model, x), bound)


FUSED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Join]] = {
    "sum": (lambda y, x: (y + x).relu(), Join("add")),
    "sum behind": (lambda y, x: y.relu() + x, Join("add", is_last=True)),
    "difference": (lambda y, x: y - x, Join("subtract")),
    "from": (lambda y, x: x - y.relu(), Join("subtract_from", is_last=True)),
    "gates": (lambda y, x: y * x.amax(1, keepdim=True), Join("multiply")),
    "quotient": (lambda y, x: y.relu() / x, Join("divide", is_last=True)),
}


class Fused(nn.Module):
    def __init__(self, layer: nn.Module, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x), x)


@pytest.mark.parametrize("name", FUSED)
def test_joins_the_layer(name: str) -> None:
    function, join = FUSED[name]
    module, _ = raised_model(Fused(nn.Conv2d(4, 4, 1), function), [torch.randn(1, 4, 3, 5)])
    ops = layer_ops(module)
    assert ops[-1].operation.name == "pattern.conv2d" and ops[-1].residual is not None
    assert Join.of(ops[-1]) == join


def test_rows_of_a_linear_layer() -> None:
    """Activation and residual are found behind the reshapes around a linear layer of several dimensions."""
    model = Fused(nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6)), torch.add)
    module, _ = raised_model(model, [torch.randn(2, 3, 6)])
    ops = layer_ops(module)
    found = [op for op in ops if op.operation.name.startswith("pattern.")]
    assert [op.operation.name for op in found] == ["pattern.linear"] * 2
    assert found[1].residual is not None


def test_a_second_activation_stays_outside() -> None:
    model = Fused(nn.Conv2d(4, 4, 1), lambda y, x: (y.sigmoid() * x).relu())
    module, _ = raised_model(model, [torch.randn(1, 4, 3, 5)])
    ops = layer_ops(module)
    assert [op.operation.name for op in ops] == ["pattern.conv2d", "pattern.activate"]
