"""Which loops of a `linalg.generic` on flat memory are the rows, columns and sums of products of matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

from patc.passes.generic.nests import Access, read_loops
from patc.passes.ir.elements import memory_shape

_FEW = 4  # rows, for which to write columns as rows costs more than it saves
# Which of lhs, rhs and result a loop steps through: those around products, of rows, of columns, and of sums.
_SORTS = ((True, True, True), (True, False, True), (False, True, True), (True, True, False))


@dataclass(frozen=True)
class Turns:
    """A loop around products, or of their rows, columns or sums: its extent, and the elements from one turn to the next
    in the factors and in the result."""

    extent: int
    lhs: int
    rhs: int
    out: int

    def times(self, extent: int, times: int) -> Turns:
        """Return a loop of other turns, each so many of this one."""
        return Turns(extent, self.lhs * times, self.rhs * times, self.out * times)

    def holds(self, inner: Turns) -> bool:
        """Whether this loop around another one steps over memory as one loop of both would."""
        return all(
            outer == step * inner.extent
            for outer, step in ((self.lhs, inner.lhs), (self.rhs, inner.rhs), (self.out, inner.out))
        )


@dataclass(frozen=True)
class Product:
    """out[.., m, n] = sum over k of lhs[.., m, k] * rhs[.., k, n].

    Attributes:
        lhs, rhs, out: where the operands begin.
        outer: loops around the product of two matrices, the outermost first.
        rows, columns, depth: m, n and k.
        adds: whether the sums are added to what the result holds.
    """

    lhs: Access
    rhs: Access
    out: Access
    outer: tuple[Turns, ...]
    rows: Turns
    columns: Turns
    depth: Turns
    adds: bool = False

    @property
    def turns(self) -> int:
        """Multiplications."""
        total = self.rows.extent * self.columns.extent * self.depth.extent
        for turns in self.outer:
            total *= turns.extent
        return total

    @staticmethod
    def of_linear(op: Any) -> Product:
        """Return the product that a fully connected layer is, of an input and weights that are packed rows, of words
        where it is on integers."""
        (rows, depth), (_, width) = memory_shape(op.input.type), memory_shape(op.result.type)
        columns = op.result.type.shape[1]
        lhs, rhs, out = (Access(None, value, 0, ()) for value in (op.input, op.operands[1], op.result))
        return Product(
            *(lhs, rhs, out, ()),
            rows=Turns(rows, depth, 0, width),
            columns=Turns(columns, 0, depth, 1),
            depth=Turns(depth, 1, 1, 0),
        )

    @staticmethod
    def of(op: Any) -> Product | None:
        """Return the product that a `linalg.generic` on static f32 memrefs is, if vectors can be columns of its result
        and it is more than a few dot products."""
        if len(op.inputs) != 2 or len(op.outputs) != 1 or not _multiplies_and_adds(op):
            return None
        loops, accesses = read_loops(op)
        if any(access.memory is None for access in accesses):
            return None
        turns = [
            Turns(loop.extent, *(access.steps[number] for access in accesses))
            for number, loop in enumerate(loops)
            if loop.extent > 1
        ]
        lhs, rhs, out = accesses
        if not any(each.out == 1 and each.rhs and not each.lhs for each in turns):
            lhs, rhs, turns = rhs, lhs, [Turns(each.extent, each.rhs, each.lhs, each.out) for each in turns]
        return _arrange(lhs, rhs, out, turns)


def _arrange(lhs: Access, rhs: Access, out: Access, turns: list[Turns]) -> Product | None:
    sorts: dict[tuple[bool, bool, bool], list[Turns]] = {}
    for each in turns:
        sorts.setdefault((each.lhs != 0, each.rhs != 0, each.out != 0), []).append(each)
    both, rows, columns, depth = (_joined(sorts.pop(sort, [])) for sort in _SORTS)
    if sorts or len(depth) != 1 or not columns or columns[-1].out != 1:
        return None
    column = columns.pop()
    row = max(rows, key=lambda each: each.extent, default=Turns(1, 0, 0, 0))
    others = [each for each in rows if each is not row]
    if row.extent < _FEW and column.rhs != 1:
        return None
    return Product(lhs, rhs, out, (*both, *columns, *others), row, column, depth[0], adds=True)


def _joined(turns: list[Turns]) -> list[Turns]:
    """Return loops of one sort, the outermost first, with those made one that step over memory as one."""
    found: list[Turns] = []
    for inner in sorted(turns, key=lambda each: (each.out, each.lhs, each.rhs), reverse=True):
        if found and found[-1].holds(inner):
            inner = Turns(found.pop().extent * inner.extent, inner.lhs, inner.rhs, inner.out)
        found.append(inner)
    return found


def _multiplies_and_adds(op: Any) -> bool:
    """Whether a body is `yield out + lhs * rhs`, in f32."""
    block = op.operation.regions[0].blocks[0]
    names = [inner.operation.name for inner in block.operations]
    left, right, out = block.arguments
    if names != ["arith.mulf", "arith.addf", "linalg.yield"] or not isinstance(out.type, ir.F32Type):
        return False
    product, total, _ = block.operations
    return list(product.operands) in ([left, right], [right, left]) and list(total.operands) in (
        [out, product.result],
        [product.result, out],
    )
