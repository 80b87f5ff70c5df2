"""What reports say of a layer's schedule: as attribute, as JSON and in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import CONTEXT
from torch import nn
from torch_mlir import ir

import patc
from patc import pruning
from patc.diagnostics import PatcError, describe_seconds
from patc.dialects.schedules import Alternative, Choice, Explanation, Schedule
from patc.layers import collect_layers
from patc.passes.base import PassState
from patc.runtime.description import describe, parse
from patc.tools.console import describe_explanation, describe_schedule

DIRECT = Schedule("pattern-direct", 4, 48, sums=2, split="rows", threads=2)
WINOGRAD = Schedule("winograd", 8, 6, filters=4)
MODELLED = Explanation(
    bound="multiply-adds",
    considered=211,
    alternatives=(Alternative(DIRECT, 997811, 1.0), Alternative(WINOGRAD, 2304944, 2.31)),
    notes=("no winograd for another reason",),
)
MEASURED = replace(
    MODELLED,
    alternatives=tuple(
        replace(item, seconds=seconds) for item, seconds in zip(MODELLED.alternatives, (1.34e-4, 1.41e-4), strict=True)
    ),
    notes=(),
)


@pytest.mark.parametrize(
    ("explanation", "words"),
    [
        (
            MODELLED,
            "best of 211 tiles, bound by multiply-adds; winograd 2.31x; no winograd for another reason",
        ),
        (
            MEASURED,
            "fastest of 2 measured (pattern-direct 4x48 with 2 sums 134 us; next winograd 8x6x4 141 us)",
        ),
        (Explanation("memory", 1, ()), "bound by memory"),
        (None, "given"),
    ],
)
def test_explanations_in_words(explanation: Explanation | None, words: str) -> None:
    assert describe_explanation(explanation) == words


def test_schedules_in_words() -> None:
    assert describe_schedule(DIRECT) == "pattern-direct, 4x48, lanes 16, 2 sums, 2 threads by rows"
    assert describe_schedule(WINOGRAD) == "winograd, 8x6, lanes 16, 4 filters"


@pytest.mark.parametrize("explanation", [MODELLED, MEASURED])
def test_attributes_hold_all_of_an_explanation(explanation: Explanation) -> None:
    with CONTEXT, ir.Location.unknown():
        attr = ir.Attribute.parse(str(Choice.of(explanation, DIRECT).to_attr()))
        assert Choice.from_attr(attr).explain(DIRECT) == explanation


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("considered = 211", "considered = 0"),
        ("considered = 211", 'considered = "211"'),
        ("ratio = 1.000000e+00 : f64", "ratio = 1 : i64"),
        ("ratio = 1.000000e+00 : f64", "ratio = -1.000000e+00 : f64"),
        ('bound = "multiply-adds", ', ""),
        ("notes = [", "others = [], notes = ["),
        ("alternatives = [{", "alternatives = [{others = 1 : i64, "),
        ("#pattern.explanation", "#pattern.schedule"),
    ],
)
def test_other_attributes_are_none(old: str, new: str) -> None:
    with CONTEXT, ir.Location.unknown():
        text = str(Choice.of(MODELLED, DIRECT).to_attr())
        assert old in text
        with pytest.raises(ValueError):
            Choice.from_attr(ir.Attribute.parse(text.replace(old, new, 1)))


def test_explanations_that_are_none_are_refused_at_their_op() -> None:
    with CONTEXT, ir.Location.unknown():
        module = ir.Module.parse(f"""
func.func @main(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {{
  %y = "pattern.activate"(%x) {{activation = "relu", schedule = {DIRECT.to_attr()},
    explanation = #pattern.explanation<{{bound = "memory"}}>}} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}}""")
        with pytest.raises(
            PatcError, match=r"'pattern\.activate' op expected 'explanation' as pattern-schedule writes it"
        ):
            collect_layers(module, PassState())


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(16, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x))
        return torch.relu(self.second(y)) + y


@pytest.fixture(scope="module")
def branches() -> patc.CompiledModel:
    torch.manual_seed(0)
    model = Branches().eval()
    pruning.prune_(model, pruning.PatternSpec(connectivity=1.0))
    model.first.weight.data[:, ::2] = 0.0  # half of the kernels
    model.second.weight.data.fill_(1.0)
    model.second.weight.data[:, :, 0, 0] = 0.0  # one zero a kernel: too little
    return patc.compile(model, (torch.zeros(1, 16, 12, 12),), threads=2)


def test_layers_tell_what_they_read(branches: patc.CompiledModel) -> None:
    numbers = {(layer.name, layer.op): number for number, layer in enumerate(branches.layers)}
    first, second = (branches.layers[numbers[key]] for key in (("first", "sparse_conv2d"), ("second", "conv2d")))
    assert [branches.layers[number].op for number in first.reads] == ["relayout"]
    assert branches.layers[first.reads[0]].reads == (-1,)
    assert set(second.reads) == {numbers["first", "sparse_conv2d"]}


def test_layers_tell_which_kernels_they_keep(branches: patc.CompiledModel) -> None:
    first = next(layer for layer in branches.layers if layer.op == "sparse_conv2d")
    assert first.kernels is not None
    assert first.kernels.size == (1, 3, 3)
    assert sum(first.kernels.counts) * 4 == first.kept_weights == 16 * 16 * 4 // 2
    assert sum(first.kernels.spread) == 16 and len(first.kernels.picture) == 16
    assert sum(row.count("f") for row in first.kernels.picture) == sum(first.kernels.counts)
    assert first.explanation is not None
    kept = {item.schedule.algorithm: item.kept_cycles for item in first.explanation.alternatives}
    assert kept["winograd"] is None and 0 < kept["pattern-direct"] < 2 * first.predicted_cycles


def test_layers_tell_why_they_stay_dense(branches: patc.CompiledModel) -> None:
    second = next(layer for layer in branches.layers if layer.op == "conv2d")
    assert second.kernels is None
    assert [remark.partition(":")[0] for remark in second.remarks] == ["stays dense"]


class Residual(nn.Module):
    """Keeps an activation while others are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = self.layers[0](x)
        return self.layers[2](self.layers[1](kept)) + kept


@pytest.mark.parametrize("target", ["host", "spirv-vulkan"])
def test_programs_tell_where_activations_are(target: str) -> None:
    program = patc.compile(Residual().eval(), (torch.zeros(1, 16, 12, 12),), target=target).program
    assert program.buffers
    assert max(each.start + each.size for each in program.buffers) <= program.arena_bytes
    assert all(0 <= each.first <= each.last < len(program.layers) for each in program.buffers)
    together = [
        (one, other)
        for number, one in enumerate(program.buffers)
        for other in program.buffers[:number]
        if one.first < other.last and other.first < one.last
    ]
    assert together
    assert all(one.start + one.size <= other.start or other.start + other.size <= one.start for one, other in together)


def test_all_of_it_is_saved(branches: patc.CompiledModel) -> None:
    program = parse(describe(branches.program))
    assert (program.layers, program.buffers) == (branches.program.layers, branches.program.buffers)


def test_a_changed_schedule_is_not_explained_by_the_old_reason() -> None:
    changed = replace(DIRECT, rows=DIRECT.rows + 1)
    assert Choice.of(MODELLED, DIRECT).explain(changed) is None
    # Where several threads divide the work, the schedule is none of the alternatives, which are for one.
    choice = Choice.of(MODELLED, changed)
    assert choice.explain(changed) == MODELLED and choice.explain(DIRECT) is None


def test_layers_with_a_changed_schedule_have_no_reason_and_no_cycles() -> None:
    with CONTEXT, ir.Location.unknown():
        explanation = Choice.of(MODELLED, DIRECT).to_attr()
        layer = """ = "pattern.activate"({0}) {{activation = "relu", cycles = 100 : i64, schedule = {1},
            explanation = {2}}} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>"""
        module = ir.Module.parse(f"""
func.func @main(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {{
  %y {layer.format("%x", DIRECT.to_attr(), explanation)}
  %z {layer.format("%y", WINOGRAD.to_attr(), explanation)}
  return %z : tensor<1x2x8x8xf32>
}}""")
        layers = collect_layers(module, PassState())
    assert [layer.explanation for layer in layers] == [MODELLED, None]
    assert [layer.predicted_cycles for layer in layers] == [100, 0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ns"),
        (8.29e-7, "829 ns"),
        (9.996e-7, "1 us"),
        (8.894e-6, "8.89 us"),
        (-1.5e-3, "-1.5 ms"),
        (0.99949, "999 ms"),
        (0.9996, "1 s"),
        (1234.4, "1234 s"),
    ],
)
def test_times_have_the_unit_that_fits(seconds: float, text: str) -> None:
    assert describe_seconds(seconds) == text
