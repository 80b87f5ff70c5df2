"""Biases make up for what rounding changes in the means of a layer's results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import patc
from patc.passes.ir.windows import Window
from patc.quantisation import calibrate
from patc.quantisation.correction import sum_of_taps


@pytest.mark.parametrize(
    ("groups", "window"),
    [
        (1, Window((3, 3), pads=(1, 1, 1, 1))),
        (2, Window((1, 3), (2, 1), (0, 2, 0, 1))),
        (6, Window((3, 2), (1, 2), (2, 0, 1, 1), (2, 1))),
        (3, Window((1, 1))),
        (1, Window((1, 3), pads=(0, 12, 0, 14), dilations=(1, 12))),  # taps that some positions see nothing with
    ],
)
def test_sums_of_taps(groups: int, window: Window) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((5, 6, 9, 11)), rng.standard_normal((12, 6 // groups, *window.kernel))
    top, left, bottom, right = window.pads
    padded = functional.pad(torch.from_numpy(x), (left, right, top, bottom))
    sums = functional.conv2d(padded, torch.from_numpy(weight), None, window.strides, 0, window.dilations, groups)
    taps = sum_of_taps(x, window, window.result_size((9, 11))).reshape(groups, -1)
    found = np.einsum("gfc,gc->gf", weight.reshape(groups, 12 // groups, -1), taps).reshape(-1)
    np.testing.assert_allclose(found, sums.sum((0, 2, 3)).numpy(), atol=1e-10)


def test_sums_of_rows() -> None:
    x = np.random.default_rng(0).standard_normal((5, 6))
    np.testing.assert_allclose(sum_of_taps(x, None, ()), x.sum(0), atol=1e-12)


class Separable(nn.Module):
    """Depthwise and 1x1 layers, two of them joined, whose inputs are far from zero on average, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.deep = nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False)
        self.wide = nn.Conv2d(16, 32, 1)
        self.joined = nn.Conv2d(48, 32, 1, bias=False)
        self.classifier = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        y = self.wide(self.deep(x).relu()).relu()
        z = self.joined(torch.cat([x, y], 1)).relu()
        found: torch.Tensor = self.classifier(z.mean((2, 3)))
        return found


def draw(count: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 3, 24, 24, generator=generator) for _ in range(count)]


@torch.no_grad()
def moved(model: nn.Module, compiled: patc.CompiledModel) -> float:
    """Return by how much results are off on average over samples that were not seen."""
    return float(torch.cat([compiled(x) - model(x) for x in draw(64, 9)]).mean(0).square().mean().sqrt())


def test_results_are_right_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Separable().eval()
    corrected = patc.quantize(model, draw(64, 1), threads=1)
    assert {layer.dtype for layer in corrected.layers if layer.weights} == {"i8"}
    monkeypatch.setattr(calibrate, "correct_biases", lambda *_: None)
    plain = patc.quantize(model, draw(64, 1), threads=1)
    assert moved(model, corrected) < 0.3 * moved(model, plain)


def test_few_sums_say_nothing() -> None:
    """A classifier that saw one picture would get the bias that is right for that picture."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 10)).eval()
    (x,) = draw(1, 1)
    part = x.flatten()[None, :32]
    one, many = (patc.quantize(model, [part] * count, threads=1) for count in (1, 64))
    assert (many(part) - model(part)).abs().max() < 1e-5 < (one(part) - model(part)).abs().max()
