"""The plain Python values behind the dialect's attributes."""

from __future__ import annotations

import pytest
from networks import CONTEXT
from torch_mlir import ir

from patc.dialects.attributes import Library


@pytest.mark.parametrize(
    "library",
    [Library((3, 3), (27, 54)), Library((1, 1), (27, 480), 9), Library((1, 5), (25,)), Library((1, 2), (9,), 2)],
)
def test_libraries_survive_as_attributes(library: Library) -> None:
    with CONTEXT, ir.Location.unknown():
        attr = library.to_attr()
        assert Library.from_attr(attr) == library
        assert ir.Attribute.parse(str(attr)) == attr


def test_libraries_of_one_channel_print_two_sizes() -> None:
    with CONTEXT, ir.Location.unknown():
        assert str(Library((3, 3), (27,)).to_attr()) == "#pattern.fkw<array<i64: 3, 3>, array<i64: 27>>"
        assert str(Library((1, 1), (27,), 9).to_attr()) == "#pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27>>"


def test_places_are_in_the_order_of_the_bits() -> None:
    assert Library((3, 3), (27,)).places(0) == ((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1))
    assert Library((1, 1), (1, 480), 9).places(1) == ((5, 0, 0), (6, 0, 0), (7, 0, 0), (8, 0, 0))
    deep = Library((2, 3), ((1 << 18) - 1,), 3)
    assert deep.places(0) == tuple((dc, dy, dx) for dc in range(3) for dy in range(2) for dx in range(3))
    assert deep.entries == 18


def test_taps_are_for_kernels_of_one_channel() -> None:
    assert Library((3, 3), (27, 54)).taps(1) == ((0, 1), (0, 2), (1, 1), (1, 2))
    with pytest.raises(ValueError, match="expected a library of depth 1, got depth 9"):
        Library((1, 1), (27,), 9).taps(0)
