"""What patterns and connectivity at 8x cost on rendered letters, and what of their training changes that.

    python experiments/ablation.py      # runs what is not in --runs yet, then writes docs/ablation.md and .png

Data, nets and dense training are those of glyphs.py, and so is the order of images; of what follows the dense training
one thing is changed at a time. What a learning rate, more epochs or distillation give any net must not be taken for
what they give a pruned one, so that each has a dense net of its own beside it. After the dense training all is computed
in bfloat16 (weights, masks and tests in float32), which is faster on CPUs with AVX512-BF16.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from glyphs import FINE_RATE, PRESETS, Magnitude, Method, Preset, dense_net, describe_task, train_epochs
from torch import Tensor, nn
from torch.nn import functional
from trials import (
    KeepAll,
    Run,
    count_weights,
    describe_machines,
    do_runs,
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
        rate: learning rate of pruning, from which that of retraining falls.
        ramp: part of pruning in which the kernels fall.
        length: times the preset's epochs.
        distils: whether the dense net's scores are learned beside the labels.
    """

    words: str
    make: Make
    part: float = 0.5
    rate: float = FINE_RATE
    ramp: float = 0.5
    length: int = 1
    distils: bool = False


class Distilled:
    """A method whose penalty asks for the dense net's scores, too: T^2 KL(dense || net) (Hinton et al., 2015)."""

    temperature = 2.0

    def __init__(self, method: Method, model: nn.Module, teacher: nn.Module) -> None:
        self.method, self.teacher = method, teacher.eval()
        self.prepare, self.step, self.harden, self.finalize = (
            method.prepare, method.step, method.harden, method.finalize,
        )  # fmt: skip
        model.register_forward_hook(self._keep)

    def _keep(self, model: nn.Module, inputs: tuple[Tensor, ...], scores: Tensor) -> None:
        self.inputs, self.scores = inputs, scores

    def penalty(self) -> Tensor:
        with torch.no_grad():
            wanted = self.teacher(*self.inputs)
        found, target = (each.float().div(self.temperature).log_softmax(1) for each in (self.scores, wanted))
        apart = functional.kl_div(found, target, reduction="batchmean", log_target=True)
        return self.method.penalty() + self.temperature**2 * apart


def _patterns(**fields: str) -> Make:
    spec = PatternSpec.for_compression(COMPRESSION, **fields)
    return lambda model, schedule: PatternPruner(model, spec, schedule)


def _gradual(model: nn.Module, schedule: AdmmSchedule) -> Method:
    method = GradualMagnitude(schedule.iterations, schedule.ramp)
    return Pruner(model, PatternSpec.for_compression(COMPRESSION), method)


def _unstructured(model: nn.Module, schedule: AdmmSchedule) -> Method:
    return Magnitude(model, PatternSpec.for_compression(COMPRESSION), schedule)


def _dense(model: nn.Module, schedule: AdmmSchedule) -> Method:
    return KeepAll()


VARIANTS = {
    "dense": Variant("dense, trained on", _dense),
    "dense-fast": Variant("dense, fast", _dense, part=0.6, rate=0.05),
    "dense-distilled": Variant("dense, distilled", _dense, distils=True),
    "dense-long": Variant("dense, 2x the epochs", _dense, length=2),
    "dense-longer": Variant("dense, 4x the epochs", _dense, length=4),
    "unstructured": Variant("unstructured", _unstructured),
    "unstructured-long": Variant("unstructured, 2x the epochs", _unstructured, length=2),
    "pattern": Variant("patterns + connectivity", _patterns()),
    "pattern-global": Variant("global budget", _patterns(allocation="global")),
    "pattern-distilled": Variant("distilled", _patterns(), distils=True),
    "pattern-long": Variant("2x the epochs", _patterns(), length=2),
    "pattern-fast": Variant("fast", _patterns(), part=0.6, rate=0.05),
    "pattern-gradual": Variant("masks that grow and regrow", _gradual, ramp=0.8),
    "pattern-gradual-long": Variant("masks that grow and regrow, 2x the epochs", _gradual, ramp=0.8, length=2),
    "pattern-gradual-longer": Variant("masks that grow and regrow, 4x the epochs", _gradual, ramp=0.8, length=4),
    "pattern-gradual-fast": Variant("masks that grow and regrow, fast", _gradual, part=0.6, rate=0.05, ramp=0.7),
}


def run_variant(preset: Preset, data: Data, dense: nn.Module, variant: Variant, seed: int) -> Run:
    """Prune and retrain a copy of the dense net; return the figures of the run."""
    model = copy.deepcopy(dense).to(memory_format=torch.channels_last)
    device = next(model.parameters()).device.type
    first, epochs = preset.dense_epochs, variant.length * preset.epochs
    pruning = max(1, round(variant.part * epochs))
    schedule = AdmmSchedule(pruning, rho=0.02, growth=2.0, most_rho=0.5, ramp=variant.ramp)
    method = variant.make(model, schedule)
    if variant.distils:
        method = Distilled(method, model, dense)
    method.prepare()

    def fit(first: int, end: int, rates: tuple[float, float], prunes: bool) -> None:
        # A cache of narrowed weights would be emptied only behind the last step.
        with torch.autocast(device, torch.bfloat16, cache_enabled=False):
            train_epochs(model, data, method, range(first, end), rates, preset.batch_size, seed, prunes)

    fit(first, first + pruning, (variant.rate, variant.rate), True)
    before = evaluate(model, data)[1]
    method.harden()
    hardened = evaluate(model, data)[1]
    fit(first + pruning, first + epochs, (variant.rate, 0.0), False)
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
at a time. Pruning is by ADMM where nothing else is said. "Fast" prunes in 6 of 10 epochs, with a learning rate of 0.05
in place of {FINE_RATE:g}. Masks that grow hide the smallest kernels, more in each epoch, and let them come back. After
the dense training nets compute in bfloat16, but for the test.
Written by `python experiments/ablation.py --preset {name}`: {describe_machines(results)}
beside the dense training.

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
        dense = dense_net(args, task, preset, data, seed, device)
        return run_variant(preset, data, dense, VARIANTS[name], seed)

    results = do_runs(args, task, list(VARIANTS), run, lambda found: f"accuracy {found['accuracy']:.2%}")
    if results:
        write_report(results, preset, args.preset, args.docs)


if __name__ == "__main__":
    run_main(main)
