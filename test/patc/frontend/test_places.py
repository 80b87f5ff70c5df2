"""Places of maxima and minima are PyTorch's, of numbers with NaN among them, too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import patc

NAN = float("nan")


class Extremes(nn.Module):
    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return *x.max(self.axis), *x.min(self.axis), x.argmax(self.axis), x.argmin(self.axis), x.argmax()


class Pool(nn.Module):
    def __init__(self, *window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, places = nn.functional.max_pool2d(x, *self.window, return_indices=True)
        return values, places


def check(net: nn.Module, x: torch.Tensor) -> None:
    found = patc.compile(net.eval(), (x,), threads=1)(x)
    for one, other in zip(found, net(x), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def numbers(shape: tuple[int, ...], part: float) -> torch.Tensor:
    """Return whole numbers, of which many are equal, with an infinity and a part of NaN among them."""
    generator = torch.Generator().manual_seed(round(100 * part))
    x = torch.randn(shape, generator=generator).round()
    x.view(-1)[:: x.numel() // 3] = float("inf")
    return x.masked_fill(torch.rand(shape, generator=generator) < part, NAN)


@pytest.mark.parametrize("part", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_reductions(axis: int, part: float) -> None:
    check(Extremes(axis), numbers((5, 67), part))


def test_numbers_of_which_functions_make_nan() -> None:
    """What found the place of another number before: nnsmith's acos of a number below -1."""

    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (torch.acos(torch.ceil(x)).argmin(1),)

    check(Net(), torch.tensor([[-0.2224, -1.6658, 0.6539, -3.1145]]))


@pytest.mark.parametrize("part", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("window", [(2,), (3, 2, 1)])
def test_max_pools(window: tuple[int, ...], part: float) -> None:
    check(Pool(*window), numbers((1, 3, 9, 8), part))
