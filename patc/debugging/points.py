"""What a module computes after each pass, whatever is left of it there: tensors, loops on memory, or code.

Tensors are computed by the reference, which shares no code with what is tested; loops with memory of their own for
each buffer, so that neither the passes behind them nor the plan of memory count; what has threads by the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch_mlir import ir

from patc.backends.base import Options
from patc.backends.registry import find_backend
from patc.codegen.program import find_main
from patc.codegen.reference import execute
from patc.debugging.cuts import Case
from patc.debugging.loops import compute_loops
from patc.diagnostics import PatcError
from patc.execution import run_module
from patc.instruments import Instrument
from patc.locks import compiling
from patc.parameters import ParameterStore
from patc.passes.base import PassState
from patc.passes.convert_pattern_to_linalg import ConvertPatternToLinalg
from patc.passes.ir.functions import works_on_tensors
from patc.passes.ir.modules import clone_module
from patc.pipeline import Pipeline

IMPORT = "import"
CODE = "code generation"
_THREADS = "pattern-parallelize"


@dataclass(frozen=True)
class Point:
    """What a step of the compilation left.

    Attributes:
        step: `IMPORT`, or the name of a pass.
    """

    step: str
    module: ir.Module
    parameters: ParameterStore


class Keep(Instrument):
    """Keeps a copy of the module after each pass.

    Attributes:
        points: in the order of the passes.
    """

    def __init__(self, state: PassState) -> None:
        self.points: list[Point] = []
        self._state = state

    def after(self, name: str, module: ir.Module, seconds: float) -> None:
        self.points.append(Point(name, clone_module(module), self._state.parameters.copy()))


def run_passes(case: Case, pipeline: Pipeline, step: str = IMPORT) -> list[Point]:
    """Return a case as it is, as what `step` left, and what each pass leaves; the case stays as it is.

    Raises:
        PatcError: a pass refuses it.
    """
    work = case.clone()
    state = PassState(work.parameters)
    keep = Keep(state)
    pipeline.run(work.module, state, [keep])
    return [Point(step, case.module, case.parameters), *keep.points]


def can_compute(point: Point, options: Options) -> bool:
    """Return whether what a step left can be computed: not kernels for GPUs, nor what has threads."""
    is_loops = options.target.algorithms != "gpu" and point.step != _THREADS
    return works_on_tensors(find_main(point.module)) or is_loops


@compiling()
def compute(point: Point, inputs: Sequence[np.ndarray], options: Options) -> list[np.ndarray]:
    """Return the outputs of what a step left.

    Raises:
        PatcError: it cannot be run.
    """
    if works_on_tensors(find_main(point.module)):
        return compute_tensors(point.module, point.parameters, inputs)
    return compute_loops(point.module, point.parameters, inputs)


def compute_code(point: Point, inputs: Sequence[np.ndarray], options: Options) -> list[np.ndarray]:
    """Return the outputs of the code that is generated of what the last pass, or the one before it, left."""
    stages = find_backend(options.target.backend).pipeline(options).stages
    return run_module(
        point.module,
        point.parameters,
        inputs,
        target=options.target,
        threads=options.threads,
        dtype=options.dtype,
        stage=stages[-1],
    )


def compute_tensors(module: ir.Module, parameters: ParameterStore, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of a module on tensors by the reference, or where that has no lowering for an op, by the
    generic road."""
    try:
        return execute(module, parameters, inputs)
    except PatcError as error:
        if not error.message.startswith("cannot run"):
            raise
    work, state = clone_module(module), PassState(parameters.copy())
    ConvertPatternToLinalg().run(work, state)
    return run_module(work, state.parameters, inputs, target="host", threads=1, stage="raise")
