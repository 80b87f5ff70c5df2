"""`patc.quantize`: compile a model to integers of eight bits, with ranges from samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from patc.backends.base import Options
from patc.backends.registry import find_backend
from patc.compiler import Report, compile_program
from patc.diagnostics import PatcError
from patc.frontend import ExampleInputs
from patc.instruments import SaveIr
from patc.options import make_options
from patc.quantisation.quantised import Quantised
from patc.runtime.model import CompiledModel
from patc.samples import as_samples, check
from patc.targets import Target


def quantize(
    model: Any,
    inputs: Any = None,
    *,
    target: str | Target = "host",
    threads: int | None = None,
    ranges: str = "histogram",
    keep: Sequence[str] = (),
    least_snr: float | None = None,
    weights_only: int | None = None,
    tune: str = "cost",
    report: Report | None = None,
    save_ir: str | os.PathLike[str] | None = None,
) -> CompiledModel:
    """Compile a model so that its layers compute on integers of eight bits where patc has kernels for them.

    The net is run in f32, on this machine, with all samples; from what its activations are then follow the ranges that
    integers stand for. Weights have a scale for each filter. The others of its layers stay in f32, with a remark in
    `CompiledModel.diagnostics`; inputs and outputs do, too. See docs/int8.md for the arithmetic.

    Args:
        model: as for `patc.compile`.
        inputs: what to calibrate with, of the shapes to compile for: a list has a sample each, anything else is a
            single one. A sample is a tensor or an array, or a tuple of them, one for each input. Some hundred samples
            that are like the inputs to come do. None where weights alone are integers, of a file that states all sizes.
        target, threads, tune, report, save_ir: as for `patc.compile`.
        ranges: "histogram" for the ranges with the least squared error, which cut off what is rare; "minmax" for those
            that all numbers fit.
        weights_only: 8 or 1, for layers that compute in f32 with weights of so many bits in memory, one scale a filter:
            fully connected and recurrent ones, whose time is that of reading weights where rows are few. A net is not
            run: one sample of any numbers says the shapes. On CPUs alone.
        keep: names of layers that stay in f32, or patterns of them as of file names, "layer4.*".
        least_snr: layers with weights that have a smaller signal-to-noise on integers by themselves, in dB, stay in
            f32. A remark says what each of them has.

    Raises:
        PatcError: a model, input or option that cannot be compiled, or samples that are missing, of other shapes or not
            finite; in one line.
    """
    options = make_options(target, threads, tune=tune)
    samples = [] if inputs is None else list(as_samples(inputs))
    if not samples and (weights_only is None or inputs is not None):
        raise PatcError("expected a sample or more to calibrate with, got none")
    example = tuple(_as_example(array, model) for array in samples[0]) if samples else None
    how = Quantised(lambda infos: check(samples, infos), ranges, tuple(keep), least_snr, weights_only)
    return quantize_model(model, example, how, options, report, save_ir)


def quantize_model(
    model: Any,
    example_inputs: ExampleInputs,
    how: Quantised,
    options: Options,
    report: Report | None = None,
    save_ir: str | os.PathLike[str] | None = None,
) -> CompiledModel:
    """Compile a quantised model; see `quantize` for the arguments.

    Args:
        example_inputs: as for `patc.compile`.

    Raises:
        PatcError: as `quantize`.
    """
    how.check(options.target)
    program, diagnostics = compile_program(
        model, example_inputs, options, report, instruments=SaveIr.into(save_ir), calibrate=how.calibrate
    )
    return find_backend(program.backend).load(program, diagnostics)


def _as_example(array: Any, model: Any) -> Any:
    """Return an input as the front end of a model takes it."""
    if isinstance(model, (str, os.PathLike)):
        return array
    import torch

    return torch.from_numpy(array)
