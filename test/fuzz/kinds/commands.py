"""Command lines of `patc` and `patc-opt`: status 0, or 1 and one line, with old outputs intact and nothing left."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import bases
import command_line
import numpy as np
import torch
from edits import Edit, fewer
from outcome import Case, Fault, Refusal
from PIL import Image

import patc
from patc.compiler import host_pipeline, lower_model
from patc.mlir_files import write_module

_LINES = (
    "patc compile net.pt2 -o out.patc --threads 1",
    "patc compile net.mlir -o out.patc --threads 1 --quiet",
    "patc compile net.pt2 -o old.patc --threads 1 --tune cost --dtype f32 --target host",
    "patc compile net.pt2 -o link.patc --threads 1",
    "patc compile net.pt2 --emit mlir@encode -o old.mlir",
    "patc compile net.pt2 --target spirv-vulkan -o out.patc",
    "patc compile net.pt2 --target spirv-vulkan --emit spirv -o out",
    "patc compile net.pt2 --target aarch64-linux --cpu cortex-a76 --emit obj -o out.o --weights file",
    "patc compile net.pt2 --target aarch64-linux --emit asm -o old.s",
    "patc run net.patc --input x.npy --output old.npy",
    "patc run net.patc --input x.npy --output out.npz",
    "patc run net.patc --image picture.png",
    "patc run net.patc --profile",
    "patc run net.mlir --threads 1 --output y.npy",
    "patc report net.patc",
    "patc report net.pt2 --threads 1 --dtype f32",
    "patc devices",
    "patc --version",
    "patc compile --help",
    "patc-opt net.mlir --pattern-encode --pattern-reorder -o old.mlir",
    "patc-opt net.mlir --pattern-encode=max-patterns=8 --cse -o out.mlir --mlir-timing",
    "patc-opt net.mlir --pass-pipeline=builtin.module(pattern-encode,canonicalize) -o link.patc",
    "patc-opt --list-passes",
    "patc-opt net.mlir --split-input-file --verify-diagnostics --mlir-print-ir-after-all -o out.mlir",
)
_WORDS = (
    "", "-", "--", "-o", "-x", "--no-such", "net.pt2", "net.mlir", "net.patc", "x.npy", "picture.png", "folder", "missing/x.patc",
    "old.patc", "old.npy", "link.patc", "dangling.patc", "loop", "secret", "a" * 300, "a/" * 2500 + "b", "a\nb", "a\0b", "\udcff.pt2",
    "é.mlir", "-1", "0", "1e9", "nan", "99999999999999999999", "--threads=0", "--threads=-3", "--threads=2000000", "--dtype=f16",
    "--dtype=f64", "--tune=off", "--target=x86-64-v3", "--target=nothing", "--compression=8", "--compression=nan", "--connectivity=0",
    "--library=1,2,3", "--input-shape=1,3,8,8", "--input-shape=1,3,-8,8", "--weights=x.npy", "--weights=net.pt2", "--quiet",
    "--emit=mlir@nothing", "--emit=mlir@schedule", "--emit=llvm", "--emit=so", "--profile", "--help", "--version", "--device=99",
    "--device=nothing", "--image=net.pt2", "--image=folder", "--input=net.patc", "--output=y.npz", "--output=folder", "--output=y.txt",
    "--pattern-encode=no-such=1", "--pattern-schedule=threads=-1", "--mlir-elide-elementsattrs-if-larger=-5", "--canonicalize={a=b}",
    "--convert-scf-to-cf", "--mlir-print-ir-after=nothing", "@file", "~", "*", "$(mkdir payload-ran)", "`mkdir payload-ran`", "%s%n",
)  # fmt: skip
# Of the cases' outputs; what is not among them, and was not there, is left behind.
_OLD = ("old.patc", "old.mlir", "old.safetensors", "old.npy", "old.s", "target.patc")


class Kind:
    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.inputs = folder / "inputs"
        self.inputs.mkdir()
        model, inputs = bases.make("plain")
        torch.export.save(torch.export.export(model, inputs), self.inputs / "net.pt2")
        patc.compile(model, inputs, threads=1).save(self.inputs / "net.patc")
        module, state = lower_model(model, inputs, host_pipeline("host", 1).until("raise"))
        write_module(module, state.parameters, self.inputs / "net.mlir")
        np.save(self.inputs / "x.npy", inputs[0].numpy())
        Image.new("RGB", (9, 8)).save(self.inputs / "picture.png")
        (self.inputs / "folder").mkdir()
        for name in _OLD:
            (self.inputs / name).write_text("old")
        for name, target in (("link.patc", "target.patc"), ("dangling.patc", "nowhere.patc"), ("loop", "loop")):
            (self.inputs / name).symlink_to(target)

    def draw(self, choices: random.Random) -> Case:
        line = choices.choice(_LINES)
        edits: list[Edit] = [
            [
                choices.choice(["replace", "insert", "delete", "double", "swap", "break"]),
                choices.randrange(12),
                choices.choice(_WORDS),
            ]
            for _ in range(choices.choice([0, 1, 1, 1, 2, 3]))
        ]
        return {"line": line, "edits": edits}

    def run(self, case: Case, folder: Path) -> str:
        shutil.copytree(self.inputs, folder, symlinks=True, dirs_exist_ok=True)
        tool, *words = case["line"].split(" ")
        for edit in case["edits"]:
            words = _edit_words(words, edit)
        before = {path: _content(path) for path in folder.rglob("*")}
        try:
            command_line.call(tool, words)
        except Refusal:
            for path in {*folder.rglob("*"), *before}:
                if path not in before or _content(path) != before[path]:
                    raise Fault("an error that leaves an output or harms an old one", f"{path.name}: {words}") from None
            raise
        for path, content in before.items():
            if content.startswith("link") and _content(path) != content:
                raise Fault("a link that was replaced", f"{path.name}: {words}")
        return "done"

    def smaller(self, case: Case) -> Iterator[Case]:
        yield from fewer(case)


def _edit_words(words: list[str], edit: Edit) -> list[str]:
    kind, place, word = edit
    place %= len(words) + (kind == "insert") or 1
    if kind == "insert" or not words:
        return [*words[:place], word, *words[place:]]
    if kind == "replace":
        return [*words[:place], word, *words[place + 1 :]]
    if kind == "delete":
        return words[:place] + words[place + 1 :]
    if kind == "double":
        return words[: place + 1] + words[place:]
    if kind == "swap":
        return [*words[:place], *words[place:][::-1]]
    return [*words[:place], words[place][: len(words[place]) // 2], *words[place + 1 :]]


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    return path.read_bytes().hex() if path.is_file() else "folder" if path.is_dir() else "gone"
