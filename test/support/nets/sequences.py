"""Nets on sequences: sound, text in pictures, patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import Scale, Sum, chain, conv


class QuartzNet(nn.Module):
    """The start, blocks and the end of QuartzNet (Kriman et al. 2020): 1-D convolutions, scores for each time."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        channels = scale(256)
        layers: list[nn.Module] = [*self._separable(64, channels, 33, 2), nn.ReLU()]
        for kernel, outputs in ((33, 256), (51, 512), (75, 512)):
            outputs = scale(outputs)
            main: list[nn.Module] = []
            for i in range(scale.repeats(5)):
                main += [nn.ReLU()] if i else []
                main += self._separable(channels if i == 0 else outputs, outputs, kernel)
            side = nn.Sequential(nn.Conv1d(channels, outputs, 1, bias=False), nn.BatchNorm1d(outputs, 1e-3))
            layers.append(Sum(nn.Sequential(*main), side, act=nn.ReLU))
            channels = outputs
        layers += [*self._separable(channels, scale(512), 87, dilation=2), nn.ReLU()]
        layers += [nn.Conv1d(scale(512), scale(1024), 1), nn.ReLU(), nn.Conv1d(scale(1024), 29, 1), nn.LogSoftmax(1)]
        self.layers = nn.Sequential(*layers)

    @staticmethod
    def _separable(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
        pad = dilation * (kernel - 1) // 2
        along = nn.Conv1d(inputs, inputs, kernel, stride, pad, dilation, groups=inputs, bias=False)
        return [along, nn.Conv1d(inputs, outputs, 1, bias=False), nn.BatchNorm1d(outputs, 1e-3)]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class CRNN(nn.Module):
    """CRNN (Shi et al. 2015): convolutions make columns of a line of text a sequence, which two LSTMs read."""

    def __init__(self, scale: Scale, classes: int = 37) -> None:
        super().__init__()
        a, b, c, d = (scale(64 * 2**i) for i in range(4))
        plain = [nn.Conv2d(1, a, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(a, b, 3, padding=1), nn.ReLU(),
                 nn.MaxPool2d(2), conv(b, c), nn.Conv2d(c, c, 3, padding=1), nn.ReLU()]  # fmt: skip
        tall = [nn.MaxPool2d((2, 2), (2, 1), (0, 1)), conv(c, d), nn.Conv2d(d, d, 3, padding=1), nn.ReLU()]
        self.body = nn.Sequential(*plain, *tall, nn.MaxPool2d((2, 2), (2, 1), (0, 1)), conv(d, d, 2, pad=0))
        hidden = scale(256)
        self.first = nn.LSTM(d, hidden, bidirectional=True)
        self.second = nn.LSTM(hidden, hidden, bidirectional=True)
        self.join, self.head = nn.Linear(2 * hidden, hidden), nn.Linear(2 * hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).squeeze(2).permute(2, 0, 1)
        x = self.join(self.first(x)[0])
        return self.head(self.second(x)[0])


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.enter, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        parts = self.enter(x).view(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        return self.leave(mixed.transpose(1, 2).reshape(batch, count, width))


class ViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021): ViT-Tiny on patches of 16."""

    def __init__(self, scale: Scale, size: int = 224, patch: int = 16) -> None:
        super().__init__()
        heads = max(1, round(3 * scale.width))
        width = 64 * heads if scale.width >= 1 else 8 * scale(64 * heads / 8)
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.1)
        self.places = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.1)
        self.blocks = chain(self._block(width, heads) for _ in range(scale.repeats(12)))
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, 1000)

    @staticmethod
    def _block(width: int, heads: int) -> nn.Module:
        attend = nn.Sequential(nn.LayerNorm(width, 1e-6), Attention(width, heads))
        think = nn.Sequential(
            nn.LayerNorm(width, 1e-6), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        return nn.Sequential(Sum(nn.Identity(), attend), Sum(nn.Identity(), think))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])
