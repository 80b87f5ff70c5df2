"""What reports say of a layer's schedule: as attribute, as JSON and in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from networks import CONTEXT
from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.dialects.schedules import Alternative, Explanation, Schedule
from patc.layers import collect_layers
from patc.tools.console import describe_division, describe_explanation, describe_schedule

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
            "fastest of 2 measured (pattern-direct 4x48 with 2 sums 0.134 ms; next winograd 8x6x4 0.141 ms)",
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
    assert [describe_division(schedule) for schedule in (DIRECT, WINOGRAD)] == ["4x48 by rows", "8x6x4"]


@pytest.mark.parametrize("explanation", [MODELLED, MEASURED])
def test_attributes_hold_all_of_an_explanation(explanation: Explanation) -> None:
    with CONTEXT, ir.Location.unknown():
        attr = ir.Attribute.parse(str(explanation.to_attr()))
        assert Explanation.from_attr(attr) == explanation


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
        text = str(MODELLED.to_attr())
        assert old in text
        with pytest.raises(ValueError):
            Explanation.from_attr(ir.Attribute.parse(text.replace(old, new, 1)))


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
            collect_layers(module)
