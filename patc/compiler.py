"""`patc.compile`: from a model to code, through the passes of the target's backend."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.backends.base import Backend, Options
from patc.backends.registry import find_backend
from patc.context import make_context
from patc.diagnostics import Diagnostic, PatcError
from patc.failures import explained
from patc.frontend import ExampleInputs
from patc.frontend.shapes import entry_inputs, with_blocks
from patc.images_alone import require_alone, require_batches
from patc.instruments import Instrument, Progress, SaveIr
from patc.layers import CollectLayers, LayerReport, collect_layers
from patc.locks import compiling
from patc.options import make_options
from patc.passes.base import Calibrate, Measure, PassState
from patc.passes.ir.arena import WeightPool
from patc.passes.ir.modules import set_most_images
from patc.pipeline import Pipeline
from patc.runtime.artefact import digest_weights
from patc.runtime.description import describe, interface
from patc.runtime.model import CompiledModel
from patc.runtime.program import Program, TensorInfo
from patc.sources import Source, digest_sources, import_source
from patc.targets import Target, get_target

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Lowered:
    """What the last pass left of a model, and all of its program but the code."""

    module: ir.Module
    program: Program


def compile_model(
    model: Any,
    example_inputs: ExampleInputs = None,
    *,
    target: str | Target = "host",
    threads: int | None = None,
    tune: str = "cost",
    dtype: str = "f32",
    dynamic_batch: bool = False,
    streaming: bool = False,
    shapes: Sequence[Any] = (),
    zeros: Any = None,
    report: Report | None = None,
    save_ir: str | os.PathLike[str] | None = None,
) -> CompiledModel:
    """Compile a model to native code.

    The model is traced with `torch.export` and stays as it is; later changes of its weights do not change the compiled
    one. Convolutions whose zeros follow patterns are computed from their kept weights alone, the others dense, with a
    remark in `CompiledModel.diagnostics`. Equal models and options give equal code.

    Args:
        model: a torch.nn.Module in eval mode, a torch.export.ExportedProgram, or the path of a .pt2, .onnx, .mlir
            or .param file; an .mlir file has a function @main on tensors, of torch, linalg or pattern ops, whose
            arguments are called arg0, arg1, ..., a .param file is of ncnn, with its .bin file beside it.
        example_inputs: tensors of the shapes and element types to compile for, in order or by name; needed for a
            torch.nn.Module, and for a file that leaves sizes of its inputs open: tensors or arrays in its order, or
            shapes by the names of inputs, as in {"x": (1, 3, 640, 640)}.
        target: "host", "x86-64-v3", "x86-64-v4", "aarch64-linux", "aarch64-android", "spirv-vulkan" or a
            `patc.Target`. What this machine lacks can be compiled for and saved, but not run. `patc.library` makes
            libraries for C. For "spirv-vulkan" the model is a `patc.runtime.vulkan_model.VulkanModel`.
        threads: among which each layer is divided; None for all cores that this process may use, or for 1 where they
            are not those of the target.
        tune: "cost" chooses schedules by a cost model of the target; "off" does the same for now. "measure" times the
            schedules that the model likes best on this machine, so the target is "host"; what was measured is kept
            in the user's cache folder, and equal layers are not measured again.
        dtype: "f32", or "f16" for half precision between inputs and outputs, which stay as they are; for CPUs with
            FEAT_FP16 ("fullfp16") or AVX512-FP16, and GPUs with shaderFloat16 and storageBuffer16BitAccess. Tests hold
            results to 2e-2 of the output's largest magnitude.
        dynamic_batch: whether the model may be called with any number of images, the first dimension of all inputs and
            outputs; else with that of the example inputs alone. There is code for as many at once as these have, or 16
            where that is one, and code for one; a call divides its batch among them. The model is run to see that it
            takes images one by one, so that it is a torch.nn.Module, or a program exported with a dynamic batch; of an
            .onnx or .mlir file that leaves the batch open what was compiled is run, or the same for this machine.
        streaming: whether recurrent layers begin with states that are inputs, behind the model's own: "rnn_hidden" for
            a layer "rnn", and "rnn_cell" of an LSTM. The model returns what it does, and a dictionary of the states
            after the last step; `patc.Stream` keeps them between calls. For a torch.nn.Module whose recurrent layers go
            one way and begin with no state of its own; the example inputs are those of a call, of one step or more.
        shapes: further shapes of inputs to compile for, as (1, 3, 320, 320), or for several inputs {"x": (1, 8, 64),
            "mask": (1, 8)} or a tuple of shapes. A call takes the code for the shapes of its inputs; weights that all
            of it reads in the same order are there once.
        zeros: samples of the inputs to come, as `patc.quantize` takes them. The net is run with them to see how many
            elements of each layer's input are zero: layers of one row (one token, one step of a recurrent layer) that
            have many of them then read only the weights of the others. Results are the same for any inputs.
        report: called as report(step, index, total) before each step; steps are "import", the passes and "codegen",
            the first two of them for each shape. "measure" adds "measuring LAYER" for each layer that it times, with
            the index of "pattern-schedule".
        save_ir: a folder for the IR after the import and after each pass, as `02-pattern-raise.mlir`, without weights.

    Raises:
        PatcError: a model, input or option that cannot be compiled, in one line.
        InternalError: a fault of patc, with the folder to report it with.
    """
    options = make_options(target, threads, dtype, tune)
    if streaming:
        model, example_inputs = take_states(model, example_inputs, dynamic_batch)

    counter = find_counter(zeros, dynamic_batch, shapes)

    def program_of(folder: Any, report: Report | None) -> tuple[Program, list[Diagnostic]]:
        instruments = SaveIr.into(folder)
        return compile_program(
            model, example_inputs, options, report, None, dynamic_batch, shapes, instruments, counter
        )

    call = {"model": f"{model!s:.100000}", "options": options, "dynamic_batch": dynamic_batch, "shapes": shapes}
    with explained(call, lambda folder: program_of(folder, None)):
        program, diagnostics = program_of(save_ir, report)
    return find_backend(program.backend).load(program, diagnostics)


def find_counter(
    zeros: Any, dynamic_batch: bool, shapes: Sequence[Any]
) -> Callable[[Sequence[TensorInfo]], Calibrate] | None:
    """Return what counts zeros for a model of given inputs; see `compile_model`.

    Args:
        zeros: samples, or a function that returns them for such inputs; None to count nothing.

    Raises:
        PatcError: the model is for several shapes.
    """
    if zeros is None:
        return None
    if dynamic_batch or shapes:
        found = "dynamic_batch" if dynamic_batch else "shapes"
        raise PatcError(f"expected zeros or {found}, got both: samples are of one shape")
    from patc.samples import as_samples, check
    from patc.zeros import zero_counter

    take = zeros if callable(zeros) else lambda infos: check(as_samples(zeros), infos)
    return lambda infos: zero_counter(take(infos))


def take_states(model: Any, example_inputs: ExampleInputs, dynamic_batch: bool) -> tuple[Any, ExampleInputs]:
    """Return a module that takes and returns the states of its recurrent layers; see `compile_model`."""
    if dynamic_batch:
        raise PatcError("expected streaming or dynamic_batch, got both: states are of one batch")
    from patc.frontend.streaming import stepwise

    return stepwise(model, example_inputs)


@compiling()
def compile_program(
    model: Any,
    example_inputs: ExampleInputs,
    options: Options,
    report: Report | None = None,
    backend: Backend | None = None,
    dynamic_batch: bool = False,
    shapes: Sequence[Any] = (),
    instruments: Sequence[Instrument] = (),
    calibrate: Callable[[Sequence[TensorInfo]], Calibrate] | None = None,
) -> tuple[Program, list[Diagnostic]]:
    """Compile a model to a program, and return it with what the passes remarked. See `compile_model`.

    Args:
        backend: None for that of the target.
        instruments: what to tell about the import, as a pass called "import", and about each pass.
        calibrate: returns what finds the ranges of activations, of a model with such inputs; see `PassState`.
    """
    backend = backend or find_backend(options.target.backend)
    model, example_inputs, entries = _entries(model, example_inputs, dynamic_batch, shapes)
    pipeline = backend.pipeline(options)
    done, steps = 0, len(entries) * (len(pipeline.passes) + 1) + 1

    def tell(step: str, index: int) -> None:
        if report is not None:
            report(step, done + index, steps)

    scheduling = pipeline.stages.index("schedule")
    measure = find_measure(options, lambda layer: tell(f"measuring {layer}", scheduling))
    progress = Progress(lambda step, index, _: tell(step, index + 1))
    context, pool = make_context(), WeightPool()
    lowered: list[Lowered] = []
    diagnostics: list[Diagnostic] = []
    for inputs in entries:
        tell("import", 0)
        source = replace(_import(model, inputs, context, instruments), dynamic_batch=dynamic_batch)
        if dynamic_batch and source.inputs[0].shape[:1] > (1,):
            set_most_images(source.module, source.inputs[0].shape[0])
        state = PassState(source.parameters, measure=measure, pool=pool)
        state.calibrate = None if calibrate is None else calibrate(source.inputs)
        layers = run_passes(pipeline, source.module, state, [progress, *instruments])
        known = lowered[-1].program.weights.nbytes if lowered else 0
        lowered.append(lower_source(source, state, layers, options, backend, known))
        if len(lowered) > 1:  # the weights of the one before are among its own
            lowered[-2] = replace(lowered[-2], program=lowered[-2].program.with_weights(np.zeros(0, np.uint8)))
        said = {str(item) for item in diagnostics}
        diagnostics += [item for item in state.diagnostics if str(item) not in said]
        done += len(pipeline.passes) + 1
    del pool, source, state  # code generation takes the most memory
    tell("codegen", 0)
    program = generate_code(lowered, options, backend)
    if dynamic_batch and isinstance(model, (str, os.PathLike)):
        _require_images_alone(program, model, example_inputs, options)
    return program, diagnostics


def _entries(
    model: Any, example_inputs: ExampleInputs, dynamic_batch: bool, shapes: Sequence[Any]
) -> tuple[Any, ExampleInputs, list[ExampleInputs]]:
    """Return what is compiled: a model, its example inputs, and those of each entry of its code."""
    if not dynamic_batch:
        return model, example_inputs, entry_inputs(model, example_inputs, shapes)
    from patc.frontend.batching import any_batch

    model, example_inputs = any_batch(model, example_inputs)
    return model, example_inputs, with_blocks(entry_inputs(model, example_inputs, shapes))


@compiling()
def digest_model(
    model: Any,
    example_inputs: ExampleInputs = None,
    *,
    dynamic_batch: bool = False,
    streaming: bool = False,
    shapes: Sequence[Any] = (),
) -> str:
    """Return the digest of what is imported of a model: with the options it decides about the code. For the arguments
    and errors see `compile_model`."""
    if streaming:
        model, example_inputs = take_states(model, example_inputs, dynamic_batch)
    model, _, entries = _entries(model, example_inputs, dynamic_batch, shapes)
    return digest_sources(import_source(model, inputs, make_context()) for inputs in entries)


def _import(
    model: Any, example_inputs: ExampleInputs, context: ir.Context, instruments: Sequence[Instrument]
) -> Source:
    source = import_source(model, example_inputs, context)
    for instrument in instruments:
        instrument.after("import", source.module, 0.0)
    return source


def _require_images_alone(program: Program, model: Any, example_inputs: ExampleInputs, options: Options) -> None:
    """Refuse a program of a file that mixes the images of a batch, by running it, or the same for this machine."""
    require_batches(program)
    if options.target == get_target("host"):
        require_alone(find_backend(program.backend).load(program))
    else:
        compile_program(model, example_inputs, make_options("host", 1), dynamic_batch=True)


def run_passes(
    pipeline: Pipeline, module: ir.Module, state: PassState, instruments: Sequence[Instrument] = ()
) -> list[LayerReport]:
    """Run passes on a module, in place, and return its layers; none where they are dissolved into loops already."""
    layers = CollectLayers(state, collect_layers(module, state))
    pipeline.run(module, state, [*instruments, layers])
    return layers.found


def lower_source(
    source: Source,
    state: PassState,
    layers: Sequence[LayerReport],
    options: Options,
    backend: Backend,
    known_bytes: int = 0,
) -> Lowered:
    """Return a source that has been through all passes, ready for code generation; its parameters are dropped.

    Args:
        known_bytes: of the weights of other shapes, which those of this one are added to.
    """
    program = Program(
        code=b"",
        weights=np.zeros(0, np.uint8),
        inputs=source.inputs,
        outputs=source.outputs,
        structure=source.structure,
        arena_bytes=0,
        backend=options.target.backend,
        target=options.target.name,
        features=options.target.features,
        threads=options.threads,
        layers=tuple(layers),
        dynamic_batch=source.dynamic_batch,
    )
    program = backend.complete(source.module, state, program)
    program = replace(program, own_bytes=program.weights.nbytes - known_bytes)
    state.parameters.keep_only(set())
    return Lowered(source.module, program)


def generate_code(lowered: Sequence[Lowered], options: Options, backend: Backend) -> Program:
    """Return the program of what `lower_source` returned for each shape; the modules are lowered in place.

    Args:
        lowered: the weights of the last one are those of all.
    """
    first, *others = (item.program for item in lowered)
    program = replace(first, variants=tuple(others)).with_weights(lowered[-1].program.weights)
    description, digest = describe(program), digest_weights(program.weights)
    return program.with_code(
        [
            backend.generate(item.module, interface(description, digest, number), options.target)
            for number, item in enumerate(lowered)
        ]
    )


def host_pipeline(target: str | Target, threads: int | None = None, dtype: str = "f32") -> Pipeline:
    """Return the passes between import and code generation. See `compile_model` for the arguments.

    Raises:
        PatcError: an unknown target or element type, or the two do not go together.
    """
    options = make_options(target, threads, dtype)
    return find_backend(options.target.backend).pipeline(options)


@compiling()
def lower_model(
    model: Any,
    example_inputs: ExampleInputs,
    pipeline: Pipeline,
    measure: Measure | None = None,
    instruments: Sequence[Instrument] = (),
) -> tuple[ir.Module, PassState]:
    """Import a model, run passes on it, and return the module with its parameters and diagnostics.

    Args:
        measure: what `find_measure` returned.
        instruments: as for `compile_program`.

    Raises:
        PatcError: as `compile_model`.
    """
    source = _import(model, example_inputs, make_context(), instruments)
    return source.module, pipeline.run(source.module, PassState(source.parameters, measure=measure), instruments)


def find_measure(options: Options, notify: Callable[[str], None] = lambda layer: None) -> Measure | None:
    """Return what times schedules for `pattern-schedule`, or None where a cost model chooses.

    Args:
        notify: called with the name of a layer before it is timed.
    """
    if options.tune != "measure":
        return None
    from patc.tuning import Tuner

    return Tuner(options.threads, options.target, notify=notify)
