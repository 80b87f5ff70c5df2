"""Passes, layers and formats of other packages: installed, broken, or in a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

PASS = ROOT / "examples" / "pass"
NET = """\
func.func @main(%x: tensor<1x2x3x3xf32>) -> tensor<1x1x3x3xf32> {
  %w = arith.constant dense<[[[[1.0]], [[0.05]]]]> : tensor<1x2x1x1xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x3x3xf32>, tensor<1x2x1x1xf32>) -> tensor<1x1x3x3xf32>
  return %y : tensor<1x1x3x3xf32>
}
"""
REMARK = "net.mlir:3:8: remark: 1 of 2 weights become zero"


def run(folder: Path, *words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python with these words in a folder, with packages of `path` before others."""
    (folder / "net.mlir").write_text(NET)
    places = [str(path)] if path is not None else []
    found = os.pathsep.join([*places, str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": found}
    )


def opt(folder: Path, *words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run(folder, "-m", "patc.tools.patc_opt", "net.mlir", *words, path=path)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    source = tmp_path_factory.mktemp("source")
    for file in PASS.glob("*.*"):
        (source / file.name).write_bytes(file.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(folder), str(source)], check=True, capture_output=True)
    return folder


def write_plugin(folder: Path, name: str, group: str, value: str, code: str) -> None:
    """Write a package with one entry point as pip would have installed it."""
    information = folder / f"{name}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
    (folder / f"{value.partition(':')[0]}.py").write_text(code)


def test_a_pass_of_an_installed_package_is_known_by_its_name(installed: Path, tmp_path: Path) -> None:
    found = opt(tmp_path, "--zero-small-weights=below=0.1", path=installed)
    assert (found.returncode, found.stderr.strip()) == (0, REMARK) and "0.000000e+00" in found.stdout
    code = "from patc import Pipeline; print(Pipeline().add('zero-small-weights', below=0.5).add('cse'))"
    found = run(tmp_path, "-c", code, path=installed)
    assert found.stdout.strip() == "builtin.module(zero-small-weights{below=0.5},cse)"
    found = opt(tmp_path, "--zero-small-weights=below=2", path=installed)
    assert found.stderr.strip().endswith("expected option 'below' to be a number from 0.0 to 1.0, got 2.0")


def test_a_file_is_known_with_load(tmp_path: Path) -> None:
    load = ("--load", str(PASS / "patc_zero_small_weights.py"))
    found = opt(tmp_path, *load, "--pass-pipeline=builtin.module(zero-small-weights{below=0.1})")
    assert (found.returncode, found.stderr.strip()) == (0, REMARK)
    assert "zero-small-weights\n    Make the weights" in opt(tmp_path, *load, "--list-passes").stdout
    assert opt(tmp_path, "--zero-small-weights").stderr.strip().startswith("patc-opt: error: unknown pass 'zero-small")


def test_layers_and_formats_of_packages_are_known(tmp_path: Path) -> None:
    examples = ROOT / "examples" / "extending"
    for name, group, value in (
        ("maximum", "patc.layers", "maximum_op:Maximum"),
        ("rows", "patc.formats", "rows_format:RowsFormat"),
    ):
        code = (examples / f"{value.partition(':')[0]}.py").read_text()
        write_plugin(tmp_path, name, group, value, code)
    code = (
        "from patc.passes.layers.registry import kinds; from patc.passes.formats.registry import formats;"
        "print([type(kind).__name__ for kind in kinds()][-1], [kind.__name__ for kind in formats()][-1])"
    )
    found = run(tmp_path, "-c", code, path=tmp_path)
    assert found.stdout.strip() == "Maximum RowsFormat", found.stderr


@pytest.mark.parametrize(
    ("group", "code", "said"),
    [
        ("patc.passes", "1 / 0", "plugin 'own' (patc.passes of own 1.0) raised ZeroDivisionError: division by zero"),
        (
            "patc.passes",
            "class Own: pass",
            "raised TypeError: expected a subclass of Pass, found <class 'own_code.Own'>",
        ),
        (
            "patc.passes",
            "from patc.passes.base import Pass as Own",
            "raised TypeError: expected a pass of this name, got",
        ),
        (
            "patc.layers",
            "import nothing_of_that_name",
            "plugin 'own' (patc.layers of own 1.0) raised ModuleNotFoundError",
        ),
        (
            "patc.formats",
            "from patc.passes.formats.base import WeightFormat as Own",
            "raised AttributeError: type object 'WeightFormat'",
        ),
    ],
)
def test_what_is_wrong_with_a_plugin_is_one_line(tmp_path: Path, group: str, code: str, said: str) -> None:
    write_plugin(tmp_path, "own", group, "own_code:Own", code)
    found = opt(tmp_path, "--own" if group == "patc.passes" else "--pattern-encode", path=tmp_path)
    assert found.returncode == 1 and said in found.stderr and len(found.stderr.splitlines()) == 1, found.stderr


_OWN_PASS = """\
from dataclasses import dataclass
from typing import ClassVar
from patc.passes.base import Pass

@dataclass(frozen=True)
class Own(Pass):
    name: ClassVar[str] = "{name}"
    def run(self, module, state):
        {run}
"""
_OF_OWN = "plugin '{}' (patc.passes of {} 1.0)"


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("return {}['x']", "raised KeyError: 'x'"),
        ("raise SystemExit(3)", "raised SystemExit: 3"),
        ("from patc.passes.ir.modules import set_most_images; set_most_images(None, 1)", "raised AttributeError: "),
    ],
)
def test_a_pass_that_raises_is_no_fault_of_patc(tmp_path: Path, run: str, said: str) -> None:
    code = _OWN_PASS.format(name="own", run=run)
    write_plugin(tmp_path, "own", "patc.passes", "own_code:Own", code)
    found = opt(tmp_path, "--own", path=tmp_path)
    assert found.returncode == 1 and len(found.stderr.splitlines()) == 1, found.stderr
    assert f"own_code.py:9: {_OF_OWN.format('own', 'own')} {said}" in found.stderr
    (tmp_path / "own.py").write_text(code.replace('"own"', '"mine"'))
    found = opt(tmp_path, "--load", "own.py", "--mine")
    assert found.returncode == 1 and len(found.stderr.splitlines()) == 1, found.stderr
    assert f"own.py:9: its code {said}" in found.stderr


def test_a_format_that_raises_is_no_fault_of_patc(tmp_path: Path) -> None:
    code = (ROOT / "examples" / "extending" / "rows_format.py").read_text()
    code = code.replace(
        "        if weight.shape[2:] not in", "        weight['x']\n        if weight.shape[2:] not in", 1
    )
    write_plugin(tmp_path, "rows", "patc.formats", "rows_code:RowsFormat", code)
    line = "import torch, patc; patc.compile(torch.nn.Linear(4, 4).eval(), (torch.zeros(1, 4),))"
    found = run(tmp_path, "-c", line, path=tmp_path)
    assert "error.PatcError" not in found.stderr and "PatcError: " in found.stderr, found.stderr
    assert "plugin 'rows' (patc.formats of rows 1.0) raised IndexError" in found.stderr.splitlines()[-1]


def test_names_that_others_have_are_refused(tmp_path: Path) -> None:
    for name, owner in (("pattern-encode", "a pass of patc"), ("cse", "a pass of MLIR")):
        folder = tmp_path / name
        folder.mkdir()
        write_plugin(folder, name, "patc.passes", "own_code:Own", _OWN_PASS.format(name=name, run="pass"))
        found = opt(folder, f"--{name}", path=folder)
        said = f"patc-opt: error: {_OF_OWN.format(name, name)}: expected a name of its own, found that of {owner}\n"
        assert (found.returncode, found.stderr) == (1, said)
    folder = tmp_path / "two"
    folder.mkdir()
    for package, module in (("first", "one_code"), ("second", "two_code")):
        write_plugin(folder, package, "patc.passes", f"{module}:Own", _OWN_PASS.format(name="own", run="pass"))
        entries = folder / f"{package}-1.0.dist-info" / "entry_points.txt"
        entries.write_text(f"[patc.passes]\nown = {module}:Own\n")
    found = opt(folder, "--own", path=folder)
    owner = _OF_OWN.format("own", "first")
    said = f"patc-opt: error: {_OF_OWN.format('own', 'second')}: expected a name of its own, found that of {owner}\n"
    assert (found.returncode, found.stderr) == (1, said)
    (tmp_path / "own.py").write_text(_OWN_PASS.format(name="cse", run="pass"))
    assert (
        "raised TypeError: expected one pass of a name, got two of 'cse'"
        in opt(tmp_path, "--load", "own.py", "--cse").stderr
    )


def test_a_broken_plugin_leaves_the_list_of_passes_readable(tmp_path: Path) -> None:
    write_plugin(tmp_path, "own", "patc.passes", "own_code:Own", "import nothing_of_that_name")
    found = opt(tmp_path, "--list-passes", path=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    said = f"{_OF_OWN.format('own', 'own')} raised ModuleNotFoundError: No module named 'nothing_of_that_name'"
    assert "pattern-encode\n" in found.stdout and f"own\n    {said}\n" in found.stdout


def test_tracebacks_are_shown_where_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATC_TRACEBACK", "1")
    for body in (_OWN_PASS.format(name="own", run="1 / 0"), "1 / 0"):
        (tmp_path / "own.py").write_text(body)
        found = opt(tmp_path, "--load", "own.py", "--own")
        assert found.returncode == 1 and "Traceback" in found.stderr and "own.py" in found.stderr, found.stderr
        assert found.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path) -> None:
    for code, said in (
        ("raise ValueError('no')", "own.py:1: error: its code raised ValueError: no"),
        ("from patc.passes.pattern_encode import *\nclass Twice(PatternEncode): pass", "two of 'pattern-encode'"),
        (None, "own.py: error: expected a Python file, found no such file"),
    ):
        (tmp_path / "own.py").unlink(missing_ok=True)
        if code is not None:
            (tmp_path / "own.py").write_text(code)
        found = opt(tmp_path, "--load", "own.py")
        assert found.returncode == 1 and said in found.stderr and len(found.stderr.splitlines()) == 1, found.stderr


def test_plugins_count_for_what_was_compiled_before(tmp_path: Path) -> None:
    code = "from patc.code_cache import make_key; print(make_key({}))"
    keys = [run(tmp_path, "-c", code, path=tmp_path).stdout]
    write_plugin(tmp_path, "own", "patc.passes", "own_code:Own", "Own = 1")
    keys.append(run(tmp_path, "-c", code, path=tmp_path).stdout)
    (tmp_path / "own_code.py").write_text("Own = 2")
    keys.append(run(tmp_path, "-c", code, path=tmp_path).stdout)
    assert len(set(keys)) == 3


def test_the_page_tells_of_the_example() -> None:
    page = (ROOT / "docs" / "extending.md").read_text()
    lines = [line for line in (PASS / "pyproject.toml").read_text().splitlines() if "zero-small-weights =" in line]
    assert "examples/pass/" in page and len(lines) == 1 and lines[0] in page
