"""A worker process as its parent sees it: requests, answers, deaths and hangs."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outcome import Case

HERE = Path(__file__).parent
START_SECONDS = 300.0
TRACEBACK_SECONDS = 0.5
LOOK_SECONDS = 0.25


@dataclass(frozen=True)
class Result:
    """How a case ended.

    Attributes:
        case: what was run; None if drawing it failed.
        ended: a word of its kind, or "refused"; "" for a fault.
        line: of a refusal.
        fault: what must not happen; "" without a fault.
        detail: beside the fault.
    """

    case: Case | None
    ended: str = ""
    line: str = ""
    fault: str = ""
    detail: str = ""


class Worker:
    """A process that runs cases; a new one is started after each death.

    Args:
        seconds: that a case may take, as `_Patience` counts them; the first one has `START_SECONDS` more.
        script: what the process runs.
    """

    def __init__(self, seconds: float, script: Path = HERE / "worker.py") -> None:
        self.seconds, self.script = seconds, script
        self.process: subprocess.Popen[bytes] | None = None
        self.pending = b""

    def close(self) -> None:
        """End the process and remove its folder."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                assert stream is not None
                stream.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            self.process = None

    def draw(self, kind: str, seed: int) -> Result:
        """Draw and run the case of a seed."""
        drawn = self._ask({"kind": kind, "seed": seed})
        if "case" not in drawn:
            return _result(None, drawn)
        return _result(drawn["case"], self._listen())

    def run(self, kind: str, case: Case) -> Result:
        """Run a case."""
        return _result(case, self._ask({"kind": kind, "case": case}))

    def smaller(self, kind: str, case: Case) -> list[Case]:
        """Return smaller cases."""
        found: list[Case] = self._ask({"kind": kind, "smaller": case}).get("smaller", [])
        return found

    def _start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="patc-fuzz-"))
        command = [sys.executable, str(self.script), str(self.folder)]
        environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "2"}
        log = open(self.folder / "startup", "wb")  # noqa: SIM115 # closed below
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,  # an interrupt lets its case end
        )
        log.close()
        self.pending, self.fresh = b"", True

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.process is None:
            self._start()
        assert self.process is not None and self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # what it died of is found below
        return self._listen()

    def _listen(self) -> dict[str, Any]:
        """Return the next answer; a death or a hang is one too."""
        assert self.process is not None and self.process.stdout is not None
        patience = _Patience(self.process.pid, self.seconds + (START_SECONDS if self.fresh else 0))
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            piece = self.pending
            while b"\n" not in piece:
                if not selector.select(LOOK_SECONDS):
                    if patience.ends():
                        return self._interrupt(patience.seconds)
                    continue
                piece = os.read(self.process.stdout.fileno(), 1 << 16)
                if not piece:
                    return self._bury()
                self.pending += piece
        self.fresh = False
        line, _, self.pending = self.pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _interrupt(self, seconds: float) -> dict[str, Any]:
        """End a process that hangs, and say where it does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR1)  # prints a traceback
        time.sleep(TRACEBACK_SECONDS)
        detail = self._read_printed()
        self.close()
        return {"fault": "a hang", "detail": f"no end within {seconds:g} s\n{detail}"}

    def _read_printed(self) -> str:
        said = [self.folder / name for name in ("startup", "printed") if (self.folder / name).exists()]
        return "\n".join(path.read_bytes()[-4000:].decode(errors="replace") for path in said)

    def _bury(self) -> dict[str, Any]:
        assert self.process is not None
        status = self.process.wait()
        detail = self._read_printed()
        self.close()
        if self.fresh:
            raise RuntimeError(f"a worker does not start: {detail}")
        what = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return {"fault": f"the process died of {what}", "detail": detail}


class _Patience:
    """Counts the seconds that a process had. Those in which it could have run and others did are not among them, nor
    those in which it was stopped together with this one: on a busy machine a start of five seconds took six minutes.

    Args:
        seconds: that it may have.
    """

    def __init__(self, process: int, seconds: float) -> None:
        self.process, self.seconds, self.had = process, seconds, 0.0
        self.last, self.waited = time.monotonic(), _seconds_in_queue(process)

    def ends(self) -> bool:
        """Return whether the process had its time; to be asked every `LOOK_SECONDS`."""
        now, waited = time.monotonic(), _seconds_in_queue(self.process)
        self.had += max(0.0, min(now - self.last, 2 * LOOK_SECONDS) - (waited - self.waited))
        self.last, self.waited = now, waited
        return self.had >= self.seconds


def _seconds_in_queue(process: int) -> float:
    """Return for how long a process was ready to run and did not; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _result(case: Case | None, answer: dict[str, Any]) -> Result:
    return Result(case, **{key: answer[key] for key in ("ended", "line", "fault", "detail") if key in answer})
