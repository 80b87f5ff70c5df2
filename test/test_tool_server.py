"""`support/tool_server.py`: scripts end as tools do, whatever becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import SUPPORT

# What its arguments say: a tool that prints, fails, sleeps or dies.
_TOOL = """\
import ctypes, os, pathlib, sys, tempfile, time

def main():
    what, *rest = sys.argv[1:]
    if what == "print":
        print(sys.argv[0], *rest, os.getcwd(), os.environ["SAID"], tempfile.gettempdir(), sys.stdin.read())
        print("wrong", file=sys.stderr)
        ctypes.CDLL(None).printf(b"of C\\n")
    if what == "exit":
        sys.exit(rest[0] if rest[0] == "words" else int(rest[0]))
    if what == "raise":
        raise ValueError("odd")
    if what == "sleep":
        pathlib.Path(rest[0]).write_text(str(os.getpid()))
        time.sleep(600)
    if what == "die":
        os.kill(os.getpid(), int(rest[0]))
    if what == "alone":
        os.kill(os.getppid(), 9)
        time.sleep(1)
    return int(rest[0]) if what == "return" else None
"""


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("tools")
    (folder / "any_tool.py").write_text(_TOOL)
    code = f"import sys; sys.path[:0] = {[str(SUPPORT), str(folder)]}\n"
    code += "from tool_server import serve; serve({'any': 'any_tool'})"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        scripts = server.stdout.readline().strip()
        yield f"{scripts}/any"
        server.stdin.close()
        assert server.wait(10) == 0
    assert not Path(scripts).exists()


def test_calls_have_their_own_arguments_environment_folder_and_streams(tool: str, tmp_path: Path) -> None:
    environment = os.environ | {"SAID": "so", "TMPDIR": str(tmp_path)}
    environment.pop("PYTHONUNBUFFERED", None)
    words = [tool, "print", "a b"]
    done = subprocess.run(words, input="given", capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0 and done.stderr == "wrong\n"
    assert sorted(done.stdout.splitlines()) == [f"any a b {tmp_path} so {tmp_path} given", "of C"]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("return", "0"), 0), (("return", "3"), 3), (("exit", "4"), 4), (("exit", "words"), 1), (("raise",), 1),
        (("exit", "256"), 0), (("exit", "-1"), 255), (("die", "6"), -6), (("die", "9"), -9), (("die", "11"), -11),
        (("alone",), -6),
    ],
)  # fmt: skip
def test_scripts_end_as_tools_do(tool: str, words: tuple[str, ...], status: int) -> None:
    assert subprocess.run([tool, *words], capture_output=True).returncode == status


def test_a_tool_that_nobody_waits_for_is_ended(tool: str, tmp_path: Path) -> None:
    with subprocess.Popen([tool, "sleep", str(tmp_path / "number")]) as call:
        number = _read_number(tmp_path / "number")
        call.send_signal(signal.SIGKILL)
    for _ in range(100):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the tool goes on")


def _read_number(path: Path) -> int:
    for _ in range(100):
        if path.exists() and path.read_text():
            return int(path.read_text())
        time.sleep(0.1)
    raise AssertionError("the tool did not begin")
