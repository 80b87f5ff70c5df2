"""What a classifier says about pictures whose classes are known."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patc.diagnostics import PatcError, some
from patc.files import atomic_write
from patc.tools.console import make_console, make_table
from patc.tools.images import picture_batches
from patc.tools.labels import Labels

if TYPE_CHECKING:
    from patc.runtime.model import CompiledModel

SHOWN_CLASSES = 10
TOP = 5


@dataclass(frozen=True)
class Result:
    """What a model said about pictures.

    Attributes:
        names: of the classes.
        classes: the right class of each picture.
        scores: pictures x classes.
    """

    names: tuple[str, ...]
    classes: np.ndarray
    scores: np.ndarray

    def top(self, count: int) -> float:
        """Return the share of pictures whose class is among the `count` largest scores."""
        best = np.argsort(-self.scores, axis=1, kind="stable")[:, :count]
        return float((best == self.classes[:, None]).any(axis=1).mean())

    def confusion(self) -> np.ndarray:
        """Return how often class i was taken for class j."""
        counts = np.zeros((len(self.names),) * 2, np.int64)
        np.add.at(counts, (self.classes, self.scores.argmax(axis=1)), 1)
        return counts


def score(
    compiled: CompiledModel,
    pictures: dict[str, list[str]],
    labels: Labels | None,
    folder: str,
    models: Sequence[Callable[[np.ndarray], Any]],
) -> list[Result]:
    """Run models, the compiled one and PyTorch's, on what the compiled one takes.

    Args:
        pictures: files by the names of their classes' folders.
        labels: of the scores; without them the folders in their order are the scores.
        folder: that errors name.

    Raises:
        PatcError: a file is no picture, there is not one output of scores, or folders and scores do not go together.
    """
    places: dict[str, int] = {}
    scores: list[list[np.ndarray]] = [[] for _ in models]
    for paths in pictures.values():
        for group, array in picture_batches(paths, compiled):
            for model, found in zip(models, scores, strict=True):
                found.append(_scores_of(model, array, folder)[: len(group)])
            places = places or _find_places(list(pictures), labels, scores[0][0].shape[1], folder)
    classes = np.array([places[name] for name, paths in pictures.items() for _ in paths])
    names = labels.names if labels is not None else tuple(places)
    return [Result(names, classes, np.concatenate(found)) for found in scores]


def _scores_of(model: Callable[[np.ndarray], Any], array: np.ndarray, folder: str) -> np.ndarray:
    found = np.asarray(model(array))
    if found.ndim != 2 or len(found) != len(array):
        shape = list(found.shape)
        raise PatcError(f"expected a model of one output, scores of each image, got one of shape {shape}", folder)
    return found.astype(np.float64)


def _find_places(folders: Sequence[str], labels: Labels | None, scores: int, folder: str) -> dict[str, int]:
    """Return which score stands for the class of each folder."""
    if labels is None:
        if len(folders) != scores:
            raise PatcError(f"expected {scores} folders, one for each score, or --labels; got {len(folders)}", folder)
        return {name: place for place, name in enumerate(folders)}
    labels.check(scores)
    found = {name: labels.find(name) for name in folders}
    unknown = [name for name, place in found.items() if place is None]
    if unknown:
        raise PatcError(f"expected folders named as labels, found {some(unknown)}", folder)
    return {name: place for name, place in found.items() if place is not None}


def figures(result: Result) -> dict[str, Any]:
    """Return what `--json` saves: shares from 0 to 1, and for each class its pictures and the right ones."""
    right = result.confusion()
    totals = right.sum(axis=1)
    return {
        "pictures": len(result.classes),
        "top1": result.top(1),
        "top5": result.top(TOP),
        "classes": {
            name: {"pictures": int(totals[i]), "right": int(right[i, i])}
            for i, name in enumerate(result.names)
            if totals[i]
        },
    }


def print_result(model: str, result: Result) -> None:
    """Print the shares, and the classes that are missed most, with what they are taken for."""
    five = f", top-{TOP} {result.top(TOP):.2%}" if len(result.names) > TOP else ""
    print(f"{model}: {len(result.classes)} pictures, top-1 {result.top(1):.2%}{five}")
    counts = result.confusion()
    totals = counts.sum(axis=1)
    wrong = totals - counts.diagonal()
    worst = [int(i) for i in np.argsort(-wrong / np.maximum(totals, 1), kind="stable")[:SHOWN_CLASSES] if wrong[i]]
    if not worst:
        return
    table = make_table(("class", "most taken for", "pictures", "right", "share"), 2)
    for i in worst:
        others = np.where(np.arange(len(counts)) == i, 0, counts[i])
        right = int(counts[i, i])
        row = (result.names[i], result.names[int(others.argmax())], str(totals[i]), str(right))
        table.add_row(*row, f"{right / totals[i]:.1%}")
    make_console().print(table)


def compare(result: Result, other: Result) -> dict[str, float]:
    """Print and return what PyTorch gets right, and how often both choose one class."""
    same = float((result.scores.argmax(axis=1) == other.scores.argmax(axis=1)).mean())
    largest = float(np.abs(other.scores).max(initial=1e-30))
    error = float(np.abs(result.scores - other.scores).max(initial=0.0)) / largest
    five = f", top-{TOP} {other.top(TOP):.2%}" if len(result.names) > TOP else ""
    print(f"PyTorch: top-1 {other.top(1):.2%}{five}; the same class for {same:.2%}, error of scores {error:.1e}")
    return {"top1": other.top(1), "top5": other.top(TOP), "same_class": same, "error": error}


def draw(result: Result, path: str) -> None:
    """Draw the confusion of the classes that have pictures, as shares of each.

    Raises:
        PatcError: matplotlib is missing, or the file cannot be written.
    """
    from patc.pruning.plots import new_figure

    counts = result.confusion()
    shown = np.flatnonzero(counts.sum(axis=1) + counts.sum(axis=0))
    counts = counts[np.ix_(shown, shown)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(14.0, 4 + 0.22 * len(shown))
    figure = new_figure(size, size)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="viridis", vmin=0, vmax=1)
    axes.set_xlabel("class of the largest score")
    axes.set_ylabel("class of the picture")
    if len(shown) <= 60:
        names = [result.names[i][:24] for i in shown]
        axes.set_xticks(range(len(shown)), names, rotation=90)
        axes.set_yticks(range(len(shown)), names)
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the class's pictures")
    stream = io.BytesIO()
    figure.savefig(stream, format=Path(path).suffix[1:], dpi=150)
    atomic_write(path, stream.getvalue())
