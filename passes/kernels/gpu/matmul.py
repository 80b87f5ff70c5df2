"""Products of matrices on a GPU: a workgroup computes a tile of the result, from pieces of both factors that its
threads put into workgroup memory.

    for piece of the depth:
      rows x piece of lhs, piece x columns of rhs -> workgroup memory
      for k in piece: sums += lhs[rows, k] * rhs[k, columns]        # in registers, vectors of columns

In a `Schedule`, `rows` and `columns` are those of a thread.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.generic.products import Product, Turns
from patc.passes.kernels.builder import Index, Vectors, element_type
from patc.passes.kernels.generic import FlatMemory
from patc.passes.kernels.gpu.kernel import LANES, SPLIT, Kernel

_PIECE = 16  # of the depth
_UNROLLED = 4  # of a piece
_ENOUGH = 1 << 14  # threads of large tiles, not to leave a GPU idle
ACROSS = {64: 8, 128: 16}  # threads side by side along columns, by those of a workgroup

# Returns what is stored of a sum in some column, and at some place of the result.
Ends: TypeAlias = Callable[[ir.Value, Index, Index], ir.Value]


@dataclass(frozen=True)
class Tiling:
    """The tile of a workgroup: rows and columns, both in groups of four."""

    schedule: Schedule

    @staticmethod
    def of(name: str, product: Product) -> Tiling:
        """Return large tiles where they give enough threads work, and else small ones."""
        large, small = (
            Tiling(Schedule(name, rows, LANES, LANES, split=SPLIT, threads=threads))
            for rows, threads in ((2 * LANES, 128), (LANES, 64))
        )
        across, down, outer = large.groups(product)
        return large if across * down * outer * large.schedule.threads >= _ENOUGH else small

    @property
    def across(self) -> int:
        """Threads side by side along columns."""
        return ACROSS[self.schedule.threads]

    @property
    def down(self) -> int:
        """Threads side by side along rows."""
        return self.schedule.threads // self.across

    @property
    def rows(self) -> int:
        return self.down * self.schedule.rows

    @property
    def columns(self) -> int:
        return self.across * self.schedule.columns

    def groups(self, product: Product) -> tuple[int, int, int]:
        """Return the workgroups along columns, rows, and turns of the loops around."""
        outer = math.prod(turns.extent for turns in product.outer)
        return ceil_div(product.columns.extent, self.columns), ceil_div(product.rows.extent, self.rows), outer


@dataclass(frozen=True)
class Operands:
    """Where factors and result begin: what `Product` says of offsets and memories is left to the caller."""

    lhs: FlatMemory
    rhs: FlatMemory
    out: FlatMemory


def multiply(k: Kernel, product: Product, tiling: Tiling, operands: Operands, ends: Ends | None = None) -> None:
    """Emit a product.

    Args:
        ends: what becomes of the sums, in the type they are made in.
    """
    Writer(k, product, tiling, operands).write(ends)


@dataclass(frozen=True)
class _Side:
    """A factor for a workgroup.

    Attributes:
        first: address of the matrix.
        line: first of the workgroup's lines: rows of lhs, columns of rhs.
        lines: of the workgroup.
        extent: lines of the matrix.
        step, depth_step: elements from one line to the next, and from one product to the next.
        shared: lines in groups of four, product by product.
    """

    memory: ir.Value
    first: Index
    line: Index
    lines: int
    extent: int
    step: int
    depth_step: int
    shared: ir.Value

    @property
    def pitch(self) -> int:
        """Groups from one product to the next: one more than there are, for threads to write to different banks."""
        return self.lines // LANES + 1


class Writer:
    """The loops of a product.

    Args:
        element: of the sums, and of factors in workgroup memory; that of the kernel's sums by default.
    """

    def __init__(
        self, k: Kernel, product: Product, tiling: Tiling, operands: Operands, element: ir.Type | None = None
    ) -> None:
        self._k, self._product, self._tiling = k, product, tiling
        self._element = element or k.accumulator
        self._turns = k.digits(k.group("z"), [turns.extent for turns in product.outer])
        self._down, self._across = k.divide(k.thread(), tiling.across)
        row, column = k.mul(k.group("y"), tiling.rows), k.mul(k.group("x"), tiling.columns)
        self._out = operands.out.memref
        self._out_first = self._matrix(operands.out.first, [turns.out for turns in product.outer])
        rows, columns, depth = product.rows, product.columns, product.depth
        lhs = self._matrix(operands.lhs.first, [turns.lhs for turns in product.outer])
        rhs = self._matrix(operands.rhs.first, [turns.rhs for turns in product.outer])
        given = (operands.lhs.memref, lhs, row, tiling.rows, rows.extent, rows.lhs, depth.lhs)
        self._lhs = _Side(*given, self._share(tiling.rows))
        given = (operands.rhs.memref, rhs, column, tiling.columns, columns.extent, columns.rhs, depth.rhs)
        self._rhs = _Side(*given, self._share(tiling.columns))

    def _matrix(self, first: Index, steps: Sequence[int]) -> Index:
        """Return the address of a matrix in the workgroup's turn of the loops around."""
        k = self._k
        for turn, step in zip(self._turns, steps, strict=True):
            first = k.add(first, k.mul(turn, step))
        return first

    def _share(self, lines: int) -> ir.Value:
        k = self._k
        return k.shared(_PIECE * (lines // LANES + 1), k.vector_type(self._element))

    def write(self, ends: Ends | None = None) -> None:
        """Emit all loops; see `multiply`."""
        k, depth = self._k, self._product.depth.extent
        zero = k.splat(0.0, LANES, self._element)

        def one_piece(first: ir.Value, sums: Vectors) -> Vectors:
            k.barrier()  # all have read the piece before
            for side in (self._lhs, self._rhs):
                self._copy(side, first)
            k.barrier()
            return k.loop(0, _PIECE, sums, self._products, _UNROLLED)

        count = self._tiling.schedule.rows * (self._tiling.schedule.columns // LANES)
        self._store(k.loop(0, depth, [zero] * count, one_piece, _PIECE), ends)

    def _copy(self, side: _Side, first: ir.Value) -> None:
        """Put the lines of a piece into workgroup memory; neighbouring threads read neighbouring elements."""
        k, groups, threads = self._k, side.lines // LANES, self._tiling.schedule.threads
        for start in range(0, groups * _PIECE, threads):
            number = k.index(k.add(k.thread(), start))
            if side.depth_step == 1:
                group, place = k.divide(number, _PIECE)
            else:
                place, group = k.divide(number, groups)
            k.store_element(self._gather(side, group, k.add(first, place)), side.shared, self._spot(side, group, place))

    def _spot(self, side: _Side, group: Index, place: Index) -> Index:
        return self._k.add(self._k.mul(place, side.pitch), group)

    def _gather(self, side: _Side, group: Index, number: Index) -> ir.Value:
        """Return four lines of a product; zeros behind the last one."""
        k, depth = self._k, self._product.depth.extent
        is_partial = depth % _PIECE != 0
        place = k.minimum(number, depth - 1) if is_partial else number
        start = k.add(side.first, k.mul(place, side.depth_step))
        line = k.add(side.line, k.mul(group, LANES))
        scalars = []
        for lane in range(LANES):
            own = k.add(line, lane)
            own = k.minimum(own, side.extent - 1) if side.extent % side.lines else own
            value = k.load_scalar(side.memory, k.add(start, k.mul(own, side.step)))
            if is_partial:
                value = arith.SelectOp(k.less(number, depth), value, k.scalar(0.0, value.type)).result
            scalars.append(value)
        return k.convert(k.compose(scalars), self._element)

    def _products(self, place: ir.Value, sums: Vectors) -> Vectors:
        """Add some products of a piece."""
        k, tiling, sums = self._k, self._tiling, list(sums)
        vectors = tiling.schedule.columns // LANES
        for more in range(_UNROLLED):
            own = k.add(place, more)
            right = [
                k.load_scalar(self._rhs.shared, self._spot(self._rhs, k.add(self._across, v * tiling.across), own))
                for v in range(vectors)
            ]
            left = [
                k.load_scalar(self._lhs.shared, self._spot(self._lhs, k.add(self._down, v * tiling.down), own))
                for v in range(tiling.schedule.rows // LANES)
            ]
            for row in range(tiling.schedule.rows):
                weight = k.broadcast(k.extract(left[row // LANES], row % LANES), LANES)
                for v in range(vectors):
                    sums[row * vectors + v] = self.product(weight, right[v], sums[row * vectors + v])
        return sums

    def product(self, left: ir.Value, right: ir.Value, total: ir.Value) -> ir.Value:
        """Return sums with products."""
        return self._k.fma(left, right, total)

    def _store(self, sums: Vectors, ends: Ends | None) -> None:
        tiling = self._tiling
        vectors = tiling.schedule.columns // LANES
        for row, v in itertools.product(range(tiling.schedule.rows), range(vectors)):
            self._store_vector(sums[row * vectors + v], *self.place(row, v), ends)

    def place(self, row: int, vector: int) -> tuple[Index, Index]:
        """Return the row of the result, and the first column, of a thread's row and vector."""
        k, tiling = self._k, self._tiling
        number, lane = divmod(row, LANES)
        down = k.add(k.mul(k.add(self._down, number * tiling.down), LANES), lane)
        first = k.add(self._rhs.line, k.mul(k.add(self._across, vector * tiling.across), LANES))
        return k.add(self._lhs.line, down), first

    def _store_vector(self, value: ir.Value, own_row: Index, first: Index, ends: Ends | None) -> None:
        k, tiling, rows, columns = self._k, self._tiling, self._product.rows, self._product.columns
        start = k.mul(own_row, rows.out)

        def one_element(lane: int) -> None:
            column = k.add(first, lane)
            total, place = k.extract(value, lane), k.add(start, k.mul(column, columns.out))
            address = k.add(self._out_first, place)
            if self._product.adds:
                total = k.plus(total, k.convert(k.load_scalar(self._out, address), k.accumulator))
            total = total if ends is None else ends(total, column, place)
            k.store_element(k.convert(total, element_type(self._out)), self._out, address)

        def row_elements() -> None:
            for lane in range(LANES):
                when_inside(k, k.add(first, lane), columns, tiling.columns, functools.partial(one_element, lane))

        when_inside(k, own_row, rows, tiling.rows, row_elements)


def when_inside(k: Kernel, line: Index, turns: Turns, lines: int, body: Callable[[], None]) -> None:
    """Emit what happens to a line, if the matrix has it; a workgroup has `lines`."""
    if turns.extent % lines:
        k.when(k.less(line, turns.extent), body)
    else:
        body()
