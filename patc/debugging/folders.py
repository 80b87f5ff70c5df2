"""Reproducers of wrong numbers: the IR before the pass to blame, its weights, what goes in, comes out and should.

report.json             what is wrong, the steps to blame and what leads there, versions
README.md               the same in words, with the one command that shows it
before.mlir             with its weights in before.safetensors
inputs.npz, expected.npz, found.npz
"""

from __future__ import annotations

import io
import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patc.backends.base import Options
from patc.context import make_context
from patc.debugging.differences import error_of, largest_error
from patc.debugging.points import Point
from patc.debugging.search import Suspect, Trial, tolerance_of
from patc.diagnostics import PatcError
from patc.failures import REPORT, write_report
from patc.files import check_regular, write_folder
from patc.mlir_files import read_module, write_module
from patc.options import make_options
from patc.passes.ir.modules import clone_module
from patc.passes.ir.targets import set_target, target_of
from patc.pipeline import Pipeline

MODULE = "before.mlir"
_INPUTS, _EXPECTED, _FOUND = "inputs.npz", "expected.npz", "found.npz"


@dataclass(frozen=True)
class Replay:
    """What a reproducer shows when it is run.

    Attributes:
        what: is wrong, as its report says.
        found, expected: outputs.
        tolerance: the error that is allowed.
    """

    what: str
    found: Sequence[np.ndarray]
    expected: Sequence[np.ndarray]
    tolerance: float

    @property
    def error(self) -> float:
        """The largest error, of an output's largest magnitude."""
        return largest_error(self.found, self.expected)

    def lines(self) -> list[str]:
        """Return a line for each output: its error, and expected and found where they differ most."""
        pairs = enumerate(zip(self.found, self.expected, strict=True))
        return [f"output {number} {list(one.shape)}: {_compare(one, other)}" for number, (one, other) in pairs]


def is_reproducer(path: str) -> bool:
    """Return whether a path names a folder that `write` made, of wrong numbers or of a crash."""
    return os.path.isfile(os.path.join(path, REPORT)) and os.path.isfile(os.path.join(path, MODULE))


def write(folder: str, what: str, suspect: Suspect, trial: Trial, inputs: Sequence[np.ndarray]) -> None:
    """Write the reproducer of what a trial showed.

    Raises:
        PatcError: the folder cannot be written to.
    """
    recipe = {
        "kind": "numbers",
        "steps": suspect.names,
        "pipeline": str(suspect.passes),
        "code": suspect.is_code,
        "good": suspect.good,
    }
    arrays = {_INPUTS: inputs, _EXPECTED: trial.expected, _FOUND: trial.found}
    lines = Replay(what, trial.found, trial.expected, 0.0).lines()
    write_case(folder, what, trial.before, suspect.options, recipe, arrays, lines)


def write_case(
    folder: str,
    what: str,
    before: Point,
    options: Options,
    recipe: dict[str, Any],
    arrays: dict[str, Sequence[np.ndarray]],
    lines: Sequence[str],
) -> None:
    """Write a reproducer.

    Args:
        what: is wrong.
        before: what the steps to blame start from.
        options: what it is for.
        recipe: kind, steps, pipeline, code and good, as `read_recipe` returns them.
        arrays: files of arrays by their names.
        lines: what the README says more.

    Raises:
        PatcError: the folder cannot be written to.
    """
    command = ["patc", "debug", folder]
    paragraphs = [f"# {what}", f"    {shlex.join(command)}", *lines]
    paragraphs.append(f"{REPORT} has the versions. Please report it with this folder.")
    text = "\n\n".join(paragraphs) + "\n"
    write_folder(folder, {**{name: _pack(each) for name, each in arrays.items()}, "README.md": text})
    module = clone_module(before.module)
    set_target(module, options.target)
    write_module(module, before.parameters, Path(folder, MODULE))
    recipe = {**recipe, "threads": options.threads, "dtype": options.dtype}
    write_report(Path(folder), {"what": what, "command": command, "recipe": recipe})


def read_inputs(folder: str) -> list[np.ndarray]:
    """Return the inputs of a reproducer.

    Raises:
        PatcError: their file is missing or damaged.
    """
    return _unpack(folder, _INPUTS)


def read_recipe(folder: str) -> tuple[str, dict[str, Any]]:
    """Return what a reproducer says is wrong, and how to see it.

    Raises:
        PatcError: its report is damaged.
    """
    path = os.path.join(folder, REPORT)
    check_regular(path, "the report of a reproducer")
    try:
        report = json.loads(Path(path).read_bytes())
        what, recipe = report["what"], report["recipe"]
        texts = (what, recipe["kind"], recipe["pipeline"], recipe["good"], recipe["dtype"])
        fits = all(isinstance(text, str) for text in texts) and isinstance(recipe["threads"], int)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        fits = False
    if not fits:
        raise PatcError("expected the report of a reproducer, found damaged data", path)
    return what, recipe


def replay(folder: str) -> Replay:
    """Run the steps that a reproducer of wrong numbers blames, and return what comes out and should.

    Raises:
        PatcError: a file is missing or damaged, or the steps refuse it.
    """
    what, recipe = read_recipe(folder)
    module, parameters = read_module(Path(folder, MODULE), make_context())
    options = make_options(target_of(module), recipe["threads"], recipe["dtype"])
    before = Point(recipe["good"], module, parameters)
    passes = Pipeline.parse(recipe["pipeline"])
    suspect = Suspect(options, before, Pipeline(), recipe["good"], passes, bool(recipe.get("code")), ())
    found = suspect.run(before, _unpack(folder, _INPUTS))
    expected = _unpack(folder, _EXPECTED)
    if [array.shape for array in found] != [array.shape for array in expected]:
        raise PatcError("expected numbers of the module's outputs, found others", os.path.join(folder, _EXPECTED))
    return Replay(what, found, expected, tolerance_of(options))


def _compare(found: np.ndarray, expected: np.ndarray) -> str:
    error = error_of(found, expected)
    if error == 0.0 or not found.size:
        return "equal"
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    place = np.unravel_index(int(np.where(np.isnan(difference), np.inf, difference).argmax()), found.shape)
    numbers = f"expected {expected[place]:.6g}, found {found[place]:.6g}"
    return f"error {error:.1e} of the largest, at {[int(each) for each in place]}: {numbers}"


def _pack(arrays: Sequence[np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, *arrays)
    return stream.getvalue()


def _unpack(folder: str, name: str) -> list[np.ndarray]:
    path = os.path.join(folder, name)
    check_regular(path, "an .npz file of a reproducer")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return [archive[f"arr_{number}"] for number in range(len(archive.files))]
    except Exception:  # numpy and zipfile raise nearly anything on damaged data
        raise PatcError("expected a .npz file of arrays, found damaged data or another format", path) from None
