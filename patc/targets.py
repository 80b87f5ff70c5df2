"""The machines patc compiles for, as data: what code for them may use, and the numbers that schedules are chosen by."""

from __future__ import annotations

import functools
import platform
import re
from dataclasses import dataclass, field, fields, replace

from patc.costs import CoreCosts, GpuCosts, check_numbers
from patc.cpus import AARCH64, KIB, X86, Cpu
from patc.diagnostics import PatcError, nearest
from patc.locks import loading
from patc.numerics import Numerics

MOST_THREADS = 1024
AARCH64_SYSTEMS = {"aarch64-linux": "aarch64-unknown-linux-gnu", "aarch64-android": "aarch64-unknown-linux-android29"}
DEFAULT_CPU = "cortex-a76"


@dataclass(frozen=True)
class Target:
    """A machine to compile for: `dataclasses.replace` of another one, or a new one.

    Attributes:
        name: what messages and compiled files call it; what the user writes, if it is registered.
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
        model: name of the cost model that chooses schedules, see `patc.passes.cost.models`.
        costs: the numbers that it reads.
        simd: name of the rewriting of vector ops that suits it, see `patc.passes.vectors.families`; "" for none.
        algorithms: which of a layer's algorithms compute it: "host" or "gpu", see `patc.passes.layers.base`.
        vector_rows: whether rows of activations start on a vector, halo or not, so that one thread stores each vector.
        splits_phases: whether even and odd columns lie apart for convolutions of stride 2.

    Raises:
        PatcError: a number or name that code cannot be generated for.
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
    simd: str = ""
    algorithms: str = "host"
    vector_rows: bool = False
    splits_phases: bool = True

    def __post_init__(self) -> None:
        for item in fields(self):
            kind, value = {"str": str, "bool": bool}.get(str(item.type)), getattr(self, item.name)
            if kind is not None and type(value) is not kind:
                raise PatcError(f"target {self.name!r} expected {item.name} to be {item.type}, got {value!r}")
        check_numbers(self, f"target '{self.name}'")
        for expected, found, is_met in (
            ("a name of one word", self.name, re.fullmatch(r"\S+", self.name)),
            ("a triple", self.triple, self.triple),
            ("CPU and features as LLVM spells them", (self.cpu, self.features), self._spells_features()),
            ("lanes to be a power of two from 4 to 64", self.lanes, self.lanes in (4, 8, 16, 32, 64)),
            ("registers of 8 or more", self.registers, self.registers >= 8),
            ("costs to be CoreCosts or GpuCosts", self.costs, isinstance(self.costs, (CoreCosts, GpuCosts))),
            ("algorithms to be 'host' or 'gpu'", self.algorithms, self.algorithms in ("host", "gpu")),
        ):
            if not is_met:
                raise PatcError(f"target '{self.name}' expected {expected}, got {found!r}")

    def _spells_features(self) -> bool:
        """Return whether CPU and features can stand in LLVM's lists of them."""
        if not isinstance(self.features, tuple) or not all(isinstance(name, str) for name in self.features):
            return False
        return all(re.fullmatch(r"[\w.-]+", name) for name in (self.cpu or "host", *self.features))

    @property
    def architecture(self) -> str:
        """The instruction set, by LLVM's name."""
        name = self.triple.partition("-")[0]
        return {"arm64": "aarch64"}.get(name, name)

    @property
    def pipe_lanes(self) -> int:
        """f32 elements that one multiply-add multiplies in the time of fewer."""
        return max(1, self.fma_lanes // self.pipes)

    def core_costs(self) -> CoreCosts:
        """Return the costs of a CPU.

        Raises:
            PatcError: the target has those of another machine.
        """
        if not isinstance(self.costs, CoreCosts):
            found = type(self.costs).__name__
            raise PatcError(f"target '{self.name}' expected CoreCosts for kernels of CPUs, got {found}")
        return self.costs

    def computes_in(self, numerics: Numerics) -> bool:
        """Return whether the CPU multiplies and adds the element type without a detour through another."""
        return not numerics.features or not set(numerics.features).isdisjoint(self.features)


_X86 = "x86_64-unknown-linux-gnu"
_V3_FEATURES = ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
_V4_FEATURES = (*_V3_FEATURES, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
X86_LEVELS = {"x86-64-v3": (8, 16, _V3_FEATURES), "x86-64-v4": (16, 32, _V4_FEATURES)}  # lanes, registers, features
DEFAULT_X86 = {"x86-64-v3": "znver3", "x86-64-v4": "znver4"}  # whose costs a level has; they were measured
_NEWEST = (("sapphirerapids", "amx-tile"),)
# CPUs that have the cores, or nearly, of one in the table.
_ALIKE = {
    "broadwell": "haswell",
    **dict.fromkeys(("cascadelake", "cooperlake", "cannonlake"), "skylake-avx512"),
    **dict.fromkeys(("rocketlake", "tigerlake"), "icelake-client"),
    **dict.fromkeys(("raptorlake", "meteorlake", "arrowlake", "arrowlake-s", "lunarlake", "pantherlake"), "alderlake"),
    **dict.fromkeys(("sierraforest", "grandridge", "clearwaterforest"), "gracemont"),
    **dict.fromkeys(("emeraldrapids", "graniterapids", "graniterapids-d", "diamondrapids"), "sapphirerapids"),
}


def x86(level: str, cpu: str | None = None) -> Target:
    """Return the target of an instruction set, a key of `X86_LEVELS`; its costs are those of a CPU that has it.

    The name is `level`, with the CPU behind a colon where it is not the default one. The code runs on every CPU of the
    level.

    Raises:
        PatcError: no CPU of the level; the message lists those.
    """
    lanes, registers, features = X86_LEVELS[level]
    cpu = cpu or DEFAULT_X86[level]
    row = _find_cpu(cpu, {name: row for name, row in X86.items() if row.lanes >= lanes}).narrowed(lanes)
    return Target(
        level if cpu == DEFAULT_X86[level] else f"{level}:{cpu}",
        _X86,
        level,
        *(lanes, registers, row.fma_lanes, row.load_bytes, row.pipes, row.decoded),
        cheap_shift=lanes == 16,
        features=features,
        costs=row.costs(),
        simd="x86",
    )


def _find_cpu(name: str, known: dict[str, Cpu]) -> Cpu:
    if name not in known:
        raise PatcError(f"expected a CPU of {', '.join(known)}, got '{name}'{nearest(name, list(known))}")
    return known[name]


_V8_2 = ("dotprod", "fullfp16")
_WITHOUT_V8_2 = ("cortex-a53", "cortex-a72")


def aarch64(system: str, cpu: str = DEFAULT_CPU) -> Target:
    """Return the target of an AArch64 system, a key of `AARCH64_SYSTEMS`, and CPU.

    The name is `system`, with the CPU behind a colon where it is not the default one.

    Raises:
        PatcError: an unknown CPU; the message lists the known ones.
    """
    row = _find_cpu(cpu, AARCH64)
    return Target(
        system if cpu == DEFAULT_CPU else f"{system}:{cpu}",
        AARCH64_SYSTEMS[system],
        cpu,
        *(row.lanes, 32, row.fma_lanes, row.load_bytes, row.pipes, row.decoded),
        cheap_shift=False,
        features=("neon", *(() if cpu in _WITHOUT_V8_2 else _V8_2)),
        backend="aarch64",
        model="neon",
        # By the other caches and the latency of its row tiles were chosen whose loops left the peak: test_neon_loops.
        costs=CoreCosts(
            stationary_ends_cycles=3.0,
            first_level_ways=row.ways,
            way_bytes=row.level1 * KIB // row.ways,
        ),
        simd="neon",
    )


AARCH64_CPUS = {cpu: aarch64("aarch64-linux", cpu) for cpu in AARCH64}
TARGETS = {target.name: target for target in (*map(x86, X86_LEVELS), *map(aarch64, AARCH64_SYSTEMS))}
X86_64_V3, X86_64_V4 = (TARGETS[level] for level in X86_LEVELS)


SPIRV_VULKAN = Target(
    "spirv-vulkan",
    "spirv1.3-unknown-vulkan1.1",
    "",
    *(4, 32, 4, 16, 1, 1),
    cheap_shift=False,
    backend="vulkan",
    model="gpu",
    costs=GpuCosts(),
    algorithms="gpu",
    vector_rows=True,
    splits_phases=False,
)
# What devices of Vulkan 1.3 have, and others by an extension.
SPIRV_VULKAN_DOTS = replace(SPIRV_VULKAN, name="spirv-vulkan:dotprod", features=("dotprod",))
_registered: dict[str, Target] = {}


def register_target(target: Target) -> None:
    """Let users name a target: `get_target`, options and the tools find it.

    Raises:
        PatcError: there is one of that name already.
    """
    if target.name == "host" or target.name in _registered:
        raise PatcError(f"expected a new name for a target, got '{target.name}'")
    _registered[target.name] = target


def known_targets() -> tuple[Target, ...]:
    """Return the targets that have a name of their own: all that are registered, but not this machine."""
    return tuple(_registered.values())


for _target in (*TARGETS.values(), SPIRV_VULKAN, SPIRV_VULKAN_DOTS):
    register_target(_target)


@functools.cache
def host() -> Target:
    """Return the target of this machine: code for it may use all its CPU has. Its costs are those that `patc calibrate`
    measured, if it did.

    Raises:
        PatcError: as `uncalibrated_host`.
    """
    from patc.bench.machine import cpu_name
    from patc.calibration.store import calibrated

    found: Target = calibrated(uncalibrated_host(), cpu_name())
    return found


def uncalibrated_host() -> Target:
    """Return the target of this machine, with the costs that its table says.

    Raises:
        PatcError: an x86-64 machine without AVX2 and FMA, or another architecture than x86-64 and AArch64.
    """
    with loading():
        import llvmlite.binding as llvm

    features = host_features()
    if is_aarch64_host():
        like = aarch64("aarch64-linux", host_cpu())
        known = {"neon", *_V8_2} & features
        found = {"triple": llvm.get_process_triple(), "features": tuple(sorted(known)), "backend": "host"}
        return replace(like, name="host", cpu="", **found)
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise PatcError(f"expected an x86-64 or AArch64 host, found {platform.machine().lower()}")
    for level in reversed(X86_LEVELS):
        if features.issuperset(X86_LEVELS[level][2]):
            cpu = host_cpu() if X86[host_cpu()].lanes >= X86_LEVELS[level][0] else DEFAULT_X86[level]
            return replace(x86(level, cpu), name="host", cpu="", features=tuple(sorted(features)))
    raise PatcError("expected a CPU with AVX2 and FMA, found one without")


def fitted_costs(target: Target) -> frozenset[str]:
    """Return the names of the costs of this machine's target that were fitted to layers on a CPU of its kind."""
    row = None if is_aarch64_host() else X86[host_cpu()].narrowed(target.lanes)
    return frozenset() if row is None else frozenset(row.fitted)


@functools.cache
def host_cpu() -> str:
    """Return the name of the CPU whose row of `patc.cpus` is the nearest to this machine's."""
    with loading():
        import llvmlite.binding as llvm

    name, features = llvm.get_host_cpu_name(), host_features()
    if is_aarch64_host():
        return name if name in AARCH64 else DEFAULT_CPU
    for newest, feature in _NEWEST:  # virtual machines tell less of the model than of its instructions
        if feature in features:
            return newest
    name = _ALIKE.get(name, name)
    return name if name in X86 else DEFAULT_X86["x86-64-v4"]


def is_aarch64_host() -> bool:
    """Return whether this machine runs code for AArch64."""
    return platform.machine().lower() in ("aarch64", "arm64")


@functools.cache
def require_runnable(target: Target) -> None:
    """Refuse a target whose code this machine does not run.

    Raises:
        PatcError: it is of another backend, or its code needs what this CPU lacks.
    """
    if target.backend != "host" or not host_features().issuperset(target.features):
        raise PatcError(f"expected a target whose code this machine runs, got '{target.name}'")


@functools.cache
def host_features() -> frozenset[str]:
    """Return the names of the instruction set extensions of this machine, as LLVM spells them; asks no LLVM."""
    with loading():
        from patc.runtime.cpu_features import aarch64_features, x86_features

    if platform.machine().lower() in ("x86_64", "amd64"):
        return x86_features()
    if not is_aarch64_host():
        return frozenset()
    # Every Mac of this architecture has the latter.
    return frozenset({"neon", *aarch64_features(), *(_V8_2 if platform.system() == "Darwin" else ())})


def with_cpu(name: str, cpu: str) -> Target:
    """Return the target called `name` for a CPU, which names its microarchitecture.

    Raises:
        PatcError: an unknown CPU, or a target that has a CPU already or one for all machines.
    """
    if name not in TARGETS:
        raise PatcError(f"expected a target of {', '.join(TARGETS)} together with a CPU, got '{name}'")
    return x86(name, cpu) if name in X86_LEVELS else aarch64(name, cpu)


def get_target(name: str | Target) -> Target:
    """Return the target called `name`; a `Target` is returned as it is.

    Raises:
        PatcError: an unknown name; the message lists the known ones.
    """
    if isinstance(name, Target):
        return name
    if name == "host":
        return host()
    if name in _registered:
        return _registered[name]
    system, colon, cpu = name.partition(":")
    if colon and system in TARGETS:
        return with_cpu(system, cpu)
    known = ["host", *_registered]
    raise PatcError(f"expected a target of {', '.join(known)}, got '{name}'{nearest(name, known)}")
