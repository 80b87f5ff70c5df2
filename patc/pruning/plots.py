"""Drawings of kernels, patterns and results, with matplotlib."""

from __future__ import annotations

import importlib.util
import io
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from patc.diagnostics import PatcError
from patc.files import atomic_write
from patc.integers import ceil_div


def require_matplotlib() -> None:
    """Refuse to draw without matplotlib, before anything takes time.

    Raises:
        PatcError: it is missing.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise PatcError("expected matplotlib for pictures, found none: pip install 'patc[train]'")


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of this size in inches, without touching a display.

    Raises:
        PatcError: matplotlib is missing.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG; the file appears whole or not at all."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    atomic_write(path, stream.getvalue())


def save_spreads(
    path: str | os.PathLike[str], labels: Sequence[str], values: Sequence[Sequence[float]], unit: str
) -> None:
    """Draw for each label its values, their mean and, of several, their sample standard deviation."""
    figure = new_figure(7.2, 1 + 0.3 * len(labels))
    axes = figure.subplots()
    for place, found in enumerate(values):
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        axes.errorbar(statistics.mean(found), place, xerr=spread, fmt="o", color="#4c78a8", capsize=3, markersize=4)
        axes.plot(found, [place + 0.25] * len(found), ".", color="#9a9a9a", markersize=4)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(np.arange(len(labels)), labels, fontsize=8)
    axes.set_xlabel(unit)
    axes.grid(axis="x", color="#e0e0e0", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def save_histogram(path: str | os.PathLike[str], histogram: Mapping[int, int], most: int = 32) -> None:
    """Draw how many kernels have each pattern, the most frequent first, each pattern below its bar (figure 4)."""
    ordered = sorted(histogram.items(), key=lambda item: (-item[1], item[0]))
    shown = ordered[:most]
    total = max(sum(histogram.values()), 1)
    figure = new_figure(max(4.0, 0.45 * len(shown)), 3.2)
    bars, drawings = figure.subplots(2, 1, height_ratios=(5, 1), sharex=True)
    places = np.arange(len(shown))
    bars.bar(places, [100 * count / total for _, count in shown], color="#4c78a8")
    bars.set_ylabel("kernels, percent")
    bars.tick_params(axis="x", bottom=False)
    rest = total - sum(count for _, count in shown)
    if len(ordered) > most:
        bars.set_title(f"{len(ordered) - most} more patterns: {100 * rest / total:.1f}%", fontsize=8, loc="right")
    bars.spines[["top", "right"]].set_visible(False)
    for place, (mask, _) in enumerate(shown):
        grid = np.array([mask >> tap & 1 for tap in range(9)]).reshape(3, 3)
        drawings.imshow(1 - grid, cmap="gray", vmin=0, vmax=1.3, extent=(place - 0.35, place + 0.35, 0, 0.7))
    drawings.set_xlim(-0.6, len(shown) - 0.4)
    drawings.set_ylim(-0.05, 0.75)
    drawings.set_aspect("equal")
    drawings.axis("off")
    save_figure(figure, path)


def save_heat_maps(path: str | os.PathLike[str], layers: Mapping[str, np.ndarray]) -> None:
    """Draw the mean size of each tap over a layer's kernels (figure 1).

    Args:
        layers: height x width of each layer, by name; each is drawn relative to its largest value.
    """
    columns = min(6, len(layers))
    rows = ceil_div(len(layers), columns)
    figure = new_figure(1.5 * columns, 1.7 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axes in grid:
        axes.axis("off")
    for axes, (name, values) in zip(grid, layers.items(), strict=False):
        axes.imshow(values / max(float(values.max()), 1e-30), cmap="magma", vmin=0, vmax=1)
        axes.set_title(name, fontsize=7)
    save_figure(figure, path)


def save_pictures(
    path: str | os.PathLike[str], rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str]
) -> None:
    """Draw rows of pictures, H x W x 3 or H x W from 0 to 1, each row with its name and each column with its title."""
    figure = new_figure(1.7 * len(titles) + 0.6, 1.7 * len(rows) + 0.3)
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=8)
    for (name, pictures), line in zip(rows.items(), grid, strict=True):
        for axes, picture in zip(line, pictures, strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
        line[0].set_ylabel(name, fontsize=8)
    save_figure(figure, path)
