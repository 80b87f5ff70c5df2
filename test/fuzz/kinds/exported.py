"""`.pt2` files: refused in one line, or compiled to what torch's own reader computes from them; nothing in them runs."""

from __future__ import annotations

import contextlib
import io
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import archives
import bases
import torch
from edits import fewer
from outcome import Case, Fault, attempt

import patc

_BOUND = 1e-4


class Kind:
    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.files: dict[str, bytes] = {}
        self.inputs: dict[str, Any] = {}
        for name in ("plain", "several"):
            model, self.inputs[name] = bases.make(name)
            stream = io.BytesIO()
            torch.export.save(torch.export.export(model, self.inputs[name]), stream)
            self.files[name] = stream.getvalue()

    def draw(self, choices: random.Random) -> Case:
        base = choices.choice(["plain", "plain", "several"])
        edits = [archives.draw_edit(choices, self.files[base]) for _ in range(choices.choice([1, 1, 1, 2, 3]))]
        return {"base": base, "edits": edits}

    def run(self, case: Case, folder: Path) -> str:
        data = self.files[case["base"]]
        for edit in case["edits"]:
            data = archives.apply(data, edit)
        path = folder / "edited.pt2"
        path.write_bytes(data)
        compiled = attempt(lambda: patc.compile(path, threads=1))
        shapes = [info.shape for info in compiled.program.inputs]
        inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)]
        found = bases.leaves(attempt(lambda: compiled(*inputs)))
        if archives.runs_code(case["edits"]):
            return "compiled"
        return _compare(found, data, self.files[case["base"]], inputs)

    def smaller(self, case: Case) -> Iterator[Case]:
        yield from fewer(case)


def _compare(found: list[torch.Tensor], data: bytes, original: bytes, inputs: list[torch.Tensor]) -> str:
    try:
        with _silent(), torch.no_grad():
            program = torch.export.load(io.BytesIO(_with_samples_of(data, original)))
            wanted = bases.leaves(program.module()(*inputs))
    except Exception:
        return "compiled, and refused by torch"
    if [y.shape for y in found] != [y.shape for y in wanted]:
        raise Fault("outputs of another shape", f"{[y.shape for y in found]}, torch {[y.shape for y in wanted]}")
    for y, other in zip(found, wanted, strict=True):
        same = torch.allclose(y, other, rtol=0, atol=_BOUND * float(other.abs().nan_to_num().max()), equal_nan=True)
        if not same:
            raise Fault("wrong numbers", f"{float((y - other).abs().max())} of {float(other.abs().max())}")
    return "right"


def _with_samples_of(data: bytes, original: bytes) -> bytes:
    """Return a file with another one's sample inputs, which patc does not read."""
    samples = {name: content for name, content in archives.read(original) if "sample_inputs" in name}
    return archives.write([(name, samples.get(name, content)) for name, content in archives.read(data)])


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
