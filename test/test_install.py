"""Wheels and the source archive, outside of the checkout: what is in them, and that it works where nothing else is.

Packages that patc needs are not installed once more: environments find those of this one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from repository import ROOT
from torch import nn

import patc

_BUILD = "import sys, setuptools.build_meta as b; getattr(b, sys.argv[1])(sys.argv[2])"
_COMPILED = """
import numpy as np, torch, patc
model = torch.nn.Conv2d(3, 4, 3).eval()
compiled = patc.compile(model, (torch.zeros(1, 3, 8, 8),))
print(compiled(np.ones((1, 3, 8, 8), np.float32)).shape, patc.__file__)
compiled.save("net.patc")
from patc.tools.patc import main
main(["--version"])
main(["report", "net.patc", "-o", "page.html"])
"""
_RUNS = """
import sys, numpy as np, patc
for path in sys.argv[1:]:
    print(float(np.abs(patc.load(path)(np.ones((1, 4, 12, 12), np.float32))).sum()))
heavy = {"torch", "torch_mlir", "llvmlite", "ml_dtypes", "jinja2", "rich"}
print(sorted(heavy & {*sys.modules}))
try:
    patc.compile
except ImportError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the tree, in which building leaves its folders."""
    place = tmp_path_factory.mktemp("tree") / "patc"
    names = shutil.ignore_patterns(
        ".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "build", "dist", "*.egg-info", "shared", "*.patc"
    )
    shutil.copytree(ROOT, place, symlinks=True, ignore=names)
    return place


@pytest.fixture(scope="module")
def archive(tree: Path) -> Path:
    return build(tree, "build_sdist")


@pytest.fixture(scope="module")
def wheel(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel that the source archive makes."""
    with tarfile.open(archive) as file:
        file.extractall(folder := tmp_path_factory.mktemp("unpacked"))
    (top,) = folder.iterdir()
    return build(top, "build_wheel")


def build(tree: Path, what: str) -> Path:
    """Return what setuptools builds of a tree."""
    out = tree / "dist" / what
    out.mkdir(parents=True)
    run([sys.executable, "-c", _BUILD, what, str(out)], cwd=tree)
    (found,) = out.iterdir()
    return found


def run(words: Sequence[str | Path], cwd: Path) -> str:
    """Run a command without this checkout on its path, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run([*map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def make_environment(place: Path, wheel: Path) -> tuple[Path, Path]:
    """Unpack a wheel into a new environment; return its Python and its folder of packages."""
    venv.create(place, symlinks=True)
    python = place / "bin" / "python"
    packages = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], place).strip())
    with zipfile.ZipFile(wheel) as file:
        file.extractall(packages)
    return python, packages


def sources(folder: str) -> set[str]:
    """Return the tracked kinds of files below a folder of the tree."""
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return {
        str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts and ".pyc" not in path.name
    }


def test_the_source_archive_is_the_tree(archive: Path) -> None:
    with tarfile.open(archive) as file:
        found = {member.name.partition("/")[2]: member.linkname for member in file.getmembers()}
    kept = {"README.md", "LICENSE", "MANIFEST.in", "pyproject.toml", "setup.py", ".ci/run"}
    kept |= {f"runtime/{name}" for name in ("LICENSE", "README.md", "pyproject.toml")}
    folders = ("dialects", "docs", "examples", "experiments", "passes", "patc", "test", "tools")
    kept = kept.union(*map(sources, folders))
    assert sorted(name for name in kept - found.keys() if not name.endswith(".patc")) == []
    links = {name: target for name, target in found.items() if target}
    assert links == {
        **{f"patc/{name}": f"../{name}" for name in ("dialects", "passes", "tools")},
        "runtime/patc": "../patc",
    }


def test_the_wheel_holds_all_modules_and_templates(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = {*file.namelist()}
    wanted = {f"patc/{name}" for folder in ("dialects", "passes", "tools") for name in sources(folder)}
    wanted |= {name for name in sources("patc") if name.endswith((".py", "py.typed"))}
    assert sorted(name for name in wanted - names if not name.endswith(".md")) == []


def test_the_wheel_works_outside_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    python, packages = make_environment(tmp_path / "env", wheel)
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    place, version, page = run([python, "-c", _COMPILED], tmp_path).splitlines()
    assert place == f"(1, 4, 6, 6) {packages}/patc/__init__.py"
    assert version.startswith(f"patc {patc.__version__} (") and "</html>" in (tmp_path / page).read_text()
    tool = "import sys; from patc.tools.patc_opt import main; sys.exit(main(['--list-passes']))"
    assert "pattern-raise" in run([python, "-c", tool], tmp_path)


def test_models_run_without_compiler_and_torch(tree: Path, tmp_path: Path) -> None:
    """The small distribution, with numpy alone."""
    wheel = build(tree / "runtime", "build_wheel")
    assert wheel.name == f"patc_runtime-{patc.__version__}-py3-none-any.whl" and wheel.stat().st_size < 1 << 20
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 4, 3)).eval()
    x, paths = torch.ones(1, 4, 12, 12), [tmp_path / "one.patc", tmp_path / "two.patc"]
    for threads, path in enumerate(paths, 1):
        patc.compile(model, (x,), threads=threads).save(path)
    python, packages = make_environment(tmp_path / "env", wheel)
    for found in Path(np.__file__).parent.parent.glob("numpy*"):
        (packages / found.name).symlink_to(found)
    *sums, heavy, error = run([python, "-c", _RUNS, *paths], tmp_path).splitlines()
    with torch.no_grad():
        wanted = float(model.double()(x.double()).abs().sum())
    assert [float(each) for each in sums] == pytest.approx([wanted, wanted], rel=1e-5)
    assert heavy == "[]"
    assert error == "patc.compile needs 'torch_mlir', which patc-runtime goes without: pip install patc in its place"
