"""Run a benchmark: compile, start the peers, take turns, set layers beside their limits."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from patc import __version__
from patc.backends.host import available_cores, available_threads
from patc.bench import machine
from patc.bench.environments import Notify, make_interpreter
from patc.bench.limits import measure_layers
from patc.bench.peak import measure_peak
from patc.bench.peers import BASELINE, find_peer
from patc.bench.peers.base import count_names
from patc.bench.remote import RemoteContestant, Worker
from patc.bench.results import PATC, BenchResult, Entry, Missing, Run, count
from patc.bench.timing import Bound, Contestant, Repeated, Times, Together, take_turns
from patc.bench.worker import INPUTS, REFERENCE, read_arrays, write_arrays
from patc.bench.workload import Kind, Workload, leaves, reference, relative_error
from patc.compiler import compile_model
from patc.diagnostics import PatcError, first_line
from patc.loading import load
from patc.runtime.model import CompiledModel, LayerTime
from patc.targets import get_target, require_runnable
from patc.versions import versions

# Packages whose versions explain a result, beside those of the peers.
PACKAGES = ("torch", "torch-mlir", "llvmlite", "numpy")


@dataclass(frozen=True)
class Options:
    """What to measure, and how long.

    Attributes:
        threads: numbers of threads, one run each; of cores, with `throughput`.
        repetitions: counted calls of each contestant.
        peers: names in `patc.bench.peers.PEERS`, measured on every kind of weights. PyTorch eager on dense
            weights is always measured.
        layers: measure every layer too.
        tune: see `patc.compile`.
        throughput: measure models of one thread, one a core and all at the same time, instead of one model.
        save_ir: see `patc.compile`; several numbers of threads have folders in it.
        target: whose code is measured. The peers that can be are kept to what its CPUs have.
    """

    workload: Workload
    threads: tuple[int, ...] = (1,)
    repetitions: int = 40
    peers: tuple[str, ...] = ()
    layers: bool = False
    tune: str = "cost"
    throughput: bool = False
    save_ir: str | None = None
    target: str = "host"

    def check(self) -> None:
        """Refuse what cannot be measured, before anything takes time.

        Raises:
            PatcError: an option is out of range.
        """
        cores = available_threads()
        for threads in self.threads:
            if not 1 <= threads <= cores:
                raise PatcError(f"expected threads from 1 to {cores}, the cores of this machine, got {threads}")
        if self.throughput and self.layers:
            raise PatcError("expected --throughput without --layers: models on several cores are timed as a whole")
        if self.repetitions < 1:
            raise PatcError(f"expected repetitions of 1 or more, got {self.repetitions}")
        for name in self.peers:
            find_peer(name)
        self.workload.check()
        require_runnable(get_target(self.target))


@dataclass(frozen=True)
class Rival:
    """A peer on one kind of weights."""

    peer: str
    kind: Kind

    @property
    def name(self) -> str:
        return find_peer(self.peer).name


_BASELINE = Rival(BASELINE, "dense")
_ONNX_BASELINE = Rival("onnxruntime", "dense")


def run_bench(options: Options, notify: Notify = lambda _: None) -> BenchResult:
    """Measure what `options` ask for.

    Args:
        options: a compiled file has a number of threads of its own.
        notify: told in a few words what is going on.

    Raises:
        PatcError: an option is out of range, the model cannot be read or compiled, or PyTorch fails on it.
    """
    options.check()
    if options.workload.is_compiled:
        options = replace(options, threads=(_load_compiled(options.workload.model).program.threads,))
    with tempfile.TemporaryDirectory(prefix="patc-bench-") as folder:
        bench = _Bench(options, Path(folder), notify)
        bench.prepare()
        runs = tuple(bench.run(threads) for threads in options.threads)
    return BenchResult(
        workload=options.workload,
        throughput=options.throughput,
        images=bench.images,
        repetitions=options.repetitions,
        machine=machine.this_machine(),
        versions=versions([*PACKAGES, *(find_peer(name).distribution for name in options.peers)]),
        runs=runs,
        missing=tuple(bench.missing),
        target=options.target,
    )


class _Bench:
    """A benchmark in progress.

    Files that processes share are in `root`, those of one kind of weights in `root`/kind.
    """

    def __init__(self, options: Options, root: Path, notify: Notify) -> None:
        self._options = options
        self._workload = options.workload
        self._root = root
        self._home = root / "home"
        self._notify = notify
        # Peers that read the same files share them; a peer without an exporter needs none.
        self._exported: set[tuple[Any, Kind]] = {(None, kind) for kind in self._workload.kinds}
        self._baseline = _ONNX_BASELINE if self._workload.is_onnx else _BASELINE
        self._pythons: dict[str, Path] = {}  # of peers with an environment of their own
        self.missing: list[Missing] = []

    def prepare(self) -> None:
        """Write inputs and references, and export the network for the peers."""
        if self._workload.is_compiled:
            self._prepare_compiled()
            return
        import torch

        is_onnx = self._workload.is_onnx
        models = {} if is_onnx else {kind: self._workload.build(kind) for kind in self._workload.kinds}
        inputs = self._workload.make_inputs()
        self._tensors: tuple[Any, ...] = tuple(torch.from_numpy(array) for array in inputs)
        self.images = _count_images(inputs)
        self._home.mkdir()
        write_arrays(self._root / INPUTS, inputs)
        for kind in self._workload.kinds:
            (self._root / kind).mkdir()
        if is_onnx:
            self._model: Any = self._workload.model
            self._prepare_onnx(inputs)
        else:
            self._notify("computing the reference in float64")
            for kind, model in models.items():
                write_arrays(self._root / kind / REFERENCE, reference(model, inputs))
            self._model = self._workload.source(models[self._workload.measured_kind])
        refusals = {peer: self._refusal(peer) for peer in self._options.peers}
        wanted = [Rival(peer, kind) for peer in self._options.peers for kind in self._workload.kinds]
        others = [rival for rival in wanted if rival != self._baseline]
        self._rivals: list[Rival] = [
            self._baseline,
            *(rival for rival in others if self._export(rival, refusals[rival.peer])),
        ]

    def _prepare_compiled(self) -> None:
        """Load the file, which nothing else runs."""
        self._model = _load_compiled(self._workload.model)
        self._tensors = tuple(self._model.random_inputs())
        self.images = _count_images(self._tensors)
        self._rivals = []
        reason = "needs a model, not what patc compiled"
        self.missing += [Missing(find_peer(peer).name, None, None, reason) for peer in self._options.peers]

    def _prepare_onnx(self, inputs: Sequence[np.ndarray]) -> None:
        """Write the file for the peers that read such files, and what ONNX Runtime computes as the reference."""
        peer = find_peer(self._baseline.peer)
        if "onnxruntime" in peer.missing_modules():
            raise PatcError(
                "expected ONNX Runtime to measure an .onnx file beside, found none: pip install onnxruntime"
            )
        self._notify("computing the reference with ONNX Runtime")
        folder = self._root / self._baseline.kind
        self._workload.write_onnx(folder / "model.onnx")
        self._exported.add((peer.exporter, self._baseline.kind))
        runner = peer(self._workload, folder)
        try:
            runner.load(1, inputs, self._baseline.kind)
            outputs = runner.run()
        except Exception as error:  # whatever ONNX Runtime finds wrong with the file
            found = first_line(error).replace(f"{folder}{os.sep}", "")
            raise PatcError(f"ONNX Runtime, which computes the reference, fails: {found}", self._model) from None
        write_arrays(folder / REFERENCE, runner.arrays(outputs))

    def _refusal(self, name: str) -> str | None:
        """Return why a peer cannot run; otherwise the environment that it runs in is there."""
        peer = find_peer(name)
        if self._workload.is_onnx and (peer.exporter, self._baseline.kind) not in self._exported:
            return "needs a model of PyTorch, not an .onnx file"
        if absent := peer.missing_modules():
            return f"not installed: {', '.join(absent)} (pip install 'patc[bench]')"
        reason = peer.refusal(self._workload)
        if reason is None and peer.own is not None:
            try:
                self._pythons[name] = make_interpreter(peer.own, self._notify)
            except PatcError as error:
                return str(error)
        return reason

    def _export(self, rival: Rival, reason: str | None) -> bool:
        """Return whether the rival can run; otherwise it is noted as missing, with the reason."""
        export = (find_peer(rival.peer).exporter, rival.kind)
        if reason is None and export not in self._exported:
            self._notify(f"exporting {rival.kind} weights for {rival.name}")
            try:
                with self._worker(rival, self._exporting_python(rival)) as worker:
                    worker.request(do="export", **self._request(rival))
                self._exported.add(export)
            except PatcError as error:
                reason = str(error)
        if reason is not None:
            self.missing.append(Missing(rival.name, rival.kind, None, reason))
        return reason is None

    def _exporting_python(self, rival: Rival) -> Path | None:
        """Return the interpreter that exports: the peer's own where that has torch."""
        own = find_peer(rival.peer).own
        return self._pythons[rival.peer] if own is not None and own.has_torch else None

    def run(self, threads: int) -> Run:
        """Measure everything with one number of threads."""
        compiled = self._compile(1 if self._options.throughput else threads)
        self._notify("measuring the machine's peak")
        target = get_target(self._options.target)
        before = measure_peak(threads, target)
        entries = self._time_all(compiled, threads)
        self._notify("timing the layers")
        times = self._profile(compiled) if self._options.layers else []
        peak = before.best(measure_peak(threads, target))
        footprint = _footprint(compiled)
        return Run(
            threads=threads,
            peak=peak,
            footprint_bytes=footprint,
            weights=sum(layer.weights for layer in compiled.layers),
            kept_weights=sum(layer.kept_weights for layer in compiled.layers),
            entries=tuple(self._name_weights(compiled, entries)),
            layers=tuple(measure_layers(times, peak, machine.find_caches(), footprint, target.fma_lanes)),
        )

    def _compile(self, threads: int) -> CompiledModel:
        if self._workload.is_compiled:
            compiled: CompiledModel = self._model
            return compiled
        self._notify(f"compiling for {count(threads, 'thread')}")
        options = self._options
        folder = options.save_ir
        if folder is not None and len(options.threads) > 1 and not options.throughput:
            folder = os.path.join(folder, f"threads-{threads}")
        return compile_model(
            self._model,
            self._tensors,
            threads=threads,
            tune=options.tune,
            target=options.target,
            save_ir=folder,
        )

    def _name_weights(self, compiled: CompiledModel, entries: list[Entry]) -> list[Entry]:
        """Return the entries with what their weights are, where the model brings them: pruned ones have no dense
        counterpart then."""
        is_pruned = any(layer.kernels is not None or layer.kept_weights < layer.weights for layer in compiled.layers)
        if self._workload.pruning is not None or not is_pruned:
            return entries
        return [replace(entry, kind="pruned") for entry in entries]

    def _time_all(self, compiled: CompiledModel, threads: int) -> list[Entry]:
        with ExitStack() as workers:
            loaded = [self._load_patc(compiled, threads)]
            for rival in list(self._rivals):
                self._notify(f"loading {rival.name}, {rival.kind} weights, {count(threads, 'thread')}")
                try:
                    loaded.append(self._load(rival, threads, workers))
                except PatcError as error:
                    self._drop(rival, error, threads)
            results = take_turns(
                [item.contestant for item in loaded],
                self._options.repetitions,
                lambda number, rounds: self._notify(
                    f"timing with {count(threads, 'thread')}, round {number + 1} of {rounds}"
                ),
            )
        entries = []
        for item, result in zip(loaded, results, strict=True):
            if isinstance(result, Times):
                entries.append(item.entry(result))
            elif item.rival is None:
                raise result
            else:
                self._drop(item.rival, result, threads)
        return entries

    def _load_patc(self, compiled: CompiledModel, threads: int) -> _Loaded:
        kind = self._workload.measured_kind
        error = None
        if not self._workload.is_compiled:
            error = relative_error(leaves(compiled(*self._tensors)), read_arrays(self._root / kind / REFERENCE))
        names = [layer.algorithm for layer in compiled.layers if layer.kept_weights]
        contestant: Contestant = Repeated(lambda: compiled(*self._tensors))  # with torch tensors, as a user calls it
        if self._options.throughput:
            contestant = Together([Bound(contestant, core) for core in available_cores()[:threads]])
        return _Loaded(None, PATC, kind, __version__, count_names(names), error, contestant)

    def _load(self, rival: Rival, threads: int, workers: ExitStack) -> _Loaded:
        throughput = self._options.throughput
        each, cores = (1, available_cores()[:threads]) if throughput else (threads, [None])
        loaded = []
        for core in cores:
            worker = workers.enter_context(self._worker(rival, self._pythons.get(rival.peer), each, core))
            answer = worker.request(do="load", threads=each, **self._request(rival))
            loaded.append(RemoteContestant(worker))
        contestant = Together(loaded) if throughput else loaded[0]
        if not self._is_kept(rival):
            answer["algorithm"] += ", with all that the CPU has"
        return _Loaded(rival, rival.name, rival.kind, **answer, contestant=contestant)

    def _is_kept(self, rival: Rival) -> bool:
        """Return whether the rival uses no more of the CPU than patc's code does."""
        kept = self._options.target.partition(":")[0]
        return kept == "host" or kept in find_peer(rival.peer).kept_to

    def _drop(self, rival: Rival, error: PatcError, threads: int) -> None:
        """Note a rival that failed, and do not try it again; the baseline has to work."""
        if rival == self._baseline:
            raise error
        self._rivals.remove(rival)
        self.missing.append(Missing(rival.name, rival.kind, threads, str(error)))

    def _worker(self, rival: Rival, python: Path | None, threads: int = 1, core: int | None = None) -> Worker:
        environment = find_peer(rival.peer).variables(self._options.target, threads)
        return Worker(rival.name, self._home, environment, python, core)

    def _request(self, rival: Rival) -> dict[str, Any]:
        workload = asdict(self._workload.absolute())
        return {"peer": rival.peer, "kind": rival.kind, "workload": workload, "folder": str(self._root)}

    def _profile(self, compiled: CompiledModel) -> list[LayerTime]:
        return compiled.profile(*self._tensors, repetitions=self._options.repetitions)


@dataclass(frozen=True)
class _Loaded:
    """A contestant that computed the right numbers once; see `Entry` for the fields. patc is no rival."""

    rival: Rival | None
    name: str
    kind: Kind
    version: str
    algorithm: str
    error: float | None
    contestant: Contestant

    def entry(self, times: Times) -> Entry:
        return Entry(self.name, self.kind, self.version, self.algorithm, self.error, times)


def _count_images(inputs: Sequence[Any]) -> int:
    return int(inputs[0].shape[0]) if inputs and inputs[0].ndim else 1


def _load_compiled(path: str) -> CompiledModel:
    """Return the model in a file, which is for the CPU of this machine.

    Raises:
        PatcError: it cannot be read, or is for another machine.
    """
    compiled = load(path)
    if compiled.program.backend != "host":
        expected = "expected a file for the CPU of this machine"
        raise PatcError(f"{expected}, got one for {compiled.program.target}: patc run --profile measures it", path)
    return compiled


def _footprint(compiled: CompiledModel) -> int:
    """Return the bytes that one call touches: weights and the arena."""
    return int(compiled.program.weights.nbytes) + compiled.program.arena_bytes
