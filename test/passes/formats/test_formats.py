"""Weight formats that are registered from outside: passes handle one that they do not know like their own.

The format is that of `examples/extending/rows_format.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from half import HALF
from helpers import assert_close, torch_results
from networks import pattern_weight
from rows_format import RowsAttr, RowsFormat
from torch import nn
from torch_mlir import ir

import patc
from patc.codegen.reference import execute
from patc.compiler import host_pipeline, lower_model
from patc.diagnostics import PatcError
from patc.dialects.attributes import WeightFormatAttr
from patc.dialects.schedules import Schedule
from patc.passes.formats import registry
from patc.passes.formats.base import WeightFormat
from patc.passes.formats.fkw_format import FkwFormat
from patc.passes.ir.functions import walk_ops
from patc.passes.pattern_specialize import PatternSpecialize
from patc.pipeline import Pipeline


@pytest.fixture
def rows_format(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Register the format for one test."""
    monkeypatch.setattr(registry, "_formats", dict(registry._formats))
    registry.register(RowsFormat)
    yield


class Net(nn.Module):
    """A residual block of 3x3 patterns and sparse 1x1 and linear layers, whose channels FKW puts in another order."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(3)
        self.first, self.last = nn.Conv2d(4, 16, 3, padding=1), nn.Linear(16 * 6 * 7, 5)
        self.narrow, self.wide = nn.Conv2d(16, 40, 1), nn.Conv2d(40, 16, 1, bias=False)
        with torch.no_grad():
            self.first.weight[:] = torch.from_numpy(pattern_weight(rng, 16, 4, 0.6))
            for layer in (self.narrow, self.wide, self.last):
                layer.weight *= torch.from_numpy(rng.random(layer.weight.shape) < 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.wide(torch.relu(self.narrow(x))) + x)
        return self.last(x.flatten(1))


@pytest.mark.usefixtures("rows_format")
@pytest.mark.parametrize("stage", ["encode", "reorder", "schedule"])
def test_a_format_from_outside_goes_through_the_passes(stage: str) -> None:
    model, x = Net().eval(), torch.randn(2, 4, 6, 7)
    module, state = lower_model(model, (x,), host_pipeline("host", 1).until(stage))
    assert str(module).count("format = #pattern.rows") == 3
    assert {"narrow.values", "narrow.columns", "narrow.offset"} <= set(state.parameters)
    assert_close(execute(module, state.parameters, [x.numpy()]), torch_results(model, [x]))


@pytest.mark.usefixtures("rows_format")
@pytest.mark.parametrize("dtype", ["f32", HALF])
def test_its_layers_are_computed_dense(dtype: str) -> None:
    model, x = Net().eval(), torch.randn(2, 4, 6, 7)
    compiled = patc.compile(model, (x,), threads=1, dtype=dtype)
    layers = [layer for layer in compiled.layers if layer.op.startswith("sparse")]
    assert [layer.name for layer in layers] == ["first", "narrow", "wide", "last"]
    assert layers[1].kept_weights == torch.count_nonzero(model.narrow.weight)
    (expected,) = torch_results(model, [x])
    bound = {"f32": 1e-4, "f16": 1e-2}[dtype]
    assert np.abs(compiled(x).numpy() - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.usefixtures("rows_format")
def test_gpus_compute_them_dense() -> None:
    module, _ = lower_model(
        Net().eval(), (torch.randn(1, 4, 6, 7),), host_pipeline("spirv-vulkan", None).until("schedule")
    )
    ops = [line for line in str(module).splitlines() if "#pattern.rows" in line]
    names = ["dense-direct", "dense-direct", "gemv"]
    assert all(f'algorithm = "{name}"' in line for name, line in zip(names, ops, strict=True))


def test_layers_that_no_format_takes_stay_dense() -> None:
    module, state = lower_model(Net().eval(), (torch.randn(1, 4, 6, 7),), host_pipeline("host", 1).until("encode"))
    assert str(module).count("pattern.sparse_conv2d") == 1
    reasons = [diagnostic.message for diagnostic in state.diagnostics]
    assert any("with 9 input channels to a kernel" in reason for reason in reasons)


def test_a_format_is_registered_whole_and_once() -> None:
    class Half(WeightFormat):
        """A format that nobody finished."""

        attribute = RowsAttr

    with pytest.raises(TypeError, match="expected a whole weight format, got Half without decode, encode, find"):
        registry.register(Half)

    class HalfAttr(WeightFormatAttr):
        """An attribute that nobody finished."""

        def array_names(self) -> tuple[str, ...]:
            return ("values",)

    class Unreadable(FkwFormat):
        """A format whose arrays nothing describes."""

        attribute = HalfAttr

    with pytest.raises(TypeError, match="expected a whole weight format, got HalfAttr without kernel_size, find_v"):
        registry.register(Unreadable)
    with pytest.raises(TypeError, match="expected one weight format an attribute, got two of FkwAttr"):
        registry.register(FkwFormat)


@pytest.mark.usefixtures("rows_format")
def test_an_attribute_without_a_format_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1, 4, 6, 7)
    module, state = lower_model(Net().eval(), (x,), host_pipeline("host", 1).until("encode"))
    monkeypatch.delitem(registry._formats, RowsAttr)
    with pytest.raises(
        PatcError, match="op expected a registered weight format, got #pattern.rows".replace(".", r"\.")
    ):
        execute(module, state.parameters, [x.numpy()])


@pytest.mark.usefixtures("rows_format")
def test_a_schedule_whose_algorithm_does_not_read_the_format_is_an_error() -> None:
    module, state = lower_model(Net().eval(), (torch.randn(1, 4, 6, 7),), host_pipeline("host", 1).until("schedule"))
    given = next(op for op in walk_ops(module) if "format" in op.attributes and isinstance(op.format, RowsAttr))
    schedule = Schedule.from_attr(given.attributes["schedule"])
    with module.context, ir.Location.unknown():
        given.attributes["schedule"] = replace(schedule, algorithm="pattern-direct").to_attr()
    expected = "'pattern.sparse_conv2d' op expected a schedule with algorithm dense-direct or depthwise-direct"
    with pytest.raises(PatcError, match=f"{expected}, got 'pattern-direct'"):
        Pipeline((PatternSpecialize(),)).run(module, state)
