"""Domains of pictures: blurred, noisy and compressed ones, and the worst that small perturbations make of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from patc.diagnostics import PatcError, nearest
from patc.pruning.data import Data
from patc.pruning.evaluation import call, move
from patc.robust.attacks import Budget, Scores, attack_ensemble

# Changes pixels from 0 to 1, (N, C, H, W), of these classes; the scores are what a net makes of such pixels.
Change = Callable[[Tensor, Tensor, Scores], Tensor]

CLEAN = "clean"  # pictures as they are, which are a domain of every training
_DEVIATION = 1.0  # of the blur, in pixels
_NOISE = 0.1  # standard deviation
_QUALITY = 20  # of JPEG
_STEPS = 3


def _blur(pixels: Tensor, labels: Tensor, scores: Scores) -> Tensor:
    """Weigh neighbours up to two pixels away by a Gaussian."""
    places = torch.arange(-2.0, 3.0, device=pixels.device)
    line = torch.exp(-(places**2) / (2 * _DEVIATION**2))
    kernel = (line[:, None] * line / line.sum() ** 2).expand(pixels.shape[1], 1, 5, 5)
    return functional.conv2d(functional.pad(pixels, (2, 2, 2, 2), "replicate"), kernel, groups=pixels.shape[1])


def _noise(pixels: Tensor, labels: Tensor, scores: Scores) -> Tensor:
    return (pixels + _NOISE * torch.randn_like(pixels)).clamp(0, 1)


def _jpeg(pixels: Tensor, labels: Tensor, scores: Scores) -> Tensor:
    from PIL import Image

    images = (255 * pixels).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    found = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=_QUALITY)
        found.append(np.asarray(Image.open(stream)))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(pixels.device) / 255


def _attacked(budget: Budget) -> Change:
    def attack(pixels: Tensor, labels: Tensor, scores: Scores) -> Tensor:
        return pixels + attack_ensemble([scores], pixels, labels, budget).perturbation

    return attack


DOMAINS: dict[str, Change] = {
    CLEAN: lambda pixels, labels, scores: pixels,
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
    "linf": _attacked(Budget(4 / 255, "linf", _STEPS)),
    "l2": _attacked(Budget(0.5, "l2", _STEPS)),
}


@dataclass(frozen=True)
class Domains:
    """Which domains a net is trained on, and how their weights follow the losses.

    Attributes:
        names: out of `DOMAINS`; "clean" is always one of them, the first.
        step, pull: as for `DomainWeights`; step 0 keeps equal weights.

    Raises:
        PatcError: an unknown name, one that is there twice, or none.
    """

    names: tuple[str, ...]
    step: float = 1 / 40
    pull: float = 3.0

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in DOMAINS:
                raise PatcError(f"expected domains out of {', '.join(DOMAINS)}, got '{name}'{nearest(name, DOMAINS)}")
        if not self.names or len({*self.names}) < len(self.names):
            raise PatcError(f"expected different domains, got {', '.join(self.names) or 'none'}")
        object.__setattr__(self, "names", (CLEAN, *(name for name in self.names if name != CLEAN)))

    def views(self, model: nn.Module, data: Data, images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """Yield what the net gets of images in each domain; attacks are on the net as it is in eval mode."""
        pixels = images.float() / 255

        def scores(pixels: Tensor) -> Tensor:
            result: Tensor = call(model, data.prepare(255 * pixels))
            return result.float()

        was_training = model.training
        model.eval()
        changed = [DOMAINS[name](pixels, labels, scores) for name in self.names]
        model.train(was_training)
        for each in changed:
            yield data.prepare(255 * each.detach())

    def losses(
        self, model: nn.Module, computing: nn.Module, data: Data, images: Tensor, labels: Tensor, criterion: nn.Module
    ) -> Tensor:
        """Return the loss in each domain, (K,); all go through the net together.

        Args:
            computing: computes as the model, with gradients.
        """
        scores = call(computing, torch.cat(list(self.views(model, data, images, labels))))
        return torch.stack([criterion(part, labels) for part in scores.chunk(len(self.names))])

    def evaluate(self, model: nn.Module, data: Data, batch_size: int = 256) -> dict[str, float]:
        """Return the test accuracy in each domain, 0 to 1; the same noise in each call."""
        device = next(model.parameters()).device
        right, count = torch.zeros(len(self.names)), 0
        was_training = model.training
        model.eval()
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            for images, labels in data.test.batches(batch_size):
                images, labels = (move(part, device) for part in (images, labels))
                for number, view in enumerate(self.views(model, data, images, labels)):
                    with torch.no_grad():
                        right[number] += (call(model, view).argmax(1) == labels).sum().cpu()
                count += len(labels)
        model.train(was_training)
        return dict(zip(self.names, (right / count).tolist(), strict=True))

    def check(self, data: Any) -> None:
        """Refuse data that are no pictures.

        Raises:
            PatcError: as said.
        """
        if data.shape is None:
            raise PatcError("expected pictures to have domains of, got a data set of other inputs", data.name)
