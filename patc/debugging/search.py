"""Find the first pass whose numbers are off, and say of any case whether it alone makes them so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from patc.backends.base import Options
from patc.backends.registry import find_backend
from patc.debugging.cuts import Case
from patc.debugging.differences import largest_error
from patc.debugging.points import CODE, IMPORT, Point, can_compute, compute, compute_code, compute_tensors, run_passes
from patc.diagnostics import PatcError
from patc.numerics import NUMERICS
from patc.pipeline import Pipeline

SPLIT = "pattern-outline"  # after it a net is layers, whose sizes can be changed
_THREADS = "pattern-parallelize"

Item = TypeVar("Item")


@dataclass(frozen=True)
class Trial:
    """What became of a case.

    Attributes:
        before: what the last step left after which the numbers are right.
        found, expected: the outputs of what follows, and by the reference.
        error: of the found ones, of the largest magnitude.
    """

    before: Point
    found: list[np.ndarray]
    expected: list[np.ndarray]
    error: float


@dataclass(frozen=True)
class Suspect:
    """What makes right numbers wrong.

    Attributes:
        options: what is compiled for.
        base: what cases are made of: the net after `pattern-outline`, or before the suspect where that is earlier.
        lead: the passes that lead from there to the last right numbers.
        good: the step after which these are.
        passes: what follows it, up to where numbers are wrong.
        is_code: whether these are those of the generated code.
        names: the steps of which one is to blame.
    """

    options: Options
    base: Point
    lead: Pipeline
    good: str
    passes: Pipeline
    is_code: bool
    names: tuple[str, ...]

    @property
    def tolerance(self) -> float:
        """The error that is allowed."""
        return tolerance_of(self.options)

    def run(self, before: Point, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return what the suspected steps make of what the good one left.

        Raises:
            PatcError: a pass refuses it, or the result cannot be run.
        """
        after = run_passes(Case(before.module, before.parameters, inputs), self.passes, before.step)[-1]
        return (compute_code if self.is_code else compute)(after, inputs, self.options)

    def fails(self, case: Case) -> Trial | None:
        """Return the trial of a case whose numbers these steps alone make wrong; None for another one."""
        try:
            before = run_passes(case, self.lead, self.good)[-1]
            found = self.run(before, case.inputs)
            expected = compute_tensors(case.module, case.parameters, case.inputs)
            error = largest_error(found, expected)
            is_led = error > self.tolerance and (
                largest_error(compute(before, case.inputs, self.options), expected) <= self.tolerance
            )
        except PatcError:
            return None
        return Trial(before, found, expected, error) if is_led else None


def tolerance_of(options: Options) -> float:
    """Return the error that is promised of results, of their largest magnitude."""
    return NUMERICS[options.dtype].error_bound


def find_suspect(
    case: Case, options: Options, expected: Sequence[np.ndarray], tell: Callable[[str], None]
) -> Suspect | None:
    """Return what makes a net's numbers wrong; None where they are right.

    Args:
        case: a net as it was imported.
        expected: its outputs.
        tell: called with what is done.

    Raises:
        PatcError: a pass refuses the net, or it cannot be run.
    """
    pipeline = find_backend(options.target.backend).pipeline(options)
    points = run_passes(case, pipeline)
    last = len(points)

    def is_off(number: int) -> bool:
        tell(f"computing what '{points[number].step}' left" if number < last else "running the code")
        if number == last:
            found = compute_code(points[-1], case.inputs, options)
        else:
            found = compute(points[number], case.inputs, options)
        return largest_error(found, expected) > tolerance_of(options)

    judged = [number for number, point in enumerate(points) if can_compute(point, options)]
    if not is_off(last):
        return None
    if is_off(0):
        return Suspect(options, points[0], Pipeline(), "", Pipeline(), False, (IMPORT,))
    place = first_of(range(1, len(judged)), lambda place: is_off(judged[place]))
    good, bad = judged[(place or len(judged)) - 1], last if place is None else judged[place]
    base = min(good, next(number for number, point in enumerate(points) if point.step == SPLIT))
    passes = pipeline.passes[good:bad]
    names = [item.name for item in passes]
    if bad == last and names in ([], [_THREADS]):
        without = compute_code(points[good], case.inputs, options)
        names = [CODE] if largest_error(without, expected) > tolerance_of(options) else names
    elif bad == last:
        names.append(CODE)
    lead = pipeline.passes[base:good]
    return Suspect(
        options, points[base], Pipeline(lead), points[good].step, Pipeline(passes), bad == last, tuple(names)
    )


def first_of(items: Sequence[Item], is_wanted: Callable[[Item], bool]) -> Item | None:
    """Return the first item that is wanted, where all behind it are, by halving."""
    low, high = 0, len(items)
    while low < high:
        middle = (low + high) // 2
        if is_wanted(items[middle]):
            high = middle
        else:
            low = middle + 1
    return items[low] if low < len(items) else None
