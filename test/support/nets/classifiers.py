"""Classifiers of residual, dense and multi-branch blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .blocks import (
    Concat,
    Parallel,
    Scale,
    Squeeze,
    Sum,
    basic,
    bottleneck,
    chain,
    classifier,
    conv,
    separable,
    shortcut,
)


def stem(channels: int) -> list[nn.Module]:
    return [conv(3, channels, 7, 2), nn.MaxPool2d(3, 2, 1)]


class DenseLayer(nn.Module):
    """Batch norm before each convolution; the result joins what came in."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        hidden = 4 * growth
        self.main = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden), nn.ReLU(), nn.Conv2d(hidden, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.main(x)], 1)


def densenet121(scale: Scale) -> nn.Module:
    """DenseNet-121 (Huang et al. 2017)."""
    growth, channels = scale(32), scale(64)
    layers = stem(channels)
    for i, count in enumerate((6, 12, 24, 16)):
        for _ in range(scale.repeats(count)):
            layers.append(DenseLayer(channels, growth))
            channels += growth
        if i < 3:
            halve = nn.Conv2d(channels, channels // 2, 1, bias=False)
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), halve, nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), classifier(channels))


def _bottlenecks(scale: Scale, hidden: int, groups: int, make_squeeze: Callable[[int], int]) -> nn.Module:
    channels = scale(64)
    layers = stem(channels)
    for i, count in enumerate((3, 4, 6, 3)):
        outputs, inner = scale(256 * 2**i), groups * max(1, round(hidden * 2**i * scale.width / groups))
        for j in range(scale.repeats(count)):
            step = 2 if i and j == 0 else 1
            layers.append(bottleneck(channels, inner, outputs, step, groups=groups, squeeze=make_squeeze(outputs)))
            channels = outputs
    return nn.Sequential(*layers, classifier(channels))


def resnext50(scale: Scale) -> nn.Module:
    """ResNeXt-50 32x4d (Xie et al. 2017)."""
    return _bottlenecks(scale, 128, 32, lambda channels: 0)


def se_resnet50(scale: Scale) -> nn.Module:
    """SE-ResNet-50 (Hu et al. 2018)."""
    return _bottlenecks(scale, 64, 1, lambda channels: max(4, channels // 16))


def regnet_y_400mf(scale: Scale) -> nn.Module:
    """RegNetY-400MF (Radosavovic et al. 2020): groups of 8 channels, squeeze-excite in the middle of a block."""
    channels = scale(32)
    layers: list[nn.Module] = [conv(3, channels, 3, 2)]
    for outputs, count in ((48, 1), (104, 3), (208, 6), (440, 6)):
        outputs = scale(outputs)
        for j in range(scale.repeats(count)):
            step = 2 if j == 0 else 1
            grouped = conv(outputs, outputs, 3, step, groups=outputs // 8)
            squeeze = Squeeze(outputs, max(4, channels // 4))
            main = nn.Sequential(conv(channels, outputs, 1), grouped, squeeze, conv(outputs, outputs, 1, 1, None))
            layers.append(Sum(main, shortcut(channels, outputs, step), act=nn.ReLU))
            channels = outputs
    return nn.Sequential(*layers, classifier(channels))


class DualPath(nn.Module):
    """DPN's block: some channels are added to, others appended to."""

    def __init__(self, inputs: int, added: int, hidden: int, growth: int, stride: int, first: bool) -> None:
        super().__init__()
        self.added = added
        self.side = conv(inputs, added + 2 * growth, 1, stride) if first else None
        grouped = conv(hidden, hidden, 3, stride, groups=8)
        self.main = nn.Sequential(conv(inputs, hidden, 1), grouped, conv(hidden, added + growth, 1))

    def forward(self, x: Tensor) -> Tensor:
        side, main = self.side(x) if self.side else x, self.main(x)
        total = side[:, : self.added] + main[:, : self.added]
        return torch.cat([total, side[:, self.added :], main[:, self.added :]], 1)


def dpn68(scale: Scale) -> nn.Module:
    """DPN-68 (Chen et al. 2017), with groups of its size and convolutions before batch norm."""
    channels = scale(10)
    layers: list[nn.Module] = [conv(3, channels, 3, 2), nn.MaxPool2d(3, 2, 1)]
    stages = [(64, 128, 16, 3), (128, 256, 32, 4), (256, 512, 32, 12), (512, 1024, 64, 3)]
    for i, (added, hidden, growth, count) in enumerate(stages):
        added, hidden, growth = scale(added), 8 * scale(hidden / 8), scale(growth)
        for j in range(scale.repeats(count)):
            layers.append(DualPath(channels, added, hidden, growth, 2 if i and j == 0 else 1, j == 0))
            channels = added + 3 * growth if j == 0 else channels + growth
    return nn.Sequential(*layers, classifier(channels))


def drn_d22(scale: Scale) -> nn.Module:
    """DRN-D-22 (Yu et al. 2017): dilation in place of strides, and none at the end against a grid of artefacts."""
    channels = scale(16)
    layers: list[nn.Module] = [conv(3, channels, 7), conv(channels, channels, 3), conv(channels, scale(32), 3, 2)]
    channels = scale(32)
    for outputs, count, stride, dilation in ((64, 2, 2, 1), (128, 2, 2, 1), (256, 2, 1, 2), (512, 2, 1, 4)):
        for j in range(scale.repeats(count)):
            layers.append(basic(channels, scale(outputs), stride if j == 0 else 1, dilation))
            channels = scale(outputs)
    layers += [conv(channels, channels, 3, dilation=2), conv(channels, channels, 3)]
    return nn.Sequential(*layers, classifier(channels))


class Tree(nn.Module):
    """DLA's hierarchical aggregation: two trees and a root that all of their nodes feed."""

    def __init__(self, levels: int, inputs: int, outputs: int, stride: int, root_inputs: int = 0) -> None:
        super().__init__()
        self.levels = levels
        root_inputs += 2 * outputs + (inputs if levels > 1 else 0)
        self.down = nn.MaxPool2d(stride) if stride > 1 else nn.Identity()
        if levels == 1:
            self.first, self.second = basic(inputs, outputs, stride), basic(outputs, outputs)
            self.root = conv(root_inputs, outputs, 1)
        else:
            self.first = Tree(levels - 1, inputs, outputs, stride)
            self.second = Tree(levels - 1, outputs, outputs, 1, root_inputs - outputs)

    def forward(self, x: Tensor, given: tuple[Tensor, ...] = ()) -> Tensor:
        if self.levels == 1:
            first = self.first(x)
            return self.root(torch.cat([self.second(first), first, *given], 1))
        first = self.first(x)
        return self.second(first, (*given, self.down(x), first))


def dla34(scale: Scale) -> nn.Module:
    """DLA-34 (Yu et al. 2018)."""
    a, b = scale(16), scale(32)
    layers = [conv(3, a, 7), conv(a, a, 3), conv(a, b, 3, 2)]
    channels = b
    for levels, outputs in ((1, 64), (2, 128), (2, 256), (1, 512)):
        layers.append(Tree(levels, channels, scale(outputs), 2))  # type: ignore[arg-type]
        channels = scale(outputs)
    return nn.Sequential(*layers, classifier(channels))


class Aggregate(nn.Module):
    """VoVNet's block: all intermediate results are concatenated once."""

    def __init__(self, inputs: int, hidden: int, outputs: int, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(conv(inputs if i == 0 else hidden, hidden) for i in range(count))
        self.join = conv(inputs + count * hidden, outputs, 1)
        self.squeeze = Squeeze(outputs, outputs, None, nn.Hardsigmoid)
        self.is_residual = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        made = [x]
        for layer in self.layers:
            made.append(layer(made[-1]))
        y = self.squeeze(self.join(torch.cat(made, 1)))
        return x + y if self.is_residual else y


def vovnet39(scale: Scale) -> nn.Module:
    """VoVNet-V2-39 (Lee and Park 2020)."""
    layers: list[nn.Module] = [conv(3, scale(64), 3, 2), conv(scale(64), scale(64)), conv(scale(64), scale(128), 3, 2)]
    channels = scale(128)
    for i, (hidden, outputs, count) in enumerate(((128, 256, 1), (160, 512, 1), (192, 768, 2), (224, 1024, 2))):
        layers += [nn.MaxPool2d(3, 2, ceil_mode=True)] if i else []
        for _ in range(scale.repeats(count)):
            layers.append(Aggregate(channels, scale(hidden), scale(outputs), 5))
            channels = scale(outputs)
    return nn.Sequential(*layers, classifier(channels))


class Exchange(nn.Module):
    """HRNet's module: branches of several resolutions, each then the sum of all."""

    def __init__(self, widths: list[int], count: int) -> None:
        super().__init__()
        self.branches = Parallel(*(chain(basic(width, width) for _ in range(count)) for width in widths))
        pairs = [[self._path(widths, i, j) for j in range(len(widths))] for i in range(len(widths))]
        self.paths = nn.ModuleList(nn.ModuleList(row) for row in pairs)
        self.act = nn.ReLU()

    @staticmethod
    def _path(widths: list[int], i: int, j: int) -> nn.Module:
        if j > i:
            return nn.Sequential(conv(widths[j], widths[i], 1, 1, None), nn.Upsample(scale_factor=2 ** (j - i)))
        steps: list[nn.Module] = [conv(widths[j], widths[j], 3, 2) for _ in range(i - j - 1)]
        return nn.Sequential(*steps, conv(widths[j], widths[i], 3, 2, None)) if j < i else nn.Identity()

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        made = self.branches(inputs)
        return [self.act(torch.stack([path(y) for path, y in zip(row, made, strict=True)]).sum(0)) if len(row) > 4
                else self.act(sum(path(y) for path, y in zip(row, made, strict=True))) for row in self.paths]  # fmt: skip


class HRNet(nn.Module):
    """HRNet-W18 (Wang et al. 2019): four resolutions side by side; heads of all are concatenated."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        widths = [scale(18 * 2**i) for i in range(4)]
        a, b = scale(64), scale(256)
        self.stem = nn.Sequential(conv(3, a, 3, 2), conv(a, a, 3, 2), bottleneck(a, a, b), bottleneck(b, a, b))
        self.start = nn.ModuleList([conv(b, widths[0]), conv(b, widths[1], 3, 2)])
        count = scale.repeats(4)
        self.stages = nn.ModuleList(Exchange(widths[:n], count) for n in (2, 3, 4))
        self.grow = nn.ModuleList(conv(widths[n - 1], widths[n], 3, 2) for n in (2, 3))
        self.head = nn.Conv2d(sum(widths), 19, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        made = [start(x) for start in self.start]
        for i, stage in enumerate(self.stages):
            made = stage(made if i == 0 else [*made, self.grow[i - 1](made[-1])])
        size = made[0].shape[2:]
        alike = [nn.functional.interpolate(y, size, mode="bilinear", align_corners=False) for y in made]
        return self.head(torch.cat(alike, 1))


def inception_v3(scale: Scale) -> nn.Module:
    """Inception-V3 (Szegedy et al. 2016)."""

    def pooled(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(inputs, outputs, 1))

    def a(i: int, pool: int) -> tuple[nn.Module, int]:
        five = nn.Sequential(conv(i, scale(48), 1), conv(scale(48), scale(64), 5))
        three = nn.Sequential(conv(i, scale(64), 1), conv(scale(64), scale(96)), conv(scale(96), scale(96)))
        block = Concat(conv(i, scale(64), 1), five, three, pooled(i, scale(pool)))
        return block, 2 * scale(64) + scale(96) + scale(pool)

    def b(i: int) -> tuple[nn.Module, int]:
        three = nn.Sequential(
            conv(i, scale(64), 1), conv(scale(64), scale(96)), conv(scale(96), scale(96), 3, 2, pad=0)
        )
        return Concat(conv(i, scale(384), 3, 2, pad=0), three, nn.MaxPool2d(3, 2)), scale(384) + scale(96) + i

    def c(i: int, n: int) -> tuple[nn.Module, int]:
        h, o = scale(n), scale(192)
        one = nn.Sequential(conv(i, h, 1), conv(h, h, (1, 7)), conv(h, o, (7, 1)))
        two = nn.Sequential(
            conv(i, h, 1), conv(h, h, (7, 1)), conv(h, h, (1, 7)), conv(h, h, (7, 1)), conv(h, o, (1, 7))
        )
        return Concat(conv(i, o, 1), one, two, pooled(i, o)), 4 * o

    def d(i: int) -> tuple[nn.Module, int]:
        h = scale(192)
        three = nn.Sequential(conv(i, h, 1), conv(h, scale(320), 3, 2, pad=0))
        seven = nn.Sequential(conv(i, h, 1), conv(h, h, (1, 7)), conv(h, h, (7, 1)), conv(h, h, 3, 2, pad=0))
        return Concat(three, seven, nn.MaxPool2d(3, 2)), scale(320) + h + i

    def e(i: int) -> tuple[nn.Module, int]:
        h = scale(384)
        split = [Concat(conv(h, h, (1, 3)), conv(h, h, (3, 1))) for _ in range(2)]
        one = nn.Sequential(conv(i, h, 1), split[0])
        two = nn.Sequential(conv(i, scale(448), 1), conv(scale(448), h), split[1])
        return Concat(conv(i, scale(320), 1), one, two, pooled(i, scale(192))), scale(320) + 4 * h + scale(192)

    layers: list[nn.Module] = [
        conv(3, scale(32), 3, 2, pad=0), conv(scale(32), scale(32), 3, pad=0), conv(scale(32), scale(64)),
        nn.MaxPool2d(3, 2), conv(scale(64), scale(80), 1), conv(scale(80), scale(192), 3, pad=0), nn.MaxPool2d(3, 2),
    ]  # fmt: skip
    channels = scale(192)
    makers: list[Callable[[int], tuple[nn.Module, int]]] = [
        *((lambda i, n=n: a(i, n)) for n in (32, 64, 64)[: scale.repeats(3)]), b,  # type: ignore[misc]
        *((lambda i, n=n: c(i, n)) for n in (128, 160, 160, 192)[: scale.repeats(4)]), d, *[e] * scale.repeats(2),  # type: ignore[misc]
    ]  # fmt: skip
    for make in makers:
        block, channels = make(channels)
        layers.append(block)
    return nn.Sequential(*layers, classifier(channels))


class Cell(nn.Module):
    """NASNet-A's normal cell (Zoph et al. 2018): five sums of two, of this and of the previous cell's result."""

    def __init__(self, before: int, now: int, channels: int) -> None:
        super().__init__()

        def wide(kernel: int) -> nn.Module:
            half = [separable(channels, channels, kernel, act=None) for _ in range(2)]
            return nn.Sequential(nn.ReLU(), half[0], nn.ReLU(), half[1])

        self.fit_before = nn.Sequential(nn.ReLU(), conv(before, channels, 1, 1, None))
        self.fit = nn.Sequential(nn.ReLU(), conv(now, channels, 1, 1, None))
        self.pairs = nn.ModuleList([wide(5), wide(3), wide(5), wide(3), wide(3)])
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def forward(self, before: Tensor, now: Tensor) -> Tensor:
        before, now = self.fit_before(before), self.fit(now)
        a, b, c, d, e = self.pairs
        mean = self.pool(before)
        sums = [a(now) + b(before), c(before) + d(before), self.pool(now) + before, mean + mean, e(now) + now]
        return torch.cat([before, *sums], 1)


class NASNet(nn.Module):
    """A stem and cells of NASNet-A."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        channels, first = scale(44), scale(32)
        self.stem = conv(3, first, 3, 2, pad=0)
        self.cells = nn.ModuleList()
        before, now = first, first
        for _ in range(scale.repeats(4)):
            self.cells.append(Cell(before, now, channels))
            before, now = now, 6 * channels
        self.head = nn.Sequential(nn.ReLU(), classifier(now))

    def forward(self, x: Tensor) -> Tensor:
        before = now = self.stem(x)
        for cell in self.cells:
            before, now = now, cell(before, now)
        return self.head(now)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm along channels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.main = nn.Sequential(
            nn.LayerNorm(channels, 1e-6),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
        )
        self.weight = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.main(self.spread(x).permute(0, 2, 3, 1)) * self.weight
        return x + y.permute(0, 3, 1, 2)


def convnext_tiny(scale: Scale) -> nn.Module:
    """ConvNeXt-T (Liu et al. 2022)."""
    channels = scale(96)
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, 4), LayerNorm2d(channels, 1e-6)]
    for i, count in enumerate((3, 3, 9, 3)):
        if i:
            layers += [LayerNorm2d(channels, 1e-6), nn.Conv2d(channels, 2 * channels, 2, 2)]
            channels *= 2
        layers += [ConvNeXtBlock(channels) for _ in range(scale.repeats(count))]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(channels, 1e-6), nn.Linear(channels, 1000)]
    return nn.Sequential(*layers, *head)
