"""pattern-promote: nets of half precision, against the same numbers in float64."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import patc

HALVES = [torch.float16, torch.bfloat16]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3))
        self.head = nn.Linear(16, 8)
        self.register_buffer("scale", torch.linspace(-2, 2, 8))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.body(x)
        scores = self.head(y.mean((2, 3)).float().to(y.dtype)) * self.scale
        return y, scores.softmax(1), scores.float(), scores.argmax(1)


def net(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return Net().eval().to(dtype)


X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def check(found: Any, model: nn.Module, x: Tensor) -> None:
    """Results have the model's types, and are those of its weights in float64, rounded once."""
    for value, right, own in zip(found, copy.deepcopy(model).double()(x.double()), model(x), strict=True):
        assert value.dtype == own.dtype
        bound = 1e-4 + (torch.finfo(own.dtype).eps if own.dtype in HALVES else 0)
        assert (value.double() - right.double()).abs().max() <= bound * right.double().abs().max()


class Widens(nn.Module):
    """Reads its input in both types."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return x * 2, x.float().amax((2, 3))


@pytest.mark.parametrize("dtype", HALVES)
def test_an_input_that_the_net_widens(dtype: torch.dtype) -> None:
    model, x = Widens().eval(), X.to(dtype)
    check(patc.compile(model, (x,), threads=1)(x), model, x)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.usefixtures("one_thread")
def test_nets_of_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    model, x = net(dtype), X.to(dtype)
    compiled = patc.compile(model, (x,), threads=1)
    with torch.no_grad():
        check(compiled(x), model, x)
    assert {"conv2d", "linear"} <= {layer.op for layer in compiled.layers}
    compiled.save(tmp_path / "net.patc")
    loaded = patc.load(tmp_path / "net.patc")
    with torch.no_grad():
        check(loaded(x), model, x)
    (array,) = loaded.random_inputs()
    results = loaded(array)
    assert [result.dtype.name for result in results] == [str(y.dtype).removeprefix("torch.") for y in model(x)]
    np.save(tmp_path / "x.npy", array)  # which has no name for bfloat16
    assert np.array_equal(loaded(np.load(tmp_path / "x.npy"))[2], results[2])


BITS = np.arange(1 << 16, dtype=np.uint16)


def test_every_number_of_bfloat16_comes_and_goes() -> None:
    """Of f32 the nearest is returned, of two the even one; NaN stays NaN."""
    singles = ((BITS.astype(np.uint32) << 16) + np.tile([0, 0x7FFF, 0x8000, 0x8001], 1 << 14).astype(np.uint32)).view(
        np.float32
    )
    halves, x = torch.from_numpy(BITS.view(np.int16)).view(torch.bfloat16), torch.from_numpy(singles)

    class Casts(nn.Module):
        def forward(self, half: Tensor, single: Tensor) -> tuple[Tensor, Tensor]:
            return half.float(), (single * 1.0).bfloat16()

    found, rounded = patc.compile(Casts().eval(), (halves, x), threads=1)(halves, x)
    torch.testing.assert_close(found, halves.float(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(rounded, x.bfloat16(), rtol=0, atol=0, equal_nan=True)


def test_a_dynamic_batch_of_half_precision() -> None:
    model, x = net(torch.bfloat16), torch.cat([X, X.flip(3), -X]).bfloat16()
    compiled = patc.compile(model, (x[:1],), threads=1, dynamic_batch=True)
    with torch.no_grad():
        check(compiled(x), model, x)
