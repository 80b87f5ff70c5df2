"""A process that runs one peer: requests and answers are lines of JSON on standard input and output.

    {"do": "export", "peer": ..., "kind": ..., "workload": {...}, "folder": ...}                 -> {}
    {"do": "load", "peer": ..., "kind": ..., "workload": {...}, "folder": ..., "threads": n}
        -> {"version": ..., "algorithm": ..., "error": ...}
    {"do": "run", "calls": n}                                                                    -> {"seconds": [...]}

An answer with "failure" says in one line why a request could not be fulfilled. Run as
`python -m patc.bench.worker`; `patc.bench.remote` is the other end.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from patc.bench.peers import Peer, find_peer
from patc.bench.timing import time_calls
from patc.bench.workload import Workload, relative_error

INPUTS, REFERENCE = "inputs.npz", "reference.npz"


def main() -> int:
    """Answer requests until standard input ends."""
    # What libraries print must not end up between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    server = Server()
    for line in sys.stdin:
        print(json.dumps(server.answer(json.loads(line))), file=answers, flush=True)
    return 0


class Server:
    """Answers requests about one peer."""

    def __init__(self) -> None:
        self._peer: Peer | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one request; whatever a peer raises becomes a "failure"."""
        try:
            return getattr(self, f"_{request.pop('do')}")(**request)
        except Exception as error:  # a rival's library may raise anything
            lines = str(error).strip().splitlines() or [""]
            return {"failure": f"{type(error).__name__}: {lines[0]}"}

    def _export(self, peer: str, kind: Any, workload: dict[str, Any], folder: str) -> dict[str, Any]:
        exporter, root = find_peer(peer).exporter, Path(folder)
        if exporter is not None:
            exporter(Workload(**workload).build(kind), read_arrays(root / INPUTS), root / kind)
        return {}

    def _load(self, peer: str, kind: Any, workload: dict[str, Any], folder: str, threads: int) -> dict[str, Any]:
        root = Path(folder)
        runner = find_peer(peer)(Workload(**workload), root / kind)
        runner.load(threads, read_arrays(root / INPUTS), kind)
        error = relative_error(runner.arrays(runner.run()), read_arrays(root / kind / REFERENCE))
        self._peer = runner
        return {"version": runner.version(), "algorithm": runner.algorithm(), "error": error}

    def _run(self, calls: int) -> dict[str, Any]:
        if self._peer is None:
            raise RuntimeError("expected a request to load before one to run")
        return {"seconds": time_calls(self._peer.run, calls)}


def read_arrays(path: Path) -> list[np.ndarray]:
    """Return the arrays that `write_arrays` wrote."""
    with np.load(path) as file:
        return [file[name] for name in file.files]


def write_arrays(path: Path, arrays: list[np.ndarray]) -> None:
    """Write arrays to one .npz file, in this order."""
    np.savez(path, *arrays)


if __name__ == "__main__":
    sys.exit(main())
