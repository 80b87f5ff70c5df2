"""Hours of use in one process: models are compiled, saved, loaded, called from threads, pickled and dropped.

Memory, files, threads and temporary files have to stay as they are once everything has been used.
"""

from __future__ import annotations

import copy
import gc
import os
import pickle
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bases
import numpy as np
import torch
from campaign import Budget
from kinds.nets import make_input
from random_networks import build_network, draw_layers, make_others

import patc
from patc.diagnostics import PatcError
from patc.runtime.artefact import NO_SIGNATURE, SIGNATURE

CALLERS = 3
NETWORKS = 20
WARM_PART = 0.2
SAMPLE_SECONDS = 10.0
# Compiling is mostly torch.export, whose own caches grow a little; all else must not grow at all.
MOST_GROWTH_MB = 48.0
_MB = 1 << 20


@dataclass(frozen=True)
class Sample:
    """What the process has at one time.

    Attributes:
        seconds: since the start.
        memory: resident MB.
        files, threads: open ones.
        left: temporary files.
    """

    seconds: float
    memory: float
    files: int
    threads: int
    left: int


def take_sample(start: float, temporary: Path) -> Sample:
    """Return what the process has now, after a full collection."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files, threads = (len(os.listdir(f"/proc/self/{name}")) for name in ("fd", "task"))
    left = sum(1 for _ in temporary.iterdir())
    return Sample(time.monotonic() - start, pages * os.sysconf("SC_PAGE_SIZE") / _MB, files, threads, left)


class Soak:
    """The things that are done over and over, each followed by a check of what it gave."""

    def __init__(self, folder: Path, seed: int) -> None:
        torch.set_num_threads(1)
        self.folder, self.choices = folder, random.Random(seed)
        self.counts: dict[str, int] = {}
        model, self.inputs = bases.make("plain")
        self.model = model
        self.wanted = model(*self.inputs)
        for threads in (1, 2):
            patc.compile(model, self.inputs, threads=threads).save(folder / f"plain-{threads}.patc")
        self.data = (folder / "plain-1.patc").read_bytes()
        self.steps: list[tuple[Callable[[], None], int]] = [
            (self.load, 30), (self.call_from_threads, 10), (self.save, 10), (self.copy, 10), (self.refuse, 10), (self.compile, 3),
            (self.compile_wrong, 1),
        ]  # fmt: skip

    def step(self) -> None:
        """Do one of the things."""
        functions, weights = zip(*self.steps, strict=True)
        function = self.choices.choices(functions, weights)[0]
        function()
        self.counts[function.__name__] = self.counts.get(function.__name__, 0) + 1

    def _open(self) -> Any:
        return patc.load(self.folder / f"plain-{self.choices.choice([1, 2])}.patc")

    def _check(self, model: Any) -> None:
        found = model(*self.inputs)
        if not torch.allclose(found, self.wanted, rtol=0, atol=1e-4 * float(self.wanted.abs().max())):
            raise AssertionError("wrong numbers")

    def load(self) -> None:
        self._check(self._open())

    def call_from_threads(self) -> None:
        model, failed = self._open(), []

        def work() -> None:
            try:
                for _ in range(20):
                    self._check(model)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    def save(self) -> None:
        model = self._open()
        model.save(self.folder / "saved.patc")
        self._check(patc.load(self.folder / "saved.patc"))

    def copy(self) -> None:
        model = self._open()
        self._check(pickle.loads(pickle.dumps(model)))
        self._check(copy.deepcopy(model))

    def refuse(self) -> None:
        data = bytearray(self.data)
        place = self.choices.randrange(len(data) - len(NO_SIGNATURE))
        if place >= SIGNATURE:  # which nobody looks at without a key
            place += len(NO_SIGNATURE)
        data[place] ^= 1 << self.choices.randrange(8)
        path = self.folder / "damaged.patc"
        path.write_bytes(data)
        self._expect_error(lambda: patc.load(path))
        self._expect_error(lambda: self._open()(np.zeros(3, np.float32)))

    def compile(self) -> None:
        seed = self.choices.randrange(NETWORKS)  # torch.export remembers something of each net that it has not met
        choices = random.Random(seed)
        shape = [1, choices.choice([2, 4, 6]), choices.choice([6, 9]), choices.choice([7, 8])]
        network = build_network(draw_layers(choices, 3), shape, seed, None)
        inputs = [make_input("normal", shape, seed, "f32"), *make_others(network, shape, seed)]
        try:
            compiled = patc.compile(network, tuple(inputs), threads=choices.choice([1, 2]))
        except PatcError:
            return
        found = compiled(*inputs)
        wanted = network.double()(*(x.double() if x.is_floating_point() else x for x in inputs))
        if float((found - wanted).abs().max()) > 1e-3 * float(wanted.abs().max()):
            raise AssertionError("wrong numbers")

    def compile_wrong(self) -> None:
        self._expect_error(lambda: patc.compile(torch.nn.RReLU(), (torch.zeros(1, 2, 3, 3),)))

    @staticmethod
    def _expect_error(call: Callable[[], Any]) -> None:
        try:
            call()
        except PatcError:
            return
        raise AssertionError("expected an error, got none")


def soak(budget: Budget, seed: int) -> int:
    """Run for a budget (a time, or a number of steps), print samples, and return 0 if everything stayed flat."""
    with tempfile.TemporaryDirectory(prefix="patc-soak-") as name:
        folder, temporary = Path(name), Path(name) / "temporary"
        temporary.mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "cache")
        work = Soak(folder, seed)
        samples = _run(work, budget, temporary)
    print(", ".join(f"{name} {count}" for name, count in sorted(work.counts.items())))
    return _judge(samples)


def _run(work: Soak, budget: Budget, temporary: Path) -> list[Sample]:
    start, done = time.monotonic(), 0
    every = budget.cases // 50 if budget.cases is not None else None
    samples: list[Sample] = []
    while True:
        elapsed = time.monotonic() - start
        if done == budget.cases or (budget.seconds is not None and elapsed > budget.seconds):
            return samples
        work.step()
        done += 1
        due = done % max(every, 1) == 0 if every is not None else elapsed > SAMPLE_SECONDS * len(samples)
        if due:
            samples.append(take_sample(start, temporary))
            s = samples[-1]
            print(
                f"{s.seconds:7.0f} s  {done:7d} steps  {s.memory:8.1f} MB  {s.files} files  {s.threads} threads  {s.left} left"
            )
            sys.stdout.flush()


def _judge(samples: list[Sample]) -> int:
    """Compare the last tenth with the one after warm-up."""
    tenth = max(len(samples) // 10, 1)
    first = int(WARM_PART * len(samples))
    warm, end = samples[first : first + tenth], samples[-tenth:]
    flat = True
    for name, most in (("memory", MOST_GROWTH_MB), ("files", 0), ("threads", 0), ("left", 0)):
        before, after = (statistics.median(getattr(sample, name) for sample in part) for part in (warm, end))
        flat = flat and after - before <= most
        print(f"{name}: {before:g} after warm-up, {after:g} at the end, at most {most:g} more wanted")
    return 0 if flat else 1
