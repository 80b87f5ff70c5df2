"""Pixel shuffles and transposed convolutions: phases are put between each other in one pass, with what comes after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compilers import check_compiled, compile_reference
from emulated import compile_emulated, needs_arm
from gpu import needs_device
from helpers import assert_close, layer_ops, raised_model, torch_results
from native import compile_native
from torch import Tensor, nn
from torch.nn import functional

import patc


class Finer(nn.Module):
    """Several ways to more places, each between convolutions: of one layer and of several, and joined with a skip."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.two, self.three = nn.Conv2d(4, 20, 3, padding=1), nn.Conv2d(4, 18, 1)
        self.ends = nn.ModuleList(nn.Conv2d(channels, 3, 3, stride, 1) for channels, stride in ((5, 1), (2, 2), (9, 1)))
        self.ways = nn.ModuleList(nn.ConvTranspose2d(4, 5, *shape) for shape in ((2, 2), (4, 2, 1), (3, 2, 1, 1)))
        self.last = nn.PReLU(5)
        with torch.no_grad():
            self.last.weight.copy_(torch.linspace(0.1, 0.5, 5))

    def forward(self, x: Tensor) -> list[Tensor]:
        two = self.last(functional.pixel_shuffle(self.two(x), 2))
        three = functional.pixel_shuffle(self.three(x), 3).sigmoid()
        joined = torch.cat([functional.relu(self.ways[0](x)), functional.pixel_shuffle(torch.cat([x] * 4, 1), 2)], 1)
        transposed = [self.last(way(x)) for way in self.ways[1:]]
        return [end(y) for end, y in zip(self.ends, (two, three, joined), strict=True)] + transposed


def test_layers() -> None:
    module, _ = raised_model(Finer(), [torch.randn(1, 4, 5, 6)])
    names = [op.operation.name.removeprefix("pattern.") for op in layer_ops(module)]
    assert names.count("depth_to_space") == 6
    assert names.count("conv2d") == 2 + 3 + 1 + 4 + 4  # phases of one window are one
    assert "activate" not in names


def check(compiler: Callable[..., Any], **how: Any) -> None:
    model, x = Finer().eval(), torch.randn(1, 4, 7, 18)
    check_compiled(model, [x], compiler, **how)


@pytest.mark.parametrize("threads", [1, 2])
def test_this_machine(threads: int) -> None:
    check(compile_native, threads=threads)


def test_reference() -> None:
    check(compile_reference)


@needs_arm
def test_aarch64() -> None:
    check(compile_emulated)


@needs_device
def test_gpus() -> None:
    model, x = Finer().eval(), torch.randn(1, 4, 7, 18)
    found = patc.compile(model, (x,), target="spirv-vulkan")(x)
    assert_close([y.numpy() for y in found], torch_results(model, [x]))
