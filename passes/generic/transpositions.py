"""Copies among nests that put what follows each other in memory far apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

from patc.passes.generic.nests import Access, Loop, Nest
from patc.passes.ir.bodies import yields_argument

_FEW = 4  # rows or columns, of which vectors would hold little


@dataclass(frozen=True)
class Transposed:
    """A copy of matrices: rows that follow each other in the result are read from far apart.

    Attributes:
        source, output: where the operands begin.
        outer: loops around a matrix, each with its steps in source and output.
        rows, columns: extents of the loops whose neighbours follow each other in the result and in the source.
        source_step, output_step: elements from row to row of the source, and from column to column of the result.
    """

    source: Access
    output: Access
    outer: tuple[tuple[Loop, int, int], ...]
    rows: int
    columns: int
    source_step: int
    output_step: int

    @staticmethod
    def of(nest: Nest) -> Transposed | None:
        """Return the copy that a nest of f32 numbers is, if it is one that vectors cannot make as it is."""
        if len(nest.accesses) != 2 or not _copies(nest.op) or nest.accesses[0].memory is None:
            return None
        source, output = nest.accesses
        loops = list(zip(nest.loops, source.steps, output.steps, strict=True))
        rows = next((each for each in loops if each[2] == 1), None)
        columns = next((each for each in loops if each[1] == 1), None)
        if rows is None or columns is None or rows is columns or min(rows[0].extent, columns[0].extent) < _FEW:
            return None
        outer = tuple(each for each in loops if each is not rows and each is not columns)
        return Transposed(source, output, outer, rows[0].extent, columns[0].extent, rows[1], columns[2])


def _copies(op: Any) -> bool:
    """Whether a body is `yield in`, in f32."""
    argument = op.operation.regions[0].blocks[0].arguments[0]
    return yields_argument(op.operation) and isinstance(argument.type, ir.F32Type)
