"""Gates of channels, as in squeeze-and-excitation, stay in the layouts of the layers around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compilers import check_compiled, compile_reference
from emulated import compile_emulated, needs_arm
from gpu import compile_for_gpu, needs_device
from helpers import layer_ops, raised_model
from native import compile_native
from torch import Tensor, nn
from torch.nn import functional


class Gates(nn.Module):
    """Squeeze-and-excitation between convolutions, with and without what comes after it, and a gate in front."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.reduce, self.expand = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.project, self.other = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        y = functional.silu(self.depthwise(x))
        gate = self.expand(functional.relu(self.reduce(functional.adaptive_avg_pool2d(y, 1)))).sigmoid()
        return [self.project(y * gate), functional.relu(gate * self.other(x))]


def test_layers() -> None:
    module, _ = raised_model(Gates(), [torch.randn(1, 8, 6, 10)])
    names = [op.operation.name.removeprefix("pattern.") for op in layer_ops(module)]
    assert sorted(names) == ["avg_pool2d", *["conv2d"] * 5, "multiply"]


def check(compiler: Callable[..., Any], **how: Any) -> None:
    model, x = Gates().eval(), torch.randn(2, 8, 6, 10)
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
    check(compile_for_gpu)
