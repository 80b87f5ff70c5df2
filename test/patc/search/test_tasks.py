"""The tasks of `patc search`: all their nets can be built, pruned and compiled, and data are what they say."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import patc
from patc.diagnostics import PatcError
from patc.pruning import prune_
from patc.search import Classification, SuperNet, SuperResolution, Task
from patc.search.blocks import BLOCKS
from patc.search.task import build_seeded, seeded
from patc.upscaling.pictures import draw_pictures, open_folder, shrink

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=["sr", "classify"])
def task(request: pytest.FixtureRequest) -> Task:
    return SuperResolution(2, (20, 12), "drawings") if request.param == "sr" else Classification("glyphs:96")


def test_all_candidates_can_be_pruned(task: Task) -> None:
    for number in range(24):
        point = task.candidates.sample(seeded(number))
        if number % 2:
            point |= {"width": 8, "scheme": ("pattern", "block")[number // 2 % 2], "rate": 8.0}
        net, plan = build_seeded(task, point), task.plan(point)
        assert (plan is None) == (point["scheme"] == "dense")
        if plan is not None:
            report = prune_(net, plan)
            assert report.compression == pytest.approx(point["rate"], rel=0.15)


def test_compiled_nets_are_right(task: Task) -> None:
    """One of each kind of block, with shared weights that are not what training begins with."""
    supernet = SuperNet(task, 1)
    with torch.no_grad():
        for weight in supernet.weights.values():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    point = task.space.extreme(0, seeded(0))
    point |= {"depth": 4} if task.name == "sr" else {}
    point |= {f"block{number}": kind for number, kind in enumerate(BLOCKS)}
    net = supernet.extract(point).eval()
    x = torch.rand(task.inputs[0].shape, generator=torch.Generator().manual_seed(0))
    compiled = patc.compile(net, task.inputs, threads=1)
    wanted = net.double()(x.double()).detach().numpy()
    assert np.abs(np.asarray(compiled(x)) - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_batches_depend_on_seed_and_number(task: Task) -> None:
    first = task.batch(0, 3, 4)
    assert torch.equal(task.batch(0, 5, 4)[0], task.batch(0, 5, 4)[0])
    assert all(torch.equal(*pair) for pair in zip(first, task.batch(0, 3, 4), strict=True))
    assert not torch.equal(first[0], task.batch(1, 3, 4)[0])
    assert not torch.equal(first[0], task.batch(0, 30, 4)[0])  # of another epoch


def test_training_begins_with_the_resized_picture() -> None:
    task = SuperResolution(3, (20, 12), "drawings")
    net = task.build(task.space.extreme(0, seeded(0)))
    assert task.score(net, "judge") == pytest.approx(task.beside()["bilinear"], abs=1e-3)
    assert task.beside()["bicubic"] > task.beside()["bilinear"]
    assert task.score(net, "choose") != task.score(net, "judge")
    x, wanted = task.batch(0, 0, 2)
    assert (x.shape, wanted.shape) == ((2, 3, 48, 48), (2, 3, 144, 144))
    assert torch.equal(shrink(wanted, 3), x)


@pytest.mark.skipif(find_spec("skimage") is None, reason="pip install --no-deps --group nets")
def test_photographs() -> None:
    task = SuperResolution(2, (20, 12))
    assert task.identity()["data"] != SuperResolution(2, (20, 12), "drawings").identity()["data"]


def test_without_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        PatcError, match=r"expected the package skimage, found none: pip install --no-deps --group nets"
    ):
        SuperResolution(2, (20, 12))


def test_scores_of_classes() -> None:
    task = Classification("glyphs:96")
    net = task.build(task.space.extreme(0, seeded(0)))
    assert 0 <= task.score(net, "judge") <= 100 and task.identity()["data"] == "glyphs:96 (96 to learn from)"


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    def save(name: str, side: int) -> None:
        Image.new("RGB", (side, side + 2), "teal").save(tmp_path / name)

    with pytest.raises(PatcError, match=r"missing: expected a folder of pictures, found none"):
        open_folder(tmp_path / "missing", 16)
    save("a.png", 20)
    with pytest.raises(PatcError, match=r"expected three pictures or more \(.jpg, .*\), found 1"):
        open_folder(tmp_path, 16)
    for number in range(12):
        save(f"b{number:02d}.png", 20 + number)
    learnt, *others = open_folder(tmp_path, 16)
    assert [picture.shape[2] for picture in learnt] == [20, *range(20, 27), *range(29, 32)]
    assert [[picture.shape[2] for picture in part] for part in others] == [[27], [28]]
    save("c.png", 15)
    with pytest.raises(PatcError, match=r"c.png: expected pictures of 16x16 pixels or more, found 15x17"):
        open_folder(tmp_path, 16)
    (tmp_path / "c.png").write_bytes(b"no picture")
    with pytest.raises(PatcError, match=r"c.png: expected a picture that can be decoded"):
        open_folder(tmp_path, 16)


def test_drawn_pictures_are_those_of_their_seed() -> None:
    one, other = draw_pictures(1, 5, 64), draw_pictures(1, 5, 64)
    assert len(one) == 3 and all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    assert not torch.equal(one[0], draw_pictures(1, 6, 64)[0])
