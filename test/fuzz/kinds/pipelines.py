"""Texts of pass pipelines: refused in one line, or run; what they print is read again as the same pipeline."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import bases
import command_line
import torch
from edits import ODD_NUMBERS, ODD_TEXTS, Edit, draw_bytes_edit, edit_bytes, fewer
from outcome import Case, Fault, attempt

from patc.compiler import host_pipeline, lower_model
from patc.mlir_files import write_module
from patc.passes.registry import PASS_NAMES
from patc.pipeline import Pipeline

_PASSES = (*PASS_NAMES, "cse", "canonicalize", "symbol-dce", "sccp", "func.func(cse)", "inline", "one-shot-bufferize")
_DEPTHS = (2, 50, 3000, 100_000)
_TOKEN = re.compile(r"[\w.-]+|[^\w\s]")


class Kind:
    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.bases = {
            "host": str(host_pipeline("host", 1)),
            "threads": str(host_pipeline("host", 2)),
            "spirv": str(Pipeline.named("spirv", target="spirv-vulkan", dtype="f32")),
            "short": "builtin.module(pattern-encode,func.func(canonicalize{top-down=true max-iterations=3}),cse)",
        }
        self.model = folder / "net.mlir"
        model, inputs = bases.make("plain")
        module, state = lower_model(model, inputs, host_pipeline("host", 1).until("raise"))
        write_module(module, state.parameters, self.model)

    def draw(self, choices: random.Random) -> Case:
        base = choices.choice([*self.bases, "short", "short"])
        return {
            "base": base,
            "edits": [_draw_edit(choices, self.bases[base]) for _ in range(choices.choice([1, 1, 2, 3]))],
        }

    def run(self, case: Case, folder: Path) -> str:
        text = self.bases[case["base"]]
        for edit in case["edits"]:
            text = _edit(text, edit)
        pipeline = attempt(lambda: Pipeline.parse(text))
        again = attempt(lambda: Pipeline.parse(str(pipeline)))
        if str(again) != str(pipeline):
            raise Fault("a pipeline that prints as another one", f"{pipeline}\n{again}")
        command_line.call("patc-opt", [f"--pass-pipeline={text}", str(self.model)])
        return "ran"

    def smaller(self, case: Case) -> Iterator[Case]:
        yield from fewer(case)


def _draw_edit(choices: random.Random, text: str) -> Edit:
    kind = choices.choices(["bytes", "token", "insert", "delete", "nest", "cut"], [2, 6, 4, 2, 0.5, 1])[0]
    tokens = _TOKEN.findall(text)
    if kind == "bytes":
        return [kind, *draw_bytes_edit(choices, len(text))]
    if kind == "nest":
        return [kind, choices.choice(["func.func(", "{", "(", "builtin.module(", "{a={"]), choices.choice(_DEPTHS)]
    word = choices.choice(
        [choices.choice(tokens), choices.choice(_PASSES), *map(str, ODD_NUMBERS[:20]), *ODD_TEXTS, ",", "=", "{", "}"]
    )
    return [kind, choices.randrange(len(tokens)), word]


def _edit(text: str, edit: Edit) -> str:
    kind, *rest = edit
    if kind == "bytes":
        return edit_bytes(text.encode(errors="surrogatepass"), rest).decode(errors="surrogateescape")
    if kind == "nest":
        opening, depth = rest
        closing = "".join({"(": ")", "{": "}"}[char] for char in opening if char in "({")
        return opening * depth + "cse" + closing * depth
    found = list(_TOKEN.finditer(text))
    if not found:
        return text
    place, word = found[rest[0] % len(found)], rest[1]
    if kind == "cut":
        return text[: place.start()]
    return (
        text[: place.start()]
        + ("" if kind == "delete" else word)
        + text[place.start() if kind == "insert" else place.end() :]
    )
