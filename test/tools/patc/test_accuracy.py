"""`patc accuracy`: pictures in folders by class, against what PyTorch counts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from command import fail, run
from PIL import Image

import patc
from patc.tools.labels import probabilities, read_labels

pytestmark = pytest.mark.usefixtures("one_thread")

# A net that is right about colours: scores are the means of the channels.
_CODE = """
import torch
from torch import nn

def build():
    net = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(3).reshape(3, 3, 1, 1))
    return net, torch.zeros(2, 3, 8, 8)
"""
_COLOURS = {"blue": (10, 20, 200), "green": (10, 200, 20), "red": (200, 10, 20)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net, three classes of three pictures, one of which is in the wrong folder, and the net's labels."""
    path = tmp_path_factory.mktemp("accuracy")
    (path / "net.py").write_text(_CODE)
    for name in _COLOURS:
        (path / "val" / name).mkdir(parents=True)
        for i in range(3):
            colour = _COLOURS["green" if (name, i) == ("blue", 2) else name]
            Image.fromarray(np.full((12, 9, 3), colour, np.uint8)).save(path / "val" / name / f"{i}.png")
    (path / "labels.txt").write_text("n01 red, crimson\nn02 green\nn03 blue\n")
    assert patc.tools.patc.main(["compile", f"{path}/net.py:build", "-o", f"{path}/net.patc", "--quiet"]) == 0
    return path


def test_counts_right_pictures_beside_pytorch(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    words = ("--labels", folder / "labels.txt", "--json", tmp_path / "a.json", "--confusion", tmp_path / "c.png")
    text = run(capsys, "accuracy", f"{folder}/net.py:build", folder / "val", *words)
    assert "9 pictures, top-1 88.89%" in text
    assert "PyTorch: top-1 88.89%; the same class for 100.00%, error of scores " in text
    row = next(line for line in text.splitlines() if line.startswith("n03 blue"))
    assert row.split() == ["n03", "blue", "n02", "green", "3", "2", "66.7%"]
    figures = json.loads((tmp_path / "a.json").read_text())
    assert figures["classes"]["n03 blue"] == {"pictures": 3, "right": 2}
    assert figures["top1"] == pytest.approx(8 / 9) and figures["pytorch"]["error"] < 1e-5
    assert Image.open(tmp_path / "c.png").size[0] > 300


def test_a_picture_that_cannot_be_drawn_is_refused_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    line = fail(capsys, "accuracy", folder / "net.patc", folder / "val", "--confusion", tmp_path / "c.png")
    assert line == "expected matplotlib for pictures, found none: pip install 'patc[train]'"


def test_folders_in_their_order_are_the_scores_without_labels(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    text = run(capsys, "accuracy", folder / "net.patc", folder / "val", "--limit", "2")
    assert "6 pictures, top-1 33.33%" in text  # red and blue are the other way round
    assert "PyTorch" not in text


def test_folders_and_labels_that_do_not_go_together_are_one_line(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "one" / "pink").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "one" / "pink" / "a.png")
    words = ("accuracy", folder / "net.patc", tmp_path / "one")
    assert "one: expected 3 folders, one for each score, or --labels; got 1" in fail(capsys, *words)
    message = fail(capsys, *words, "--labels", folder / "labels.txt")
    assert "one: expected folders named as labels, found 'pink'" in message
    assert "expected a folder of pictures for each class in it, found no folder" in fail(
        capsys, "accuracy", folder / "net.patc", tmp_path / "one" / "pink"
    )
    (tmp_path / "one" / "pink" / "a.png").unlink()
    assert "pink: expected pictures (.bmp, " in fail(capsys, *words)


def test_labels_of_all_forms_are_one_list(tmp_path: Path) -> None:
    texts = {
        "a.txt": "cat\ndog\n\n",
        "b.json": '["cat", "dog"]',
        "c.json": '{"0": ["n01", "cat"], "1": ["n02", "dog"]}',
        "d.json": '{"1": "dog", "0": "cat"}',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert read_labels(str(tmp_path / name)).names == ("cat", "dog")


def test_probabilities_stay_and_scores_become_some() -> None:
    rows = probabilities([[0.25, 0.75], [1000.0, 1000.0], [-3.0, 5.0]])
    assert rows[0].tolist() == [0.25, 0.75] and rows[1].tolist() == [0.5, 0.5]
    np.testing.assert_allclose(rows.sum(axis=1), 1)
