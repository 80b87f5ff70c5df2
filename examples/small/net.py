"""A net for a first try: 0.1 million weights, seconds an epoch on `digits`.

patc prune examples/small/net.py:build --data digits --dense-epochs 6 --compression 4 -o small.safetensors
patc compile examples/small/net.py:build --weights small.safetensors -o small.patc
"""

from __future__ import annotations

import torch
from torch import nn


def build(classes: int = 10) -> tuple[nn.Module, torch.Tensor]:
    """Return the net, and an input of images of 32x32."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 32, 1), (32, 48, 2), (48, 64, 2), (64, 96, 2)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, classes))
    return net, torch.zeros(1, 3, 32, 32)
