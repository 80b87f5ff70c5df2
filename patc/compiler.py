"""`patc.compile`: from a model to native code, through the passes of `Pipeline.named("host")`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from torch_mlir import ir

from patc.codegen import host
from patc.context import make_context
from patc.diagnostics import PatcError
from patc.frontend import import_model
from patc.instruments import Progress
from patc.layers import LayerReport, collect_layers
from patc.passes.base import PassState
from patc.passes.pattern_plan_memory import WEIGHTS
from patc.pipeline import Pipeline
from patc.runtime.model import CompiledModel, Program, TensorInfo
from patc.targets import Target, get_target

TUNE_MODES = ("off", "cost")
Report = Callable[[str, int, int], None]


def compile_model(
    model: Any,
    example_inputs: Sequence[Any] | None,
    *,
    target: str | Target = "host",
    threads: int | None = None,
    tune: str = "cost",
    dynamic_batch: bool = False,
    report: Report | None = None,
) -> CompiledModel:
    """Compile a model. See `patc.compile`."""
    _check_options(threads, tune, dynamic_batch)
    machine = get_target(target)
    context = make_context()
    _tell(report, "import", 0, 1)
    imported = import_model(model, example_inputs, context)
    state = PassState(imported.parameters)
    count = threads or os.cpu_count() or 1
    layers = run_passes(imported.module, state, machine, count, report)
    main = _function(imported.module, "main")
    arena_bytes = ir.MemRefType(ir.FunctionType(main.attributes["function_type"].value).inputs[-2]).shape[0]
    weights = state.parameters[WEIGHTS]
    state.parameters.keep_only({WEIGHTS})
    _tell(report, "llvm", 0, 1)
    host.lower_to_llvm(imported.module, machine)
    code = host.compile_object(imported.module)
    program = Program(
        code=code,
        weights=weights,
        inputs=tuple(TensorInfo(spec.name, spec.shape) for spec in imported.inputs),
        outputs=tuple(TensorInfo(spec.name, spec.shape) for spec in imported.outputs),
        structure=_structure(imported),
        arena_bytes=arena_bytes,
        target=machine.name,
        features=machine.features,
        threads=count,
        layers=tuple(layers),
    )
    return CompiledModel(program, state.diagnostics)


def run_passes(
    module: ir.Module, state: PassState, target: Target, threads: int, report: Report | None
) -> list[LayerReport]:
    """Run the host pipeline on a module in place and return the layers as they were scheduled."""
    pipeline = Pipeline.named("host", target=target.name, threads=threads)
    scheduled = pipeline.until("schedule")
    rest = Pipeline(pipeline.passes[len(scheduled.passes) :])
    instruments = [Progress(report)] if report is not None else []
    scheduled.run(module, state, instruments)
    layers = collect_layers(module)
    rest.run(module, state, instruments)
    return layers


def _structure(imported: Any) -> Any:
    """Return how the outputs nest, as `patc.runtime.model.nest` reads it."""
    leaves: list[Any] = []
    position = 0
    for number in range(imported.structure.num_leaves):
        if number in imported.constants:
            leaves.append({"constant": imported.constants[number]})
        else:
            leaves.append({"leaf": position})
            position += 1

    def describe(value: Any) -> Any:
        if isinstance(value, _Leaf):
            return value.entry
        if isinstance(value, dict):
            return {"dict": {key: describe(part) for key, part in value.items()}}
        if isinstance(value, (tuple, list)):
            return {"tuple" if isinstance(value, tuple) else "list": [describe(part) for part in value]}
        raise PatcError(f"expected a model that returns tensors in tuples, lists and dicts, got {type(value).__name__}")

    from torch.utils import _pytree as pytree

    return describe(pytree.tree_unflatten([_Leaf(entry) for entry in leaves], imported.structure))


class _Leaf:
    """A leaf of the outputs, as an object that no container is."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.entry = entry


def _function(module: ir.Module, name: str) -> Any:
    return next(op for op in module.body.operations if op.attributes["sym_name"].value == name)


def _check_options(threads: int | None, tune: str, dynamic_batch: bool) -> None:
    if threads is not None and threads < 1:
        raise PatcError(f"expected threads of 1 or more, got {threads}")
    if tune not in TUNE_MODES:
        raise PatcError(f"expected tune to be one of {', '.join(TUNE_MODES)}, got '{tune}'")
    if dynamic_batch:
        raise PatcError("expected dynamic_batch=False, got True: batch sizes are fixed when a model is compiled")


def _tell(report: Report | None, name: str, index: int, total: int) -> None:
    if report is not None:
        report(name, index, total)
