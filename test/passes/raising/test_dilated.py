"""Dilated convolutions: taps that only see the zeros around their input are left out."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close, raised_model, torch_results
from torch import nn

import patc


@pytest.mark.parametrize(
    ("layer", "shape", "kernel"),
    [
        (nn.Conv2d(3, 8, 3, padding=12, dilation=12), (2, 3, 9, 12), [1, 1]),
        (nn.Conv2d(4, 8, (3, 5), padding=(7, 12), dilation=(7, 6), groups=2), (1, 4, 6, 11), [1, 3]),
        (nn.Conv2d(3, 8, 3, 2, 9, 9), (1, 3, 10, 9), [2, 1]),
        (
            nn.Conv2d(3, 8, 3, padding=7, dilation=8),
            (1, 3, 7, 7),
            [3, 3],
        ),  # without the first tap, the window would begin inside
        (nn.Conv1d(3, 8, 7, padding=30, dilation=10), (1, 3, 15), [1, 3]),
    ],
    ids=lambda value: "",
)
def test_unseen_taps(layer: nn.Module, shape: tuple[int, ...], kernel: list[int]) -> None:
    model, x = nn.Sequential(layer, nn.ReLU()).eval(), torch.randn(shape)
    module, _ = raised_model(model, [x])
    found = [op for op in module.body.operations[0].entry_block.operations if op.operation.name == "pattern.conv2d"]
    assert [list(op.weight.type.shape[2:]) for op in found] == [kernel]
    assert_close([patc.compile(model, (x,))(x).numpy()], torch_results(model, [x]))
