"""Convolutions of every kind compute what PyTorch computes: all parameters, on small tensors, on every target."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from gpu import needs_device
from helpers import assert_close, layer_ops, raised_model, torch_results
from torch import Tensor, nn

import patc
from patc.codegen.reference import execute

LAYERS_A_NET = 5


class Branches(nn.Module):
    """Several layers of one input."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(x) for layer in self.layers]


def random_lines(channels: int, size: int, choices: random.Random) -> nn.Module:
    """Return a 1-D convolution that fits lines of a size, with what comes after one in a net."""
    groups = choices.choice([1, 1, 2, channels])
    filters = groups * choices.randint(1, 3)
    kernel, dilation = choices.choice([1, 2, 3, 4, 9]), choices.choice([1, 1, 2])
    padding = choices.randint((max(0, dilation * (kernel - 1) + 1 - size) + 1) // 2, kernel * dilation)
    mode = choices.choice(["zeros", "zeros", "zeros", "replicate"])
    convolution = nn.Conv1d(
        channels,
        filters,
        kernel,
        stride=choices.choice([1, 1, 2, 3]),
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=choices.random() < 0.7,
        padding_mode=mode,
    )
    after: list[nn.Module] = choices.choice([
        [],
        [nn.ReLU()],
        [nn.BatchNorm1d(filters), nn.ReLU6()],
        [nn.BatchNorm1d(filters), nn.Conv1d(filters, 3, 3, padding=1), nn.MaxPool1d(3, 1, 1)],
        [nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()],
        [nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(filters, 2, 3)],
        [nn.SiLU(), nn.Conv1d(filters, 2, 1)],
    ])  # fmt: skip
    return nn.Sequential(convolution, *after)


def random_case(
    build: Callable[[int, int, random.Random], nn.Module], dimensions: int, seed: int
) -> tuple[nn.Module, Tensor]:
    choices = random.Random(seed)
    torch.manual_seed(seed)
    channels, size = 2 * choices.randint(1, 4), choices.randint(3, 40)
    layers = [build(channels, size, choices) for _ in range(LAYERS_A_NET)]
    model = Branches(layers).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return model, torch.randn(choices.choice([1, 3]), channels, *[size] * dimensions)


@pytest.mark.parametrize("seed", range(6))
def test_random_lines(seed: int) -> None:
    model, x = random_case(random_lines, 1, seed)
    wanted = torch_results(model, [x])
    module, state = raised_model(model, [x])
    assert_close(execute(module, state.parameters, [x.numpy()]), wanted)
    assert_close([y.numpy() for y in patc.compile(model, (x,))(x)], wanted)


@needs_device
@pytest.mark.parametrize("seed", [100, 101])
def test_random_lines_on_a_gpu(seed: int) -> None:
    model, x = random_case(random_lines, 1, seed)
    found = patc.compile(model, (x,), target="spirv-vulkan")(x)
    assert_close([y.numpy() for y in found], torch_results(model, [x]))


class Residual(nn.Module):
    """A block of a 1-D net: all that follows its convolutions is fused into them."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(8, 8, 5, padding=2, groups=8, bias=False)
        self.norm = nn.BatchNorm1d(8)
        self.pointwise = nn.Conv1d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.norm(self.depthwise(x)).relu()).add(x).relu().mean(-1)


def test_what_follows_1d_convolutions_is_fused() -> None:
    model, x = Residual().eval(), torch.randn(2, 8, 20)
    module, state = raised_model(model, [x])
    names = [op.operation.name for op in layer_ops(module) if "_shape" not in op.operation.name]
    assert names == ["pattern.conv2d", "pattern.conv2d", "pattern.avg_pool2d"]
    assert_close(execute(module, state.parameters, [x.numpy()]), torch_results(model, [x]))
