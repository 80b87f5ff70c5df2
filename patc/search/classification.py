"""`patc search classify`: nets that tell small pictures apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from patc.pruning.data import open_data
from patc.search.blocks import BLOCKS
from patc.search.space import Choice, Point, Space
from patc.search.task import RUNGS, Effort, Part, Task

STAGES, MOST_BLOCKS = 3, 3
TESTED = 32  # pictures of a batch of those to score by; every second batch is there to judge by
EFFORTS = {
    "tiny": Effort(6, RUNGS["tiny"], trials=3, batch_size=16, learning_rate=2e-3),
    "small": Effort(1000, RUNGS["small"], trials=30, batch_size=64, learning_rate=2e-3),
    "large": Effort(10_000, RUNGS["large"], trials=100, batch_size=128, learning_rate=2e-3),
}


class Classifier(nn.Module):
    """A convolution, then stages of blocks, each of half the size and twice the channels of the one before."""

    def __init__(self, width: int, stages: list[tuple[str, int]], classes: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.activation = nn.PReLU(width)
        self.blocks = nn.Sequential()
        for number, (kind, depth) in enumerate(stages):
            if number:
                self.blocks.append(_Halve(width))
                width *= 2
            stage = nn.Sequential()
            for place in range(depth):
                stage.add_module(f"{kind}{place}", BLOCKS[kind](width))
            self.blocks.append(stage)
        self.scores = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.scores(self.blocks(self.activation(self.head(x))).mean((2, 3)))
        return y


class _Halve(nn.Module):
    """A 3x3 convolution with stride 2 to twice the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.activation = nn.PReLU(2 * width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.conv(x))
        return y


class Classification(Task):
    """Nets that tell pictures of 32x32 apart.

    Args:
        data: as `patc prune --data` takes it.
        seed: of data that are generated.

    Raises:
        PatcError: there are no such data.
    """

    name = "classify"
    figure = "accuracy, %"
    pruned = ("blocks.*conv*",)

    def __init__(self, data: str = "glyphs", seed: int = 0) -> None:
        self._data = open_data(data, 32, seed)
        kinds = tuple(BLOCKS)
        stages = range(STAGES)
        self.space = Space(
            (
                Choice("width", (8, 16, 24, 32)),
                *(Choice(f"depth{number}", tuple(range(1, MOST_BLOCKS + 1))) for number in stages),
                *(Choice(f"block{number}", kinds, ordered=False) for number in stages),
            )
        )
        self.inputs = (torch.zeros(1, 3, 32, 32),)
        self._batches: dict[tuple[int, int], tuple[int, Iterator[tuple[Tensor, Tensor]]]] = {}

    def build(self, point: Point) -> nn.Module:
        stages = [(str(point[f"block{number}"]), int(point[f"depth{number}"])) for number in range(STAGES)]
        return Classifier(int(point["width"]), stages, self._data.classes or 0)

    def batch(self, seed: int, number: int, size: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(number, max(1, len(self._data.train) // size))
        following, batches = self._batches.get((seed, epoch), (0, iter(())))
        if following != place or place == 0:
            following, batches = 0, self._data.train.batches(size, seed, epoch)
        for _ in range(place - following):
            next(batches)
        images, labels = next(batches)
        self._batches = {(seed, epoch): (place + 1, batches)}
        return self._data.prepare(images), labels

    def loss(self, found: Tensor, wanted: Tensor) -> Tensor:
        return functional.cross_entropy(found, wanted)

    @torch.no_grad()
    def score(self, net: nn.Module, part: Part) -> float:
        right, count = 0, 0
        for number, (images, labels) in enumerate(self._data.test.batches(TESTED)):
            if number % 2 == (part == "judge"):
                right += int((net(self._data.prepare(images)).argmax(1) == labels).sum())
                count += len(labels)
        return 100 * right / max(count, 1)

    def identity(self) -> Mapping[str, object]:
        return {"data": f"{self._data.name} ({len(self._data.train)} to learn from)"}
