"""`patc.run_module`: from a module of any stage to results, for tests, tools, and whoever edits what a stage left."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.backends.registry import find_backend
from patc.compiler import generate_code, lower_source, run_passes
from patc.context import make_context
from patc.locks import compiling
from patc.mlir_files import parse_module, read_module
from patc.options import make_options
from patc.parameters import ParameterStore
from patc.passes.base import PassState
from patc.passes.ir.modules import clone_module
from patc.passes.ir.targets import target_of
from patc.runtime.program import Program
from patc.sources import module_source
from patc.targets import Target

Parameters = Mapping[str, np.ndarray] | ParameterStore


def run_module(
    module: ir.Module | str | os.PathLike[str],
    parameters: Parameters | None = None,
    inputs: Sequence[np.ndarray] = (),
    *,
    target: str | Target | None = None,
    threads: int | None = None,
    dtype: str = "f32",
    stage: str | None = None,
    device: int | str | None = None,
) -> list[np.ndarray]:
    """Return what @main of a module computes.

    The passes that the module has not been through yet are run, code is generated and called. So the IR of any stage,
    as `patc compile --emit mlir@STAGE` or `patc-opt` write it, can be edited and entered again. Code for AArch64 runs
    in an emulator where this machine is another one (one thread; needs `pip install 'patc[arm]'`).

    Args:
        module: a module, MLIR text, or the path of an .mlir file: linalg, pattern ops, or loops and memory that patc's
            passes made of them, in any stage. It stays as it is.
        parameters: the arrays behind its `pattern.parameter` ops, or what the passes left of them; None for those
            beside the file. They stay as they are.
        inputs: an array for each argument, of its shape and element type.
        target: see `patc.compile`; None for the module's own, or this machine.
        threads: among which each layer is divided; see `patc.compile`. Loops are divided already.
        dtype: see `patc.compile`.
        stage: the last pass that the module has been through, without `pattern-`, as `Pipeline.stages` says; the
            passes up to it do not run. None to run them all, which leave alone what is done.
        device: for Vulkan: index or name; None for the best one.

    Returns:
        One array a result.

    Raises:
        PatcError: the module is not valid, a pass refuses it, an option or input does not fit, a parameter is missing,
            or the code cannot be run here; in one line.
    """
    program = compile_module(module, parameters, target=target, threads=threads, dtype=dtype, stage=stage)
    return find_backend(program.backend).run(program, [np.asarray(array) for array in inputs], device)


@compiling()
def compile_module(
    module: ir.Module | str | os.PathLike[str],
    parameters: Parameters | None = None,
    *,
    target: str | Target | None = None,
    threads: int | None = None,
    dtype: str = "f32",
    stage: str | None = None,
) -> Program:
    """Return the program of a module of any stage, whose outputs are a list. See `run_module`.

    Raises:
        PatcError: as `run_module`.
    """
    work, store = _take(module, parameters)
    options = make_options(target_of(work) if target is None else target, threads, dtype)
    state = PassState(store)
    source = module_source(work, store)
    outputs = {"list": [{"leaf": i} for i in range(len(source.outputs))]}
    backend = find_backend(options.target.backend)
    pipeline = backend.pipeline(options)
    layers = run_passes(pipeline if stage is None else pipeline.after(stage), work, state)
    lowered = lower_source(replace(source, structure=outputs), state, layers, options, backend)
    return generate_code([lowered], options, backend)


def _take(module: Any, parameters: Parameters | None) -> tuple[ir.Module, ParameterStore]:
    """Return a module and parameters that passes may change."""
    if isinstance(module, ir.Module):
        work, beside = clone_module(module), ParameterStore()
    elif isinstance(module, os.PathLike) or (module.endswith(".mlir") and "\n" not in module):
        work, beside = read_module(module, make_context())
    else:
        work, beside = parse_module(module, make_context())
    given = beside if parameters is None else parameters
    return work, ParameterStore({name: given[name] for name in given})
