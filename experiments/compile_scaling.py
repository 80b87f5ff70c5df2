"""Time and memory that compiling takes, over nets of 10 to 1,000 convolutions: both should grow linearly.

python experiments/compile_scaling.py --kind mixed --plot docs/compile_time.png    # docs/compile_time.md
python experiments/compile_scaling.py --steps                                      # seconds of each step as well
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn

import patc

DEPTHS = (10, 30, 100, 300, 1000)


class Block(nn.Module):
    """Two convolutions; a mixed one has SiLU, a depthwise convolution, a concatenation and a slice as well."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.is_mixed = kind == "mixed"
        groups = channels if self.is_mixed else 1
        self.first = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        second = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
        self.second = nn.Sequential(second, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x))
        if not self.is_mixed:
            return torch.relu(x + y)
        half = x.shape[1] // 2
        return torch.cat([nn.functional.silu(y[:, :half]), x[:, half:] + y[:, half:]], 1)


def build(depth: int, kind: str) -> nn.Module:
    """Return a net of `depth` convolutions whose widths differ, so that not all layers have the same code."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    before = 3
    while 2 * len(layers) < depth:
        width = 16 + 8 * (len(layers) // 4 % 4)
        layers.append(
            nn.Sequential(nn.Conv2d(before, width, 1) if before != width else nn.Identity(), Block(width, kind))
        )
        before = width
    return nn.Sequential(*layers).eval()


def measure(depth: int, kind: str) -> dict[str, object]:
    """Compile a net in this process. Seconds are CPU time, which other processes hardly change."""
    model, x = build(depth, kind), torch.zeros(1, 3, 32, 32)
    patc.compile(build(1, kind), (x,))  # imports what is imported once
    steps = [("", time.process_time())]
    started = time.perf_counter()
    compiled = patc.compile(model, (x,), report=lambda step, *_: steps.append((step, time.process_time())))
    wall = time.perf_counter() - started
    ends = [*(begun for _, begun in steps[1:]), time.process_time()]
    seconds: Counter[str] = Counter()
    for (step, begun), end in zip(steps, ends, strict=True):
        seconds[step.removeprefix("pattern-") or "import"] += end - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
    return {"depth": depth, "layers": len(compiled.layers), "wall": wall, "megabytes": peak, "seconds": seconds}


def measure_all(depths: list[int], kind: str) -> list[dict]:
    """Measure each depth in a process of its own, for its memory."""
    rows = []
    for depth in depths:
        command = [sys.executable, __file__, "--kind", kind, "--only", str(depth)]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        print_row(rows[-1])
    return rows


def print_row(row: dict) -> None:
    total = sum(row["seconds"].values())
    print(
        f"| {row['depth']:5d} | {row['layers']:5d} | {total:7.1f} | {1e3 * total / row['depth']:6.0f} "
        f"| {row['wall']:7.1f} | {row['megabytes']:6.0f} |",
        flush=True,
    )


def plot(rows: list[dict], path: Path) -> None:
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5))
    depths = [row["depth"] for row in rows]
    left.loglog(depths, [sum(row["seconds"].values()) for row in rows], "o-")
    left.set(xlabel="convolutions", ylabel="CPU seconds")
    right.plot(depths, [row["megabytes"] for row in rows], "o-")
    right.set(xlabel="convolutions", ylabel="peak memory, MB")
    right.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("plain", "mixed"), default="plain")
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--steps", action="store_true", help="print the seconds of each step as well")
    parser.add_argument("--plot", type=Path, help="a .png file to write")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only, args.kind)))
        return
    print(
        "| convolutions | layers | CPU s | ms a convolution | wall s | peak MB |\n| --- | --- | --- | --- | --- | --- |"
    )
    rows = measure_all(args.depths, args.kind)
    for step in rows[-1]["seconds"] if args.steps else ():
        print(f"{step:20s}", *(f"{row['seconds'].get(step, 0):8.2f}" for row in rows))
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
