"""The machines patc compiles for, as the numbers that schedules are chosen by."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass, field, replace

from patc.costs import CoreCosts, GpuCosts
from patc.diagnostics import PatcError, nearest
from patc.numerics import Numerics

MOST_THREADS = 1024
AARCH64_SYSTEMS = {"aarch64-linux": "aarch64-unknown-linux-gnu", "aarch64-android": "aarch64-unknown-linux-android29"}
DEFAULT_CPU = "cortex-a76"


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
        pipes: vector instructions that start in one cycle, however short the vectors.
        decoded: instructions that enter a core in one cycle.
        cheap_shift: whether two neighbouring registers shift into one in a single instruction that does not compete
            with multiply-adds, so that a shift is better than an unaligned load.
        features: instruction set extensions that the code may use, as LLVM spells them.
        backend: name of the backend that compiles for it, see `patc.backends.registry`.
        model: the name of the cost model that chooses schedules, see `patc.passes.cost.models`.
        costs: the numbers that it reads.
    """

    name: str
    triple: str
    cpu: str
    lanes: int
    registers: int
    fma_lanes: int
    load_bytes: int
    pipes: int
    decoded: int
    cheap_shift: bool
    features: tuple[str, ...] = ()
    backend: str = "host"
    model: str = "host"
    costs: CoreCosts | GpuCosts = field(default_factory=CoreCosts)

    @property
    def is_aarch64(self) -> bool:
        """Whether the target has NEON, and code for it comes from llvmlite unless it is this machine."""
        return self.triple.startswith(("aarch64", "arm64"))

    @property
    def is_gpu(self) -> bool:
        """Whether the target runs kernels through Vulkan; of its numbers only `lanes` counts then."""
        return self.triple.startswith("spirv")

    def computes_in(self, numerics: Numerics) -> bool:
        """Return whether the CPU multiplies and adds the element type without a detour through another."""
        return not numerics.features or not set(numerics.features).isdisjoint(self.features)


_V3_FEATURES = ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
_V4_FEATURES = (*_V3_FEATURES, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
X86_64_V3 = Target("x86-64-v3", "x86_64-unknown-linux-gnu", "x86-64-v3", 8, 16, 16, 64, 2, 6, False, _V3_FEATURES)
X86_64_V4 = Target("x86-64-v4", "x86_64-unknown-linux-gnu", "x86-64-v4", 16, 32, 16, 64, 2, 6, True, _V4_FEATURES)


def _neon(cpu: str, fma_lanes: int, load_bytes: int, pipes: int, decoded: int, features: tuple[str, ...]) -> Target:
    widths = 4, 32, fma_lanes, load_bytes, pipes, decoded
    costs = CoreCosts(stationary_ends_cycles=3.0)
    return Target("", "", cpu, *widths, False, ("neon", *features), "aarch64", model="neon", costs=costs)


_V8_2 = ("dotprod", "fullfp16")
# Widths from Arm's software optimization guides; those of Apple's core are measured ones that others published.
AARCH64_CPUS = {
    target.cpu: target
    for target in (
        _neon("cortex-a53", 4, 8, 1, 2, ()),
        _neon("cortex-a55", 4, 8, 1, 2, _V8_2),
        _neon("cortex-a72", 4, 16, 1, 3, ()),
        _neon("cortex-a76", 8, 32, 2, 4, _V8_2),
        _neon("neoverse-n1", 8, 32, 2, 4, _V8_2),
        _neon("cortex-x1", 16, 48, 4, 5, _V8_2),
        _neon("apple-m1", 16, 48, 4, 8, _V8_2),
    )
}


def aarch64(system: str, cpu: str = DEFAULT_CPU) -> Target:
    """Return the target of an AArch64 system, a key of `AARCH64_SYSTEMS`, and CPU.

    The name is `system`, with the CPU behind a colon where it is not the default one.

    Raises:
        PatcError: an unknown CPU; the message lists the known ones.
    """
    if cpu not in AARCH64_CPUS:
        known = ", ".join(AARCH64_CPUS)
        raise PatcError(f"expected a CPU of {known}, got '{cpu}'{nearest(cpu, list(AARCH64_CPUS))}")
    name = system if cpu == DEFAULT_CPU else f"{system}:{cpu}"
    return replace(AARCH64_CPUS[cpu], name=name, triple=AARCH64_SYSTEMS[system])


TARGETS = {target.name: target for target in (X86_64_V3, X86_64_V4, *(aarch64(system) for system in AARCH64_SYSTEMS))}


SPIRV_VULKAN = Target(
    "spirv-vulkan",
    "spirv1.3-unknown-vulkan1.1",
    "",
    *(4, 32, 4, 16, 1, 1),
    False,
    backend="vulkan",
    model="gpu",
    costs=GpuCosts(),
)


@functools.cache
def host() -> Target:
    """Return the target of this machine: code for it may use all its CPU has.

    Raises:
        PatcError: an x86-64 machine without AVX2 and FMA, or another architecture than x86-64 and AArch64.
    """
    import llvmlite.binding as llvm

    features = host_features()
    if is_aarch64_host():
        # The widths are those of a common CPU where this one is not known.
        like = AARCH64_CPUS.get(llvm.get_host_cpu_name(), AARCH64_CPUS[DEFAULT_CPU])
        known = {"neon", *_V8_2} & features
        found = {"triple": llvm.get_process_triple(), "features": tuple(sorted(known)), "backend": "host"}
        return replace(like, name="host", cpu="", **found)
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise PatcError(f"expected an x86-64 or AArch64 host, found {platform.machine().lower()}")
    for target in (X86_64_V4, X86_64_V3):
        if features.issuperset(target.features):
            return replace(target, name="host", cpu="", features=tuple(sorted(features)))
    raise PatcError("expected a CPU with AVX2 and FMA, found one without")


def is_aarch64_host() -> bool:
    """Return whether this machine runs code for AArch64."""
    return platform.machine().lower() in ("aarch64", "arm64")


@functools.cache
def host_features() -> frozenset[str]:
    """Return the names of the instruction set extensions of this machine, as LLVM spells them."""
    import llvmlite.binding as llvm

    found = {name for name, present in llvm.get_host_cpu_features().items() if present}
    if is_aarch64_host():
        found.add("neon")
        if platform.system() == "Darwin":  # where LLVM does not ask; every Mac of this architecture has these
            found.update(_V8_2)
    return frozenset(found)


def get_target(name: str | Target) -> Target:
    """Return the target called `name`; a `Target` is returned as it is.

    Raises:
        PatcError: an unknown name; the message lists the known ones.
    """
    if isinstance(name, Target):
        return name
    if name == "host":
        return host()
    system, colon, cpu = name.partition(":")
    if colon and system in AARCH64_SYSTEMS:
        return aarch64(system, cpu)
    if name == SPIRV_VULKAN.name:
        return SPIRV_VULKAN
    if name not in TARGETS:
        known = ["host", *TARGETS, SPIRV_VULKAN.name]
        raise PatcError(f"expected a target of {', '.join(known)}, got '{name}'{nearest(name, known)}")
    return TARGETS[name]
