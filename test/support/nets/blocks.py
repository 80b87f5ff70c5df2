"""What the nets are built of. Sizes are those of the papers times a `Scale`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module] | None
Row = TypeVar("Row")


@dataclass(frozen=True)
class Scale:
    """How wide and how deep a net is, of its published size."""

    width: float = 1.0
    depth: float = 1.0

    def __call__(self, channels: float) -> int:
        """Return how many channels stand for some of the published net: a multiple of 8."""
        return max(8, round(channels * self.width / 8) * 8)

    def repeats(self, count: int) -> int:
        return max(1, math.ceil(count * self.depth))

    def some(self, rows: list[Row]) -> list[Row]:
        """Return the rows of a table of blocks; every third, from the second, of a net that is shallower."""
        return rows if self.depth == 1 else rows[1::3]


class Sum(nn.Module):
    """The sum of what modules make of one input, activated."""

    def __init__(self, *branches: nn.Module, act: Activation = None) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.act = act() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = (branch(x) for branch in self.branches)
        for y in rest:
            first = first + y
        return self.act(first)


class Concat(nn.Module):
    """What modules make of one input, one after the other along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Parallel(nn.Module):
    """One module for each of several inputs."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [branch(x) for branch, x in zip(self.branches, inputs, strict=True)]


class Squeeze(nn.Module):
    """Squeeze-excite: channels are weighed by what their means say."""

    def __init__(
        self, channels: int, hidden: int, act: Activation = nn.ReLU, gate: Callable[[], nn.Module] = nn.Sigmoid
    ) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1), *activations(act), nn.Conv2d(hidden, channels, 1),
            gate(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weigh(x)


def activations(act: Activation) -> list[nn.Module]:
    return [act()] if act else []


def conv(
    inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, stride: int = 1, act: Activation = nn.ReLU,
    *, groups: int = 1, dilation: int = 1, pad: int | None = None,
) -> nn.Sequential:  # fmt: skip
    """Return a convolution that keeps the size where its stride is 1, with batch norm and an activation."""
    sizes = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = tuple(dilation * (size - 1) // 2 for size in sizes) if pad is None else (pad, pad)
    weights = nn.Conv2d(inputs, outputs, sizes, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(weights, nn.BatchNorm2d(outputs), *activations(act))


def separable(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, act: Activation = nn.ReLU, dilation: int = 1
) -> nn.Sequential:
    """Return a depthwise convolution and a pointwise one."""
    first = conv(inputs, inputs, kernel, stride, act, groups=inputs, dilation=dilation)
    return nn.Sequential(first, conv(inputs, outputs, 1, 1, act))


def shortcut(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Identity() if inputs == outputs and stride == 1 else conv(inputs, outputs, 1, stride, None)


def basic(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Module:
    """Return a residual block of two 3x3 convolutions."""
    first = conv(inputs, outputs, 3, stride, dilation=dilation)
    main = nn.Sequential(first, conv(outputs, outputs, 3, 1, None, dilation=dilation))
    return Sum(main, shortcut(inputs, outputs, stride), act=nn.ReLU)


def bottleneck(
    inputs: int, hidden: int, outputs: int, stride: int = 1, *, groups: int = 1, dilation: int = 1, squeeze: int = 0
) -> nn.Module:
    """Return a residual block of a 1x1, a 3x3 and a 1x1 convolution."""
    parts = [
        conv(inputs, hidden, 1),
        conv(hidden, hidden, 3, stride, groups=groups, dilation=dilation),
        conv(hidden, outputs, 1, 1, None),
    ]
    if squeeze:
        parts.append(Squeeze(outputs, squeeze))  # type: ignore[arg-type]
    return Sum(nn.Sequential(*parts), shortcut(inputs, outputs, stride), act=nn.ReLU)


def classifier(channels: int, classes: int = 1000) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def chain(modules: Iterable[nn.Module]) -> nn.Sequential:
    return nn.Sequential(*modules)
