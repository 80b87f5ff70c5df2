"""`tune="measure"`: the fastest candidate wins, layers are measured once, and the numbers stay right."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close, torch_results
from native import Net, scheduled_ops
from networks import Value, pattern_weight
from torch import nn
from torch_mlir import ir

import patc
from patc import pruning, tuning
from patc.compiler import find_measure, host_pipeline, lower_model
from patc.diagnostics import PatcError
from patc.dialects.schedules import Choice, Schedule
from patc.layers import LayerReport
from patc.options import make_options
from patc.passes import pattern_schedule
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate, shortlist
from patc.passes.pattern_encode import PatternEncode
from patc.passes.pattern_layout import PatternLayout
from patc.passes.pattern_schedule import PatternSchedule
from patc.pipeline import Pipeline
from patc.targets import TARGETS, Target
from patc.tools.console import describe_explanation
from patc.tools.patc import main
from patc.tuning import Tuner, isolate
from patc.tuning_cache import TuningCache

# -- Which candidates are measured -------------------------------------------------------------------


def candidate(cost: float, algorithm: str = "pattern-direct", rows: int = 1, columns: int = 16) -> Candidate:
    return Candidate(Schedule(algorithm, rows, columns), cost, cost, "loads")


def test_the_best_of_every_algorithm_and_width_are_measured() -> None:
    found = [candidate(rows, rows=rows) for rows in range(1, 30)]
    found += [candidate(100, columns=24), candidate(200, columns=32)]
    found += [candidate(1000 + rows, "dense-direct", rows) for rows in range(1, 30)]
    kept = shortlist(found, limit=8)
    assert len(kept) == 8
    assert {one.cost for one in kept} == {1, 2, 1001, 1002, 100, 200, 3, 4}


def test_a_short_list_holds_every_algorithm_however_short() -> None:
    found = [candidate(cost, algorithm) for cost, algorithm in enumerate("abcde")]
    assert {one.schedule.algorithm for one in shortlist(found, limit=5)} == set("abcde")
    assert [one.cost for one in shortlist(found, limit=2)] == [0, 1]


def test_few_candidates_are_all_measured() -> None:
    found = [candidate(2.0), candidate(1.0, rows=2)]
    assert shortlist(found) == found


def test_the_order_of_a_short_list_is_not_that_of_costs() -> None:
    costs = list(range(12))
    lists = []
    for seed in range(3):
        random.Random(seed).shuffle(costs)
        lists.append([one.schedule for one in shortlist([candidate(c, rows=r) for r, c in enumerate(costs)], 12)])
    assert lists[0] == lists[1] == lists[2]


# -- The choice, by a measurer that is told what to say ----------------------------------------------


class Clock:
    """Measures `seconds(schedule)` and remembers what it was asked."""

    def __init__(self, seconds: Any) -> None:
        self._seconds = seconds
        self.asked: list[list[Schedule]] = []

    def __call__(self, op: Any, candidates: Sequence[Candidate], state: PassState) -> list[float]:
        schedules = [one.schedule for one in candidates]
        self.asked.append(schedules)
        return [self._seconds(schedule) for schedule in schedules]


def scheduled(net: Net, result: Value, clock: Clock, threads: int = 1) -> list[tuple[Any, Schedule]]:
    """Encode, lay out and schedule a net, and return its layers."""
    module = net.build(result)
    state = PassState(net.copy_parameters(), measure=clock)
    with module.context, ir.Location.unknown():
        PatternEncode().run(module, state)
        PatternLayout().run(module, state)
        PatternSchedule(threads=threads).run(module, state)
    assert module.operation.verify()
    return list(scheduled_ops(module))


def explanation_of(op: Any) -> Choice:
    return Choice.from_attr(op.attributes["explanation"])


def sparse_net() -> tuple[Net, Value]:
    net = Net((1, 8, 24, 24))
    return net, net.conv(net.input, pattern_weight(np.random.default_rng(0), 8, 8))


def test_the_fastest_wins_and_the_explanation_says_by_how_much() -> None:
    net, result = sparse_net()
    clock = Clock(lambda schedule: schedule.columns * 1e-5 + schedule.rows * 1e-3 + schedule.sums)
    op, chosen = scheduled(net, result, clock)[-1]
    asked = clock.asked[-1]
    first, second = sorted(asked, key=lambda schedule: (schedule.sums, schedule.rows, schedule.columns))[:2]
    assert chosen == first
    alternatives = explanation_of(op).alternatives
    assert [alternative.schedule for alternative in alternatives[:2]] == [first, second]
    seconds = [alternative.seconds for alternative in alternatives]
    assert len(seconds) == len(asked) and None not in seconds and seconds == sorted(seconds)
    assert op.attributes["cycles"].value > 0


def test_threads_are_measured_as_they_will_run() -> None:
    net, result = sparse_net()
    clock = Clock(lambda schedule: 1.0)
    _, chosen = scheduled(net, result, clock, threads=3)[-1]
    assert chosen.threads == 3
    assert {schedule.threads for schedule in clock.asked[-1]} == {3}


def test_layers_with_one_way_to_compute_them_are_not_measured() -> None:
    net = Net((1, 8, 4, 4))
    clock = Clock(lambda schedule: 1.0)
    (op, _), *_ = scheduled(net, net.activate(net.input), clock)
    assert clock.asked == []
    explanation = explanation_of(op)
    assert (explanation.bound, explanation.considered) == ("memory", 1)
    assert explanation.alternatives[0].seconds is None


def test_layers_that_have_a_schedule_are_not_measured() -> None:
    net, result = sparse_net()
    module = net.build(result)
    clock = Clock(lambda schedule: 1.0)
    with module.context, ir.Location.unknown():
        PatternSchedule().run(module, PassState(net.copy_parameters()))
        text = str(module)
        PatternSchedule().run(module, PassState(net.copy_parameters(), measure=clock))
    assert clock.asked == [] and str(module) == text


# -- What is measured, and when again ----------------------------------------------------------------


@pytest.fixture
def fake_times(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Let layers take no time; return a list that grows by (layer, threads) with each that is measured."""
    timed: list[tuple[str, int]] = []

    def time_candidates(layer: tuning.IsolatedLayer, threads: int, target: Target) -> list[float]:
        timed.append((layer.name, threads))
        copies = [op for op in layer.module.body.operations[0].entry_block if "schedule" in op.attributes]
        return [1.0 + number for number in range(len(copies))]

    monkeypatch.setattr(tuning, "time_candidates", time_candidates)
    return timed


@pytest.fixture
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def chain(activation: type[nn.Module] = nn.ReLU, kernel: int = 3) -> nn.Module:
    """Three convolutions of equal shapes."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Conv2d(8, 8, kernel, padding=kernel // 2), activation()]
    return nn.Sequential(*layers).eval()


INPUT = torch.zeros(1, 8, 12, 12)


def measured(model: nn.Module, threads: int = 1, x: torch.Tensor = INPUT) -> patc.CompiledModel:
    return patc.compile(model, (x,), threads=threads, tune="measure")


def remarks(model: patc.CompiledModel) -> list[str]:
    """Return what was remarked about the cache."""
    return [str(diagnostic) for diagnostic in model.diagnostics if "measured" in diagnostic.message]


def test_equal_layers_are_measured_once(fake_times: list[Any], cache_home: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    patc.compile(chain(), (INPUT,), threads=1, tune="measure", report=lambda *step: steps.append(step))
    # The last layer writes what the caller reads, without the halo of the others.
    assert [name for name, _ in fake_times] == ["0", "4"]
    scheduling = next(step for step in steps if step[0] == "pattern-schedule")
    assert [step for step in steps if step[0].startswith("measuring")] == [
        ("measuring 0", *scheduling[1:]),
        ("measuring 4", *scheduling[1:]),
    ]


def test_what_was_measured_is_not_measured_again(fake_times: list[Any], cache_home: Path) -> None:
    first = measured(chain())
    count = len(fake_times)
    second = measured(chain())
    assert count == len(fake_times) > 0
    assert second.layers == first.layers and second.program.code == first.program.code
    assert remarks(second) == []


def test_other_weights_of_the_same_form_are_not_measured_again(fake_times: list[Any], cache_home: Path) -> None:
    model = chain()
    measured(model)
    count = len(fake_times)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1.0
    measured(model)
    assert len(fake_times) == count


@pytest.mark.parametrize(
    "other",
    [
        lambda: measured(chain(nn.ReLU6)),
        lambda: measured(chain(kernel=5)),
        lambda: measured(chain(), threads=2),
        lambda: measured(chain(), x=torch.zeros(2, 8, 12, 12)),
        lambda: measured(pruned_chain(2.25)),
    ],
    ids=["epilogue", "kernel", "threads", "batch", "sparsity"],
)
def test_layers_that_differ_are_measured(fake_times: list[Any], cache_home: Path, other: Any) -> None:
    measured(chain())
    count = len(fake_times)
    other()
    assert len(fake_times) > count


def pruned_chain(connectivity: float) -> nn.Module:
    model = chain()
    pruning.prune_(model, pruning.PatternSpec(connectivity=connectivity))
    return model


def test_kept_kernels_and_other_machines_and_compilers_are_part_of_the_key(
    fake_times: list[Any], cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count_measured() -> int:
        before = len(fake_times)
        measured(pruned_chain(2.0))
        return len(fake_times) - before

    layers = count_measured()
    assert layers > 0 and count_measured() == 0
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "_shares", lambda op, state: (16,))
        assert count_measured() > 0
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "compiler_version", lambda: "0.0.1")
        assert count_measured() == layers
    other = replace(tuning.this_machine(), cpu="6502")
    monkeypatch.setattr(tuning, "this_machine", lambda: other)
    assert count_measured() == layers


def test_the_version_follows_the_sources() -> None:
    assert tuning.compiler_version().startswith(f"{patc.__version__} 20261001 ")


def test_damaged_entries_are_measured_again_with_a_remark(fake_times: list[Any], cache_home: Path) -> None:
    measured(chain())
    count = len(fake_times)
    paths = list((cache_home / "patc" / "tuning").iterdir())
    for path in paths:
        path.write_text("damaged")
    again = measured(chain())
    assert len(fake_times) == 2 * count
    assert sorted(remarks(again)) == sorted(
        f"{path}: remark: measured again: expected measured times, found damaged data" for path in paths
    )
    assert remarks(measured(chain())) == []


def test_a_cache_that_cannot_be_written_is_one_remark(fake_times: list[Any], cache_home: Path) -> None:
    cache_home.touch()
    (remark,) = remarks(measured(chain()))
    assert remark.startswith(f"{cache_home}/patc/tuning: remark: measured times are not kept: cannot make the folder")
    assert len(fake_times) == 2


def test_copies_of_a_layer_hold_all_that_its_speed_depends_on() -> None:
    net = Net((1, 8, 12, 12))
    rng = np.random.default_rng(0)
    first = net.conv(net.input, rng.standard_normal((8, 8, 3, 3)), np.ones(8))
    result = net.conv(first, pattern_weight(rng, 8, 8), np.ones(8), first, activation='"relu"')
    module = net.build(net.activate(result))
    state = PassState(net.copy_parameters())
    found: list[tuning.IsolatedLayer] = []

    def measure(op: Any, candidates: Sequence[Candidate], state: PassState) -> list[float]:
        found.append(isolate(op, candidates[:2], state))
        return [1.0] * len(candidates)

    state.measure = measure
    with module.context, ir.Location.unknown():
        PatternEncode().run(module, state)
        PatternLayout().run(module, state)
        PatternSchedule().run(module, state)
    dense, sparse = found
    assert dense.module.operation.verify() and sparse.module.operation.verify()
    assert [info.shape for info in dense.inputs] == [(1, 8, 12, 12)]
    assert [info.shape for info in sparse.inputs] == [(1, 8, 12, 12)] * 2  # the residual, too
    assert dense.shares == () and sum(sparse.shares) > 0
    names = [op.operation.name for op in sparse.module.body.operations[0].entry_block]
    assert [name for name in names if name not in ("pattern.parameter", "func.return")] == [
        "pattern.relayout",
        "pattern.relayout",
        "pattern.sparse_conv2d",
    ] * 2
    (original,) = (op for op, _ in scheduled_ops(module) if op.operation.name == "pattern.sparse_conv2d")
    copies = [op for op in sparse.module.body.operations[0].entry_block if "schedule" in op.attributes]
    for copy in copies:
        assert [value.type for value in copy.operands] == [value.type for value in original.operands]
        assert copy.results[0].type == original.result.type
        assert str(copy.attributes["activation"]) == '"relu"'


def test_copies_of_a_layer_of_f16_are_given_f32() -> None:
    net = Net((1, 8, 12, 12))
    module = net.build(net.conv(net.input, np.ones((8, 8, 3, 3))))
    state, found = PassState(net.copy_parameters()), []

    def measure(op: Any, candidates: Sequence[Candidate], state: PassState) -> list[float]:
        found.append(isolate(op, candidates[:2], state))
        return [1.0] * len(candidates)

    state.measure = measure
    Pipeline().add("pattern-demote", dtype="f16").add("pattern-layout").add("pattern-schedule").run(module, state)
    (layer,) = found
    assert layer.module.operation.verify()
    block = layer.module.body.operations[0].entry_block
    assert [str(argument.type) for argument in block.arguments] == ["tensor<1x8x12x12xf32>"]
    copies = [op for op in block if op.operation.name == "pattern.conv2d"]
    assert [str(op.result.type.element_type) for op in copies] == ["f16", "f16"]


# -- The real thing ----------------------------------------------------------------------------------


class Small(nn.Module):
    """A strided, a pointwise, a depthwise and a pruned convolution, a residual, a pool and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(8, 16, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.depthwise(torch.relu(self.wide(torch.relu(self.stem(x))))))
        y = torch.relu(self.conv(y) + y)
        return self.fc(nn.functional.max_pool2d(y, 2).mean((2, 3)))


def small() -> nn.Module:
    torch.manual_seed(0)
    model = Small().eval()
    pruning.prune_(model, pruning.PatternSpec(connectivity=2.0))
    return model


def by_name(compiled: patc.CompiledModel) -> dict[str, LayerReport]:
    return {layer.name: layer for layer in compiled.layers}


@pytest.mark.parametrize("threads", [1, 2])
def test_measured_models_compute_the_same(
    threads: int, cache_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tuning, "SECONDS", 0.0)
    monkeypatch.setattr(pattern_schedule, "shortlist", lambda found: shortlist(found, limit=4))
    model, x = small(), torch.randn(2, 3, 20, 20)
    compiled = patc.compile(model, (x,), threads=threads, tune="measure")
    assert_close([compiled(x).numpy()], torch_results(model, (x,)), bound=1e-4)
    layers = by_name(compiled)
    for name in ("stem", "wide", "depthwise", "conv", "fc"):
        layer = layers[name]
        assert layer.explanation is not None and layer.schedule == layer.explanation.alternatives[0].schedule
        second = layer.explanation.alternatives[1].schedule.algorithm
        assert re.match(rf"fastest of .* [\d.]+ [num]?s; next {second} ", describe_explanation(layer.explanation))
    # With two threads there are two ways to divide what has a single tile, too.
    assert len(list((cache_home / "patc" / "tuning").iterdir())) == (5 if threads == 1 else 7)
    # What is in the cache decides: the same file, and nothing is timed.
    monkeypatch.setattr(tuning, "time_candidates", None)
    again = patc.compile(small(), (x,), threads=threads, tune="measure")
    for number, one in enumerate((compiled, again)):
        one.save(tmp_path / f"{number}.patc")
    assert (tmp_path / "0.patc").read_bytes() == (tmp_path / "1.patc").read_bytes()


def test_whatever_is_the_fastest_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1, 3, 20, 20)
    wanted = torch_results(small(), (x,))
    for place in range(3):
        monkeypatch.setattr(TuningCache, "load", lambda self, key, count, place=place: [
            1.0 + (number - place) % count for number in range(count)
        ])  # fmt: skip
        compiled = patc.compile(small(), (x,), threads=1, tune="measure")
        assert_close([compiled(x).numpy()], wanted, bound=1e-4)


def test_torch_compile_takes_it(fake_times: list[Any], cache_home: Path) -> None:
    model, x = chain(), torch.randn(1, 8, 12, 12)
    compiled = torch.compile(model, backend="patc", options={"tune": "measure", "threads": 1})
    with torch.no_grad():
        assert_close([compiled(x).numpy()], torch_results(model, (x,)), bound=1e-4)
    assert fake_times


# -- Where it does not go ----------------------------------------------------------------------------


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_other_targets_are_refused(target: str) -> None:
    with pytest.raises(PatcError) as caught:
        patc.compile(chain(), (INPUT,), target=target, tune="measure")
    assert str(caught.value) == f"expected target 'host' together with tune 'measure', got '{target}'"


def test_only_measuring_needs_something_to_measure_with() -> None:
    for tune in ("off", "cost"):
        assert find_measure(make_options("x86-64-v3", tune=tune)) is None
    assert isinstance(find_measure(make_options(tune="measure")), Tuner)


def test_stages_hold_measured_schedules(fake_times: list[Any], cache_home: Path) -> None:
    measure = find_measure(make_options(tune="measure"))
    module, _ = lower_model(chain(), (INPUT,), host_pipeline("host", 1).until("schedule"), measure)
    found = [explanation_of(op) for op, _ in scheduled_ops(module) if op.operation.name == "pattern.conv2d"]
    assert len(found) == 3 and all(item.alternatives[0].seconds is not None for item in found)


@pytest.fixture
def net_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Export `chain` to a file in the working folder, a temporary one."""
    monkeypatch.chdir(tmp_path)
    torch.export.save(torch.export.export(chain(), (INPUT,)), "net.pt2")
    return "net.pt2"


@pytest.mark.parametrize("words", ["compile net.pt2 -o net.patc", "compile net.pt2 --emit mlir@schedule -o net.mlir"])
def test_the_command_compile_measures(
    words: str, fake_times: list[Any], cache_home: Path, net_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words.split(), "--tune", "measure", "--threads", "1"]) == 0
    assert fake_times and capsys.readouterr().err == ""


def test_the_command_report_says_what_was_measured(
    fake_times: list[Any], cache_home: Path, net_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", net_file, "--tune", "measure", "--threads", "1"]) == 0
    assert capsys.readouterr().out.count(": fastest of ") == 3


def test_the_command_bench_refuses_other_ways_to_tune(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "resnet18", "--tune", "fast"]) == 1
    assert capsys.readouterr().err == "patc: error: expected tune to be one of off, cost, measure, got 'fast'\n"
