"""The environments of `patc bench`'s peers: what is found, made and made again. Nothing is downloaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from patc.bench import environments, runner
from patc.bench.environments import Environment, find_interpreter, find_python, make_interpreter
from patc.bench.peers.base import Peer
from patc.bench.peers.torch_eager import TorchEager
from patc.bench.remote import Worker
from patc.bench.runner import Options
from patc.bench.workload import Workload
from patc.diagnostics import PatcError

STUB = Environment(name="stub-1.0", packages=("stub==1.0",), modules=("stub",))
RUNNING = sys.version_info[:2]
PACKAGES = "lib/python{}.{}/site-packages".format(*RUNNING)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "patc" / "bench"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was run to make environments; nothing is installed, and the interpreters say that all modules are there."""
    done: list[list[str]] = []

    def run(command: Sequence[str], failure: str, on_line: Any) -> None:
        done.append(list(command))
        if "venv" in command:
            write_interpreter(Path(command[-1]))
        on_line("Collecting stub==1.0")
        on_line("  from somewhere")

    monkeypatch.setattr(environments, "_run", run)
    return done


def write_interpreter(folder: Path, script: str = "exit 0") -> None:
    (folder / "bin").mkdir(parents=True)
    (folder / PACKAGES).mkdir(parents=True)
    write_script(folder / "bin" / "python", script)


def write_script(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


# Making them --------------------------------------------------------------------------------------


def test_environment_is_made_once(cache: Path, commands: list[list[str]]) -> None:
    told: list[str] = []
    assert find_interpreter(STUB) is None
    python = make_interpreter(STUB, told.append)
    assert python.parents[2] == cache and python.parents[1].name.startswith("stub-1.0-")
    venv, pip = commands
    assert venv[:3] == [sys.executable, "-m", "venv"]
    assert pip[1:4] == ["-m", "pip", "install"] and pip[-1] == "stub==1.0"
    assert told == ["making an environment for stub-1.0", "stub-1.0: Collecting stub==1.0"]
    assert make_interpreter(STUB) == find_interpreter(STUB) == python
    assert len(commands) == 2
    assert [path.name for path in cache.iterdir()] == [python.parents[1].name]


def test_other_packages_are_another_environment(commands: list[list[str]]) -> None:
    other = Environment(name="stub-1.0", packages=("stub==1.0", "more==2.0"), modules=("stub",))
    assert make_interpreter(STUB) != make_interpreter(other)


def test_broken_environment_is_made_again(cache: Path, commands: list[list[str]]) -> None:
    python = make_interpreter(STUB)
    write_script(python, "exit 1")
    (python.parents[1] / "leftover").touch()
    assert find_interpreter(STUB) is None
    assert make_interpreter(STUB) == python
    assert len(commands) == 4 and not (python.parents[1] / "leftover").exists()
    assert len(list(cache.iterdir())) == 1


def test_second_of_two_makers_takes_what_the_first_made(
    cache: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = environments._build

    def build_after_another(*arguments: Any) -> None:
        monkeypatch.setattr(environments, "_build", build)
        (make_interpreter(STUB).parents[1] / "first").touch()
        build(*arguments)

    monkeypatch.setattr(environments, "_build", build_after_another)
    assert (make_interpreter(STUB).parents[1] / "first").exists()
    assert len(list(cache.iterdir())) == 1


def test_failed_installation_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: Sequence[str], failure: str, on_line: Any) -> None:
        if "pip" in command:
            raise PatcError(failure)
        write_interpreter(Path(command[-1]))

    monkeypatch.setattr(environments, "_run", run)
    with pytest.raises(PatcError, match=r"cannot install stub==1\.0"):
        make_interpreter(STUB)
    assert list(cache.iterdir()) == []


def test_packages_have_to_bring_the_modules(
    cache: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "_has_modules", lambda *_: False)
    with pytest.raises(PatcError, match=r"expected stub==1\.0 to bring stub"):
        make_interpreter(STUB)
    assert list(cache.iterdir()) == []


def test_cache_folder_that_cannot_be_written_is_told(cache: Path) -> None:
    cache.parent.parent.write_text("a file")
    with pytest.raises(PatcError, match="cannot make its environment: Not a directory"):
        make_interpreter(STUB)


def test_torch_is_shared_with_an_environment_that_wants_it(commands: list[list[str]]) -> None:
    sharing = Environment(name="stub-1.0", packages=("stub==1.0",), modules=("stub",), has_torch=True)
    line = (make_interpreter(sharing).parents[1] / PACKAGES / "torch_of_patc.pth").read_text()
    assert (Path(line.strip()) / "torch" / "__init__.py").exists()


def test_failing_command_tells_its_last_error() -> None:
    script = "print('Collecting x'); print('ERROR: no x\\nERROR: no matching x\\nhint'); raise SystemExit(1)"
    told: list[str] = []
    with pytest.raises(PatcError, match=r"^cannot install x: no matching x$"):
        environments._run([sys.executable, "-c", script], "cannot install x", told.append)
    assert told[0] == "Collecting x"
    with pytest.raises(PatcError, match=r"^no environment: only this$"):
        environments._run([sys.executable, "-c", "print('only this'); exit(1)"], "no environment", told.append)


# Finding Pythons ----------------------------------------------------------------------------------


@pytest.fixture
def no_pythons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a PATH without any Python."""
    for name in ("PYENV_ROOT", "XDG_DATA_HOME", "UV_PYTHON_INSTALL_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    (tmp_path / "path").mkdir()
    return tmp_path


def test_running_python_is_taken_where_it_fits() -> None:
    assert find_python(()) == sys.executable
    assert find_python(((2, 7), RUNNING)) == sys.executable


@pytest.mark.parametrize(
    "where",
    [
        "path/python3.7",
        ".pyenv/versions/3.7.16/bin/python3.7",
        ".local/share/uv/python/cpython-3.7.9-linux-x86_64-gnu/bin/python3.7",
    ],
)
def test_other_python_is_found(where: str, no_pythons: Path) -> None:
    path = no_pythons / where
    path.parent.mkdir(parents=True, exist_ok=True)
    write_script(path, "echo 3 7")
    assert find_python(((3, 6), (3, 7))) == str(path)


def test_python_that_does_not_run_is_passed_over(no_pythons: Path) -> None:
    write_script(no_pythons / "path" / "python3.7", "exit 127")
    with pytest.raises(PatcError, match=r"expected Python 3.7 or 3.6 on PATH or installed by pyenv or uv, found none"):
        find_python(((3, 7), (3, 6)))


# Using them ---------------------------------------------------------------------------------------


def test_worker_needs_numpy_alone() -> None:
    script = (
        "import sys; before = set(sys.modules); import patc.bench.worker; from patc.bench import peers; "
        "[peers.find_peer(name) for name in peers.PEERS]; print(*set(sys.modules) - before)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert loaded - set(sys.stdlib_module_names) - {"__mp_main__"} == {"numpy", "patc"}


def test_worker_answers_with_another_interpreter(tmp_path: Path) -> None:
    (tmp_path / "patc").symlink_to(tmp_path / "removed")  # of a patc that was there once
    failure = pytest.raises(PatcError, match="rival: RuntimeError: expected a request to load")
    with Worker("rival", tmp_path, python=Path(sys.executable)) as worker, failure:
        worker.request(do="run", calls=1)
    assert (tmp_path / "patc" / "__init__.py").exists()


class Apart(TorchEager):
    """PyTorch, as if it needed an environment of its own."""

    name = "Apart"
    own = STUB


def run_apart(monkeypatch: pytest.MonkeyPatch, make: Any) -> Any:
    def find(name: str) -> type[Peer]:
        return Apart if name == "apart" else TorchEager

    monkeypatch.setattr(runner, "find_peer", find)
    monkeypatch.setattr(runner, "make_interpreter", make)
    bench = runner._Bench(Options(Workload("resnet18_cifar"), peers=("apart",)), Path("/nowhere"), lambda _: None)
    return bench, bench._refusal("apart")


def test_environment_is_made_before_its_peer_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, reason = run_apart(monkeypatch, lambda environment, notify: Path("/stub/python"))
    assert reason is None and bench._pythons == {"apart": Path("/stub/python")}


def test_environment_that_cannot_be_made_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(environment: Environment, notify: Any) -> Path:
        raise PatcError("cannot install stub==1.0: no such package")

    bench, reason = run_apart(monkeypatch, make)
    assert reason == "cannot install stub==1.0: no such package" and bench._pythons == {}
