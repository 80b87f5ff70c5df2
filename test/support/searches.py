"""A small task to search for, and how searches of it are made short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from patc.search import Choice, Cost, Effort, Point, Rung, Space, Task, halving
from patc.search import run as running

COST = Cost("host", 1, 3e9)
EFFORT = Effort(8, (Rung(4), Rung(6, 0.5), Rung(8, 0.5)), trials=4, batch_size=4, learning_rate=1e-2)
SECONDS = 0.01


def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at few candidates for what the cost model is off by: each one is compiled."""
    monkeypatch.setattr(running, "_DRAWN", 2)


def no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say of all candidates that they were measured at a hundredth of a second."""

    def measure(task: Task, cost: Cost, points: Sequence[Point], folder: Path, tell: Any) -> list[float]:
        return [SECONDS] * len(points)

    few_draws(monkeypatch)
    monkeypatch.setattr(running, "time_points", measure)
    monkeypatch.setattr(halving, "time_points", measure)


class Smooth(Task):
    """Nets that learn to blur."""

    name = "smooth"
    figure = "error"
    pruned = ("blocks.*",)

    def __init__(self) -> None:
        kinds = [
            Choice(f"kind{number}", ("conv", "pair"), ordered=False, when=lambda point, n=number: n < point["depth"])
            for number in range(2)
        ]
        self.space = Space((Choice("depth", (1, 2)), Choice("width", (8, 16)), *kinds))
        self.inputs = (torch.zeros(1, 3, 8, 16),)

    def build(self, point: Point) -> nn.Module:
        width = int(point["width"])
        net = nn.Sequential()
        net.add_module("head", nn.Conv2d(3, width, 3, padding=1))
        blocks = nn.Sequential()
        for number in range(int(point["depth"])):
            kind = point[f"kind{number}"]
            layers = [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            blocks.add_module(f"{kind}{number}", nn.Sequential(*layers * (2 if kind == "pair" else 1)))
        net.add_module("blocks", blocks)
        net.add_module("tail", nn.Conv2d(width, 3, 1))
        return net

    def batch(self, seed: int, number: int, size: int) -> tuple[Tensor, Tensor]:
        x = torch.rand(size, 3, 8, 16, generator=torch.Generator().manual_seed(1000 * seed + number))
        return x, functional.avg_pool2d(x, 3, 1, 1)

    def loss(self, found: Tensor, wanted: Tensor) -> Tensor:
        return functional.l1_loss(found, wanted)

    @torch.no_grad()
    def score(self, net: nn.Module, part: str) -> float:
        x, wanted = self.batch(10**6, part == "judge", 8)
        return -float(self.loss(net(x), wanted))

    def identity(self) -> Mapping[str, object]:
        return {"data": "random"}
