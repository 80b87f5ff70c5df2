"""Nets of numbers from 0 to 1 as nets of pictures in bytes, so that conversions are part of what is compiled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError, first_line
from patc.integers import ceil_div


class PictureNet(nn.Module):
    """Takes and returns pictures, N x 3 x H x W of uint8, around a net of float32 from 0 to 1."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        y = self.net(x.to(torch.float32) * (1 / 255))
        return (y * 255).round().clamp(0, 255).to(torch.uint8)


def border_of(net: nn.Module, example: Sequence[int]) -> int:
    """Return the pixels of the input on each side that the output of a net lacks, without computing it.

    Args:
        example: a shape that the net takes.

    Raises:
        PatcError: the net takes no colour pictures.
    """
    from torch._subclasses import FakeTensorMode

    height = example[2]
    device = next((parameter.device for parameter in net.parameters()), None)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        try:
            output = net(mode.from_tensor(torch.zeros(example, device=device)))
            scale = ceil_div(output.shape[2], height)
            return int(scale * height - output.shape[2]) // (2 * scale)
        except Exception as error:  # of the net's own code
            raise PatcError(f"expected a net of one colour picture, found another: {first_line(error)}") from None
