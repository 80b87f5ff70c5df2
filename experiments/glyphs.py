"""What patterns cost and gain on rendered letters: dense, patterns, random patterns, connectivity, unstructured.

    python experiments/glyphs.py                   # runs what is not in --runs yet, then writes docs/glyphs.md and .png
    python experiments/glyphs.py --preset large    # ResNet-18 and more letters, for a GPU

For each seed a net is trained dense. From there every method gets the same number of epochs, order of images and
learning rates: half of the epochs to prune, half to retrain what is left. `dense` trains on without pruning. Each run
is a file in --runs as soon as it ends, so that the command can be stopped and given again.
"""

from __future__ import annotations

import argparse
import copy
import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from trials import (
    KeepAll,
    Run,
    count_weights,
    describe_machines,
    do_runs,
    learning_rate,
    load_or_train,
    make_parser,
    make_table,
    prune_and_retrain,
    read_seeds,
    run_main,
    save_report,
)

from patc import models
from patc.diagnostics import PatcError
from patc.pruning import PHASE2, AdmmSchedule, PatternPruner, PatternSpec, candidates, prune_
from patc.pruning.data import Data, normalise, open_data
from patc.pruning.evaluation import evaluate


@dataclass(frozen=True)
class Preset:
    """How large an experiment is.

    Attributes:
        net: makes the network for a number of classes and a seed.
        images: to train on; half as many are for testing.
        dense_epochs: of the common dense training.
        epochs: of each method after that; the first half prunes.
        batch_size: images a step.
    """

    net: Callable[[int, int], nn.Module]
    images: int
    dense_epochs: int
    epochs: int
    batch_size: int


class SmallNet(nn.Module):
    """Six 3x3 convolutions of 24, 48 and 96 filters: 22 million multiplications a 32x32 picture.

    Args:
        width: filters of the first ones.
    """

    def __init__(self, classes: int, width: int = 24) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for filters in (width, 2 * width, 4 * width):
            for _ in range(2):
                layers += [nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
                channels = filters
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def make_small(classes: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return SmallNet(classes)


def make_resnet18(classes: int, seed: int) -> nn.Module:
    return models.resnet18_cifar(seed=seed, num_classes=classes)


PRESETS = {
    "tiny": Preset(make_small, images=124, dense_epochs=1, epochs=2, batch_size=62),  # to test this file
    "small": Preset(make_small, images=10000, dense_epochs=14, epochs=10, batch_size=64),
    "large": Preset(make_resnet18, images=60000, dense_epochs=30, epochs=30, batch_size=256),
}
LEARNING_RATE, FINE_RATE = 0.05, 0.02
RANDOM_PATTERNS = 8


class Method(Protocol):
    """What `PatternPruner` offers, and so do the two below."""

    def prepare(self) -> None: ...
    def penalty(self) -> Tensor: ...
    def step(self) -> None: ...
    def harden(self) -> None: ...
    def finalize(self) -> None: ...


class Magnitude:
    """Unstructured pruning: each layer keeps as many weights as `spec` would, wherever they are largest.

    It is the ADMM of `PatternPruner` with another projection, so that only the structure differs.
    """

    def __init__(self, model: nn.Module, spec: PatternSpec, schedule: AdmmSchedule) -> None:
        self.schedule, self.iteration = schedule, 0
        report = prune_(copy.deepcopy(model), spec)
        pruned = [layer for layer in report.layers if layer.kind != "dense"]
        self.weights = [model.get_submodule(layer.name).weight for layer in pruned]
        self.targets = [layer.kept_weights for layer in pruned]
        self.anchors = [torch.zeros_like(weight) for weight in self.weights]
        self.duals = [torch.zeros_like(weight) for weight in self.weights]
        self.hardened = False

    def prepare(self) -> None:
        self._project(first=True)

    def penalty(self) -> Tensor:
        if self.hardened:
            return torch.zeros(())
        pairs = zip(self.weights, self.anchors, strict=True)
        apart = torch.stack([(weight - anchor).square().sum() for weight, anchor in pairs]).sum()
        return apart * (self.schedule.rho_at(self.iteration) / 2)

    def step(self) -> None:
        self.iteration += 1
        self._project()

    @torch.no_grad()
    def harden(self) -> None:
        """Zero all but the largest weights, and keep them so by their gradients.

        Zero has no weight decay, and the optimizer of the second half starts without momentum.
        """
        self.hardened = True
        for weight, target in zip(self.weights, self.targets, strict=True):
            mask = largest(weight, target)
            weight.masked_fill_(~mask, 0.0)
            weight.register_hook(lambda grad, mask=mask: torch.where(mask, grad, 0.0))

    def finalize(self) -> None:
        """Weights are plain parameters already."""

    @torch.no_grad()
    def _project(self, first: bool = False) -> None:
        factor = 0.0 if first else self.schedule.rho_at(self.iteration - 1) / self.schedule.rho_at(self.iteration)
        for place, (weight, target) in enumerate(zip(self.weights, self.targets, strict=True)):
            moved = weight + self.duals[place]
            keep = self.schedule.kept_at(self.iteration, weight.numel(), target)
            nearest = torch.where(largest(moved, keep), moved, 0.0)
            self.duals[place] = (moved - nearest) * factor
            self.anchors[place] = nearest - self.duals[place]


def largest(values: Tensor, keep: int) -> Tensor:
    """Return where the `keep` largest magnitudes are, the earlier ones among equals."""
    order = values.abs().flatten().sort(descending=True, stable=True).indices
    mask = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    mask[order[:keep]] = True
    return mask.reshape(values.shape)


def methods(seed: int) -> dict[str, tuple[str, Callable[[nn.Module, AdmmSchedule], Method]]]:
    """Return for each method its description and what makes it."""

    def patterns(spec: PatternSpec) -> Callable[[nn.Module, AdmmSchedule], Method]:
        return lambda model, schedule: PatternPruner(model, spec, schedule)

    def magnitude(spec: PatternSpec) -> Callable[[nn.Module, AdmmSchedule], Method]:
        return lambda model, schedule: Magnitude(model, spec, schedule)

    others = [mask for mask in candidates() if mask not in PHASE2]
    control = tuple(sorted(random.Random(seed).sample(others, RANDOM_PATTERNS)))
    phase2, four, eight = (
        PatternSpec(connectivity=1),
        PatternSpec.for_compression(4.0),
        PatternSpec.for_compression(8.0),
    )
    return {
        "dense": ("dense, trained on", lambda model, schedule: KeepAll()),
        "phase2": ("phase-2 patterns", patterns(phase2)),
        "random": (f"{RANDOM_PATTERNS} random patterns", patterns(PatternSpec(control, connectivity=1))),
        "unstructured-2.25x": ("unstructured", magnitude(phase2)),
        "pattern-4x": ("patterns + connectivity", patterns(four)),
        "unstructured-4x": ("unstructured", magnitude(four)),
        "pattern-8x": ("patterns + connectivity", patterns(eight)),
        "unstructured-8x": ("unstructured", magnitude(eight)),
    }


def train_epochs(
    model: nn.Module,
    data: Data,
    method: Method,
    epochs: range,
    rates: tuple[float, float],
    batch_size: int,
    seed: int,
    steps_method: bool = False,
) -> None:
    """Train with SGD; the learning rate goes from rates[0] to rates[1] along a cosine."""
    device = next(model.parameters()).device
    optimizer = torch.optim.SGD(model.parameters(), lr=rates[0], momentum=0.9, nesterov=True, weight_decay=5e-4)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    steps = max(1, len(data.train) // batch_size)
    model.train()
    for epoch in epochs:
        for step, (images, labels) in enumerate(data.train.batches(batch_size, seed, epoch)):
            done = (epoch - epochs.start + step / steps) / len(epochs)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(rates, done)
            optimizer.zero_grad(set_to_none=True)
            loss = criterion(model(normalise(images.to(device))), labels.to(device))
            if not torch.isfinite(loss):
                raise PatcError(f"expected a finite loss, found {loss.item()} in epoch {epoch}")
            (loss + method.penalty().to(device)).backward()
            optimizer.step()
        if steps_method:
            method.step()


def dense_net(
    args: argparse.Namespace, task: Mapping[str, object], preset: Preset, data: Data, seed: int, device: str
) -> nn.Module:
    """Return the net of a seed that all methods begin with, trained dense or read from its file."""
    dense = preset.net(data.classes, seed).to(device)
    epochs, rates = range(preset.dense_epochs), (LEARNING_RATE, 0.0)

    def train() -> None:
        train_epochs(dense, data, KeepAll(), epochs, rates, preset.batch_size, seed)

    load_or_train(args, task, seed, dense, train)
    return dense


def describe_task(preset: Preset, data: Data) -> dict[str, object]:
    """Return what runs have to share to be compared, the images as a checksum."""
    numbers = {name: value for name, value in asdict(preset).items() if name != "net"}
    checksum = 0
    for images, labels in (*data.train.batches(256), *data.test.batches(256)):
        checksum = zlib.crc32(labels.numpy(), zlib.crc32(images.numpy(), checksum))
    return {"net": preset.net.__name__, **numbers, "checksum": checksum}


def run_method(preset: Preset, data: Data, dense: nn.Module, name: str, seed: int) -> dict[str, object]:
    """Prune and retrain a copy of the dense net; return the figures of the run."""
    model = copy.deepcopy(dense)
    half = preset.epochs // 2
    schedule = AdmmSchedule(iterations=half, rho=0.02, growth=2.0, most_rho=0.5, ramp=0.5)
    method = methods(seed)[name][1](model, schedule)

    def fit(method: Method, epochs: range, rates: tuple[float, float]) -> None:
        is_first = epochs.start == preset.dense_epochs
        train_epochs(model, data, method, epochs, rates, preset.batch_size, seed, steps_method=is_first)

    def look() -> tuple[float, float | None]:
        return evaluate(model, data)[1], method.distance() if isinstance(method, PatternPruner) else None

    (before, distance), (hardened, _) = prune_and_retrain(
        method, preset.dense_epochs, preset.epochs, FINE_RATE, fit, look
    )
    loss, accuracy = evaluate(model, data)
    return {
        "accuracy": accuracy,
        "loss": loss,
        "dense_accuracy": evaluate(dense, data)[1],
        "accuracy_before_masks": before,
        "accuracy_with_masks": hardened,
        "distance_before_masks": distance,
        **count_weights(module.weight for module in model.modules() if isinstance(module, nn.Conv2d)),
    }


def write_report(results: list[dict], preset: Preset, name: str, docs: Path) -> None:
    """Write the table and the plot of what was measured."""
    described = {method: words for method, (words, _) in methods(0).items()}
    table = make_table(results, described, "accuracy")
    seeds = len({run["seed"] for run in results})
    text = f"""\
# Patterns on rendered letters

Test accuracy in percent on `glyphs:{preset.images}` (62 classes, 32x32, half as many images to test with), preset
`{name}`, {seeds} seeds. From a net trained dense for {preset.dense_epochs} epochs every method trains {preset.epochs}
more, half of them to prune; the last epoch counts. Pruning is by ADMM throughout. The spread is the sample standard
deviation over seeds. Written by `python experiments/glyphs.py --preset {name}`: {describe_machines(results)}
beside the dense training.

| method | convolution weights | accuracy | spread | against dense | each seed |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(row for row, _ in table.values())}

Unstructured pruning keeps as many weights in each layer as the pattern net of the same rate does, wherever they are
largest. The random control draws its patterns anew for each seed, from those that are not in phase 2.

![Accuracy of each method](glyphs.png)
"""
    save_report(docs, "glyphs", text, table, "test accuracy, percent")


def main() -> None:
    args, device = read_seeds(make_parser(__doc__, "glyphs-checkpoints", PRESETS))
    preset = PRESETS[args.preset]
    # The letters are the same for all seeds, as a real data set would be.
    data = open_data(f"glyphs:{preset.images}", 32)
    task = describe_task(preset, data)

    def run(name: str, seed: int) -> Run:
        dense = dense_net(args, task, preset, data, seed, device)
        return run_method(preset, data, dense, name, seed)

    def describe(found: Run) -> str:
        return f"accuracy {found['accuracy']:.2%}"

    results = do_runs(args, task, list(methods(0)), run, describe)
    if results:
        write_report(results, preset, args.preset, args.docs)


if __name__ == "__main__":
    run_main(main)
