"""The networks of the paper's experiments, with torchvision's names, shapes and strides.

torchvision has no CPU build on every platform this compiler runs on, so the networks are defined here.
Parameters and buffers have torchvision's names, shapes and state dict order: a torchvision checkpoint
loads strictly. Without a checkpoint a network is initialised from a seed, batch norm statistics
included, so that folding them changes every weight and activations keep their scale through the depth.

    resnet18, resnet50, vgg16, vgg16_bn, mobilenet_v2    1x3x224x224 -> 1x1000 (resnet50 is "V1.5")
    resnet18_cifar, vgg16_cifar                          1x3x32x32 -> 1x10
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from patc.checkpoints import Weights, load_checkpoint, read_checkpoint
from patc.diagnostics import PatcError, nearest

IMAGENET_INPUT = (1, 3, 224, 224)
CIFAR_INPUT = (1, 3, 32, 32)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip connection: Nx`inputs`xHxW -> Nx`width`x(H/stride)x(W/stride)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + skip)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a skip connection; the stride is on the 3x3 (ResNet V1.5)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + skip)


class ResNet(nn.Module):
    """A ResNet of four stages, the first of `width` filters; `cifar` replaces the 7x7 stem and its pooling by a 3x3 of
    stride 1."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        num_classes: int,
        cifar: bool = False,
        width: int = 64,
    ) -> None:
        super().__init__()
        if cifar:
            self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        else:
            self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.Identity() if cifar else nn.MaxPool2d(3, 2, 1)
        self.layer1 = _resnet_stage(block, width, width, depths[0], 1)
        self.layer2 = _resnet_stage(block, width * block.expansion, 2 * width, depths[1], 2)
        self.layer3 = _resnet_stage(block, 2 * width * block.expansion, 4 * width, depths[2], 2)
        self.layer4 = _resnet_stage(block, 4 * width * block.expansion, 8 * width, depths[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8 * width * block.expansion, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _resnet_stage(
    block: type[BasicBlock] | type[Bottleneck], inputs: int, width: int, depth: int, stride: int
) -> nn.Sequential:
    outputs = width * block.expansion
    downsample = None
    if stride != 1 or inputs != outputs:
        downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    blocks = [block(inputs, width, stride, downsample)]
    blocks += [block(outputs, width, 1, None) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


# Output channels of each 3x3 convolution; "pool" is a 2x2 max pooling.
_VGG16: tuple[int | str, ...] = (
    64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool",
    512, 512, 512, "pool", 512, 512, 512, "pool",
)  # fmt: skip


class VGG(nn.Module):
    """VGG-16 with or without batch norm; `cifar` has one linear layer instead of three."""

    def __init__(self, num_classes: int, batch_norm: bool, cifar: bool = False) -> None:
        super().__init__()
        self.features = _vgg_features(batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1) if cifar else (7, 7))
        self.classifier: nn.Module
        if cifar:
            self.classifier = nn.Linear(512, num_classes)
        else:
            self.classifier = nn.Sequential(
                nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout(),
                nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(),
                nn.Linear(4096, num_classes),
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def _vgg_features(batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for item in _VGG16:
        if isinstance(item, str):
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers.append(nn.Conv2d(channels, item, 3, 1, 1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(item))
        layers.append(nn.ReLU())
        channels = item
    return nn.Sequential(*layers)


# expansion, output channels, blocks, stride of the first block (MobileNetV2 paper, table 2)
_MOBILENET_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 linear projection; a skip connection where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_conv_bn_relu6(inputs, width, 1)]
        layers.append(_conv_bn_relu6(width, width, 3, stride, groups=width))
        layers += [nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.has_skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.has_skip else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNet-V2 of width 1.0."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_bn_relu6(3, 32, 3, 2)]
        channels = 32
        for expansion, outputs, depth, first_stride in _MOBILENET_V2:
            for i in range(depth):
                layers.append(InvertedResidual(channels, outputs, first_stride if i == 0 else 1, expansion))
                channels = outputs
        layers.append(_conv_bn_relu6(channels, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def _conv_bn_relu6(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


def resnet18(weights: Weights | None = None, *, seed: int = 0, num_classes: int = 1000) -> nn.Module:
    """Return ResNet-18 in eval mode: Nx3x224x224 -> Nx`num_classes`.

    All constructors of this module take the same arguments:

    Args:
        weights: a state dict, or the file of one, as `read_checkpoint` takes it; None initialises from `seed`.
        seed: seed of the initialisation; torch's global generator is neither read nor changed.
        num_classes: outputs of the last layer.

    Raises:
        PatcError: the file is missing, unreadable, or does not hold this network's parameters.
    """
    return _finish(lambda: ResNet(BasicBlock, (2, 2, 2, 2), num_classes), weights, seed)


def resnet50(weights: Weights | None = None, *, seed: int = 0, num_classes: int = 1000) -> nn.Module:
    """Return ResNet-50 V1.5 in eval mode: Nx3x224x224 -> Nx`num_classes`. See `resnet18`."""
    return _finish(lambda: ResNet(Bottleneck, (3, 4, 6, 3), num_classes), weights, seed)


def vgg16(weights: Weights | None = None, *, seed: int = 0, num_classes: int = 1000) -> nn.Module:
    """Return VGG-16 without batch norm in eval mode: Nx3x224x224 -> Nx`num_classes`. See `resnet18`."""
    return _finish(lambda: VGG(num_classes, batch_norm=False), weights, seed)


def vgg16_bn(weights: Weights | None = None, *, seed: int = 0, num_classes: int = 1000) -> nn.Module:
    """Return VGG-16 with batch norm in eval mode: Nx3x224x224 -> Nx`num_classes`. See `resnet18`."""
    return _finish(lambda: VGG(num_classes, batch_norm=True), weights, seed)


def mobilenet_v2(weights: Weights | None = None, *, seed: int = 0, num_classes: int = 1000) -> nn.Module:
    """Return MobileNet-V2 (width 1.0) in eval mode: Nx3x224x224 -> Nx`num_classes`. See `resnet18`."""
    return _finish(lambda: MobileNetV2(num_classes), weights, seed)


def resnet18_cifar(weights: Weights | None = None, *, seed: int = 0, num_classes: int = 10) -> nn.Module:
    """Return ResNet-18 with a 3x3 stem in eval mode: Nx3x32x32 -> Nx`num_classes`. See `resnet18`."""
    return _finish(lambda: ResNet(BasicBlock, (2, 2, 2, 2), num_classes, cifar=True), weights, seed)


def vgg16_cifar(weights: Weights | None = None, *, seed: int = 0, num_classes: int = 10) -> nn.Module:
    """Return VGG-16 with batch norm and one linear layer in eval mode: Nx3x32x32 -> Nx`num_classes`.

    See `resnet18`.
    """
    return _finish(lambda: VGG(num_classes, batch_norm=True, cifar=True), weights, seed)


@dataclass(frozen=True)
class ModelInfo:
    """How to build a network and what it takes.

    Attributes:
        build: the constructor, `build(weights=None, *, seed=0, num_classes=...)`.
        input_shape: N, C, H, W of its example input.
    """

    build: Callable[..., nn.Module]
    input_shape: tuple[int, int, int, int]


MODELS: dict[str, ModelInfo] = {
    "resnet18": ModelInfo(resnet18, IMAGENET_INPUT),
    "resnet50": ModelInfo(resnet50, IMAGENET_INPUT),
    "vgg16": ModelInfo(vgg16, IMAGENET_INPUT),
    "vgg16_bn": ModelInfo(vgg16_bn, IMAGENET_INPUT),
    "mobilenet_v2": ModelInfo(mobilenet_v2, IMAGENET_INPUT),
    "resnet18_cifar": ModelInfo(resnet18_cifar, CIFAR_INPUT),
    "vgg16_cifar": ModelInfo(vgg16_cifar, CIFAR_INPUT),
}


def find(name: str) -> ModelInfo:
    """Return the entry of `MODELS` called `name`.

    Raises:
        PatcError: no network has that name; the message lists the names.
    """
    if name not in MODELS:
        names = ", ".join(MODELS)
        raise PatcError(f"expected a model out of {names}; found '{name}'{nearest(name, MODELS)}")
    return MODELS[name]


def build(name: str, weights: Weights | None = None, seed: int = 0) -> nn.Module:
    """Return the network of `MODELS` called `name`, in eval mode, with as many outputs as `weights` have.

    Raises:
        PatcError: no network has that name (the message lists the names), or `weights` do not fit.
    """
    info = find(name)
    if weights is None:
        return info.build(seed=seed)
    checkpoint = read_checkpoint(weights)
    classes = _count_classes(checkpoint.state)
    return info.build(checkpoint) if classes is None else info.build(checkpoint, num_classes=classes)


def _count_classes(state: dict[str, Tensor]) -> int | None:
    """Return the outputs of the last layer, `fc` or the last of `classifier`; None where there is none."""
    last_layer = re.compile(r"(^|\.)(fc|classifier\.\d+)\.bias$")
    biases = {name: tensor for name, tensor in state.items() if last_layer.search(name)}
    last = max(biases, key=lambda name: [int(number) for number in re.findall(r"\d+", name)], default=None)
    return len(biases[last]) if last is not None and biases[last].ndim == 1 and len(biases[last]) else None


def _finish(construct: Callable[[], nn.Module], weights: Weights | None, seed: int) -> nn.Module:
    # Built on the meta device: PyTorch's own initialisation would cost seconds on VGG-16's 138 million
    # weights and draw from the global generator.
    with torch.device("meta"):
        model = construct()
    model.to_empty(device="cpu")
    if weights is None:
        _initialise(model, seed)
    else:
        load_checkpoint(model, read_checkpoint(weights))
    return model.eval()


# A residual branch adds this part of the skip's standard deviation, so that sixteen blocks in a row
# about double the scale instead of multiplying it by 2^8.
_BRANCH_SCALE = 0.35
# Spread of the logarithm of the running variances: they differ by a factor of 10 within a layer.
_LOG_VARIANCE_SPREAD = 0.5


@torch.no_grad()
def _initialise(model: nn.Module, seed: int) -> None:
    """Fill every parameter and buffer from `seed`, keeping the scale of activations through the depth."""
    generator = torch.Generator("cpu").manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            _initialise_weight(module, generator, gain=math.sqrt(2.0))
        elif isinstance(module, nn.Linear):
            _initialise_weight(module, generator, gain=1.0)
        elif isinstance(module, nn.BatchNorm2d):
            _initialise_batch_norm(module, generator)
    for module in model.modules():
        _balance_block(module)


def _initialise_weight(module: nn.Conv2d | nn.Linear, generator: torch.Generator, gain: float) -> None:
    fan_in = module.weight[0].numel()
    module.weight.normal_(0.0, gain / math.sqrt(fan_in), generator=generator)
    if module.bias is not None:
        module.bias.normal_(0.0, 0.1, generator=generator)


def _initialise_batch_norm(norm: nn.BatchNorm2d, generator: torch.Generator) -> None:
    """Draw statistics and affine parameters such that the layer keeps unit scale on average.

    gamma is uniform in [0.5, 1.5] and the variance log-normal, so E[gamma^2 / variance] would be
    13/12 * exp(s^2/2); the variance's centre makes up for it.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None
    centre = math.log(13.0 / 12.0) + _LOG_VARIANCE_SPREAD**2 / 2
    norm.weight.uniform_(0.5, 1.5, generator=generator)
    norm.bias.normal_(0.0, 0.2, generator=generator)
    norm.running_mean.normal_(0.0, 0.2, generator=generator)
    norm.running_var.normal_(centre, _LOG_VARIANCE_SPREAD, generator=generator).exp_()
    norm.num_batches_tracked.zero_()


def _balance_block(block: nn.Module) -> None:
    """Scale down what a residual branch adds, and what no ReLU halves."""
    if isinstance(block, BasicBlock):
        block.bn2.weight.mul_(_BRANCH_SCALE)
    elif isinstance(block, Bottleneck):
        block.bn3.weight.mul_(_BRANCH_SCALE)
    elif isinstance(block, InvertedResidual):
        projection, expansion = block.conv[-1], block.conv[0][0]
        if block.has_skip:
            projection.weight.mul_(_BRANCH_SCALE)
        if expansion.groups == 1:
            # Its input is the linear projection before it: the gain of sqrt(2) is for ReLU's outputs.
            expansion.weight.mul_(math.sqrt(0.5))
