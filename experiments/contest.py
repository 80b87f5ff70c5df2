"""What experiments share that time patc beside its rivals: calls in turns in one run, each rival in its own process."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

import patc
from patc.bench.environments import find_interpreter
from patc.bench.peers import find_peer
from patc.bench.remote import RemoteContestant, Worker
from patc.bench.timing import Repeated, Times, take_turns
from patc.bench.worker import INPUTS, REFERENCE, read_arrays
from patc.bench.workload import Workload, leaves, relative_error


class Contest:
    """A net's contestants; leaving it ends the rivals' processes.

    Args:
        root: the folder with the inputs, and a folder of each kind of weights with what has to come out of it.
        threads: of each contestant.

    Attributes:
        found: what is known of each contestant, by name: `error`, after `run` also `median` and the quartiles `low`
            and `high`, in seconds.
    """

    def __init__(self, root: Path, threads: int) -> None:
        self._root, self._threads = root, threads
        self._inputs = [torch.from_numpy(array) for array in read_arrays(root / INPUTS)]
        self._timed: list[Any] = []
        self._processes = ExitStack()
        self.found: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._processes.close()

    def add_compiled(self, name: str, file: Path, kind: str = "dense") -> None:
        """Add a compiled model; `kind` is the folder of what it has to compute."""
        model = patc.load(file)
        wanted = read_arrays(self._root / kind / REFERENCE)
        self.found[name] = {"error": relative_error(leaves(model(*self._inputs)), wanted)}
        self._timed.append(Repeated(lambda: model(*self._inputs)))

    def add_rival(self, name: str, peer: str, workload: Workload, kind: str = "dense", target: str = "host") -> None:
        """Add a rival in a process of its own, with its environment where it has one.

        Raises:
            PatcError: it cannot run the net.
        """
        rival = find_peer(peer)
        python = find_interpreter(rival.own) if rival.own is not None else None
        worker = self._processes.enter_context(Worker(peer, self._root, rival.variables(target, self._threads), python))
        request = {"peer": peer, "kind": kind, "workload": asdict(workload), "folder": str(self._root)}
        answer = worker.request(do="load", threads=self._threads, **request)
        self.found[name] = answer
        self._timed.append(RemoteContestant(worker))

    def run(self, seconds: float, most: int = 200) -> None:
        """Time all in turns for about so many seconds, at least 8 and at most `most` calls each."""
        once = sum(float(np.median(contestant.run(2))) for contestant in self._timed)
        repetitions = int(np.clip(seconds / once * 4 / 5, 8, most))
        for entry, times in zip(self.found.values(), take_turns(self._timed, repetitions), strict=True):
            assert isinstance(times, Times), times
            low, high = times.quartiles
            entry |= {"median": times.median, "low": low, "high": high}


def keep_to_last_cpus(count: int) -> None:
    """Keep this process and those it starts to the last CPUs of the machine, which others use least."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])
