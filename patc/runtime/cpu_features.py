"""Instruction set extensions of this machine, as LLVM spells them, without LLVM.

Bits are those of CPUID in the software developer's manuals of Intel (325462) and AMD (24594).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from patc.runtime.code_pages import EXECUTABLE, Pages

# What the system has to save of a thread for an extension, as bits of XCR0; no bits where XSAVE itself is enough.
_XSAVE, _AVX, _AVX512, _AMX, _APX = 0, 0x6, 0xE6, 0x60000, 0x80000
_EAX, _EBX, _ECX, _EDX = range(4)
Place = tuple[int, int, int]  # leaf, sub-leaf, register
# Leaf, sub-leaf, register, what has to be saved (None: nothing): names by their bits.
_Row = tuple[int, int, int, "int | None", str]
ROWS: tuple[_Row, ...] = (
    (1, 0, _EDX, None, "cx8:8 cmov:15 mmx:23 fxsr:24 sse:25 sse2:26"),
    (
        1,
        0,
        _ECX,
        None,
        "sse3:0 pclmul:1 ssse3:9 cx16:13 sse4.1:19 sse4.2:20 crc32:20 movbe:22 popcnt:23 aes:25 rdrnd:30",
    ),
    (1, 0, _ECX, _XSAVE, "xsave:26"),
    (1, 0, _ECX, _AVX, "fma:12 avx:28 f16c:29"),
    (7, 0, _EBX, None, "fsgsbase:0 sgx:2 bmi:3 bmi2:8 invpcid:10 rtm:11 rdseed:18 adx:19 clflushopt:23 clwb:24 sha:29"),
    (7, 0, _EBX, _AVX, "avx2:5"),
    (7, 0, _EBX, _AVX512, "avx512f:16 avx512dq:17 avx512ifma:21 avx512cd:28 avx512bw:30 avx512vl:31"),
    (7, 0, _ECX, None, "pku:4 waitpkg:5 shstk:7 gfni:8 rdpid:22 kl:23 cldemote:25 movdiri:27 movdir64b:28 enqcmd:29"),
    (7, 0, _ECX, _AVX, "vaes:9 vpclmulqdq:10"),
    (7, 0, _ECX, _AVX512, "avx512vbmi:1 avx512vbmi2:6 avx512vnni:11 avx512bitalg:12 avx512vpopcntdq:14"),
    (7, 0, _EDX, None, "uintr:5 serialize:14 tsxldtrk:16 pconfig:18"),
    (7, 0, _EDX, _AVX512, "avx512vp2intersect:8 avx512fp16:23"),
    (7, 0, _EDX, _AMX, "amx-bf16:22 amx-tile:24 amx-int8:25"),
    (7, 1, _EAX, None, "raoint:3 cmpccxadd:7 hreset:22 movrs:31"),
    (7, 1, _EAX, _AVX, "sha512:0 sm3:1 sm4:2 avxvnni:4 avxifma:23"),
    (7, 1, _EAX, _AVX512, "avx512bf16:5"),
    (7, 1, _EAX, _AMX, "amx-fp16:21"),
    (7, 1, _EDX, None, "prefetchi:14 usermsr:15"),
    (7, 1, _EDX, _AVX, "avxvnniint8:4 avxneconvert:5 avxvnniint16:10"),
    (7, 1, _EDX, _AMX, "amx-complex:8"),
    (7, 1, _EDX, _APX, "egpr:21 push2pop2:21 ppx:21 ndd:21 ccmp:21 nf:21 cf:21 zu:21"),
    (0xD, 1, _EAX, _XSAVE, "xsaveopt:0 xsavec:1 xsaves:3"),
    (0x14, 0, _EBX, None, "ptwrite:4"),
    (0x19, 0, _EBX, None, "widekl:2"),
    (0x1E, 1, _EAX, _AMX, "amx-fp8:4 amx-tf32:6 amx-avx512:7 amx-movrs:8"),
    (0x80000001, 0, _ECX, None, "sahf:0 lzcnt:5 sse4a:6 prfchw:8 lwp:15 tbm:21 mwaitx:29"),
    (0x80000001, 0, _ECX, _AVX, "xop:11 fma4:16"),
    (0x80000001, 0, _EDX, None, "64bit:29"),
    (0x80000008, 0, _EBX, None, "clzero:0 rdpru:4 wbnoinvd:9"),
)
_AVX10 = 19  # bit of leaf 7.1's EDX; leaf 0x24 has the version
OSXSAVE: tuple[Place, int] = ((1, 0, _ECX), 27)  # place and bit: a program may ask what the system saves
_CPUID = (
    "53 49 89 d0 89 f8 89 f1 0f a2 41 89 00 41 89 58 04 41 89 48 08 41 89 50 0c 5b c3"  # (leaf, sub-leaf, registers)
)
_XGETBV = "31 c9 0f 01 d0 c3"
_XGETBV_PLACE = 32  # behind CPUID
# What the kernel calls the extensions that patc asks AArch64 CPUs for.
_AARCH64 = {"asimd": "neon", "asimddp": "dotprod", "fphp": "fullfp16"}

Registers = tuple[int, int, int, int]


def x86_features() -> frozenset[str]:
    """Return the extensions of this x86-64 machine that its system lets programs use.

    Raises:
        PatcError: the system grants no memory for code.
    """
    code = bytes.fromhex(_CPUID).ljust(_XGETBV_PLACE) + bytes.fromhex(_XGETBV)
    pages = Pages(len(code))
    pages.write(0, code)
    pages.protect(0, len(code), EXECUTABLE)
    ask = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(pages.address)
    state = ctypes.CFUNCTYPE(ctypes.c_uint32)(pages.address + _XGETBV_PLACE)

    @functools.cache  # virtual machines answer slowly
    def read(leaf: int, sub: int) -> Registers:
        found = (ctypes.c_uint32 * 4)()
        ask(leaf, sub, ctypes.addressof(found))
        return found[0], found[1], found[2], found[3]

    return frozenset(decode(read, state))


def decode(read: Callable[[int, int], Registers], state: Callable[[], int]) -> Iterator[str]:
    """Yield the extensions of a CPU.

    Args:
        read: what CPUID leaves in EAX, EBX, ECX and EDX for a leaf and a sub-leaf.
        state: the low half of XCR0; is called where the CPU has it.
    """
    last = {0: read(0, 0)[_EAX], 0x80000000: read(0x80000000, 0)[_EAX]}
    (leaf, sub, register), bit = OSXSAVE
    saves = state() if read(leaf, sub)[register] >> bit & 1 else None

    def bits(leaf: int, sub: int, register: int) -> int:
        return read(leaf, sub)[register] if leaf <= last[leaf & 0x80000000] else 0

    for leaf, sub, register, needed, names in ROWS:
        if needed is not None and (saves is None or saves & needed != needed):
            continue
        if leaf == 7 and sub > bits(7, 0, _EAX):
            continue
        value = bits(leaf, sub, register)
        yield from (name for name, bit in _bits(names) if value >> bit & 1)
    if bits(7, 0, _EAX) >= 1 and bits(7, 1, _EDX) >> _AVX10 & 1 and saves is not None and saves & _AVX512 == _AVX512:
        version = bits(0x24, 0, _EBX) & 0xFF
        yield from (f"avx10.{number}" for number in (1, 2) if version >= number)


def find_bits(features: Collection[str]) -> tuple[dict[Place, int], int]:
    """Return where CPUID has the bits of extensions, as a mask for each place, and what the system has to save."""
    masks, saved = dict[Place, int](), 0
    for leaf, sub, register, needed, names in ROWS:
        wanted = [1 << bit for name, bit in _bits(names) if name in features]
        if wanted:
            masks[leaf, sub, register] = masks.get((leaf, sub, register), 0) | sum(wanted)
            saved |= needed or 0
    return masks, saved


def _bits(names: str) -> list[tuple[str, int]]:
    """Return the names of a row and their bits."""
    return [(name, int(bit)) for name, _, bit in (item.partition(":") for item in names.split())]


def aarch64_features() -> frozenset[str]:
    """Return those of the extensions which patc asks for that this AArch64 Linux machine has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    words = {word for line in lines if line.startswith("Features") for word in line.partition(":")[2].split()}
    return frozenset(name for word, name in _AARCH64.items() if word in words)
