"""What a benchmark says about the machine and the software it ran on."""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from patc.backends.host import available_threads

KIB, MIB = 1024, 1024 * 1024

_CPU = Path("/sys/devices/system/cpu/cpu0")


@dataclass(frozen=True)
class Caches:
    """Sizes in bytes.

    Attributes:
        level1: first-level data cache of one core.
        level2: of one core.
        level3: shared by all cores; equal to `level2` where there is none.
        assumed: the sizes are typical ones, since the machine does not tell.
    """

    level1: int
    level2: int
    level3: int
    assumed: bool = False

    def __str__(self) -> str:
        sizes = (self.level1, self.level2, self.level3)
        text = ", ".join(f"L{level} {_size(size)}" for level, size in enumerate(sizes, start=1))
        return f"{text} (assumed)" if self.assumed else text


TYPICAL = Caches(32 * KIB, MIB, 32 * MIB, assumed=True)


@dataclass(frozen=True)
class Machine:
    """A machine as its operating system describes it.

    Attributes:
        cpu: model name.
        architecture: as in `uname -m`.
        cores: logical processors that this process may run on.
        memory_bytes: 0 where unknown.
        system: operating system and release.
        caches: of one core.
        features: instruction set extensions that matter for kernels.
    """

    cpu: str
    architecture: str
    cores: int
    memory_bytes: int
    system: str
    caches: Caches
    features: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def this_machine() -> Machine:
    """Describe the machine that this process runs on."""
    return Machine(
        cpu=cpu_name(),
        architecture=platform.machine(),
        cores=available_threads(),
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()} {platform.release()}",
        caches=find_caches(),
        features=_features(),
    )


@functools.cache
def find_caches() -> Caches:
    """Return the cache sizes of the first core; `TYPICAL` ones where the system does not tell."""
    sizes = _linux_caches(_CPU / "cache") or _mac_caches()
    if not {1, 2} <= sizes.keys():
        return TYPICAL
    return Caches(sizes[1], sizes[2], sizes.get(3, sizes[2]))


def _linux_caches(folder: Path) -> dict[int, int]:
    """Return the bytes of the data and unified caches by level, from sysfs."""
    sizes: dict[int, int] = {}
    for index in sorted(folder.glob("index*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind in ("Data", "Unified") and level.isdigit():
            sizes[int(level)] = _parse_size(size)
    return {level: size for level, size in sizes.items() if size > 0}


def _parse_size(text: str) -> int:
    """Return the bytes of a size like 32K; 0 for anything else."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    return int(match[1]) * {"": 1, "K": KIB, "M": MIB, "G": KIB * MIB}[match[2]] if match else 0


def _mac_caches() -> dict[int, int]:
    if sys.platform != "darwin":
        return {}
    names = {1: "hw.perflevel0.l1dcachesize", 2: "hw.perflevel0.l2cachesize", 3: "hw.l3cachesize"}
    sizes = {level: _sysctl(name) for level, name in names.items()}
    return {level: int(size) for level, size in sizes.items() if size.isdigit() and size != "0"}


def _sysctl(name: str) -> str:
    try:
        result = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return result.stdout.strip()


def cpu_name() -> str:
    """Return the model name of this machine's CPU."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _features() -> tuple[str, ...]:
    from patc.targets import host_features

    wanted = "avx2 fma avxvnni avx512f avx512vl avx512vnni avx512fp16 neon dotprod fullfp16"
    present = host_features()
    return tuple(name for name in wanted.split() if name in present)


def _size(size: int) -> str:
    return f"{size / MIB:g} MiB" if size >= MIB else f"{size / KIB:g} KiB"
