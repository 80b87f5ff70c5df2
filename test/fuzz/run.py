"""Fuzzing: mutated files, random nets, and hours of use.

    python test/fuzz/run.py nets --budget 3000           # random nets against PyTorch in float64
    python test/fuzz/run.py artefact --budget 1h         # .patc files with recomputed digests
    python test/fuzz/run.py all --budget 10m --jobs 2    # every kind, ten minutes each
    python test/fuzz/run.py soak --budget 1h             # one process whose memory has to stay flat
    python test/fuzz/run.py replay test/fuzz/cases       # what once failed

A budget is a number of cases or a time. A case is drawn from its seed alone: --seed S --budget 1 draws it again. What
fails is made smaller and kept in --keep; the exit status is 1 then. Kinds are the files of `kinds/`. SIGINT and SIGTERM
end a run with the case that is running, and it says how those before ended.
"""

from __future__ import annotations

import argparse
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

from campaign import Budget, Campaign, Summary, read_case
from kinds import kind_names
from workers import Worker

CASES = Path(__file__).parent / "cases"
REFUSALS_SHOWN = 40


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", metavar="KIND", choices=[*kind_names(), "all", "soak", "replay"])
    parser.add_argument("files", metavar="FILE", nargs="*", type=Path, help="of replay: cases, or folders of them")
    parser.add_argument("--seed", type=int, default=0, help="the first one (0)")
    parser.add_argument("--budget", type=Budget.parse, default=Budget(cases=200), help="500, 90s, 20m or 1h (200)")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes (1)")
    parser.add_argument("--case-seconds", type=float, default=60.0, help="after which a case hangs (60)")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, default=CASES, help="for shrunk cases (test/fuzz/cases)")
    arguments = parser.parse_args()
    if arguments.what == "soak":
        from soak import soak

        return soak(arguments.budget, arguments.seed)
    if arguments.what == "replay":
        return _replay(arguments.files or [CASES], arguments.case_seconds)
    names = [arguments.what]
    if arguments.what == "all":
        names = [name for name in kind_names() if name != "nnsmith" or find_spec("nnsmith")]
    clean = True
    for number in (signal.SIGINT, signal.SIGTERM):  # in the background SIGINT is ignored
        signal.signal(number, signal.default_int_handler)
    for name in names:
        campaign = Campaign(
            name,
            arguments.seed,
            arguments.budget,
            arguments.case_seconds,
            arguments.keep,
            lambda line: print(line, flush=True),
        )
        summary = campaign.run(arguments.jobs)
        _report(name, summary)
        clean = clean and not summary.faults
        if campaign.is_stopped:
            break
    return 0 if clean else 1


def _report(name: str, summary: Summary) -> None:
    rate = 60 * summary.cases / max(summary.seconds, 1e-9)
    print(f"\n{name}: {summary.cases} cases in {summary.seconds:.0f} s, {rate:.0f} a minute")
    for title, counter in (("ended", summary.ended), ("refused", summary.refused), ("FAULT", summary.faults)):
        for what, count in counter.most_common(REFUSALS_SHOWN):
            print(f"  {count:6d}  {title}: {what}")
    for path in summary.kept:
        print(f"  kept {path}")
    sys.stdout.flush()


def _replay(places: list[Path], seconds: float) -> int:
    files = [file for place in places for file in (sorted(place.glob("*.json")) if place.is_dir() else [place])]
    worker = Worker(seconds)
    failed = 0
    for file in files:
        kind, case = read_case(file)
        result = worker.run(kind, case)
        failed += bool(result.fault)
        print(f"{file.name}: {'FAULT: ' + result.fault if result.fault else result.line or result.ended}")
        if result.fault:
            print(result.detail)
    worker.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
