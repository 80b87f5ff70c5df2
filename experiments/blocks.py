"""Blocks beside dense weights and patterns: speed of linear layers and ResNet-18, cycles of these and of sequences.

    python experiments/blocks.py layers     # beside PyTorch; microseconds, one thread, calls in turns, medians
    python experiments/blocks.py resnet18   # at 8x, beside patterns at 8x; milliseconds, in the same way
    python experiments/blocks.py cycles     # of AArch64 code on one core, in an emulator: modelled, not measured

Weights are random and pruned by magnitude, but for MiniLM's, which are trained: what zeros cost in accuracy is not
asked here. Words behind `cycles` keep the rows whose names have one of them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from trials import run_main, time_in_turns

import patc
from patc import models
from patc.bench.cycles import model_cycles
from patc.bench.workload import Workload
from patc.pruning import Block, PatternSpec, Plan, prune_
from patc.targets import with_cpu

Calls = dict[str, Callable[..., Any]]

# Rows, inputs and outputs: a step of a recurrent net, and the layers of a small transformer.
SHAPES = [(1, 512, 512), (1, 1024, 1024), (1, 2048, 2048), (64, 512, 512), (128, 384, 1536), (128, 1536, 384)]
SCHEMES = {"Block(16) 4x": (16, 4.0), "Block(16) 8x": (16, 8.0), "Block(32) 4x": (32, 4.0), "Block(8) 4x": (8, 4.0)}
NET, COMPRESSION = "resnet18", 8.0
HERE = Path(__file__).resolve().parent


def _resnet18(pruning: PatternSpec | Plan | None) -> tuple[nn.Module, torch.Tensor]:
    net = models.build(NET)
    if pruning is not None:
        prune_(net, pruning)
    return net, torch.randn(models.find(NET).input_shape)


def _in_blocks(rows: int) -> tuple[nn.Module, torch.Tensor]:
    """All convolutions but the first in blocks; patterns leave the first and those of 1x1 dense."""
    return _resnet18(Plan([("layer*", Block(rows))], compression=COMPRESSION))


dense = partial(_resnet18, None)
patterns = partial(_resnet18, PatternSpec.for_compression(COMPRESSION))
blocks_of_4, blocks_of_8, blocks_of_16 = (partial(_in_blocks, rows) for rows in (4, 8, 16))

# Nets whose cycles are modelled, by the rows of the table: a file and what builds it.
MODELLED = {
    "LSTM 512, a step, dense": "sequences.py:lstm_step",
    "LSTM 512, a step, Block(16) 8x": "sequences.py:pruned_lstm_step",
    "GRU 512, a step, dense": "sequences.py:gru_step",
    "GRU 512, a step, Block(16) 8x": "sequences.py:pruned_gru_step",
    "MiniLM, 128 tokens, dense": "sequences.py:minilm",
    "MiniLM, 128 tokens, Block(32) 4x": "sequences.py:pruned_minilm",
    "ResNet-18, dense": "blocks.py:dense",
    "ResNet-18, patterns 8x": "blocks.py:patterns",
    "ResNet-18, Block(4) 8x": "blocks.py:blocks_of_4",
    "ResNet-18, Block(8) 8x": "blocks.py:blocks_of_8",
    "ResNet-18, Block(16) 8x": "blocks.py:blocks_of_16",
}


def compile_layers(shape: tuple[int, int, int], target: str) -> tuple[torch.Tensor, Calls]:
    """Return an input and what computes a linear layer, by name."""
    rows, inputs, outputs = shape
    torch.manual_seed(0)
    x, layer = torch.randn(rows, inputs), nn.Linear(inputs, outputs).eval()
    found: Calls = {"PyTorch": layer, "patc dense": patc.compile(layer, (x,), threads=1, target=target)}
    for name, (band, rate) in SCHEMES.items():
        layer = nn.Linear(inputs, outputs).eval()
        prune_(layer, Plan([("*", Block(band), rate)]))
        found[name] = patc.compile(layer, (x,), threads=1, target=target)
    return x, found


def compile_nets(target: str) -> tuple[torch.Tensor, Calls]:
    """Return an input and ResNet-18 in each of its forms, by name."""
    torch.manual_seed(0)
    forms = {"dense": dense, "patterns": patterns, "Block(4)": blocks_of_4, "Block(8)": blocks_of_8}
    built = {name: form() for name, form in (forms | {"Block(16)": blocks_of_16}).items()}
    x = built["dense"][1]
    return x, {name: patc.compile(net, (x,), threads=1, target=target) for name, (net, _) in built.items()}


def print_row(first: str, cells: Sequence[str]) -> None:
    print(f"| {first} | {' | '.join(cells)} |", flush=True)


@torch.no_grad()
def print_times(found: dict[str, tuple[torch.Tensor, Calls]], scale: float, turns: int) -> None:
    """Print the times of what is computed, a line for each input, in 1 / scale seconds."""
    names = list(next(iter(found.values()))[1])
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print_row("", names)
    print_row("---", ["---:"] * len(names))
    for title, (x, calls) in found.items():
        times = time_in_turns({name: partial(call, x) for name, call in calls.items()}, turns)
        print_row(title, [f"{scale * times[name]:.2f}" for name in names])


def print_cycles(words: Sequence[str], cpu: str) -> None:
    """Print the modelled cycles of nets on a core."""
    print_row(f"on a {cpu}", ["million cycles", "FMLA a cycle, of the peak", "error"])
    print_row("---", ["---:"] * 3)
    for title, model in MODELLED.items():
        if not words or any(word in title for word in words):
            found = model_cycles(Workload(str(HERE / model)), with_cpu("aarch64-linux", cpu))
            share = f"{found.rate:.2f}, {100 * found.rate / found.fma_peak:.0f}%"
            print_row(title, [f"{found.cycles / 1e6:.3f}", share, f"{found.error:.1e}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("layers", NET, "cycles"))
    parser.add_argument("words", nargs="*", default=[])
    parser.add_argument("--target", default="host")
    parser.add_argument("--cpu", default="cortex-a76", help="whose cycles are modelled")
    parser.add_argument("--turns", type=int, default=25)
    args = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    if args.step == "cycles":
        print_cycles(args.words, args.cpu)
    elif args.step == NET:
        print_times({NET: compile_nets(args.target)}, 1e3, args.turns)
    else:
        layers = {f"{shape[1]} -> {shape[2]}, {shape[0]} rows": compile_layers(shape, args.target) for shape in SHAPES}
        print_times(layers, 1e6, args.turns)


if __name__ == "__main__":
    run_main(main)
