"""Compiled models: calls, threads, files. What they compute is tested in ../test_api.py."""

from __future__ import annotations

import copy
import os
import platform
import resource
import subprocess
import sys
import threading
import timeit
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import patc
from patc.diagnostics import PatcError
from patc.runtime.memory import aligned_bytes
from patc.runtime.model import CompiledModel
from patc.runtime.native import NativeFunction
from patc.runtime.native_model import NativeModel

SHAPE = (1, 4, 12, 12)


class Net(nn.Module):
    """Two convolutions and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x))
        return torch.relu(self.second(y) + y)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def compiled(net: nn.Module) -> CompiledModel:
    return patc.compile(net, (torch.zeros(SHAPE),), threads=2)


@pytest.fixture(scope="module")
def file(compiled: CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "net.patc"
    compiled.save(path)
    return path


def random_input(seed: int = 0) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def run_python(program: str, *arguments: str | Path) -> str:
    """Run a program in an interpreter of its own, which must succeed; return what it prints."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


# -- Calls -------------------------------------------------------------------------------------------


def test_tensors_give_tensors(net: nn.Module, compiled: CompiledModel) -> None:
    x = random_input()
    y = compiled(x)
    assert isinstance(y, torch.Tensor) and not y.requires_grad
    torch.testing.assert_close(y, net(x))


def test_arrays_give_arrays(net: nn.Module, compiled: CompiledModel) -> None:
    x = random_input()
    y = compiled(x.numpy())
    assert isinstance(y, np.ndarray)
    np.testing.assert_allclose(y, net(x).numpy(), rtol=1e-5, atol=1e-5)


def test_outputs_are_not_reused(compiled: CompiledModel) -> None:
    first = compiled(random_input(1))
    before = first.clone()
    compiled(random_input(2))
    assert torch.equal(first, before)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: torch.cat([x, x], dim=3)[..., ::2].copy_(x),
        lambda x: x.clone().requires_grad_(),
        lambda x: nn.Parameter(x),
    ],
    ids=["channels-last", "strided", "with gradient", "parameter"],
)
def test_takes_every_kind_of_dense_tensor(compiled: CompiledModel, arrange: Any) -> None:
    x = random_input()
    assert torch.equal(compiled(arrange(x)), compiled(x))


class Subclass(torch.Tensor):
    """A tensor whose functions are its own business."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        raise AssertionError("a call of the model calls none of them")


def conjugated(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor that is the imaginary part of a conjugate: its negative bit is set."""
    view = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert view.is_neg()
    return view


def at_odd_address(x: torch.Tensor) -> torch.Tensor:
    data = bytearray(1 + 4 * x.numel())
    data[1:] = x.numpy().tobytes()
    return torch.frombuffer(data, dtype=torch.float32, offset=1).view(x.shape)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: torch._neg_view(-x),
        conjugated,
        lambda x: x.clone().as_subclass(Subclass),
        at_odd_address,
        lambda x: torch.zeros(100, *SHAPE).copy_(x)[7],
        lambda x: x.flip(3).flip(3),
    ],
    ids=["negative bit", "conjugate", "subclass", "odd address", "view", "flipped"],
)
def test_takes_numbers_however_they_are_stored(compiled: CompiledModel, arrange: Any) -> None:
    x = random_input()
    assert torch.equal(compiled(arrange(x)), compiled(x))


def test_takes_numbers_that_are_stored_once(compiled: CompiledModel) -> None:
    one = torch.full(SHAPE, 0.5)
    assert torch.equal(compiled(torch.full((1,), 0.5).expand(SHAPE)), compiled(one))
    assert torch.equal(compiled(torch._efficientzerotensor(SHAPE)), compiled(torch.zeros(SHAPE)))
    array = np.broadcast_to(np.float32(0.5), SHAPE)
    assert not array.flags.writeable
    np.testing.assert_array_equal(compiled(array), compiled(one.numpy()))


def freed(turned: bool = False) -> torch.Tensor:
    x = torch.zeros(SHAPE).transpose(2, 3) if turned else torch.zeros(SHAPE)
    x.untyped_storage().resize_(0)
    return x


def fake() -> torch.Tensor:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.zeros(SHAPE)


def nested() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.zeros(SHAPE[1:])])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("make", "found"),
    [
        (freed, r" with its numbers in memory, got 0 of 2304 bytes"),
        (lambda: freed(turned=True), r" with its numbers in memory, got 0 of 2304 bytes"),
        (fake, " as a plain tensor, got FakeTensor"),
        (nested, ", got nested tensors of float32"),
        (lambda: np.ma.masked_less(random_input().numpy(), 0), " without a mask, got MaskedArray with one"),
        (lambda: np.zeros(SHAPE, ">f4"), r", got shape \[1, 4, 12, 12\] >f4"),
        (lambda: np.zeros(SHAPE, object), r", got shape \[1, 4, 12, 12\] object"),
    ],
)  # fmt: skip
def test_refuses_what_holds_no_numbers(compiled: CompiledModel, make: Any, found: str) -> None:
    with pytest.raises(PatcError, match=rf"^expected input 'x' of shape \[1, 4, 12, 12\] float32{found}$"):
        compiled(make())


def test_refuses_tensors_of_transforms(compiled: CompiledModel) -> None:
    with pytest.raises(PatcError, match="with its numbers in memory, got a tensor without"):
        torch.func.vmap(compiled)(torch.zeros(3, *SHAPE))
    with pytest.raises(PatcError, match="with its numbers in memory, got a tensor without"):
        torch.func.grad(lambda x: compiled(x).sum())(torch.zeros(SHAPE))


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: np.frombuffer(b"0" + x.tobytes(), np.float32, offset=1).reshape(SHAPE),
        lambda x: x[:, ::-1][:, ::-1],
        lambda x: np.concatenate([x, x], axis=3)[..., : SHAPE[3]],
        lambda x: x.view(type("Array", (np.ndarray,), {})),
        lambda x: np.ma.array(x, mask=False),
        lambda x: np.asfortranarray(x),
    ],
    ids=["odd address", "backwards", "view", "subclass", "mask of nothing", "other order"],
)
def test_takes_arrays_however_they_are_stored(compiled: CompiledModel, arrange: Any) -> None:
    x = random_input().numpy()
    y = compiled(arrange(x))
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, compiled(x))


def test_copies_arrays_that_are_not_contiguous(compiled: CompiledModel) -> None:
    x = random_input().numpy()
    turned = np.ascontiguousarray(x.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    assert not turned.flags.c_contiguous
    np.testing.assert_array_equal(compiled(turned), compiled(x))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "expected 1 input ('x' of shape [1, 4, 12, 12] float32), got 0"),
        ((np.zeros(SHAPE, np.float32),) * 2, "expected 1 input ('x' of shape [1, 4, 12, 12] float32), got 2"),
        ((np.zeros((1, 4), np.float32),), "expected input 'x' of shape [1, 4, 12, 12] float32, got shape [1, 4] float32"),
        ((np.zeros(SHAPE),), "expected input 'x' of shape [1, 4, 12, 12] float32, got shape [1, 4, 12, 12] float64"),
        ((torch.zeros(SHAPE).half(),), "expected input 'x' of shape [1, 4, 12, 12] float32, got shape [1, 4, 12, 12] float16"),
        ((torch.zeros(2),), "expected input 'x' of shape [1, 4, 12, 12] float32, got shape [2] float32"),
        (([1.0],), "expected input 'x' of shape [1, 4, 12, 12] float32, got list"),
        ((None,), "expected input 'x' of shape [1, 4, 12, 12] float32, got NoneType"),
        (
            (torch.zeros(SHAPE, device="meta"),),
            "expected input 'x' of shape [1, 4, 12, 12] float32 as a dense tensor on the CPU, got torch.strided on meta",
        ),
        (
            (torch.zeros(SHAPE).to_sparse(),),
            "expected input 'x' of shape [1, 4, 12, 12] float32 as a dense tensor on the CPU, got torch.sparse_coo on cpu",
        ),
    ],
)  # fmt: skip
def test_refuses_other_inputs(compiled: CompiledModel, inputs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(PatcError) as caught:
        compiled(*inputs)
    assert str(caught.value) == message


def test_a_call_costs_microseconds(compiled: CompiledModel) -> None:
    small = patc.compile(nn.Conv2d(1, 1, 1).eval(), (torch.zeros(1, 1, 2, 2),), threads=1)
    x = torch.zeros(1, 1, 2, 2)
    assert min(timeit.repeat(lambda: small(x), number=200, repeat=20)) / 200 < 30e-6


def test_memory_that_is_not_there_is_one_line(compiled: CompiledModel) -> None:
    model = copy.copy(compiled)
    model.program, model._idle = replace(compiled.program, arena_bytes=1 << 60), []
    with pytest.raises(PatcError) as caught:
        model(*model.random_inputs())
    assert str(caught.value) == f"expected memory of {1 << 40} MiB for the activations of a call, found less"


def test_profile_times_each_layer(compiled: CompiledModel) -> None:
    times = compiled.profile(random_input(), repetitions=3)
    assert [time.layer for time in times] == list(compiled.layers)
    assert all(time.seconds >= 0 for time in times) and sum(time.seconds for time in times) > 0
    assert len(compiled.profile(repetitions=1)) == len(times)
    with pytest.raises(PatcError, match="expected 1 repetition or more, got 0"):
        compiled.profile(repetitions=0)


def test_repr_names_inputs_outputs_and_target(compiled: CompiledModel) -> None:
    text = repr(compiled)
    assert text.startswith("<CompiledModel x [1, 4, 12, 12] -> ") and "host, 2 threads>" in text


# -- Threads and processes ---------------------------------------------------------------------------


def test_python_threads_share_a_model(compiled: CompiledModel) -> None:
    inputs = [random_input(seed) for seed in range(4)]
    wanted = [compiled(x) for x in inputs]
    wrong: list[int] = []

    def call(number: int) -> None:
        wrong.extend(number for _ in range(50) if not torch.equal(compiled(inputs[number]), wanted[number]))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


_TEAM = """
func.func @main(%numbers: memref<4xi32>) {
  %two = arith.constant 2 : i32
  omp.parallel num_threads(%two : i32) {
    %number = func.call @omp_get_thread_num() : () -> i32
    %count = func.call @omp_get_num_threads() : () -> i32
    %place = arith.index_cast %number : i32 to index
    memref.store %count, %numbers[%place] : memref<4xi32>
    omp.terminator
  }
  return
}
func.func private @omp_get_thread_num() -> i32
func.func private @omp_get_num_threads() -> i32
"""


@pytest.mark.parametrize("threads", [2, 3])
def test_compiled_code_asks_its_own_team(threads: int) -> None:
    """torch has brought another one, which knows nothing of the team: it would call every thread number 0 of 1.

    A team has as many threads as models are compiled for, whatever the region that makes it asks for.
    """
    from torch_mlir import ir

    from patc.codegen import host
    from patc.context import make_context
    from patc.targets import get_target

    module = ir.Module.parse(_TEAM, make_context())
    host.lower_to_llvm(module, get_target("host"))
    function = NativeFunction(host.compile_object(module), "main", 1, threads)
    numbers = np.zeros(4, np.int32)
    function(numbers.ctypes.data)
    assert numbers.tolist() == [threads] * threads + [0] * (4 - threads)


def test_code_of_a_team_stays(file: Path) -> None:
    """Its threads may be in it when the interpreter ends, which drops what modules have."""
    program = """
import gc, sys, patc
from patc.runtime import team
model = patc.load(sys.argv[1])
inputs = model.random_inputs()
first = model(*inputs)
team._teams.clear()
gc.collect()
print((model(*inputs) == first).all())
"""
    assert run_python(program, file) == "True\n"


def test_a_team_that_another_process_was_making_is_made_anew(file: Path) -> None:
    """As a fork finds it that comes while a thread, which the child does not have, is about to make the team."""
    program = """
import ctypes, sys, patc
from patc.runtime import team
model = patc.load(sys.argv[1])
ctypes.c_int.from_address(team._teams[2].address_of("process")).value = -1
print(model(*model.random_inputs()).shape)
"""
    assert run_python(program, file) == "(1, 8, 12, 12)\n"


def test_the_team_stays_out_of_the_symbols_of_the_process(file: Path) -> None:
    program = """
import ctypes, sys, patc
model = patc.load(sys.argv[1])
model(*model.random_inputs())
print(hasattr(ctypes.CDLL(None), "__kmpc_fork_call"))
"""
    assert run_python(program, file) == "False\n"


_BEFORE = """
import sys, numpy as np, torch
torch.set_num_threads(2)
a = torch.ones(256, 256)
assert bool((a @ a == 256).all())
import patc
"""
_AFTER = """
import sys, numpy as np, patc
"""
_BOTH = """
model = patc.load(sys.argv[1])
inputs = model.random_inputs()
first = model(*inputs)
import torch
torch.set_num_threads(2)
a = torch.ones(256, 256)
for _ in range(5):
    assert bool((a @ a == 256).all())
    assert np.array_equal(model(*inputs), first)
    assert torch.equal(model(*map(torch.from_numpy, inputs)), torch.from_numpy(first))
"""


@pytest.mark.parametrize("start", [_BEFORE, _AFTER], ids=["torch first", "patc first"])
def test_lives_with_the_threads_of_torch(file: Path, start: str) -> None:
    run_python(start + _BOTH, file)


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the size of a process is not known on this system")
def test_models_that_are_dropped_leave_no_memory(file: Path) -> None:
    program = """
import gc, os, sys, patc

def size_after(count):
    for _ in range(count):
        patc.load(sys.argv[1])
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

before = size_after(200)
print(size_after(400) - before)
"""
    assert int(run_python(program, file)) < 1500  # KB: where each of 400 left a page, it would be 1600


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no list of threads on this system")
def test_threads_that_end_leave_no_teams(file: Path) -> None:
    """A server may call a model from a new thread each time."""
    program = """
import os, sys, threading, patc
model = patc.load(sys.argv[1])
x = model.random_inputs()

def call_from(count):
    for _ in range(count):
        thread = threading.Thread(target=model, args=x)
        thread.start()
        thread.join()
    return len(os.listdir("/proc/self/task"))

before = call_from(10)
print(call_from(40) - before)
"""
    assert int(run_python(program, file)) < 10


def test_threads_sleep_after_a_call(file: Path) -> None:
    """After one from another Python thread, too."""
    program = """
import sys, threading, time, patc
model = patc.load(sys.argv[1])
inputs = model.random_inputs()
def call():
    model(*inputs)
    start = time.process_time()
    time.sleep(0.3)
    print(time.process_time() - start)
call()
thread = threading.Thread(target=call)
thread.start()
thread.join()
"""
    assert all(float(line) < 0.05 for line in run_python(program, file).split())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a system that binds threads to CPUs")
def test_threads_that_wait_for_each_other_give_their_cpu_away(file: Path) -> None:
    """As where several processes share the CPUs: what a thread waits for may have to run on its CPU first. Waiting
    until the system takes the CPU away would cost some milliseconds of it in each layer."""
    program = """
import os, sys, time, patc
model = patc.load(sys.argv[1])
inputs = model.random_inputs()
model(*inputs)
cpu = min(os.sched_getaffinity(0))
for thread in os.listdir("/proc/self/task"):
    os.sched_setaffinity(int(thread), {cpu})
start = time.process_time()
for _ in range(100):
    model(*inputs)
print((time.process_time() - start) / 100 / len(model.layers))
"""
    assert float(run_python(program, file)) < 1e-3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_processes_run_a_model_at_the_same_time(file: Path) -> None:
    program = """
import os, signal, sys, numpy as np, patc
model = patc.load(sys.argv[1])
inputs = [model.random_inputs(seed) for seed in (0, 1)]
wanted = [model(*arrays) for arrays in inputs]
child = os.fork()
signal.alarm(60)  # for ever is a failure, too
number = 1 if child else 0
right = all(np.array_equal(model(*inputs[number]), wanted[number]) for _ in range(200))
if not child:
    os._exit(0 if right else 1)
assert right and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    run_python(program, file)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_large_memory_is_not_shared_with_forked_processes() -> None:
    program = """
import os
from patc.runtime.memory import aligned_bytes
memory = aligned_bytes(8 << 20)
assert memory.nbytes == 8 << 20 and memory.ctypes.data % 64 == 0 and not memory.any()
child = os.fork()
if not child:
    memory[:] = 1
    os._exit(0)
os.waitpid(child, 0)
assert not memory.any()
"""
    run_python(program)


@pytest.mark.parametrize("size", [1, 100, 4096, 4 << 20])
def test_memory_starts_on_a_cache_line(size: int) -> None:
    memory = aligned_bytes(size)
    assert memory.nbytes == size and memory.ctypes.data % 64 == 0


# -- Files -------------------------------------------------------------------------------------------


def test_loading_needs_neither_torch_nor_mlir(file: Path, compiled: CompiledModel, tmp_path: Path) -> None:
    program = """
import sys, numpy as np, patc
model = patc.load(sys.argv[1])
np.save(sys.argv[2], model(*model.random_inputs()))
print([name for name in ("torch", "torch_mlir", "rich", "PIL") if name in sys.modules])
"""
    assert run_python(program, file, tmp_path / "y.npy") == "[]\n"
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), compiled(*compiled.random_inputs()))


def test_a_loaded_model_is_the_saved_one(file: Path, compiled: CompiledModel, tmp_path: Path) -> None:
    loaded = patc.load(file)
    assert loaded.layers == compiled.layers
    assert loaded.program.inputs == compiled.program.inputs and loaded.program.features == compiled.program.features
    loaded.save(tmp_path / "again.patc")
    assert (tmp_path / "again.patc").read_bytes() == file.read_bytes()


def test_a_model_without_weights_can_be_saved(tmp_path: Path) -> None:
    x = random_input()
    patc.compile(nn.ReLU().eval(), (x,), threads=1).save(tmp_path / "relu.patc")
    assert torch.equal(patc.load(tmp_path / "relu.patc")(x), x.relu())


def load_error(path: Path) -> str:
    """Return why a file cannot be loaded, without its name."""
    with pytest.raises(PatcError) as caught:
        patc.load(path)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    assert load_error(tmp_path / "none.patc") == "expected a compiled model, found no such file"
    assert load_error(tmp_path) == "expected a compiled model, found a folder"
    for name in ("x" * 300, "y" * 5000):
        assert load_error(tmp_path / name) == "cannot read the file: File name too long"
    with pytest.raises(PatcError, match=r"^/dev/null: expected a compiled model, found a pipe, device or socket$"):
        patc.load("/dev/null")
    with pytest.raises(PatcError, match=r"^a\\0b: expected a name without null characters$"):
        patc.load("a\0b")


def test_refuses_code_for_another_cpu(compiled: CompiledModel, tmp_path: Path) -> None:
    path = tmp_path / "other.patc"
    other = copy.copy(compiled)
    other.program = replace(compiled.program, features=("avx2", "telepathy"), target="x86-64-v4")
    other.save(path)
    assert load_error(path) == "expected a CPU with telepathy, as compiled for target 'x86-64-v4', got one without"


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="compiles for x86-64")
def test_code_for_another_cpu_compiles_but_does_not_run(
    net: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from patc import targets

    compiled = patc.compile(net, (torch.zeros(SHAPE),), target="x86-64-v4", threads=1)
    monkeypatch.setattr(targets, "host_features", lambda: frozenset(targets.X86_64_V3.features))
    lacking = NativeModel(compiled.program)
    with pytest.raises(PatcError, match=r"a CPU with avx512bw, .*avx512vl, as compiled for target 'x86-64-v4'"):
        lacking(random_input())
    lacking.save(tmp_path / "v4.patc")
    assert "avx512f" in load_error(tmp_path / "v4.patc")


def test_saving_to_a_bad_place_leaves_nothing(compiled: CompiledModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PatcError, match="cannot write the file: Not a directory"):
        compiled.save(tmp_path / "file" / "net.patc")
    with pytest.raises(PatcError, match="cannot write the file: No such file or directory"):
        compiled.save(tmp_path / "none" / "net.patc")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PatcError, match="cannot write the file: Is a directory"):
        compiled.save(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_full_disk_leaves_the_old_file(compiled: CompiledModel, tmp_path: Path) -> None:
    path = tmp_path / "net.patc"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(PatcError, match="cannot write the file: File too large"):
            compiled.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_saved_files_are_the_same_each_time(net: nn.Module, file: Path, tmp_path: Path) -> None:
    patc.compile(net, (torch.zeros(SHAPE),), threads=2).save(tmp_path / "again.patc")
    assert (tmp_path / "again.patc").read_bytes() == file.read_bytes()
