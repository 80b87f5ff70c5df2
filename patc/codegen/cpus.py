"""Which triples, CPUs and features LLVM knows; with others it ends the process, or generates other code."""

from __future__ import annotations

import functools

import llvmlite.binding as llvm

from patc.diagnostics import PatcError
from patc.native_stderr import native_stderr
from patc.targets import AARCH64_CPUS, TARGETS, Target

_KNOWN = {(known.triple, known.cpu, known.features) for known in (*TARGETS.values(), *AARCH64_CPUS.values())}


@functools.cache
def require_known(target: Target) -> None:
    """Refuse a target for whose CPU LLVM cannot generate code.

    Raises:
        PatcError: its triple, CPU or a feature is unknown.
    """
    if (target.triple, target.cpu, target.features) in _KNOWN:
        return
    llvm.initialize_all_targets()
    try:
        kind = llvm.Target.from_triple(target.triple)
    except RuntimeError:
        expected = "a triple that LLVM generates code for"
        raise PatcError(f"target '{target.name}' expected {expected}, got '{target.triple}'") from None
    with native_stderr() as printed:
        kind.create_target_machine(cpu=target.cpu, features=",".join(f"+{name}" for name in target.features))
    if said := "".join(printed).strip():
        name = said.split("'")[1].removeprefix("+")  # "'+x' is not a recognized feature for this target"
        raise PatcError(f"target '{target.name}' expected a CPU and features that LLVM knows, got '{name}'")
