"""What experiments share: each run is a file, so that a command goes on where it was stopped, and tables of runs."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.files import atomic_write
from patc.pruning.checkpoint import read_checkpoint
from patc.pruning.plots import save_spreads
from patc.pruning.train import save_state

Run = dict[str, Any]
# Trains a net with a pruner of it for some epochs; the learning rate goes from one number to another.
Fit = Callable[[Any, range, tuple[float, float]], None]


class KeepAll:
    """A `Pruner` that prunes nothing."""

    def prepare(self) -> None: ...
    def step(self) -> None: ...
    def harden(self) -> None: ...
    def finalize(self) -> None: ...

    def penalty(self) -> Tensor:
        return torch.zeros(())


def make_parser(description: str | None, out: str, presets: Iterable[str]) -> argparse.ArgumentParser:
    """Return the options of an experiment; `out` is where it leaves checkpoints."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(presets), default="small")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of checkpoints")
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs", help="folder of the report")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    return parser


def read_seeds(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, str]:
    """Return the options of an experiment of several seeds, which PyTorch has the threads of, and its device."""
    parser.add_argument("--seeds", type=int, default=3)
    runs = Path(__file__).parent / "runs" / Path(parser.prog).stem
    parser.add_argument("--runs", type=Path, default=runs, help="folder of results, a file for each run")
    parser.add_argument("--report-only", action="store_true", help="write the report of the runs there are")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not torch.cuda.is_available():
        return args, "cpu"
    torch.set_float32_matmul_precision("high")  # as convolutions have it by themselves
    return args, "cuda"


def run_main(main: Callable[[], None]) -> None:
    """Run an experiment; what users can cause, as data that are missing, ends it in one line."""
    try:
        main()
    except PatcError as error:
        sys.exit(f"error: {error}")


def find_package(name: str, install: str) -> Path:
    """Return the folder of a package, which is not imported.

    Args:
        install: how to install it.

    Raises:
        PatcError: the package is not there.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise PatcError(f"expected the package {name}, found none: {install}")
    return Path(spec.submodule_search_locations[0])


def require_nets(found: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names of nets that an experiment does not have."""
    if unknown := set(found).difference(known):
        raise PatcError(f"expected nets out of {', '.join(known)}, found {', '.join(sorted(unknown))}")


def require_task(task: Mapping[str, object], found: object, path: Path) -> None:
    """Refuse a run of another preset or other data, as an earlier version may have left it."""
    if found != task:
        raise PatcError("expected a run of this preset and these data, found another: remove it", str(path))


def do_runs(
    args: argparse.Namespace,
    task: Mapping[str, object],
    methods: Sequence[str],
    run: Callable[[str, int], Run],
    describe: Callable[[Run], str],
) -> list[Run]:
    """Return the runs of all methods and seeds: from their files, or done and written.

    Args:
        args: of `read_seeds`.
        task: what runs have to share to be compared.
        methods: their names.
        run: trains a method with a seed and returns its figures, `weights` and `kept_weights` among them.
        describe: the other figures of a run in words.
    """
    args.out.mkdir(parents=True, exist_ok=True)
    args.runs.mkdir(parents=True, exist_ok=True)
    results = []
    for seed in range(args.seeds):
        for name in methods:
            path = args.runs / f"{args.preset}-{name}-{seed}.json"
            if not path.is_file():
                if args.report_only:
                    continue
                started = time.perf_counter()
                figures = {"method": name, "seed": seed, **run(name, seed)}
                seconds = time.perf_counter() - started
                whole = {"task": task, **figures, "machine": describe_machine(), "seconds": seconds}
                atomic_write(path, json.dumps(whole, indent=1) + "\n")
            results.append(json.loads(path.read_text()))
            require_task(task, results[-1].get("task"), path)
            kept = results[-1]["weights"] / results[-1]["kept_weights"]
            words = f"{kept:5.2f}x {describe(results[-1])}, {results[-1]['seconds']:.0f} s"
            print(f"seed {seed} {name:20s} {words}", flush=True)
    return results


def load_or_train(
    args: argparse.Namespace, task: Mapping[str, object], seed: int, model: nn.Module, train: Callable[[], None]
) -> None:
    """Give the dense net of a seed the weights of its file, or train it and write the file."""
    path = args.out / f"{args.preset}-dense-{seed}.pth"
    if path.is_file():
        state = read_checkpoint(path, ("task",))
        require_task(task, state["task"], path)
        model.load_state_dict(state["model"])
        return
    train()
    save_state(path, {"task": task, "model": {name: tensor.cpu() for name, tensor in model.state_dict().items()}})


def prune_and_retrain(
    pruner: Any, first: int, epochs: int, rate: float, fit: Fit, look: Callable[[], Any] = lambda: None
) -> tuple[Any, Any]:
    """Prune for half of the epochs and retrain for the other half, with a learning rate that falls to zero in that;
    return what `look` finds between the two, before and after masks are in force.

    Args:
        pruner: a `Pruner`, or what offers the same calls.
        first: epoch.
    """
    middle = first + epochs // 2
    pruner.prepare()
    fit(pruner, range(first, middle), (rate, rate))
    before = look()
    pruner.harden()
    after = look()
    fit(pruner, range(middle, first + epochs), (rate, 0.0))
    pruner.finalize()
    return before, after


def learning_rate(rates: tuple[float, float], done: float) -> float:
    """Return what a cosine from rates[0] to rates[1] is after a part `done` of the way."""
    return rates[1] + (rates[0] - rates[1]) * (1 + math.cos(math.pi * done)) / 2


def count_weights(weights: Iterable[Tensor]) -> Run:
    """Return how many numbers weights have, and how many are not zero."""
    found = list(weights)
    return {"weights": sum(w.numel() for w in found), "kept_weights": sum(int(w.count_nonzero()) for w in found)}


def describe_machine() -> str:
    """Return what a run computes on, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()} with PyTorch {torch.__version__}"
    return f"{torch.get_num_threads()} thread(s) of a CPU"


def describe_machines(results: Sequence[Run]) -> str:
    """Return where and how long runs took, in words."""
    machines = " and ".join(sorted({run["machine"] for run in results}))
    hours = sum(run["seconds"] for run in results) / 3600
    return f"PyTorch {torch.__version__}, {platform.machine()}, {machines}, {hours:.1f} hours"


def make_table(results: Sequence[Run], described: Mapping[str, str], figure: str) -> dict[str, tuple[str, list[float]]]:
    """Return a row of a table for each method that has runs, and the values that it is of, in percent.

    The columns are method, weights over kept ones, mean, sample standard deviation, difference to "dense" by seed, and
    the values of all seeds.

    Args:
        results: runs with `figure`, 0 to 1, `weights` (of the dense net) and `kept_weights`.
        described: words for each method, in the order of rows.
        figure: the key of what is compared.
    """
    table = {}
    dense = {run["seed"]: run[figure] for run in results if run["method"] == "dense"}
    for method, words in described.items():
        runs = [run for run in results if run["method"] == method]
        if not runs:
            continue
        percents = [100 * run[figure] for run in runs]
        differences = [100 * (run[figure] - dense[run["seed"]]) for run in runs if run["seed"] in dense]
        spread = statistics.stdev(percents) if len(runs) > 1 else 0.0
        rate = statistics.mean(run["weights"] / run["kept_weights"] for run in runs)
        change = f"{statistics.mean(differences):+.2f}" if differences else ""
        each = ", ".join(f"{percent:.2f}" for percent in percents)
        row = f"| {words} | {rate:.2f}x | {statistics.mean(percents):.2f} | {spread:.2f} | {change} | {each} |"
        table[method] = row, percents
    return table


def save_report(docs: Path, name: str, text: str, table: Mapping[str, tuple[str, list[float]]], unit: str) -> None:
    """Write a page, and a plot of the values of its table, each method by its words and rate."""
    docs.mkdir(parents=True, exist_ok=True)
    labels = [", ".join(cell.strip() for cell in row.split("|")[1:3]) for row, _ in table.values()]
    save_spreads(docs / f"{name}.png", labels, [values for _, values in table.values()], unit)
    atomic_write(docs / f"{name}.md", text)
    runs = sum(len(values) for _, values in table.values())
    print(f"{docs / name}.md: {runs} runs")


# -- Speed of layers -------------------------------------------------------------------------------


def prepare_or_measure(
    words: str | None, prepare: Callable[[Path, float, str], None], measure: Callable[[Path, int], None]
) -> None:
    """Do the step of the command line: `prepare` a folder at a rate for a target, or `measure` so many turns of it."""
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "measure"))
    parser.add_argument("--out", type=Path, required=True, help="folder of what prepare writes")
    parser.add_argument("--rate", type=float, default=10.0, help="of all weights to kept ones")
    parser.add_argument("--target", default="host")
    parser.add_argument("--turns", type=int, default=15)
    args = parser.parse_args()
    if args.step == "prepare":
        prepare(args.out, args.rate, args.target)
    else:
        measure(args.out, args.turns)


def time_in_turns(calls: Mapping[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    """Return the median time of a call of each, in seconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name, call in calls.items():
            started, count = time.perf_counter(), 0
            while count < 3 or time.perf_counter() - started < 3e-3:
                call()
                count += 1
            if turn:  # the first one finds caches cold
                times[name].append((time.perf_counter() - started) / count)
    return {name: statistics.median(found) for name, found in times.items()}
