"""What the commands of documents need: small nets by the names of `patc.models`, and the files that pages speak of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ncnn_nets import write_upscaler
from PIL import Image
from torch import nn

import patc
from patc import models
from patc.checkpoints import load_checkpoint, read_checkpoint

CLASSES = 6  # in place of ImageNet's 1,000
NETS = """\
import torch
from documents import SmallNet


def build():
    return SmallNet({classes}), torch.zeros({shape})
"""
DATA = """\
import torch
from torch.utils.data import TensorDataset


def open():
    part = TensorDataset(torch.ones(20, 3, 32, 32), torch.arange(20) % 10)
    return part, part
"""
CONV = """\
func.func @main(%x: tensor<1x2x3x3xf32>) -> tensor<1x1x3x3xf32> {
  %w = arith.constant dense<[[[[1.0]], [[0.05]]]]> : tensor<1x2x1x1xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x3x3xf32>, tensor<1x2x1x1xf32>) -> tensor<1x1x3x3xf32>
  return %y : tensor<1x1x3x3xf32>
}
"""


class SmallNet(nn.Module):
    """Two 3x3 convolutions of stride 2 with batch norm, pooling and a linear layer: Nx3xHxW -> Nx`classes`."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, 2, 1, bias=False)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(16, classes)
        for weight in (self.conv1.weight, self.conv2.weight, self.fc.weight):
            weight.data = torch.randn(weight.shape, generator=generator) * 0.2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.fc(self.relu(self.conv2(y)).mean((2, 3)))


def small_model(info: models.ModelInfo) -> models.ModelInfo:
    """Return a small net that takes what a larger one takes, and returns what it returns."""
    is_cifar = info.input_shape == models.CIFAR_INPUT

    def build(weights: Any = None, *, seed: int = 0, num_classes: int = 10 if is_cifar else CLASSES) -> nn.Module:
        model = SmallNet(num_classes)
        if weights is not None:
            load_checkpoint(model, read_checkpoint(weights))
        return model.eval()

    return models.ModelInfo(build, info.input_shape)


def write_files(folder: Path) -> None:
    """Write the files that pages speak of and that no command before writes."""
    for name in ("resnet18", "mobilenet_v2"):
        torch.save(SmallNet(CLASSES).state_dict(), folder / f"{name}.pth")
    torch.save({"epoch": 3, "model": SmallNet(10).state_dict()}, folder / "last.pt")
    for name, classes, shape in (("resnet18", CLASSES, models.IMAGENET_INPUT), ("net", 10, models.CIFAR_INPUT)):
        (folder / f"{name}.py").write_text(NETS.format(classes=classes, shape=shape))
    for name in ("cat.jpg", "cat.ppm"):
        Image.effect_noise((224, 224), 80).convert("RGB").save(folder / name)
    (folder / "data.py").write_text(DATA)
    (folder / "imagenet.txt").write_text("".join(f"class {number}\n" for number in range(CLASSES)))
    (folder / "net.mlir").write_text(CONV)
    _write_onnx(folder / "detector.onnx", "y")
    _write_onnx(folder / "net.onnx", 8)
    write_upscaler(folder, "upscale")
    Image.new("RGB", (48, 40), "teal").save(folder / "small.png")
    (folder / "frames.raw").write_bytes(bytes(3 * 32 * 24 * 2))
    np.savez(folder / "x.npz", x=np.ones((1, 3, 16, 16), np.float32))
    _write_cifar(folder / "cifar-10-batches-bin")
    for part in ("train", "val"):
        for number in range(CLASSES):
            _write_pictures(folder / "imagenet" / part / f"class{number}")
    compiled = patc.compile(SmallNet(CLASSES).eval(), (torch.zeros(models.IMAGENET_INPUT),))
    for name in ("resnet18", "before", "after", "net"):
        compiled.save(folder / f"{name}.patc")


def _write_onnx(path: Path, size: int | str) -> None:
    """Write a net of one convolution, which leaves height and width open where `size` is a name."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    sizes = [1, 3, size, size]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, size, size])
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["y"])]
    graph = helper.make_graph(nodes, "net", [x], [y], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def _write_cifar(folder: Path) -> None:
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        records = generator.integers(0, 256, (4, 3073), np.uint8)
        records[:, 0] = range(4)
        (folder / f"{name}.bin").write_bytes(records.tobytes())


def _write_pictures(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(2):
        Image.effect_noise((64, 64), 80).convert("RGB").save(folder / f"{number}.jpg")
