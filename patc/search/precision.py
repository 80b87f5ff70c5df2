"""What the nets of a search are trained in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from patc.targets import host_features

_BFLOAT16 = {"avx512bf16", "amx-bf16"}  # extensions that multiply it


def run_in_training(net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return what a net makes of its input, in float32.

    Convolutions and linear layers are computed in bfloat16 where this CPU multiplies it, of which twice as many numbers
    fit a register; weights and their gradients are float32 everywhere. Pictures get their channels side by side, which
    is how PyTorch's kernels for CPUs want them.
    """
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=not _BFLOAT16.isdisjoint(host_features())):
        found: Tensor = net(x)
    return found.float()
