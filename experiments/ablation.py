"""What patterns and connectivity at 8x cost on rendered letters, and what of their training changes that.

    python experiments/ablation.py      # runs what is not in --runs yet, then writes docs/ablation.md and .png

Data, nets and dense training are those of glyphs.py, and so are the order of images and the number of epochs; of what
follows the dense training one thing is changed at a time. `dense-R` trains on without pruning, with the learning rate R
of retraining: what a rate gives any net must not be taken for what it gives a pruned one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from glyphs import FINE_RATE, LEARNING_RATE, PRESETS, Magnitude, Method, Preset, describe_task, train_epochs
from torch import nn
from trials import (
    KeepAll,
    Run,
    count_weights,
    describe_machines,
    do_runs,
    load_or_train,
    make_parser,
    make_table,
    read_seeds,
    run_main,
    save_report,
)

from patc.pruning import AdmmSchedule, PatternPruner, PatternSpec, Pruner
from patc.pruning import Magnitude as GradualMagnitude
from patc.pruning.data import Data, open_data
from patc.pruning.evaluation import evaluate

COMPRESSION = 8.0
Make = Callable[[nn.Module, AdmmSchedule], Method]


@dataclass(frozen=True)
class Variant:
    """How a net is pruned.

    Attributes:
        words: for the table.
        make: the method.
        part: of the epochs, that prunes.
        rate: learning rate that retraining starts with; that of pruning stays `FINE_RATE`.
        rho: of the first iteration.
        ramp: part of pruning in which the kernels fall.
    """

    words: str
    make: Make
    part: float = 0.5
    rate: float = FINE_RATE
    rho: float = 0.02
    ramp: float = 0.5


def _patterns(**fields: str) -> Make:
    spec = PatternSpec.for_compression(COMPRESSION, **fields)
    return lambda model, schedule: PatternPruner(model, spec, schedule)


def _gradual(model: nn.Module, schedule: AdmmSchedule) -> Method:
    method = GradualMagnitude(schedule.iterations, schedule.ramp)
    return Pruner(model, PatternSpec.for_compression(COMPRESSION), method)


def _unstructured(model: nn.Module, schedule: AdmmSchedule) -> Method:
    return Magnitude(model, PatternSpec.for_compression(COMPRESSION), schedule)


VARIANTS = {
    "dense": Variant("dense, trained on", lambda model, schedule: KeepAll()),
    "dense-0.05": Variant("dense, retrained from 0.05", lambda model, schedule: KeepAll(), part=0.3, rate=0.05),
    "pattern": Variant("patterns + connectivity, half to prune, retrained from 0.02", _patterns()),
    "global": Variant("a global budget by score", _patterns(allocation="global")),
    "gradual": Variant("masks that grow and regrow, retrained from 0.03", _gradual, rate=0.03, ramp=0.8),
    "pattern-0.05": Variant("3/10 to prune, retrained from 0.05", _patterns(), part=0.3, rate=0.05),
    "unstructured-0.05": Variant("unstructured, 3/10 to prune, from 0.05", _unstructured, part=0.3, rate=0.05),
}


def run_variant(preset: Preset, data: Data, dense: nn.Module, variant: Variant, seed: int) -> Run:
    """Prune and retrain a copy of the dense net; return the figures of the run."""
    model = copy.deepcopy(dense)
    first, pruning = preset.dense_epochs, max(1, round(variant.part * preset.epochs))
    schedule = AdmmSchedule(pruning, variant.rho, growth=2.0, most_rho=0.5, ramp=variant.ramp)
    method = variant.make(model, schedule)
    method.prepare()
    parts = (range(first, first + pruning), range(first + pruning, first + preset.epochs))
    train_epochs(model, data, method, parts[0], (FINE_RATE, FINE_RATE), preset.batch_size, seed, steps_method=True)
    before = evaluate(model, data)[1]
    method.harden()
    hardened = evaluate(model, data)[1]
    train_epochs(model, data, method, parts[1], (variant.rate, 0.0), preset.batch_size, seed)
    method.finalize()
    loss, accuracy = evaluate(model, data)
    return {
        "accuracy": accuracy,
        "loss": loss,
        "accuracy_before_masks": before,
        "accuracy_with_masks": hardened,
        **count_weights(module.weight for module in model.modules() if isinstance(module, nn.Conv2d)),
    }


def write_report(results: list[Run], preset: Preset, name: str, docs: Path) -> None:
    """Write the table and the plot of what was measured."""
    table = make_table(results, {method: variant.words for method, variant in VARIANTS.items()}, "accuracy")
    seeds = len({run["seed"] for run in results})
    text = f"""\
# What sparsity costs at {COMPRESSION:g}x

Test accuracy in percent on `glyphs:{preset.images}`, preset `{name}`, {seeds} seed(s): the nets and data of
[glyphs](glyphs.md), {preset.epochs} epochs after {preset.dense_epochs} of dense training, of which one thing is changed
at a time. Pruning is by ADMM where nothing else is said. Written by `python experiments/ablation.py --preset {name}`:
{describe_machines(results)} beside the dense training.

| method | convolution weights | accuracy | spread | against dense | each seed |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(row for row, _ in table.values())}

![Accuracy of each method](ablation.png)
"""
    save_report(docs, "ablation", text, table, "test accuracy, percent")


def main() -> None:
    args, device = read_seeds(make_parser(__doc__, "glyphs-checkpoints", PRESETS))
    preset = PRESETS[args.preset]
    data = open_data(f"glyphs:{preset.images}", 32)
    task = describe_task(preset, data)

    def run(name: str, seed: int) -> Run:
        dense = preset.net(data.classes, seed).to(device)
        epochs = range(preset.dense_epochs)

        def train() -> None:
            train_epochs(dense, data, KeepAll(), epochs, (LEARNING_RATE, 0.0), preset.batch_size, seed)

        load_or_train(args, task, seed, dense, train)
        return run_variant(preset, data, dense, VARIANTS[name], seed)

    results = do_runs(args, task, list(VARIANTS), run, lambda found: f"accuracy {found['accuracy']:.2%}")
    if results:
        write_report(results, preset, args.preset, args.docs)


if __name__ == "__main__":
    run_main(main)
