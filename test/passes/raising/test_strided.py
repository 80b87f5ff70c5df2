"""Convolutions of wide strides: places of a stride become channels, and the taps that are left make a part of their own."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close, raised_model, torch_results
from torch import nn

import patc


@pytest.mark.parametrize(
    ("layer", "shape", "parts"),
    [
        (nn.Conv1d(1, 4, 64, 64), (2, 1, 640), 1),  # spectra
        (nn.Conv1d(2, 4, 40, 16, padding=20), (1, 2, 160), 2),
        (nn.Conv2d(3, 8, 8, 8), (1, 3, 24, 40), 1),  # patches
        (nn.Conv2d(3, 8, 11, 4, 2), (1, 3, 35, 39), 4),
        (nn.Conv2d(3, 8, (3, 5), (1, 5), 1, dilation=(2, 1), bias=False), (1, 3, 12, 33), 1),
        (nn.Conv2d(3, 8, 3, 5), (1, 3, 32, 33), 1),  # some places are not seen
    ],
    ids=lambda value: "",
)
def test_folded(layer: nn.Module, shape: tuple[int, ...], parts: int) -> None:
    model, x = nn.Sequential(layer, nn.ReLU()).eval(), torch.randn(shape)
    module, _ = raised_model(model, [x])
    found = [op for op in module.body.operations[0].entry_block.operations if op.operation.name == "pattern.conv2d"]
    assert [list(op.strides) for op in found] == [[1, 1]] * parts
    assert [op.activation.value for op in found] == ["none"] * (parts - 1) + ["relu"]
    assert_close([patc.compile(model, (x,))(x).numpy()], torch_results(model, [x]))


def test_infinity_stays_outside_of_windows() -> None:
    model, x = nn.Conv1d(1, 4, 6, 8).eval(), torch.zeros(1, 1, 64)
    x[0, 0, 7] = torch.inf
    assert patc.compile(model, (x,))(x).isfinite().all()
