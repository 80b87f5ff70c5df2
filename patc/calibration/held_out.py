"""Layers to time; to those of `LAYERS` no cost of a CPU is fitted: the model's error is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SCATTERED = "scattered"  # nine of ten weights are zero, wherever they are


@dataclass(frozen=True)
class HeldOut:
    """A convolution, its input a square plane, and its kernels those of its kind.

    Attributes:
        channels, filters, size: of the input and the output, and rows and columns of the input.
        kernel, stride: 1 to 7, and 1 or 2.
        groups: `channels` for a depthwise layer.
        pruned: connectivity of kernels with patterns, as of `PatternSpec`, or `SCATTERED`; None for dense weights.
    """

    channels: int
    filters: int
    size: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    pruned: float | str | None = None

    def __str__(self) -> str:
        """Return as in `96 -> 96 at 40x40, 3x3, 2.5x connectivity`."""
        kind = {1: "", self.channels: ", depthwise"}.get(self.groups, f", {self.groups} groups")
        stride = f"/{self.stride}" if self.stride > 1 else ""
        how = f"patterns, {self.pruned:g}x" if isinstance(self.pruned, float) else self.pruned
        pruned = f", {how}" if how else ""
        words = f"{self.channels} -> {self.filters} at {self.size}x{self.size}"
        return f"{words}, {self.kernel}x{self.kernel}{stride}{kind}{pruned}"


LAYERS = (
    HeldOut(3, 24, 160, 3, 2),
    HeldOut(3, 48, 112, 7, 2),
    HeldOut(32, 32, 80),
    HeldOut(48, 96, 40),
    HeldOut(160, 160, 20),
    HeldOut(320, 320, 10),
    HeldOut(48, 96, 80, 3, 2),
    HeldOut(192, 256, 20, 3, 2),
    HeldOut(40, 40, 30, 5),
    HeldOut(32, 192, 60, 1),
    HeldOut(192, 48, 60, 1),
    HeldOut(480, 112, 30, 1),
    HeldOut(160, 960, 15, 1),
    HeldOut(768, 384, 10, 1),
    HeldOut(128, 256, 40, 1, 2),
    HeldOut(80, 80, 80, 3, 1, 80),
    HeldOut(120, 120, 60, 3, 2, 120),
    HeldOut(240, 240, 30, 5, 1, 240),
    HeldOut(672, 672, 15, 3, 1, 672),
    HeldOut(32, 32, 80, pruned=1.0),
    HeldOut(48, 96, 60, pruned=2.0),
    HeldOut(96, 96, 40, pruned=3.56),
    HeldOut(160, 160, 20, pruned=3.56),
    HeldOut(320, 320, 10, pruned=3.56),
    HeldOut(384, 384, 5, pruned=6.0),
    HeldOut(96, 160, 40, 3, 2, pruned=3.56),
    HeldOut(192, 256, 20, 3, 2, pruned=2.0),
    HeldOut(216, 54, 60, 1, pruned=2.0),
    HeldOut(720, 180, 15, 1, pruned=2.0),
    HeldOut(64, 64, 40, 5, pruned=2.0),
    HeldOut(96, 96, 30, pruned=SCATTERED),
)


def build(layers: Sequence[HeldOut]) -> tuple[Any, tuple[Any, ...]]:
    """Return a torch module that computes each layer from an input of its own, with seeded weights, and the inputs."""
    import torch
    from torch import nn

    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(map(_convolution, layers))

        def forward(self, *inputs: Any) -> Any:
            return tuple(layer(x).relu() for layer, x in zip(self.layers, inputs, strict=True))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Layers().eval()
    return module, tuple(torch.zeros(1, layer.channels, layer.size, layer.size) for layer in layers)


def _convolution(layer: HeldOut) -> Any:
    import torch
    from torch import nn

    from patc.pruning import PatternSpec, prune_

    shape = layer.channels, layer.filters, layer.kernel, layer.stride, layer.kernel // 2
    module = nn.Conv2d(*shape, groups=layer.groups)
    if layer.pruned == SCATTERED:
        with torch.no_grad():
            module.weight[torch.rand(module.weight.shape) < 0.9] = 0
    elif isinstance(layer.pruned, float):
        spec = PatternSpec(connectivity=layer.pruned, pointwise="groups", kernels="all", first_layer="prune")
        prune_(nn.Sequential(module), spec)
    return module
