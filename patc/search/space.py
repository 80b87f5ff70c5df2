"""What can be chosen."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = "str | int | float"
Point: TypeAlias = dict[str, Value]


def always(point: Point) -> bool:
    """Return that there is a choice, whatever was chosen before."""
    return True


@dataclass(frozen=True)
class Choice:
    """One of some values.

    Attributes:
        name: of what is chosen.
        values: from what costs the least to what costs the most, if they have an order.
        ordered: whether they do.
        when: whether there is this choice, by the choices before it.
    """

    name: str
    values: tuple[Value, ...]
    ordered: bool = True
    when: Callable[[Point], bool] = always


@dataclass(frozen=True)
class Space:
    """Choices, in the order in which they are made."""

    choices: tuple[Choice, ...]

    def choose(self, pick: Callable[[Choice], Value]) -> Point:
        """Return the point of which `pick` says each value."""
        point: Point = {}
        for choice in self.choices:
            if choice.when(point):
                point[choice.name] = pick(choice)
        return point

    def sample(self, generator: random.Random) -> Point:
        """Return a random point."""
        return self.choose(lambda choice: generator.choice(choice.values))

    def extreme(self, place: int, generator: random.Random) -> Point:
        """Return the cheapest point, or with -1 as `place` the dearest; values without an order are random ones."""
        return self.choose(lambda choice: choice.values[place] if choice.ordered else generator.choice(choice.values))

    def corners(self, place: int) -> Iterator[Point]:
        """Yield cheapest points, or with -1 as `place` dearest: in the first all choices without an order have their
        first value, in the next their second one, and so on."""
        kinds = max((len(choice.values) for choice in self.choices if not choice.ordered), default=1)
        seen: list[Point] = []
        for number in range(kinds):
            point = self._corner(place, number)
            if point not in seen:
                seen.append(point)
                yield point

    def _corner(self, place: int, number: int) -> Point:
        return self.choose(lambda choice: choice.values[place if choice.ordered else number % len(choice.values)])

    def __add__(self, other: Space) -> Space:
        return Space((*self.choices, *other.choices))


def describe(point: Point) -> str:
    """Return a point in words, equal values of numbered choices in a row together: `width 16, block 0-3 plain`."""
    words = []
    for (stem, value), items in itertools.groupby(point.items(), lambda item: (item[0].rstrip("0123456789"), item[1])):
        names = [name for name, _ in items]
        numbers = [name.removeprefix(stem) for name in names]
        several = f" {numbers[0]}-{numbers[-1]}" if len(names) > 1 else f" {numbers[0]}" if numbers[0] else ""
        words.append(f"{stem}{several} {value:g}" if isinstance(value, float) else f"{stem}{several} {value}")
    return ", ".join(words)
