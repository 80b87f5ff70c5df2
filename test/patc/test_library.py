"""Libraries for C: what they offer and need, and that they compute what PyTorch does, in emulated AArch64 machines.

Programs are built by ziglang's C compiler and run by qemu-user, on the CPU that the net was compiled for.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from emulated import HAS_ZIG, needs_linker
from large import needs_large
from libraries import defined_symbols, error_against, read_elf, small_net, undefined_symbols
from repository import ROOT, SUPPORT
from torch import nn

import patc
from patc import models, pruning
from patc.codegen import c_interface, link, llvm_objects
from patc.codegen.c_interface import c_identifier, checksum
from patc.codegen.entry_points import entry_points, weights_section
from patc.diagnostics import PatcError
from patc.files import atomic_write_all, cache_folder
from patc.library import Library, compile_library
from patc.runtime import elf
from patc.runtime.program import Program, TensorInfo
from patc.runtime.team import LIBRARY_FUNCTIONS

RUNNER = SUPPORT / "inputs" / "run_library.c"
QEMU = shutil.which("qemu-aarch64")
needs_emulator = pytest.mark.skipif(
    QEMU is None or not HAS_ZIG,
    reason="needs qemu-aarch64 (Debian's qemu-user) and ziglang (pip install 'patc[arm]')",
)


class Two(nn.Module):
    """Two inputs and two outputs, one of them with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a = torch.relu(self.first(x))
        b = self.second(a) + y
        return a, b


@pytest.fixture(scope="module")
def small() -> Callable[..., Library]:
    """Return a function that compiles the small net, once for each set of options."""
    found: dict[tuple[tuple[str, object], ...], Library] = {}

    def make(**options: object) -> Library:
        key = tuple(sorted(options.items()))
        if key not in found:
            found[key] = compile_library(*small_net(), name="my-net", **options)
        return found[key]

    return make


def build(program: Path, *words: str | Path) -> Path:
    """Compile and link a static AArch64 program from C."""
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-static", "-std=c99", "-O1"]
    command += ["-Wall", "-Wextra", "-Werror", *map(str, words), "-o", str(program)]
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(cache_folder("zig")), "ZIG_LOCAL_CACHE_DIR": str(program.parent / "zig")}
    done = subprocess.run(command, env=os.environ | caches, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def emulate(*words: str | Path, cpu: str = "cortex-a76") -> subprocess.CompletedProcess[str]:
    """Run an AArch64 program on a CPU, which refuses what the real one lacks."""
    assert QEMU is not None
    return subprocess.run([QEMU, "-cpu", cpu, *map(str, words)], capture_output=True, text=True)


def run_net(
    folder: Path, library: Library, x: torch.Tensor, *, loaded: bool = False, cpu: str = "cortex-a76"
) -> tuple[np.ndarray, dict[str, tuple[int, str]]]:
    """Run a net of one input and output by `run_library.c`; return the output and each status with its meaning."""
    name = library.interface.name
    shared = library.write(folder)[0] if loaded else library.write_object(folder / "net.o")[0]
    names = (f"-DNET={name}", f"-DNET_CAPITALS={name.upper()}")
    (folder / "net.h").write_text(f'#include "{name}.h"\n')
    parts: list[str | Path] = ["-DLOADED"] if loaded else [shared]
    program = build(folder / "program", "-std=gnu99", "-pthread", "-I", folder, *names, RUNNER, *parts)
    (folder / "x").write_bytes(x.numpy().tobytes())
    last = shared if loaded else folder / f"{name}.weights"
    done = emulate(program, folder / "x", folder / "y", last, cpu=cpu)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    statuses = {line.split()[0]: (int(line.split()[1]), line.split(" ", 2)[2]) for line in done.stdout.splitlines()}
    return np.fromfile(folder / "y", np.float32), statuses


# -- Numbers, in emulated machines -----------------------------------------------------------------------


STATUSES = {
    "null-input": 1,
    "null-output": 1,
    "null-workspace": 1,
    "crooked-input": 2,
    "crooked-output": 2,
    "crooked-workspace": 2,
    "unknown": 77,
    "run": 0,
    "again": 0,
}


@needs_emulator
@pytest.mark.parametrize(("dtype", "bound"), [pytest.param("f32", 1e-4, marks=needs_large), ("f16", 2e-2)])
def test_resnet18_cifar_in_an_emulated_cortex_a76(tmp_path: Path, dtype: str, bound: float) -> None:
    model = models.resnet18_cifar()
    pruning.prune_(model, pruning.PatternSpec.for_compression(8.0))
    x = torch.randn(models.MODELS["resnet18_cifar"].input_shape, generator=torch.Generator().manual_seed(1))
    library = compile_library(model, (x,), name="resnet18_cifar", dtype=dtype)
    found, statuses = run_net(tmp_path, library, x)
    assert error_against(model, (x,), found) <= bound
    assert {name: status for name, (status, _) in statuses.items()} == STATUSES


@needs_emulator
def test_a_shared_library_loads_and_runs(small: Callable[..., Library], tmp_path: Path) -> None:
    model, (x,) = small_net()
    found, statuses = run_net(tmp_path, small(target="aarch64-android"), x, loaded=True)
    assert error_against(model, (x,), found) <= 1e-5
    assert {name: status for name, (status, _) in statuses.items()} == STATUSES
    assert statuses["null-input"][1] == "a pointer is null" and statuses["unknown"][1] == "unknown error"


@needs_emulator
@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a72", "neoverse-n1"])
def test_code_for_a_cpu_runs_on_it(small: Callable[..., Library], tmp_path: Path, cpu: str) -> None:
    model, (x,) = small_net()
    found, _ = run_net(tmp_path, small(target=f"aarch64-linux:{cpu}"), x, cpu=cpu)
    assert error_against(model, (x,), found) <= 1e-5


@needs_emulator
def test_threads_share_the_work(small: Callable[..., Library], tmp_path: Path) -> None:
    model, (x,) = small_net()
    library = small(threads=3)
    assert undefined_symbols(library.object_file()) <= set(LIBRARY_FUNCTIONS)
    found, statuses = run_net(tmp_path, library, x)
    assert error_against(model, (x,), found) <= 1e-5
    assert {name: status for name, (status, _) in statuses.items()} == STATUSES


@needs_emulator
def test_weights_from_a_file_are_checked(small: Callable[..., Library], tmp_path: Path) -> None:
    model, (x,) = small_net()
    found, statuses = run_net(tmp_path, small(weights="file"), x)
    assert error_against(model, (x,), found) <= 1e-5
    own = {"unset": 3, "set-null": 1, "set-crooked": 2, "set-short": 4, "set-empty": 4, "set-damaged": 4}
    wanted = {**own, "still-unset": 3, "set": 0, **STATUSES}
    assert {name: status for name, (status, _) in statuses.items()} == wanted
    assert statuses["unset"][1] == "the weights are not set"


@needs_emulator
@pytest.mark.parametrize("weights", ["embed", "file"])
def test_the_example_classifies_a_picture(tmp_path: Path, weights: str) -> None:
    model = small_net()[0]
    library = compile_library(model, (torch.zeros(1, 3, 16, 16),), name="small", weights=weights)
    files = library.write_object(tmp_path / "small.o")
    names = ("-DNET=small", "-DNET_CAPITALS=SMALL", "-Wpedantic")
    program = build(tmp_path / "main", "-I", tmp_path, *names, ROOT / "examples" / "c" / "main.c", files[0])
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    (tmp_path / "x.ppm").write_bytes(b"P6\n# a comment\n16 16\n255\n" + pixels.tobytes())
    done = emulate(program, tmp_path / "x.ppm", *files[2:])
    assert (done.returncode, done.stderr) == (0, "")
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = torch.tensor(((pixels / 255 - mean) / deviation).transpose(2, 0, 1)[None], dtype=torch.float64)
    with torch.no_grad():
        scores = copy.deepcopy(model).double()(x)[0].numpy()
    lines = [re.fullmatch(r"class (\d+)  (\S+)", line) for line in done.stdout.splitlines()[:5]]
    assert [int(line.group(1)) for line in lines] == scores.argsort()[::-1][:5].tolist()
    np.testing.assert_allclose([float(line.group(2)) for line in lines], np.sort(scores)[::-1][:5], atol=1e-4)
    assert re.fullmatch(r"[\d.]+ ms, the best of 10, 1 thread\(s\)", done.stdout.splitlines()[5])


@needs_emulator
def test_the_example_scales_pictures_and_says_what_is_wrong(small: Callable[..., Library], tmp_path: Path) -> None:
    files = small(weights="file").write_object(tmp_path / "net.o")
    names = ("-DNET=my_net", "-DNET_CAPITALS=MY_NET")
    program = build(tmp_path / "main", "-I", tmp_path, *names, ROOT / "examples" / "c" / "main.c", files[0])
    good, bad, short = tmp_path / "x.ppm", tmp_path / "bad.ppm", tmp_path / "short.ppm"
    good.write_bytes(b"P6 5 40 255\n" + bytes(range(200)) * 3)
    bad.write_bytes(b"P3 5 40 255\n")
    short.write_bytes(b"P6 5 40 255\n123")
    assert emulate(program, good, files[2]).stdout.count("class") == 5
    for words, message in (
        ([bad, files[2]], f"{bad}: expected a binary PPM (P6), found something else"),
        ([short, files[2]], f"{short}: the picture ends early"),
        ([tmp_path / "none.ppm", files[2]], f"{tmp_path / 'none.ppm'}: cannot open the picture"),
        ([good], "main: expected the file of the weights as second argument"),
        ([good, bad], f"{bad}: these are not the weights of this library, or they are damaged"),
    ):
        done = emulate(program, *words)
        assert (done.returncode, done.stderr) == (1, f"{message}\n")


# -- What a library offers and needs ---------------------------------------------------------------------


@needs_linker
def test_resnet18_for_android_needs_no_library(tmp_path: Path) -> None:
    model = models.resnet18()
    pruning.prune_(model, pruning.PatternSpec.for_compression(8.0))
    library = compile_library(model, (torch.zeros(1, 3, 224, 224),), name="resnet18", target="aarch64-android")
    found = read_elf(library.write(tmp_path)[0])
    assert set(found["loads"]) == {(str(16384),)}
    assert found["soname"] == [("libresnet18.so",)]
    assert found["needed"] == [] == found["undefined"] and len(found["hashes"]) == 2
    assert sorted(found["defined"]) == [("resnet18_error",), ("resnet18_run",), ("resnet18_workspace_bytes",)]
    assert "android29" in library.llvm_ir()


@needs_linker
def test_threads_need_the_c_library_and_no_more(small: Callable[..., Library], tmp_path: Path) -> None:
    library = small(target="aarch64-android", threads=2, weights="file")
    found = read_elf(library.write(tmp_path)[0])
    assert {name for (name,) in found["undefined"]} <= set(LIBRARY_FUNCTIONS) and found["undefined"]
    assert found["needed"] == [("libc.so",)]
    assert ("my_net_set_weights",) in found["defined"]
    header = (tmp_path / "my_net.h").read_text()
    assert "#define MY_NET_THREADS 2" in header and "-pthread" in header


@pytest.mark.parametrize(
    "name", ["vgg16_cifar", "mobilenet_v2", *(pytest.param(name, marks=needs_large) for name in ("vgg16", "resnet50"))]
)
def test_networks_become_objects(name: str) -> None:
    model = models.build(name)
    if name != "mobilenet_v2":
        pruning.prune_(model, pruning.PatternSpec.for_compression(8.0 if name != "resnet50" else 1.9))
    library = compile_library(model, (torch.zeros(models.MODELS[name].input_shape),), name=name, weights="file")
    image = library.object_file()
    assert undefined_symbols(image) == set()
    assert defined_symbols(image) == set(library.interface.functions)


@needs_linker
def test_equal_nets_give_equal_files(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        compile_library(*small_net(), name="net", weights="file").write(tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["libnet.so", "net.h", "net.weights"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_objects_hold_the_weights(small: Callable[..., Library]) -> None:
    library = small()
    weights = c_interface.padded_weights(library.program.weights)
    section = next(part for part in elf.sections(library.object_file()) if part.name == ".rodata.my_net.weights")
    assert library.object_file()[section.offset :][: section.size] == weights.tobytes()
    assert checksum(weights) == library.interface.weights_checksum
    assert library.interface.workspace_bytes % 64 == 0


def test_text_forms(small: Callable[..., Library]) -> None:
    library = small(weights="file")
    assert re.search(r"fmla\s+v\d+\.4s", library.assembly()) and "\t.globl\tmy_net_run\n" in library.assembly()
    text = library.llvm_ir()
    assert set(re.findall(r"^define (?!internal)[^@]*@([\w.]+)", text, re.MULTILINE)) == set(
        library.interface.functions
    )


def test_a_net_of_two_inputs_and_outputs() -> None:
    inputs = (torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, 8))
    library = compile_library(Two().eval(), inputs, name="two")
    header = c_interface.header(library.interface)
    assert (
        "int two_run(const float *input0, const float *input1, float *output0, float *output1, void *workspace);"
        in header
    )
    assert "#define TWO_INPUT1_SHAPE {1, 8, 8, 8}\n#define TWO_INPUT1_ELEMENTS 512\n" in header
    assert "two_set_weights" not in header and "#define TWO_WEIGHTS_BYTES 0 " in header
    assert undefined_symbols(library.object_file()) == set()


def test_a_net_without_weights_and_arena() -> None:
    info, target = TensorInfo("x", (4,), "float32"), patc.targets.get_target("aarch64-linux")
    program = Program(
        b"", np.zeros(0, np.uint8), (info,), (info,), {"leaf": 0}, 0, target.backend, target.name, (), 1, ()
    )
    interface = c_interface.describe_interface(program, "none", "none", target.cpu, embed=False)
    assert interface.functions == ("none_run", "none_workspace_bytes", "none_error")
    net = "define void @main(ptr %0, ptr %1, ptr %2) {\n  store i64 1, ptr %2\n  ret void\n}"
    functions = entry_points(interface, target)
    assert "call void @main(ptr %input0, ptr %output0, ptr %stamps)" in functions
    module = llvm_objects.optimize(f"{net}\n{functions}", target, interface.functions)
    assert defined_symbols(llvm_objects.emit_object(module, target)) == set(interface.functions)


def test_a_net_that_reads_no_weights_has_their_section() -> None:
    library = compile_library(nn.ReLU().eval(), (torch.zeros(1, 4, 8, 8),), name="relu")
    assert library.interface.embedded and library.interface.weights_bytes
    assert weights_section(library.interface) in [section.name for section in elf.sections(library.object_file())]


@needs_emulator
def test_headers_compile_as_c_and_cpp(small: Callable[..., Library], tmp_path: Path) -> None:
    small(weights="file").write_object(tmp_path / "net.o")
    for name in ("a.c", "a.cpp"):
        (tmp_path / name).write_text('#include "my_net.h"\n#include "my_net.h"\n')
        language = "cc" if name.endswith("c") else "c++"
        words = ["-c", "-Wall", "-Wextra", "-Werror", "-I", str(tmp_path), name, "-o", "a.o"]
        caches = {"ZIG_GLOBAL_CACHE_DIR": str(cache_folder("zig")), "ZIG_LOCAL_CACHE_DIR": str(tmp_path / "zig")}
        command = [sys.executable, "-m", "ziglang", language, "-target", "aarch64-linux-musl", *words]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | caches, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


# -- Names, checksums, files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [("my-net", "my_net"), ("3d", "net_3d"), ("_x", "x"), ("a.b c", "a_b_c"), ("ß", "net"), ("", "net"), ("A1", "A1")],
)
def test_names_are_c_identifiers(text: str, name: str) -> None:
    assert c_identifier(text) == name


def test_headers_are_safe_from_names() -> None:
    info = TensorInfo("*/ int x; /*", (), "int64")
    entry = c_interface.Entry("", (info,), (info,), (("main", 1),), False)
    interface = c_interface.Interface("n", "a*/\n\\", (entry,), 0, 1, 0, 0, True, 1, "aarch64-linux", "cpu")
    header = c_interface.header(interface)
    assert header.count("*/") == header.count("/*") and "#define N_INPUT0_ELEMENTS 1\n" in header
    assert "SHAPE" not in header and "const int64_t *input0, int64_t *output0" in header


def test_the_checksum_knows_places_of_words() -> None:
    data = np.arange(3 * 64, dtype=np.uint8)
    words = [int.from_bytes(data.tobytes()[8 * i : 8 * i + 8], "little") for i in range(24)]
    assert checksum(data) == sum(word * (2 * i + 1) for i, word in enumerate(words)) % 2**64
    assert checksum(np.zeros(0, np.uint8)) == 0


def test_files_appear_together_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for files in ({tmp_path / "a": b"1", tmp_path / "none" / "b": b"2"}, {tmp_path / "a": b"1", tmp_path / "b": b"2"}):
        with pytest.raises(PatcError, match="cannot write the file"):
            atomic_write_all(files)
        assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_sections_are_filled_only_as_they_are(small: Callable[..., Library]) -> None:
    with pytest.raises(ValueError, match=r"expected one section \.text of 1 bytes"):
        elf.fill_section(small().object_file(), ".text", b"1")
    with pytest.raises(ValueError, match="expected a little-endian ELF file"):
        elf.sections(b"MZ")


# -- Errors ----------------------------------------------------------------------------------------------


def test_another_target_is_refused() -> None:
    with pytest.raises(
        PatcError,
        match="expected a target of host, x86-64-v3, x86-64-v4, aarch64-linux, aarch64-android for a library, got 'spirv-vulkan'",
    ):
        compile_library(*small_net(), name="net", target="spirv-vulkan")
    with pytest.raises(PatcError, match="expected weights to be embed or file, got 'disk'"):
        compile_library(*small_net(), name="net", weights="disk")


def test_a_missing_linker_is_named(
    small: Callable[..., Library], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    link.find_linker.cache_clear()
    with pytest.raises(PatcError) as caught:
        small().write(tmp_path / "out")
    link.find_linker.cache_clear()
    wanted = "expected a linker for aarch64, found none: pip install 'patc[arm]' (ziglang), or install lld"
    assert str(caught.value) == wanted and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("script", "message"),
    [("echo 'bad input' >&2; exit 1", "the linker failed: bad input"), ("exit 3", "the linker failed: exit status 3")],
)
def test_a_linker_that_fails_is_one_line(
    small: Callable[..., Library], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, message: str
) -> None:
    linker = tmp_path / "ld"
    linker.write_text(f"#!/bin/sh\n{script}\n")
    linker.chmod(0o755)
    monkeypatch.setattr(link, "find_linker", lambda architecture: (str(linker),))
    with pytest.raises(PatcError, match=message):
        small().write(tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()
    linker.chmod(0o644)
    with pytest.raises(PatcError, match="cannot run the linker: Permission denied"):
        small().write(tmp_path / "deep" / "out")


@needs_linker
def test_a_folder_that_cannot_be_made_is_one_line(small: Callable[..., Library], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PatcError, match="file/out: cannot make the folder: Not a directory"):
        small().write(tmp_path / "file" / "out")


def test_compiled_models_for_aarch64_say_so_elsewhere(tmp_path: Path) -> None:
    model, inputs = small_net()
    compiled = patc.compile(model, inputs, target="aarch64-linux:cortex-a53")
    assert compiled.program.threads == 1
    if "neon" in patc.targets.host_features():
        pytest.skip("this machine is an AArch64 one")
    message = r"expected an AArch64 machine, as compiled for target 'aarch64-linux:cortex-a53', got \w+"
    with pytest.raises(PatcError, match=message):
        compiled(*inputs)
    compiled.save(tmp_path / "net.patc")
    with pytest.raises(PatcError, match=message):
        patc.load(tmp_path / "net.patc")
