"""What models return beside what they compute of their inputs: constants, inputs, the same twice, None, containers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu import needs_device
from torch import Tensor, nn

import patc


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("f64", torch.tensor([-0.5, 0.25, 0.0, 2.0], dtype=torch.float64))
        self.register_buffer("f16", torch.tensor([-0.5, 0.25, 0.0, 2.0], dtype=torch.float16))
        self.weight = nn.Parameter(torch.arange(4.0))

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


# One net has them all, since each costs as much to compile.
def every(net: Any, x: Tensor) -> Any:
    y = x * 2
    return {
        "weight": net.weight,
        "computed": [net.weight * 2 + 1, torch.arange(5), torch.ones(3, dtype=torch.bool), torch.tensor(3.5)],
        "input": (x, x.flatten(1)),
        "twice": (y, y, y.flatten(1)),
        "types": {"double": net.f64, "half": net.f16, "product": x * net.f64},
        "none": [None, {"x": 1, "y": (2.5, None, True)}, [], ()],
        "bounds": torch.clamp(x, net.f64, net.f64 + 1),
    }


X = torch.linspace(-2, 2, 24).reshape(2, 3, 4)


def require_right(compiled: patc.CompiledModel) -> None:
    with torch.no_grad():
        torch.testing.assert_close(compiled(X), Function(every)(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_everything_that_can_be_returned(threads: int, tmp_path: Path) -> None:
    compiled = patc.compile(Function(every).eval(), (X,), threads=threads)
    require_right(compiled)
    compiled.save(tmp_path / "net.patc")
    require_right(patc.load(tmp_path / "net.patc"))


@needs_device
def test_everything_that_can_be_returned_on_vulkan() -> None:
    require_right(patc.compile(Function(every).eval(), (X,), target="spirv-vulkan"))


def test_constants_of_mlir_are_returned(tmp_path: Path) -> None:
    path = tmp_path / "net.mlir"
    path.write_text("""
      func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<2x2xf32>) {
        %c = arith.constant dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32>
        %r = tensor.expand_shape %c [[0, 1]] output_shape [2, 2] : tensor<4xf32> into tensor<2x2xf32>
        %y = arith.addf %x, %c : tensor<4xf32>
        return %y, %c, %r : tensor<4xf32>, tensor<4xf32>, tensor<2x2xf32>
      }""")
    found = patc.compile(path, threads=1)(np.ones(4, np.float32))
    constant = np.arange(1, 5, dtype=np.float32)
    for array, wanted in zip(found, (constant + 1, constant, constant.reshape(2, 2)), strict=True):
        np.testing.assert_array_equal(array, wanted)


def test_inputs_and_constants_of_onnx_are_returned(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    values = {name: onnx.helper.make_tensor_value_info(name, 1, [2, 4]) for name in ("x", "y")}
    weight = onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    outputs = [values["y"], values["x"], onnx.helper.make_tensor_value_info("w", 1, [4]), values["y"]]
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "net", [values["x"]], outputs, initializer=[weight])
    path = tmp_path / "net.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path)
    x, w = np.ones((2, 4), np.float32), np.arange(4, dtype=np.float32)
    for array, wanted in zip(patc.compile(path, threads=1)(x), (x + w, x, w, x + w), strict=True):
        np.testing.assert_array_equal(array, wanted)
