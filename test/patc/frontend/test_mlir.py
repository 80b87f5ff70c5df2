"""`.mlir` files whose inputs leave sizes open."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import patc
from patc.tools.patc import main

BOUND = 1e-4


class Net(nn.Module):
    """Pads, concatenations, slices, reshapes and sizes that are computed from those of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.last = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.first(x)
        batch, channels, height, width = y.shape
        y = torch.cat([y, functional.interpolate(functional.max_pool2d(y, 2), size=(height, width))], 1)
        y = y.view(batch, 2, channels, height, width).transpose(1, 2).reshape(batch, 2 * channels, height, width)
        y = torch.cat([y[:, :2], functional.avg_pool2d(y, 3, 1, 1)[:, 2:4]], 1)
        return self.last(y.mean((2, 3))).softmax(-1), y


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def write(path: Path, kind: str, sizes: dict[int, Any], x: torch.Tensor) -> Path:
    """Write a net as torch-mlir exports it with open sizes."""
    from torch_mlir import fx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = fx.export_and_import(net(), x, output_type=kind, dynamic_shapes={"x": sizes}, func_name="main")
    path.write_text(str(module))
    return path


def batch() -> Any:
    return torch.export.Dim("batch", min=1, max=64)


def assert_right(found: Any, x: torch.Tensor) -> None:
    with torch.no_grad():
        for one, other in zip(found, net().double()(x.double()), strict=True):
            assert one.shape == other.shape
            assert (one - other).abs().max() <= BOUND * other.abs().max()


@pytest.mark.parametrize("kind", ["raw", "linalg-on-tensors"])
def test_sizes_that_files_leave_open_are_given(kind: str, tmp_path: Path) -> None:
    height, width = (4 * torch.export.Dim(name, min=2, max=64) for name in ("height", "width"))
    path = write(tmp_path / "net.mlir", kind, {0: batch(), 2: height, 3: width}, torch.rand(2, 3, 16, 24))
    with pytest.raises(patc.PatcError) as caught:
        patc.compile(path)
    advice = "give them as in --shape arg0=1x3x224x224"
    assert str(caught.value) == f"{path}: expected inputs of known shapes, found 'arg0' (? x 3 x ? x ?); {advice}"
    shapes = (1, 3, 12, 8), (2, 3, 8, 16)
    compiled = patc.compile(path, {"arg0": shapes[0]}, shapes=shapes[1:], threads=1)
    for shape in shapes:
        x = torch.randn(shape)
        assert_right(compiled(x), x)


def test_any_batch(tmp_path: Path) -> None:
    path = write(tmp_path / "net.mlir", "torch", {0: batch()}, torch.rand(2, 3, 8, 12))
    compiled = patc.compile(path, threads=1, dynamic_batch=True)
    for images in (1, 3, 9):
        x = torch.randn(images, 3, 8, 12)
        assert_right(compiled(x), x)


TWO = """
func.func @main(%x: tensor<?x3xf32>, %y: tensor<2x?xf32>) -> tensor<?x?xf32> {{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %n = tensor.dim %x, %c0 : tensor<?x3xf32>
  %m = tensor.dim %y, %c0 : tensor<2x?xf32>
  %same = arith.cmpi eq, %n, %m : index
  cf.assert %same, "mismatched size for broadcast"
  {body}
}}
"""
ADD = """
  %d = tensor.dim %x, %c1 : tensor<?x3xf32>
  %empty = tensor.empty(%n, %d) : tensor<?x?xf32>
  %sum = linalg.add ins(%x, %y : tensor<?x3xf32>, tensor<2x?xf32>) outs(%empty : tensor<?x?xf32>) -> tensor<?x?xf32>
  return %sum : tensor<?x?xf32>
"""
SAME = """
  %made = tensor.cast %x : tensor<?x3xf32> to tensor<?x?xf32>
  return %made : tensor<?x?xf32>
"""
JOINED = """
  %made = tensor.concat dim(0) %x, %y : (tensor<?x3xf32>, tensor<2x?xf32>) -> tensor<?x?xf32>
  return %made : tensor<?x?xf32>
"""
UNKNOWN = """
  %number = tensor.extract %x[%c0, %c0] : tensor<?x3xf32>
  %integer = arith.fptosi %number : f32 to i64
  %size = arith.index_cast %integer : i64 to index
  %slice = tensor.extract_slice %x[0, 0] [%size, 3] [1, 1] : tensor<?x3xf32> to tensor<?x3xf32>
  %made = tensor.cast %slice : tensor<?x3xf32> to tensor<?x?xf32>
  return %made : tensor<?x?xf32>
"""


@pytest.mark.parametrize(
    ("body", "shapes", "expected"),
    [
        (ADD, "arg0=2x3", "expected inputs of known shapes, found 'arg1' (2 x ?); give them as in --shape arg1=2x1"),
        (ADD, "arg0=2x4 arg1=2x3", "expected input 'arg0' (? x 3), got 2x4"),
        (ADD, "arg0=2x3 arg1=2x3x1", "expected input 'arg1' (2 x ?), got 2x3x1"),
        (ADD, "arg0=2 arg1=2x3", "expected input 'arg0' (? x 3), got 2"),
        (ADD, "arg0=2x3 y=2x3", "expected shapes for inputs of 'arg0' (? x 3), 'arg1' (2 x ?); got 'y'"),
        (SAME, "arg0=3x3 arg1=2x3", ":8:3: expected shapes that go together, found: mismatched size for broadcast"),
        (ADD, "arg0=2x3 arg1=2x5", "to be 3, but found 5"),
        (JOINED, "arg0=2x3 arg1=2x4", "expected sizes that follow from those of the inputs, found tensor<2x?xf32> at"),
        (UNKNOWN, "arg0=2x3 arg1=2x3", "expected sizes that follow from those of the inputs, found tensor<?x3xf32> at"),
    ],
)
def test_sizes_that_do_not_go_give_one_line(
    body: str, shapes: str, expected: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "two.mlir"
    path.write_text(TWO.format(body=body))
    options = [word for shape in shapes.split() for word in ("--shape", shape)]
    assert main(["compile", str(path), *options, "-o", str(tmp_path / "two.patc")]) == 1
    error = capfd.readouterr().err
    assert expected in error and error.count("\n") == 1 and str(path) in error
    assert not (tmp_path / "two.patc").exists()


def test_sizes_that_go(tmp_path: Path) -> None:
    path, (x, y) = tmp_path / "two.mlir", torch.randn(2, 2, 3)
    path.write_text(TWO.format(body=ADD))
    assert torch.equal(patc.compile(path, [(2, 3), (2, 3)], threads=1)(x, y), x + y)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_sizes_that_are_too_small_give_one_line_or_numbers(size: int, tmp_path: Path) -> None:
    path = tmp_path / "small.mlir"
    path.write_text("""
func.func @main(%x: tensor<1x1x?x?xf32>) -> tensor<1x1x?x?xf32> {
  %c2 = arith.constant 2 : index
  %c3 = arith.constant 3 : index
  %h = tensor.dim %x, %c2 : tensor<1x1x?x?xf32>
  %w = tensor.dim %x, %c3 : tensor<1x1x?x?xf32>
  %height = arith.subi %h, %c2 : index
  %width = arith.subi %w, %c2 : index
  %zero = arith.constant 0.0 : f32
  %ones = arith.constant dense<1.0> : tensor<1x1x3x3xf32>
  %empty = tensor.empty(%height, %width) : tensor<1x1x?x?xf32>
  %filled = linalg.fill ins(%zero : f32) outs(%empty : tensor<1x1x?x?xf32>) -> tensor<1x1x?x?xf32>
  %made = linalg.conv_2d_nchw_fchw ins(%x, %ones : tensor<1x1x?x?xf32>, tensor<1x1x3x3xf32>)
    outs(%filled : tensor<1x1x?x?xf32>) -> tensor<1x1x?x?xf32>
  return %made : tensor<1x1x?x?xf32>
}
""")
    x = torch.ones(1, 1, size, size)
    if size < 3:
        with pytest.raises(patc.PatcError) as caught:
            patc.compile(path, (x,), threads=1)
        assert "\n" not in str(caught.value)
    else:
        assert torch.equal(patc.compile(path, (x,), threads=1)(x), torch.full((1, 1, size - 2, size - 2), 9.0))


def test_files_that_say_how_many_images_there_are_do_not_take_any(tmp_path: Path) -> None:
    path = tmp_path / "two.mlir"
    path.write_text(TWO.format(body=ADD))
    with pytest.raises(patc.PatcError, match=r"expected inputs whose first size the file leaves open .*'arg1' \(2 x"):
        patc.compile(path, dynamic_batch=True)


def test_ops_that_only_passes_of_torch_mlir_load_are_read(tmp_path: Path) -> None:
    path = tmp_path / "sort.mlir"
    path.write_text("""
func.func @main(%x: tensor<5xf32>, %places: tensor<5xi64>) -> (tensor<5xf32>, tensor<5xi64>) {
  %sorted:2 = tm_tensor.sort dimension(0) outs(%x, %places : tensor<5xf32>, tensor<5xi64>) {
  ^bb0(%a: f32, %b: f32, %i: i64, %j: i64):
    %before = arith.cmpf oge, %a, %b : f32
    tm_tensor.yield %before : i1
  } -> tensor<5xf32>, tensor<5xi64>
  return %sorted#0, %sorted#1 : tensor<5xf32>, tensor<5xi64>
}
""")
    x = torch.randn(5)
    found, places = patc.compile(path, threads=1)(x, torch.arange(5))
    wanted = x.sort(descending=True)
    assert torch.equal(found, wanted.values) and torch.equal(places, wanted.indices)
