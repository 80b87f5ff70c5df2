"""Floating-point literals arrive in llvmlite's LLVM with the bits that they had in the torch-mlir wheel's."""

from __future__ import annotations

import ctypes
import re
import struct

import llvmlite.binding as llvm
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch_mlir import ir
from torch_mlir.dialects.llvm import translate_module_to_llvmir

from patc.codegen.float_literals import literal_bits, respell

TYPES = {"f16": ("half", 16), "bf16": ("bfloat", 16), "f32": ("float", 32), "f64": ("double", 64)}
FORMATS = {16: "<H", 32: "<I", 64: "<Q"}
QUIET = {"f16": 1 << 9, "bf16": 1 << 6, "f32": 1 << 22, "f64": 1 << 51}
INFINITY = {"f16": 0x7C00, "bf16": 0x7F80, "f32": 0x7F800000, "f64": 0x7FF0000000000000}


def translate(values: list[tuple[str, int]]) -> str:
    """Return LLVM 24 text with one variable @v0, @v1, ... for each (MLIR type, bits)."""
    lines = [
        f"llvm.mlir.global external @v{number}(0x{bits:0{TYPES[kind][1] // 4}X} : {kind}) : {kind}"
        for number, (kind, bits) in enumerate(values)
    ]
    with ir.Context(), ir.Location.unknown():
        return translate_module_to_llvmir(ir.Module.parse("\n".join(lines)).operation)


def read_back(text: str, values: list[tuple[str, int]]) -> list[int]:
    """Return the bits of the variables after code generation."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
    engine.finalize_object()
    found = []
    for number, (kind, _) in enumerate(values):
        size = TYPES[kind][1]
        place = engine.get_global_value_address(f"v{number}")
        found.append(struct.unpack(FORMATS[size], ctypes.string_at(place, size // 8))[0])
    return found


constants = st.one_of(
    *(st.tuples(st.just(kind), st.integers(0, (1 << bits) - 1)) for kind, (_, bits) in TYPES.items()),
    st.tuples(st.just("f32"), st.floats(width=32).map(lambda value: struct.unpack("<I", struct.pack("<f", value))[0])),
    st.tuples(st.just("f64"), st.floats().map(lambda value: struct.unpack("<Q", struct.pack("<d", value))[0])),
)


@given(st.lists(constants, min_size=1, max_size=200))
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@example([(kind, INFINITY[kind]) for kind in TYPES])
@example([(kind, INFINITY[kind] | QUIET[kind] | 1) for kind in TYPES])
@example([(kind, INFINITY[kind] | 1) for kind in TYPES])
@example([("f32", 0x3EAAAAAB), ("f32", 0x00000001), ("f32", 0x80000000), ("f16", 0x3555), ("bf16", 0x3EAB)])
def test_constants_keep_their_bits(values: list[tuple[str, int]]) -> None:
    assert read_back(respell(translate(values)), values) == [bits for _, bits in values]


OPERATIONS = """
llvm.func @f(%x: f32, %v: vector<2xf32>, %c: i1) -> f32 {
  %a = llvm.mlir.constant(1.000000e-01 : f32) : f32
  %b = llvm.mlir.constant(0x7F800000 : f32) : f32
  %s = llvm.mlir.constant(dense<[1.000000e-01, -3.000000e-01]> : vector<2xf32>) : vector<2xf32>
  %0 = llvm.fadd %x, %a : f32
  %1 = llvm.fmul %a, %0 : f32
  %2 = llvm.fcmp "olt" %1, %b : f32
  %3 = llvm.select %2, %a, %1 : i1, f32
  %4 = llvm.fadd %v, %s : vector<2xf32>
  %5 = llvm.intr.fma(%v, %s, %4) : (vector<2xf32>, vector<2xf32>, vector<2xf32>) -> vector<2xf32>
  %6 = "llvm.intr.vector.reduce.fadd"(%3, %5) : (f32, vector<2xf32>) -> f32
  llvm.cond_br %c, ^then(%6 : f32), ^then(%a : f32)
^then(%r: f32):
  llvm.return %r : f32
}
"""


def test_operands_are_respelled_wherever_they_stand() -> None:
    """In operations, calls, vectors, returns and the values of a phi."""
    with ir.Context(), ir.Location.unknown():
        text = translate_module_to_llvmir(ir.Module.parse(OPERATIONS).operation)
    inexact = len(re.findall(r"(?<![\w.])0\.1(?!\d)|1\.0*e-01", text))
    assert inexact >= 5, "the wheel's spelling has changed: is the module still needed?"
    module = llvm.parse_assembly(respell(text))
    module.verify()
    (tenth,) = struct.unpack("<Q", struct.pack("<d", struct.unpack("<f", struct.pack("<f", 0.1))[0]))
    assert len(re.findall(f"0x{tenth:X}", str(module))) == inexact


def test_other_text_stays() -> None:
    text = '@name = constant [8 x i8] c"1.5 f0x3E"\n!0 = !{!"float 1.5e0"}\ndefine void @f.1.5() {\n  ret void\n}'
    assert respell(text).splitlines()[2:] == text.splitlines()[2:]


@pytest.mark.parametrize(
    ("kind", "literal", "bits"),
    [
        ("half", "+inf", 0x7C00),
        ("half", "-qnan", 0xFE00),
        ("float", "+nan(0x1)", 0x7FC00001),
        ("float", "+snan(0x1)", 0x7F800001),
        ("double", "-1.5", 0xBFF8000000000000),
        ("bfloat", "3.335e-01", 0x3EAB),
        ("bfloat", "1.0", 0x3F80),
        ("half", "1.5e-1", 0x30CD),
    ],
)
def test_spellings(kind: str, literal: str, bits: int) -> None:
    assert literal_bits(kind, literal) == bits
