"""How threads divide layers: by rows or by filters, chosen for all layers of a net together.

What one thread wrote comes from its core's cache when another thread reads it. So what divides a layer best depends on
what divides those that it reads, and those that read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_BEAM = 64  # ways to divide the layers so far that are kept: of more than six tensors in use, not all


@dataclass(frozen=True)
class Read:
    """A tensor that a layer reads, and that another one wrote.

    Attributes:
        layer: number of the one that wrote it.
        cycles: to fetch it, by what divides that one and what divides this one.
    """

    layer: int
    cycles: Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Divisible:
    """A layer that may be divided in several ways.

    Attributes:
        ways: cycles by what is divided, without those in which it fetches what it reads.
        reads: what it fetches.
    """

    ways: Mapping[str, float]
    reads: Sequence[Read] = ()


def divide_layers(layers: Sequence[Divisible]) -> list[tuple[str, float]]:
    """Return what divides each layer, so that all together take the least, and the cycles that it takes.

    Args:
        layers: in the order in which they run.
    """
    last_reader = {read.layer: number for number, layer in enumerate(layers) for read in layer.reads}
    # For each way to divide those layers whose results are still read: cycles so far, and all choices as a linked list.
    states: dict[tuple[tuple[int, str], ...], tuple[float, Any]] = {(): (0.0, None)}
    for number, layer in enumerate(layers):
        found: dict[tuple[tuple[int, str], ...], tuple[float, Any]] = {}
        for live, (cycles, choices) in states.items():
            chosen = dict(live)
            for way, own in layer.ways.items():
                taken = own + sum(read.cycles[chosen[read.layer], way] for read in layer.reads)
                alive = {**chosen, number: way}
                key = tuple((each, how) for each, how in alive.items() if last_reader.get(each, 0) > number)
                if key not in found or cycles + taken < found[key][0]:
                    found[key] = cycles + taken, ((way, taken), choices)
        states = dict(sorted(found.items(), key=lambda item: item[1][0])[:_BEAM])
    _, choices = min(states.values(), key=lambda state: state[0])
    divided: list[tuple[str, float]] = []
    while choices is not None:
        choice, choices = choices
        divided.append(choice)
    return divided[::-1]
