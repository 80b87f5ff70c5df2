"""The commands and the Python code of README.md, docs/ and examples/ run as they stand.

A page's indented blocks run in its order, in one folder with the files that the page speaks of (`documents.py`). Nets
of `patc.models` are small ones of the same names here. Before what takes long or needs a network or a device stands
`<!-- not run: WHY -->`, for all up to the next blank line behind it; its words are parsed all the same. Commands within
sentences and their options exist.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import documents
import pytest
import torch
from registries import forget_registrations
from repository import ROOT, SUPPORT
from searches import few_draws

from patc import models, tuning
from patc.bench import peak, runner
from patc.pruning import data
from patc.targets import host_features
from patc.tools import patc as patc_tool
from patc.tools import patc_opt

PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "runtime" / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "examples").glob("*/README.md"),
    ]
)
TOOLS = {"patc": patc_tool.main, "patc-opt": patc_opt.main}
# What installs and tests the project: `.ci/run` does.
INSTALLING = ("pip", "pytest", "lit")
COMPILERS = ("cc", "g++", "./main", "echo")
OTHERS = (
    *COMPILERS,
    "python",
    "torchrun",
    "jq",
    "ffmpeg",
    "$NDK/toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android29-clang",
)
PEAK = functools.cache(peak.measure_peak)  # of this machine: once for all pages
_MARK = re.compile(r"<!-- not run: (?P<why>[^>]+) -->")
_INLINE = re.compile(r"(?<!`)`patc\s+([^`]+)`")
# What stands for the reader's own nets, data and training in the code of pages.
READER = """
import torch, numpy as np, patc
from dataclasses import replace
from patc.numerics import *
from patc.pruning import *
from documents import SmallNet
x, y, images = torch.ones(1, 3, 32, 32), torch.zeros(1, dtype=torch.long), torch.ones(3, 3, 32, 32)
model = net = SmallNet(10).eval()
criterion = torch.nn.CrossEntropyLoss()
class Detector(SmallNet):
    def __init__(self, classes): super().__init__(10)
class Pair(torch.nn.Module):
    def forward(self, x, mask=None): return 2 * x if mask is None else x + mask
"""
READERS = {
    "README": "x = torch.ones(1, 3, 224, 224)",
    "pruning": "model = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 5))",
    "robust": (
        "from patc.robust import *; from patc.robust import DomainWeights, worst_case_loss, attack_ensemble, Budget; "
        "y = torch.zeros(len(x), dtype=torch.long)"
    ),
    "search_nets": "from collections import OrderedDict; from pathlib import Path",
    "torch": "images = y = mask = x; net = Pair().eval(); samples = [x]",
}


@dataclass(frozen=True)
class Block:
    """Indented lines of a page up to a blank one, without their indentation, and why they are not to be run."""

    page: Path
    line: int
    text: str
    not_run: str | None

    def commands(self) -> list[list[str]]:
        """Return the words of each command; none where the block is something else."""
        lines = self.text.replace("\\\n", " ").splitlines()
        prompted = [line[2:] for line in lines if line.startswith("$ ")]
        lines = prompted or lines
        if not prompted and lines[0].split()[0] not in (*TOOLS, *INSTALLING, *OTHERS):
            return []
        words = [word for line in lines for word in (*shlex.split(line, comments=True), "&&")]
        return [list(part) for is_end, part in itertools.groupby(words, "&&".__eq__) if not is_end]

    def python(self) -> bool:
        """Return whether the block is Python code, and not a picture, a table or IR."""
        with contextlib.suppress(SyntaxError):
            nodes = ast.parse(self.text).body
            return not self.commands() and any(isinstance(node, ast.stmt) for node in nodes)
        return False

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    """Return a page's blocks. A mark is a line of its own with a blank line behind it."""
    blocks: list[Block] = []
    found: list[str] = []
    why = None
    lines = [*page.read_text().splitlines(), "", ""]
    for number, (line, following) in enumerate(itertools.pairwise(lines), 1):
        if line.startswith("    ") or (found and not line and following.startswith(" " * 8)):
            found.append(line[4:])
            continue
        if found:
            blocks.append(Block(page, number - len(found), "\n".join(found), why))
            found, why = [], None
        if match := _MARK.fullmatch(line):
            why = match["why"]
        else:
            assert not line or why is None, f"{page}:{number}: a block has to come right behind its mark"
    return blocks


def runnable(page: Path) -> list[Block]:
    return [block for block in read_blocks(page) if block.commands() or block.python()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The reader's folder, on one core: two threads wait for each other for long where others have one of two."""
    documents.write_files(tmp_path)
    for name, info in list(models.MODELS.items()):
        small = documents.small_model(info)
        monkeypatch.setitem(models.MODELS, name, small)
        monkeypatch.setattr(models, name, small.build)
    monkeypatch.setattr(data, "_glyphs", functools.partial(_few_glyphs, data._glyphs))
    monkeypatch.setattr(tuning, "REPETITIONS", (1, 1))
    few_draws(monkeypatch)
    monkeypatch.setattr(peak, "measure_peak", PEAK)
    monkeypatch.setattr(runner, "measure_peak", PEAK)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(SUPPORT)]))
    monkeypatch.chdir(tmp_path)
    forget_registrations(monkeypatch)
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(cores)})
    torch.set_num_threads(1)
    yield tmp_path
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


def _few_glyphs(make: Any, count: str, name: str, seed: int) -> Any:
    return make("64", name, seed)


def test_marks_are_needed() -> None:
    """A mark is before something that would run."""
    for page in PAGES:
        marked = [block for block in read_blocks(page) if block.not_run is not None]
        assert marked == [block for block in runnable(page) if block.not_run is not None]
        assert len(marked) == len(_MARK.findall(page.read_text()))


def test_no_command_escapes() -> None:
    """What is neither a command nor Python calls no tool, and nothing but Sphinx's directives stands in fences."""
    for page in PAGES:
        for block in read_blocks(page):
            if block not in runnable(page):
                assert not re.search(rf"(^|[|&$])\s*({'|'.join((*TOOLS, *INSTALLING, *OTHERS))})\s", block.text), block
        assert re.findall(r"^```\w+", page.read_text(), re.MULTILINE) == [], page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_in_sentences_are_there(page: Path) -> None:
    parser = patc_tool.make_parser()
    commands = next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for text in _INLINE.findall(page.read_text()):
        name, *words = text.split()
        known = {"-", *commands.get(name, parser)._option_string_actions}
        assert name in commands or name in known, text
        assert [word for word in words if word.startswith("-") and word not in known] == [], text


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=lambda page: page.stem)
def test_a_page(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (ROOT / "examples").glob("c*/*.c*"):
        shutil.copy(file, folder)
    namespace: dict[str, Any] = {}
    exec(READER + READERS.get(page.stem, ""), namespace)
    for block in runnable(page):
        for words in block.commands():
            _run_command(block, words, capsys)
        if block.python() and block.not_run is None:
            exec(compile(block.text, str(block), "exec"), namespace)
            if match := re.search(r"# (\w+\.py)$", block.text.splitlines()[0]):
                (folder / match[1]).write_text(READER + block.text)


def _run_command(block: Block, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    name = words[0]
    for is_pipe, part in itertools.groupby(words, "|".__eq__):
        program, *rest = part
        if not is_pipe and program == "patc":
            patc_tool.make_parser().parse_args(rest)
    if block.not_run is not None or name in INSTALLING:
        return
    if name == "python":
        path = next(word for word in words if word.endswith(".py"))
        run = subprocess.run([sys.executable, str(ROOT / path), *words[2:]], capture_output=True, text=True)
        assert run.returncode == 0, f"{block}: {run.stderr}"
        return
    if name == "jq" or name in COMPILERS:
        can = shutil.which("g++" if name in COMPILERS else name) and "avx2" in host_features()
        line = " ".join(word if word == "|" else shlex.quote(word) for word in words)
        run = subprocess.run(line, shell=True, capture_output=True, text=True)
        assert run.returncode == 0 or not can, f"{block}: {run.stderr}"
        return
    assert name in TOOLS, f"{block}: {name} is not known here: run it, or say why not in a mark"
    status = TOOLS[name](_here(words[1:]))
    captured = capsys.readouterr()
    assert status == 0, f"{block}: {' '.join(words)}: {captured.err}"


def _here(words: list[str]) -> list[str]:
    """Return a command's words for this folder and one core. Rivals of `patc bench` run in processes of their own, where
    nets have their usual size."""
    words = [str(ROOT / word) if word.startswith("examples/") else word for word in words]
    if words and words[0] == "bench":
        words[1] = f"{words[1]}.py:build" if words[1] in models.MODELS else words[1]
        words = ["1" if word == "1,2" else word for word in words]
    return words
