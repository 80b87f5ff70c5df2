"""What stands around `patc` and `patc-opt`: whatever happens ends in one line or silence, and nothing is left behind.

A command runs in a child process that is forked before anything heavy is loaded. The parent waits for it: it answers
Ctrl-C at once even where native code does not, says in one line what crashed, and removes the temporary files. Called
with arguments, as from tests and notebooks, a command runs in the process that calls it. So it does with
PATC_TRACEBACK=1 in the environment, and unexpected errors show where they come from.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # as typing's, which takes longer to load than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from mmap import mmap
    from pathlib import Path

    Work = Callable[[Sequence[str]], int]

REACTION_SECONDS = 0.5  # native code hears no signal: what has not reacted by then is killed
CLEANUP_SECONDS = 1.0  # for what has
_AGAIN_SECONDS = 120  # for a command that crashed, once more

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name))
_BOARD_BYTES = 4096
_RESERVE_BYTES = 1 << 20  # for the words that say that memory ran out
_ABORTED = 127  # the status that libc ends a process with where it cannot go on
_INTERRUPTED = 0  # where the board has the number of the signal that the child reacts to; what it does follows

_LONG = ("accuracy", "bench", "debug", "prune", "search")  # commands that are not run again

_board: mmap | None = None
_noise: int | None = None


def main(prog: str, work: Work, argv: Sequence[str] | None) -> int:
    """Run a command and return its exit status.

    Args:
        prog: the name that its errors begin with.
        work: the command; it gets the arguments, and raises `PatcError` for what users can cause.
        argv: the arguments; None for those of the process.
    """
    if argv is not None:
        return _guarded(prog, work, argv)
    _open_streams()
    _silence_warnings()
    if _shows_tracebacks() or not hasattr(os, "waitid"):  # as on macOS before Python 3.13
        return _guarded(prog, work, sys.argv[1:])
    return _supervise(prog, work)


def _silence_warnings() -> None:
    """Keep what libraries tell developers off the screen, unless Python is asked to show it."""
    if not sys.warnoptions:
        import warnings

        warnings.simplefilter("ignore")


def note(step: str) -> None:
    """Remember what is done from now on, for the line that says what crashed or ran out of memory."""
    if _board is not None:
        text = step.encode(errors="replace")[: _BOARD_BYTES - 2]
        _board[_INTERRUPTED + 1 :] = text.ljust(_BOARD_BYTES - 1, b"\0")


def relay_noise() -> None:
    """Print what native code printed to standard error since the last call.

    It is kept back at first, so that nothing but one line is seen of what it prints when it ends the process.
    """
    if _noise is not None:
        _copy_noise(_noise)


# -- Inside one process --------------------------------------------------------------------------------


def _guarded(prog: str, work: Work, argv: Sequence[str]) -> int:
    reserve = bytearray(_RESERVE_BYTES)
    try:
        from patc import failures, shortages  # noqa: F401 (nothing can be loaded once memory has run out)

        try:
            status = work(argv)
        except SystemExit as error:  # of argparse, after --help
            foreign = _blamed(error)
            if foreign is not None:
                return _fail(prog, foreign)
            sys.stdout.flush()
            raise
        if status:
            _discard_output()  # what is wrong was said
        else:
            sys.stdout.flush()
        return _interruption() or status
    except KeyboardInterrupt:
        return _interruption() or 128 + signal.SIGINT  # as shells have it
    except BrokenPipeError:
        # Whoever reads the output has seen enough.
        _discard_output()
        return 1
    except Exception as error:
        if _interruption():
            return _interruption()
        reserve.clear()
        return _fail(prog, _explain(prog, work, argv, error))


def _explain(prog: str, work: Work, argv: Sequence[str], error: Exception) -> Exception:
    """Return an error, or for a fault of patc one that knows the folder to report it with."""
    from patc.failures import InternalError, describe_fault, is_fault, make_folder, write_report

    if _shows_tracebacks() or not is_fault(error):
        return error
    foreign = _blamed(error)
    if foreign is not None:
        return foreign
    found = error.folder if isinstance(error, InternalError) else make_folder()
    if found is not None:
        write_report(found, {"what": describe_fault(error), "command": [prog, *argv]}, argv, error)
        if not isinstance(error, InternalError):
            _work_again(work, argv, found)
    return error if isinstance(error, InternalError) else InternalError(describe_fault(error), found)


def _blamed(error: BaseException) -> Exception | None:
    """Return the line about an error of a plugin; None for one of patc."""
    if "patc.plugins" not in sys.modules or _shows_tracebacks():
        return None
    from patc.plugins import blamed

    return blamed(error)


def _work_again(work: Work, argv: Sequence[str], folder: Path) -> None:
    """Run a command that failed once more for the IR after each pass, unseen; not one of those that may take hours."""
    import contextlib

    if argv[:1] and argv[0] in _LONG:
        return
    same = contextlib.suppress(BaseException)  # of which all is said
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null), same:
        work([*argv, "--save-ir", str(folder / "ir")])


def _fail(prog: str, error: Exception) -> int:
    """Print the one line of an error and return the exit status."""
    from patc.diagnostics import PatcError

    if _shows_tracebacks() and not isinstance(error, PatcError):
        raise error
    try:
        print(f"{prog}: {' '.join(_describe(error).split())}", file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody can be told
    except MemoryError:
        os.write(2, f"{prog}: error: out of memory\n".encode())
    _discard_output()
    return 1


def _describe(error: Exception) -> str:
    from patc.diagnostics import PatcError
    from patc.shortages import describe_shortage

    shortage = describe_shortage(error)
    if shortage is not None:
        step = _step()
        return f"error: out of memory{f' in {step}' if step else ''}: {shortage}"
    if isinstance(error, PatcError):
        return f"error: {error}"
    if isinstance(error, RecursionError):
        return "error: expected input that nests less deeply"
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename is not None else _unwritable_stream()
        return f"error: {place}{error.strerror or error}"
    return str(error)  # of a fault, which says how to report it


def _unwritable_stream() -> str:
    try:
        sys.stdout.flush()
    except OSError:
        return "cannot write to standard output: "
    return ""


def _discard_output() -> None:
    """Drop what the standard streams do not take, of which Python would complain once more at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def _open_streams() -> None:
    """Give closed standard streams a file that refuses all, so that no other file gets their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDONLY if number else os.O_WRONLY)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 (stays open)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # names may hold any bytes


def _shows_tracebacks() -> bool:
    return os.environ.get("PATC_TRACEBACK", "") not in ("", "0")  # as failures has it, which takes longer to load


def _step() -> str:
    return "" if _board is None else _board[_INTERRUPTED + 1 :].rstrip(b"\0").decode(errors="replace")


def _interruption() -> int:
    """Return the exit status of a child that was asked to end, even if something swallowed the exception; else 0."""
    number = 0 if _board is None else _board[_INTERRUPTED]
    return 128 + number if number else 0


# -- In two processes ----------------------------------------------------------------------------------


def _supervise(prog: str, work: Work) -> int:
    global _board, _noise
    import gc
    import mmap

    _board, _noise = mmap.mmap(-1, _BOARD_BYTES), _open_noise()
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    parent, leash = os.getpid(), os.pipe()
    # Signals wait until both processes know what to do about them.
    signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    folder = _make_scratch()
    gc.freeze()  # a collection in the child would copy every page
    child = os.fork()
    if child == 0:
        _end_with(parent, leash)
        _become_child(folder)
        return _guarded(prog, _interruptible(work, heard), sys.argv[1:])
    code, received = _wait(child, heard)
    _remove_scratch(folder)
    if (code >= 0 and code != _ABORTED) or received or -code in _SIGNALS:
        relay_noise()
        return code if code >= 0 else 128 + (received or -code)
    crash, is_fault = _describe_crash(code)
    report = _report_crash(prog, work, crash) if is_fault else ""
    print(f"{prog}: error: {crash}{report}", file=sys.stderr)
    return 1


def _report_crash(prog: str, work: Work, crash: str) -> str:
    """Keep what it takes to see a crash again; return how to report it."""
    from patc.failures import how_to_report, make_folder, write_report

    found, argv = make_folder(), sys.argv[1:]
    if found is not None:
        write_report(found, {"what": crash, "command": [prog, *argv]}, argv)
        scratch = _make_scratch()
        child = os.fork()
        if child == 0:
            _become_child(scratch)
            null = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(null, stream)
            signal.alarm(_AGAIN_SECONDS)
            _work_again(work, argv, found)
            os._exit(0)
        os.waitpid(child, 0)
        _remove_scratch(scratch)
    return how_to_report(found)


def _wait(child: int, heard: Sequence[int]) -> tuple[int, int]:
    """Wait for the child, hand signals on, and kill it where it does not react; return its status and the signal."""
    received = 0
    patience = CLEANUP_SECONDS

    def hand_on(number: int, _: object) -> None:
        nonlocal received
        if not received:
            received = number
            signal.setitimer(signal.ITIMER_REAL, REACTION_SECONDS)
        os.kill(child, number)

    def lose_patience(*_: object) -> None:
        nonlocal patience
        if _interruption() and patience:
            signal.setitimer(signal.ITIMER_REAL, patience)
            patience = 0.0
        else:
            os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, lose_patience)
    for number in heard:
        signal.signal(number, hand_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)
    # The process stays, as a zombie, until nothing can signal it any more: another may get its number then.
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    for number in (signal.SIGALRM, *heard):
        signal.signal(number, signal.SIG_IGN)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), received


def _become_child(folder: str | None) -> None:
    if folder is not None:
        os.environ["TMPDIR"] = folder
    if _noise is not None:
        sys.stderr.flush()
        sys.stderr = open(os.dup(2), "w", buffering=1, errors="backslashreplace")  # noqa: SIM115 (stays open)
        os.dup2(_noise, 2)


def _end_with(parent: int, leash: tuple[int, int]) -> None:
    """Let the system kill this process when its parent ends, however: then nobody holds the writing end of a pipe."""
    import fcntl

    reading, writing = leash
    os.close(writing)
    if hasattr(fcntl, "F_SETSIG"):  # Linux
        fcntl.fcntl(reading, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(reading, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC)
    if os.getppid() != parent:
        os._exit(1)


def _interruptible(work: Work, heard: Sequence[int]) -> Work:
    """Return a command that signals end with an exception while it works, and at once before and after."""

    def run(argv: Sequence[str]) -> int:
        try:
            for number in heard:
                signal.signal(number, _interrupt)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)
            return work(argv)
        finally:
            for number in heard:
                signal.signal(number, signal.SIG_DFL)

    return run


def _interrupt(number: int, _: object) -> None:
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    if _board is not None:
        _board[_INTERRUPTED] = number
    # Nobody wants to read now what finalizers and native code cannot raise.
    sys.unraisablehook = lambda _: None
    sys.excepthook = lambda *_: None
    raise KeyboardInterrupt


def _describe_crash(code: int) -> tuple[str, bool]:
    """Return why the child ended, which a signal or libc did, and whether that is a fault of patc."""
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"exit status {code}" if code > 0 else f"signal {-code}"
    from patc.shortages import memory_limit

    step, said = _step() or "the command", _last_words()
    if any(words in said.lower() for words in ("bad_alloc", "out of memory", "allocate memory")):
        return f"out of memory in {step} ({name}: {said})", False
    if name == "SIGKILL":
        return f"{step} was killed (SIGKILL), as is done where memory runs out", False
    if name == "SIGXCPU":
        return f"{step} ran out of CPU time (SIGXCPU)", False
    crash = f"{step} crashed ({name}{f': {said}' if said else ''})"
    if limit := memory_limit():
        return f"{crash}; {limit / 1e9:.2f} GB of memory are allowed (ulimit -v), which may be why", False
    return f"{crash}; this is a fault of patc or of a library it uses", True


def _last_words() -> str:
    """Return what native code printed last, on one line, without the advice that LLVM adds."""
    if _noise is None:
        return ""
    os.lseek(_noise, 0, os.SEEK_SET)
    lines = os.read(_noise, 1 << 16).decode(errors="replace").splitlines()
    ends = [place for place, line in enumerate(lines) if line.startswith(("PLEASE submit", "Stack dump"))]
    return " ".join(" ".join(lines[: ends[0] if ends else len(lines)][-3:]).split())


def _open_noise() -> int | None:
    return os.memfd_create("patc-noise") if hasattr(os, "memfd_create") else None


def _copy_noise(noise: int) -> None:
    size = os.fstat(noise).st_size
    if not size:
        return
    text = os.pread(noise, size, 0)
    os.ftruncate(noise, 0)
    os.lseek(noise, 0, os.SEEK_SET)
    try:
        sys.stderr.write(text.decode(errors="replace"))
        sys.stderr.flush()
    except OSError:
        pass


def _make_scratch() -> str | None:
    """Make the folder of all temporary files; None where that is not possible."""
    path = os.path.join(os.environ.get("TMPDIR") or "/tmp", f"patc-{os.urandom(8).hex()}")
    try:
        os.mkdir(path, 0o700)
    except OSError:
        return None
    return path


def _remove_scratch(path: str | None) -> None:
    if path is None:
        return
    try:
        os.rmdir(path)
    except OSError:
        import shutil

        shutil.rmtree(path, ignore_errors=True)
