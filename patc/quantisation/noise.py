"""How much integers hurt each layer by itself: its signal-to-noise on the samples of a user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.codegen.program import find_main
from patc.dialects.pattern import RelayoutOp
from patc.passes.base import PassState
from patc.passes.formats.layer_weights import find_dense_weight
from patc.passes.ir.functions import top_level_ops
from patc.passes.ir.modules import clone_module
from patc.passes.ir.quantised import Known, multiples
from patc.passes.ir.targets import target_of
from patc.passes.kernels.dots import dots_of
from patc.passes.layers.registry import kind_of
from patc.passes.pattern_quantize import on_integers, type_in_range
from patc.running import returning
from patc.samples import Sample
from patc.targets import Target, get_target

_MOST = 200.0  # dB, for no noise at all


def find_noise(module: ir.Module, state: PassState, samples: Sequence[Sample]) -> list[tuple[Any, float]]:
    """Return layers with weights that have kernels on integers, on the module's target and on this machine, each with
    its signal-to-noise in dB: 10 log10 of the squares of its results, added up, over those of what rounding its inputs,
    weights and results changes in them. Inputs are those that it has where nothing else is rounded.

    Args:
        module: with ranges.
        state: of the module; stays as it is.
    """
    work, beside = clone_module(module), state.clone()
    targets = get_target("host"), target_of(module)
    ops, found = list(top_level_ops(find_main(module))), list[tuple[Any, ir.Value, ir.Value]]()
    with work.context:
        for op, copy in zip(ops, list(top_level_ops(find_main(work))), strict=True):
            made = _on_integers(copy, targets, beside)
            if made is not None:
                found.append((op, copy.result, made))
    if not found:
        return []
    run = returning(work, [value for _, *values in found for value in values], beside, "quantize")
    signals, noises = np.zeros(len(found)), np.zeros(len(found))
    for sample in samples:
        results = [array.astype(np.float64) for array in run(sample)]
        for number, (wanted, rounded) in enumerate(zip(results[::2], results[1::2], strict=True)):
            signals[number] += (wanted**2).sum()
            noises[number] += ((wanted - rounded) ** 2).sum()
    pairs = zip(found, signals, noises, strict=True)
    return [(op, _decibels(signal, noise)) for (op, *_), signal, noise in pairs]


def _decibels(signal: float, noise: float) -> float:
    return float(min(10 * np.log10(signal / noise), _MOST)) if noise > 0 < signal else _MOST


def _on_integers(op: Any, targets: Sequence[Target], state: PassState) -> ir.Value | None:
    """Build a layer with weights once more, on integers, with results in f32; None for one that has no kernels on one
    of the targets, the first of which runs it."""
    kind = kind_of(op)
    if kind is None or not kind.work(op).weights:
        return None
    if not all(kind.can_quantise(op, target, state) for target in targets):
        return None
    signed = dots_of(targets[0]).signed
    types = {number: type_in_range(op.operands[number], signed) for number in kind.activations(op)}
    weight, own = find_dense_weight(op, state), type_in_range(op.result, signed)
    if None in types.values() or weight is None:
        return None
    with ir.InsertionPoint(op), op.location:
        given = {number: RelayoutOp(input=op.operands[number], result=type_).result for number, type_ in types.items()}
        known = Known(multiples(weight.array, np.zeros(0, np.float32)))
        return on_integers(op, kind, given, own or op.result.type, known, state)
