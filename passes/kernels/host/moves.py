"""Rows of many planes that move to the front of each plane."""

from __future__ import annotations

from collections.abc import Sequence

from torch_mlir import ir

from patc.passes.kernels.builder import Builder


def emit_move(b: Builder, arguments: Sequence[ir.Value], plane: int, lanes: int) -> None:
    """Emit the loops over planes, `plane` elements apart: what moves may overlap where it goes, as it goes forward.

    Args:
        arguments: memory; the first element of a plane that moves, and how many; the first plane, and the one after the
            last.
    """
    memory, start, count, first, last = arguments
    whole, rest = b.divide(count, lanes)

    def one_plane(channel: ir.Value) -> None:
        to = b.mul(channel, plane)
        source = b.add(to, start)

        def one_vector(number: ir.Value) -> None:
            step = b.mul(number, lanes)
            b.store(b.load(memory, b.add(source, step), 0, lanes), memory, b.add(to, step), 0)

        def one_element(number: ir.Value) -> None:
            step = b.add(b.mul(whole, lanes), number)
            b.store(b.load_scalar(memory, b.add(source, step)), memory, b.add(to, step), 0)

        b.each(0, whole, one_vector)
        b.each(0, rest, one_element)

    b.each(first, last, one_plane)
