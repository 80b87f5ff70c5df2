"""Which structure of zeros, and which way into it, costs the least: schemes and methods on rendered letters.

    python experiments/schemes.py                   # runs what is not in --runs yet, then writes docs/schemes.md
    python experiments/schemes.py --preset large    # ResNet-18 as for CIFAR and more letters, for a GPU

Patterns, blocks, whole filters and single weights, each by ADMM, reweighted regularization, group lasso and magnitude:
all convolutions but the first are pruned to the same number of weights. For each seed a net is trained dense; from
there every run gets the same number of epochs, order of images and learning rates: half of the epochs to prune, half to
retrain what is left. `dense` trains on without pruning.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from glyphs import FINE_RATE, Preset, dense_net, describe_task, make_resnet18, train_epochs
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

from patc.models import BasicBlock, ResNet
from patc.pruning import (
    Admm,
    AdmmSchedule,
    Block,
    Filters,
    GroupLasso,
    Magnitude,
    Pattern,
    Plan,
    Pruner,
    Reweighted,
    Unstructured,
)
from patc.pruning.data import Data, open_data
from patc.pruning.evaluation import evaluate
from patc.pruning.methods.base import Method
from patc.pruning.schemes import Scheme

RATE = 8.0
SCHEMES: dict[str, tuple[str, Scheme]] = {
    "pattern": ("patterns", Pattern()),
    "block": ("blocks of 8 filters", Block(8)),
    "filter": ("filters", Filters()),
    "unstructured": ("unstructured", Unstructured()),
}
METHODS: dict[str, tuple[str, Callable[[int], Method]]] = {
    "admm": ("ADMM", lambda count: Admm(AdmmSchedule(count, rho=0.02, growth=2.0, most_rho=0.5, ramp=0.5))),
    "reweighted": ("reweighted", lambda count: Reweighted(count, strength=1e-4)),
    "lasso": ("group lasso", lambda count: GroupLasso(count, strength=1e-4)),
    "magnitude": ("magnitude", lambda count: Magnitude(count)),
}


def make_narrow(classes: int, seed: int) -> nn.Module:
    """Return ResNet-18 for 32x32 with a quarter of the filters: 35 million multiplications a picture."""
    torch.manual_seed(seed)
    return ResNet(BasicBlock, (2, 2, 2, 2), classes, cifar=True, width=16)


PRESETS = {
    "tiny": Preset(make_narrow, images=124, dense_epochs=1, epochs=2, batch_size=62),  # to test this file
    "small": Preset(make_narrow, images=6000, dense_epochs=14, epochs=8, batch_size=64),
    "large": Preset(make_resnet18, images=30000, dense_epochs=20, epochs=10, batch_size=256),
}


def describe_methods() -> dict[str, str]:
    """Return words for each run, dense first."""
    pairs = {
        f"{scheme}-{method}": f"{SCHEMES[scheme][0]}, {METHODS[method][0]}" for scheme in SCHEMES for method in METHODS
    }
    return {"dense": "dense, trained on", **pairs}


def convolutions(model: nn.Module) -> list[torch.Tensor]:
    """Return the weights that are pruned, or may be: of all convolutions but the first."""
    return [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)][1:]


def make_pruner(model: nn.Module, name: str, iterations: int) -> Pruner | KeepAll:
    """Return what prunes a net in a run."""
    if name == "dense":
        return KeepAll()
    scheme, method = name.split("-")
    plan = Plan([("layer*", SCHEMES[scheme][1]), ("layer*", Unstructured())], compression=RATE)
    return Pruner(model, plan, METHODS[method][1](iterations))


def do_run(preset: Preset, data: Data, dense: nn.Module, name: str, seed: int) -> Run:
    """Prune and retrain a copy of the dense net; return the figures of the run."""
    started = time.process_time()
    model = copy.deepcopy(dense)
    pruner = make_pruner(model, name, preset.epochs // 2)

    def fit(pruner: Pruner | KeepAll, epochs: range, rates: tuple[float, float]) -> None:
        train_epochs(model, data, pruner, epochs, rates, preset.batch_size, seed, steps_method=True)

    def look() -> tuple[float, float]:
        return evaluate(model, data)[1], pruner.distance() if isinstance(pruner, Pruner) else 0.0

    (before, distance), (masked, _) = prune_and_retrain(
        pruner, preset.dense_epochs, preset.epochs, FINE_RATE, fit, look
    )
    return {
        "accuracy": evaluate(model, data)[1],
        "accuracy_before_masks": before,
        "accuracy_with_masks": masked,
        "distance_before_masks": distance,
        "cpu_seconds": time.process_time() - started,
        **count_weights(convolutions(model)),
    }


def write_report(results: list[Run], preset: Preset, name: str, docs: Path) -> None:
    """Write the table and the plot of what was measured."""
    described = describe_methods()
    table = make_table(results, described, "accuracy")
    rows = []
    for method, (row, _) in table.items():
        runs = [run for run in results if run["method"] == method]
        masked = 100 * statistics.mean(run["accuracy_with_masks"] for run in runs)
        minutes = statistics.mean(run["cpu_seconds"] for run in runs) / 60
        rows.append(f"{row} {masked:.1f} | {minutes:.1f} |")
    seeds = len({run["seed"] for run in results})
    text = f"""\
# Schemes and methods on one budget

Test accuracy in percent on `glyphs:{preset.images}` (62 classes, 32x32, half as many images to test with), preset
`{name}`, {seeds} seeds. The convolutions of a ResNet-18 for 32x32 pictures keep one weight in {RATE:g}, each by one
scheme and one method; the 1x1 ones of the shortcuts, which have no patterns, are pruned unstructured where the scheme
does not fit. After {preset.dense_epochs} epochs dense each run trains {preset.epochs} more, half of them to prune; the
last epoch counts. Written by `python experiments/schemes.py --preset {name}`:
{describe_machines(results)} beside the dense training.

| scheme, method | weights | accuracy | spread | against dense | each seed | as soon as masked | CPU minutes |
| --- | --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

The spread is the sample standard deviation over seeds. Strengths are the same for all schemes and were not tuned.

![Accuracy of each scheme and method](schemes.png)
"""
    save_report(docs, "schemes", text, table, "test accuracy, percent")


def main() -> None:
    args, device = read_seeds(make_parser(__doc__, "schemes-checkpoints", PRESETS))
    preset = PRESETS[args.preset]
    data = open_data(f"glyphs:{preset.images}", 32)
    task = describe_task(preset, data)

    def run(name: str, seed: int) -> Run:
        dense = dense_net(args, task, preset, data, seed, device)
        return do_run(preset, data, dense, name, seed)

    def describe(found: Run) -> str:
        return f"accuracy {found['accuracy']:.2%}"

    results = do_runs(args, task, list(describe_methods()), run, describe)
    if results:
        write_report(results, preset, args.preset, args.docs)


if __name__ == "__main__":
    run_main(main)
