"""The machines patc compiles for, as the numbers that schedules are chosen by."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass, replace

from patc.diagnostics import PatcError, nearest


@dataclass(frozen=True)
class Target:
    """A machine to compile for.

    Attributes:
        name: what the user writes.
        triple: LLVM target triple.
        cpu: LLVM CPU name; "" for the CPU of this machine.
        lanes: f32 elements of one vector register.
        registers: vector registers.
        fma_lanes: f32 multiply-adds that start in one cycle.
        load_bytes: bytes that load from the first-level cache in one cycle.
        cheap_shift: whether two neighbouring registers shift into one in a single instruction that does not compete
            with multiply-adds, so that a shift is better than an unaligned load.
        features: instruction set extensions that the code may use, as LLVM spells them.
    """

    name: str
    triple: str
    cpu: str
    lanes: int
    registers: int
    fma_lanes: int
    load_bytes: int
    cheap_shift: bool
    features: tuple[str, ...] = ()


_V3_FEATURES = ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
_V4_FEATURES = (*_V3_FEATURES, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
X86_64_V3 = Target("x86-64-v3", "x86_64-unknown-linux-gnu", "x86-64-v3", 8, 16, 16, 64, False, _V3_FEATURES)
X86_64_V4 = Target("x86-64-v4", "x86_64-unknown-linux-gnu", "x86-64-v4", 16, 32, 16, 64, True, _V4_FEATURES)
NEON = Target("neon", "aarch64-unknown-linux-gnu", "", 4, 32, 8, 32, False, ("neon",))
TARGETS = {target.name: target for target in (X86_64_V3, X86_64_V4)}


@functools.cache
def host() -> Target:
    """Return the target of this machine.

    Raises:
        PatcError: an x86-64 machine without AVX2 and FMA, or another architecture than x86-64 and AArch64.
    """
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return replace(NEON, name="host")
    if machine not in ("x86_64", "amd64"):
        raise PatcError(f"expected an x86-64 or AArch64 host, found {machine}")
    features = host_features()
    for target in (X86_64_V4, X86_64_V3):
        if features.issuperset(target.features):
            # Code for this very CPU may use all it has.
            return replace(target, name="host", cpu="", features=tuple(sorted(features)))
    raise PatcError("expected a CPU with AVX2 and FMA, found one without")


@functools.cache
def host_features() -> frozenset[str]:
    """Return the names of the instruction set extensions of this machine, as LLVM spells them."""
    import llvmlite.binding as llvm

    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


def get_target(name: str | Target) -> Target:
    """Return the target called `name`; a `Target` is returned as it is.

    Raises:
        PatcError: an unknown name; the message lists the known ones.
    """
    if isinstance(name, Target):
        return name
    if name == "host":
        return host()
    if name not in TARGETS:
        known = ["host", *TARGETS]
        raise PatcError(f"expected a target of {', '.join(known)}, got '{name}'{nearest(name, known)}")
    return TARGETS[name]
