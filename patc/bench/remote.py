"""Peers in processes of their own, as this process sees them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import site
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from patc.bench.timing import keep_on_core
from patc.diagnostics import PatcError

TIMEOUT_SECONDS = 600.0
_EXIT_SECONDS = 5.0


class Worker:
    """A worker process (see `patc.bench.worker`); a context manager that ends it.

    Between requests the process is stopped: some libraries let idle threads spin for ever, on the cores of whoever is
    being timed.

    Args:
        name: what errors call it.
        home: a folder that stands for the user's home, so that no library finds or leaves settings there.
        environment: further variables.
        python: the interpreter, which needs nothing but numpy and what the peer needs; None for this process's.
        core: that it stays on; None for any.
    """

    def __init__(
        self,
        name: str,
        home: Path,
        environment: Mapping[str, str] | None = None,
        python: Path | None = None,
        core: int | None = None,
    ) -> None:
        self._name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self._process = subprocess.Popen(
            [python or sys.executable, "-m", "patc.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=home,
            env={**worker_environment(home, environment or {}), **(_where_patc_is(home) if python else {})},
            text=True,
        )
        if core is not None:
            keep_on_core(self._process.pid, core)
        self._answers: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        reader.start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def request(self, **values: Any) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            PatcError: the worker failed, ended or took longer than `TIMEOUT_SECONDS`.
        """
        assert self._process.stdin is not None
        self._signal("SIGCONT")
        try:
            self._process.stdin.write(json.dumps(values) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=TIMEOUT_SECONDS)
        except BrokenPipeError:
            line = ""
        except queue.Empty:
            self._process.kill()
            raise PatcError(f"{self._name}: no answer in {TIMEOUT_SECONDS:g} seconds") from None
        self._signal("SIGSTOP")
        if not line:
            raise PatcError(f"{self._name}: its process ended with status {self._status()}{self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "failure" in answer:
            raise PatcError(f"{self._name}: {answer['failure']}")
        return answer

    def close(self) -> None:
        """End the process."""
        self._signal("SIGCONT")
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _signal(self, name: str) -> None:
        """Stop or continue the process, where the system can."""
        number = getattr(signal, name, None)
        if number is not None:
            self._process.send_signal(number)  # does nothing once the process has ended

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._answers.put(line)
        self._answers.put("")

    def _status(self) -> int:
        return self._process.wait(_EXIT_SECONDS)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f" ({lines[-1]})" if lines else ""


class RemoteContestant:
    """A loaded peer in a worker process, to be timed."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def run(self, calls: int) -> list[float]:
        """Make one call that does not count and `calls` that do; return the seconds of these."""
        seconds: list[float] = self._worker.request(do="run", calls=calls)["seconds"]
        return seconds


def worker_environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a worker: this process's, with another home and telemetry refused."""
    folder = os.fspath(home)
    homes = dict.fromkeys(("HOME", "USERPROFILE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), folder)
    # Packages that are installed under the real home are still to be found.
    kept = {"PYTHONUSERBASE": site.getuserbase(), "DO_NOT_TRACK": "1"}
    return {**os.environ, **homes, **kept, **extra}


def _where_patc_is(folder: Path) -> dict[str, str]:
    """Return the variables by which an interpreter finds patc, but none of the packages installed beside it.

    Args:
        folder: gets a link to patc.
    """
    link, package = folder / "patc", Path(__file__).resolve().parents[1]
    if link.is_symlink() and link.resolve() != package:  # of a patc that was elsewhere
        link.unlink()
    with contextlib.suppress(FileExistsError):
        link.symlink_to(package)
    return {"PYTHONPATH": os.fspath(folder)}
