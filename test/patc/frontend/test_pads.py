"""Zeros in front of what spreads elements among zeros stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.helper as oh
import pytest
import torch
from torch import Tensor, nn

import patc


class Net(nn.Module):
    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(x)


def transposed(x: Tensor, pads: tuple[int, ...], groups: int = 1, value: float = 0.0) -> Tensor:
    weight = torch.linspace(-1, 1, 2 * x.shape[1] * 4, dtype=x.dtype).reshape(x.shape[1], -1, 2, 2)
    padded = nn.functional.pad(x, pads, value=value)
    return nn.functional.conv_transpose2d(padded, weight, stride=(2, 3), groups=groups)


def scattered(x: Tensor) -> Tensor:
    return torch.slice_scatter(torch.zeros(2, 9, 3), nn.functional.pad(x, (0, 0, 1, 1)), 1, 0, 9, 2)


@pytest.mark.parametrize("pads", [(1, 0), (1, 2, 3, 0), (0, 1, 2, 1, 0, 0)])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_transposed_convolutions(pads: tuple[int, ...], groups: int, value: float) -> None:
    net, x = Net(lambda x: transposed(x, pads, groups, value)).eval(), torch.randn(1, 2, 3, 4)
    torch.testing.assert_close(patc.compile(net, (x,), threads=1)(x), net(x))


def test_scatters() -> None:
    net, x = Net(scattered).eval(), torch.randn(2, 3, 3)
    torch.testing.assert_close(patc.compile(net, (x,), threads=1)(x), net(x))


def test_onnx_files(tmp_path: Path) -> None:
    x, weight = torch.randn(1, 2, 3, 4), torch.randn(2, 1, 1, 1)
    nodes = [
        oh.make_node("Pad", ["x", "pads"], ["padded"]),
        oh.make_node("ConvTranspose", ["padded", "w"], ["y"], strides=[3, 3]),
    ]
    pads = oh.make_tensor("pads", onnx.TensorProto.INT64, [8], [0, 0, 1, 2, 0, 0, 0, 1])
    kernel = oh.make_tensor("w", onnx.TensorProto.FLOAT, [2, 1, 1, 1], weight.numpy().tobytes(), raw=True)
    given = oh.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2, 3, 4])
    made = oh.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = oh.make_graph(nodes, "pads", [given], [made], [pads, kernel])
    path = tmp_path / "net.onnx"
    onnx.save(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 18)], ir_version=9), path)
    right = nn.functional.conv_transpose2d(nn.functional.pad(x, (2, 1, 1, 0)), weight, stride=3)
    torch.testing.assert_close(patc.compile(path, threads=1)(x), right)
