"""Kinds of layers: every op that computes has one, and one that lacks a piece is refused when it is made known."""

from __future__ import annotations

from typing import Any

import pytest
from torch_mlir.dialects import func
from torch_mlir.dialects.ext import partition_fields

from patc.dialects import pattern
from patc.passes.layers import registry
from patc.passes.layers.base import LayerKind
from patc.passes.layers.elementwise import Add
from patc.passes.layers.pooling import MaxPool2d

OPS = [value for value in vars(pattern).values() if "OPERATION_NAME" in getattr(value, "__dict__", {})]
METHODS = sorted(LayerKind.__abstractmethods__)
ATTRIBUTES = sorted(LayerKind.__annotations__)


@pytest.fixture
def unregistered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_kinds", {})


def test_every_op_that_computes_has_a_kind() -> None:
    computing = {op for op in OPS if partition_fields(op._fields)[0]}
    assert {kind.op for kind in registry.kinds()} == {*computing, func.CallOp}
    assert len(computing) >= 8


@pytest.mark.parametrize("name", METHODS)
def test_a_kind_without_a_method_cannot_be_made(name: str) -> None:
    incomplete: Any = type("Incomplete", (LayerKind,), {other: None for other in METHODS if other != name})
    with pytest.raises(TypeError, match=f"abstract method '?{name}'?"):
        incomplete()


@pytest.mark.parametrize("name", ATTRIBUTES)
@pytest.mark.usefixtures("unregistered")
def test_a_kind_without_an_attribute_is_refused(name: str) -> None:
    body = dict.fromkeys([*METHODS, *(other for other in ATTRIBUTES if other != name)])
    incomplete: Any = type("Incomplete", (LayerKind,), body)
    with pytest.raises(TypeError, match=f"expected a kind of layer with {name}, got Incomplete without"):
        registry.register(incomplete())


@pytest.mark.usefixtures("unregistered")
def test_an_op_has_one_kind() -> None:
    class OtherAdd(Add):
        pass

    registry.register(MaxPool2d())
    registry.register(Add())
    with pytest.raises(TypeError, match="expected one kind of layer an op, got two of AddOp"):
        registry.register(OtherAdd())
