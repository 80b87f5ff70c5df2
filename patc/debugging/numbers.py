"""`patc debug`: which layer and which pass of a compilation make numbers wrong, and the smallest case of it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patc.backends.base import Options
from patc.backends.registry import find_backend
from patc.debugging.cuts import Case
from patc.debugging.differences import largest_error
from patc.debugging.locate import Budget, Net, locate, shrink
from patc.debugging.points import IMPORT, compute_code, compute_tensors, run_passes
from patc.debugging.search import SPLIT, Suspect, Trial, find_suspect
from patc.frontend.shapes import shapes_of
from patc.locks import compiling
from patc.pipeline import Pipeline
from patc.sources import Source

MOST_TRIES = 150


@dataclass(frozen=True)
class Fault:
    """Numbers that are off.

    Attributes:
        suspect: the steps of which one is to blame.
        layer: the first layer that is off; None where no part of the net shows it.
        trial, inputs: of the smallest case that was found.
        layers, tries: how many layers it has, and how many cases were tried.
        error: of the whole net's outputs.
    """

    suspect: Suspect
    layer: str | None
    trial: Trial
    inputs: Sequence[np.ndarray]
    layers: int
    tries: int
    error: float

    @property
    def what(self) -> str:
        """What is wrong, in one line."""
        layer = "" if self.layer is None else f" of {self.layer}"
        by = " or ".join(self.suspect.names)
        return f"numbers{layer} are off by {self.trial.error:.1e} of the largest after {by}"


@dataclass(frozen=True)
class Right:
    """Numbers that are right.

    Attributes:
        error: of the outputs, of their largest magnitude.
        layers: name and error of each layer.
    """

    error: float
    layers: Sequence[tuple[str, float]]


@compiling()
def debug(
    source: Source,
    options: Options,
    inputs: Sequence[np.ndarray],
    expected: Sequence[np.ndarray] | None,
    tell: Callable[[str], None],
    most_tries: int = MOST_TRIES,
) -> Fault | Right:
    """Return what makes a net's numbers wrong, or that they are right.

    Args:
        source: the net as it was imported; it stays as it is.
        options: what it is compiled for.
        inputs: an array for each input.
        expected: its outputs as something else computes them; None for the reference.
        tell: called with what is done.

    Raises:
        PatcError: a pass refuses the net, or it cannot be run.
    """
    case = Case(source.module, source.parameters, inputs)
    tell("computing the reference")
    given = expected is not None
    expected = list(expected) if expected is not None else compute_tensors(case.module, case.parameters, inputs)
    suspect = find_suspect(case, options, expected, tell)
    if suspect is None:
        return _right(case, options, expected, tell)
    if suspect.names == (IMPORT,):
        assert given, "the reference is what was imported"
        found = compute_tensors(case.module, case.parameters, inputs)
        error = largest_error(found, expected)
        return Fault(suspect, None, Trial(suspect.base, found, expected, error), inputs, 0, 0, error)
    net = Net(suspect.base, inputs)
    whole = _whole(net, suspect)
    budget = Budget(most_tries, tell)
    located = locate(net, suspect, budget)
    if located is None:
        return Fault(suspect, None, whole, inputs, len(net.steps), budget.used, whole.error)
    located = shrink(located, suspect, budget)
    inputs = located.case.inputs
    return Fault(suspect, located.layer, located.trial, inputs, located.layers, budget.used, whole.error)


def _right(case: Case, options: Options, expected: Sequence[np.ndarray], tell: Callable[[str], None]) -> Right:
    """Return the errors of outputs and layers, as code whose outputs are all of these has them."""
    pipeline = find_backend(options.target.backend).pipeline(options)
    points = run_passes(case, pipeline)
    error = largest_error(compute_code(points[-1], case.inputs, options), expected)
    number = next(number for number, point in enumerate(points) if point.step == SPLIT)
    net = Net(points[number], case.inputs)
    tell("computing each layer")

    def run(part: Case) -> list[np.ndarray]:
        return compute_code(run_passes(part, Pipeline(pipeline.passes[number:]))[-1], part.inputs, options)

    return Right(error, [(net.layer(step), found) for step, found in net.errors(run)])


def _whole(net: Net, suspect: Suspect) -> Trial:
    """Return the trial of the whole net."""
    case = Case(net.point.module, net.point.parameters, net.inputs)
    before = run_passes(case, suspect.lead, suspect.good)[-1]
    found = suspect.run(before, net.inputs)
    expected = compute_tensors(case.module, case.parameters, case.inputs)
    return Trial(before, found, expected, largest_error(found, expected))


def float64_outputs(model: Any, example_inputs: Any, inputs: Sequence[np.ndarray], source: Source) -> Any:
    """Return what PyTorch computes of a model in float64: of a module, an exported program or its file; None where it
    does not, or its outputs are not those of the source.

    Raises:
        PatcError: the file of a program cannot be read.
    """
    module = _find_module(model, example_inputs)
    if module is None:
        return None
    import torch
    from torch.utils._pytree import tree_leaves

    tensors = [torch.from_numpy(np.array(array)) for array in inputs]
    tensors = [tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors]
    try:
        wide = copy.deepcopy(module).double()
        with torch.no_grad():
            is_named = module is model and isinstance(example_inputs, dict)  # programs take them in order
            results = wide(**dict(zip(example_inputs, tensors, strict=True))) if is_named else wide(*tensors)
    except Exception:  # the user's code, which may make float32 tensors of its own
        return None
    leaves = [leaf.numpy() for leaf in tree_leaves(results) if isinstance(leaf, torch.Tensor)]
    return leaves if [leaf.shape for leaf in leaves] == [info.shape for info in source.outputs] else None


def _find_module(model: Any, example_inputs: Any) -> Any:
    """Return what PyTorch runs of a model, or None for files that it does not."""
    if isinstance(model, (str, os.PathLike)):
        if Path(model).suffix.lower() != ".pt2":
            return None
        from patc.frontend.torch import load_program

        model = load_program(Path(model), None if example_inputs is None else shapes_of(example_inputs))
    from torch.export import ExportedProgram

    return model.module() if isinstance(model, ExportedProgram) else model
