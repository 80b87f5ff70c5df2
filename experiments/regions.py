"""Wide and sparse against narrow and dense nets of equally many weights, over sizes and sparsities.

    python experiments/regions.py         # runs what is not in --runs yet, then writes docs/regions.md and regions.png

Each narrow net of a few widths is trained dense. Nets of 2, 4, 8 and more times its weights are trained as long and
pruned to exactly as many as it has, single weights wherever they are largest in the whole net: half of the epochs after
dense training drive weights there by ADMM, the other half retrains what is left. The narrow net trains on in these.
Where gains cross zero, the wide sparse net is no better than the narrow dense one any more, or becomes better.
"""

from __future__ import annotations

import itertools
import math
import statistics
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from glyphs import FINE_RATE, LEARNING_RATE, SmallNet, train_epochs
from torch import Tensor, nn
from trials import (
    KeepAll,
    Run,
    count_weights,
    describe_machines,
    do_runs,
    make_parser,
    prune_and_retrain,
    read_seeds,
    run_main,
)

from patc.files import atomic_write
from patc.pruning import Admm, AdmmSchedule, Plan, Pruner, Unstructured
from patc.pruning.data import Data, open_data
from patc.pruning.evaluation import evaluate
from patc.pruning.plots import new_figure, save_figure


@dataclass(frozen=True)
class Preset:
    """How large an experiment is.

    Attributes:
        images: to train on; half as many are for testing.
        widths: of the narrow nets, filters of their first layers.
        rates: about how many times their weights wide nets have before pruning.
        dense_epochs: of every net.
        epochs: after that; the first half prunes.
        batch_size: images a step.
    """

    images: int
    widths: tuple[int, ...]
    rates: tuple[int, ...]
    dense_epochs: int
    epochs: int
    batch_size: int


PRESETS = {
    "tiny": Preset(124, (2, 3), (2, 4), dense_epochs=1, epochs=2, batch_size=62),  # to test this file
    "small": Preset(6000, (2, 3, 4, 6, 8, 12), (2, 4, 8, 16, 32), dense_epochs=12, epochs=10, batch_size=64),
}


def weights_of(net: nn.Module) -> list[Tensor]:
    return [module.weight for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


def make_net(classes: int, width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return SmallNet(classes, width)


def do_run(preset: Preset, data: Data, width: int, rate: int, seed: int, device: str) -> Run:
    """Train a net, and prune it to the weights of the narrow one; return the figures of the run."""
    assert data.classes is not None
    budget = sum(weight.numel() for weight in weights_of(make_net(data.classes, width, seed)))
    net = make_net(data.classes, round(width * math.sqrt(rate)), seed).to(device)
    first, half = preset.dense_epochs, preset.epochs // 2
    train_epochs(net, data, KeepAll(), range(first), (LEARNING_RATE, 0.0), preset.batch_size, seed)
    dense_accuracy = evaluate(net, data)[1]
    pruner = KeepAll()
    if rate > 1:
        whole = sum(weight.numel() for weight in weights_of(net))
        plan = Plan([("*", Unstructured())], compression=whole / budget, allocation="global")
        pruner = Pruner(net, plan, Admm(AdmmSchedule(half, rho=0.02, growth=2.0, most_rho=0.5, ramp=0.5)))

    def fit(method: Pruner | KeepAll, epochs: range, rates: tuple[float, float]) -> None:
        train_epochs(net, data, method, epochs, rates, preset.batch_size, seed, steps_method=epochs.start == first)

    prune_and_retrain(pruner, first, preset.epochs, FINE_RATE, fit)
    return {
        "width": width,
        "rate": rate,
        "budget": budget,
        "accuracy": evaluate(net, data)[1],
        "dense_accuracy": dense_accuracy,
        **count_weights(weights_of(net)),
    }


def find_crossings(rates: Sequence[float], gains: Sequence[float]) -> list[float]:
    """Return the rates at which gains change their sign, between neighbours on a line over the rate's logarithm."""
    found = []
    for place, (before, after) in enumerate(itertools.pairwise(gains)):
        if (before < 0) != (after < 0):
            low, high = rates[place : place + 2]
            found.append(low * (high / low) ** (before / (before - after)))
    return found


@dataclass(frozen=True)
class Place:
    """A size and a sparsity.

    Attributes:
        kept: weights, of the wide net as of the narrow one.
        rate: weights of the wide net before pruning, in kept ones.
        gains: of the wide net's accuracy over the narrow one's, in points, by seed. Their median is looked at: of the
            smallest nets some never leave chance.
    """

    kept: int
    rate: float
    gains: list[float]

    @property
    def gain(self) -> float:
        return statistics.median(self.gains)


def write_report(results: list[Run], preset: Preset, name: str, docs: Path) -> None:
    """Write the table and the plot of what was measured."""
    by_place = {(run["width"], run["rate"], run["seed"]): run for run in results}
    seeds = sorted({run["seed"] for run in results})
    rows, lines = [], []
    for width in preset.widths:
        narrow = {seed: by_place[width, 1, seed] for seed in seeds if (width, 1, seed) in by_place}
        places = []
        for rate in preset.rates:
            wide = {seed: by_place[width, rate, seed] for seed in narrow if (width, rate, seed) in by_place}
            gains = [100 * (run["accuracy"] - narrow[seed]["accuracy"]) for seed, run in wide.items()]
            if wide:
                run = next(iter(wide.values()))
                places.append(Place(run["kept_weights"], run["weights"] / run["kept_weights"], gains))
        if not places:
            continue
        lines.append(places)
        cells = [_cell([100 * run["accuracy"] for run in narrow.values()])]
        cells += [f"{each.rate:.1f}x: {_cell(each.gains, '+')}" for each in places]
        cells += [""] * (len(preset.rates) - len(places))
        words = ", ".join(f"{rate:.1f}x" for rate in _crossings(places)) or "none"
        rows.append(f"| {places[0].kept:,} | {' | '.join(cells)} | {words} |")
    text = f"""\
# Wide and sparse, or narrow and dense

Test accuracy in percent of narrow dense nets, and what wide nets gain over them that were pruned to as many weights, on
`glyphs:{preset.images}` (62 classes, half as many pictures to test with), preset `{name}`, medians of {len(seeds)}
seed(s), in brackets the least and the most: some of the smallest nets never leave chance. All nets train for
{preset.dense_epochs} epochs dense and {preset.epochs} more, in half of which ADMM prunes single weights of the whole
net. A crossing is where the gain changes its sign. Written by `python experiments/regions.py --preset {name}`:
{describe_machines(results)}.

| weights kept | narrow, dense | {" | ".join(f"about {rate}x the weights" for rate in preset.rates)} | crossings |
| --- |{" ---: |" * (len(preset.rates) + 2)}
{chr(10).join(rows)}

Rates are what the wide net's whole number of filters makes of them. Accuracy is all that is compared: of two nets with
as many weights the dense one runs faster.

![Gain of wide sparse nets over narrow dense ones](regions.png)
"""
    docs.mkdir(parents=True, exist_ok=True)
    _draw(docs / "regions.png", lines)
    atomic_write(docs / "regions.md", text)
    print(f"{docs / 'regions.md'}: {len(results)} runs")


def _crossings(places: Sequence[Place]) -> list[float]:
    return find_crossings([each.rate for each in places], [each.gain for each in places])


def _draw(path: Path, lines: Sequence[Sequence[Place]]) -> None:
    """Draw the gain over kept weights and rate, with the crossing."""
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    places = [each for line in lines for each in line]
    most = max(abs(each.gain) for each in places) or 1.0
    x, y, colours = ([each.kept for each in places], [each.rate for each in places], [each.gain for each in places])
    drawn = axes.scatter(x, y, 500, colours, marker="s", cmap="RdBu", vmin=-most, vmax=most)
    for each in places:
        colour = "white" if abs(each.gain) > most / 2 else "black"
        axes.annotate(f"{each.gain:+.1f}", (each.kept, each.rate), ha="center", va="center", fontsize=7, color=colour)
    crossed = [(line[0].kept, rate) for line in lines for rate in _crossings(line)]
    if crossed:
        axes.scatter(*zip(*crossed, strict=True), 90, "black", marker="_", label="crossing")
        axes.legend(loc="upper right", fontsize=8)
    axes.set_xscale("log")
    kept = sorted({each.kept for each in places})
    axes.set_xticks(kept, [f"{number:,}" for number in kept], fontsize=7)
    axes.set_xticks([], minor=True)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("weights kept, as many as the narrow dense net has")
    axes.set_ylabel("weights of the wide net before pruning / kept")
    axes.margins(0.15)
    figure.colorbar(drawn, label="accuracy over the narrow dense net, points")
    save_figure(figure, path)


def _cell(values: Sequence[float], sign: str = "") -> str:
    if not values:
        return ""
    spread = f" ({min(values):{sign}.1f} to {max(values):{sign}.1f})" if len(values) > 1 else ""
    return f"{statistics.median(values):{sign}.2f}{spread}"


def main() -> None:
    args, device = read_seeds(make_parser(__doc__, "regions-checkpoints", PRESETS))
    preset = PRESETS[args.preset]
    data = open_data(f"glyphs:{preset.images}", 32)
    images, labels = next(data.test.batches(len(data.test)))
    task = {**asdict(preset), "checksum": zlib.crc32(labels.numpy(), zlib.crc32(images.numpy()))}
    task |= {"widths": list(preset.widths), "rates": list(preset.rates)}  # as JSON has them
    places = {f"{width}-{rate}x": (width, rate) for width in preset.widths for rate in (1, *preset.rates)}

    def run(name: str, seed: int) -> Run:
        return do_run(preset, data, *places[name], seed, device)

    def describe(found: Run) -> str:
        return f"{found['kept_weights']:,} kept, accuracy {found['accuracy']:.2%}"

    results = do_runs(args, task, list(places), run, describe)
    if results:
        write_report(results, preset, args.preset, args.docs)


if __name__ == "__main__":
    run_main(main)
