"""Concatenations and slices of channels: what lies together, what has to be copied, and the numbers on all targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from emulated import needs_arm
from gpu import needs_device
from helpers import assert_close, layer_ops, raised_model, torch_results
from torch import Tensor, nn
from torch.nn import functional

import patc
from patc.bench.emulator import run_program


class Dense(nn.Module):
    """Each layer reads all that was made before; all of it is one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.last = nn.Conv2d(20, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        made = [self.first(x)]
        for layer in self.layers:
            made.append(torch.relu(layer(torch.cat(made, 1))))
        return self.last(torch.cat(made, 1))


class Halves(nn.Module):
    """Halves of a layer's result, one of which goes through others, are joined with all that comes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(3, 8, 1), nn.Conv2d(16, 6, 1)
        self.layers = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        made = list(functional.silu(self.enter(x)).chunk(2, 1))
        for layer in self.layers:
            made.append(layer(made[-1]) + made[-1])
        return self.leave(torch.cat(made, 1))


class Elsewhere(nn.Module):
    """Arguments, weights, tensors joined twice or in two places, parts in another order, and results that views are."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(19, 6, 3, stride=2, padding=1)
        self.third = nn.Conv2d(8, 4, 3, padding=1)
        self.table = nn.Parameter(torch.randn(1, 2, 14, 14))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.first(x)
        twice = torch.cat([y, x, y], 1)
        low, high = y.chunk(2, 1)
        turned = torch.cat([high, low], 1)
        pooled = functional.max_pool2d(torch.cat([low, self.third(turned)], 1), 3, 1, 1)
        placed = torch.cat([y, self.table.expand(len(x), -1, -1, -1)], 1)
        return twice, self.second(twice), y[:, 2:5], pooled, torch.cat([x[:, 1:], y.softmax(1)], 1), placed


class Normed(nn.Module):
    """A downsampler whose batch norm and activation come behind the concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.norm.running_mean = torch.linspace(-0.3, 0.3, 8)
        self.norm.weight = nn.Parameter(torch.linspace(0.5, 1.5, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(torch.cat([self.layer(x), functional.max_pool2d(x, 2)], 1)))


class All(nn.Module):
    """The nets above, of one input."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList([Dense(), Halves(), Normed(), Elsewhere()])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        *others, elsewhere = (net(x) for net in self.nets)
        return *others, *elsewhere


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return All().eval()


@pytest.mark.parametrize(("made", "images"), [(Dense, 1), (Halves, 1), (Dense, 3)])
def test_nothing_is_copied_but_the_input(made: type[nn.Module], images: int) -> None:
    compiled = patc.compile(made().eval(), (torch.randn(images, 3, 16, 16),), target="x86-64-v4", threads=1)
    ops = [layer.op for layer in compiled.layers]
    assert ops.count("relayout") == 1
    assert "generic" not in ops


def test_activations_are_of_what_is_joined() -> None:
    module, _ = raised_model(Normed(), [torch.randn(2, 3, 8, 8)])
    names = [op.operation.name for op in layer_ops(module)]
    assert names == ["pattern.conv2d", "pattern.max_pool2d", "tensor.concat"]


@pytest.mark.parametrize(
    ("target", "threads", "images"),
    [
        ("host", 1, 1),
        ("host", 2, 3),
        pytest.param("aarch64-linux", 1, 2, marks=needs_arm),
        pytest.param("spirv-vulkan", 1, 2, marks=needs_device),
    ],
)
def test_numbers(net: nn.Module, target: str, threads: int, images: int) -> None:
    x = torch.randn(images, 3, 14, 14)
    compiled = patc.compile(net, (x,), target=target, threads=threads)
    found = run_program(compiled.program, [x.numpy()]) if target == "aarch64-linux" else compiled(x)
    assert_close([np.asarray(each) for each in found], torch_results(net, [x]), 1e-4)
