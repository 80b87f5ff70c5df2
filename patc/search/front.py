"""A plot of candidates: their time and how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from patc.pruning.plots import new_figure, save_figure
from patc.search.records import Candidate
from patc.search.task import SCHEMES

_COLOURS = dict(zip(SCHEMES, ("#6b6b6b", "#4c78a8", "#e45756"), strict=True))
_WORDS = {"dense": "dense", "pattern": "patterns", "block": "blocks"}


def front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the trained candidates that are better than all faster ones, from the fastest on."""
    found: list[Candidate] = []
    for item in sorted(candidates, key=lambda item: (item.seconds, -(item.score or 0.0))):
        if item.score is not None and (not found or item.score > (found[-1].score or 0.0)):
            found.append(item)
    return found


def save_front(
    path: Path, candidates: Sequence[Candidate], limit: float, figure: str, measured: Mapping[str, float]
) -> None:
    """Draw trained candidates by their modelled time, with the front and the limit; where a time was measured, a line
    goes to it.

    Raises:
        PatcError: matplotlib is missing, or the file cannot be written.
    """
    drawing = new_figure(7.2, 4.4)
    axes = drawing.subplots()
    trained = {item.key: item for item in candidates if item.score is not None}
    for scheme, colour in _COLOURS.items():
        items = [item for item in trained.values() if item.point["scheme"] == scheme]
        if not items:
            continue
        times, scores = [1e3 * item.seconds for item in items], [item.score for item in items]
        axes.plot(times, scores, "o", color=colour, markersize=5, alpha=0.85, label=f"{_WORDS[scheme]} ({len(items)})")
        for item in items:
            if item.key in measured:
                axes.plot(
                    [1e3 * item.seconds, 1e3 * measured[item.key]], [item.score] * 2, "-", color=colour, linewidth=0.9
                )
                axes.plot([1e3 * measured[item.key]], [item.score], "|", color=colour, markersize=9)
    best = front(list(trained.values()))
    axes.step(
        [1e3 * item.seconds for item in best], [item.score for item in best], where="post", color="black", linewidth=1
    )
    axes.axvline(1e3 * limit, color="black", linestyle="--", linewidth=0.8)
    axes.text(1e3 * limit, 1, "limit ", transform=axes.get_xaxis_transform(), ha="right", va="top", fontsize=9)
    axes.set_xlabel("time by the cost model, ms (to the bar: measured)" if measured else "time by the cost model, ms")
    axes.set_ylabel(figure)
    axes.grid(color="#e0e0e0", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9)
    over = sum(item.seconds > limit for item in {item.key: item for item in candidates}.values())
    axes.set_title(f"{len(trained)} candidates trained, {over} over the limit not", fontsize=9, loc="left")
    save_figure(drawing, path)
