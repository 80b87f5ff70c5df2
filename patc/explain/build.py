"""From compiled models to a report."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from patc import __version__
from patc.diagnostics import PatcError
from patc.explain.advice import advise
from patc.explain.compare import pair_layers
from patc.explain.report import ModelReport, Net, Report, ReportedLayer
from patc.layers import LayerReport
from patc.runtime.model import CompiledModel
from patc.runtime.program import Program, TensorInfo

if TYPE_CHECKING:
    from patc.bench.machine import Machine
    from patc.bench.peak import Peak
    from patc.samples import Sample

REPETITIONS = 20


def make_report(
    models: Sequence[tuple[str, CompiledModel | Report]],
    peaks: bool = False,
    measure: bool = False,
    samples: Callable[[Sequence[TensorInfo]], Sequence[Sample]] | None = None,
) -> Report:
    """Return the report of compiled models, or of reports of one model that were made before.

    Args:
        models: one or two, with the names that the user knows them by.
        peaks: whether to measure what this machine can do at most, which gives times and limits; takes about a second.
        measure: whether to run the models and time their layers.
        samples: returns inputs for such a model, of which it is timed with the first; None for random numbers.

    Raises:
        PatcError: a model cannot be run here, or a report is of two models.
    """
    from patc.bench.machine import this_machine

    saved = [model for _, model in models if isinstance(model, Report)]
    machine = saved[0].machine if len(saved) == len(models) else this_machine()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") and len(saved) < len(models) else None
    loads = [each for each in (load, *(item.load for item in saved)) if each is not None]
    reports = tuple(
        _take(name, model, machine) if isinstance(model, Report) else _report(name, model, peaks, measure, samples)
        for name, model in models
    )
    pairs = pair_layers(reports[0].nets[0], reports[1].nets[0]) if len(reports) == 2 else ()
    return Report(__version__, machine, max(loads, default=None), reports, pairs)


def _take(name: str, saved: Report, machine: Machine) -> ModelReport:
    """Return the model of a report that was made before; its name says where, if that was another machine."""
    if len(saved.models) != 1:
        raise PatcError(f"expected a report of one model, got one of {len(saved.models)}", name)
    place = "" if saved.machine == machine else f", on {saved.machine.cpu}"
    return replace(saved.models[0], name=f"{saved.models[0].name} ({Path(name).name}{place})")


def _report(
    name: str,
    compiled: CompiledModel,
    peaks: bool,
    measure: bool,
    samples: Callable[[Sequence[TensorInfo]], Sequence[Sample]] | None,
) -> ModelReport:
    from patc.backends.registry import find_backend

    program = compiled.program
    peak = _measure_peak(program) if peaks else None
    clock = None if peak is None else _clock(peak)
    nets = []
    for entry in program.entries:
        seconds: list[float | None] = [None] * len(entry.layers)
        if measure:
            alone = find_backend(entry.backend).load(replace(entry, variants=()))
            inputs = () if samples is None else samples(entry.inputs)[0]
            seconds = [item.seconds for item in alone.profile(*inputs, repetitions=REPETITIONS)]
        nets.append(_describe(name, entry, seconds, peak, clock))
    rest = program.target, program.features, program.threads, program.weights.nbytes, clock, peak, tuple(nets)
    return ModelReport(name, *rest)


def _measure_peak(program: Program) -> Peak | None:
    """Return the peak of as many cores as divide the layers; None for code of another machine."""
    from patc.backends.host import available_threads
    from patc.bench.peak import measure_peak
    from patc.targets import host_features

    runs_here = program.backend == "host" and host_features().issuperset(program.features)
    return measure_peak(program.threads) if runs_here and program.threads <= available_threads() else None


def _clock(peak: Peak) -> float:
    from patc.bench.limits import clock_hz
    from patc.targets import host

    return clock_hz(peak, host().fma_lanes)


def _describe(
    name: str, program: Program, seconds: Sequence[float | None], peak: Peak | None, clock: float | None
) -> Net:
    """Return the report of one entry of a model's program, whose layers took some time or were not measured."""
    footprint = program.weights.nbytes + program.arena_bytes
    layers = [
        _time_layer(layer, time, peak, clock, footprint, program.threads)
        for layer, time in zip(program.layers, seconds, strict=True)
    ]
    weigh = [item.cycles if item.seconds is None else item.seconds for item in layers]
    total = sum(weigh) or 1.0
    layers = [replace(item, share=part / total) for item, part in zip(layers, weigh, strict=True)]
    cycles = sum(item.cycles for item in layers)
    net = Net(
        inputs=program.inputs,
        outputs=program.outputs,
        block=program.block,
        own_bytes=program.own_bytes,
        arena_bytes=program.arena_bytes,
        buffers=program.buffers,
        layers=tuple(layers),
        cycles=cycles,
        modelled_seconds=None if clock is None else cycles / clock,
        seconds=None if None in seconds else sum(item.seconds or 0.0 for item in layers),
        generic_share=sum(item.share for item in layers if item.layer.op == "generic"),
        advice=(),
    )
    return replace(net, advice=advise(net, program.threads, program.features, name))


def _time_layer(
    layer: LayerReport, seconds: float | None, peak: Peak | None, clock: float | None, footprint: int, threads: int
) -> ReportedLayer:
    cycles = modelled_cycles(layer, threads)
    modelled = None if clock is None else cycles / clock
    limit_seconds, limit_bound, share_of_limit = None, "", None
    if peak is not None:
        from patc.bench.limits import layer_limit
        from patc.bench.machine import find_caches

        limit = layer_limit(layer, peak, find_caches(), footprint)
        limit_seconds, limit_bound = limit.seconds, limit.bound
        # A layer shorter than a tick of the counter still took some time.
        share_of_limit = limit.seconds / max(seconds or modelled or 0.0, 1e-9)
    rest = limit_seconds, limit_bound, share_of_limit, *_speedups(layer)
    return ReportedLayer(layer, cycles, modelled, seconds, 0.0, _bound(layer), *rest)


def _speedups(layer: LayerReport) -> tuple[float | None, float | None]:
    """Return what a layer's zeros could gain, and what its own way gains of that."""
    if layer.zeros is None:
        return None, None
    ways = () if layer.explanation is None else layer.explanation.alternatives
    own = [each for each in ways if each.schedule.algorithm == layer.algorithm]
    dense = [each for each in ways if each.kept_cycles is None]
    if not own or not dense:
        return layer.zeros.ideal, None
    fastest, chosen = (min(way.cycles if way.seconds is None else way.seconds for way in some) for some in (dense, own))
    return layer.zeros.ideal, fastest / max(chosen, 1e-9)


def modelled_cycles(layer: LayerReport, threads: int) -> float:
    """Return the cycles until all threads are done with a layer."""
    explanation = layer.explanation
    if explanation is None or explanation.sharing is None or not explanation.alternatives:
        return layer.predicted_cycles / threads
    return explanation.alternatives[0].cycles * explanation.sharing / threads


def _bound(layer: LayerReport) -> str:
    """Return what most of the modelled cycles are spent on; "" where nothing was modelled."""
    if layer.explanation is None:
        return ""
    for item in layer.explanation.alternatives:
        if item.schedule.algorithm == layer.algorithm and item.kept_cycles is not None:
            if 2 * item.kept_cycles < item.cycles:
                return "loop entries and stores"
            break
    return layer.explanation.bound
