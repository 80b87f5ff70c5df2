"""`patc search`: a net that is as good as can be within a time."""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patc.diagnostics import PatcError, nearest
from patc.tools import arguments

if TYPE_CHECKING:
    from patc.search import Cost, Effort, Found, Task

TASKS = ("sr", "classify")
PRESETS = ("tiny", "small", "large")
_OF_SR = ("scale", "size")

_DESCRIPTION = """\
Search for a net: how deep, how wide and of which blocks, and what of it is pruned and how far. All candidates share the
weights of one net that is trained first. Each that is within --latency by the compiler's cost model is pruned, trained
for some steps and scored; the next one is chosen by those before it (Optuna). The best ones are measured on this
machine and trained further, the better ones of these further again, and so on to the best one. The same command goes on
with a search that was stopped; on a folder that machines share, several work on it.
"""
_EPILOG = """\
tasks:
  sr        super-resolution: pictures --scale times as large, of frames of --size
  classify  classes of pictures of 32x32

examples:
  patc search sr --scale 2 --size 640x360 --latency 33 -o found && patc compile found/net.pt2 -o net.patc
  patc search sr --scale 2 --size 640x360 --latency 33 --data pictures/ --preset large -o found
  patc search sr --size 320x180 --latency 33 --target aarch64-linux:cortex-a76 --threads 1 --clock 2.4 -o found
  patc search sr --scale 2 --size 640x360 --latency 33 --check -o checked
  patc search classify --data glyphs --latency 0.2 -o found
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(subparsers, "search", "search for a net within a time", _DESCRIPTION, _EPILOG)
    parser.add_argument("task", metavar="TASK", help=f"what for: {' or '.join(TASKS)}")
    parser.add_argument(
        "-o", "--output", metavar="DIR", required=True, help="folder of the search: net.pt2, dense.pt2, front.png, ..."
    )
    parser.add_argument(
        "--latency", metavar="MS", type=float, required=True, help="milliseconds that a call may take, at most"
    )
    parser.add_argument("--scale", metavar="N", type=int, help="sr: pixels for one of the input, along each axis (2)")
    parser.add_argument(
        "--size", metavar="WxH", type=arguments.frame_size, help="sr: size of the input to compile for (640x360)"
    )
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="sr: photographs (scikit-image's, and drawn pictures), drawings or a folder of pictures (photographs); "
        "classify: as of patc prune (glyphs)",
    )
    parser.add_argument("--preset", default="small", help=f"how much is trained: {', '.join(PRESETS)} (small)")
    parser.add_argument("--trials", metavar="N", type=int, help="candidates that are trained (what the preset says)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of all that is random (0)")
    parser.add_argument("--target", metavar="T", default="host", help=arguments.TARGET_HELP)
    parser.add_argument("--threads", metavar="N", type=int, help="threads that divide each layer (host: all cores; 1)")
    parser.add_argument("--clock", metavar="GHZ", type=float, help="of the target's cores (host: measured)")
    arguments.add_save_ir(parser)
    parser.add_argument(
        "--check",
        action="store_true",
        help="no search: compile and time 30 random candidates, and say how well the model ranks them",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: an argument is wrong, no candidate is so fast, data or Optuna are missing, or the folder is of
            another search, damaged or on a full disk.
    """
    from patc.files import check_folder

    _check(args)
    check_folder(args.output)
    cost = _make_cost(args)
    task, effort = _make_task(args)
    folder, limit = Path(args.output), args.latency / 1e3
    try:
        if args.check:
            _compare(task, cost, limit, folder, args.seed)
        else:
            from patc.search import search

            _print(task, search(task, cost, limit, folder, effort, args.seed, _tell), folder)
    except KeyboardInterrupt:
        print(f"patc: stopped; the same command goes on from what is in {folder}", file=sys.stderr, flush=True)
        raise
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.task not in TASKS:
        raise PatcError(f"expected a task of {', '.join(TASKS)}, got '{args.task}'{nearest(args.task, TASKS)}")
    if args.preset not in PRESETS:
        expected = f"expected --preset of {', '.join(PRESETS)}"
        raise PatcError(f"{expected}, got '{args.preset}'{nearest(args.preset, PRESETS)}")
    for option in _OF_SR:
        if args.task != "sr" and getattr(args, option) is not None:
            raise PatcError(f"expected the task sr together with --{option}, got {args.task}")
    arguments.check_threads(args.threads)
    for option, least in (("trials", 1), ("scale", 2), ("seed", 0)):
        value = getattr(args, option)
        if value is not None and value < least:
            raise PatcError(f"expected --{option} of {least} or more, got {value}")
    for option in ("latency", "clock"):
        value = getattr(args, option)
        if value is not None and not 0 < value < math.inf:
            raise PatcError(f"expected a finite --{option} of more than 0, got {value:g}")
    if args.scale is not None and args.scale > 4:
        raise PatcError(f"expected --scale of at most 4, got {args.scale}")


def _make_cost(args: argparse.Namespace) -> Cost:
    from patc.backends.host import available_threads
    from patc.options import make_options
    from patc.search import Cost
    from patc.search.cost import measure_clock

    is_host = args.target == "host"
    threads = args.threads or (available_threads() if is_host else 1)
    options = make_options(args.target, threads)
    if options.target.algorithms != "host":
        raise PatcError(f"expected a target whose cost model counts cycles of a CPU, got {args.target}")
    if args.clock is None and not is_host:
        raise PatcError(f"expected --clock, GHz of the cores, together with --target {args.target}, got none")
    clock = measure_clock() if args.clock is None else 1e9 * args.clock
    return Cost(args.target, threads, clock, save_ir=None if args.save_ir is None else Path(args.save_ir))


def _make_task(args: argparse.Namespace) -> tuple[Task, Effort]:
    from dataclasses import replace

    task: Task
    if args.task == "sr":
        from patc.search.super_resolution import EFFORTS, PHOTOGRAPHS, SuperResolution

        task = SuperResolution(args.scale or 2, args.size or (640, 360), args.data or PHOTOGRAPHS, args.seed)
    else:
        from patc.search.classification import EFFORTS, Classification

        task = Classification(args.data or "glyphs", args.seed)
    effort = EFFORTS[args.preset]
    return task, effort if args.trials is None else replace(effort, trials=args.trials)


def _compare(task: Task, cost: Cost, limit: float, folder: Path, seed: int) -> None:
    from patc.bench.sharing import Watch
    from patc.search.check import check, rank_correlation
    from patc.search.space import describe

    watch = Watch()
    found = sorted(check(task, cost, limit, folder, seed, _tell), key=lambda item: item.predicted)
    print("model ms        ms  ratio")
    for item in found:
        times = f"{1e3 * item.predicted:8.3f}  {1e3 * item.measured:8.3f}"
        print(f"{times}  {item.predicted / item.measured:5.2f}  {describe(item.point)}")
    ranks = rank_correlation([item.predicted for item in found], [item.measured for item in found])
    ratio = statistics.median(item.predicted / item.measured for item in found)
    words = f"the model says {ratio:.2f} of the time, in the median"
    print(f"rank correlation {ranks:.3f} over {len(found)} candidates; {words}")
    if warning := watch.warning():
        print(warning)


def _print(task: Task, found: dict[str, Found], folder: Path) -> None:
    from patc.search.space import describe

    for name, net in found.items():
        measured = "" if net.measured is None else f", measured {1e3 * net.measured:.3f} ms"
        print(f"{folder / name}.pt2: {describe(net.point)}")
        print(f"    {task.figure} {net.score:.2f}, {1e3 * net.seconds:.3f} ms by the model{measured}")
    for name, score in task.beside().items():
        print(f"beside: {name} {task.figure} {score:.2f}")


def _tell(words: str) -> None:
    print(words, flush=True)
