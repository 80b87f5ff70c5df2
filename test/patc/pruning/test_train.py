"""The training loop and `patc prune --data`: checkpoints, data, errors, and what the compiler makes of the result."""

from __future__ import annotations

import copy
import csv
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import fail, run
from torch import Tensor, nn

import patc
from patc import models
from patc.checkpoints import load_checkpoint, read_checkpoint
from patc.diagnostics import PatcError
from patc.models import ModelInfo
from patc.pruning import PHASE2, Admm, AdmmSchedule, PatternSpec, choose_rates, prune_
from patc.pruning.data import Data, TensorSplit, denormalise, normalise, open_data
from patc.pruning.evaluation import evaluate
from patc.pruning.glyphs import CHARACTERS, make_glyphs
from patc.pruning.run_log import COLUMNS
from patc.pruning.train import train
from patc.pruning.train_options import Phase, TrainOptions, plan_phases, rate_share

pytestmark = pytest.mark.usefixtures("one_thread")


class Small(nn.Module):
    """A net that learns in seconds."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 32, 3, stride=2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(32)
        self.dropout = nn.Dropout(0.05)
        self.fc = nn.Linear(32 * 4 * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = torch.relu(self.bn3(self.conv3(x)))
        return self.fc(self.dropout(x.flatten(1)))


def make_small(weights: Any = None, *, seed: int = 0, num_classes: int = 10) -> nn.Module:
    """Return the small net as the constructors of `patc.models` do."""
    torch.manual_seed(seed)
    model = Small(num_classes)
    if weights is not None:
        load_checkpoint(model, read_checkpoint(weights))
    return model.eval()


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """`resnet18_cifar` is the small net: the real one takes minutes an epoch."""
    monkeypatch.setitem(models.MODELS, "resnet18_cifar", ModelInfo(make_small, (1, 3, 32, 32)))


@pytest.fixture(scope="module")
def shapes() -> Data:
    """Four classes of 32x32 pictures: where a bright square is, with noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(320) % 4
    images = torch.randint(0, 120, (320, 3, 32, 32), generator=generator, dtype=torch.uint8)
    for place, label in enumerate(labels.tolist()):
        y, x = divmod(label, 2)
        images[place, :, 16 * y + 4 : 16 * y + 12, 16 * x + 4 : 16 * x + 12] += 90
    return Data(
        "shapes", 4, (3, 32, 32), TensorSplit(images[:256], labels[:256], 2), TensorSplit(images[256:], labels[256:])
    )


OPTIONS = TrainOptions(dense_epochs=2, prune_epochs=3, retrain_epochs=2, batch_size=32, learning_rate=0.05)


# The loop


def test_trains_prunes_and_logs(shapes: Data, tmp_path: Path) -> None:
    model = make_small(num_classes=4)
    told: list[str] = []
    report = train(
        model, shapes, PatternSpec.for_compression(6.0), replace(OPTIONS, method=Admm()), tmp_path / "run",
        tell=lambda phase, epoch: told.append(phase.kind),
    )  # fmt: skip
    assert told == ["dense"] * 2 + ["prune"] * 3 + ["retrain"] * 2
    assert report.pruned.compression == pytest.approx(6.0, rel=0.01)
    assert report.test_accuracy > 0.9 and evaluate(model, shapes)[1] == report.test_accuracy
    assert report.test_accuracy == max(epoch.test_accuracy for epoch in report.epochs[-2:])
    kept = (model.conv2.weight.detach().reshape(-1, 9) != 0).numpy() @ (1 << np.arange(9))
    assert {*kept.tolist()} <= {0, *PHASE2}
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and [row["phase"] for row in rows] == told
    assert [bool(row["rho"]) for row in rows] == [kind == "prune" for kind in told]
    assert float(rows[-1]["learning_rate"]) < float(rows[-2]["learning_rate"])
    assert not model.training and next(model.parameters()).device.type == "cpu"


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("extract", [None, 4])
def test_resume_equals_uninterrupted(shapes: Data, tmp_path: Path, extract: int | None) -> None:
    """Stopped after every single epoch."""
    options = TrainOptions(
        dense_epochs=1, extract=extract, extract_epochs=1, prune_epochs=2, retrain_epochs=2, batch_size=64,
        optimizer="adamw", learning_rate=0.01, amp=True,
    )  # fmt: skip
    spec = PatternSpec(connectivity=2, allocation="global")
    whole = make_small(num_classes=4)
    wanted = train(whole, shapes, spec, options, tmp_path / "whole")

    def stop(phase: Any, epoch: Any) -> None:
        raise Interrupted

    epochs = sum(phase.epochs for phase in plan_phases(options))
    assert epochs == 5 + (4 if extract else 0)
    for epoch in range(epochs):
        with pytest.raises(Interrupted):
            train(make_small(num_classes=4), shapes, spec, options, tmp_path / "parts", resume=epoch > 0, tell=stop)
    parts = make_small(num_classes=4)
    report = train(parts, shapes, spec, options, tmp_path / "parts", resume=True)
    assert all(torch.equal(tensor, parts.state_dict()[name]) for name, tensor in whole.state_dict().items())
    assert (report.pruned, report.histograms) == (wanted.pruned, wanted.histograms)
    assert [e.train_loss for e in report.epochs] == [e.train_loss for e in wanted.epochs]
    assert [len(h) for h in report.histograms] == ([126, 32, 12, 8] if extract else [])
    assert len(report.pruned.library) == (4 if extract else 8)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, shapes: Data) -> dict[str, dict[str, Any]]:
    """The checkpoints after the first epoch of each phase, the last one, and the best weights."""
    folder, states = tmp_path_factory.mktemp("stopped"), {}

    def keep(phase: Any, epoch: Any) -> None:
        states["last"] = torch.load(folder / "run" / "last.pt", weights_only=True)
        states.setdefault(phase.kind, states["last"])

    train(make_small(num_classes=4), shapes, SPEC, STOPPED, folder / "run", tell=keep)
    states["best"] = torch.load(folder / "run" / "best.pt", weights_only=True)
    return states


SPEC = PatternSpec(connectivity=2)
STOPPED = TrainOptions(
    dense_epochs=2, extract=32, extract_epochs=2, prune_epochs=2, retrain_epochs=2, batch_size=64, learning_rate=0.01
)
MASK = "model.conv2.parametrizations.weight.0.mask"
SECRET = "model.conv2.parametrizations.weight.0._extra_state"


@pytest.mark.parametrize(
    ("phase", "field", "value", "expected"),
    [
        ("dense", "identity", [1], "expected 'identity' to be a dictionary, found a list of 1"),
        ("dense", "identity.seed", torch.zeros(2), "a run with seed 0, found one with a tensor of 2 float32"),
        ("dense", "identity.seed", "line\nline", r"a run with seed 0, found one with line\\nline"),
        ("dense", "shapes", None, "model of the same weights, found another"),
        ("dense", "epoch", None, "expected 'epoch' to be a whole number from 1 to 8, found None"),
        ("dense", "epoch", True, "expected 'epoch' to be a whole number from 1 to 8, found True"),
        ("dense", "epoch", 0, "expected 'epoch' to be a whole number from 1 to 8, found 0"),
        ("dense", "epoch", 9, "expected 'epoch' to be a whole number from 1 to 8, found 9"),
        ("dense", "epoch", 1.0, "expected 'epoch' to be a whole number from 1 to 8, found 1.0"),
        ("dense", "epoch", 2, "expected 'log' to be a list of 2, found a list of 1"),
        ("dense", "log", 3, "expected 'log' to be a list of 1, found 3"),
        ("dense", "log.0", {}, "expected 'log.0' to be a dictionary with 'epoch', found none"),
        ("dense", "log.0.epoch", 5, "expected 'log.0' to be epoch 0 of phase 'dense', found a tuple of 2"),
        ("dense", "log.0.train_loss", math.nan, "expected 'log.0.train_loss' to be a finite number of 0.0 or more, found nan"),
        ("dense", "log.0.test_accuracy", 2.0, "expected 'log.0.test_accuracy' to be a finite number from 0.0 to 1.0, found 2.0"),
        ("dense", "log.0.rho", "x", "expected 'log.0.rho' to be a finite number of 0.0 or more, found 'x'"),
        ("dense", "best", None, "expected 'best' to be a finite number from -1.0 to 1.0, found None"),
        ("dense", "histograms", 1, "expected 'histograms' to be a list, found 1"),
        ("dense", "histograms", [{0: 1}], "expected 'histograms.0' to be of masks from 1 to 511, found 0"),
        ("dense", "extractor", {}, "expected 'extractor' to be that of the phase 'dense', found a dict of 0"),
        ("dense", "model", None, "expected 'model' to be a dictionary, found None"),
        ("dense", "model.fc.bias", None, "expected 'model.fc.bias' to be a tensor of 4 float32, found 'model.fc.bias' holding NoneType"),
        ("dense", "model.fc.bias", torch.zeros(5), "expected 'model.fc.bias' to be a tensor of 4 float32, found a tensor of 5 float32"),
        ("dense", "model.fc.bias", torch.zeros(4).double(), "found a tensor of 4 float64"),
        ("dense", "model.fc.bias", torch.zeros(4).to_sparse(), "found 'model.fc.bias' sparse"),
        ("dense", "model.fc.bias", torch.full((4,), math.inf), "expected 'model.fc.bias' to be finite, found NaN or infinity"),
        ("dense", "model.more", torch.zeros(1), "expected 'model' to be a dictionary of [0-9]* keys, found also 'more'"),
        ("dense", "optimizer", [], "expected 'optimizer' to be a dictionary, found a list of 0"),
        ("dense", "optimizer.param_groups", [], "expected 'optimizer.param_groups' to be a list of 2, found a list of 0"),
        ("dense", "optimizer.param_groups.0.lr", -1.0, "expected 'optimizer.param_groups.0.lr' to be a finite number of 0.0 or more"),
        ("dense", "optimizer.param_groups.0.momentum", 0.5, "expected 'optimizer.param_groups.0.momentum' to be 0.9, found 0.5"),
        ("dense", "optimizer.param_groups.0.params", [0], "expected 'optimizer.param_groups.0.params' to be "),
        ("dense", "optimizer.state.99", {}, "expected 'optimizer.state' to be of parameters 0 to [0-9]*, found 99"),
        ("dense", "optimizer.state.0", {}, "expected 'optimizer.state.0' to be a dictionary with 'momentum_buffer'"),
        ("dense", "optimizer.state.0.momentum_buffer", torch.zeros(3), "expected 'optimizer.state.0.momentum_buffer' to be a tensor of"),
        ("dense", "scaler", {"scale": 1.0}, "expected 'scaler' to be a dictionary of 0 keys, found also 'scale'"),
        ("dense", "spec", None, "expected 'spec' to be a dictionary, found None"),
        ("dense", "spec.connectivity", "x", "expected 'spec' to be one to prune to, found expected connectivity to be a finite rate"),
        ("dense", "spec.library", 7, "expected 'spec' to be one to prune to, found expected a library name"),
        ("dense", "spec.balanced", True, "expected 'spec' to be that of the run but for the library and the rates"),
        ("extract", "extractor", None, "expected 'extractor' to be that of the phase 'extract', found None"),
        ("extract", "extractor.library", (1, 2), "expected 'extractor.library' to be a list of 126, found a tuple of 2"),
        ("extract", "extractor.library", (600,) * 126, "expected 'extractor.library' to be different patterns of those"),
        ("extract", "extractor.histograms", [{}] * 9, "expected 'extractor.histograms' to be a list of at most 1"),
        ("prune", SECRET, torch.tensor([1, 2, 3, 4]), f"expected '{SECRET.removeprefix('model.')}' to be "),
        ("prune", MASK, torch.zeros(32, 16, 3, 3), f"expected '{MASK}' to be a tensor of 32x16x3x3 bool"),
        ("retrain", SECRET, torch.zeros(4, dtype=torch.int64), f"expected '{SECRET.removeprefix('model.')}' to be "),
    ],
)  # fmt: skip
def test_fields_of_a_checkpoint_are_checked(
    shapes: Data, tmp_path: Path, stopped: dict[str, Any], phase: str, field: str, value: Any, expected: str
) -> None:
    resume_damaged(shapes, tmp_path / "run", changed(stopped[phase], field, value), expected)


@pytest.mark.parametrize("phase", ["dense", "extract", "prune"])
def test_missing_fields_of_a_checkpoint_are_named(
    shapes: Data, tmp_path: Path, stopped: dict[str, Any], phase: str
) -> None:
    for field in stopped[phase]:
        left = {name: value for name, value in stopped[phase].items() if name != field}
        what = "found another file" if field == "model" else f"with '{field}', found none"
        resume_damaged(shapes, tmp_path / field, left, f"expected the checkpoint of a run.* {what}")


def test_the_best_weights_are_checked(shapes: Data, tmp_path: Path, stopped: dict[str, Any]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save(stopped["last"], folder / "last.pt")
    for state, expected in (
        (changed(stopped["best"], "model.fc.bias", torch.zeros(1)), "expected 'model.fc.bias' to be a tensor of 4"),
        (changed(stopped["best"], SECRET, torch.zeros(4, dtype=torch.int64)), "_extra_state' to be "),
        ({"accuracy": 1.0}, "expected the checkpoint of a run, found another file"),
    ):
        torch.save(state, folder / "best.pt")
        with pytest.raises(PatcError, match=f"best.pt: .*{expected}"):
            train(make_small(num_classes=4), shapes, SPEC, STOPPED, folder, resume=True)


def changed(state: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """Return a copy of a checkpoint with one field replaced; names of tensors have dots."""
    state = copy.deepcopy(state)
    first, _, rest = field.partition(".")
    keys: list[Any] = [first, *([rest] if first == "model" and rest else rest.split(".") if rest else [])]
    keys = [int(key) if key.isdecimal() else key for key in keys]
    part: Any = state
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    return state


def resume_damaged(data: Data, folder: Path, state: Any, expected: str) -> None:
    folder.mkdir()
    torch.save(state, folder / "last.pt")
    with pytest.raises(PatcError, match=f"last.pt: .*{expected}") as caught:
        train(make_small(num_classes=4), data, SPEC, STOPPED, folder, resume=True)
    assert "\n" not in str(caught.value)


def test_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(shapes: Data, tmp_path: Path) -> None:
    class Breaks(TensorSplit):
        def batches(self, batch_size: int, seed: int = 0, epoch: int | None = None, part: Any = (0, 1)) -> Any:
            for images, labels in super().batches(batch_size, seed, epoch, part):
                yield images * (float("nan") if epoch == broken else 1.0), labels

    spec = PatternSpec()
    for broken in (3, 0):
        folder = tmp_path / str(broken)
        train_split = Breaks(shapes.train.images, shapes.train.labels)  # type: ignore[attr-defined]
        data = Data("shapes", 4, shapes.shape, train_split, shapes.test)
        with pytest.raises(PatcError, match=f"in epoch {broken}, found a loss of nan in step 0: ") as caught:
            train(make_small(num_classes=4), data, spec, OPTIONS, folder)
        if broken:
            assert f"the checkpoint of epoch 2 is in {folder / 'last.pt'}" in str(caught.value)
            state = torch.load(folder / "last.pt", weights_only=True)
            assert state["epoch"] == 3 and all(torch.isfinite(t).all() for t in state["model"].values())
        else:
            assert "there is no checkpoint yet" in str(caught.value) and not (folder / "last.pt").exists()


def test_weights_of_the_last_step_are_checked_before_they_are_saved(shapes: Data, tmp_path: Path) -> None:
    """No loss is computed from them in their epoch."""
    model, backward_passes = make_small(num_classes=4), 0

    def poison(grad: Tensor) -> Tensor:
        nonlocal backward_passes
        backward_passes += 1
        return grad * (float("nan") if backward_passes == 16 else 1.0)  # the last of eight steps of the second epoch

    model.fc.bias.register_hook(poison)
    message = r"in epoch 1, found NaN or infinity in 'fc.bias': .* the checkpoint of epoch 0 is in "
    with pytest.raises(PatcError, match=message):
        train(model, shapes, PatternSpec(), OPTIONS, tmp_path / "run")
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert state["epoch"] == 1 and all(torch.isfinite(tensor).all() for tensor in state["model"].values())


def test_models_that_do_not_fit_the_data_are_refused(shapes: Data, tmp_path: Path) -> None:
    with pytest.raises(PatcError, match=r"trained on batches of 32x3x32x32, found: Target 3 is out of bounds"):
        train(make_small(num_classes=3), shapes, PatternSpec(), OPTIONS, tmp_path / "run")


def test_checkpoints_of_other_runs_are_refused(shapes: Data, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = TrainOptions(prune_epochs=1, retrain_epochs=0, batch_size=64)
    spec, slow = PatternSpec(), Admm(AdmmSchedule(rho=0.001))
    with pytest.raises(PatcError, match=r"last.pt: expected the checkpoint of a run, found no such file"):
        train(make_small(num_classes=4), shapes, spec, options, folder, resume=True)
    train(make_small(num_classes=4), shapes, spec, options, folder)
    with pytest.raises(PatcError, match="expected a folder without a run; --resume goes on"):
        train(make_small(num_classes=4), shapes, spec, options, folder)
    for model, other_spec, other, what in (
        (make_small(num_classes=4), PatternSpec("phase3"), options, "run with library phase3, found one with phase2"),
        (make_small(num_classes=4), spec, replace(options, seed=3), "run with seed 3, found one with 0"),
        (
            make_small(num_classes=4),
            spec,
            replace(options, method=slow),
            "run with method Admm.* found one with .*Magnitude",
        ),
        (make_small(num_classes=5), spec, options, "model of the same weights, found another"),
    ):
        with pytest.raises(PatcError, match=f"expected the checkpoint of a {what}"):
            train(model, shapes, other_spec, other, folder, resume=True)
    (folder / "last.pt").write_bytes(b"no checkpoint")
    with pytest.raises(PatcError, match="expected a readable checkpoint, found: "):
        train(make_small(num_classes=4), shapes, spec, options, folder, resume=True)
    torch.save({"model": {}, "accuracy": 0.5}, folder / "last.pt")  # as best.pt is
    with pytest.raises(PatcError, match="expected the checkpoint of a run with 'identity', found none"):
        train(make_small(num_classes=4), shapes, spec, options, folder, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(PatcError, match="cannot make the folder"):
        train(make_small(num_classes=4), shapes, spec, options, tmp_path / "file" / "run")
    with pytest.raises(PatcError, match="found none among 0 convolutions"):
        train(nn.Linear(3, 3), shapes, spec, options, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("epochs", "steps", "warm_up"),
    [(30, 400, 400), (60, 11, 100), (6, 11, 33), (1, 400, 200)],
    ids=["an epoch", "a hundred steps", "half of a short phase", "half of one epoch"],
)
def test_runs_warm_up_by_steps_and_not_by_epochs_of_small_data_sets(epochs: int, steps: int, warm_up: int) -> None:
    shares = [rate_share(Phase("dense", 0, epochs), step, steps) for step in range(epochs * steps)]
    assert shares[0] <= 1 / warm_up and max(shares) <= 1
    peak = shares.index(max(shares))
    assert warm_up / 2 < peak <= warm_up  # the cosine falls meanwhile
    assert shares[:peak] == sorted(shares[:peak]) and shares[peak:] == sorted(shares[peak:], reverse=True)
    assert rate_share(Phase("prune", epochs, 10), 0, steps) == 0.5  # later phases go on


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prune_epochs": 0}, "prune epochs of 1 or more, found 0"),
        ({"batch_size": 0}, "batch size of 1 or more, found 0"),
        ({"optimizer": "adam"}, "optimizer to be sgd or adamw, found 'adam'"),
        ({"learning_rate": 0.0}, "learning rate above 0, found 0.0"),
        ({"weight_decay": -0.1}, "weight decay from 0 to below 1, found -0.1"),
        ({"label_smoothing": 1.0}, "label smoothing from 0 to below 1, found 1.0"),
        ({"extract": 33}, "extract 1 to 32 patterns, found 33"),
        ({"extract_from": "some"}, "extract from all or centred patterns, found 'some'"),
        ({"seed": -1}, r"a seed from 0 to below 2\^63, found -1"),
        ({"device": "tpu"}, "device to be cpu or cuda, found 'tpu'"),
    ],
)
def test_bad_options_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PatcError, match=message):
        TrainOptions(**fields)


# Data


def test_glyphs_are_seeded_and_balanced() -> None:
    images, labels = make_glyphs(186, seed=3)
    assert images.shape == (186, 3, 32, 32) and images.dtype == torch.uint8
    assert torch.bincount(labels, minlength=62).tolist() == [3] * 62 and len(CHARACTERS) == 62
    again, _ = make_glyphs(186, seed=3)
    other, _ = make_glyphs(186, seed=4)
    assert torch.equal(images, again) and not torch.equal(images, other)
    first = images[labels == 10].float()  # three A: not the same picture
    assert (first[0] - first[1]).abs().mean() > 5
    assert (images.float().std((2, 3)) > 5).all()


def test_glyphs_can_be_told_apart() -> None:
    """Sixteen times better than chance, by nothing but the mean of each class, coarse and without its sign."""

    def describe(images: Tensor) -> Tensor:
        grey = images.float().mean(1)
        ground = grey[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(1)
        ink = nn.functional.avg_pool2d((grey - ground[:, None, None]).abs()[:, None], 4).flatten(1)
        return nn.functional.normalize(ink)

    (images, labels), (others, expected) = make_glyphs(1240, seed=0), make_glyphs(310, seed=1)
    described = describe(images)
    means = torch.stack([described[labels == label].mean(0) for label in range(len(CHARACTERS))])
    found = (describe(others) @ nn.functional.normalize(means).T).argmax(1)
    assert (found == expected).float().mean() > 16 / len(CHARACTERS)


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    data = open_data("glyphs:124", 32)
    assert (len(data.train), len(data.test), data.classes) == (124, 62, 62)

    def read(seed: int, epoch: int | None) -> list[Tensor]:
        return [images for images, _ in data.train.batches(50, seed, epoch)]

    assert [len(batch) for batch in read(0, 1)] == [50, 50] and [len(batch) for batch in read(0, None)] == [50, 50, 24]
    assert all(torch.equal(a, b) for a, b in zip(read(0, 1), read(0, 1), strict=True))
    assert not torch.equal(read(0, 1)[0], read(0, 2)[0]) and not torch.equal(read(0, 1)[0], read(1, 1)[0])
    images = normalise(read(0, None)[0])
    assert images.mean().abs() < 1 and 0.5 < images.std() < 2
    assert torch.allclose(denormalise(images) * 255, read(0, None)[0].float(), atol=1e-3)


def test_shifted_images_repeat_their_edge() -> None:
    ramp = torch.arange(16, dtype=torch.uint8).expand(40, 3, 16, 16)
    split = TensorSplit(ramp, torch.arange(40), shift=2)
    images, labels = next(split.batches(40, 0, 0))
    found = {tuple(image[0, 0].tolist()) for image in images}
    assert found == {tuple(min(max(x + dx, 0), 15) for x in range(16)) for dx in range(-2, 3)}
    assert sorted(labels.tolist()) == list(range(40))


def test_digits_come_from_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    data = open_data("digits", 32)
    assert (len(data.train), len(data.test), data.classes) == (1438, 359, 10)
    images, labels = next(data.test.batches(16))
    assert images.shape == (16, 3, 32, 32) and normalise(images).max() < 3 and labels.max() <= 9
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(
        PatcError, match=r"scikit-learn for the data set digits, found none: pip install 'patc\[train\]'"
    ):
        open_data("digits", 32)


def write_cifar(folder: Path, records: int = 20) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        data = random.integers(0, 256, (records, 3073), np.uint8)
        data[:, 0] = np.arange(records) % 10
        data.tofile(folder / f"{name}.bin")


def test_cifar10_is_read_as_it_is_stored(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-bin")
    data = open_data(f"cifar10:{tmp_path}", 32)
    assert (len(data.train), len(data.test), data.classes, data.shape) == (100, 20, 10, (3, 32, 32))
    images, labels = next(data.test.batches(20))
    stored = np.fromfile(tmp_path / "cifar-10-batches-bin" / "test_batch.bin", np.uint8).reshape(20, 3073)
    assert labels.tolist() == stored[:, 0].tolist()
    assert np.array_equal(images[3, 1, 2].numpy(), stored[3, 1 + 1024 + 64 : 1 + 1024 + 96])
    assert np.allclose(normalise(images)[3, 1, 2].numpy() * 0.224 + 0.456, images[3, 1, 2].numpy() / 255)
    assert next(data.train.batches(50, 0, 0))[0].shape == (50, 3, 32, 32)


def write_pictures(folder: Path, classes: int = 2, count: int = 10) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    for label in range(classes):
        place = folder / f"class{label}"
        place.mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (20 + number, 30, 3), np.uint8)
            Image.fromarray(pixels).save(place / f"{number:03d}.png")


def test_folders_of_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path / "flat")
    data = open_data(f"folder:{tmp_path / 'flat'}", 24)
    assert (len(data.train), len(data.test), data.classes, data.shape) == (18, 2, 2, (3, 24, 24))
    first, again = (next(data.train.batches(18, 0, 1)) for _ in range(2))
    assert first[0].shape == (18, 3, 24, 24) and torch.equal(first[0], again[0]) and first[1].sum() == 9
    assert not torch.equal(first[0], next(data.train.batches(18, 0, 2))[0])
    write_pictures(tmp_path / "parts" / "train", classes=3)
    write_pictures(tmp_path / "parts" / "val", classes=3, count=2)
    for kind in ("folder", "imagenet"):
        data = open_data(f"{kind}:{tmp_path / 'parts'}", 24)
        assert (len(data.train), len(data.test), data.classes) == (30, 6, 3)
    assert sum(len(labels) for _, labels in data.train.batches(4, 0, 0)) == 28  # by worker processes


def test_bad_data_is_named_before_training(tmp_path: Path) -> None:
    def message(name: str) -> str:
        with pytest.raises(PatcError) as caught:
            data = open_data(name, 24)
            for _ in data.train.batches(100, 0, 0):
                pass
        return str(caught.value)

    assert "expected --data as cifar10:DIR, imagenet:DIR, " in message("cifar:x") and "did you mean" in message(
        "cifar:x"
    )
    assert "as in folder:DIR, found 'folder'" in message("folder")
    assert message("glyphs:none") == "expected a number of images as in glyphs:20000, found 'glyphs:none'"
    assert "expected --data digits alone" in message("digits:3")
    assert message(f"folder:{tmp_path}/no") == f"{tmp_path}/no: expected a folder of data, found no such folder"
    assert "at least two classes, found 0" in message(f"folder:{tmp_path}")
    assert "expected folders train and val" in message(f"imagenet:{tmp_path}")
    write_pictures(tmp_path / "few", count=1)
    assert "found too few" in message(f"folder:{tmp_path / 'few'}")
    (tmp_path / "few" / "class1" / "000.png").unlink()
    assert "class1: expected pictures (.jpg, " in message(f"folder:{tmp_path / 'few'}")
    write_pictures(tmp_path / "torn")
    torn = tmp_path / "torn" / "class1" / "000.png"
    torn.write_bytes(torn.read_bytes()[:200])
    assert (
        message(f"folder:{tmp_path / 'torn'}") == f"{torn}: expected a picture that can be decoded, found damaged data"
    )
    later = tmp_path / "torn" / "class0" / "003.png"
    torn.unlink()
    later.write_bytes(b"text")
    assert (
        message(f"folder:{tmp_path / 'torn'}") == f"{later}: expected a picture that can be decoded, found damaged data"
    )
    write_pictures(tmp_path / "other" / "train")
    write_pictures(tmp_path / "other" / "val", classes=3)
    assert "expected the 2 classes of" in message(f"folder:{tmp_path / 'other'}")
    write_cifar(tmp_path / "cifar")
    batch = tmp_path / "cifar" / "data_batch_3.bin"
    good = batch.read_bytes()
    batch.write_bytes(good[:-1])
    assert f"{batch}: expected CIFAR-10's records of 3073 bytes, found 61459 bytes" in message(
        f"cifar10:{tmp_path}/cifar"
    )
    batch.write_bytes(b"\x0b" + good[1:])
    assert "expected labels from 0 to 9, found 11" in message(f"cifar10:{tmp_path}/cifar")
    batch.unlink()
    assert "data_batch_3.bin: expected a file of CIFAR-10, found no such file" in message(f"cifar10:{tmp_path}/cifar")


# The command


def test_pruned_checkpoint_compiles_to_the_same_accuracy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """From `patc prune` over `patc compile` to `patc run`: every prunable layer encoded, every prediction equal."""
    out, net, folder = tmp_path / "pruned.safetensors", tmp_path / "net.patc", tmp_path / "run"
    epochs = ("--dense-epochs", "2", "--prune-epochs", "2", "--retrain-epochs", "1", "--batch-size", "31")
    rest = ("--learning-rate", "0.05", "--connectivity", "2", "--run-folder", folder, "-o", out)
    text = run(capsys, "prune", "resnet18_cifar", "--data", "glyphs:620", *epochs, *rest)
    assert "glyphs:620: 620 images to train on, 310 to test with, 62 classes" in text
    assert len(re.findall(r"^epoch \d/5 (?:dense|prune|retrain) ", text, re.MULTILINE)) == 5
    stated = re.search(r"test accuracy ([\d.]+)%\n", text.split("log.csv")[1])
    data = open_data("glyphs:620", 32)
    model = models.build("resnet18_cifar", out)
    images, labels = next(data.test.batches(310))
    images = normalise(images)
    with torch.no_grad():
        scores = model(images)
    accuracy = float((scores.argmax(1) == labels).float().mean())
    assert stated and f"{accuracy:.2%}" == f"{stated[1]}%"
    shape = ("--input-shape", "310,3,32,32", "--threads", "1")
    run(capsys, "compile", "resnet18_cifar", "--weights", out, *shape, "-o", net)
    encoded = {layer.name: layer.op for layer in patc.load(net).layers if layer.name.startswith("conv")}
    assert encoded == dict.fromkeys(("conv1", "conv2", "conv3"), "sparse_conv2d")
    np.save(tmp_path / "x.npy", images.numpy())
    run(capsys, "run", net, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    compiled = np.load(tmp_path / "y.npy")
    assert np.abs(compiled - scores.numpy()).max() <= 1e-4 * np.abs(scores.numpy()).max()
    assert float((compiled.argmax(1) == labels.numpy()).mean()) == pytest.approx(accuracy)


def test_every_kind_of_layer_is_encoded() -> None:
    """5x5, depthwise and 1x1 layers as well."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(), nn.Conv2d(16, 32, 1), nn.ReLU(),
        nn.Conv2d(32, 16, 3, padding=1),
    ).eval()  # fmt: skip
    spec = PatternSpec(connectivity=2, pointwise="groups", depthwise="pattern", library_5x5="phase2", filter_group=4)
    report = prune_(model, spec)
    assert [layer.kind for layer in report.layers] == [
        "pattern-only", "pattern", "depthwise", "pointwise-groups", "pattern",
    ]  # fmt: skip
    x = torch.randn(1, 3, 12, 12)
    compiled = patc.compile(model, (x,), threads=1)
    # The 1x1 layer loses inputs as a whole, and what is left of it is dense.
    assert [layer.op for layer in compiled.layers if "conv" in layer.op] == [
        *["sparse_conv2d"] * 3,
        "conv2d",
        "sparse_conv2d",
    ]
    with torch.no_grad():
        wanted = model(x)
    assert (compiled(x) - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_resumes_from_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["prune", "resnet18_cifar", "--data", "glyphs:124", "--connectivity", "2", "--extract", "4", "--seed", "1"]
    words += ["--extract-epochs", "1", "--prune-epochs", "1", "--retrain-epochs", "1", "--batch-size", "62"]
    text = run(capsys, *words, "--run-folder", folder, "-o", tmp_path / "a.pth")
    assert "94 more patterns for " in text and len(re.findall(r"^ +\d+ +[x.]{3}/", text, re.MULTILINE)) >= 32 + 4
    assert sorted(path.stem for path in folder.glob("*.csv")) == ["log", *(f"patterns-{n}" for n in (12, 126, 32, 8))]
    with (folder / "patterns-32.csv").open() as file:
        assert sum(int(row["kernels"]) for row in csv.DictReader(file)) == 3 * 16 + 16 * 32 + 32 * 32
    assert "expected a folder without a run; --resume" in fail(capsys, *words, "--run-folder", folder)
    run(capsys, *words, "--run-folder", folder, "--resume", "-o", tmp_path / "b.pth")
    a, b = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pth", "b.pth"))
    assert all(torch.equal(tensor, b[name]) for name, tensor in a.items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--data glyphs", "expected --compression, --connectivity or --bits, got none"),
        ("--connectivity 2 --data glyphs --library elog --extract 4", "expected --library or --extract, got both"),
        ("--connectivity 2 --resume", "expected --data together with --resume, got none"),
        ("--connectivity 2 --prune-epochs 3", "expected --data together with --prune-epochs, got none"),
        ("--connectivity 2 --data cifar10:nowhere", "nowhere: expected a folder of data, found no such folder"),
        ("--connectivity 2 --data glyphs --method admm --rho 0", "expected rho to be finite and above 0, found 0.0"),
        ("--compression 1.5 --data glyphs:62", "expected a compression from 2.250 to .*; found 1.5"),
        ("--compression 900 --data glyphs:62", "expected a compression from 2.250 to .*; found 900"),
        ("--connectivity 2 --rate conv9=2", "conv9: expected a layer with connectivity sparsity in rates"),
        ("--connectivity 2 --rate conv9", "expected a layer and its connectivity as in layer1.0.conv1=4, got 'conv9'"),
        (
            "--connectivity 2 --data glyphs --extract-from all",
            "expected --extract together with --extract-from, got none",
        ),
        ("--connectivity 2 --speedup 2", "expected --speedup without --compression and --connectivity"),
        ("--speedup 2 --allocation global", "expected --speedup to choose all rates"),
    ],
)
def test_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.search(message, fail(capsys, "prune", "resnet18_cifar", *words.split()))
    assert not list(tmp_path.iterdir())


def test_library_of_masks(capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "prune", "resnet18_cifar", "--connectivity", "2", "--library", "27,360")
    assert re.findall(r"^ +(\d+)  [x./]{11} ", text, re.MULTILINE) == ["27", "360"]
    message = fail(capsys, "prune", "resnet18_cifar", "--connectivity", "2", "--library", "27,600")
    assert message == "expected a 3x3 pattern mask from 1 to 511, found 600"


def test_help_does_not_load_torch() -> None:
    code = """
import contextlib, sys
from patc.tools.patc import main
with contextlib.suppress(SystemExit):
    main(["prune", "--help"])
print("torch" in sys.modules, "numpy" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "False False", result.stderr


# Rates by time


def test_rates_go_where_they_save_time() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(16, 16, 3) for _ in range(4)))
    slow = {"1": 1.0, "2": 8.0, "3": 1.0}

    def layer_time(name: str, rate: float) -> float:
        return slow[name] / (rate if name != "3" else 1.0)  # the last layer gets no faster

    spec = choose_rates(model, PatternSpec(), layer_time, speedup=2.5)
    assert spec.layer_rates["3"] == 1.0 and spec.layer_rates["2"] > spec.layer_rates["1"]
    times = sum(layer_time(name, rate) for name, rate in spec.layer_rates.items())
    assert 10 / 2.5 * 0.6 < times <= 10 / 2.5
    report = prune_(model, spec)
    for layer in report.layers[1:]:
        assert abs(layer.kept_kernels - 256 / spec.layer_rates[layer.name]) <= 1
    with pytest.raises(PatcError, match=r"expected a speedup up to 6\.40 for this model, found 7"):
        choose_rates(model, PatternSpec(), layer_time, speedup=7)
    with pytest.raises(PatcError, match=r"finite and at least 1, found 0\.5"):
        choose_rates(model, PatternSpec(), layer_time, speedup=0.5)
    assert {*choose_rates(model, PatternSpec(), layer_time, 1.0).layer_rates.values()} == {1.0}
    with pytest.raises(PatcError, match="expected a layer from which kernels can be removed, found none"):
        choose_rates(model[0], PatternSpec(), layer_time, 2.0)  # a first layer


def test_rates_by_time_are_those_of_the_trained_weights(shapes: Data, tmp_path: Path) -> None:
    """They are chosen when pruning starts, with the library that was extracted, and once for all runs that are resumed."""
    seen: list[tuple[nn.Module, PatternSpec]] = []

    def layer_times(model: nn.Module, spec: PatternSpec) -> Any:
        seen.append((copy.deepcopy(model), spec))
        return lambda name, rate: 1 / rate

    options = replace(OPTIONS, dense_epochs=1, extract=4, extract_epochs=1, extract_from="centred", speedup=2.0)
    spec, folder = PatternSpec(), tmp_path / "run"

    def stop(phase: Any, epoch: Any) -> None:
        if phase.kind == "prune":
            raise Interrupted

    with pytest.raises(Interrupted):
        train(make_small(num_classes=4), shapes, spec, options, folder, tell=stop, layer_times=layer_times)
    (first, _), (trained, found) = seen
    fresh = make_small(num_classes=4).conv2.weight
    assert torch.equal(first.conv2.weight, fresh) and not torch.equal(trained.conv2.weight, fresh)
    assert len(found.masks) == 4 and all(mask >> 4 & 1 for mask in found.masks)
    model = make_small(num_classes=4)
    report = train(model, shapes, spec, options, folder, resume=True, layer_times=layer_times)
    assert len(seen) == 2 and report.pruned.library == found.masks
    rates = choose_rates(trained, found, lambda name, rate: 1 / rate, 2.0).layer_rates
    kept = {layer.name: layer.kernels / layer.kept_kernels for layer in report.pruned.layers}
    assert kept["conv2"] == pytest.approx(rates["conv2"], rel=0.01)
    with pytest.raises(PatcError, match=r"expected a speedup up to 16\.00 for this model, found 17"):
        train(make_small(num_classes=4), shapes, spec, replace(options, speedup=17.0), tmp_path / "b",
              layer_times=layer_times)  # fmt: skip
    with pytest.raises(PatcError, match="expected layer_times together with a speedup, got none"):
        train(make_small(num_classes=4), shapes, spec, options, tmp_path / "c")


def test_the_cost_model_chooses_rates(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The layers are predicted to be as fast as asked for."""
    text = run(capsys, "prune", "resnet18_cifar", "--speedup", "1.1", "-o", tmp_path / "fast.pth")
    rates = re.findall(r"^(conv[23]) .* (\d+) +(\d+) +\d+ +\d+ +[\d.]+x *$", text, re.MULTILINE)
    assert len(rates) == 2 and any(int(kept) < int(kernels) for _, kernels, kept in rates)

    def cycles(model: nn.Module) -> float:
        layers = patc.compile(model, (torch.zeros(1, 3, 32, 32),), threads=1).layers
        return sum(layer.predicted_cycles for layer in layers if layer.name in ("conv2", "conv3"))

    plain = make_small()
    prune_(plain, PatternSpec(connectivity=1))
    assert cycles(plain) / cycles(make_small(tmp_path / "fast.pth")) >= 1.1 * 0.99
