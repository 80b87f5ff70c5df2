"""Code in memory without LLVM: what it is linked to, what may be written and run, and which CPUs it is for."""

from __future__ import annotations

import base64
import gc
import platform
import re
import zlib
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
import torch
from torch import nn

import patc
from patc.bench.emulator import import_arm
from patc.diagnostics import PatcError
from patc.runtime import cpu_features, linking, team, team_objects
from patc.runtime.linking import LinkedCode, function_address
from patc.runtime.object_code import AARCH64, X86_64
from patc.targets import host_features

MAPS = Path("/proc/self/maps")
on_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="asks an x86-64 CPU")


@on_x86
def test_extensions_are_those_that_llvm_finds() -> None:
    found = llvm.get_host_cpu_features()
    assert host_features() == {name for name, present in found.items() if present}
    names = {item.partition(":")[0] for row in cpu_features.ROWS for item in row[-1].split()}
    assert names | {"avx10.1", "avx10.2"} == {*found}


@pytest.mark.parametrize(("state", "present"), [(0xE6, True), (0x6, False)])
def test_extensions_need_a_system_that_saves_their_registers(state: int, present: bool) -> None:
    """Of a CPU that has everything up to leaf 7."""
    ones = 0xFFFFFFFF
    found = {*cpu_features.decode(lambda leaf, sub: (7 if leaf == 0 else ones,) + (ones,) * 3, lambda: state)}
    assert ("avx512f" in found) is present
    assert "avx2" in found and "amx-tile" not in found and "ptwrite" not in found


@pytest.mark.parametrize(("machine", "name"), [(X86_64, "x86_64"), (AARCH64, "aarch64")])
def test_functions_of_threads_are_of_their_text(machine: int, name: str) -> None:
    """As `llvm_version_info` (22, 1, 0) writes them; of another LLVM only the names are compared."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(f"{name}-unknown-linux-gnu")
    writer = target.create_target_machine(codemodel="large", reloc="static", opt=2)
    made = writer.emit_object(llvm.parse_assembly(team.team_text(name)))
    kept = zlib.decompress(base64.b85decode(team_objects.OBJECTS[machine]))
    if llvm.llvm_version_info == (22, 1, 0):
        assert kept == made, base64.b85encode(zlib.compress(made, 9))
    assert all(text.encode() in kept for text in team.ENTRY_POINTS)


def test_code_of_aarch64_reaches_far_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulated core fetches a call's target 4 GB away from the code."""
    try:
        unicorn = import_arm("unicorn")
    except PatcError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    code = zlib.decompress(base64.b85decode(team_objects.OBJECTS[AARCH64]))
    far, back = 0x10000, 0x20000
    linked = LinkedCode(code, dict.fromkeys(team.LIBRARY_FUNCTIONS, far))
    pages = linked._pages
    engine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    engine.mem_map(far, 0x20000)
    engine.mem_write(far, bytes.fromhex("e0048052 c0035fd6"))  # mov w0, 39; ret
    engine.mem_map(pages.address, pages.size + -pages.size % 4096)
    engine.mem_write(pages.address, linking.ctypes.string_at(pages.address, pages.size))
    registers = __import__("unicorn.arm64_const", fromlist=["x"])
    engine.reg_write(registers.UC_ARM64_REG_X30, back)
    engine.reg_write(registers.UC_ARM64_REG_SP, back + 0x8000)
    # No key to keep numbers under: the caller is alone.
    engine.reg_write(registers.UC_ARM64_REG_X2, far)
    engine.emu_start(linked.address_of("__kmpc_fork_call"), back)
    engine.emu_start(linked.address_of("omp_get_num_threads"), back)
    assert engine.reg_read(registers.UC_ARM64_REG_X0) == 1


@pytest.mark.skipif(not MAPS.exists(), reason="needs a list of the process's memory")
def test_code_is_never_writable_and_goes_with_its_model() -> None:
    compiled = patc.compile(nn.Conv2d(4, 4, 3).eval(), (torch.zeros(1, 4, 8, 8),), threads=1)
    pages = compiled._function._code._pages  # type: ignore[attr-defined]
    assert compiled(np.ones((1, 4, 8, 8), np.float32)).shape == (1, 4, 6, 6)
    found = mappings(pages.address, pages.size)
    code = [each for each in found if each[1] == "r-xp"]
    assert code and not any("w" in rights and "x" in rights for _, rights in found)
    address, size = pages.address, pages.size
    del compiled, pages
    gc.collect()
    assert not {*code} & {*mappings(address, size)}


def mappings(address: int, size: int) -> list[tuple[str, str]]:
    """Return place and rights of the mappings of some memory."""
    rows = re.findall(r"^(([0-9a-f]+)-([0-9a-f]+)) (\S+)", MAPS.read_text(), re.MULTILINE)
    inside = [row for row in rows if int(row[2], 16) > address and int(row[1], 16) < address + size]
    return [(place, rights) for place, _, _, rights in inside]


def test_functions_that_the_c_library_lacks_are_named() -> None:
    assert function_address("memcpy")
    with pytest.raises(PatcError, match="expected a C library with 'fly', found one without"):
        function_address("fly")
