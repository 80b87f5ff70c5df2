"""What a schedule may say of a layer: each algorithm names its own limits, see `Algorithm.limits`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """A limit of a field of a schedule, or of what fields make together.

    Attributes:
        name: of the field.
        found: what the schedule says.
        wanted: what it may say, in words.
        holds: whether it does.
    """

    name: str
    found: int | str
    wanted: str
    holds: bool


def at_most(name: str, found: int, most: int) -> Limit:
    """Return the limit of a number."""
    return Limit(name, found, f"{most} or less", found <= most)


def one_of(name: str, found: int | str, known: Sequence[int | str]) -> Limit:
    """Return the limit of a field that may have few values."""
    return Limit(name, found, " or ".join(map(str, known)), found in known)


def multiple_of(name: str, found: int, unit: int, most: int | None = None) -> Limit:
    """Return the limit of a number of whole units, of any number of them if `most` is None."""
    wanted = f"a multiple of {unit}" + ("" if most is None else f", {most} or less")
    return Limit(name, found, wanted, found % unit == 0 and (most is None or found <= most))


def divisor_of(name: str, found: int, whole: int) -> Limit:
    """Return the limit of a number that has to divide another one."""
    return Limit(name, found, f"a divisor of {whole}", whole % found == 0)


def power_of_two(name: str, found: int, least: int, most: int) -> Limit:
    """Return the limit of a power of two."""
    holds = least <= found <= most and found & (found - 1) == 0
    return Limit(name, found, f"a power of two from {least} to {most}", holds)


def block_of(name: str, found: int, filters: int, groups: int) -> Limit:
    """Return the limit of filters that are computed together: the last block overlaps its neighbour, but where each
    group of filters reads channels of its own, blocks have to divide it."""
    return at_most(name, found, filters) if groups == 1 else divisor_of(name, found, filters // groups)
