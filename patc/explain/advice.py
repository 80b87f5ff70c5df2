"""What would make a net faster, with an estimate of what it saves. Each rule looks at one layer, or at the whole net.

Estimates are parts of a layer's time, from the costs that `pattern-schedule` ranked its choices by; docs/report.md says
how near they come.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from patc.diagnostics import describe_seconds
from patc.explain.report import Advice, Net, ReportedLayer

if TYPE_CHECKING:
    from patc.dialects.schedules import Alternative

LEAST_SHARE = 0.005  # of the net's time, for an advice to be worth a line
_FEWER = 0.25  # part of the kept kernels that a further step of pruning takes away
_UNEVEN = 1.04  # time of all threads beside even shares, from which on it is worth a word
_UNEXPECTED = 1.5  # measured over modelled time, from which on the model is wrong about a layer
_FEWEST_TAPS, _MOST_TAPS = 4, 63  # of kernels with patterns
_LEAST_CHANNELS = 16  # of a layer that is worth pruning
_PRUNED = 8.0  # compression of layers that are not pruned yet; 2.25 of it by patterns
# Multiply-adds of loops over kept weights, beside those of dense loops.
_SPARSE_RATE = {"conv2d": 0.85, "linear": 0.55}
_SPLIT = "implicit-gemm"  # of layers with strides it is a way only where no layer with other strides reads their input
_HALF = ("avx512fp16", "fullfp16")  # features of CPUs that compute in half precision
_FLOAT_BYTES = 4
_PRUNING = {"prune": "", "prune-further": " further"}  # kinds of advice, and what they say
# What to do with files that `patc prune` does not take.
_AGAIN = {
    ".patc": "Prune the model and compile it again.",
    ".onnx": "Prune the module and export it again.",
    ".mlir": "Prune the module and export it again.",
}


@dataclass(frozen=True)
class _Saving:
    """An advice on a layer: the part of its time that it saves, at most where `is_bound`."""

    kind: str
    part: float
    text: str
    is_bound: bool = False


def advise(net: Net, threads: int, features: tuple[str, ...], model: str = "") -> tuple[Advice, ...]:
    """Return what would make a net faster, what saves most first.

    Args:
        threads: that divide each layer.
        features: of the CPU that the code is for.
        model: the name of the net or its file, which decides how it can be pruned.
    """
    again = _AGAIN.get(Path(model).suffix.lower())
    numbers = range(len(net.layers))
    found = [advice for number in numbers for advice in _about_layer(net, number, threads, features, not again)]
    found += [*_together(found), *_fewer_threads(net, threads)]
    kept = [advice for advice in found if advice.saves_share >= LEAST_SHARE]
    kept.sort(key=lambda advice: -advice.saves_share)
    first = next((place for place, advice in enumerate(kept) if advice.kind in _PRUNING), None)
    if again and first is not None:  # that of the others is the same
        kept[first] = replace(kept[first], text=f"{kept[first].text} {again}")
    return tuple(kept)


def _about_layer(net: Net, number: int, threads: int, features: tuple[str, ...], is_taken: bool) -> Iterator[Advice]:
    """Yield what is said of a layer of a net that `patc prune` takes, or not."""
    item = net.layers[number]
    for saving in (
        *_prune_further(item),
        *_prune(item, is_taken),
        *_share_evenly(item, threads),
        *_leave_generic_road(item),
        *_halve(item, features),
        *_measure(item),
    ):
        seconds = None if item.time is None else saving.part * item.time
        yield Advice(saving.kind, number, saving.text, saving.part * item.share, seconds, saving.is_bound)


# Pruned layers ------------------------------------------------------------------------------------


def _prune_further(item: ReportedLayer) -> Iterator[_Saving]:
    """Fewer kernels where kept ones are multiplied, or so many fewer that this becomes worth it."""
    layer = item.layer
    if layer.kernels is None or layer.explanation is None or not layer.kept_weights:
        return
    sparse = [each for each in layer.explanation.alternatives if each.kept_cycles is not None]
    chosen = _find_chosen(item)
    now = layer.weights / layer.kept_weights
    if chosen is None or not sparse:
        return
    if chosen.kept_cycles is not None:
        text = f"A quarter fewer kept kernels, {now:.1f}x to {now / (1 - _FEWER):.1f}x."
        yield _Saving("prune-further", _FEWER * chosen.kept_cycles / max(chosen.cycles, 1), text)
        return
    best = min(sparse, key=lambda each: each.cycles)
    kept = best.kept_cycles or 0
    room = chosen.cycles - (best.cycles - kept)
    if room <= 0 or not kept:
        return
    needed = now * kept / room
    twice = best.cycles - kept + kept * now / (2 * needed)
    text = (
        f"{chosen.schedule.algorithm} computes it dense: patterns win from {needed:.1f}x on, it has {now:.1f}x. "
        f"Estimated for {2 * needed:.1f}x."
    )
    yield _Saving("prune-further", 1 - twice / chosen.cycles, text)


def _together(found: list[Advice]) -> Iterator[Advice]:
    """What all layers save together that are to be pruned, or to be pruned further."""
    for kind, what in _PRUNING.items():
        each = [advice for advice in found if advice.kind == kind]
        if len(each) > 1:
            seconds = [advice.saves_seconds for advice in each if advice.saves_seconds is not None]
            total = sum(seconds) if len(seconds) == len(each) else None
            text = f"All of what is said below of pruning {len(each)} layers{what}, together."
            yield Advice(kind, None, text, sum(advice.saves_share for advice in each), total, False)


def _prune(item: ReportedLayer, is_taken: bool) -> Iterator[_Saving]:
    """Patterns and fewer kernels for a dense convolution, or blocks of weights for one of 1x1 or a linear layer."""
    layer, chosen = item.layer, _find_chosen(item)
    taps = math.prod(layer.kernel)
    is_known = taps == 1 or _FEWEST_TAPS <= taps <= _MOST_TAPS
    if layer.op not in _SPARSE_RATE or chosen is None or not is_known or layer.explanation is None:
        return
    if len(layer.shape) < 2:  # a file may say anything of its layers
        return
    filters = layer.shape[1]
    ways = {each.schedule.algorithm: each.cycles for each in reversed(layer.explanation.alternatives)}
    dense = ways.get("dense-direct") if layer.op == "conv2d" else chosen.cycles
    if not dense or filters < _LEAST_CHANNELS or layer.weights < filters * taps * _LEAST_CHANNELS:
        return
    if taps == 1 and max(layer.strides) > 1 and _SPLIT not in ways:  # nor is there one for blocks
        return
    blocks = f"blocks (--scheme block --layers {layer.name})" if is_taken else "blocks of weights"
    what = f"{blocks if taps == 1 else 'patterns and connectivity'} of"
    pruned = dense / _PRUNED / _SPARSE_RATE[layer.op]
    why = [remark.partition("stays dense: ")[2] for remark in layer.remarks if "stays dense: " in remark]
    unpruned = not why or why[0].startswith("kernels keep up to")
    reason = "Not pruned." if unpruned else f"Its zeros are not used: {why[0]}."
    text = f"{reason} Estimated for {what} {_PRUNED:g}x in all."
    yield _Saving("prune", 1 - pruned / max(chosen.cycles, 1), text)


# Other reasons ------------------------------------------------------------------------------------


def _share_evenly(item: ReportedLayer, threads: int) -> Iterator[_Saving]:
    """Layers of few rows, or of few filters, that threads cannot share."""
    sharing = None if item.layer.explanation is None else item.layer.explanation.sharing
    if sharing is None or sharing < _UNEVEN:
        return
    places = "x".join(map(str, item.layer.shape[2:] or item.layer.shape[1:]))
    text = (
        f"{threads} threads share {places} badly: {sharing:.2f} of the time of even shares. Other sizes of inputs, or "
        "several at once, divide better."
    )
    yield _Saving("threads", 1 - 1 / sharing, text, is_bound=True)


def _leave_generic_road(item: ReportedLayer) -> Iterator[_Saving]:
    """Operations that no layer of patc stands for."""
    layer = item.layer
    if layer.op != "generic":
        return
    notes = layer.explanation.notes if layer.explanation is not None else ()
    words = ", ".join(note.removeprefix("computes ") for note in notes) or "operations that patc has no layer for"
    least = 0.0 if item.limit_seconds is None or not item.time else min(1.0, item.limit_seconds / item.time)
    text = f"Generic road: {words}. A layer kind of one's own (patc.layers) could come as near as its limit."
    yield _Saving("generic", 1 - least, text, is_bound=True)


def _halve(item: ReportedLayer, features: tuple[str, ...]) -> Iterator[_Saving]:
    """Half precision for weights that come from far away."""
    layer = item.layer
    if item.limit_bound not in ("L3", "memory") or item.share_of_limit is None or set(_HALF).isdisjoint(features):
        return
    weights = _FLOAT_BYTES * layer.kept_weights
    if 2 * weights < layer.moved_bytes or layer.moved_bytes < weights:  # mostly activations; or half precision already
        return
    text = f"Its weights come from {item.limit_bound.replace('L3', 'the third-level cache')}: --dtype f16 halves them."
    yield _Saving("f16", min(1.0, item.share_of_limit) / 2, text)


def _measure(item: ReportedLayer) -> Iterator[_Saving]:
    """Layers that the model is wrong about."""
    if item.seconds is None or item.modelled_seconds is None or item.layer.op == "generic":
        return
    factor = item.seconds / max(item.modelled_seconds, 1e-9)
    is_measured = item.layer.explanation is None or any(
        each.seconds is not None for each in item.layer.explanation.alternatives
    )
    if factor >= _UNEXPECTED and not is_measured:
        text = f"Takes {factor:.1f} times what the model says: --tune measure tries other ways by the clock."
        yield _Saving("measure", 1 - 1 / factor, text, is_bound=True)


def _fewer_threads(net: Net, threads: int) -> Iterator[Advice]:
    """One thread, for nets that are too small for several."""
    alone = sum(item.layer.predicted_cycles for item in net.layers)
    if threads == 1 or not net.cycles or net.modelled_seconds is None or net.time is None:
        return
    seconds = alone * net.modelled_seconds / net.cycles
    if seconds < net.time:
        part = 1 - seconds / net.time
        text = f"--threads 1: the model expects {describe_seconds(seconds)} of one thread."
        yield Advice("one-thread", None, text, part, net.time - seconds, False)


def _find_chosen(item: ReportedLayer) -> Alternative | None:
    """Return what the layer is computed by, as it was ranked."""
    layer = item.layer
    ranked = () if layer.explanation is None else layer.explanation.alternatives
    return next((each for each in ranked if each.schedule.algorithm == layer.algorithm), None)
