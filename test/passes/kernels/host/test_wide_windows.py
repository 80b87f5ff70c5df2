"""Windows of more than 64 taps, which are loops over a few columns, with whatever stride, dilation and pad.

Pools of large windows are two, down columns and along rows.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import assert_close, torch_results
from torch import nn

import patc

CASES = [
    (nn.Conv1d(1, 8, 512, 4), (1, 1, 700)),
    (nn.Conv1d(3, 5, 77, 1, 20, dilation=2), (1, 3, 200)),
    (nn.Conv1d(2, 4, 75, 3, 1), (1, 2, 300)),
    (nn.Conv1d(8, 8, 87, 1, 43, groups=8), (1, 8, 100)),
    (nn.Conv2d(2, 4, (9, 13), 2, 3), (1, 2, 30, 40)),
    (nn.Conv2d(2, 3, (65, 1), 1, 0, (2, 1)), (1, 2, 140, 9)),
    (nn.AvgPool2d(32), (1, 3, 64, 64)),
    (nn.AvgPool2d((15, 31), 3, (7, 15), count_include_pad=False, ceil_mode=True), (1, 2, 40, 71)),
    (nn.AvgPool2d((12, 13), 2, (5, 6), ceil_mode=True, divisor_override=7), (2, 2, 40, 41)),
    (nn.AvgPool2d(200, 1, 100), (1, 1, 5, 5)),
    (nn.AvgPool1d(100, 17), (1, 3, 300)),
    (nn.MaxPool2d(13, 1, 6), (1, 3, 13, 13)),
    (nn.MaxPool2d(9, 2, 4, dilation=2), (1, 2, 40, 40)),
    (nn.MaxPool2d((2, 45), (1, 9)), (1, 2, 7, 120)),
    (nn.MaxPool1d(131, 3), (1, 2, 1000)),
]


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=[str(layer) for layer, _ in CASES])
def test_wide_windows(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(layer, nn.ReLU()).eval()
    found: list[np.ndarray] = [patc.compile(model, (x,), threads=1)(x).numpy()]
    assert_close(found, torch_results(model, [x]))
