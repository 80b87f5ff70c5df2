"""Weight formats that are registered from outside: passes handle one that they do not know like their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers import assert_close, torch_results
from networks import pattern_weight
from torch import nn
from torch_mlir import ir

import patc
from patc.codegen.reference import execute
from patc.compiler import host_pipeline, lower_model
from patc.diagnostics import PatcError
from patc.dialects.attributes import WeightFormatAttr
from patc.passes.formats import registry
from patc.passes.formats.base import Arrays, EncodeOptions, StaysDense, WeightFormat
from patc.passes.formats.fkw import invert
from patc.passes.formats.fkw_format import FkwFormat


class RowsAttr(WeightFormatAttr, name="rows"):
    """Rows of a 1x1 convolution's weights, compressed: `values` and `columns` of row f begin at `offset[f]`."""

    def array_names(self) -> tuple[str, ...]:
        return ("values", "columns", "offset")

    def kernel_size(self) -> tuple[int, int]:
        return 1, 1

    def find_violation(self, op: Any) -> tuple[str, Any] | None:
        shape, wanted = list(op.array("offset").type.shape), [op.result.type.shape[1] + 1]
        return None if shape == wanted else (f"offset of shape {wanted}", shape)


@dataclass(frozen=True)
class RowsFormat(WeightFormat):
    """Compressed rows, of filters in the order of the output channels."""

    attribute: ClassVar[type] = RowsAttr

    @classmethod
    def encode(cls, weight: np.ndarray, groups: int, options: EncodeOptions) -> tuple[RowsFormat, Arrays] | None:
        if weight.shape[2:] not in ((1, 1), ()) or groups > 1:
            return None
        if np.mean(weight == 0) < options.min_sparsity:
            raise StaysDense("its rows are full")
        return cls(), _compress(weight.reshape(len(weight), -1))

    @classmethod
    def from_attr(cls, attr: Any) -> RowsFormat:
        return cls()

    def to_attr(self) -> ir.Attribute:
        return RowsAttr.get()

    def decode(self, arrays: Arrays, channels: int) -> np.ndarray:
        values, columns, offset = arrays
        dense = np.zeros((len(offset) - 1, channels, 1, 1), values.dtype)
        dense[np.repeat(np.arange(len(dense)), np.diff(offset)), columns, 0, 0] = values
        return dense

    def find_violation(self, arrays: Arrays, channels: int) -> tuple[str, Any] | None:
        last = int(arrays[1].max(initial=0))
        return None if last < channels else (f"columns below {channels}", last)

    def kept_weights(self, shapes: Sequence[Sequence[int]]) -> int:
        return shapes[0][0]

    @property
    def reads_neighbours(self) -> bool:
        return False

    def order_filters(self, arrays: Arrays) -> np.ndarray:
        return np.arange(len(arrays[2]) - 1)

    def output_channels(self, arrays: Arrays) -> np.ndarray:
        return np.arange(len(arrays[2]) - 1)

    def permute_filters(self, arrays: Arrays, order: np.ndarray, positions: np.ndarray) -> Arrays:
        columns = int(arrays[1].max()) + 1
        return _compress(self.decode(arrays, columns)[invert(positions), :, 0, 0])

    def permute_channels(self, arrays: Arrays, positions: np.ndarray) -> Arrays:
        return _compress(self.decode(arrays, len(positions))[:, invert(positions), 0, 0])

    def shares(self, arrays: Arrays) -> tuple[float, ...]:
        return (1.0,)


def _compress(rows: np.ndarray) -> Arrays:
    _, columns = np.nonzero(rows)
    offset = np.concatenate([[0], np.cumsum(np.count_nonzero(rows, axis=1))])
    return rows[rows != 0], columns.astype(np.int16), offset.astype(np.int32)


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
        self.narrow, self.wide = nn.Conv2d(16, 6, 1), nn.Conv2d(6, 16, 1, bias=False)
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
@pytest.mark.parametrize("dtype", ["f32", "f16"])
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
    assert any("the layer has 6" in reason for reason in reasons)


def test_a_format_is_registered_whole_and_once() -> None:
    class Half(WeightFormat):
        """A format that nobody finished."""

        attribute = RowsAttr

    with pytest.raises(TypeError, match="expected a whole weight format, got Half without decode, encode, find"):
        registry.register(Half)
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
