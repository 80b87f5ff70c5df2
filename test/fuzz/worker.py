"""The process that runs cases: one request a line on standard input, one answer a line on standard output.

    {"kind": "nets", "seed": 5}         draws a case of that seed, answers {"case": ...}, runs it, and says how it ended
    {"kind": "nets", "case": ...}       runs a given case
    {"kind": "nets", "smaller": ...}    answers with smaller cases

Whatever else is printed goes to a file, and is a fault: nothing that patc reads may make it print by itself.
"""

from __future__ import annotations

import faulthandler
import gc
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kinds import Kind, make_kind
from outcome import Case, Fault, Refusal, describe_exception

MOST_SMALLER = 60
MOST_MEMORY = 12 << 30  # of addresses: torch and MLIR reserve several GB that they never touch
# LLVM alone tells what is wrong with the value of a pass's option; commands put it into their line.
_OPTION_ERROR = re.compile(r"^.*: for the --\S+ option: .*\n", re.MULTILINE)
# The folder that code in a data file makes, if it ever runs.
MARKER = "payload-ran"


class Worker:
    """Runs cases; a kind is made when its first case comes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kinds: dict[str, Kind] = {}
        self.scratch = folder / "temporary"
        self.scratch.mkdir()
        tempfile.tempdir = str(self.scratch)
        os.environ["TMPDIR"] = str(self.scratch)
        os.environ["PATC_NO_CACHE"] = "1"
        os.environ["PATC_TRACEBACK"] = "1"  # an unexpected error is a fault, whatever line it ends in
        os.environ["XDG_CACHE_HOME"] = os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "cache")
        self.printed = open(folder / "printed", "w+b")  # noqa: SIM115 # as long as the process
        os.dup2(self.printed.fileno(), 1)
        os.dup2(self.printed.fileno(), 2)
        sys.stdout = sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115

    def answer(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the answers to a request."""
        kind = self._find(request["kind"])
        if "smaller" in request:
            yield {"smaller": list(itertools.islice(kind.smaller(request["smaller"]), MOST_SMALLER))}
            return
        case = request.get("case")
        if case is None:
            case = kind.draw(random.Random(request["seed"]))
            yield {"case": case}
        yield self.run(kind, case)

    def _find(self, name: str) -> Kind:
        if name not in self.kinds:
            shared = self.folder / name
            shared.mkdir()
            self.kinds[name] = make_kind(name, shared)
        return self.kinds[name]

    def run(self, kind: Kind, case: Case) -> dict[str, Any]:
        """Return how a case ended: {"ended": word, "line": refusal} or {"fault": what, "detail": text}."""
        folder = self.folder / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._forget_printed()
        os.chdir(folder)
        try:
            ended = self._judged(kind, case, folder)
        except Fault as fault:
            return {"fault": fault.what, "detail": fault.detail}
        finally:
            os.chdir(self.folder)
            shutil.rmtree(self.scratch)
            self.scratch.mkdir()
        return ended

    def _judged(self, kind: Kind, case: Case, folder: Path) -> dict[str, Any]:
        try:
            ended = {"ended": kind.run(case, folder)}
        except Refusal as refusal:
            ended = {"ended": "refused", "line": str(refusal)}
        except Fault:
            raise
        except BaseException as error:
            raise Fault(f"{describe_exception(error)} (in the fuzzer)", repr(error)) from error
        gc.collect(0)  # what is dropped may complain
        if any(self.folder.rglob(MARKER)):
            raise Fault("code ran")
        left = [path.name for path in (*folder.rglob(".*"), *self.scratch.iterdir())]
        if left:
            raise Fault("temporary files left behind", ", ".join(left))
        printed = _OPTION_ERROR.sub("", self._forget_printed())
        if printed:
            raise Fault("something was printed", printed)
        return ended

    def _forget_printed(self) -> str:
        sys.stderr.flush()
        self.printed.seek(0)
        text = self.printed.read(20_000).decode(errors="replace")
        self.printed.truncate(0)
        self.printed.seek(0)
        return text


def main() -> None:
    folder = Path(sys.argv[1])
    requests = os.fdopen(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # for commands that read standard input
    answers = os.fdopen(os.dup(1), "w")
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")  # as commands do
    worker = Worker(folder)
    faulthandler.register(signal.SIGUSR1)  # for cases that hang
    for line in requests:
        for answer in worker.answer(json.loads(line)):
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
