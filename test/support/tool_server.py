"""Tools that start at once: a process that has loaded them forks for each call.

    python tool_server.py

makes a folder with a script for each tool and prints its path. A script hands its arguments, environment, folder and
streams over, and ends as the tool does. The process ends with its standard input.

What only a fresh process shows is not seen here: imports that fail at the start, other seeds of hashes, faults when
Python ends. `test_guard.py` and `test_patc_opt.py` start the tools themselves.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import marshal
import os
import pkgutil
import select
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

TOOLS = {"patc": "patc.tools.patc", "patc-opt": "patc.tools.patc_opt", "filecheck": "filecheck.main"}
# All that a tool may load; what is missing here loads with each call.
PACKAGES = ("patc", "patc.backends", "patc.codegen", "patc.frontend", "patc.passes", "patc.runtime", "patc.tools")
_SIZE = 4  # bytes of a length, and of a status

_SCRIPT = "#!/bin/sh\nexec '{python}' -IS '{client}' {name} \"$@\"\n"
# Without site packages and most of the library, which take longer to load than a call takes to begin.
_CLIENT = """\
import marshal, os, signal, socket, sys
call = marshal.dumps((*sys.argv[1:2], sys.argv[2:], os.getcwd(), dict(os.environ)))
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [len(call).to_bytes({size}, "little")], [0, 1, 2])
    server.sendall(call)
    answer = server.recv({size}, socket.MSG_WAITALL)
if len(answer) < {size}:
    os.abort()  # whatever became of the tool, it did not end
status = int.from_bytes(answer, "little", signed=True)
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status & 255)
"""

Tool = Callable[[], int | None]


def serve(tools: Mapping[str, str], packages: Iterable[str] = ()) -> None:
    """Answer calls until standard input ends.

    Args:
        tools: modules with a function `main`, by the names of the tools.
        packages: whose modules are loaded beforehand.
    """
    mains = {name: importlib.import_module(module).main for name, module in tools.items()}
    for module in _modules(packages):
        importlib.import_module(module)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever waits for the tools is interrupted as well
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    with tempfile.TemporaryDirectory() as name, socket.socket(socket.AF_UNIX) as server:
        folder = Path(name)
        server.bind(str(folder / "socket"))
        server.listen()
        _write_scripts(folder, tools)
        print(folder, flush=True)
        gc.freeze()  # a collection in a child would copy every page
        while server in select.select([server, sys.stdin], [], [])[0]:
            call, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _answer(call, mains)
            call.close()


def _modules(packages: Iterable[str]) -> Iterator[str]:
    for package in map(importlib.import_module, packages):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            yield found.name


def _write_scripts(folder: Path, tools: Iterable[str]) -> None:
    client = folder / "client.py"
    client.write_text(_CLIENT.format(address=str(folder / "socket"), size=_SIZE))
    for name in tools:
        script = folder / name
        script.write_text(_SCRIPT.format(python=sys.executable, client=client, name=name))
        script.chmod(0o755)


def _answer(call: socket.socket, mains: Mapping[str, Tool]) -> NoReturn:
    """Run the tool that is called for, say how it ended, and end this process."""
    try:
        # Who reads what a tool prints must not wait for this process, too.
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        ended, wakes = os.pipe()
        os.set_blocking(wakes, False)
        signal.set_wakeup_fd(wakes)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        size, streams, _, _ = socket.recv_fds(call, _SIZE, 3)
        text = call.recv(int.from_bytes(size, "little"), socket.MSG_WAITALL)
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            for number in (call.detach(), ended, wakes, null):
                os.close(number)
            _become(mains, *marshal.loads(text), streams)
        for stream in streams:
            os.close(stream)
        if ended not in select.select([call, ended], [], [])[0]:
            os.kill(child, signal.SIGKILL)  # nobody waits for it any more
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        call.sendall(status.to_bytes(_SIZE, "little", signed=True))
    finally:
        os._exit(1)


def _become(
    mains: Mapping[str, Tool],
    name: str,
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    streams: list[int],
) -> NoReturn:
    """End this process, which nothing but the streams is open in, as the tool."""
    status = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None  # which the environment names
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = [name, *arguments]
        status = _run(mains[name])
        sys.stdout.flush()
        sys.stderr.flush()
        ctypes.CDLL(None).fflush(None)
    finally:
        os._exit(status)


def _run(tool: Tool) -> int:
    """Return the exit status of a tool that runs in this process."""
    try:
        return tool() or 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1


if __name__ == "__main__":
    del sys.path[0]  # what tests share is not there for tools
    serve(TOOLS, PACKAGES)
