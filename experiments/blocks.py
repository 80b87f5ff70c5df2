"""Speed of block-pruned linear layers beside dense ones of patc and PyTorch, in microseconds.

    python experiments/blocks.py                  # one thread, calls in turns, medians

A layer is pruned by magnitude from random weights: what the columns hold does not matter for its speed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

import patc
from patc.pruning import Block, Plan, prune_

# Rows, inputs and outputs: a step of a recurrent net, and the layers of a small transformer.
SHAPES = [(1, 512, 512), (1, 1024, 1024), (1, 2048, 2048), (64, 512, 512), (128, 384, 1536), (128, 1536, 384)]
SCHEMES = {"Block(16) 4x": (16, 4.0), "Block(16) 8x": (16, 8.0), "Block(32) 4x": (32, 4.0), "Block(8) 4x": (8, 4.0)}


def compile_all(shape: tuple[int, int, int], target: str) -> tuple[torch.Tensor, dict[str, Callable[..., Any]]]:
    """Return an input and what computes a layer, by name."""
    rows, inputs, outputs = shape
    torch.manual_seed(0)
    x, dense = torch.randn(rows, inputs), nn.Linear(inputs, outputs).eval()
    found: dict[str, Callable[..., Any]] = {"PyTorch": dense}
    found["patc dense"] = patc.compile(dense, (x,), threads=1, target=target)
    for name, (band, rate) in SCHEMES.items():
        layer = nn.Linear(inputs, outputs).eval()
        prune_(layer, Plan([("*", Block(band), rate)]))
        found[name] = patc.compile(layer, (x,), threads=1, target=target)
    return x, found


@torch.no_grad()
def measure(x: torch.Tensor, found: dict[str, Callable[..., Any]], turns: int) -> dict[str, float]:
    """Return the median time of a call of each, in microseconds."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(turns + 1):
        for name, call in found.items():
            started = time.perf_counter()
            for _ in range(20):
                call(x)
            if turn:  # the first one finds caches cold
                times[name].append((time.perf_counter() - started) / 20)
    return {name: 1e6 * statistics.median(values) for name, values in times.items()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="host")
    parser.add_argument("--turns", type=int, default=25)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    compiled = [(shape, *compile_all(shape, args.target)) for shape in SHAPES]
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    names = list(compiled[0][2])
    print(f"| inputs -> outputs, rows | {' | '.join(names)} |\n| --- |{' ---: |' * len(names)}")
    for (rows, inputs, outputs), x, found in compiled:
        times = measure(x, found, args.turns)
        print(f"| {inputs} -> {outputs}, {rows} | {' | '.join(f'{times[name]:.1f}' for name in names)} |", flush=True)


if __name__ == "__main__":
    main()
