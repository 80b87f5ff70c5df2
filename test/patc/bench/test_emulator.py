"""The emulator: objects are placed and linked as the ELF rules say, functions called as the ABI says, errors named."""

from __future__ import annotations

import functools
import math
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from emulated import needs_arm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from patc.bench.emulator import PAGE, EmulatedProgram, Emulator, run_program
from patc.bench.execution import trace_layers
from patc.codegen import llvm_objects
from patc.compiler import compile_model
from patc.diagnostics import PatcError
from patc.runtime.image import read_object
from patc.runtime.object_code import AARCH64
from patc.runtime.program import Program
from patc.targets import get_target

TARGET = get_target("aarch64-linux")


@functools.cache
def assemble(text: str) -> bytes:
    """Return LLVM IR as an object file."""
    return llvm_objects.emit_object(llvm_objects.optimize(text, TARGET), TARGET)


@functools.cache
def compiled() -> Program:
    """Return a small program of three layers."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 5)).eval()
    return compile_model(net, (torch.zeros(1, 3, 8, 8),), target="aarch64-linux", threads=1).program


# Objects

DATA = """
@numbers = internal constant [4 x i64] [i64 10, i64 20, i64 30, i64 40]
@changed = internal global [2 x i64] [i64 7, i64 9]
@empty = internal global [3 x i64] zeroinitializer
@shared = global i64 5
@functions = internal constant [2 x ptr] [ptr @double, ptr @negate]
define internal i64 @double(i64 %x) noinline { %y = mul i64 %x, 2  ret i64 %y }
define internal i64 @negate(i64 %x) noinline { %y = sub i64 0, %x  ret i64 %y }
define i64 @constant(i64 %i) {
  %place = getelementptr i64, ptr @numbers, i64 %i
  %value = load i64, ptr %place
  ret i64 %value
}
define i64 @variable(i64 %i) {
  %place = getelementptr i64, ptr @changed, i64 %i
  %value = load i64, ptr %place
  %more = add i64 %value, 1
  store i64 %more, ptr %place
  %zero = load i64, ptr getelementptr (i64, ptr @empty, i64 2)
  store i64 %value, ptr getelementptr (i64, ptr @empty, i64 2)
  %sum = add i64 %more, %zero
  ret i64 %sum
}
define i64 @outside() { %value = load i64, ptr @shared  ret i64 %value }
define i64 @direct(i64 %x) { %y = call i64 @double(i64 %x)  %z = add i64 %y, 1  ret i64 %z }
define i64 @indirect(i64 %i, i64 %x) {
  %place = getelementptr ptr, ptr @functions, i64 %i
  %function = load ptr, ptr %place
  %y = call i64 %function(i64 %x)
  ret i64 %y
}
"""


@needs_arm
@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (("constant", 2), 30),
        (("variable", 1), 10),
        (("outside",), 5),
        (("direct", 21), 43),
        (("indirect", 0, 4), 8),
        (("indirect", 1, 4), -4),
    ],
)
def test_code_finds_what_it_refers_to(call: tuple[Any, ...], wanted: int) -> None:
    assert Emulator(assemble(DATA)).call(*call) == wanted % 2**64


@needs_arm
def test_memory_lasts_from_call_to_call() -> None:
    emulator = Emulator(assemble(DATA))
    assert [emulator.call("variable", 0) for _ in range(2)] == [8, 9 + 7]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"#!/bin/sh\n", "expected a relocatable ELF file for AArch64, found something else"),
        (
            lambda data: data[:18] + b"\x3e\0" + data[20:],
            "expected a relocatable ELF file for AArch64, found something else",
        ),
        (lambda data: data[:-8], "expected a relocatable ELF file for AArch64, found a damaged one"),
        (lambda data: data[:8], "expected a relocatable ELF file for AArch64, found a damaged one"),
    ],
    ids=["text", "x86-64", "cut off", "cut off early"],
)
def test_other_files_are_refused(change: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(PatcError, match=f"^{message}$"):
        read_object(change(assemble(DATA)), AARCH64)


def test_unknown_relocations_are_refused() -> None:
    code = assemble("declare void @f()  define void @g() { call void @f()  ret void }")
    kind = code.index(struct.pack("<QI", 0, 282))  # at offset 0 of the code a JUMP26, for the call at its end
    found = read_object(code[: kind + 8] + struct.pack("<I", 1031) + code[kind + 12 :], AARCH64)
    with pytest.raises(PatcError, match=r"^expected relocations that patc's code has, found number 1031$"):
        found.load(0x1000, {"f": 0x2000}, 0)


def test_targets_out_of_reach_are_refused() -> None:
    found = read_object(assemble("declare void @f()  define void @g() { call void @f()  ret void }"), AARCH64)
    assert found.undefined == ("f",)
    with pytest.raises(PatcError, match=r"^expected the target of relocation 28[23] within reach, found it \d+ away$"):
        found.load(0x1000, {"f": 1 << 40}, 0)


# Calls


@needs_arm
def test_arguments_beyond_the_eighth_are_on_the_stack() -> None:
    names = [f"%a{number}" for number in range(11)]
    weighted = "".join(
        f"%p{number} = mul i64 {name}, {10**number} %s{number + 1} = add i64 %s{number}, %p{number} "
        for number, name in enumerate(names)
    )
    heads = ", ".join(f"i64 {name}" for name in names)
    code = assemble(f"define i64 @f({heads}) {{ %s0 = add i64 0, 0 {weighted} ret i64 %s11 }}".replace(" %", "\n%"))
    assert Emulator(code).call("f", *range(9, -2, -1)) == sum((9 - n) * 10**n for n in range(11)) % 2**64


MATHS = {"expf": 0.3, "logf": 2.5, "tanhf": 0.7, "erff": 0.4, "exp": 0.3, "log": 0.0}


@needs_arm
@pytest.mark.parametrize("name", MATHS)
def test_functions_of_the_c_library_are_computed(name: str) -> None:
    single = name.endswith("f") and name != "erf"
    type_, dtype = ("float", np.float32) if single else ("double", np.float64)
    emulator = Emulator(
        assemble(
            f"declare {type_} @{name}({type_}) define void @f(ptr %x) {{ %a = load {type_}, ptr %x\n"
            f"%b = call {type_} @{name}({type_} %a) store {type_} %b, ptr %x ret void }}"
        )
    )
    place = emulator.put(np.array([MATHS[name]], dtype))
    emulator.call("f", place)
    with np.errstate(divide="ignore"):
        wanted = math.erf(0.4) if name == "erff" else getattr(np, name.removesuffix("f"))(MATHS[name])
    np.testing.assert_allclose(emulator.get(place, (1,), dtype), [wanted], rtol=1e-6)


@needs_arm
def test_memory_is_copied_and_filled() -> None:
    emulator = Emulator(
        assemble(
            "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1) declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)"
            "define void @copy(ptr %a, ptr %b, i64 %n) {"
            "  call void @llvm.memcpy.p0.p0.i64(ptr %a, ptr %b, i64 %n, i1 false) ret void }"
            "define void @fill(ptr %a, i8 %v, i64 %n) {"
            "  call void @llvm.memset.p0.i64(ptr %a, i8 %v, i64 %n, i1 false) ret void }"
        )
    )
    source, target = emulator.put(np.arange(10, dtype=np.float32)), emulator.put(np.zeros(10, np.float32))
    emulator.call("copy", target, source, 20)
    assert emulator.get(target, (10,)).tolist() == [0, 1, 2, 3, 4, 0, 0, 0, 0, 0]
    emulator.call("fill", target, 0, 8)
    assert emulator.get(target, (10,)).tolist() == [0, 0, 2, 3, 4, 0, 0, 0, 0, 0]


@needs_arm
@given(st.integers(0, 3 * PAGE))
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
def test_memory_ends_before_a_page_that_cannot_be_touched(size: int) -> None:
    emulator = Emulator(assemble(DATA))
    data = np.arange(size, dtype=np.uint8)
    places = [emulator.put(data), emulator.put(data)]
    assert all(place % 64 == 0 and (place + size) % PAGE in (0, *range(PAGE - 63, PAGE)) for place in places)
    assert all((emulator.get(place, (size,), np.uint8) == data).all() for place in places)


# Errors


@needs_arm
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("store i32 1, ptr null", r"f\+0x[48]: it writes 4 bytes at 0x0, where it has no memory"),
        ("%a = load volatile i32, ptr null", r"f\+0x[48]: it reads 4 bytes at 0x0, where it has no memory"),
        ("call void null()", "0x0: it runs 4 bytes at 0x0, where it has no memory"),
        ("call void @llvm.trap()", r"f\+0x[048]: .*"),
    ],
)
def test_faults_name_the_place(body: str, message: str) -> None:
    code = assemble(f"declare void @llvm.trap() define void @f() null_pointer_is_valid {{ {body} ret void }}")
    with pytest.raises(PatcError, match=f"^emulated code failed at {message}$"):
        Emulator(code).call("f")


@needs_arm
def test_registers_that_calls_keep_are_checked() -> None:
    code = assemble("define i32 @f() { ret i32 305419896 }")
    first = code.index(struct.pack("<I", 0x528ACF00))  # mov w0, #0x5678
    changed = code[:first] + struct.pack("<I", 0xD2800033) + code[first + 4 :]  # mov x19, #1
    with pytest.raises(PatcError, match=r"^expected 'f' to keep register x19, found it changed$"):
        Emulator(changed).call("f")


@needs_arm
def test_unknown_functions_are_refused() -> None:
    code = assemble("declare void @cblas_sgemm() define void @f() { call void @cblas_sgemm() ret void }")
    with pytest.raises(PatcError, match=r"^expected code that can be emulated, found a call of 'cblas_sgemm'$"):
        Emulator(code)
    with pytest.raises(PatcError, match=r"^expected code with a function 'g', found none$"):
        Emulator(assemble(DATA)).call("g")


@pytest.mark.parametrize("package", ["unicorn", "capstone"])
def test_missing_packages_are_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from patc.bench.instructions import Decoder

    monkeypatch.setitem(sys.modules, package, None)
    message = rf"^expected the package '{package}', which is not installed \(pip install 'patc\[arm\]'\)$"
    with pytest.raises(PatcError, match=message):
        Emulator(assemble(DATA)) if package == "unicorn" else Decoder()


# Programs


@needs_arm
def test_inputs_of_other_shapes_are_refused() -> None:
    with pytest.raises(
        PatcError, match=r"^expected inputs .* of shape \[1, 3, 8, 8\] float32, got shapes \[\(3, 8\)\]$"
    ):
        run_program(compiled(), [np.zeros((3, 8), np.float32)])


@needs_arm
def test_programs_of_several_threads_are_refused() -> None:
    with pytest.raises(PatcError, match=r"^expected a program of 1 thread to emulate, got one of 2$"):
        EmulatedProgram(replace(compiled(), threads=2))


@needs_arm
def test_layers_are_told_apart_by_time_stamps() -> None:
    program, x = compiled(), np.ones((1, 3, 8, 8), np.float32)
    outputs, traces = trace_layers(EmulatedProgram(program), [x], len(program.layers))
    (plain,) = run_program(program, [x])
    np.testing.assert_array_equal(outputs[0], plain)
    assert len(traces) == len(program.layers) and all(trace.paths for trace in traces)
    with pytest.raises(PatcError, match=r"^expected 9 time stamps, one more than layers, found \d$"):
        trace_layers(EmulatedProgram(program), [x], 8)
