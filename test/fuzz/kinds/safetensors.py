"""`.safetensors` files as the weights of a named model: refused in one line, or loaded as they are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import bases
import tensors
import torch
from edits import fewer
from outcome import Case, Fault, attempt

from patc import models


class Kind:
    def __init__(self, folder: Path) -> None:
        from safetensors.torch import save

        bases.register()
        self.file = save(bases.make("plain")[0].state_dict())

    def draw(self, choices: random.Random) -> Case:
        return {"edits": [tensors.draw_edit(choices, self.file) for _ in range(choices.choice([1, 1, 1, 2, 3]))]}

    def run(self, case: Case, folder: Path) -> str:
        data = self.file
        for edit in case["edits"]:
            data = tensors.apply(data, edit)
        path = folder / "edited.safetensors"
        path.write_bytes(data)
        model = attempt(lambda: models.build(bases.NAME, path), path.name)
        return compare_state(model.state_dict(), _own_reader(data))

    def smaller(self, case: Case) -> Iterator[Case]:
        yield from fewer(case)


def _own_reader(data: bytes) -> dict[str, torch.Tensor]:
    from safetensors.torch import load

    return load(data)


def compare_state(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> str:
    """Require that a model has the values of a file."""
    for name, value in wanted.items():
        if not torch.equal(found[name].nan_to_num(), value.to(found[name].dtype).nan_to_num()):
            raise Fault("other values than the file's", name)
    return "loaded"
