"""`.pth` state dicts and checkpoints of `patc prune`: refused in one line, loaded as they are, or gone on with."""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import archives
import bases
import edits
import torch
from edits import Edit, fewer
from outcome import Case, attempt
from torch import nn

from kinds.safetensors import compare_state
from patc import models
from patc.pruning.data import Data, TensorSplit
from patc.pruning.spec import PatternSpec
from patc.pruning.train import train
from patc.pruning.train_options import TrainOptions

_TRAINING = "training"
# What else a field of a checkpoint may hold.
_VALUES = {
    "none": lambda old: None,
    "text": lambda old: "text",
    "number": lambda old: 7,
    "negative": lambda old: -1,
    "large": lambda old: 1 << 62,
    "nan": lambda old: float("nan"),
    "list": lambda old: [old],
    "empty list": lambda old: [],
    "empty dict": lambda old: {},
    "nested": lambda old: {"model": old, 1: 2, None: (3,)},
    "scalar": lambda old: torch.tensor(1.5),
    "empty": lambda old: torch.zeros(0),
    "flat": lambda old: old.flatten() if isinstance(old, torch.Tensor) else old,
    "half": lambda old: old.half() if isinstance(old, torch.Tensor) else old,
    "double": lambda old: old.double() if isinstance(old, torch.Tensor) else old,
    "integers": lambda old: old.long() if isinstance(old, torch.Tensor) else old,
    "booleans": lambda old: old.bool() if isinstance(old, torch.Tensor) else old,
    "complex": lambda old: torch.zeros(old.shape, dtype=torch.complex64) if isinstance(old, torch.Tensor) else old,
    "imaginary": lambda old: torch.zeros(old.shape, dtype=torch.complex64).conj().imag if isinstance(old, torch.Tensor) else 1j,
    "sparse": lambda old: old.to_sparse() if isinstance(old, torch.Tensor) else old,
    "meta": lambda old: old.to("meta") if isinstance(old, torch.Tensor) else old,
    "infinite": lambda old: torch.full_like(old, float("inf")) if is_float(old) else float("inf"),
    "strided": lambda old: old.new_zeros(1).expand(old.shape) if isinstance(old, torch.Tensor) else old,
    "parameter": lambda old: nn.Parameter(old) if is_float(old) else old,
    "quantized": lambda old: torch.quantize_per_tensor(old, 0.1, 0, torch.qint8) if is_float(old) else old,
    "grows": lambda old: old * 2 if isinstance(old, (int, str, list)) else old,
}  # fmt: skip
_WHOLE = ("tensor", "list", "number", "module")


def is_float(value: Any) -> bool:
    """Return whether a value is a tensor of floats."""
    return isinstance(value, torch.Tensor) and value.is_floating_point()


class Kind:
    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        bases.register()
        self.state = dict(bases.make("plain")[0].state_dict())
        self.run_folder = folder / "run"
        self._train(self.run_folder, resume=False)
        self.training = torch.load(self.run_folder / "last.pt", weights_only=True)
        self.bytes = {"state": _save(self.state), _TRAINING: (self.run_folder / "last.pt").read_bytes()}

    def draw(self, choices: random.Random) -> Case:
        base = choices.choice(["state", _TRAINING])
        if choices.random() < 0.03:
            return {"base": base, "whole": choices.choice(_WHOLE), "edits": []}
        if choices.random() < 0.4:
            drawn = [archives.draw_edit(choices, self.bytes[base]) for _ in range(choices.choice([1, 1, 2]))]
            return {"base": base, "whole": None, "edits": [["archive", *edit] for edit in drawn]}
        value = self.state if base == "state" else self.training
        fields = [place for place in _places(value) if place]
        return {
            "base": base,
            "whole": None,
            "edits": [self._draw_field(choices, fields) for _ in range(choices.choice([1, 1, 1, 2, 3]))],
        }

    def _draw_field(self, choices: random.Random, fields: list[list[Any]]) -> Edit:
        # Half of them in the outer fields, of which there are few.
        outer = [place for place in fields if len(place) < 3]
        place = choices.choice(choices.choice([fields, outer]))
        kind = choices.choice(["put"] * 5 + ["delete", "delete", "rename"])
        return [
            "field",
            kind,
            place,
            choices.choice(list(_VALUES)) if kind == "put" else choices.choice(["", "x", "epoch"]),
        ]

    def run(self, case: Case, folder: Path) -> str:
        data = self._make(case)
        if case["base"] == _TRAINING:
            (folder / "last.pt").write_bytes(data)
            (folder / "best.pt").write_bytes((self.run_folder / "best.pt").read_bytes())
            attempt(lambda: self._train(folder, resume=True), "last.pt")
            return "gone on with"
        path = folder / "edited.pth"
        path.write_bytes(data)
        model = attempt(lambda: models.build(bases.NAME, path), path.name)
        return compare_state(model.state_dict(), torch.load(path, map_location="cpu", weights_only=True))

    def smaller(self, case: Case) -> Iterator[Case]:
        yield from fewer(case)

    def _make(self, case: Case) -> bytes:
        if case["whole"] is not None:
            wholes: dict[str, Any] = {
                "tensor": torch.zeros(3),
                "list": [torch.zeros(3)],
                "number": 3,
                "module": nn.Linear(2, 2),
            }
            return _save(wholes[case["whole"]])
        data = self.bytes[case["base"]]
        value = copy.deepcopy(self.state if case["base"] == "state" else self.training)
        for what, *edit in case["edits"]:
            if what == "archive":
                data = archives.apply(data, edit)
            else:
                value = _edit_field(value, edit)
                data = _save(value)
        return data

    def _train(self, folder: Path, resume: bool) -> None:
        images = torch.randint(256, (8, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        split = TensorSplit(images, torch.arange(8) % 3)
        data = Data("random", ("a", "b", "c"), (3, 8, 8), split, split)
        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 3))
        options = TrainOptions(dense_epochs=1, prune_epochs=1, retrain_epochs=1, batch_size=4, device="cpu")
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.1, generator=generator)
        train(model, data, PatternSpec(connectivity=2.0), options, folder, resume)


def _places(value: Any) -> Iterator[list[Any]]:
    """Yield the paths to all parts of nested dicts and lists."""
    yield []
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, part in parts:
        for place in _places(part):
            yield [key, *place]


def _edit_field(value: Any, edit: Edit) -> Any:
    kind, place, argument = edit
    try:
        parent = edits.at(value, place[:-1])
        old = parent[place[-1]]
        if kind == "put":
            parent[place[-1]] = _VALUES[argument](old)
        else:
            del parent[place[-1]]
            if kind == "rename":
                parent[argument] = old
    except (KeyError, IndexError, TypeError, RuntimeError, NotImplementedError):
        pass  # gone by an edit before, part of a tuple, or torch makes no such tensor
    return value


def _save(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()
