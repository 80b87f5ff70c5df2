"""Speed of convolutions in packs beside single weights, bands and dense ones, in microseconds, and sizes of files.

    python experiments/packed_convolutions.py prepare --out DIR    # prunes and compiles: minutes
    python experiments/packed_convolutions.py measure --out DIR    # one thread, calls in turns, medians

Layers are pruned by magnitude from random weights, all at the same rate; a call copies its input into planes, too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

import patc
from patc.pruning import Block, GatherScatter, Plan, Unstructured, prune_

# Input channels, filters, rows and columns of a kernel and of a plane: ResNet's, and one of a gate.
SHAPES = [
    (64, 64, 3, 56), (128, 128, 3, 28), (256, 256, 3, 14), (512, 512, 3, 7), (64, 256, 1, 56), (256, 64, 1, 56),
    (1024, 256, 1, 14), (512, 2048, 1, 7), (960, 240, 1, 1),
]  # fmt: skip
SCHEMES = {"packs": GatherScatter(), "single weights": Unstructured(), "Block(16)": Block(16), "dense": None}


def _file(folder: Path, shape: Sequence[int], scheme: str) -> Path:
    return folder / f"{scheme.split('(')[0].replace(' ', '-')}-{'-'.join(map(str, shape))}.patc"


@torch.no_grad()
def prepare(folder: Path, rate: float, target: str) -> None:
    """Prune, compile, check and write all layers."""
    folder.mkdir(parents=True, exist_ok=True)
    for shape in SHAPES:
        channels, filters, kernel, size = shape
        for name, scheme in SCHEMES.items():
            torch.manual_seed(0)
            layer = nn.Conv2d(channels, filters, kernel, padding=kernel // 2, bias=False).eval()
            if scheme is not None:
                prune_(layer, Plan([("*", scheme, rate)]))
            x = torch.randn(1, channels, size, size)
            compiled = patc.compile(layer, (x,), threads=1, target=target)
            wanted = layer.double()(x.double())
            error = float((compiled(x) - wanted).abs().max() / wanted.abs().max())
            if error > 1e-4:
                raise SystemExit(f"{name} {shape}: expected an error of at most 1e-4, found {error:.1e}")
            compiled.save(_file(folder, shape, name))
        print(f"{shape}: ready", flush=True)


def measure(folder: Path, turns: int) -> None:
    """Time all, and print a table: microseconds, and in brackets KiB of a file."""
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"| channels -> filters, kernel, plane | {' | '.join(SCHEMES)} |\n| --- |{' ---: |' * len(SCHEMES)}")
    for shape in SHAPES:
        channels, filters, kernel, size = shape
        x = torch.randn(1, channels, size, size)
        models = {name: patc.load(_file(folder, shape, name)) for name in SCHEMES}
        times: dict[str, list[float]] = {name: [] for name in models}
        for turn in range(turns + 1):
            for name, model in models.items():
                started, count = time.perf_counter(), 0
                while count < 3 or time.perf_counter() - started < 3e-3:
                    model(x)
                    count += 1
                if turn:  # the first one finds caches cold
                    times[name].append((time.perf_counter() - started) / count)
        sizes = {name: os.path.getsize(_file(folder, shape, name)) for name in models}
        cells = [f"{1e6 * statistics.median(times[name]):.1f} ({sizes[name] / 1024:.0f})" for name in models]
        print(f"| {channels} -> {filters}, {kernel}x{kernel}, {size}x{size} | {' | '.join(cells)} |", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "measure"))
    parser.add_argument("--out", type=Path, required=True, help="folder of what prepare writes")
    parser.add_argument("--rate", type=float, default=10.0, help="of all weights to kept ones")
    parser.add_argument("--target", default="host")
    parser.add_argument("--turns", type=int, default=15)
    args = parser.parse_args(argv)
    if args.step == "prepare":
        prepare(args.out, args.rate, args.target)
    else:
        measure(args.out, args.turns)


if __name__ == "__main__":
    main()
