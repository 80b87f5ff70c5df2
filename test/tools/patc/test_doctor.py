"""`patc doctor`: what it finds on this machine, and the caches that it clears."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from pathlib import Path

import pytest
from command import run
from repository import ROOT

import patc.tools.patc
from patc.tools import doctor
from patc.tuning_cache import TuningCache
from patc.versions import versions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    TuningCache().store("key", [1.0, 2.0])
    return tmp_path / "patc"


def test_says_what_there_is(capsys: pytest.CaptureFixture[str], caches: Path) -> None:
    lines = run(capsys, "doctor").splitlines()
    found = {line.split()[0]: line for line in lines if line}
    assert found["patc"].split()[1] == f"{patc.__version__},"
    assert platform.python_version() in found["Python"]
    assert {"CPU", "memory", "host", "Vulkan", "linker", "emulator"} <= found.keys()
    assert found["torch"].split()[1] == importlib.metadata.version("torch")
    assert f"caches in {caches}; --clear-caches removes them" in lines
    assert found["tuning"].split()[1:3] == ["1", "file,"]
    assert found["zig"].split()[1] == "empty:"


def test_names_what_installs_a_missing_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = ("onnx", "xxhash")
    monkeypatch.setattr(doctor, "versions", lambda names: versions(name for name in names if name not in missing))
    assert patc.tools.patc.main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "missing: pip install patc[onnx], for .onnx files" in text
    assert "  xxhash         missing: pip install patc\n" in text


def test_knows_the_packages_of_the_project() -> None:
    """Those that every installation has, and one at least of each extra but those that only work on patc takes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {re.split(r"[^\w-]", text)[0] for text in project["dependencies"]} == {*doctor._REQUIRED}
    extras = {extra: " ".join(found) for extra, found in project["optional-dependencies"].items()}
    assert {extra for _, extra, _ in doctor._OPTIONAL} == extras.keys() - {"test", "docs"}
    assert [name for name, extra, _ in doctor._OPTIONAL if name.lower() not in extras[extra].lower()] == []


def test_clears_caches(capsys: pytest.CaptureFixture[str], caches: Path) -> None:
    (caches / "zig").symlink_to(caches.parent / "elsewhere")
    (caches.parent / "elsewhere").mkdir()
    (caches.parent / "elsewhere" / "kept").write_text("")
    (caches / "other").mkdir()
    text = run(capsys, "doctor", "--clear-caches")
    assert text.startswith(f"removed {caches / 'tuning'}: 1 file, ")
    assert sorted(path.name for path in caches.iterdir()) == ["other"]
    assert (caches.parent / "elsewhere" / "kept").exists()
    assert run(capsys, "doctor", "--clear-caches") == ""
