"""What int8 costs nets that are dense or pruned, to patterns or to 2x2 blocks of any number a kernel: rendered letters.

    python experiments/int8_accuracy.py                   # runs what is not in --runs yet, then writes a page of docs/
    python experiments/int8_accuracy.py --preset large    # ResNet-18 and more letters, for a GPU

For each seed a net is trained dense; from there every structure gets the same number of epochs, order of images and
learning rates: half to prune, half to retrain what is left. Then the net goes on in float32, and a copy of it in as
many epochs with weights on 8-bit levels and activations rounded to 8 bits. Post-training rounds the former net, with
ranges of some images. All convolutions but the first are pruned, to as many entries of four weights: the dot products
of int8 code.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from glyphs import FINE_RATE, Preset, dense_net, describe_task, make_resnet18, make_small, train_epochs
from torch import nn
from trials import (
    KeepAll,
    Run,
    count_weights,
    describe_machines,
    do_runs,
    make_parser,
    make_table,
    prune_and_retrain,
    read_seeds,
    run_main,
    save_report,
)

from patc.pruning import (
    Activations,
    Admm,
    AdmmSchedule,
    KernelBlocks,
    Levels,
    Magnitude,
    Pattern,
    Plan,
    Pruner,
    Unstructured,
)
from patc.pruning.data import Data, normalise, open_data
from patc.pruning.evaluation import evaluate
from patc.pruning.schemes import Scheme

RATE = 8.0
STRUCTURES: dict[str, tuple[str, Scheme | None]] = {
    "dense": ("dense, trained on", None),
    "pattern": ("phase-2 patterns, some kernels none", Pattern()),
    "blocks": ("2x2 blocks, any number a kernel", KernelBlocks()),
    "unstructured": ("unstructured", Unstructured()),
}
NUMBERS = {"float32": "float32", "post": "8 bits, post-training", "trained": "8 bits, trained"}
CALIBRATION = 8  # batches that ranges are of after training


@dataclass(frozen=True)
class Int8Preset(Preset):
    """As of glyphs.py.

    Attributes:
        layers: names of the layers that are pruned, as `Plan` has them.
        int8_epochs: of each net in float32 or with 8 bits, behind `epochs`.
    """

    layers: tuple[str, ...] = ("features.[!0]*",)
    int8_epochs: int = 3


PRESETS = {
    "tiny": Int8Preset(make_small, images=124, dense_epochs=1, epochs=2, batch_size=62, int8_epochs=1),
    "small": Int8Preset(make_small, images=5000, dense_epochs=14, epochs=8, batch_size=64, int8_epochs=2),
    "large": Int8Preset(
        make_resnet18, images=60000, dense_epochs=30, epochs=30, batch_size=256, layers=("layer*.conv?",), int8_epochs=8
    ),
}


def do_run(preset: Int8Preset, data: Data, dense: nn.Module, name: str, seed: int) -> Run:
    """Prune and retrain a copy of the dense net, in float32 and with 8 bits; return the figures of the run."""
    model = copy.deepcopy(dense)
    scheme = STRUCTURES[name][1]
    pruner: Any = KeepAll()
    if scheme is not None:
        plan = Plan([(names, scheme) for names in preset.layers], compression=RATE)
        schedule = AdmmSchedule(preset.epochs // 2, rho=0.02, growth=2.0, most_rho=0.5, ramp=0.5)
        pruner = Pruner(model, plan, Admm(schedule))

    def fit(model: nn.Module, pruner: Any, epochs: range, rates: tuple[float, float]) -> None:
        train_epochs(model, data, pruner, epochs, rates, preset.batch_size, seed, steps_method=True)

    prune_and_retrain(pruner, preset.dense_epochs, preset.epochs, FINE_RATE, functools.partial(fit, model))
    masks = pruner.masks if scheme is not None else {}
    first = preset.dense_epochs + preset.epochs
    last, rates = range(first, first + preset.int8_epochs), (FINE_RATE / 4, 0.0)

    def on_levels(model: nn.Module) -> tuple[Pruner, Activations]:
        """Return what puts weights on levels once it is hardened, but for zeros, which stay, and activations."""
        pruner = Pruner(model, Plan([("*", Levels(8))]), Magnitude(1), within=masks)
        pruner.prepare()
        return pruner, Activations(model)

    trained = copy.deepcopy(model)
    pruner, activations = on_levels(trained)
    activations.prepare()
    pruner.harden()
    fit(trained, pruner, last, rates)

    pruner, activations = on_levels(model)
    fit(model, pruner, last, rates)
    accuracies = {"float32": evaluate(model, data)[1], "trained": evaluate(trained, data)[1]}
    weights = count_weights(layer.weight for layer in model.modules() if isinstance(layer, nn.Conv2d))
    calibrate(model, activations, data, preset.batch_size)
    pruner.harden()
    accuracies["post"] = evaluate(model, data)[1]
    return {"accuracy": accuracies["float32"], "accuracies": accuracies, **weights}


@torch.no_grad()
def calibrate(model: nn.Module, activations: Activations, data: Data, batch_size: int) -> None:
    """Round activations from now on, with ranges of some images of the training."""
    model.eval()
    activations.prepare()
    activations.follow(True)
    for images, _ in itertools.islice(data.train.batches(batch_size), CALIBRATION):
        model(normalise(images.to(next(model.parameters()).device)))
    activations.follow(False)


def write_report(results: list[Run], preset: Int8Preset, name: str, docs: Path) -> None:
    """Write the table and the plot of what was measured."""
    described = {
        f"{structure}-{number}": f"{words}, {of}"
        for structure, (words, _) in STRUCTURES.items()
        for number, of in NUMBERS.items()
    }
    each = [
        {**run, "method": f"{run['method']}-{number}", "accuracy": run["accuracies"][number]}
        for run in results
        for number in NUMBERS
    ]
    # What int8 costs a net is beside the same net in float32.
    rows, table = [], make_table(each, described, "accuracy")
    for method, (row, values) in table.items():
        floats = table[f"{method.split('-')[0]}-float32"][1]
        change = statistics.mean(value - own for value, own in zip(values, floats, strict=True))
        rows.append(row.replace(" |  | ", f" | {change:+.2f} | "))
    text = f"""\
# Int8 of dense and pruned nets

Test accuracy in percent on `glyphs:{preset.images}` (62 classes, 32x32, half as many images to test with), preset
`{name}`, {len({run["seed"] for run in results})} seeds. All convolutions but the first keep {RATE:g} times less:
entries of four weights, each one dot product of int8 code; blocks share weights where they overlap, so that fewer are
left. After {preset.dense_epochs} epochs dense each net trains {preset.epochs} more, half of them to prune, and then
{preset.int8_epochs} in float32, or with weights on 8-bit levels and activations rounded to 8 bits. Post-training is the
former of these, rounded. The last epoch counts; the spread is the sample standard deviation over seeds. Written by
`python experiments/int8_accuracy.py --preset {name}`: {describe_machines(results)} beside the dense training.

| structure, numbers | convolution weights | accuracy | spread | against float32 | each seed |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

![Accuracy of each structure and kind of numbers](int8_accuracy.png)
"""
    save_report(docs, "int8_accuracy", text, table, "test accuracy, percent")


def main() -> None:
    args, device = read_seeds(make_parser(__doc__, "int8-accuracy-checkpoints", PRESETS))
    preset = PRESETS[args.preset]
    data = open_data(f"glyphs:{preset.images}", 32)
    task = json.loads(json.dumps(describe_task(preset, data)))  # as files have it: lists

    def run(name: str, seed: int) -> Run:
        dense = dense_net(args, task, preset, data, seed, device)
        return do_run(preset, data, dense, name, seed)

    def describe(found: Run) -> str:
        return ", ".join(f"{NUMBERS[number]} {found['accuracies'][number]:.2%}" for number in NUMBERS)

    results = do_runs(args, task, list(STRUCTURES), run, describe)
    if results:
        write_report(results, preset, args.preset, args.docs)


if __name__ == "__main__":
    run_main(main)
