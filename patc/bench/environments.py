"""Python environments of peers whose packages cannot live beside patc's.

Such a peer names an `Environment`, which is made when it is first asked for: a virtual environment in the user's
cache folder, that serves every later run.

    ~/.cache/patc/bench/deepsparse-1.8.0-0c9d2f41

The last part of the name stands for what the environment is made of, so that other packages make another one. A
folder has that name only once everything in it is installed: what was interrupted is never found, and of two
processes that make the same environment the second one takes what the first one made.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patc.diagnostics import PatcError
from patc.files import cache_folder

Notify = Callable[[str], None]
Version = tuple[int, int]

_CHECK_PYTHON = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
_CHECK_MODULES = "import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, sys.argv[1:])))"
_PIP = ("-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off")
_PROGRESS = ("Collecting", "Downloading", "Installing")  # words that pip's more interesting lines start with


@dataclass(frozen=True)
class Environment:
    """What a peer's environment is made of.

    Attributes:
        name: of its folder: the peer and its version.
        packages: what pip installs.
        modules: what can be imported in an environment that is whole.
        pythons: versions of Python that the packages exist for, the best first; empty for the one that runs patc.
        has_torch: patc's torch is there too, which spares a second one. Needs the Python that runs patc.
    """

    name: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    pythons: tuple[Version, ...] = ()
    has_torch: bool = False


def find_interpreter(environment: Environment) -> Path | None:
    """Return the interpreter of an environment that was made before and is whole; None without one."""
    python = _interpreter(_place(environment))
    return python if _has_modules(python, environment.modules) else None


def make_interpreter(environment: Environment, notify: Notify = lambda _: None) -> Path:
    """Return the interpreter of an environment, which is made unless it is there.

    Args:
        notify: told in a few words what is going on; downloads can take minutes.

    Raises:
        PatcError: there is no Python for it, a package cannot be installed, or the cache folder cannot be written.
    """
    found = find_interpreter(environment)
    if found is not None:
        return found
    place = _place(environment)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{environment.name}-", dir=place.parent) as scratch:
            folder = Path(scratch) / "new"
            _build(environment, folder, notify)
            _put(folder, place, environment)
    except OSError as error:
        raise PatcError(f"cannot make its environment: {error.strerror or error}", str(place)) from None
    return _interpreter(place)


def find_python(versions: Sequence[Version]) -> str:
    """Return a Python of one of `versions` that can make environments; the running one where there are none given.

    Raises:
        PatcError: there is none on PATH, nor among those that pyenv and uv installed.
    """
    if not versions or sys.version_info[:2] in versions:
        return sys.executable
    for version in versions:
        for candidate in _candidates(version):
            if _output([candidate, "-I", "-c", _CHECK_PYTHON]) == f"{version[0]} {version[1]}":
                return candidate
    names = " or ".join(f"{major}.{minor}" for major, minor in versions)
    raise PatcError(f"expected Python {names} on PATH or installed by pyenv or uv, found none")


def _build(environment: Environment, folder: Path, notify: Notify) -> None:
    """Make a virtual environment with all packages."""
    notify(f"making an environment for {environment.name}")
    python = find_python(environment.pythons)
    _run([python, "-m", "venv", os.fspath(folder)], f"no environment for {environment.name}", lambda _: None)
    if environment.has_torch:
        packages = sysconfig.get_path("purelib", "posix_prefix", {"base": os.fspath(folder)})
        (Path(packages) / "torch_of_patc.pth").write_text(f"{_torch_folder()}\n")
    _run(
        [os.fspath(_interpreter(folder)), *_PIP, *environment.packages],
        f"cannot install {environment.packages[0]}",
        lambda line: notify(f"{environment.name}: {line}") if line.startswith(_PROGRESS) else None,
    )
    if not _has_modules(_interpreter(folder), environment.modules):
        raise PatcError(f"expected {', '.join(environment.packages)} to bring {', '.join(environment.modules)}")


def _put(folder: Path, place: Path, environment: Environment) -> None:
    """Give a complete environment its name, unless another process did so meanwhile."""
    if find_interpreter(environment) is None:
        with contextlib.suppress(FileNotFoundError):  # what is there is broken
            place.rename(folder.with_name("old"))
    try:
        folder.rename(place)
    except OSError:
        if find_interpreter(environment) is None:
            raise


def _place(environment: Environment) -> Path:
    """Return where an environment is or will be."""
    made_of = [*environment.packages, *environment.modules, str(environment.pythons or sys.version_info[:2])]
    if environment.has_torch:
        made_of += [str(_torch_folder()), importlib.metadata.version("torch")]
    digest = hashlib.sha256("\n".join(made_of).encode()).hexdigest()
    return cache_folder("bench") / f"{environment.name}-{digest[:8]}"


def _torch_folder() -> Path:
    """Return the folder that packages such as this process's torch are installed in."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None, "patc depends on torch"
    return Path(spec.origin).parents[1]


def _interpreter(folder: Path) -> Path:
    return folder / "bin" / "python"


def _has_modules(python: Path, modules: Sequence[str]) -> bool:
    return _output([os.fspath(python), "-I", "-c", _CHECK_MODULES, *modules]) is not None


def _candidates(version: Version) -> Iterator[str]:
    """Yield what may be interpreters of one version."""
    major, minor = version
    name = f"python{major}.{minor}"
    on_path = shutil.which(name)
    if on_path is not None:
        yield on_path
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv") / "versions"
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    for folder, pattern in ((pyenv, f"{major}.{minor}.*"), (uv, f"cpython-{major}.{minor}.*")):
        for found in sorted(folder.glob(f"{pattern}/bin/{name}"), reverse=True):
            yield os.fspath(found)


def _output(command: Sequence[str]) -> str | None:
    """Return what a command prints; None if it fails or there is no such command."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _run(command: Sequence[str], failure: str, on_line: Callable[[str], None]) -> None:
    """Run a command whose lines are told to `on_line`.

    Raises:
        PatcError: it failed; `failure`, and its last line that tells an error.
    """
    lines = [""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in map(str.strip, process.stdout):
            if line:
                on_line(line)
                lines.append(line)
    if process.returncode != 0:
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        raise PatcError(f"{failure}: {(errors or lines)[-1]}")
