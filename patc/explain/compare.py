"""Two nets side by side: which layer of one is which of the other, and what that gains."""

from __future__ import annotations

from collections import Counter

from patc.explain.report import Net, Pair


def pair_layers(first: Net, second: Net) -> tuple[Pair, ...]:
    """Return the layers of two nets, those of the same name, op and turn together, in the order of the first net;
    behind them those that the second one has alone."""
    ours, theirs = (_keys(net) for net in (first, second))
    pairs = [_pair(first, second, number, theirs.get(key)) for key, number in ours.items()]
    return tuple(pairs + [_pair(first, second, None, number) for key, number in theirs.items() if key not in ours])


def _keys(net: Net) -> dict[tuple[str, str, int], int]:
    """Return the number of each layer by its name, op and how many of these came before."""
    seen = Counter[tuple[str, str]]()
    found = {}
    for number, item in enumerate(net.layers):
        key = item.layer.name, item.layer.op.removeprefix("sparse_")
        found[key[0], key[1], seen[key]] = number
        seen[key] += 1
    return found


def _pair(first: Net, second: Net, ours: int | None, theirs: int | None) -> Pair:
    one = None if ours is None else first.layers[ours]
    other = None if theirs is None else second.layers[theirs]
    cycles = (other.cycles if other else 0.0) - (one.cycles if one else 0.0)
    seconds = None
    if first.time is not None and second.time is not None:
        seconds = ((other.time if other else 0.0) or 0.0) - ((one.time if one else 0.0) or 0.0)
    return Pair(ours, theirs, cycles, seconds)
