"""Whether a CPU has the instructions of a library, as LLVM IR text: asked once, by functions that any CPU runs.

A CPU with AArch64 code is not asked: the system alone knows what it has, and that code calls no system.
"""

from __future__ import annotations

from patc.runtime.cpu_features import OSXSAVE, find_bits
from patc.targets import Target

ANY_CPU = '"target-cpu"="x86-64" "target-features"=""'  # attributes of functions
# What LLVM may use for tensors and addresses.
_USED = {
    "fma", "movbe", "avx", "f16c", "bmi", "avx2", "bmi2", "avx512f", "avx512dq", "avx512ifma", "avx512cd", "avx512bw",
    "avx512vl", "avx512vbmi", "avx512vbmi2", "gfni", "avx512vnni", "avx512bitalg", "avx512vpopcntdq", "avx512fp16",
    "avxvnni", "avx512bf16", "lzcnt",
}  # fmt: skip
# As bytes, since LLVM may be without a parser of assembly: cpuid of two words at rdi to four there; xgetbv of 0.
_CPUID = bytes.fromhex("53 8b07 8b4f04 0fa2 8907 895f04 894f08 89570c 5b c3")
_XGETBV = bytes.fromhex("31c9 0f01d0 c3")


def cpu_check(target: Target) -> str:
    """Return the definition of `@cpu.fits`, which returns an i1; nothing for a target whose CPUs are not asked."""
    if target.architecture != "x86_64":
        return ""
    masks, kept = find_bits(_USED.intersection(target.features) | {"avx"})
    place, bit = OSXSAVE
    masks[place] |= 1 << bit  # AVX has its bit there, too
    questions = "".join(_ask(number, *place, mask) for number, (place, mask) in enumerate(masks.items()))
    return f"""\
@cpu.answer = internal global i32 0, align 4
{_bytes("cpu.id", _CPUID)}{_bytes("cpu.kept", _XGETBV)}
define internal i1 @cpu.fits() noinline {ANY_CPU} {{
  %words = alloca [4 x i32], align 4
  %known = load atomic i32, ptr @cpu.answer monotonic, align 4
  switch i32 %known, label %yes [ i32 0, label %ask0  i32 2, label %no ]
{questions}ask{len(masks)}:
  %kept = call i32 @cpu.kept(ptr %words)
  %kept.has = and i32 %kept, {kept}
  %kept.all = icmp eq i32 %kept.has, {kept}
  br i1 %kept.all, label %yes, label %no
yes:
  store atomic i32 1, ptr @cpu.answer monotonic, align 4
  ret i1 true
no:
  store atomic i32 2, ptr @cpu.answer monotonic, align 4
  ret i1 false
}}
"""


def _ask(number: int, leaf: int, part: int, register: int, mask: int) -> str:
    """Return the block that goes on to the next one if a register has all bits of a mask."""
    k = number
    return f"""\
ask{k}:
  store volatile i32 {leaf}, ptr %words, align 4
  %part{k} = getelementptr i32, ptr %words, i64 1
  store volatile i32 {part}, ptr %part{k}, align 4
  %id{k} = call i32 @cpu.id(ptr %words)
  %place{k} = getelementptr i32, ptr %words, i64 {register}
  %word{k} = load volatile i32, ptr %place{k}, align 4
  %has{k} = and i32 %word{k}, {mask}
  %all{k} = icmp eq i32 %has{k}, {mask}
  br i1 %all{k}, label %ask{k + 1}, label %no
"""


def _bytes(name: str, code: bytes) -> str:
    """Return a function of machine code, which ends before what it has for LLVM to see: that anything comes out."""
    text = "".join(f"\\{byte:02X}" for byte in code)
    prologue = f'prologue [{len(code)} x i8] c"{text}"'
    body = "  %any = load volatile i32, ptr %words\n  store volatile i32 %any, ptr %words\n  ret i32 %any"
    return f"define internal i32 @{name}(ptr %words) noinline {ANY_CPU} {prologue} {{\n{body}\n}}\n"
