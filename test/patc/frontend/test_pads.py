"""Zeros in front of what spreads elements among zeros stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize("is_open", [False, True])
def test_linalg_files(tmp_path: Path, is_open: bool) -> None:
    """The pad is inserted as it is: what it was made of begins two steps from where the insertion does."""
    text = """
    func.func @main(%x: tensor<2x3xf32>) -> tensor<2x11xf32> {
      %c0 = arith.constant 0 : index
      %n = tensor.dim %x, %c0 : tensor<2x3xf32>
      %zero = arith.constant 0.0 : f32
      %padded = tensor.pad %x low[0, 2] high[0, 0] {
      ^bb0(%row: index, %column: index):
        tensor.yield %zero : f32
      } : tensor<2x3xf32> to tensor<2x5xf32>
      %empty = tensor.empty() : tensor<2x11xf32>
      %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<2x11xf32>) -> tensor<2x11xf32>
      %y = tensor.insert_slice %padded into %zeros[0, 1] [2, 5] [1, 2] : tensor<2x5xf32> into tensor<2x11xf32>
      return %y : tensor<2x11xf32>
    }"""
    if is_open:
        text = text.replace("tensor<2x", "tensor<?x").replace("[2, 5]", "[%n, 5]").replace("empty()", "empty(%n)")
    path = tmp_path / "net.mlir"
    path.write_text(text)
    x, wanted = np.arange(1, 7, dtype=np.float32).reshape(2, 3), np.zeros((2, 11), np.float32)
    wanted[:, 5::2] = x
    np.testing.assert_array_equal(np.asarray(patc.compile(path, shapes=[(2, 3)] if is_open else ())(x)), wanted)
