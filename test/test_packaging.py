"""What pip installs is what the tree holds, and what the README shows is what the tools take."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

from patc.tools.patc import make_parser

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
MAPPED = ("dialects", "passes", "tools")
_USER = """\
import patc


def count(path: str) -> int:
    return len(patc.load(path).layers)

reveal_type(patc.compile("net.onnx", {"x": (1, 3, 8, 8)}, target="host"))
patc.compile("net.onnx", threads="two")
error: type[Exception] = patc.PatcError
"""


def commands(program: str) -> list[str]:
    """Return the README's indented lines that call a program, without comments."""
    lines = re.findall(rf"^    ({program} .*)$", README, re.MULTILINE)
    return [line.split("  #")[0].strip() for line in lines]


def test_every_folder_of_modules_is_a_package() -> None:
    """`packages.find` takes no others."""
    folders = {path.parent for name in ("patc", *MAPPED) for path in (ROOT / name).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
    assert PROJECT["tool"]["setuptools"]["packages"]["find"]["include"] == ["patc", "patc.*"]
    # Only then is an editable install a path, which type checkers follow, and no finder.
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {"": "."}


@pytest.mark.parametrize("name", MAPPED)
def test_mapped_folders_are_where_type_checkers_and_editable_installs_look(name: str) -> None:
    assert (ROOT / "patc" / name).is_symlink()
    assert (ROOT / "patc" / name).resolve() == ROOT / name


# PyTorch's own types take a minute to read.
_SETTINGS = """\
[mypy]
[mypy-torch.*]
follow_imports = skip
[mypy-patc.*]
follow_imports = silent
"""


def test_users_see_types(tmp_path: Path) -> None:
    """A strict check of a project that imports patc finds it, and what its functions take and return."""
    (tmp_path / "user.py").write_text(_USER)
    (tmp_path / "mypy.ini").write_text(_SETTINGS)
    words = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "user.py"]
    environment = os.environ | {"MYPYPATH": str(ROOT)}
    found = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.stdout.splitlines() == [
        'user.py:7: note: Revealed type is "patc.runtime.model.CompiledModel"',
        'user.py:8: error: Argument "threads" to "compile_model" has incompatible type "str"; expected "int | None"  [arg-type]',
        "Found 1 error in 1 file (checked 1 source file)",
    ]


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    install, test = re.findall(r"^    (pip install .*)$", README, re.MULTILINE)
    assert install == "pip install -e . && patc demo"
    assert test == "pip install -e '.[test]' && pytest -n auto"
    assert "pip install --quiet -e .\n" in script
    assert "pip install --quiet -e '.[test,arm]'\n" in script
    assert script.rstrip().endswith("\npytest -n auto")


@pytest.mark.parametrize("command", commands("patc"))
def test_readme_commands_parse(command: str) -> None:
    make_parser().parse_args(shlex.split(command)[1:])


def test_readme_names_files_that_exist() -> None:
    named = re.findall(r"\b((?:patc|dialects|passes|tools|test)/[\w/.<>-]*)", README)
    assert [path for path in named if "<" not in path and not (ROOT / path).exists()] == []
