"""`patc.compile`: from a model to native code, through the passes of `Pipeline.named("host")`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_mlir import ir

from patc.backends.registry import find_backend
from patc.codegen.program import Generate, compile_code, find_main, generate_program
from patc.codegen.spirv import generate_gpu_program
from patc.context import make_context
from patc.diagnostics import Diagnostic, PatcError, nearest
from patc.frontend import import_model
from patc.instruments import Progress
from patc.layers import CollectLayers
from patc.locks import compiling
from patc.numerics import MLIR_TYPES, NUMERICS
from patc.parameters import ParameterStore
from patc.passes.base import Measure, PassState
from patc.pipeline import Pipeline
from patc.runtime.model import CompiledModel
from patc.runtime.program import ENTRY, Program, TensorInfo
from patc.targets import AARCH64_CPUS, AARCH64_SYSTEMS, MOST_THREADS, Target, get_target

TUNE_MODES = ("off", "cost", "measure")
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Source:
    """A model that is ready for the passes.

    Attributes:
        module: @main of tensors, linalg or pattern ops.
        parameters: the arrays behind its `pattern.parameter` ops.
        inputs, outputs: arguments and results of @main.
        structure: how the outputs nest, as `patc.runtime.model.nest` reads it.
    """

    module: ir.Module
    parameters: ParameterStore
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    structure: Any


def compile_model(
    model: Any,
    example_inputs: Sequence[Any] | None = None,
    *,
    target: str | Target = "host",
    threads: int | None = None,
    tune: str = "cost",
    dtype: str = "f32",
    dynamic_batch: bool = False,
    report: Report | None = None,
) -> CompiledModel:
    """Compile a model to native code.

    The model is traced with `torch.export` and stays as it is; later changes of its weights do not change the compiled
    one. Convolutions whose zeros follow patterns are computed from their kept weights alone, the others dense, with a
    remark in `CompiledModel.diagnostics`. Equal models and options give equal code.

    Args:
        model: a torch.nn.Module in eval mode, a torch.export.ExportedProgram, or the path of a .pt2 or .mlir file; an
            .mlir file has a function @main on tensors of static shape, of linalg or pattern ops.
        example_inputs: tensors of the shapes and element types to compile for; needed for a torch.nn.Module only.
        target: "host", "x86-64-v3", "x86-64-v4", "aarch64-linux", "aarch64-android", "spirv-vulkan" or a
            `patc.Target`. What this machine lacks can be compiled for and saved, but not run. `patc.library` makes
            libraries for C. For "spirv-vulkan" the model is a `patc.runtime.vulkan_model.VulkanModel`.
        threads: among which each layer is divided; None for `default_threads`.
        tune: "cost" chooses schedules by a cost model of the target; "off" does the same for now. "measure" times the
            schedules that the model likes best on this machine, so the target is "host"; what was measured is kept
            in the user's cache folder, and equal layers are not measured again.
        dtype: "f32", or "f16" for half precision between inputs and outputs, which stay as they are; for CPUs with
            FEAT_FP16 ("fullfp16") or AVX512-FP16, and GPUs with shaderFloat16 and storageBuffer16BitAccess. Tests hold
            results to 2e-2 of the output's largest magnitude.
        dynamic_batch: False; the batch size is that of the example inputs.
        report: called as report(step, index, total) before each step; steps are "import", the passes and "codegen".
            "measure" adds "measuring LAYER" for each layer that it times, with the index of "pattern-schedule".

    Raises:
        PatcError: a model, input or option that cannot be compiled, in one line.
    """
    _check_options(threads, dynamic_batch)
    program, diagnostics = compile_program(
        model, example_inputs, target=target, threads=threads, tune=tune, dtype=dtype, report=report
    )
    return find_backend(program.backend).load(program, diagnostics)


@compiling()
def compile_program(
    model: Any,
    example_inputs: Sequence[Any] | None,
    *,
    target: str | Target,
    threads: int | None,
    tune: str,
    dtype: str,
    report: Report | None,
    generate: Generate = compile_code,
) -> tuple[Program, list[Diagnostic]]:
    """Compile a model to a program, and return it with what the passes remarked. See `compile_model`.

    Args:
        generate: makes `Program.code` of the last pass's module and the target.
    """
    machine = find_target(target)
    count = threads or default_threads(machine)
    pipeline = host_pipeline(machine, count, dtype)
    steps = len(pipeline.passes) + 2
    tell = report or (lambda step, index, total: None)
    scheduling = pipeline.stages.index("schedule")
    measure = find_measure(tune, machine, count, lambda layer: tell(f"measuring {layer}", scheduling, steps))
    tell("import", 0, steps)
    source = import_source(model, example_inputs, make_context())
    state = PassState(source.parameters, measure=measure)
    layers = CollectLayers()
    progress = Progress(lambda step, index, _: tell(step, index + 1, steps))
    pipeline.run(source.module, state, [progress, layers])
    if not layers.found:
        raise PatcError("expected a model that computes something, got one without layers")
    tell("codegen", steps - 1, steps)
    what = {"inputs": source.inputs, "outputs": source.outputs, "structure": source.structure, "layers": layers.found}
    if machine.is_gpu:
        program = generate_gpu_program(source.module, state, target=machine, **what)
    else:
        program = generate_program(source.module, state, target=machine, threads=count, generate=generate, **what)
    return program, list(state.diagnostics)


def host_pipeline(target: str | Target, threads: int | None, dtype: str = "f32") -> Pipeline:
    """Return the passes between import and code generation. See `compile_model` for the arguments.

    Raises:
        PatcError: an unknown target or element type, or the two do not go together.
    """
    machine = find_target(target)
    check_dtype(dtype, machine)
    if machine.is_gpu:
        if threads not in (None, 1):
            raise PatcError(f"expected no threads together with target '{machine.name}', got {threads}")
        return Pipeline.named("spirv", target=machine.name, dtype=dtype)
    return Pipeline.named("host", target=machine.name, threads=threads or default_threads(machine), dtype=dtype)


def check_dtype(dtype: str, target: Target) -> None:
    """Refuse an element type that is unknown, or that the target's CPU cannot compute in.

    Raises:
        PatcError: it is refused.
    """
    if dtype not in NUMERICS:
        known = list(NUMERICS)
        raise PatcError(f"expected dtype to be one of {', '.join(known)}, got '{dtype}'{nearest(dtype, known)}")
    numerics = NUMERICS[dtype]
    if target.computes_in(numerics) or target.is_gpu:  # a device is asked when the model runs
        return
    expected = f"expected a CPU with {' or '.join(numerics.features)} for dtype {dtype}"
    if target.is_aarch64:
        able = ", ".join(cpu for cpu, known in AARCH64_CPUS.items() if known.computes_in(numerics))
        raise PatcError(f"{expected}, got {target.cpu or 'this one'}, which lacks it: choose one of {able}")
    found = f"got target '{target.name}', which lacks it"
    raise PatcError(f"{expected}, {found}: choose dtype f32, or a target of {', '.join(AARCH64_SYSTEMS)}")


@compiling()
def lower_model(
    model: Any, example_inputs: Sequence[Any] | None, pipeline: Pipeline, measure: Measure | None = None
) -> tuple[ir.Module, PassState]:
    """Import a model, run passes on it, and return the module with its parameters and diagnostics.

    Args:
        measure: what `find_measure` returned.

    Raises:
        PatcError: as `compile_model`.
    """
    source = import_source(model, example_inputs, make_context())
    return source.module, pipeline.run(source.module, PassState(source.parameters, measure=measure))


def find_measure(
    tune: str, target: Target, threads: int | None, notify: Callable[[str], None] = lambda layer: None
) -> Measure | None:
    """Return what times schedules for `pattern-schedule`, or None where a cost model chooses.

    Args:
        notify: called with the name of a layer before it is timed.

    Raises:
        PatcError: an unknown way to tune, or a target that does not go with it.
    """
    if tune not in TUNE_MODES:
        raise PatcError(f"expected tune to be one of {', '.join(TUNE_MODES)}, got '{tune}'")
    if tune != "measure":
        return None
    if target.name != "host":
        raise PatcError(f"expected target 'host' together with tune 'measure', got '{target.name}'")
    from patc.tuning import Tuner

    return Tuner(threads or available_threads(), notify=notify)


@compiling()
def import_source(model: Any, example_inputs: Sequence[Any] | None, context: ir.Context) -> Source:
    """Return a model of any accepted kind as a module. See `compile_model` for the arguments.

    Raises:
        PatcError: the model is of another kind, its file cannot be read, or patc cannot compile it.
    """
    if isinstance(model, (str, os.PathLike)) and Path(model).suffix.lower() == ".mlir":
        source = _read_source(Path(model), context)
        _require_shapes(source, example_inputs)
        _require_elements(source)
        return source
    imported = import_model(model, example_inputs, context)
    source = Source(
        imported.module,
        imported.parameters,
        tuple(TensorInfo(spec.name, spec.shape, spec.dtype) for spec in imported.inputs),
        tuple(TensorInfo(spec.name, spec.shape, spec.dtype) for spec in imported.outputs),
        _describe_structure(imported.structure, imported.constants),
    )
    _require_elements(source)
    return source


def _require_elements(source: Source) -> None:
    for info in (*source.inputs, *source.outputs):
        if 0 in info.shape:
            raise PatcError(f"expected tensors with elements, got {info}")


def find_target(target: str | Target) -> Target:
    """Return the target called `target`.

    Raises:
        PatcError: an unknown name, or a `Target` that is none of patc's own.
    """
    machine = get_target(target)
    if machine != get_target(machine.name):
        # Passes name their target; one that is only called like another would be compiled as that other.
        raise PatcError(f"expected one of patc's own targets, got a changed '{machine.name}'")
    return machine


def default_threads(target: Target) -> int:
    """Return all cores that this process may use; 1 for a machine that is somewhere else, and for GPUs."""
    return 1 if target.is_gpu or (target.is_aarch64 and target.cpu) else available_threads()


def available_threads() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_options(threads: int | None, dynamic_batch: bool) -> None:
    if threads is not None and (type(threads) is not int or threads < 1):
        raise PatcError(f"expected threads of 1 or more, got {threads!r}")
    if threads is not None and threads > MOST_THREADS:
        raise PatcError(f"expected at most {MOST_THREADS} threads, got {threads}")
    if dynamic_batch:
        raise PatcError("expected dynamic_batch=False, got True: the batch size is fixed when a model is compiled")


# -- Modules from .mlir files --------------------------------------------------------------------------


def _read_source(path: Path, context: ir.Context) -> Source:
    from patc.mlir_files import read_module

    module, parameters = read_module(path, context)
    main = find_main(module)
    if main is None:
        raise PatcError(f"expected a function @{ENTRY} with a body, got none", str(path))
    type_ = ir.FunctionType(main.attributes["function_type"].value)
    inputs = tuple(_tensor_info(f"arg{i}", part, main) for i, part in enumerate(type_.inputs))
    outputs = tuple(_tensor_info(f"result{i}", part, main) for i, part in enumerate(type_.results))
    if not outputs:
        raise PatcError(f"expected @{ENTRY} to return tensors, got nothing", main.location)
    leaves = [{"leaf": i} for i in range(len(outputs))]
    return Source(module, parameters, inputs, outputs, leaves[0] if len(leaves) == 1 else {"tuple": leaves})


def _tensor_info(name: str, type_: ir.Type, main: Any) -> TensorInfo:
    is_static = isinstance(type_, ir.RankedTensorType) and type_.has_static_shape
    if not is_static or str(type_.element_type) not in MLIR_TYPES:
        expected = f"expected @{ENTRY} to take and return tensors of static shape, of {', '.join(MLIR_TYPES)}"
        raise PatcError(f"{expected}, got {type_}", main.location)
    return TensorInfo(name, tuple(type_.shape), MLIR_TYPES[str(type_.element_type)].dtype)


def _require_shapes(source: Source, example_inputs: Sequence[Any] | None) -> None:
    if example_inputs is None:
        return
    found = [list(getattr(value, "shape", ())) for value in example_inputs]
    if found != [list(info.shape) for info in source.inputs]:
        wanted = ", ".join(map(str, source.inputs))
        raise PatcError(f"expected example inputs like those of @{ENTRY} ({wanted}), got shapes {found}")


# -- The structure of the outputs ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Leaf:
    """A leaf of the outputs, as an object that no container is."""

    entry: dict[str, Any]


def _describe_structure(structure: Any, constants: dict[int, Any]) -> Any:
    """Return a tree specification of torch in the form that is saved with the model."""
    from torch.utils import _pytree as pytree

    results = iter(range(structure.num_leaves))
    leaves = [
        _Leaf(_describe_constant(constants[i]) if i in constants else {"leaf": next(results)})
        for i in range(structure.num_leaves)
    ]
    return _describe(pytree.tree_unflatten(leaves, structure))


def _describe_constant(value: Any) -> dict[str, Any]:
    # JSON has no numbers for these.
    is_odd = isinstance(value, float) and not math.isfinite(value)
    return {"float": str(value)} if is_odd else {"constant": value}


def _describe(value: Any) -> dict[str, Any]:
    if isinstance(value, _Leaf):
        return value.entry
    if isinstance(value, dict) and all(_is_plain(key) for key in value):
        return {"dict": [[key, _describe(part)] for key, part in value.items()]}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = [_describe(part) for part in value]
        return {"namedtuple": [type(value).__name__, list(value._fields), parts]}
    if isinstance(value, (tuple, list)):
        return {"tuple" if isinstance(value, tuple) else "list": [_describe(part) for part in value]}
    found = type(value).__name__
    raise PatcError(f"expected a model that returns tensors in tuples, lists and dicts, got {found}")


def _is_plain(key: Any) -> bool:
    """Return whether a key of a dict comes back from a file as it was."""
    return key is None or (isinstance(key, (str, int, bool)) and json.loads(json.dumps(key)) == key)
