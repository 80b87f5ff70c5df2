"""Tools that start at once: a process that has loaded them forks for each call.

    python tool_server.py FOLDER

makes scripts in a folder, one for each tool, which hand their arguments, environment and streams over and end with
the status of the tool. It ends with its standard input.
"""

from __future__ import annotations

import gc
import importlib
import marshal
import os
import pkgutil
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

TOOLS = {"patc": "patc.tools.patc", "patc-opt": "patc.tools.patc_opt", "filecheck": "filecheck.main"}
_PACKAGES = ("patc", "patc.backends", "patc.codegen", "patc.frontend", "patc.passes", "patc.runtime", "patc.tools")
_SIZE = 4  # bytes of a length, and of a status

# Without site packages and most of the library, which take longer to load than a call takes to begin.
_SCRIPT = """\
#!{python} -IS
import marshal, os, socket, sys
call = marshal.dumps(({name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)))
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [len(call).to_bytes({size}, "little")], [0, 1, 2])
    server.sendall(call)
    os._exit(int.from_bytes(server.recv({size}, socket.MSG_WAITALL), "little"))
"""


def serve(folder: Path) -> None:
    """Answer calls until standard input ends."""
    tools = {name: importlib.import_module(module).main for name, module in TOOLS.items()}
    for module in _modules():
        importlib.import_module(module)
    address = str(folder / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        for name in TOOLS:
            script = folder / name
            script.write_text(_SCRIPT.format(python=sys.executable, name=name, address=address, size=_SIZE))
            script.chmod(0o755)
        print("ready", flush=True)
        gc.freeze()  # a collection in a child would copy every page
        while server in select.select([server, sys.stdin], [], [])[0]:
            call, _ = server.accept()
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                server.close()
                _answer(call, tools)
            call.close()


def _modules() -> Iterator[str]:
    for package in map(importlib.import_module, _PACKAGES):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            yield found.name


def _answer(call: socket.socket, tools: dict[str, Callable[[], int]]) -> None:
    """Run the tool that is called for, and end this process."""
    size, streams, _, _ = socket.recv_fds(call, _SIZE, 3)
    text = call.recv(int.from_bytes(size, "little"), socket.MSG_WAITALL)
    name, arguments, folder, environment = marshal.loads(text)
    child = os.fork()
    if child == 0:
        call.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [name, *arguments]
        os._exit(_status(tools[name]))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    call.sendall((status if status >= 0 else 128 - status).to_bytes(_SIZE, "little"))
    os._exit(0)


def _status(tool: Callable[[], int]) -> int:
    """Return the exit status of a tool that runs in this process."""
    try:
        status = tool()
    except SystemExit as end:
        status = end.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status or 0


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
