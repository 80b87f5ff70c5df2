"""`patc debug --crash`: which pass fails or ends the process, and the smallest case that does; each try in a child."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patc.backends.base import Options
from patc.backends.registry import find_backend
from patc.context import make_context
from patc.debugging.cuts import Case
from patc.debugging.folders import MODULE, read_inputs, read_recipe, write_case
from patc.debugging.locate import Budget, Net, locate, shrink
from patc.debugging.points import CODE, IMPORT, Point, compute_code, run_passes
from patc.debugging.search import SPLIT, Trial
from patc.diagnostics import PatcError, first_line
from patc.failures import describe_fault, is_fault, write_report
from patc.instruments import Instrument
from patc.mlir_files import read_module
from patc.options import make_options
from patc.passes.base import PassState
from patc.passes.ir.targets import target_of
from patc.pipeline import Pipeline
from patc.runtime.inputs import random_arrays
from patc.sources import Source

MOST_TRIES = 100
_MADE_INVALID = "made invalid IR"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class End:
    """How a child ended.

    Attributes:
        step: where: `IMPORT`, a pass, or `CODE`.
        kind: the name of a signal or of an exception, "" for a good end, or "PatcError" for what is the input's fault.
        how: the same with what was said.
    """

    step: str
    kind: str
    how: str

    @property
    def is_fault(self) -> bool:
        """Whether patc is to blame."""
        return self.kind not in ("", "PatcError")


@dataclass(frozen=True)
class CrashSuspect:
    """A step that ends badly; see `patc.debugging.search.Suspect`."""

    options: Options
    base: Point
    lead: Pipeline
    passes: Pipeline
    end: End
    tolerance: float = 0.0

    def fails(self, case: Case) -> Trial | None:
        """Return the trial of a case that ends in the same way."""
        every = Pipeline([*self.lead.passes, *self.passes.passes])
        found = in_child(lambda tell: _compile(case, every, self.options, self.end.step == CODE, tell))
        if (found.step, found.kind) != (self.end.step, self.end.kind):
            return None
        return Trial(run_passes(case, self.lead)[-1], [], [], 0.0)


@dataclass(frozen=True)
class Crash:
    """A step that ends badly, with the smallest case that was found; the whole net where that is none.

    Attributes:
        before: what the step starts from; None where that is the model itself.
        layer: "" where no part of the net shows it.
    """

    end: End
    before: Point | None = None
    inputs: Sequence[np.ndarray] = ()
    layer: str = ""
    layers: int = 0
    tries: int = 0

    @property
    def what(self) -> str:
        """What is wrong, in one line."""
        layer = f" of {self.layer}" if self.layer else ""
        return f"{self.end.step}{layer} ends with {self.end.how}"


def find_crash(
    make_source: Callable[[], Source], options: Options, tell: Tell, instruments: Sequence[Instrument] = ()
) -> Crash | None:
    """Return the step of a compilation that fails by a fault of patc, or ends the process; None where none does.

    Args:
        make_source: imports the model.
        options: what it is compiled for.
        tell: called with what is done.
        instruments: observers of the whole net's compilation, in its child process.

    Raises:
        PatcError: the model is refused.
    """
    pipeline = find_backend(options.target.backend).pipeline(options)

    def everything(inner: Tell) -> None:
        inner(IMPORT)
        source = make_source()
        for instrument in instruments:
            instrument.after(IMPORT, source.module, 0.0)
        case = Case(source.module, source.parameters, random_arrays(source.inputs, 0))
        _compile(case, pipeline, options, True, inner, instruments)

    tell("compiling it in a child process")
    end = in_child(everything)
    if end.kind == "PatcError":
        raise PatcError(end.how)
    if not end.is_fault or end.step == IMPORT:
        return Crash(end) if end.is_fault else None
    source = make_source()
    names = [item.name for item in pipeline.passes]
    number = names.index(end.step) if end.step in names else len(names)
    first = min(number, names.index(SPLIT) + 1)
    inputs = random_arrays(source.inputs, 0)
    points = run_passes(Case(source.module, source.parameters, inputs), _between(pipeline, 0, number))
    lead = _between(pipeline, first, number)
    suspect = CrashSuspect(options, points[first], lead, _between(pipeline, number, number + 1), end)
    budget = Budget(MOST_TRIES, tell)
    try:
        located = locate(Net(suspect.base, inputs), suspect, budget)
    except PatcError:  # the reference cannot run it
        located = None
    if located is None:
        return Crash(end, points[number], inputs, tries=budget.used)
    located = shrink(located, suspect, budget)
    return Crash(end, located.trial.before, located.case.inputs, located.layer, located.layers, budget.used)


def _between(pipeline: Pipeline, first: int, last: int) -> Pipeline:
    """Return some of a pipeline's passes, for its target."""
    return Pipeline(pipeline.passes[first:last], pipeline.target)


def write_crash(folder: str, crash: Crash, options: Options, model: str) -> None:
    """Write the reproducer of a crash; of one in the import, the report with the model's file."""
    if crash.before is None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_report(Path(folder), {"what": crash.what, "command": ["patc", "debug", "--crash", model]}, [model])
        return
    passes = "" if crash.end.step == CODE else crash.end.step
    pipeline = find_backend(options.target.backend).pipeline(options)
    text = ",".join(str(item) for item in pipeline.passes if item.name == passes)
    recipe = {"kind": "crash", "steps": [crash.end.step], "pipeline": text, "code": not passes, "good": ""}
    write_case(folder, crash.what, crash.before, options, recipe, {"inputs.npz": crash.inputs}, [])


def replay_crash(folder: str) -> tuple[str, End]:
    """Return what a reproducer of a crash says is wrong, and how it ends.

    Raises:
        PatcError: its report is damaged.
    """
    what, recipe = read_recipe(folder)
    inputs = read_inputs(folder)

    def again(tell: Tell) -> None:
        tell(MODULE)
        module, parameters = read_module(Path(folder, MODULE), make_context())
        options = make_options(target_of(module), recipe["threads"], recipe["dtype"])
        case = Case(module, parameters, inputs)
        _compile(case, Pipeline.parse(recipe["pipeline"]), options, bool(recipe.get("code")), tell)

    return what, in_child(again)


def in_child(work: Callable[[Tell], None]) -> End:
    """Return how some work ends in a forked process, whose output nobody sees.

    Args:
        work: gets what to call with the name of each step.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        faulthandler.disable()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        _work(work, writing)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        lines = pipe.read().decode(errors="replace").splitlines()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = [json.loads(line) for line in lines]
    step = next((line["step"] for line in reversed(said) if "step" in line), IMPORT)
    if code:
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return End(step, name, name)
    last = said[-1] if said else {}
    return End(step, last.get("kind", ""), last.get("how", ""))


def _work(work: Callable[[Tell], None], writing: int) -> None:
    """Do the work of a child, and write its steps and how it ends."""

    def write(**line: str) -> None:
        os.write(writing, f"{json.dumps(line)}\n".encode())

    try:
        work(lambda step: write(step=step))
    except Exception as error:
        is_ours = _MADE_INVALID in str(error) or is_fault(error)
        kind = type(error).__name__ if is_ours else "PatcError"
        write(kind=kind, how=describe_fault(error) if is_fault(error) else first_line(error))


class _Tell(Instrument):
    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def before(self, name: str, index: int, total: int) -> None:
        self._tell(name)


def _compile(
    case: Case,
    pipeline: Pipeline,
    options: Options,
    with_code: bool,
    tell: Tell,
    instruments: Sequence[Instrument] = (),
) -> None:
    """Run passes on a copy of a case, and the code if wanted."""
    work = case.clone()
    state = PassState(work.parameters)
    pipeline.run(work.module, state, [_Tell(tell), *instruments])
    if with_code:
        tell(CODE)
        compute_code(Point("", work.module, state.parameters), case.inputs, options)
