"""Speed of linear layers of one row that skip the weights of zero inputs, beside dense ones, in microseconds.

    python experiments/zero_skip.py prepare --out DIR               # compiles: minutes
    python experiments/zero_skip.py measure --out DIR --threads 1   # calls in turns, medians; with nothing else running

Each layer is compiled twice: dense, and told by samples that three quarters of its inputs are zero. Both then get
inputs with other parts of zeros, at random places, none among them: what skipping loses there is what the guard costs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from contest import keep_to_last_cpus
from torch import nn

import patc
from patc.bench.timing import Repeated, take_turns

SIZES = ((25088, 4096), (4096, 4096), (2048, 2048), (1024, 1024), (512, 2048), (512, 512))  # inputs, outputs
ZEROS = (0.0, 0.5, 0.75, 0.9)
_TOLD = 0.75
_CALLS = {True: 40, False: 300}  # by whether a layer is large


def _inputs(size: int, zeros: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(int(100 * zeros))
    x = torch.randn(1, size, generator=generator)
    order = torch.randperm(size, generator=generator)
    x[0, order[: int(zeros * size)]] = 0
    return x


def _layer(inputs: int, outputs: int) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs).eval()


def _file(folder: Path, kind: str, inputs: int, outputs: int, threads: int) -> Path:
    return folder / f"{kind}-{inputs}x{outputs}-{threads}.patc"


def prepare(folder: Path, threads: int) -> None:
    """Compile and write all layers."""
    folder.mkdir(parents=True, exist_ok=True)
    for size in SIZES:
        layer, x = _layer(*size), _inputs(size[0], _TOLD)
        for kind, zeros in (("dense", None), ("zero-skip", x)):
            model = patc.compile(layer, (x,), threads=threads, zeros=zeros)
            model.save(_file(folder, kind, *size, threads))
            print(f"{size}, {threads} threads: {kind} by {model.layers[0].algorithm}", flush=True)


@torch.no_grad()
def measure(folder: Path, threads: int) -> None:
    """Time all, and print a table."""
    keep_to_last_cpus(threads)
    print(f"| inputs x outputs, {threads} threads | zeros | dense | zero-skip | dense / zero-skip | error |")
    print(f"| --- |{' ---: |' * 5}")
    for size in SIZES:
        models = [patc.load(_file(folder, kind, *size, threads)) for kind in ("dense", "zero-skip")]
        layer = _layer(*size).double() if size[0] * size[1] < 1 << 25 else None  # the largest takes seconds
        for zeros in ZEROS:
            x = _inputs(size[0], zeros)
            error = "" if layer is None else f"{_error(models[1](x), layer(x.double())):.1e}"
            calls = _CALLS[size[0] * size[1] >= 1 << 24]
            dense, skipped = (each.median for each in take_turns([_call(model, x) for model in models], calls))
            times = f"{1e6 * dense:.1f} | {1e6 * skipped:.1f} | {dense / skipped:.2f}"
            print(f"| {size[0]} x {size[1]} | {zeros:.0%} | {times} | {error} |", flush=True)


def _call(model: patc.CompiledModel, x: torch.Tensor) -> Any:
    return Repeated(lambda: model(x))


def _error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "measure"))
    parser.add_argument("--out", type=Path, required=True, help="folder of what prepare writes")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    {"prepare": prepare, "measure": measure}[args.step](args.out, args.threads)


if __name__ == "__main__":
    main()
