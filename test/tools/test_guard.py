"""What stands around the commands: one line or silence for whatever goes wrong, and nothing left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from repository import ROOT

from patc.diagnostics import PatcError
from patc.tools import guard

LIBC = "import ctypes; libc = ctypes.PyDLL(None)"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of faults go somewhere else than to the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def outcome(capsys: pytest.CaptureFixture[str], error: BaseException) -> tuple[int, str]:
    """Return exit status and standard error of a command that raises `error` in the process of the test."""

    def work(argv: Sequence[str]) -> int:
        raise error

    status = guard.main("tool", work, [])
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PatcError("expected two\nlines", "x.mlir"), "error: x.mlir: expected two lines"),
        (PatcError("expected two, found \x1b[31m\0", "x.mlir"), "error: x.mlir: expected two, found ?[31m?"),
        (MemoryError("Unable to allocate 9. GiB for an array"), "error: out of memory: Unable to allocate 9. GiB for an array; "),
        (MemoryError(), "error: out of memory: an allocation failed; "),
        (
            RuntimeError("[enforce fail at alloc.cpp]\nyou tried to allocate 411041792 bytes. Error code 12"),
            "error: out of memory: unable to allocate 411.0 MB; ",
        ),
        (ImportError("libx.so: failed to map segment from shared object"), "error: out of memory: libx.so: failed to map"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "error: out of memory: Cannot allocate memory; "),
        (RecursionError("maximum recursion depth"), "error: expected input that nests less deeply"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device"),
        (OSError(errno.EIO, "I/O error", "x.patc"), "error: x.patc: I/O error"),
        (UnicodeEncodeError("ascii", "\udcff", 0, 1, "no"), "internal error: UnicodeEncodeError: "),
        (KeyError("x"), "internal error: KeyError: 'x' (test_guard.py:"),
    ],
)  # fmt: skip
def test_every_error_is_one_line(capsys: pytest.CaptureFixture[str], error: Exception, line: str) -> None:
    status, found = outcome(capsys, error)
    assert status == 1 and found.startswith(f"tool: {line}") and found.count("\n") == 1


def test_memory_that_ran_out_inside_a_library_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def work(argv: Sequence[str]) -> int:
        try:
            try:
                raise MemoryError("std::bad_alloc")
            except MemoryError as error:
                raise ValueError("a library") from error
        except ValueError:
            raise PatcError("cannot export the model") from None

    assert guard.main("tool", work, []) == 1
    assert capsys.readouterr().err.startswith("tool: error: out of memory: std::bad_alloc; ")


def test_interrupts_and_closed_pipes_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(capsys, KeyboardInterrupt()) == (130, "")
    assert outcome(capsys, BrokenPipeError()) == (1, "")


def test_a_system_without_waitid_runs_commands_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "waitid")
    monkeypatch.setattr(sys, "argv", ["tool", "word"])
    process = os.getpid()
    assert guard.main("tool", lambda argv: 7 if (list(argv), os.getpid()) == (["word"], process) else 1, None) == 7


def test_tracebacks_are_for_those_who_ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATC_TRACEBACK", "1")
    with pytest.raises(KeyError):
        outcome(capsys, KeyError("x"))
    assert outcome(capsys, PatcError("expected"))[0] == 1


# -- A command in a process of its own -----------------------------------------------------------------


def program(body: str) -> list[str]:
    """Return the command line of a tool whose work is `body`."""
    lines = (
        "import os, signal, sys, tempfile, time",
        "def work(argv):",
        textwrap.indent(textwrap.dedent(body), "    "),
        "    return 0",
        "from patc.tools import guard",
        "sys.exit(guard.main('tool', work, None))",
    )
    return [sys.executable, "-c", "\n".join(lines)]


def run(body: str, temporary: Path) -> tuple[int, str, str]:
    """Run a tool to its end; nothing may be left in `temporary`."""
    environment = os.environ | {"TMPDIR": str(temporary)}
    result = subprocess.run(program(body), capture_output=True, text=True, env=environment, timeout=100)
    assert os.listdir(temporary) == []
    return result.returncode, result.stdout, result.stderr


@contextlib.contextmanager
def started(body: str, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a tool and wait until it has printed a line."""
    environment = os.environ | {"TMPDIR": str(temporary)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(program(body), text=True, env=environment, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def test_a_command_ends_with_its_own_status(tmp_path: Path) -> None:
    assert run("print('done'); tempfile.mkdtemp(); return 3", tmp_path) == (3, "done\n", "")


def test_warnings_of_libraries_are_silent(tmp_path: Path) -> None:
    assert run("import warnings; warnings.warn('old')", tmp_path) == (0, "", "")


def test_native_messages_come_in_their_place(tmp_path: Path) -> None:
    body = """
        os.write(2, b"native\\n")
        guard.relay_noise()
        print("own", file=sys.stderr)
        os.write(2, b"native, too\\n")
    """
    assert run(body, tmp_path) == (0, "", "native\nown\nnative, too\n")


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the second step crashed (SIGSEGV); this is a fault of patc or"),
        ("os.write(2, b'LLVM ERROR: no\\nPLEASE submit a bug\\nStack dump:\\n'); os.abort()", "the second step crashed (SIGABRT: LLVM ERROR: no); "),
        ("os.write(2, b'terminate called\\n  what():  std::bad_alloc\\n'); os.abort()", "out of memory in the second step (SIGABRT: terminate called what(): std::bad_alloc)"),
        ("os.write(2, b'cannot allocate memory for thread-local data: ABORT\\n'); os._exit(127)", "out of memory in the second step (exit status 127: cannot allocate memory for"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "the second step was killed (SIGKILL), as is done where memory runs out"),
    ],
)  # fmt: skip
def test_a_crash_is_one_line_and_leaves_nothing(tmp_path: Path, body: str, line: str) -> None:
    status, _, found = run(
        f"guard.note('the first step'); guard.note('the second step'); tempfile.mkdtemp(); {body}", tmp_path
    )
    assert status == 1 and found.startswith(f"tool: error: {line}") and found.count("\n") == 1


LISTENING = "time.sleep(100)"
DEAF = "sum(range(10**15))"  # as native code is
CONFUSED = "try:\n    time.sleep(100)\nexcept BaseException:\n    raise ValueError"
DONE = "try:\n    time.sleep(100)\nexcept BaseException:\n    pass"


@pytest.fixture
def heard(number: signal.Signals) -> Iterator[None]:
    """Programs that are started hear a signal, even where this one ignores it, as what runs in the background does."""
    before = signal.signal(number, lambda *_: None)
    yield
    signal.signal(number, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(
    ("number", "busy"),
    [
        *((number, LISTENING) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)),
        *((signal.SIGINT, busy) for busy in (DEAF, CONFUSED, DONE)),
    ],
)
def test_a_signal_ends_a_command_in_silence(tmp_path: Path, number: signal.Signals, busy: str) -> None:
    with started(f"tempfile.mkdtemp(); print('ready', flush=True)\n{busy}", tmp_path) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, found = process.communicate(timeout=60)
    assert (process.returncode, found) == (128 + number, "")
    assert os.listdir(tmp_path) == []


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    command = program("print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)")
    result = subprocess.run(["nohup", *command], capture_output=True, text=True)
    assert result.stdout == "True\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs the signal that Linux sends to children")
def test_a_command_does_not_outlive_its_parent(tmp_path: Path) -> None:
    with started("print(os.getpid(), flush=True); time.sleep(100)", tmp_path) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert child != process.pid
        process.kill()
        process.communicate()  # returns once the child has closed its output, too
    while os.path.exists(f"/proc/{child}/stat") and " Z " not in Path(f"/proc/{child}/stat").read_text():
        time.sleep(0.01)


def test_closed_streams_are_errors_and_no_other_file_gets_their_numbers(tmp_path: Path) -> None:
    def shell(words: str, redirection: str) -> tuple[int, str]:
        line = f"'{sys.executable}' -m patc.tools.patc_opt {words} {redirection}"
        result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path)
        return result.returncode, result.stderr

    (tmp_path / "x.mlir").write_text("module {}")
    closed = "patc-opt: error: cannot {} standard {}: Bad file descriptor\n"
    assert shell("x.mlir", ">&-") == (1, closed.format("write to", "output"))
    assert shell("-", "<&-") == (1, closed.format("read", "input"))
    assert shell("none.mlir", "2>&-") == (1, "")
    assert shell("x.mlir -o y.mlir", "<&- >&- 2>&-") == (0, "")
    assert (tmp_path / "y.mlir").read_text() == "module {\n}\n"
    assert shell("x.mlir", ">/dev/full")[0] == 1


@pytest.mark.parametrize("module", ["patc", "patc_opt"])
def test_an_interrupt_while_the_guard_is_loaded_is_silent(module: str) -> None:
    code = f"""
import sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == "patc.tools.guard":
            raise KeyboardInterrupt
from patc.tools.{module} import main
heavy = {{"argparse", "dataclasses", "typing", "tempfile", "difflib"}} & set(sys.modules)
sys.meta_path.insert(0, Interrupt())
status = main()
sys.exit(f"loaded before the guard: {{heavy}}" if heavy else status)
"""
    result = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, env=_with_packages())
    assert (result.returncode, result.stderr) == (130, "")


def _with_packages() -> dict[str, str]:
    """Return an environment for a Python that looks for packages where this one does, without loading `site`."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path]))}
