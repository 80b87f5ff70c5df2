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
    """Return the trained candidates that are better on the first rung than all faster ones, from the fastest on."""
    found: list[Candidate] = []
    for item in sorted((item for item in candidates if item.scores), key=lambda item: (item.seconds, -item.scores[0])):
        if not found or item.scores[0] > found[-1].scores[0]:
            found.append(item)
    return found


def save_front(
    path: Path, candidates: Sequence[Candidate], limit: float, figure: str, measured: Mapping[str, float]
) -> None:
    """Draw trained candidates by their modelled time and their score on the first rung, with the front and the limit;
    where a time was measured, a line goes to it, and from there up to the scores of other rungs.

    Raises:
        PatcError: matplotlib is missing, or the file cannot be written.
    """
    drawing = new_figure(7.2, 4.4)
    axes = drawing.subplots()
    trained = {item.key: item for item in candidates if item.scores}
    for scheme, colour in _COLOURS.items():
        items = [item for item in trained.values() if item.point["scheme"] == scheme]
        if not items:
            continue
        times, scores = [1e3 * item.seconds for item in items], [item.scores[0] for item in items]
        axes.plot(times, scores, "o", color=colour, markersize=5, alpha=0.85, label=f"{_WORDS[scheme]} ({len(items)})")
        for item in items:
            time = 1e3 * measured.get(item.key, item.seconds)
            if item.key in measured:
                axes.plot([1e3 * item.seconds, time], [item.scores[0]] * 2, "-", color=colour, linewidth=0.9)
                axes.plot([time], [item.scores[0]], "|", color=colour, markersize=9)
            if len(item.scores) > 1:
                axes.plot([time] * len(item.scores), item.scores, "-", color=colour, linewidth=0.9)
                axes.plot([time] * (len(item.scores) - 1), item.scores[1:], "^", color=colour, markersize=5)
    best = front(list(trained.values()))
    axes.step(
        [1e3 * item.seconds for item in best],
        [item.scores[0] for item in best],
        where="post",
        color="black",
        linewidth=1,
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
    words = f"{len(trained)} candidates trained, {over} over the limit not; triangles: trained further"
    axes.set_title(words, fontsize=9, loc="left")
    save_figure(drawing, path)
