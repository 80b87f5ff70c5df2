"""Targets that patc does not know: made by the user, with cost models and rewritings of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from registries import forget_registrations
from torch import nn

import patc
from patc import targets
from patc.costs import CoreCosts, GpuCosts
from patc.diagnostics import PatcError
from patc.passes.cost import models
from patc.passes.cost.host import HostModel
from patc.passes.vectors import families
from patc.targets import SPIRV_VULKAN, TARGETS, Target, get_target, register_target

V3, ARM = TARGETS["x86-64-v3"], TARGETS["aarch64-linux"]
X = torch.randn((1, 3, 16, 16), generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Convolutions of strides 1 and 2, a residual, a pool and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.last, self.linear = nn.Conv2d(8, 8, 1), nn.Linear(8 * 4 * 4, 5)
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(self.pool(torch.relu(self.first(x)))))
        return self.linear((x + self.last(x)).flatten(1))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def own_registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a test registers."""
    forget_registrations(monkeypatch)
    yield


def check(net: nn.Module, target: Target | str, **options: Any) -> patc.CompiledModel:
    """Compile, and compare with PyTorch in float64 where this machine has what the target needs."""
    compiled = patc.compile(net, (X,), target=target, threads=1, **options)
    if targets.host_features().issuperset(get_target(target).features):
        wanted = net.double()(X.double()).detach()
        net.float()
        assert (compiled(X) - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    return compiled


def machine(**changes: Any) -> Target:
    return replace(get_target("host"), **{"name": "own", **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"lanes": 4, "registers": 8},
        {"lanes": 32, "name": "host"},
        {"vector_rows": True, "splits_phases": False, "simd": "", "cheap_shift": False},
        {"costs": CoreCosts(first_level_bytes=1024, second_level_bytes=4096, loads_per_cycle=1, line_bytes=128)},
    ],
    ids=["narrow", "wide", "layout", "costs"],
)
def test_changed_targets_compute_the_same(net: nn.Module, changes: dict[str, Any]) -> None:
    target = machine(**changes)
    compiled = check(net, target)
    assert compiled.program.target == target.name
    assert target.lanes in {layer.schedule.lanes for layer in compiled.layers}


def test_a_new_target_with_its_own_model_and_rewriting(net: nn.Module, own_registries: None) -> None:
    rewritten = []

    class Slow(HostModel):
        def load_cycles(self, lanes: int, aligned: bool, element_bytes: int = 4) -> float:
            return 5.0 * super().load_cycles(lanes, aligned, element_bytes)

    models.register("slow", Slow)
    families.register("toy", lambda module, function, bodies, target: rewritten.append(target.name))
    toy = Target(
        "toy",
        get_target("host").triple,
        get_target("host").cpu,
        *(8, 16, 8, 16, 1, 2),
        cheap_shift=False,
        features=get_target("host").features,
        model="slow",
        simd="toy",
    )
    register_target(toy)
    assert get_target("toy") is toy
    compiled = check(net, "toy")
    assert set(rewritten) == {"toy"} and compiled.program.target == "toy"
    slow, fast = (
        sum(layer.predicted_cycles for layer in patc.compile(net, (X,), target=t, threads=1).layers)
        for t in (toy, replace(toy, model="host"))
    )
    assert slow > fast
    assert patc.Pipeline.parse("pattern-layout{target=toy}").passes[0].target == "toy"


def test_others_than_this_machine_are_compiled_for(net: nn.Module) -> None:
    arm = replace(ARM, name="small-arm", registers=16, costs=replace(ARM.costs, loop_instructions=9))
    gpu = replace(SPIRV_VULKAN, name="small-gpu", costs=GpuCosts(resident_threads=256, workgroups=(32,)))
    for target in (arm, gpu):
        program = patc.compile(net, (X,), target=target).program
        assert (program.target, program.backend) == (target.name, target.backend)


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (V3, {"name": ""}, "target '' expected a name of one word, got ''"),
        (V3, {"lanes": -8}, "target 'x86-64-v3' expected lanes to be an integer of 1 or more, got -8"),
        (V3, {"lanes": 6}, "target 'x86-64-v3' expected lanes to be a power of two from 4 to 64, got 6"),
        (V3, {"lanes": "8"}, "target 'x86-64-v3' expected lanes to be an integer of 1 or more, got '8'"),
        (V3, {"registers": 4}, "target 'x86-64-v3' expected registers of 8 or more, got 4"),
        (V3, {"triple": None}, "target 'x86-64-v3' expected triple to be str, got None"),
        (V3, {"features": ("avx2,sse",)}, "target 'x86-64-v3' expected CPU and features as LLVM spells them, got ('x86-64-v3', ('avx2,sse',))"),
        (V3, {"costs": None}, "target 'x86-64-v3' expected costs to be CoreCosts or GpuCosts, got None"),
        (V3, {"algorithms": "tpu"}, "target 'x86-64-v3' expected algorithms to be 'host' or 'gpu', got 'tpu'"),
        (CoreCosts(), {"line_cycles": float("nan")}, "CoreCosts expected line_cycles to be a number of 0 or more, got nan"),
        (CoreCosts(), {"remote_bytes_per_cycle": 0.0}, "CoreCosts expected remote_bytes_per_cycle to be more than 0, got 0.0"),
        (GpuCosts(), {"workgroups": ()}, "GpuCosts expected workgroups of 8 threads or more, got ()"),
        (CoreCosts(), {"line_bytes": 48}, "CoreCosts expected line_bytes to be a power of two of 16 or more, got 48"),
    ],
)  # fmt: skip
def test_impossible_targets_cannot_be_made(base: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PatcError) as caught:
        replace(base, **changes)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (replace(V3, model="hots"), "target 'x86-64-v3' expected a cost model of host, neon, gpu, got 'hots'; did you mean 'host'?"),
        (replace(V3, simd="x68"), "target 'x86-64-v3' expected simd to be one of '', 'x86', 'neon', got 'x68'; did you mean 'x86'?"),
        (replace(V3, backend="hots"), "expected a backend of aarch64, host, vulkan, got 'hots'; did you mean 'host'?"),
        (replace(V3, costs=GpuCosts()), "target 'x86-64-v3' expected CoreCosts for kernels of CPUs, got GpuCosts"),
        (replace(SPIRV_VULKAN, costs=CoreCosts()), "target 'spirv-vulkan' expected GpuCosts for cost model 'gpu', got CoreCosts"),
        (replace(SPIRV_VULKAN, lanes=8), "target 'spirv-vulkan' expected 4 lanes for cost model 'gpu', got 8"),
        (replace(V3, features=("avx2", "telepathy")), "target 'x86-64-v3' expected a CPU and features that LLVM knows, got 'telepathy'"),
        (replace(ARM, triple="toy-os"), "target 'aarch64-linux' expected a triple that LLVM generates code for, got 'toy-os'"),
        (replace(V3, triple="toy-os"), "target 'x86-64-v3' expected a triple of this machine's architecture for backend 'host', got 'toy-os'"),
        (machine(features=("avx2",)), "target 'own' expected a CPU that has these features alone, got '', which is this machine"),
    ],
)  # fmt: skip
@pytest.mark.skipif(get_target("host").architecture != V3.architecture, reason="the messages are those of x86-64")
def test_what_goes_with_no_target_is_refused_in_one_line(net: nn.Module, target: Target, message: str) -> None:
    with pytest.raises(PatcError) as caught:
        patc.compile(net, (X,), target=target)
    assert str(caught.value) == message


def test_names_are_registered_once(own_registries: None) -> None:
    with pytest.raises(PatcError, match="expected a new name for a target, got 'x86-64-v3'"):
        register_target(V3)
    with pytest.raises(PatcError, match="expected a new name for a target, got 'host'"):
        register_target(get_target("host"))
    with pytest.raises(TypeError, match="expected one cost model a name, got two called 'host'"):
        models.register("host", HostModel)
    with pytest.raises(TypeError, match="expected one rewriting a name, got two called 'neon'"):
        families.register("neon", lambda *_: None)
