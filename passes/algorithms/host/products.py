"""Products of matrices on CPUs: factors are packed into panels where that pays, and threads share rows or columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.integers import ceil_div
from patc.passes.algorithms.host.site import HostSite, StoredEpilogue
from patc.passes.generic.products import Product
from patc.passes.ir.elements import element_bytes
from patc.passes.kernels.builder import Builder, Index
from patc.passes.kernels.host.kernel import Kernel, set_apart
from patc.passes.kernels.host.matmul import Factor, Matmul, tile_shape
from patc.passes.kernels.host.panels import Cuts, Lines, Packing, pack_lines
from patc.targets import Target

_READ_TWICE = 2  # tiles of rows that may read columns where they are


@dataclass(frozen=True)
class Operands:
    """What a product is computed from, in memory.

    Attributes:
        lhs, rhs: the factors.
        out: the result.
        epilogue: what happens to the sums.
        is_packed: whether `rhs` is a constant in panels, as `pack_constant` makes it.
    """

    lhs: ir.Value
    rhs: ir.Value
    out: ir.Value
    epilogue: StoredEpilogue
    is_packed: bool = False


def cut(product: Product, target: Target) -> tuple[Cuts, Cuts]:
    """Return how a product's rows and columns are cut into register tiles."""
    rows, columns = product.rows.extent, product.columns.extent
    height, vectors = tile_shape(rows, columns, target)
    return Cuts.evenly(rows, 1, height), Cuts.evenly(columns, target.lanes, vectors)


def pack_constant(site: HostSite, product: Product, columns: np.ndarray, origin: ir.Value) -> ir.Value:
    """Return a right factor, columns x depth, in panels; `origin` holds it."""
    _, cuts = cut(product, site.target)
    place = "x".join(map(str, (product.rhs.offset, *columns.shape, product.columns.rhs, product.depth.rhs)))
    return site.constant(pack_lines(columns, cuts), origin, f"panels{cuts.unit}x{cuts.longest}.{place}")


def emit_product(site: HostSite, product: Product, operands: Operands) -> None:
    """Write a product, and the calls of it, at a site."""
    cuts = cut(product, site.target)
    _multiply(site, product, operands, pack(site, product, operands, cuts), cuts)


def pack(site: HostSite, product: Product, operands: Operands, cuts: tuple[Cuts, Cuts]) -> tuple[Side, Side]:
    """Return the factors as tiles read them; those that are far apart in memory are packed at a site."""
    rows, lhs = cuts[0], Side.left(product, operands.lhs)
    apart, costs = lhs.step * element_bytes(lhs.memory.type), site.costs
    is_aliased = apart % costs.way_bytes == 0 and rows.longest > costs.first_level_ways
    if product.rows.extent > 1 and (lhs.depth_step != 1 or is_aliased):
        lanes = site.target.lanes
        lhs = _pack(site, product, lhs, rows, lanes * ceil_div(rows.longest, lanes), has_images=True)
    return lhs, pack_right(site, product, operands, cuts)


def pack_right(site: HostSite, product: Product, operands: Operands, cuts: tuple[Cuts, Cuts]) -> Side:
    """Return the right factor as tiles read it."""
    rows, columns = cuts
    rhs = Side(
        *(operands.rhs, product.rhs.offset, product.columns.rhs, product.depth.rhs),
        tuple(turns.rhs for turns in product.outer),
        int(operands.is_packed),
    )
    if rhs.pitch or (rhs.step == 1 and rows.count <= _READ_TWICE):
        return rhs
    return _pack(site, product, rhs, columns, None)


@dataclass(frozen=True)
class Side:
    """A factor in memory.

    Attributes:
        first: address of the first element.
        step: elements from one line to the next.
        depth_step: elements from one product to the next.
        outer: elements from one turn to the next of the loops around.
        pitch: as in `Factor`.
    """

    memory: ir.Value
    first: int
    step: int
    depth_step: int
    outer: tuple[int, ...]
    pitch: int = 0

    @staticmethod
    def left(product: Product, memory: ir.Value) -> Side:
        """Return the left factor of a product as it is in memory."""
        outer = tuple(turns.lhs for turns in product.outer)
        return Side(memory, product.lhs.offset, product.rows.lhs, product.depth.lhs, outer)

    def factor(self, memory: ir.Value) -> Factor:
        """Return it as a kernel reads it, which sees its memory as another one."""
        return Factor(memory, self.step, self.depth_step, self.pitch)


def _pack(
    site: HostSite, product: Product, side: Side, cuts: Cuts, pitch: int | None, has_images: bool = False
) -> Side:
    """Write a factor in panels; return it there.

    Args:
        has_images: whether lines are those of images, where there is one matrix.
    """
    loops = [(turns.extent, step) for turns, step in zip(product.outer, side.outer, strict=True) if step]
    extents, steps = [extent for extent, _ in loops], [step for _, step in loops]
    depth, count = product.depth.extent, math.prod(extents)
    lines = cuts.count * pitch if pitch else ceil_div(cuts.size, cuts.unit) * cuts.unit
    packed = site.memory.allocate(count * lines * depth, side.memory.type.element_type)

    def emit(kernel: Kernel, arguments: list[Any]) -> None:
        set_apart(arguments)
        b, work = kernel.b, kernel.work
        given = Lines(arguments[0], depth, side.step, side.depth_step)
        packing = Packing(b, given, arguments[1], cuts, pitch, kernel.schedule.lanes)

        def one_matrix(number: ir.Value) -> None:
            (source,) = starts(b, number, extents, [(side.first, steps)])
            packing.emit(source, b.mul(number, lines * depth), (work.first_filter, work.last_filter))

        b.each(work.first_tile, work.last_tile, one_matrix)

    def ends(images: int) -> tuple[int, int]:
        """Return the end of the matrices of so many images, or of the lines of the only one."""
        if count > 1:
            return site.share_of(count, images), cuts.count
        return 1, cuts.panels_of(site.share_of(cuts.size, images)) if has_images else cuts.count

    share(site, threads_for(site, product.turns), (count, cuts.count)).call(
        [side.memory, packed], emit, [1.0] * cuts.count, ends=ends
    )
    inner = [math.prod(extents[number + 1 :]) * lines * depth for number in range(len(extents))]
    outer = tuple(inner.pop(0) if step else 0 for step in side.outer)
    return Side(packed, 0, side.step, side.depth_step, outer, pitch or 1)


def _multiply(
    site: HostSite, product: Product, operands: Operands, sides: tuple[Side, Side], cuts: tuple[Cuts, Cuts]
) -> None:
    (lhs, rhs), (rows, columns) = sides, cuts
    extents, depth = [turns.extent for turns in product.outer], product.depth.extent
    count = math.prod(extents)
    fitting = max(1, site.costs.second_level_bytes // 2 // (element_bytes(lhs.memory.type) * depth * rows.longest))
    most = 1 if site.images is None else site.images.most
    blocks = max(ceil_div(rows.count, fitting), min(rows.count, ceil_div(max(site.schedule.threads, most), count)))
    tiles = ceil_div(rows.count, blocks)
    blocks = ceil_div(rows.count, tiles)

    def ends(images: int) -> tuple[int, int]:
        """Return the end of the blocks that have rows of so many images, and that of all columns."""
        if count > 1:
            return blocks * site.share_of(count, images), columns.count
        return ceil_div(rows.panels_of(site.share_of(rows.size, images)), tiles), columns.count

    addresses = [
        (lhs.first, lhs.outer),
        (rhs.first, rhs.outer),
        (product.out.offset, tuple(turns.out for turns in product.outer)),
    ]

    def emit(kernel: Kernel, arguments: list[Any]) -> None:
        set_apart(arguments[:1])
        b, work = kernel.b, kernel.work
        left, right, made, epilogue = arguments
        factors = lhs.factor(left), rhs.factor(right)
        matmul = Matmul(b, rows, columns, depth, *factors, made, product.rows.out, product.adds, epilogue)

        def one_block(number: ir.Value) -> None:
            turn, block = b.divide(number, blocks) if blocks > 1 else (number, 0)
            first = b.mul(block, tiles)
            last = b.minimum(b.add(first, tiles), rows.count)
            lhs_start, rhs_start, out_start = starts(b, turn, extents, addresses)
            matmul.emit((lhs_start, rhs_start, out_start), (first, last), (work.first_filter, work.last_filter))

        b.each(work.first_tile, work.last_tile, one_block)

    given = [lhs.memory, rhs.memory, operands.out, operands.epilogue]
    share(site, threads_for(site, product.turns), (count * blocks, columns.count)).call(
        given, emit, [1.0] * columns.count, ends=ends
    )


def starts(
    b: Builder, number: Index, extents: Sequence[int], sides: Sequence[tuple[int, Sequence[int]]]
) -> list[Index]:
    """Return the addresses of some matrices in one turn of the loops around: where each begins in the first turn, and
    its steps in each loop, are given."""
    digits = b.digits(number, extents)
    found: list[Index] = []
    for first, steps in sides:
        address: Index = first
        for digit, step in zip(digits, steps, strict=True):
            address = b.add(b.mul(digit, step), address)
        found.append(address)
    return found


def threads_for(site: HostSite, products: int) -> int:
    """Return how many threads so many products are worth."""
    worth_waking = site.costs.shared_work_cycles * site.target.fma_lanes
    return min(site.schedule.threads, max(1, products // worth_waking))


def share(site: HostSite, threads: int, parts: tuple[int, int]) -> HostSite:
    """Return the site for threads that share the first of two sorts of parts, or the second if there are few."""
    first, second = parts
    by_first = first % threads == 0 or first >= 4 * threads or second < threads
    threads = min(threads, first if by_first else second)
    return site.scheduled(replace(site.schedule, split="rows" if by_first else "filters", threads=threads), (0, first))
