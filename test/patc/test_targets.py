"""The targets: their names, their CPUs, and what this machine, or another one, is as a host."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Iterator
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from patc import targets
from patc.costs import CoreCosts
from patc.cpus import KEPT
from patc.diagnostics import PatcError
from patc.runtime import cpu_features
from patc.targets import AARCH64_CPUS, AARCH64_SYSTEMS, TARGETS, get_target


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_targets_are_found_by_name(name: str) -> None:
    assert get_target(name) is TARGETS[name]
    assert TARGETS[name].name == name


@pytest.mark.parametrize("system", sorted(AARCH64_SYSTEMS))
@pytest.mark.parametrize("cpu", sorted(AARCH64_CPUS))
def test_aarch64_targets_are_known_to_llvm(system: str, cpu: str) -> None:
    target = get_target(f"{system}:{cpu}")
    assert get_target(target.name) == target, "a pass finds the target by its name"
    assert target.architecture == "aarch64" and target.cpu == cpu and "neon" in target.features
    llvm.initialize_all_targets()
    # An unknown CPU or feature would be a warning on standard error, and generic code.
    machine = llvm.Target.from_triple(target.triple).create_target_machine(cpu=cpu)
    assert machine.triple.startswith("aarch64")


def test_the_default_cpu_has_the_short_name() -> None:
    assert get_target("aarch64-linux:cortex-a76") == get_target("aarch64-linux")
    assert get_target("aarch64-linux:cortex-a55").name == "aarch64-linux:cortex-a55"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("aarch64-linux:cortex-a75", "expected a CPU of .*cortex-a76.*, got 'cortex-a75'; did you mean 'cortex-a7"),
        ("aarch64-linux:", "expected a CPU of .*, got ''"),
        ("aarch64-macos", "expected a target of host, .*aarch64-linux.*, got 'aarch64-macos'"),
        ("x86-64-v4:zen4", "expected a CPU of skylake-avx512, .*, got 'zen4'; did you mean 'znver4'"),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(PatcError, match=message):
        get_target(name)


@pytest.fixture
def another_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for function in (targets.host, targets.host_features, targets.host_cpu):
        function.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for function in (targets.host, targets.host_features, targets.host_cpu):
        function.cache_clear()


@pytest.mark.parametrize(
    ("system", "cpu", "found", "features", "like"),
    [
        ("Linux", "cortex-x1", "fp asimd fphp asimdhp", ("fullfp16", "neon"), "cortex-x1"),
        ("Linux", "cortex-a710", "fp asimd", ("neon",), "cortex-a76"),
        ("Darwin", "apple-m1", "", ("dotprod", "fullfp16", "neon"), "apple-m1"),
    ],
)
def test_aarch64_hosts_use_neon(
    another_machine: pytest.MonkeyPatch,
    system: str,
    cpu: str,
    found: str,
    features: tuple[str, ...],
    like: str,
) -> None:
    another_machine.setattr(platform, "machine", lambda: "arm64" if system == "Darwin" else "aarch64")
    another_machine.setattr(platform, "system", lambda: system)
    another_machine.setattr(Path, "read_text", lambda path: f"processor\t: 0\nFeatures\t: {found}\n")
    another_machine.setattr(llvm, "get_host_cpu_name", lambda: cpu)
    triple = "arm64-apple-darwin24.0.0" if system == "Darwin" else "aarch64-unknown-linux-gnu"
    another_machine.setattr(llvm, "get_process_triple", lambda: triple)
    target = get_target("host")
    assert target.architecture == "aarch64"
    assert target.name == "host" and target.cpu == "" and target.lanes == 4 and target.features == features
    assert (target.fma_lanes, target.decoded) == (AARCH64_CPUS[like].fma_lanes, AARCH64_CPUS[like].decoded)


def test_other_machines_are_no_hosts(another_machine: pytest.MonkeyPatch) -> None:
    another_machine.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(PatcError, match="expected an x86-64 or AArch64 host, found riscv64"):
        get_target("host")


def test_x86_hosts_need_avx2(another_machine: pytest.MonkeyPatch) -> None:
    another_machine.setattr(platform, "machine", lambda: "x86_64")
    another_machine.setattr(cpu_features, "decode", lambda *_: ["sse2"])
    with pytest.raises(PatcError, match="expected a CPU with AVX2 and FMA, found one without"):
        get_target("host")


def test_what_stays_for_shorter_vectors_are_costs() -> None:
    assert {*KEPT} <= {field.name for field in dataclasses.fields(CoreCosts)} and len({*KEPT}) == len(KEPT)
