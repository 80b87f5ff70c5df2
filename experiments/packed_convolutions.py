"""Speed of convolutions in packs beside single weights, bands and dense ones, in microseconds, and sizes of files.

    python experiments/packed_convolutions.py prepare --out DIR    # prunes and compiles: minutes
    python experiments/packed_convolutions.py measure --out DIR    # one thread, calls in turns, medians

Layers are pruned by magnitude from random weights, all at the same rate; a call copies its input into planes, too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn
from trials import prepare_or_measure, time_in_turns

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
        times = time_in_turns({name: partial(model, x) for name, model in models.items()}, turns)
        sizes = {name: os.path.getsize(_file(folder, shape, name)) for name in models}
        cells = [f"{1e6 * times[name]:.1f} ({sizes[name] / 1024:.0f})" for name in models]
        print(f"| {channels} -> {filters}, {kernel}x{kernel}, {size}x{size} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    prepare_or_measure(__doc__, prepare, measure)
