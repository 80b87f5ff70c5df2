"""3-D pools become pools of planes and of rows of all depths; convolutions of one tap see what their strides leave."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import assert_close, layer_ops, raised_model, torch_results
from torch import nn

import patc

MEETING = [
    nn.MaxPool3d(3, 2, 1),
    nn.MaxPool3d(3, 1, 1),
    nn.MaxPool3d((2, 1, 3), (2, 1, 1), (1, 0, 1), ceil_mode=True),
    nn.MaxPool3d((1, 3, 2), 1, dilation=(1, 2, 1)),
    nn.MaxPool3d((3, 1, 1), (1, 2, 1), (1, 0, 0)),
    nn.AvgPool3d(2, 2),
    nn.AvgPool3d(3, 1, 1),
    nn.AvgPool3d(3, 2, 1, count_include_pad=False),
    nn.AvgPool3d((1, 3, 3), (1, 2, 1), (0, 1, 0), divisor_override=5),
]


@pytest.mark.parametrize("number", range(len(MEETING)))
def test_pools(number: int) -> None:
    torch.manual_seed(number)
    x = torch.randn(2, 3, 7, 9, 10)
    x[0, 1, 3, 4, 5], x[1, 0, 0, 0, 0] = torch.nan, torch.inf
    model = MEETING[number].eval()
    names = pattern_ops(model, x)
    assert names and set(names) < {"pattern.max_pool2d", "pattern.avg_pool2d", "pattern.activate"}
    (wanted,) = torch_results(model, [x])
    np.testing.assert_allclose(patc.compile(model, (x,))(x).numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_maxima_of_windows_apart_stay() -> None:
    assert not pattern_ops(nn.MaxPool3d(2, 2).eval(), torch.randn(1, 2, 6, 8, 8))


@pytest.mark.parametrize("stride", [2, (1, 2, 3), (3, 1, 1)])
@pytest.mark.parametrize("depths", [1, 2])
def test_convolutions_of_one_tap_see_what_strides_leave(stride: int | tuple[int, ...], depths: int) -> None:
    torch.manual_seed(0)
    model, x = nn.Conv3d(3, 4, (depths, 1, 1), stride, (depths - 1, 0, 0)).eval(), torch.randn(2, 3, 7, 9, 10)
    module, _ = raised_model(model, [x])
    assert "linalg.transpose" not in str(module)
    assert_close([patc.compile(model, (x,))(x).numpy()], torch_results(model, [x]))


def pattern_ops(model: nn.Module, x: torch.Tensor) -> list[str]:
    module, _ = raised_model(model, [x])
    names = [op.operation.name for op in layer_ops(module)]
    return [name for name in names if name.startswith("pattern.")]
