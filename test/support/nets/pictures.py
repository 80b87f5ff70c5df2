"""Nets whose results are pictures: segmentation and super-resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .blocks import Parallel, Scale, Sum, basic, bottleneck, chain, conv


def twice(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(conv(inputs, outputs), conv(outputs, outputs))


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015), padded, with transposed convolutions on the way up."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        widths = [scale(64 * 2**i) for i in range(5)]
        self.down = nn.ModuleList(twice(i, o) for i, o in zip([3, *widths], widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in reversed(widths[:4]))
        self.join = nn.ModuleList(twice(2 * w, w) for w in reversed(widths[:4]))
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for i, down in enumerate(self.down):
            x = down(self.pool(x) if i else x)
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, reversed(kept[:4]), strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


def _dilated_resnet(scale: Scale, counts: tuple[int, ...] = (3, 4, 6, 3)) -> tuple[nn.Module, int]:
    channels = scale(64)
    layers: list[nn.Module] = [conv(3, channels, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for i, (count, stride, dilation) in enumerate(zip(counts, (1, 2, 1, 1), (1, 1, 2, 4), strict=True)):
        hidden, outputs = scale(64 * 2**i), scale(256 * 2**i)
        for j in range(scale.repeats(count)):
            layers.append(bottleneck(channels, hidden, outputs, stride if j == 0 else 1, dilation=dilation))
            channels = outputs
    return nn.Sequential(*layers), channels


class Resized(nn.Module):
    """A net whose result has the size of its input."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(self.layers(x), size=x.shape[2:], mode="bilinear", align_corners=False)


class Pyramid(nn.Module):
    """Branches on an input, and on its means at several sizes, resized and concatenated."""

    def __init__(self, branches: list[nn.Module], means: list[nn.Module]) -> None:
        super().__init__()
        self.branches, self.means = nn.ModuleList(branches), nn.ModuleList(means)

    def forward(self, x: Tensor) -> Tensor:
        resized = [interpolate(mean(x), size=x.shape[2:], mode="bilinear", align_corners=False) for mean in self.means]
        return torch.cat([*(branch(x) for branch in self.branches), *resized], 1)


def deeplab_v3(scale: Scale) -> nn.Module:
    """DeepLab-V3 on ResNet-50 (Chen et al. 2017): convolutions of dilation 12, 24 and 36 side by side."""
    backbone, channels = _dilated_resnet(scale)
    width = scale(256)
    branches = [conv(channels, width, 1), *(conv(channels, width, 3, dilation=d) for d in (12, 24, 36))]
    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(channels, width, 1))
    head = [conv(5 * width, width, 1), nn.Dropout(0.5), conv(width, width), nn.Conv2d(width, 21, 1)]
    return Resized(backbone, Pyramid(branches, [mean]), *head)


def pspnet(scale: Scale) -> nn.Module:
    """PSPNet on ResNet-50 (Zhao et al. 2017): means over 1, 2, 3 and 6 parts of the picture."""
    backbone, channels = _dilated_resnet(scale)
    width = scale(512)
    means: list[nn.Module] = [nn.Sequential(nn.AdaptiveAvgPool2d(n), conv(channels, width, 1)) for n in (1, 2, 3, 6)]
    head = [conv(channels + 4 * width, width), nn.Dropout2d(0.1), nn.Conv2d(width, 19, 1)]
    return Resized(backbone, Pyramid([nn.Identity()], means), *head)


def _up(inputs: int, outputs: int, kernel: int = 3) -> nn.Module:
    """Return a transposed convolution that doubles the size."""
    transposed = nn.ConvTranspose2d(inputs, outputs, kernel, 2, 1, output_padding=1, bias=False)
    return nn.Sequential(transposed, nn.BatchNorm2d(outputs), nn.ReLU())


class LinkNet(nn.Module):
    """LinkNet on ResNet-18 (Chaurasia and Culurciello 2017): decoders add what encoders made."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        widths = [scale(64 * 2**i) for i in range(4)]
        self.stem = nn.Sequential(conv(3, widths[0], 7, 2), nn.MaxPool2d(3, 2, 1))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            self.down.append(nn.Sequential(basic(before, width, 2 if i else 1), basic(width, width)))
            hidden = width // 4
            middle = _up(hidden, hidden) if i else conv(hidden, hidden)
            self.up.append(nn.Sequential(conv(width, hidden, 1), middle, conv(hidden, before, 1)))
        head = scale(32)
        self.head = nn.Sequential(_up(widths[0], head), conv(head, head), nn.ConvTranspose2d(head, 2, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        kept = [self.stem(x)]
        for down in self.down:
            kept.append(down(kept[-1]))
        x = kept.pop()
        for up in reversed(self.up):
            x = up(x) + kept.pop()
        return self.head(x)


class Halve(nn.Module):
    """ERFNet's downsampler: a convolution and a pool, concatenated before batch norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs - inputs, 3, 2, 1)
        self.pool, self.norm, self.act = nn.MaxPool2d(2), nn.BatchNorm2d(outputs, 1e-3), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(torch.cat([self.conv(x), self.pool(x)], 1)))


def factorised(channels: int, dilation: int) -> nn.Module:
    """Return ERFNet's block of 3x1 and 1x3 convolutions."""

    def pair(d: int, last: bool) -> list[nn.Module]:
        tall = nn.Conv2d(channels, channels, (3, 1), 1, (d, 0), (d, 1))
        wide = nn.Conv2d(channels, channels, (1, 3), 1, (0, d), (1, d))
        return [tall, nn.ReLU(), wide, nn.BatchNorm2d(channels, 1e-3), *([] if last else [nn.ReLU()])]

    main = nn.Sequential(*pair(1, False), *pair(dilation, True), nn.Dropout2d(0.3))
    return Sum(main, nn.Identity(), act=nn.ReLU)


def erfnet(scale: Scale) -> nn.Module:
    """ERFNet (Romera et al. 2017)."""
    a = scale(16)
    b, c = 4 * a, 8 * a
    dilated = [factorised(c, d) for d in (2, 4, 8, 16) * scale.repeats(2)]
    encoder = [Halve(3, a), Halve(a, b), *(factorised(b, 1) for _ in range(scale.repeats(5))), Halve(b, c), *dilated]
    decoder = [_up(c, b), factorised(b, 1), factorised(b, 1), _up(b, a), factorised(a, 1), factorised(a, 1)]
    return nn.Sequential(*encoder, *decoder, nn.ConvTranspose2d(a, 20, 2, 2))


class Attend(nn.Module):
    """BiSeNet's attention refinement: channels weighed by a convolution of their means."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs)
        self.weigh = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(outputs, outputs, 1, 1, nn.Sigmoid))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.weigh(x)


class BiSeNet(nn.Module):
    """BiSeNet on ResNet-18 (Yu et al. 2018): a path for detail, and one for context."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        a, b = scale(64), scale(128)
        widths = [scale(64 * 2**i) for i in range(4)]
        self.spatial = nn.Sequential(conv(3, a, 7, 2), conv(a, a, 3, 2), conv(a, a, 3, 2), conv(a, b, 1))
        stages = [
            nn.Sequential(basic(before, width, 2 if i else 1), basic(width, width))
            for i, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False))
        ]
        self.context = nn.Sequential(conv(3, widths[0], 7, 2), nn.MaxPool2d(3, 2, 1), stages[0], stages[1], stages[2])
        self.last = stages[3]
        self.attend = Parallel(Attend(widths[2], b), Attend(widths[3], b))
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(widths[3], b, 1))
        self.refine = nn.ModuleList([conv(b, b), conv(b, b)])
        self.join = conv(2 * b, 2 * b, 1)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(2 * b, b // 2, 1), nn.ReLU(), nn.Conv2d(b // 2, 2 * b, 1), nn.Sigmoid()
        )
        self.head = nn.Sequential(conv(2 * b, a), nn.Conv2d(a, 19, 1))

    def forward(self, x: Tensor) -> Tensor:
        detail, middle = self.spatial(x), self.context(x)
        last = self.last(middle)
        low, high = self.attend([middle, last])
        high = high + self.mean(last)
        high = self.refine[0](interpolate(high, size=low.shape[2:], mode="nearest"))
        low = self.refine[1](interpolate(low + high, size=detail.shape[2:], mode="nearest"))
        joined = self.join(torch.cat([detail, low], 1))
        joined = joined + joined * self.weigh(joined)
        return interpolate(self.head(joined), size=x.shape[2:], mode="bilinear", align_corners=True)


class Scaled(nn.Module):
    """A residual block without batch norm whose result counts a tenth."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * self.main(x)


def edsr(scale: Scale) -> nn.Module:
    """EDSR of 16 blocks (Lim et al. 2017), four times the size."""
    c = scale(64)
    blocks = chain(Scaled(c) for _ in range(scale.repeats(16)))
    body = Sum(nn.Identity(), nn.Sequential(blocks, nn.Conv2d(c, c, 3, padding=1)))
    up = [nn.Conv2d(c, 4 * c, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(c, 4 * c, 3, padding=1), nn.PixelShuffle(2)]
    return nn.Sequential(nn.Conv2d(3, c, 3, padding=1), body, *up, nn.Conv2d(c, 3, 3, padding=1))


def espcn(scale: Scale) -> nn.Module:
    """ESPCN (Shi et al. 2016): one pixel shuffle, three times the size."""
    a, b = scale(64), scale(32)
    return nn.Sequential(
        nn.Conv2d(1, a, 5, padding=2), nn.Tanh(), nn.Conv2d(a, b, 3, padding=1), nn.Tanh(),
        nn.Conv2d(b, 9, 3, padding=1), nn.PixelShuffle(3), nn.Sigmoid(),
    )  # fmt: skip
