"""Interpolation, and pads by reflection, by the border and by the other side: one op each, whatever they come as."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from compilers import check_compiled, compile_reference
from emulated import compile_emulated, needs_arm
from gpu import needs_device
from helpers import layer_ops, raised_model
from native import compile_native
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

import patc
from patc.passes.ir.resampling import Axis


class Sizes(nn.Module):
    """Planes of other sizes, in layouts of convolutions, with what is added to them and what follows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.skip = nn.Conv2d(3, 8, 1)
        self.last = nn.Conv2d(8, 4, 3, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.first(x)
        aligned = interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=True)
        twice = interpolate(y, scale_factor=2, mode="nearest")
        return [
            torch.relu(self.skip(x) + aligned),
            self.last(interpolate(y, scale_factor=2, mode="bilinear", align_corners=False).sigmoid()),
            self.last(twice),
            interpolate(y, size=(7, 35), mode="nearest-exact"),
            interpolate(y, scale_factor=1.7, mode="nearest"),
            interpolate(y, scale_factor=2, mode="bicubic", align_corners=False),
            interpolate(x, size=(4, 9), mode="bilinear", align_corners=False),
            interpolate(y.mean((2, 3), keepdim=True), size=(5, 6), mode="bilinear", align_corners=False),
            interpolate(y.flatten(2), size=50, mode="linear", align_corners=False),
        ]


class Borders(nn.Module):
    """Pads of convolutions that are no zeros, of strides 1 and 2, planes and lines."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        modes = ("reflect", "replicate", "circular")
        self.planes = nn.ModuleList(
            nn.Conv2d(3, 4, 3, stride, 1, padding_mode=mode) for mode in modes for stride in (1, 2)
        )
        self.line = nn.Conv1d(3, 4, 5, padding=2, padding_mode="reflect")

    def forward(self, x: Tensor) -> list[Tensor]:
        uneven = [pad(x, (1, 2, 3, 0), mode=mode) for mode in ("reflect", "replicate", "circular")]
        return [layer(x) for layer in self.planes] + [self.line(x.flatten(2)), *uneven]


def inputs() -> list[Tensor]:
    return [torch.randn(2, 3, 9, 38)]


@pytest.mark.parametrize(("model", "count"), [(Sizes(), 9), (Borders(), 10)])
def test_layers(model: nn.Module, count: int) -> None:
    module, _ = raised_model(model, inputs())
    names = [op.operation.name for op in layer_ops(module)]
    assert names.count("pattern.resample") == count
    assert not any(name.startswith("linalg.") and name != "linalg.generic" for name in names)


def check(compiler: Callable[..., Any], **how: Any) -> None:
    for model in (Sizes(), Borders()):
        check_compiled(model.eval(), inputs(), compiler, **how)


@pytest.mark.parametrize("threads", [1, 2])
def test_this_machine(threads: int) -> None:
    check(compile_native, threads=threads)


def test_other_vectors() -> None:
    check(compile_native, target="x86-64-v3")


def test_reference() -> None:
    check(compile_reference)


@needs_arm
def test_aarch64() -> None:
    check(compile_emulated)


@needs_device
@pytest.mark.parametrize(("dtype", "bound"), [("f32", 1e-5), ("f16", 1e-2)])
def test_vulkan(dtype: str, bound: float) -> None:
    for model in (Sizes().eval(), Borders().eval()):
        compiled = patc.compile(model, tuple(inputs()), target="spirv-vulkan", dtype=dtype)
        names = [layer.op for layer in compiled.layers]
        assert names.count("resample") >= 9 and "generic" not in names
        x = inputs()[0]
        for found, wanted in zip(compiled(x), model.double()(x.double()), strict=True):
            assert (torch.as_tensor(found) - wanted).abs().max() <= bound * wanted.abs().max()


def test_axis() -> None:
    axis = Axis.of(np.array([[0.0, 1.0, 0.0], [0.0, 0.25, 0.75], [0.0, 0.0, 2.0]]))
    assert axis.places.tolist() == [[1, 1, 2], [1, 2, 2]]
    assert axis.weights is not None and axis.weights.tolist() == [[1.0, 0.25, 2.0], [0.0, 0.75, 0.0]]
    assert (axis.size, axis.span, axis.is_monotone) == (3, 2, True)
    assert Axis.of(np.eye(3)[::-1]).weights is None
    assert not Axis.of(np.eye(3)[::-1]).is_monotone


class Slopes(nn.Module):
    """Slopes of channels, and factors of places, behind borders of lines."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes, self.factors = nn.PReLU(3), nn.Parameter(torch.linspace(-1, 1, 13))

    def forward(self, x: Tensor) -> list[Tensor]:
        line = pad(x.flatten(2)[..., :8], (2, 3), mode="circular")
        return [self.slopes(line), self.factors * line, self.factors[:3, None] * line]


def test_numbers_of_channels_are_none_of_places() -> None:
    model, x = Slopes().eval(), torch.randn(2, 3, 2, 6)
    for found, wanted in zip(patc.compile(model, (x,), threads=1)(x), model(x), strict=True):
        torch.testing.assert_close(found, wanted)
