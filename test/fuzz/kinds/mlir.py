"""`.mlir` files, through patc-opt's passes or compiled: valid IR, a diagnostic, or the reference's numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bases
import command_line
import grammar
import numpy as np
import tensors
import texts
import torch
from edits import Edit, fewer
from outcome import Case, Fault, Refusal, attempt

import patc
from patc.codegen import reference
from patc.compiler import host_pipeline, lower_model
from patc.context import make_context
from patc.mlir_files import read_module, write_module
from patc.passes.registry import PASS_NAMES
from patc.pipeline import Pipeline

_STAGES = {
    "host": ("linalg", "raise", "encode", "layout", "schedule", "specialize", "plan-memory", "parallelize"),
    "spirv": ("schedule", "map-to-gpu", "to-spirv"),
}
_BOUND = 1e-4
_UPSTREAM = ("canonicalize", "cse", "symbol-dce", "inline", "one-shot-bufferize", "convert-linalg-to-loops")
_SEVERAL = ("pattern-raise,pattern-encode,pattern-reorder", "pattern-layout,pattern-schedule,pattern-specialize")


class Kind:
    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.texts = texts.lit_texts()
        self.sidecars: dict[str, bytes] = {}
        pipelines = {
            "host": host_pipeline("host", 2),
            "spirv": Pipeline.named("spirv", target="spirv-vulkan", dtype="f32"),
        }
        for road, stage in ((road, stage) for road, stages in _STAGES.items() for stage in stages):
            model, inputs = bases.make("plain")
            module, state = lower_model(model, inputs, pipelines[road].until(stage))
            path = folder / (f"{stage}.mlir" if road == "host" else f"{road} {stage}.mlir")
            write_module(module, state.parameters, path)
            name = f"stage {path.stem}"
            self.texts[name] = path.read_text()
            self.sidecars[name] = path.with_suffix(".safetensors").read_bytes()
        self.stages = list(self.sidecars)

    def draw(self, choices: random.Random) -> Case:
        base = choices.choice([choices.choice(list(self.texts)), choices.choice(self.stages)])
        others = list(self.texts.values())
        edits = [self._draw_edit(choices, base, others) for _ in range(choices.choice([1, 1, 1, 2, 3]))]
        passes = choices.choice([None, None, choices.choice([*PASS_NAMES, *_UPSTREAM, *_SEVERAL])])
        return {"base": base, "edits": edits, "passes": passes}

    def _draw_edit(self, choices: random.Random, base: str, others: list[str]) -> Edit:
        if base in self.sidecars and choices.random() < 0.2:
            return ["sidecar", *tensors.draw_edit(choices, self.sidecars[base])]
        if choices.random() < 0.6:
            return ["grammar", *grammar.draw_edit(choices, self.texts[base])]
        return ["text", *texts.draw_edit(choices, self.texts[base], others)]

    def run(self, case: Case, folder: Path) -> str:
        data, sidecar = self.texts[case["base"]].encode(), self.sidecars.get(case["base"])
        for what, *edit in case["edits"]:
            if what == "text":
                data = texts.edit_text(data, edit)
            elif what == "grammar":
                data = grammar.edit_text(data.decode(errors="surrogateescape"), edit).encode(errors="surrogateescape")
            elif sidecar is not None:
                sidecar = tensors.apply(sidecar, edit)
        path = folder / "edited.mlir"
        path.write_bytes(data)
        if sidecar is not None:
            (folder / f"{case['base'].removeprefix('stage ')}.safetensors").write_bytes(sidecar)
        if case["passes"] is not None:
            return _transform(path, case["passes"])
        compiled = attempt(lambda: patc.compile(path, threads=1))
        shapes = [info.shape for info in compiled.program.inputs]
        generator = np.random.default_rng(0)
        inputs = [generator.standard_normal(shape, np.float32) for shape in shapes]
        found = bases.leaves(attempt(lambda: compiled(*inputs)))
        return _compare(found, path, inputs)

    def smaller(self, case: Case) -> Iterator[Case]:
        yield from fewer(case)
        for i, edit in enumerate(case["edits"]):
            if edit[:2] == ["text", "nest"] and edit[3] > 3:
                for depth in (3, edit[3] // 4):
                    yield case | {"edits": [*case["edits"][:i], [*edit[:3], depth, *edit[4:]], *case["edits"][i + 1 :]]}


def _transform(path: Path, passes: str) -> str:
    """Run passes; what they write must be read again."""
    output = path.parent / "output.mlir"
    output.write_text("old")
    try:
        command_line.call("patc-opt", [f"--pass-pipeline=builtin.module({passes})", str(path), "-o", str(output)])
    except Refusal:
        if output.read_text() != "old" or len(list(path.parent.glob("output*"))) > 1:
            raise Fault("an error that leaves an output or harms an old one") from None
        raise
    attempt(lambda: read_module(output, make_context()))
    return "transformed"


def _compare(found: list[np.ndarray], path: Path, inputs: list[np.ndarray]) -> str:
    module, parameters = read_module(path, make_context())
    try:
        wanted: list[Any] = attempt(lambda: reference.execute(module, parameters, inputs))
    except Refusal:
        return "compiled, and refused by the reference"
    if [y.shape for y in found] != [y.shape for y in wanted]:
        raise Fault("outputs of another shape")
    for y, other in zip(found, wanted, strict=True):
        if not np.isfinite(other).all():
            return "compiled, with an infinity or a NaN"
        if np.abs(y - other).max(initial=0.0) > _BOUND * np.abs(other).max(initial=0.0):
            raise Fault("wrong numbers", f"{np.abs(y - other).max()} of {np.abs(other).max()}")
    return "right"
