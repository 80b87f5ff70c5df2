"""What part of the FMA peak single layers reach on one core, with the vectors of each target.

    python experiments/kernels.py prepare --folder F      # compile; once
    python experiments/kernels.py measure --folder F      # the peak and all layers in turns, one thread
    python experiments/kernels.py loads                   # what loads leave of the peak

Each call of a program computes every layer of a group once, so that caches and branch predictors are as in a net.
A share is that of multiply-adds on kept weights and real pixels; the peak is that of a loop of multiply-adds in
registers of the target's width, run between the calls. Targets and groups after the folder restrict a step to these.
The loads of the last step are from the first-level cache and nothing waits for them: no loop with as many does better.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import patc
from patc.calibration import probes
from patc.calibration.held_out import HeldOut, build
from patc.calibration.measure import Bench
from patc.runtime.model import CompiledModel
from patc.targets import Target, get_target

TARGETS = ("host", "x86-64-v3")
SIZES = ((64, 56), (128, 28), (256, 14), (512, 7))
GROUPS = {
    "patterns-2x": [HeldOut(count, count, size, pruned=2.0) for count, size in SIZES],
    "patterns-4x": [HeldOut(count, count, size, pruned=4.0) for count, size in SIZES],
    "dense-3x3": [HeldOut(count, count, size) for count, size in SIZES],
    "1x1": [HeldOut(64, 256, 56, 1), HeldOut(512, 128, 28, 1), HeldOut(256, 1024, 14, 1), HeldOut(2048, 512, 7, 1)],
    "stem": [HeldOut(3, 64, 224, 7, 2), HeldOut(3, 32, 224, 3, 2), HeldOut(3, 64, 112)],
    "stride-2": [HeldOut(64, 128, 56, 3, 2), HeldOut(256, 512, 14, 3, 2), HeldOut(256, 512, 56, 1, 2)],
    "stride-2-patterns": [HeldOut(64, 128, 56, 3, 2, pruned=4.0), HeldOut(256, 512, 14, 3, 2, pruned=4.0)],
    "1x1-groups": [HeldOut(64, 256, 56, 1, pruned=2.0), HeldOut(256, 1024, 14, 1, pruned=2.0)],
    "depthwise": [HeldOut(144, 144, 56, groups=144), HeldOut(384, 384, 14, groups=384), HeldOut(96, 96, 112, 3, 2, 96)],
}
ROUNDS = 15
CALLS = 3  # of a program in a round


def prepare(folder: Path, targets: Sequence[str], groups: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in targets:
        for group in groups:
            module, inputs = build(GROUPS[group])
            patc.compile(module, inputs, target=name, threads=1).save(folder / f"{name}-{group}.patc")


def measure(folder: Path, targets: Sequence[str], groups: Sequence[str]) -> None:
    for name in targets:
        target = get_target(name)
        models = {group: patc.load(folder / f"{name}-{group}.patc") for group in groups}
        seconds: dict[str, list[list[float]]] = {group: [] for group in groups}
        peaks = []
        for _ in range(ROUNDS):
            peaks.append(peak(target))
            for group, model in models.items():
                seconds[group].append([time.seconds for time in profile(model)])
        best = max(peaks)
        print(
            f"{name}: peak {best / 1e9:.1f} GFLOP/s, median {statistics.median(peaks) / 1e9:.1f}, {target.lanes} lanes"
        )
        for group, model in models.items():
            samples = zip(*seconds[group], strict=True)
            for layer, report, times in zip(GROUPS[group], profile(model), samples, strict=True):
                median, schedule = statistics.median(times), report.layer.schedule
                tile = f"{schedule.algorithm} {schedule.rows}x{schedule.columns}, {schedule.filters} filters"
                share = report.layer.flops / median / best
                print(f"  {layer!s:44} {median * 1e6:8.1f} us {share:6.1%}  {tile}")


def loads(targets: Sequence[str]) -> None:
    for name in targets:
        lanes, chains = get_target(name).lanes, 24 if get_target(name).registers == 32 else 12
        kinds = {"alone": (0, 0)}
        for part in (4, 3, 2, 1):
            kinds[f"1/{part} aligned"] = chains // part, 0
            kinds[f"1/{part} crossing"] = chains // part, probes.LINE - 2 * lanes
        wanted = [
            probes.multiply_adds(lanes, chains, f"probe_{number}", *kind) for number, kind in enumerate(kinds.values())
        ]
        bench = Bench(wanted, 0)
        seconds = [bench.seconds(probe.name) for probe in wanted]
        print(f"{name}: {lanes} lanes, loads for each multiply-add, share of the peak")
        for kind, time in zip(kinds, seconds, strict=True):
            print(f"  {kind:14} {seconds[0] / time:6.1%}")


def profile(model: CompiledModel):
    times = model.profile(*model.random_inputs(), repetitions=CALLS)
    return [time for time in times if "conv2d" in time.layer.op]


def peak(target: Target) -> float:
    """Return multiply-adds in operations a second."""
    probe = probes.multiply_adds(target.lanes, target.registers * 3 // 4, "peak")
    return 2 * target.lanes / Bench([probe], 0).seconds("peak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "measure", "loads"))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("only", nargs="*", help=f"of {', '.join((*TARGETS, *GROUPS))}")
    args = parser.parse_intermixed_args()
    targets = [name for name in TARGETS if name in args.only] or TARGETS
    groups = [name for name in GROUPS if name in args.only] or list(GROUPS)
    if args.step == "loads":
        loads(targets)
    elif args.folder is None:
        parser.error(f"{args.step}: expected --folder")
    else:
        {"prepare": prepare, "measure": measure}[args.step](args.folder, targets, groups)


if __name__ == "__main__":
    main()
