"""Ranges of a net's activations: those of patc's own program in f32 on the samples of a user."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.codegen.program import find_main
from patc.diagnostics import PatcError, layer_name, nearest
from patc.dialects.attributes import i64
from patc.passes.base import Calibrate, PassState
from patc.passes.ir.functions import defined_functions, top_level_ops
from patc.passes.ir.modules import clone_module
from patc.passes.ir.ranges import KEPT, write_range
from patc.passes.ir.ranges import RANGES as ARGUMENTS
from patc.passes.ir.stored import BITS
from patc.passes.ir.targets import target_of
from patc.passes.layers.registry import kind_of
from patc.quantisation.correction import correct_biases
from patc.quantisation.noise import find_noise
from patc.quantisation.ranges import Extent, Histogram
from patc.running import returning
from patc.samples import Sample

_STAGE = "reorder"  # the last pass before `pattern-quantize`


def calibrator(
    samples: Sequence[Sample], ranges: str, keep: Sequence[str] = (), least_snr: float | None = None
) -> Calibrate:
    """Return what writes the ranges of a module's activations, see `PassState.calibrate`.

    Args:
        samples: as `check` returns them.
        ranges: one of `patc.quantisation.ranges.RANGES`.
        keep: names of layers that stay in f32, or patterns of them as of file names.
        least_snr: in dB, see `find_noise`: layers below it stay in f32.
    """

    def calibrate(module: ir.Module, state: PassState) -> None:
        _keep(module, keep)
        function = find_main(module)
        arguments, made = list(function.regions[0].blocks[0].arguments), _made(function)
        run = _program(module, state)
        extents = [Extent() for _ in (*arguments, *made)]

        def observe(observers: Sequence[Extent | Histogram]) -> None:
            for sample in samples:
                for observer, array in zip(observers, [*sample, *run(sample)], strict=True):
                    observer.observe(array)

        observe(extents)
        found = [(extent.low, extent.high) for extent in extents]
        for value, ends in zip((*arguments, *made), found, strict=True):
            if not np.all(np.isfinite(ends)):
                raise PatcError(
                    "expected finite activations to calibrate with, got NaN or infinite ones", value.location
                )
        if ranges == "histogram":
            histograms = [Histogram(extent) for extent in extents]
            observe(histograms)
            found = [histogram.best_range() for histogram in histograms]
        known = zip(made, found[len(arguments) :], strict=True)
        for _, group in itertools.groupby(known, lambda each: each[0].owner):
            results = list(group)
            low, high = min(ends[0] for _, ends in results), max(ends[1] for _, ends in results)
            write_range(results[0][0], low, high)
        given = [ir.DenseF32ArrayAttr.get(list(ends)) for ends in found[: len(arguments)]]
        function.attributes[ARGUMENTS] = ir.ArrayAttr.get(given)
        values = (*arguments, *made)
        seen = (dict(zip(values, [*sample, *run(sample)], strict=True)) for sample in samples)
        correct_biases(function, target_of(module), state, seen)
        for op, noise in find_noise(module, state, samples):
            state.remark(op, f"on integers its signal-to-noise is {noise:.1f} dB")
            if least_snr is not None and noise < least_snr:
                op.attributes[KEPT] = ir.UnitAttr.get()

    return calibrate


def weight_marker(bits: int, keep: Sequence[str] = ()) -> Calibrate:
    """Return what asks for the weights of a module's layers to be stored in so many bits, see `PassState.calibrate`.

    Args:
        keep: names of layers whose weights stay in f32, or patterns of them as of file names.
    """

    def mark(module: ir.Module, state: PassState) -> None:
        with module.context:
            _keep(module, keep)
            for op in (op for function in defined_functions(module) for op in top_level_ops(function)):
                kind = kind_of(op)
                if kind is not None and kind.work(op).weights and KEPT not in op.attributes:
                    op.attributes[BITS] = i64(bits)

    return mark


def _made(function: Any) -> list[ir.Value]:
    """Return the tensors that layers of a function make, in f32."""
    results = [value for op in top_level_ops(function) if kind_of(op) is not None for value in op.results]
    return [value for value in results if str(value.type.element_type) == "f32"]


def _program(module: ir.Module, state: PassState) -> Callable[[Sample], list[np.ndarray]]:
    """Return a function that computes all that the layers of @main make."""
    work = clone_module(module)
    return returning(work, _made(find_main(work)), state, _STAGE)


def _keep(module: ir.Module, keep: Sequence[str]) -> None:
    """Mark the layers that stay in f32.

    Raises:
        PatcError: a name fits none.
    """
    ops = [op for function in defined_functions(module) for op in top_level_ops(function) if kind_of(op) is not None]
    names = [layer_name(op.location) or "" for op in ops]
    for wanted in keep:
        fitting = [op for op, name in zip(ops, names, strict=True) if fnmatch.fnmatchcase(name, wanted)]
        if not fitting:
            raise PatcError(f"expected names of layers to keep, got '{wanted}'{nearest(wanted, filter(None, names))}")
        for op in fitting:
            op.attributes[KEPT] = ir.UnitAttr.get()
