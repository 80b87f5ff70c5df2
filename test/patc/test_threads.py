"""Threads, forks and spawned processes: whatever compiles, loads, calls and drops models at the same time."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from repository import importing
from torch import nn

import patc

ERROR_BOUND = 1e-4
THREADS, NETS = 8, 20
SHAPE = (1, 3, 8, 8)


def make_net(number: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(number)
        first = nn.Conv2d(3, 4 + number % 3, 3, padding=1)
        return nn.Sequential(
            first, nn.BatchNorm2d(first.out_channels), nn.ReLU(), nn.Conv2d(first.out_channels, 4, 1)
        ).eval()


def require_right(found: np.ndarray | torch.Tensor, net: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        wanted = net(x)
    assert (torch.as_tensor(found) - wanted).abs().max() <= ERROR_BOUND * wanted.abs().max()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def run_script(text: str, **variables: str) -> str:
    """Run a program in a fresh interpreter and return what it prints; nothing may come to standard error."""
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", text],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        timeout=300,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_eight_threads_compile_twenty_nets(x: torch.Tensor) -> None:
    nets = [make_net(number) for number in range(NETS)]

    def work(number: int) -> None:
        compiled = patc.compile(nets[number], (x,), threads=1 + number % 2)
        require_right(compiled(x), nets[number], x)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(NETS)))


COLD = """
import threading, torch
torch.set_num_threads(1)
nets = [torch.nn.Sequential(torch.nn.Conv2d(3, 4 + i % 3, 3), torch.nn.ReLU()).eval() for i in range(20)]
x, right = torch.randn(1, 3, 8, 8), []
start = threading.Barrier(8)

def work(first):
    start.wait()
    import patc
    for net in nets[first::8]:
        if first == 3:  # one alone: torch looks up its backends without a lock
            compiled = torch.compile(net, backend="patc", options={"threads": 1})
        else:
            compiled = patc.compile(net, (x,), threads=1 + first % 2)
        with torch.no_grad():
            right.append(torch.allclose(compiled(x), net(x), atol=1e-5))

threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(right), all(right))
"""


def test_eight_threads_import_and_compile_in_a_fresh_process() -> None:
    assert run_script(COLD) == "20 True\n"


def test_what_belongs_to_the_process_stays_as_it_is_while_a_thread_compiles(
    x: torch.Tensor, capfd: pytest.CaptureFixture[str]
) -> None:
    """Logging, warnings, the standard streams, environment and file modes."""
    patc.compile(make_net(0), (x,), threads=1)  # torch's own imports set a variable
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("torch.export")  # the one of torch's own that is told to be quiet
    logger.addHandler(handler)
    before = (sys.stderr, sys.stdout, warnings.showwarning, dict(os.environ), os.umask(0o22))
    os.umask(before[-1])
    sent, changed, done = 0, 0, threading.Event()

    def compile_some() -> None:
        for number in range(3):
            patc.compile(make_net(number), (x,), threads=1)
        with pytest.raises(patc.PatcError):
            patc.compile(Path(__file__))
        done.set()

    compiling = threading.Thread(target=compile_some)
    compiling.start()
    try:
        while not done.is_set():
            logger.warning("%d", sent)
            sent += 1
            now = (sys.stderr, sys.stdout, warnings.showwarning, dict(os.environ), before[-1])
            changed += now != before or logging.root.manager.disable != logging.NOTSET
    finally:
        compiling.join()
        logger.removeHandler(handler)
    mine = [record for record in records if record.thread == threading.get_ident()]
    assert changed == 0 and len(mine) == sent > 0


def test_the_model_itself_runs_in_other_threads_while_it_is_compiled(x: torch.Tensor) -> None:
    """Tracing a model must not show in it."""
    net = make_net(0)
    with torch.no_grad():
        wanted = net(x)
    done = threading.Event()
    found: list[bool] = []

    def call() -> None:
        with torch.no_grad():
            while not done.is_set():
                found.append(torch.equal(net(x), wanted))

    calling = threading.Thread(target=call)
    calling.start()
    try:
        for _ in range(3):
            require_right(patc.compile(net, (x,), threads=1)(x), net, x)
    finally:
        done.set()
        calling.join()
    assert found and all(found)


def test_models_that_cannot_be_copied_compile(x: torch.Tensor) -> None:
    net = make_net(1)
    net.lock = threading.Lock()
    require_right(patc.compile(net, (x,), threads=1)(x), net, x)


FORKING = """
import os, signal, sys, threading, torch
torch.set_num_threads(1)
import patc
x = torch.randn(1, 3, 8, 8)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
inside, forked = threading.Event(), threading.Event()

def right():
    with torch.no_grad():
        return torch.allclose(patc.compile(net, (x,), threads=2)(x), net(x), atol=1e-5)

def work():
    for _ in range(2):
        patc.compile(net, (x,), threads=2, report=lambda step, index, total: inside.set())

def fork():
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        os._exit(0 if right() else 1)
    return os.waitpid(child, 0)[1]

thread = threading.Thread(target=work)
thread.start()
while "patc.compiler" not in sys.modules:
    pass
early = fork()  # while it imports
inside.wait()
late = fork()
thread.join()

def hold():  # as torch.compile does
    from torch._dynamo.convert_frame import compile_lock
    with compile_lock:
        inside.set()
        forked.wait()

inside.clear()
thread = threading.Thread(target=hold)
thread.start()
inside.wait()
held = fork()
forked.set()
thread.join()
print(early, late, held, right())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forks_while_another_thread_compiles_compile_and_call() -> None:
    assert run_script(FORKING) == "0 0 0 True\n"


def compile_and_call(number: int) -> bool:
    """In a process of its own."""
    torch.set_num_threads(1)
    net, x = make_net(number), torch.ones(SHAPE)
    require_right(patc.compile(net, (x,), threads=2)(x), net, x)
    return True


SPAWNING = """
import multiprocessing
if __name__ == "__main__":
    from test_threads import compile_and_call
    assert compile_and_call(0)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(pool.map(compile_and_call, range(2)))
"""


def test_spawned_processes_compile_and_call(tmp_path: Path) -> None:
    script = tmp_path / "spawning.py"
    script.write_text(SPAWNING)
    command, environment = [sys.executable, script], importing(__file__)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "[True, True]\n"), done.stderr


def test_threads_load_call_and_drop(x: torch.Tensor, tmp_path: Path) -> None:
    """Models for different numbers of threads at once, one of them dropped while others call it."""
    net = make_net(2)
    for count in (1, 2, 3):
        patc.compile(net, (x,), threads=count).save(tmp_path / f"{count}.patc")
    shared = [patc.load(tmp_path / "2.patc")]

    def work(number: int) -> None:
        for turn in range(15):
            require_right(patc.load(tmp_path / f"{1 + (number + turn) % 3}.patc")(x), net, x)
            require_right(shared[0](x), net, x)
            if number == 0:
                shared[0] = patc.load(tmp_path / f"{1 + turn % 3}.patc")

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))


DAEMONS = """
import sys, threading, patc, torch
x = torch.ones(1, 3, 8, 8)
net = torch.nn.Conv2d(3, 4, 3).eval()
compiled = patc.compile(net, (x,), threads=2)
array, started = x.numpy(), threading.Barrier(4)

def forever(action):
    action()
    started.wait()
    while True:
        action()

for action in (lambda: patc.compile(net, (x,), threads=1), lambda: compiled(array), lambda: compiled(array)):
    threading.Thread(target=forever, args=(action,), daemon=True).start()
started.wait()
"""


def test_daemon_threads_do_not_disturb_the_end_of_the_process() -> None:
    assert run_script(DAEMONS) == ""


def test_a_library_is_loaded_once() -> None:
    """Two linkers, and the code of one model would go with the other."""
    from patc.locks import once

    made: list[int] = []
    start = threading.Barrier(THREADS)

    @once
    def make() -> object:
        made.append(1)
        return object()

    def get(_: int) -> object:
        start.wait()
        return make()

    with ThreadPoolExecutor(THREADS) as pool:
        found = set(pool.map(get, range(THREADS)))
    assert len(found) == len(made) == 1


def test_compilations_nest_and_errors_end_them() -> None:
    from patc.locks import compiling

    with compiling(), compiling():
        pass
    with pytest.raises(ZeroDivisionError), compiling():
        _ = 1 / 0
    other = threading.Thread(target=functools.partial(_enter, compiling))
    other.start()
    other.join(60)
    assert not other.is_alive()


def _enter(lock: Callable[[], object]) -> None:
    with lock():  # type: ignore[attr-defined]
        pass
