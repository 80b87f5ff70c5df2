"""Classifiers for phones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import Activation, Concat, Scale, Squeeze, Sum, classifier, conv, separable


def inverted(
    inputs: int, outputs: int, *, hidden: int, kernel: int, stride: int, act: Activation, squeeze: nn.Module | None
) -> nn.Module:
    """Return an inverted residual block: wider between its ends."""
    parts: list[nn.Module] = [conv(inputs, hidden, 1, 1, act)] if hidden != inputs else []
    parts.append(conv(hidden, hidden, kernel, stride, act, groups=hidden))
    parts += [squeeze] if squeeze else []
    main = nn.Sequential(*parts, conv(hidden, outputs, 1, 1, None))
    return Sum(main, nn.Identity()) if inputs == outputs and stride == 1 else main


def efficientnet_b0(scale: Scale) -> nn.Module:
    """EfficientNet-B0 (Tan and Le 2019)."""
    stages = [(1, 16, 3, 1, 1), (6, 24, 3, 2, 2), (6, 40, 5, 2, 2), (6, 80, 3, 2, 3), (6, 112, 5, 1, 3),
              (6, 192, 5, 2, 4), (6, 320, 3, 1, 1)]  # fmt: skip
    channels = scale(32)
    layers: list[nn.Module] = [conv(3, channels, 3, 2, nn.SiLU)]
    for wider, outputs, kernel, stride, count in scale.some(stages):
        for i in range(scale.repeats(count)):
            hidden = channels * wider
            squeeze = Squeeze(hidden, max(1, channels // 4), nn.SiLU)
            step = stride if i == 0 else 1
            layers.append(
                inverted(
                    channels, scale(outputs), hidden=hidden, kernel=kernel, stride=step, act=nn.SiLU, squeeze=squeeze
                )
            )
            channels = scale(outputs)
    return nn.Sequential(*layers, conv(channels, scale(1280), 1, 1, nn.SiLU), classifier(scale(1280)))


def mobilenet_v3(scale: Scale) -> nn.Module:
    """MobileNet-V3 large (Howard et al. 2019)."""
    relu, swish = nn.ReLU, nn.Hardswish
    stages = [(3, 16, 16, False, relu, 1), (3, 64, 24, False, relu, 2), (3, 72, 24, False, relu, 1),
              (5, 72, 40, True, relu, 2), (5, 120, 40, True, relu, 1), (5, 120, 40, True, relu, 1),
              (3, 240, 80, False, swish, 2), (3, 200, 80, False, swish, 1), (3, 184, 80, False, swish, 1),
              (3, 184, 80, False, swish, 1), (3, 480, 112, True, swish, 1), (3, 672, 112, True, swish, 1),
              (5, 672, 160, True, swish, 2), (5, 960, 160, True, swish, 1), (5, 960, 160, True, swish, 1)]  # fmt: skip
    channels = scale(16)
    layers: list[nn.Module] = [conv(3, channels, 3, 2, swish)]
    for kernel, hidden, outputs, has_squeeze, act, stride in scale.some(stages):
        squeeze = Squeeze(scale(hidden), scale(hidden / 4), relu, nn.Hardsigmoid) if has_squeeze else None
        layers.append(
            inverted(
                channels, scale(outputs), hidden=scale(hidden), kernel=kernel, stride=stride, act=act, squeeze=squeeze
            )
        )
        channels = scale(outputs)
    last = scale(1280)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(scale(960), last), swish(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, conv(channels, scale(960), 1, 1, swish), *head, nn.Linear(last, 1000))


def squeezenet(scale: Scale) -> nn.Module:
    """SqueezeNet 1.1 (Iandola et al. 2016)."""

    def plain(inputs: int, outputs: int, kernel: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU(inplace=True))

    def fire(inputs: int, squeezed: int, outputs: int) -> nn.Module:
        wide = Concat(plain(squeezed, outputs // 2, 1), plain(squeezed, outputs // 2, 3))
        return nn.Sequential(plain(inputs, squeezed, 1), wide)

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    channels = scale(64)
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, 2), nn.ReLU(inplace=True), pool()]
    for squeezed, outputs, pooled in [(16, 128, False), (16, 128, True), (32, 256, False), (32, 256, True),
                                      (48, 384, False), (48, 384, False), (64, 512, False), (64, 512, False)]:  # fmt: skip
        layers.append(fire(channels, scale(squeezed), 2 * scale(outputs / 2)))
        channels = 2 * scale(outputs / 2)
        layers += [pool()] if pooled else []
    head = [nn.Dropout(0.5), nn.Conv2d(channels, 1000, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *head)


class Shuffle(nn.Module):
    """Channels of groups, dealt out."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.view(batch, self.groups, channels // self.groups, height, width)
        return x.transpose(1, 2).reshape(batch, channels, height, width)


def shufflenet_v1(scale: Scale, groups: int = 3) -> nn.Module:
    """ShuffleNet of three groups (Zhang et al. 2017)."""

    def unit(inputs: int, outputs: int, stride: int) -> nn.Module:
        added = outputs - inputs if stride == 2 else outputs  # stride 2 appends
        hidden = groups * max(1, outputs // (4 * groups))
        main = nn.Sequential(
            conv(inputs, hidden, 1, groups=groups if inputs % groups == 0 else 1), Shuffle(groups),
            conv(hidden, hidden, 3, stride, None, groups=hidden), conv(hidden, added, 1, 1, None, groups=groups),
        )  # fmt: skip
        if stride == 1:
            return Sum(main, nn.Identity(), act=nn.ReLU)
        return nn.Sequential(Concat(nn.AvgPool2d(3, 2, 1), main), nn.ReLU())

    first = channels = groups * scale(24 / groups)
    layers: list[nn.Module] = [conv(3, first, 3, 2), nn.MaxPool2d(3, 2, 1)]
    for wider, count in ((10, 3), (20, 7), (40, 3)):
        outputs = first * wider
        layers += [unit(channels, outputs, 2), *(unit(outputs, outputs, 1) for _ in range(scale.repeats(count)))]
        channels = outputs
    return nn.Sequential(*layers, classifier(channels))


class SplitUnit(nn.Module):
    """ShuffleNet-V2's unit: one half of the channels passes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.main = nn.Sequential(conv(half, half, 1), conv(half, half, 3, 1, None, groups=half), conv(half, half, 1))
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        return self.shuffle(torch.cat([kept, self.main(changed)], 1))


def shufflenet_v2(scale: Scale) -> nn.Module:
    """ShuffleNet-V2 (Ma et al. 2018)."""

    def halve(inputs: int, outputs: int) -> nn.Module:
        half = outputs // 2
        left = nn.Sequential(conv(inputs, inputs, 3, 2, None, groups=inputs), conv(inputs, half, 1))
        right = nn.Sequential(
            conv(inputs, half, 1), conv(half, half, 3, 2, None, groups=half), conv(half, half, 1)
        )  # fmt: skip
        return nn.Sequential(Concat(left, right), Shuffle(2))

    channels = scale(24)
    layers: list[nn.Module] = [conv(3, channels, 3, 2), nn.MaxPool2d(3, 2, 1)]
    for outputs, count in ((116, 3), (232, 7), (464, 3)):
        outputs = 2 * scale(outputs / 2)
        layers += [halve(channels, outputs), *(SplitUnit(outputs) for _ in range(scale.repeats(count)))]
        channels = outputs
    return nn.Sequential(*layers, conv(channels, scale(1024), 1), classifier(scale(1024)))


class Ghost(nn.Module):
    """Half of the channels by a convolution, the others by cheap depthwise ones of these."""

    def __init__(self, inputs: int, outputs: int, act: Activation = nn.ReLU) -> None:
        super().__init__()
        half = -(-outputs // 2)
        self.outputs = outputs
        self.primary, self.cheap = conv(inputs, half, 1, 1, act), conv(half, half, 3, 1, act, groups=half)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], 1)[:, : self.outputs]


def ghostnet(scale: Scale) -> nn.Module:
    """GhostNet (Han et al. 2020)."""
    stages = [(3, 16, 16, 0, 1), (3, 48, 24, 0, 2), (3, 72, 24, 0, 1), (5, 72, 40, 1, 2), (5, 120, 40, 1, 1),
              (3, 240, 80, 0, 2), (3, 200, 80, 0, 1), (3, 184, 80, 0, 1), (3, 184, 80, 0, 1), (3, 480, 112, 1, 1),
              (3, 672, 112, 1, 1), (5, 672, 160, 1, 2), (5, 960, 160, 0, 1), (5, 960, 160, 1, 1), (5, 960, 160, 0, 1),
              (5, 960, 160, 1, 1)]  # fmt: skip
    channels = scale(16)
    layers: list[nn.Module] = [conv(3, channels, 3, 2)]
    for kernel, hidden, outputs, has_squeeze, stride in scale.some(stages):
        hidden, outputs = scale(hidden), scale(outputs)
        parts: list[nn.Module] = [Ghost(channels, hidden)]
        parts += [conv(hidden, hidden, kernel, 2, None, groups=hidden)] if stride == 2 else []
        parts += [Squeeze(hidden, max(4, hidden // 4), nn.ReLU, nn.Hardsigmoid)] if has_squeeze else []
        main = nn.Sequential(*parts, Ghost(hidden, outputs, None))
        if channels == outputs and stride == 1:
            layers.append(Sum(main, nn.Identity()))
        else:
            depthwise = conv(channels, channels, kernel, stride, None, groups=channels)
            layers.append(Sum(main, nn.Sequential(depthwise, conv(channels, outputs, 1, 1, None))))
        channels = outputs
    last = scale(1280)
    head = [conv(channels, scale(960), 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(scale(960), last, 1), nn.ReLU()]
    return nn.Sequential(*layers, *head, nn.Flatten(), nn.Linear(last, 1000))


def xception(scale: Scale) -> nn.Module:
    """Xception (Chollet 2017)."""

    def block(inputs: int, outputs: int, count: int, stride: int, first: bool = True) -> nn.Module:
        parts: list[nn.Module] = []
        for i in range(count):
            parts += [nn.ReLU()] if first or i else []
            parts.append(separable(inputs if i == 0 else outputs, outputs, act=None))
        parts += [nn.MaxPool2d(3, 2, 1)] if stride == 2 else []
        side = conv(inputs, outputs, 1, 2, None) if stride == 2 else nn.Identity()
        return Sum(nn.Sequential(*parts), side)

    a, b, c, d = (scale(channels) for channels in (64, 128, 256, 728))
    entry = [conv(3, scale(32), 3, 2, pad=0), conv(scale(32), a, 3, pad=0), block(a, b, 2, 2, first=False)]
    middle = [block(d, d, 3, 1) for _ in range(scale.repeats(8))]
    e, f, g = scale(1024), scale(1536), scale(2048)
    tail = [block(d, e, 2, 2), separable(e, f), separable(f, g), classifier(g)]
    return nn.Sequential(*entry, block(b, c, 2, 2), block(c, d, 2, 2), *middle, *tail)
