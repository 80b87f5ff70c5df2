"""How near a picture is to another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def psnr(found: Tensor, wanted: Tensor) -> float:
    """Return 10 log10(1 / mean square error) of pictures from 0 to 1, in dB."""
    return float(-10 * torch.log10((found.clamp(0, 1) - wanted.clamp(0, 1)).square().mean().clamp_min(1e-12)))


def ssim(found: Tensor, wanted: Tensor) -> float:
    """Return the structural similarity of pictures (1, 3, H, W), by a Gaussian window of 11 with deviation 1.5.

    Source: Z. Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.
    """
    line = torch.exp(-torch.arange(-5.0, 6.0).square() / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2).to(found).expand(3, 1, 11, 11)

    def mean(values: Tensor) -> Tensor:
        return functional.conv2d(values, window, groups=3)

    x, y = found.clamp(0, 1), wanted.clamp(0, 1)
    mx, my = mean(x), mean(y)
    vx, vy, both = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    small, other = 0.01**2, 0.03**2
    return float(((2 * mx * my + small) * (2 * both + other) / ((mx**2 + my**2 + small) * (vx + vy + other))).mean())
