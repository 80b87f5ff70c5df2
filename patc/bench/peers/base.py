"""What every peer does: export a network once, load it in a process of its own, run it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import mmap
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from patc.bench.environments import Environment
from patc.bench.workload import Kind, Workload

if TYPE_CHECKING:
    from torch import nn


ONEDNN_AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
Exporter = Callable[["nn.Module", Sequence[np.ndarray], Path], None]


class Peer(ABC):
    """A run time for float32 networks on this machine's CPU.

    Attributes:
        name: as reports call it.
        distribution: the package whose version is reported.
        modules: what must be importable beside patc, to export and to run.
        exporter: writes the network to a folder in the form that `load` reads; None for a peer that needs no files.
            It runs in a process that has torch; the process that measures has not.
        environment: variables of its process.
        kept_to: further ones by the x86-64 level that they keep it to, on a CPU that has more.
        own: the Python environment that it runs in, where its packages cannot be installed beside patc's.
        folder: where the exporter wrote.
        workload: what is measured.
    """

    name: ClassVar[str]
    distribution: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]
    exporter: ClassVar[Exporter | None] = None
    environment: ClassVar[dict[str, str]] = {}
    kept_to: ClassVar[dict[str, dict[str, str]]] = {}
    own: ClassVar[Environment | None] = None

    def __init__(self, workload: Workload, folder: Path) -> None:
        self.workload = workload
        self.folder = folder

    @classmethod
    def missing_modules(cls) -> list[str]:
        """Return those of `modules` that are not installed."""
        return [name for name in cls.modules if importlib.util.find_spec(name) is None]

    @classmethod
    def variables(cls, target: str, threads: int) -> dict[str, str]:
        """Return what its process finds in its environment.

        Args:
            target: whose code it is measured beside.
        """
        return {"OMP_NUM_THREADS": str(threads), **cls.environment, **cls.kept_to.get(target.partition(":")[0], {})}

    @classmethod
    def refusal(cls, workload: Workload) -> str | None:
        """Return why this peer cannot run the workload; None if it can."""
        return None

    @abstractmethod
    def load(self, threads: int, inputs: Sequence[np.ndarray], kind: Kind) -> None:
        """Load the network of `kind`, "dense" or "pruned", for so many threads and keep the inputs."""

    @abstractmethod
    def run(self) -> Any:
        """Run the network once on the inputs. This is what is timed."""

    @abstractmethod
    def arrays(self, outputs: Any) -> list[np.ndarray]:
        """Return what `run` returned as arrays."""

    @abstractmethod
    def algorithm(self) -> str:
        """Return how convolutions are computed, as exactly as the run time tells."""

    def version(self) -> str:
        """Return the version of the run time."""
        return importlib.metadata.version(self.distribution)


def export_onnx(model: nn.Module, inputs: Sequence[np.ndarray], folder: Path) -> None:
    """Write `model.onnx`, with its weights beside it."""
    import torch

    path = folder / "model.onnx"
    tensors = tuple(torch.from_numpy(array) for array in inputs)
    with torch.no_grad():
        torch.onnx.export(model, tensors, os.fspath(path), dynamo=True, verbose=False)


def count_in_file(path: Path, word: bytes) -> int:
    """Return how often a word occurs in a file, however large."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return sum(1 for _ in re.finditer(re.escape(word), view))


@contextmanager
def captured_output() -> Iterator[list[str]]:
    """Collect what native code prints to standard output; the list is filled at the end."""
    import ctypes

    lines: list[str] = []
    flush = ctypes.CDLL(None).fflush
    flush(None)
    saved = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            yield lines
        finally:
            flush(None)
            os.dup2(saved, 1)
            os.close(saved)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


def describe_kernels(library: str, names: Sequence[str]) -> str:
    """Return what a library says it runs: the kind of algorithm, and the names of its kernels.

    In oneDNN's names `jit` and `brgconv` are direct (implicit GEMM) convolutions, `wino` is Winograd and `gemm`
    is im2col.
    """
    kinds = [_kind_of_kernel(name) for name in names]
    return f"{library} {' and '.join(dict.fromkeys(kinds))} ({count_names(names)})"


def _kind_of_kernel(name: str) -> str:
    words = {"wino": "Winograd", "brg": "direct", "jit": "direct", "gemm": "im2col"}
    return next((kind for word, kind in words.items() if word in name), "other")


def count_names(names: Sequence[str]) -> str:
    """Return 'a x3, b' for three a and one b, the most frequent first."""
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} x{count}" if count > 1 else name for name, count in ordered)
