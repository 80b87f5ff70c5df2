"""Blocks of a net that keep channels and size, by their names."""

from __future__ import annotations

from torch import Tensor, nn

_EXPANSION = 2


class Plain(nn.Module):
    """A 3x3 convolution with its input added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.activation = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.conv(x) + x)
        return y


class Residual(nn.Module):
    """Two 3x3 convolutions, an activation between them, with their input added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.activation = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.activation(self.conv1(x))) + x
        return y


class Wide(nn.Module):
    """More channels by 1x1, an activation, as many as before by 1x1, a 3x3 convolution, with their input added.

    Source: J. Yu et al., Wide activation for efficient and accurate image super-resolution, 2018.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, _EXPANSION * width, 1)
        self.activation = nn.PReLU(_EXPANSION * width)
        self.conv2 = nn.Conv2d(_EXPANSION * width, width, 1)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv3(self.conv2(self.activation(self.conv1(x)))) + x
        return y


class Separable(nn.Module):
    """A depthwise 3x3 convolution and a 1x1 convolution, with their input added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.conv = nn.Conv2d(width, width, 1)
        self.activation = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.conv(self.depthwise(x)) + x)
        return y


BLOCKS: dict[str, type[nn.Module]] = {"plain": Plain, "residual": Residual, "wide": Wide, "separable": Separable}
