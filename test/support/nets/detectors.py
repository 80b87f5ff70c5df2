"""Nets that find things: boxes, centres, joints."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import Scale, Sum, activations, basic, chain, conv


def leaky() -> nn.Module:
    return nn.LeakyReLU(0.1)


class YoloV3Tiny(nn.Module):
    """YOLO-V3-tiny (Redmon and Farhadi 2018): two scales; the boxes of both are decoded to pixels."""

    anchors = (((81, 82), (135, 169), (344, 319)), ((10, 14), (23, 27), (37, 58)))

    def __init__(self, scale: Scale, classes: int = 80) -> None:
        super().__init__()
        self.outputs = 5 + classes
        widths = [scale(16 * 2**i) for i in range(7)]
        first: list[nn.Module] = []
        for before, width in zip([3, *widths[:3]], widths[:4], strict=True):
            first += [conv(before, width, act=leaky), nn.MaxPool2d(2)]
        self.first = nn.Sequential(*first, conv(widths[3], widths[4], act=leaky))
        grown = [nn.MaxPool2d(2), conv(widths[4], widths[5], act=leaky), nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1)]
        last = [conv(widths[5], widths[6], act=leaky), conv(widths[6], widths[4], 1, act=leaky)]
        self.second = nn.Sequential(*grown, *last)
        self.coarse = nn.Sequential(conv(widths[4], widths[5], act=leaky), nn.Conv2d(widths[5], 3 * self.outputs, 1))
        self.up = nn.Sequential(conv(widths[4], widths[3], 1, act=leaky), nn.Upsample(scale_factor=2))
        fine = conv(widths[3] + widths[4], widths[4], act=leaky)
        self.fine = nn.Sequential(fine, nn.Conv2d(widths[4], 3 * self.outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(first)
        fine = self.fine(torch.cat([self.up(second), first], 1))
        made = [self._decode(y, i, x.shape[2] / y.shape[2]) for i, y in enumerate((self.coarse(second), fine))]
        return torch.cat(made, 1)

    def _decode(self, y: Tensor, number: int, stride: float) -> Tensor:
        batch, _, height, width = y.shape
        y = y.view(batch, 3, self.outputs, height, width).permute(0, 1, 3, 4, 2)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        grid = torch.stack([columns, rows], -1).to(y.dtype)
        anchors = torch.tensor(self.anchors[number], dtype=y.dtype).view(1, 3, 1, 1, 2)
        centre = (y[..., :2].sigmoid() + grid) * stride
        size = y[..., 2:4].exp() * anchors
        return torch.cat([centre, size, y[..., 4:].sigmoid()], -1).reshape(batch, -1, self.outputs)


class Split(nn.Module):
    """YOLO-V8's block: half of the channels goes through a chain, all of whose results are concatenated."""

    def __init__(self, inputs: int, outputs: int, count: int, added: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.enter = conv(inputs, outputs, 1, act=nn.SiLU)
        pairs = [nn.Sequential(conv(half, half, act=nn.SiLU), conv(half, half, act=nn.SiLU)) for _ in range(count)]
        self.layers = nn.ModuleList(Sum(pair, nn.Identity()) if added else pair for pair in pairs)
        self.leave = conv((2 + count) * half, outputs, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        made = list(self.enter(x).chunk(2, 1))
        for layer in self.layers:
            made.append(layer(made[-1]))
        return self.leave(torch.cat(made, 1))


class PoolPyramid(nn.Module):
    """Three max pools in a row, concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = conv(channels, channels // 2, 1, act=nn.SiLU)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = conv(2 * channels, channels, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        made = [self.enter(x)]
        for _ in range(3):
            made.append(self.pool(made[-1]))
        return self.leave(torch.cat(made, 1))


class YoloV8(nn.Module):
    """A net like YOLO-V8-n (Jocher et al. 2023): no anchors; box sides are means over 16 bins."""

    bins = 16

    def __init__(self, scale: Scale, classes: int = 80) -> None:
        super().__init__()
        a, b, c, d, e = (2 * scale(n / 2) for n in (16, 32, 64, 128, 256))
        two = scale.repeats(2)
        self.small = nn.Sequential(
            conv(3, a, 3, 2, nn.SiLU), conv(a, b, 3, 2, nn.SiLU), Split(b, b, 1), conv(b, c, 3, 2, nn.SiLU),
            Split(c, c, two),
        )  # fmt: skip
        self.middle = nn.Sequential(conv(c, d, 3, 2, nn.SiLU), Split(d, d, two))
        self.large = nn.Sequential(conv(d, e, 3, 2, nn.SiLU), Split(e, e, 1), PoolPyramid(e))
        self.up = nn.Upsample(scale_factor=2)
        self.joins = nn.ModuleList(Split(i, o, 1, False) for i, o in ((d + e, d), (c + d, c), (c + d, d), (d + e, e)))
        self.downs = nn.ModuleList([conv(c, c, 3, 2, nn.SiLU), conv(d, d, 3, 2, nn.SiLU)])
        hidden, wide = max(16, c), max(c, 24)
        self.boxes, self.classes = (
            nn.ModuleList(
                nn.Sequential(conv(i, h, act=nn.SiLU), conv(h, h, act=nn.SiLU), nn.Conv2d(h, n, 1)) for i in (c, d, e)
            )
            for h, n in ((hidden, 4 * self.bins), (wide, classes))
        )

    def forward(self, x: Tensor) -> Tensor:
        small = self.small(x)
        middle = self.middle(small)
        large = self.large(middle)
        first = self.joins[0](torch.cat([self.up(large), middle], 1))
        fine = self.joins[1](torch.cat([self.up(first), small], 1))
        mid = self.joins[2](torch.cat([self.downs[0](fine), first], 1))
        coarse = self.joins[3](torch.cat([self.downs[1](mid), large], 1))
        maps = (fine, mid, coarse)
        boxes = torch.cat([head(y).flatten(2) for head, y in zip(self.boxes, maps, strict=True)], 2)
        scores = torch.cat([head(y).flatten(2) for head, y in zip(self.classes, maps, strict=True)], 2)
        return torch.cat([self._decode(boxes, maps, x.shape[2]), scores.sigmoid()], 1)

    def _decode(self, boxes: Tensor, maps: tuple[Tensor, ...], size: int) -> Tensor:
        """Return centres and sizes in pixels: (batch, 4, places)."""
        batch, _, places = boxes.shape
        chances = boxes.view(batch, 4, self.bins, places).softmax(2)
        sides = (chances * torch.arange(self.bins, dtype=boxes.dtype).view(1, 1, -1, 1)).sum(2)
        centres, strides = [], []
        for y in maps:
            height, width = y.shape[2:]
            rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            centres.append(torch.stack([columns, rows]).flatten(1).to(boxes.dtype) + 0.5)
            strides.append(torch.full((1, height * width), size / height, dtype=boxes.dtype))
        centre, stride = torch.cat(centres, 1), torch.cat(strides, 1)
        low, high = centre - sides[:, :2], centre + sides[:, 2:]
        return torch.cat([(low + high) / 2, high - low], 1) * stride


class CenterNet(nn.Module):
    """CenterNet on ResNet-18 (Zhou et al. 2019): peaks of a heat map, offsets and sizes."""

    def __init__(self, scale: Scale, classes: int = 80) -> None:
        super().__init__()
        widths = [scale(64 * 2**i) for i in range(4)]
        layers: list[nn.Module] = [conv(3, widths[0], 7, 2), nn.MaxPool2d(3, 2, 1)]
        for i, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            layers += [basic(before, width, 2 if i else 1), basic(width, width)]
        before = widths[3]
        for width in (256, 128, 64):
            up = nn.ConvTranspose2d(before, scale(width), 4, 2, 1, bias=False)
            layers += [up, nn.BatchNorm2d(scale(width)), nn.ReLU()]
            before = scale(width)
        self.body = nn.Sequential(*layers)
        hidden = scale(64)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, n, 1))
            for n in (classes, 2, 2)
        )
        self.peak = nn.MaxPool2d(3, 1, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        heat, size, offset = (head(y) for y in [self.body(x)] for head in self.heads)
        heat = heat.sigmoid()
        return {"peaks": heat * (self.peak(heat) == heat).to(heat.dtype), "size": size, "offset": offset}


class OpenPose(nn.Module):
    """A net like OpenPose (Cao et al. 2017): stages that refine maps of limbs and joints."""

    def __init__(self, scale: Scale, limbs: int = 38, joints: int = 19) -> None:
        super().__init__()
        widths = [scale(64 * 2**i) for i in range(4)]
        layers: list[nn.Module] = []
        before = 3
        for width, count in zip(widths, (2, 2, 4, 2), strict=True):
            layers += [nn.MaxPool2d(2)] if before > 3 else []
            for _ in range(count):
                layers.append(self._conv(before, width, 3, nn.ReLU))
                before = width
        features = scale(128)
        layers += [self._conv(before, scale(256), 3, nn.ReLU), self._conv(scale(256), features, 3, nn.ReLU)]
        self.body = nn.Sequential(*layers)
        given = features + limbs + joints
        later = scale.repeats(2)
        self.limbs = nn.ModuleList([self._stage(features, limbs, 3, scale)])
        self.limbs += [self._stage(given, limbs, 7, scale) for _ in range(later)]
        self.joints = nn.ModuleList([self._stage(features, joints, 3, scale)])
        self.joints += [self._stage(given, joints, 7, scale) for _ in range(later)]

    @staticmethod
    def _conv(inputs: int, outputs: int, kernel: int, act: type[nn.Module] | None) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), *activations(act))

    def _stage(self, inputs: int, outputs: int, kernel: int, scale: Scale) -> nn.Module:
        hidden = scale(128)
        many = chain(self._conv(inputs if i == 0 else hidden, hidden, kernel, nn.PReLU) for i in range(3))
        return nn.Sequential(many, self._conv(hidden, hidden, 1, nn.PReLU), self._conv(hidden, outputs, 1, None))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        limbs, joints = self.limbs[0](features), self.joints[0](features)
        for find_limbs, find_joints in zip(self.limbs[1:], self.joints[1:], strict=True):
            given = torch.cat([limbs, joints, features], 1)
            limbs, joints = find_limbs(given), find_joints(given)
        return limbs, joints
