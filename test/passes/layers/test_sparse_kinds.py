"""Sparse convolutions of all kernels, with zeros of all sorts, on all targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from emulated import compile_emulated, needs_arm, needs_linker
from gpu import needs_device
from helpers import assert_close, raised_model, torch_results
from torch import nn

import patc
from patc.passes.pattern_encode import PatternEncode
from patc.passes.pattern_outline import PatternOutline

Layers: TypeAlias = dict[str, Callable[[], Any]]
MAPS: Layers = {
    "stem": lambda: nn.Conv2d(3, 12, 7, stride=2, padding=3),
    "5x5": lambda: nn.Conv2d(12, 20, 5, padding=2),
    "strided": lambda: nn.Conv2d(20, 16, 5, stride=2, padding=2),
    "dilated": lambda: nn.Conv2d(16, 20, 3, padding=2, dilation=2),
    "depthwise": lambda: nn.Conv2d(20, 20, 5, padding=2, groups=20),
    "grouped": lambda: nn.Conv2d(20, 20, 3, padding=1, groups=4),
    "pointwise": lambda: nn.Conv2d(20, 20, 1),
    "transposed": lambda: nn.ConvTranspose2d(20, 12, 4, stride=2, padding=1),
    "doubled": lambda: nn.ConvTranspose2d(12, 8, 2, stride=2),
}
LINES: Layers = {
    "first": lambda: nn.Conv1d(8, 24, 9, padding=4),
    "dilated": lambda: nn.Conv1d(24, 24, 5, padding=4, dilation=2),
    "depthwise": lambda: nn.Conv1d(24, 24, 9, padding=4, groups=24),
    "strided": lambda: nn.Conv1d(24, 16, 3, stride=2, padding=1),
    "transposed": lambda: nn.ConvTranspose1d(16, 8, 4, stride=2, padding=1),
}


@torch.no_grad()
def sparse_net(layers: Layers, sort: str) -> nn.Module:
    """Return a net whose kernels have four patterns of 4/9 of their taps, are missing, or have zeros anywhere."""
    torch.manual_seed(0)
    modules: list[nn.Module] = []
    for build in layers.values():
        layer = build()
        weight = layer.weight
        taps, shape = weight[0, 0].numel(), (*weight.shape[:2], 1)
        patterns = torch.stack([torch.randperm(taps) < max(1, round(taps * 4 / 9)) for _ in range(4)])
        if sort == "patterns":
            mask = patterns[torch.randint(4, shape[:2])] & (torch.rand(shape) < 0.6)
        else:
            mask = (torch.rand(shape) < 0.3) if sort == "kernels" else torch.rand(*shape[:2], taps) < 0.25
        weight *= mask.expand(*shape[:2], taps).reshape(weight.shape)
        modules += [layer, nn.ReLU()]
    return nn.Sequential(*modules[:-1]).eval()


def case(kind: str, sort: str) -> tuple[nn.Module, torch.Tensor]:
    x = torch.randn(1, 3, 33, 30) if kind == "maps" else torch.randn(2, 8, 45)
    return sparse_net(MAPS if kind == "maps" else LINES, sort), x


@pytest.mark.parametrize(
    ("kind", "sort", "target", "threads"),
    [
        ("maps", "patterns", "host", 1),
        ("maps", "scattered", "host", 2),
        ("lines", "kernels", "host", 1),
        ("lines", "patterns", "host", 2),
        ("lines", "scattered", "x86-64-v3", 1),
    ],
)
def test_on_cpus(kind: str, sort: str, target: str, threads: int) -> None:
    model, x = case(kind, sort)
    compiled = patc.compile(model, (x,), target=target, threads=threads)
    assert_close([compiled(x).numpy()], torch_results(model, [x]))
    assert "sparse_conv2d" in {layer.op for layer in compiled.layers}


@needs_arm
@needs_linker
@pytest.mark.parametrize(("kind", "sort"), [("maps", "patterns"), ("lines", "scattered")])
def test_on_aarch64(kind: str, sort: str) -> None:
    model, x = case(kind, sort)
    module, state = raised_model(model, [x])
    PatternOutline().run(module, state)
    PatternEncode().run(module, state)
    assert_close(compile_emulated(module, state.parameters)(x.numpy()), torch_results(model, [x]))


@needs_device
@pytest.mark.parametrize(("kind", "sort"), [("lines", "patterns"), ("lines", "scattered")])
def test_on_a_gpu(kind: str, sort: str) -> None:
    model, x = case(kind, sort)
    compiled = patc.compile(model, (x,), target="spirv-vulkan")
    assert_close([np.asarray(compiled(x))], torch_results(model, [x]))
