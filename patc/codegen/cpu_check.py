"""Whether a CPU has the instructions of a library, as LLVM IR text: asked once, by functions that any CPU runs.

A CPU with AArch64 code is not asked: the system alone knows what it has, and that code calls no system.
"""

from __future__ import annotations

from patc.targets import Target

ANY_CPU = '"target-cpu"="x86-64" "target-features"=""'  # attributes of functions
# What LLVM may use for tensors and addresses: leaf of cpuid, part of it, register (1 for ebx) -> bit by feature.
_BITS = {
    (1, 0, 2): {"fma": 12, "movbe": 22, "osxsave": 27, "avx": 28, "f16c": 29},
    (7, 0, 1): {"bmi": 3, "avx2": 5, "bmi2": 8, "avx512f": 16, "avx512dq": 17, "avx512ifma": 21, "avx512cd": 28}
    | {"avx512bw": 30, "avx512vl": 31},
    (7, 0, 2): {"avx512vbmi": 1, "avx512vbmi2": 6, "gfni": 8, "avx512vnni": 11, "avx512bitalg": 12}
    | {"avx512vpopcntdq": 14},
    (7, 0, 3): {"avx512fp16": 23},
    (7, 1, 0): {"avxvnni": 4, "avx512bf16": 5},
    (0x80000001, 0, 2): {"lzcnt": 5},
}
_ALWAYS = {"avx", "osxsave"}  # the latter: a program may ask which registers the system keeps
_KEPT, _KEPT_AVX512 = 0x6, 0xE6  # bits of the registers
# As bytes, since LLVM may be without a parser of assembly: cpuid of two words at rdi to four there; xgetbv of 0.
_CPUID = bytes.fromhex("53 8b07 8b4f04 0fa2 8907 895f04 894f08 89570c 5b c3")
_XGETBV = bytes.fromhex("31c9 0f01d0 c3")


def cpu_check(target: Target) -> str:
    """Return the definition of `@cpu.fits`, which returns an i1; nothing for a target whose CPUs are not asked."""
    if target.architecture != "x86_64":
        return ""
    wanted = _ALWAYS.union(target.features)
    masks = {place: sum(1 << bit for name, bit in bits.items() if name in wanted) for place, bits in _BITS.items()}
    asked = [(place, mask) for place, mask in masks.items() if mask]
    questions = "".join(_ask(number, *place, mask) for number, (place, mask) in enumerate(asked))
    kept = _KEPT_AVX512 if any(name.startswith("avx512") for name in wanted) else _KEPT
    return f"""\
@cpu.answer = internal global i32 0, align 4
{_bytes("cpu.id", _CPUID)}{_bytes("cpu.kept", _XGETBV)}
define internal i1 @cpu.fits() noinline {ANY_CPU} {{
  %words = alloca [4 x i32], align 4
  %known = load atomic i32, ptr @cpu.answer monotonic, align 4
  switch i32 %known, label %yes [ i32 0, label %ask0  i32 2, label %no ]
{questions}ask{len(asked)}:
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
