"""Libraries for C on this machine: programs that its own compilers build and that it runs."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import fail
from helpers import torch_results
from libraries import defined_symbols, error_against, read_elf, small_net, undefined_symbols
from repository import ROOT, SUPPORT
from torch import nn

import patc
from patc.codegen import cpu_check, link, llvm_objects
from patc.diagnostics import PatcError
from patc.library import Library, compile_library
from patc.quantisation.quantised import Quantised
from patc.runtime import cpu_features
from patc.runtime.memory import aligned_bytes
from patc.runtime.team import LIBRARY_FUNCTIONS
from patc.targets import X86_64_V3, X86_64_V4, host, host_features

IS_X86 = platform.machine() == "x86_64"
LEVELS = [*(["x86-64-v3", "x86-64-v4"] if IS_X86 else []), "host"]
needs_compilers = pytest.mark.skipif(
    not all(map(shutil.which, ("gcc", "g++", "ld"))), reason="needs gcc, g++ and ld (Debian's g++)"
)


def runs(level: str) -> bool:
    """Return whether this machine has what a level needs."""
    wanted = {"x86-64-v3": X86_64_V3, "x86-64-v4": X86_64_V4, "host": host()}[level].features
    return set(wanted) <= set(host().features)


def build(program: Path, compiler: str, *words: str | Path) -> Path:
    """Compile and link a program for this machine."""
    strict = ["-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    command = [compiler, *strict, *map(str, words), f"-Wl,-rpath,{program.parent}", "-pthread", "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def run(*words: str | Path, requests: str = "") -> str:
    done = subprocess.run(list(map(str, words)), input=requests.encode(), capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b""), (done.returncode, done.stderr)
    return done.stdout.decode("latin-1")


def write_picture(path: Path) -> torch.Tensor:
    """Write a picture of 16 x 16 pixels; return what nets see of it."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    path.write_bytes(b"P6\n16 16\n255\n" + pixels.tobytes())
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return torch.tensor(((pixels / 255 - mean) / deviation).transpose(2, 0, 1)[None], dtype=torch.float32)


# -- Numbers ---------------------------------------------------------------------------------------------


@needs_compilers
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("threads", "shared"), [(1, False), (3, True)])
def test_any_thread_may_call_at_any_time(tmp_path: Path, level: str, threads: int, shared: bool) -> None:
    model, (x,) = small_net()
    library = compile_library(model, (x,), name="my-net", target=level, threads=threads)
    if not runs(level):
        pytest.skip(f"this machine runs no code for {level}")
    (part, _) = library.write(tmp_path) if shared else library.write_object(tmp_path / "net.o")
    source = SUPPORT / "inputs" / "concurrent.c"
    program = build(tmp_path / "program", "gcc", "-std=gnu99", "-I", tmp_path, source, part)
    (tmp_path / "x").write_bytes(x.numpy().tobytes())
    found = np.frombuffer(run(program, tmp_path / "x").encode("latin-1"), np.float32)
    assert error_against(model, (x,), found) <= 1e-5


@pytest.mark.skipif(shutil.which("ld") is None, reason="needs ld")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("quantised", [None, Quantised(weights_only=8)])
def test_any_number_of_images(tmp_path: Path, threads: int, quantised: Quantised | None) -> None:
    model, (x,) = small_net()
    given = (x[:1].repeat(3, 1, 1, 1),)
    library = compile_library(
        model, given, name="net", target="host", threads=threads, dynamic_batch=True, quantised=quantised
    )
    library.write(tmp_path)
    code = ctypes.CDLL(str(tmp_path / "libnet.so"))
    workspace = aligned_bytes(library.interface.workspace_bytes)
    for batch in (1, 2, 3, 7):
        images = torch.randn((batch, *x.shape[1:]), generator=torch.Generator().manual_seed(batch))
        expected = model(images).detach().numpy()
        made = np.full((batch + 1, *expected.shape[1:]), 7.0, np.float32)
        called = (ctypes.c_size_t(batch), *map(ctypes.c_void_p, (images.data_ptr(), made.ctypes.data)))
        assert code.net_run(*called, ctypes.c_void_p(workspace.ctypes.data)) == 0
        bound = 1e-5 if quantised is None else 0.02 * np.abs(expected).max()
        np.testing.assert_allclose(made[:batch], expected, rtol=1e-4, atol=bound)
        assert (made[batch] == 7.0).all()


@pytest.mark.skipif(shutil.which("ld") is None, reason="needs ld")
@pytest.mark.parametrize("options", [{}, {"weights_only": 8}, {"weights_only": 1}])
def test_quantised_nets_give_the_bits_of_compiled_ones(tmp_path: Path, options: dict[str, int]) -> None:
    model, (x,) = small_net()
    quantised = Quantised(x, **options)
    library = compile_library(model, (x,), name="net", target="host", quantised=quantised)
    library.write(tmp_path)
    code = ctypes.CDLL(str(tmp_path / "libnet.so"))
    workspace = aligned_bytes(library.interface.workspace_bytes)
    expected = patc.quantize(model, x, threads=1, **options)(x).numpy()
    made = np.full_like(expected, np.nan)
    given = map(ctypes.c_void_p, (x.data_ptr(), made.ctypes.data, workspace.ctypes.data))
    assert code.net_run(*given) == 0
    np.testing.assert_array_equal(made, expected)
    floats = compile_library(model, (x,), name="net", target="host")
    assert library.program.weights.nbytes < floats.program.weights.nbytes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "f16", "target": "aarch64-linux"}, "expected quantised or dtype f16, got both"),
        ({"zeros": torch.zeros(1, 3, 16, 16)}, "expected quantised or zeros, got both"),
        ({"dynamic_batch": True}, "expected samples or dynamic_batch, got both: samples are of one shape"),
    ],
)
def test_what_does_not_go_with_quantised_nets(options: dict[str, Any], message: str) -> None:
    model, (x,) = small_net()
    with pytest.raises(PatcError, match=message):
        compile_library(model, (x,), name="net", quantised=Quantised(x), **options)


@needs_compilers
def test_the_example_in_c_runs_here(tmp_path: Path) -> None:
    model, (x,) = small_net()
    files = compile_library(model, (x,), name="my-net", target="host", weights="file").write(tmp_path)
    names = ("-DNET=my_net", "-DNET_CAPITALS=MY_NET")
    example = ROOT / "examples" / "c" / "main.c"
    program = build(tmp_path / "main", "gcc", "-std=c99", "-I", tmp_path, *names, example, files[0])
    scores = torch_results(model, (write_picture(tmp_path / "x.ppm"),))[0].ravel()
    best = run(program, tmp_path / "x.ppm", files[2]).splitlines()[0].split()
    assert best[:2] == ["class", str(scores.argmax())]
    assert float(best[2]) == pytest.approx(scores.max(), abs=1e-4)


@needs_compilers
def test_the_server_answers_with_two_nets(tmp_path: Path) -> None:
    models = {"resnet18": small_net()[0], "mobilenet_v2": nn.Sequential(nn.Flatten(), nn.Linear(768, 9)).eval()}
    parts = [
        compile_library(model, (torch.zeros(1, 3, 16, 16),), name=name, target="host").write(tmp_path)[0]
        for name, model in models.items()
    ]
    server = ROOT / "examples" / "cpp" / "server.cpp"
    program = build(tmp_path / "server", "g++", "-std=c++17", "-I", tmp_path, server, *parts)
    x, picture = write_picture(tmp_path / "x.ppm"), tmp_path / "x.ppm"
    (tmp_path / "bad.ppm").write_bytes(b"P6 16 16 255\n12")
    requests = [*(f"{name} {picture}" for name in models for _ in range(8)), f"vgg16 {picture}"]
    requests += [f"resnet18 {tmp_path / 'bad.ppm'}", f"resnet18 {tmp_path / 'none.ppm'}"]
    answers = run(program, requests="\n".join(requests)).splitlines()
    wanted = []
    for name, model in models.items():
        scores = torch_results(model, (x,))[0].ravel()
        lines = [line for line in answers if line.startswith(f"{name} {picture}")]
        wanted += lines
        assert len(lines) == 8 and len(set(lines)) == 1
        assert lines[0].rpartition("score ")[0].endswith(f": class {scores.argmax()}, ")
        assert float(lines[0].rpartition(" ")[2]) == pytest.approx(scores.max(), rel=1e-3)
    assert sorted(set(answers) - set(wanted)) == [
        f"resnet18 {tmp_path / 'bad.ppm'}: the picture ends early",
        f"resnet18 {tmp_path / 'none.ppm'}: cannot open the picture",
        f"vgg16 {picture}: expected resnet18 or mobilenet_v2, got vgg16",
    ]


@needs_compilers
@pytest.mark.skipif(not IS_X86, reason="needs an x86-64 machine")
def test_a_cpu_without_its_instructions_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = [level for level in LEVELS if not runs(level)]
    if not lacking:
        row = (1, 0, 2, None, "avx:28 avx2:16")  # a bit that no CPU sets
        monkeypatch.setattr(cpu_features, "ROWS", (row,))
    model, (x,) = small_net()
    library = compile_library(model, (x,), name="net", target=(lacking or ["x86-64-v3"])[0])
    functions = ctypes.CDLL(str(library.write(tmp_path)[0]))
    functions.net_error.restype = ctypes.c_char_p
    statuses = [functions.net_run(None, None, None) for _ in range(2)]
    assert statuses == [6, 6]
    assert functions.net_error(6) == b"the processor, or its system, lacks instructions that the library is made of"


@needs_compilers
@pytest.mark.skipif(not IS_X86, reason="needs an x86-64 machine")
def test_a_cpu_is_asked_for_each_feature(tmp_path: Path) -> None:
    known = sorted(cpu_check._USED)
    assert {*X86_64_V3.features, *X86_64_V4.features} <= set(known)
    text = "".join(
        re.sub(r"@cpu\.(\w+)", rf"@cpu{number}.\1", cpu_check.cpu_check(replace(X86_64_V3, features=(name,))))
        + f"define i32 @ask{number}() {{\n  %fits = call i1 @cpu{number}.fits()\n"
        "  %answer = zext i1 %fits to i32\n  ret i32 %answer\n}\n"
        for number, name in enumerate(known)
    )
    names = [f"ask{number}" for number in range(len(known))]
    code = llvm_objects.emit_object(llvm_objects.optimize(text, X86_64_V3, names), X86_64_V3)
    (tmp_path / "asked.so").write_bytes(link.link_shared(code, "asked.so", X86_64_V3))
    library = ctypes.CDLL(str(tmp_path / "asked.so"))
    found = {feature for name, feature in zip(names, known, strict=True) if getattr(library, name)()}
    assert found == host_features() & set(known)


# -- What a library offers and needs ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def threaded() -> Library:
    return compile_library(*small_net(), name="my-net", target="host", threads=2)


@needs_compilers
def test_a_library_needs_the_c_library_alone(threaded: Library, tmp_path: Path) -> None:
    found = read_elf(threaded.write(tmp_path)[0])
    assert found["needed"] == [] and {name for (name,) in found["undefined"]} <= set(LIBRARY_FUNCTIONS)
    assert {name for (name,) in found["defined"]} == set(threaded.interface.functions)
    alone = compile_library(*small_net(), name="my-net", target="host")
    assert undefined_symbols(alone.object_file()) == set()
    assert defined_symbols(alone.object_file()) == set(alone.interface.functions)


def test_text_forms_name_the_cpu(threaded: Library) -> None:
    assert "ymm" in threaded.assembly() if IS_X86 else "v0.4s" in threaded.assembly()
    assert re.search(r"^define .*i32 @my_net_run\(", threaded.llvm_ir(), re.MULTILINE)
    assert threaded.interface.cpu and threaded.interface.target == "host"


# -- Errors ----------------------------------------------------------------------------------------------


def test_libraries_are_for_linux() -> None:
    target = replace(host(), name="mine", triple=f"{host().architecture}-apple-darwin23")
    with pytest.raises(PatcError, match="expected a target of Linux for a library, got 'mine'"):
        compile_library(*small_net(), name="net", target=target)


def test_the_command_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("compile", "resnet18_cifar", "--emit", "so", "-o", tmp_path / "out")
    known = "host, x86-64-v3, x86-64-v4, aarch64-linux, aarch64-android"
    message = fail(capsys, *words, "--target", "spirv-vulkan")
    assert message == f"expected a target of {known} together with --emit so, got 'spirv-vulkan'"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    link.find_linker.cache_clear()
    message = fail(capsys, *words, "--target", "host")
    link.find_linker.cache_clear()
    assert message == (
        f"expected a linker for {host().architecture}, found none: pip install 'patc[arm]' (ziglang), or install "
        "binutils or lld"
    )
    assert not (tmp_path / "out").exists()
