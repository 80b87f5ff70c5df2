"""Small models that files are made of."""

from __future__ import annotations

from typing import Any

import torch
from conv_layers import draw_weight
from torch import Tensor, nn


class Plain(nn.Module):
    """Two convolutions of which one is sparse, batch norm, and a classifier: 1x4x8x9 -> 1x3."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        return self.last((self.second(x) + x).mean((2, 3)))


class Several(nn.Module):
    """Two inputs and three outputs, nested: 1x2x6x6, 1x2x6x6 -> {"a": 1x3x6x6, "b": (1x2x6x6, 1x2x3x3)}."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        total = x + y
        return {"a": self.conv(total), "b": (torch.relu(total), nn.functional.max_pool2d(y, 2))}


def make(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return the model of a name, with seeded weights, and its example inputs."""
    generator = torch.Generator().manual_seed(3)
    model, shapes = {"plain": (Plain, [(1, 4, 8, 9)]), "several": (Several, [(1, 2, 6, 6)] * 2)}[name]
    made = model()
    for tensor in made.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3)
    if isinstance(made, Plain):
        made.norm.running_var.abs_()  # type: ignore[union-attr,operator]
        made.second.weight.data.copy_(draw_weight({"zeros": "patterns", "keep": 0.5}, (8, 8, 3, 3), generator))
    inputs = tuple(torch.randn(shape, generator=generator) for shape in shapes)
    return made.eval().requires_grad_(False), inputs


def leaves(value: Any) -> list[Any]:
    """Return the tensors or arrays of nested outputs, in order."""
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in leaves(part)]
    return [value] if hasattr(value, "shape") else []


NAME = "tiny"


def register() -> None:
    """Make `Plain` one of patc's named models, as `NAME`."""
    from patc import models

    def build(weights: Any = None, *, seed: int = 0, num_classes: int = 3) -> nn.Module:
        return models._finish(Plain, weights, seed)

    models.MODELS[NAME] = models.ModelInfo(build, (1, 4, 8, 9))
