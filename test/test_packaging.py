"""What pip installs is what the tree holds, and what the README shows is what the tools take."""

from __future__ import annotations

import re
import shlex
import sys

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


def commands(program: str) -> list[str]:
    """Return the README's indented lines that call a program, without comments."""
    lines = re.findall(rf"^    ({program} .*)$", README, re.MULTILINE)
    return [line.split("  #")[0].strip() for line in lines]


def test_every_package_of_the_tree_is_listed() -> None:
    folders = [path.parent for path in (ROOT / "patc").rglob("__init__.py")]
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders if not set(MAPPED) & set(folder.parts)}
    for name in MAPPED:
        folders = [path.parent for path in (ROOT / name).rglob("__init__.py")]
        found |= {".".join(("patc", *folder.relative_to(ROOT).parts)) for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


@pytest.mark.parametrize("name", MAPPED)
def test_mapped_folders_are_where_type_checkers_and_editable_installs_look(name: str) -> None:
    assert PROJECT["tool"]["setuptools"]["package-dir"][f"patc.{name}"] == name
    assert (ROOT / "patc" / name).is_symlink()
    assert (ROOT / "patc" / name).resolve() == ROOT / name


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    install, test = re.findall(r"^    (pip install .*)$", README, re.MULTILINE)
    assert install == "pip install -e . && patc demo"
    assert test == "pip install -e '.[test]' && pytest"
    assert "pip install --quiet -e .\n" in script
    assert "pip install --quiet -e '.[test,arm]'\n" in script
    assert script.rstrip().endswith("\npytest")


@pytest.mark.parametrize("command", commands("patc"))
def test_readme_commands_parse(command: str) -> None:
    make_parser().parse_args(shlex.split(command)[1:])


def test_readme_names_files_that_exist() -> None:
    named = re.findall(r"\b((?:patc|dialects|passes|tools|test)/[\w/.<>-]*)", README)
    assert [path for path in named if "<" not in path and not (ROOT / path).exists()] == []
