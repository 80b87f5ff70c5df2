"""Find the first layer whose numbers are off, and the fewest layers around it that still show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from patc.debugging.cuts import Case, Place, body_ops, cut, makers, results_of, returned, short_name, steps, users
from patc.debugging.differences import error_of
from patc.debugging.points import Point, compute_tensors
from patc.debugging.search import Trial, first_of
from patc.debugging.sizes import apply, changes
from patc.diagnostics import PatcError


class Shows(Protocol):
    """What says of a case whether it still shows what is looked for."""

    @property
    def tolerance(self) -> float:
        """The error that is allowed."""

    def fails(self, case: Case) -> Trial | None:
        """Return the trial of a case that shows it; None for another one."""


@dataclass
class Budget:
    """How often cases are tried, at most.

    Attributes:
        tell: called before each try with what is done.
        used: tries so far.
    """

    most: int
    tell: Callable[[str], None]
    used: int = 0

    def spend(self, what: str) -> bool:
        """Count a try; return whether it may be made."""
        if self.used >= self.most:
            return False
        self.used += 1
        self.tell(f"{what}, try {self.used}")
        return True


@dataclass(frozen=True)
class LayerError:
    """A layer of a net, and the largest error of its outputs, of their largest magnitude."""

    name: str
    error: float


@dataclass
class Net:
    """A module on tensors whose parts are tried.

    Attributes:
        point: the module.
        inputs: an array for each argument.
        numbers: of all that it computes, by the reference.
    """

    point: Point
    inputs: Sequence[np.ndarray]
    numbers: dict[Place, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.steps = steps(self.point.module)
        self.places = results_of(self.point.module, self.steps)
        whole = self.part(self.places, [])
        found = compute_tensors(whole.module, whole.parameters, whole.inputs)
        self.numbers.update(zip(self.places, found, strict=True))

    def part(self, outputs: Sequence[Place], given: Sequence[Place]) -> Case:
        """Return what computes some values from others, with the numbers of these."""
        module, stands_for = cut(self.point.module, outputs, given)
        inputs = [self.inputs[each.number] if each.op < 0 else self.numbers[each] for each in stands_for]
        return Case(module, self.point.parameters, inputs)

    def layer(self, number: int) -> str:
        """Return the name of the layer that an op is."""
        return short_name(body_ops(self.point.module)[number])

    def errors(self, run: Callable[[Case], Sequence[np.ndarray]]) -> list[tuple[int, float]]:
        """Return the error of each step where all of their results are outputs.

        Args:
            run: returns the outputs of a case.
        """
        found = dict(zip(self.places, run(self.part(self.places, [])), strict=True))
        worst: dict[int, float] = {}
        for place, array in found.items():
            worst[place.op] = max(worst.get(place.op, 0.0), error_of(array, self.numbers[place]))
        return list(worst.items())


@dataclass(frozen=True)
class Located:
    """What was found.

    Attributes:
        layer: the name of the first layer that is off.
        trial, case: of the fewest layers that show it.
        layers: how many they are.
    """

    layer: str
    case: Case
    trial: Trial
    layers: int


def locate(net: Net, suspect: Shows, budget: Budget) -> Located | None:
    """Return the part of a net that a suspect makes wrong; None where no part of it is, not even the whole.

    Args:
        net: `Suspect.base`.
    """
    end = _find_end(net, suspect, budget)
    if end is None:
        return None
    number, outputs = end
    rings = list(_rings(net, outputs))

    def attempt(inside: set[int], what: str) -> tuple[Case, Trial] | None:
        given = [place for place in net.places if place.op not in inside and place not in outputs]
        return _attempt(net.part(outputs, given), suspect, budget, what)

    size = first_of(
        range(1, len(rings)), lambda count: attempt(set().union(*rings[:count]), "fewer layers") is not None
    )
    inside = set().union(*rings[: size or len(rings)])
    for layer in sorted(inside - {place.op for place in outputs}):
        if attempt(inside - {layer}, "one layer less") is not None:
            inside.discard(layer)
    found = attempt(inside, "what is left")
    if found is None:
        return None
    return Located(net.layer(number), *found, len(inside))


def shrink(located: Located, suspect: Shows, budget: Budget) -> Located:
    """Return the same with the smallest tensors that still show it, and that the budget lets find."""
    case, trial = located.case, located.trial
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for number in range(len(changes(case))):
            listed = changes(case)
            for change in listed[number] if number < len(listed) else ():
                smaller = apply(case, change)
                found = None if smaller is None else _attempt(smaller, suspect, budget, str(change))
                if found is not None:
                    (case, trial), is_smaller = found, True
                    break
    return replace(located, case=case, trial=trial)


def _attempt(case: Case, suspect: Shows, budget: Budget, what: str) -> tuple[Case, Trial] | None:
    trial = suspect.fails(case) if budget.spend(what) else None
    return None if trial is None else (case, trial)


def _find_end(net: Net, suspect: Shows, budget: Budget) -> tuple[int, list[Place]] | None:
    """Return the first step that is off, and the values that show it: its own, or where a net that ends there is right,
    those of the next step that is not, or of the whole net."""
    first = _first_off(net, suspect)
    readers = users(net.point.module)
    behind = [first] if first is not None else list(net.steps)
    for number in net.steps if first is not None else ():
        behind += [number] if any(number in readers[each] for each in behind) and number not in behind else []
    outputs = returned(net.point.module)
    ends = [(number, results_of(net.point.module, [number])) for number in behind]
    last = max((place.op for place in outputs), default=0)
    ends.append((first if first is not None else _step_at(net, last), outputs))

    def shows(place: int) -> bool:
        number, places = ends[place]
        return _attempt(net.part(places, []), suspect, budget, f"the net up to {net.layer(number)}") is not None

    # The first is most likely; then in growing strides, and back.
    tried, before = 0, -1
    while not shows(tried):
        if tried == len(ends) - 1:
            return None
        tried, before = min(2 * tried + 1, len(ends) - 1), tried
    place = first_of(range(before + 1, tried), shows)
    number, places = ends[tried if place is None else place]
    return (first if first is not None else number), places


def _first_off(net: Net, suspect: Shows) -> int | None:
    """Return the first step that is off where all results are outputs; None where that hides what is wrong."""

    def run(case: Case) -> Sequence[np.ndarray]:
        trial = suspect.fails(case)
        if trial is None or not trial.found:
            raise PatcError("nothing is off")
        return trial.found

    try:
        return next((number for number, error in net.errors(run) if error > suspect.tolerance), None)
    except PatcError:
        return None


def _step_at(net: Net, number: int) -> int:
    """Return the last step up to an op."""
    return max((each for each in net.steps if each <= number), default=net.steps[0])


def _rings(net: Net, outputs: Sequence[Place]) -> Iterator[set[int]]:
    """Yield the steps from some values back to the arguments: those that make them, what these read, and so on."""
    readers = users(net.point.module)
    ring = {number for place in outputs for number in makers(net.point.module, place)}
    seen = set(ring)
    while ring:
        yield ring
        ring = {each for each in net.steps if each not in seen and readers[each] & ring}
        seen |= ring
