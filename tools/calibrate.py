"""`patc calibrate`: measures what the cost model has to know of this machine, and how far it is off."""

from __future__ import annotations

import argparse
import statistics
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from patc.diagnostics import PatcError
from patc.tools import arguments

if TYPE_CHECKING:
    from patc.calibration.check import Checked
    from patc.dialects.schedules import Schedule

_DESCRIPTION = """\
Measure what schedules depend on: multiply-adds and loads a cycle, their latency, the second-level cache. Of a CPU that
patc has no fitted costs of, the other costs of loops are fitted to the times of sixteen layers. The values are kept in
the cache folder for this CPU and version of patc, and from then on everything that is compiled for this machine is
scheduled by them. Takes a second, or three minutes where costs are fitted, on a machine that does nothing else.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(subparsers, "calibrate", "measure what schedules depend on", _DESCRIPTION)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--renew", action="store_true", help="measure again, and replace what was measured before")
    what.add_argument(
        "--check", action="store_true", help="time layers, and say how far the model is off; a minute or two"
    )
    parser.add_argument("--target", metavar="T", default="host", help="with --check: whose code to time (host)")
    arguments.add_save_ir(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: a target whose code this machine does not run, or the values cannot be kept.
    """
    if args.check:
        _check(args.target, args.save_ir)
        return 0
    if args.save_ir is not None:
        raise PatcError("expected --check, of whose layers the IR is written, together with --save-ir, got none")
    from patc.bench.machine import cpu_name
    from patc.calibration.layers import calibrate
    from patc.calibration.store import calibration_file, load, store
    from patc.targets import uncalibrated_host
    from patc.tools.console import compilation_progress

    target = uncalibrated_host()
    path = calibration_file(cpu_name(), target.lanes)
    found = None if args.renew else load(path)
    if found is None:
        with compilation_progress() as report:
            found = calibrate(target, lambda what: report(what, 0, 1))
        store(path, found)
    print(f"{cpu_name()}, kept in {path}")
    if found.shared:
        print("others used the machine meanwhile: --renew measures again")
    _print_values(target, found.apply(target))
    return 0


def _print_values(before: Any, after: Any) -> None:
    from patc.tools.console import make_console, make_table

    table = make_table(("", "built in", "measured"), 1)
    for old, new in ((before, after), (before.costs, after.costs)):
        for item in fields(old):
            values = getattr(old, item.name), getattr(new, item.name)
            if item.type in ("int", "float") and values[0] != values[1]:
                table.add_row(item.name, *(f"{value:g}" for value in values))
    make_console().print(table)


def _check(name: str, save_ir: str | None) -> None:
    from patc.bench.machine import find_caches
    from patc.bench.sharing import Watch
    from patc.calibration.check import check
    from patc.calibration.measure import measure_core
    from patc.instruments import SaveIr
    from patc.targets import get_target, host
    from patc.tools.console import compilation_progress, make_console, make_table

    watch = Watch()
    core = measure_core(host(), find_caches().level2)
    with compilation_progress() as report:
        instruments = SaveIr.into(save_ir)
        found = check(get_target(name), core.clock_hz, lambda layer: report(f"timing {layer}", 0, 1), instruments)
    table = make_table(("layer", "schedule", "model us", "us", "ratio", "best us"), 2)
    for item in found:
        times = (f"{1e6 * seconds:.0f}" for seconds in (item.modelled, item.measured))
        ratio, best = f"{item.modelled / item.measured:.2f}", f"{1e6 * item.least:.0f}"
        table.add_row(str(item.layer), _describe(item.chosen), *times, ratio, best)
    make_console().print(table)
    slow = sorted((item for item in found if not item.is_close), key=lambda item: item.least / item.measured)
    for item in slow:
        by = item.measured / item.least - 1
        print(f"{item.layer}: {_describe(item.chosen)} takes {by:.0%} more than {_describe(item.best)}")
    print(summarize(found))
    if core.is_shared or watch.warning():
        print(watch.warning() or "others used the machine meanwhile: times may be too long")


def _describe(schedule: Schedule) -> str:
    from patc.tools.console import describe_tile

    return f"{schedule.algorithm} {describe_tile(schedule)}"


def summarize(found: list[Checked]) -> str:
    """Return how far the model is off, in a line."""
    errors = [item.error for item in found]
    close = sum(item.is_close for item in found)
    return (
        f"the model is off by {statistics.median(errors):.0%} in the median and {max(errors):.0%} at worst; "
        f"the choice is within 5% of the best measured on {close} of {len(found)} layers"
    )
