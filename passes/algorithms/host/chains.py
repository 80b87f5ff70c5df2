"""Steps of an outlined function that go through blocks of rows together, and hand rows to each other on the stack."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch_mlir import ir

from patc.integers import ceil_div
from patc.passes.algorithms.host.products import Operands, Side, pack, pack_right, threads_for
from patc.passes.algorithms.host.site import NO_EPILOGUE, HostSite
from patc.passes.generic.bufferize import used_memories
from patc.passes.generic.chains import Chain, Link, Place, accesses, passes, vector_loop
from patc.passes.generic.nests import Access, Nest
from patc.passes.generic.products import Product
from patc.passes.ir.elements import element_bytes
from patc.passes.kernels.builder import Builder, Index
from patc.passes.kernels.generic import FlatMemory, compute_turn
from patc.passes.kernels.host.kernel import Epilogue, Kernel, set_apart
from patc.passes.kernels.host.matmul import Matmul, tile_shape, tile_width
from patc.passes.kernels.host.panels import Cuts
from patc.passes.kernels.host.vector_nests import Lanes, Pass

_STACK_BYTES = 64 * 1024
_BLOCKS = 4  # of a thread
_LINE = 16  # elements


@dataclass(frozen=True)
class Plan:
    """How a chain is computed.

    Attributes:
        groups: links that go through a block one after the other, nests of one in one pass over memory.
        along_rows: whether vectors hold several rows, or else elements of one.
        unit: rows that stay together.
        units: of a block.
        rows: how products cut them into tiles; each is a unit.
        stack: memories that are on the stack, and where their elements are there: the step of rows, the steps of the
            dims of a row, and elements in all.
        kept: memories that are not written at all.
    """

    chain: Chain
    groups: tuple[tuple[Link, ...], ...]
    along_rows: bool
    unit: int
    units: int
    rows: Cuts | None
    stack: Mapping[ir.Value, tuple[int, tuple[int, ...], int]]
    kept: Collection[ir.Value]

    @property
    def blocks(self) -> int:
        """Blocks of rows of one turn of the loops around these."""
        return ceil_div(self.all_units, self.units)

    @property
    def all_units(self) -> int:
        return self.rows.count if self.rows else ceil_div(self.chain.extents[-1], self.unit)

    @property
    def count(self) -> int:
        """All blocks."""
        return math.prod(self.chain.extents[:-1]) * self.blocks


def plan_chain(site: HostSite, links: Sequence[Link], own: Collection[ir.Value]) -> Plan | None:
    """Return how some steps are computed together; None where they cannot be, or should not.

    Args:
        own: memories that only these steps use.
    """
    chain = Chain.of(links)
    if chain is None:
        return None
    rows = _row_cuts(site, chain) if chain.has_products else None
    if rows is not None and any(not _is_straight(link, chain) for link in chain.links):
        return None
    along_rows = rows is None and not any(_goes_along_own(link, len(chain.extents)) for link in chain.links)
    groups = tuple(map(tuple, passes(chain.links, len(chain.extents), along_rows=along_rows)))
    unit = 1
    if along_rows:
        strips = [_lanes(site, group, chain, along_rows=True) for group in groups]
        unit = max((lanes.strip for lanes in strips if lanes is not None), default=1)
    kept = [memory for memory in own if _is_handed(memory, chain, groups)]
    plan = Plan(chain, groups, along_rows, unit, 1, rows, {}, kept)
    return _sized(site, plan, [memory for memory in own if memory in chain.places and memory not in kept])


def _row_cuts(site: HostSite, chain: Chain) -> Cuts:
    rows, target = chain.extents[-1], site.target
    products = [link for link in chain.links if isinstance(link, Product)]
    heights = [tile_shape(rows, each.columns.extent, target)[0] for each in products]
    return Cuts.evenly(rows, 1, min(heights))


def _is_straight(link: Link, chain: Chain) -> bool:
    """Whether a product can read what another link hands to it."""
    return isinstance(link, Nest) or link.lhs.memory not in chain.places or link.depth.lhs == 1


def _goes_along_own(link: Link, leading: int) -> bool:
    return isinstance(link, Nest) and vector_loop([link], leading, along_rows=False) is not None


def _lanes(site: HostSite, group: Sequence[Any], chain: Chain, *, along_rows: bool) -> Lanes | None:
    """Return the vectors of a pass; None where it has none."""
    loop = vector_loop(group, len(chain.extents), along_rows=along_rows)
    return None if loop is None else Lanes.of(group, loop, site.target.lanes, site.target.registers)


def _is_handed(memory: ir.Value, chain: Chain, groups: Sequence[Sequence[Link]]) -> bool:
    """Whether only nests of one pass with vectors use a memory, and one of them writes it whole before."""
    users = [group for group in groups if any(_uses(link, memory) for link in group)]
    if len(users) != 1 or len(users[0]) < 2:
        return False
    first = next(link for link in users[0] if _uses(link, memory))
    return isinstance(first, Nest) and first.carried == len(first.loops) and first.makes(memory)


def _uses(link: Link, memory: ir.Value) -> bool:
    return any(access.memory == memory for access, _ in accesses(link))


def _sized(site: HostSite, plan: Plan, own: Sequence[ir.Value]) -> Plan | None:
    """Return a plan whose blocks fit a cache, and with what is on the stack."""
    has_products = plan.rows is not None
    longest = plan.rows.longest if plan.rows else plan.unit
    first, second = site.costs.first_level_bytes, site.costs.second_level_bytes // 2
    size = sum(_row_bytes(plan.chain, memory) for memory in plan.chain.places) if has_products else _all_bytes(plan)
    if size * longest > (_STACK_BYTES * 4 if has_products else second):
        return None
    most = max(1, (_STACK_BYTES if has_products else first) // max(1, size * longest))
    units = min(most, plan.all_units)
    others = math.prod(plan.chain.extents[:-1])
    if site.schedule.threads > 1:
        wanted = _BLOCKS * site.schedule.threads
        units = max(1, min(units, plan.all_units * others // wanted))
        if has_products and others * ceil_div(plan.all_units, units) < site.schedule.threads:
            return None
    height = units * longest
    stack = {}
    for memory in own:
        found = _on_stack(plan.chain.places[memory], height, along_rows=plan.along_rows)
        if found[2] * element_bytes(memory.type) <= 4 * _STACK_BYTES:
            stack[memory] = found
    return replace(plan, units=units, stack=stack)


def _row_bytes(chain: Chain, memory: ir.Value) -> int:
    return math.prod(extent for extent, _ in chain.places[memory].inner) * element_bytes(memory.type)


def _all_bytes(plan: Plan) -> int:
    """Return the bytes of all that a row touches."""
    sizes: dict[ir.Value, int] = {}
    leading = len(plan.chain.extents)
    for link in plan.chain.links:
        assert isinstance(link, Nest)
        for access, _ in accesses(link):
            inner = zip(link.loops[leading:], access.steps[leading:], strict=True)
            elements = math.prod(loop.extent for loop, step in inner if step)
            if access.memory is not None and access.steps[leading - 1]:
                sizes[access.memory] = max(sizes.get(access.memory, 0), elements * element_bytes(access.memory.type))
    return sum(size for memory, size in sizes.items() if memory not in plan.kept)


def _on_stack(place: Place, height: int, *, along_rows: bool) -> tuple[int, tuple[int, ...], int]:
    """Return the step of rows, the steps of the dims of a row, and the elements of so many rows, without gaps."""
    extents = [extent for extent, _ in place.inner]
    dense = [math.prod(extents[n + 1 :]) for n in range(len(extents))]
    size = math.prod(extents)
    if along_rows:
        pitch = ceil_div(height, _LINE) * _LINE
        return 1, tuple(step * pitch for step in dense), size * pitch
    pitch = ceil_div(size, _LINE) * _LINE
    pitch += _LINE if pitch % 256 == 0 else 0  # rows apart by a power of two share few sets of a cache
    return pitch, tuple(dense), pitch * height


# Code.


def emit_chain(site: HostSite, plan: Plan, memories: Mapping[ir.Value, ir.Value]) -> None:
    """Write a chain, and the calls of it, at a site; `memories` says what each memory of the steps is."""
    names = _names(plan, memories)
    given = list(dict.fromkeys(memories[name] for name in names))
    groups = [tuple(_moved(link, plan) for link in group) for group in plan.groups]
    factors: list[tuple[Side, Side, tuple[Cuts, Cuts]] | None] = []
    for group in plan.groups:
        found = _factors(site, plan, group[0], memories) if isinstance(group[0], Product) else None
        factors.append(found)
        for side in (found or ())[:2]:
            is_new = isinstance(side, Side) and side.memory not in given and side.memory not in plan.stack
            given += [side.memory] if is_new else []
    turns = sum(link.turns for link in plan.chain.links)
    if plan.rows is None:
        threads = min(site.schedule.threads, plan.count, max(1, turns // site.costs.shared_work_cycles))
    else:
        threads = min(threads_for(site, turns), plan.count)
    site = site.scheduled(replace(site.schedule, split="rows", threads=threads), (0, plan.count))

    def emit(kernel: Kernel, arguments: list[Any]) -> None:
        set_apart(arguments)
        seen = dict(zip(given, arguments, strict=True))
        known = {name: seen[memories[name]] for name in names}
        _Blocks(site, kernel, plan, groups, factors, known, seen).write()

    site.call(given, emit, [1.0])


def _names(plan: Plan, memories: Mapping[ir.Value, ir.Value]) -> list[ir.Value]:
    """Return the memories of the steps that a kernel has to be given."""
    found: dict[ir.Value, None] = {}
    for link in plan.chain.links:
        used = used_memories(link.op, memories) if isinstance(link, Nest) else [a.memory for a, _ in accesses(link)]
        found.update(dict.fromkeys(memory for memory in used if memory is not None))
    return [name for name in found if name not in plan.stack and name not in plan.kept]


def _factors(
    site: HostSite, plan: Plan, product: Product, memories: Mapping[ir.Value, ir.Value]
) -> tuple[Side, Side, tuple[Cuts, Cuts]]:
    """Return the factors of a product, packed where tiles do not read them as they are, and its cuts."""
    assert plan.rows is not None
    target, columns = site.target, product.columns.extent
    width = tile_width(plan.chain.extents[-1], columns, target, plan.rows.longest)
    cuts = plan.rows, Cuts.evenly(columns, target.lanes, width)
    rhs = memories[product.rhs.memory]
    lhs, out = (memories.get(access.memory, access.memory) for access in (product.lhs, product.out))
    operands = Operands(lhs, rhs, out, NO_EPILOGUE)
    if product.lhs.memory in plan.chain.places:
        return Side.left(_moved(product, plan), lhs), pack_right(site, product, operands, cuts), cuts
    return *pack(site, product, operands, cuts), cuts


def _moved(link: Link, plan: Plan) -> Any:
    """Return a link with its accesses to what is on the stack there, where rows count from the first of all."""
    if isinstance(link, Nest):
        return replace(link, accesses=tuple(_move(access, plan) for access in link.accesses))
    leading = len(plan.chain.extents)
    for name, own in (("lhs", "depth"), ("out", "columns")):
        access = getattr(link, name)
        if access.memory not in plan.stack:
            continue
        loops = (*link.outer, link.rows, getattr(link, own))
        moved = _move(replace(access, steps=tuple(getattr(turns, name) for turns in loops)), plan)
        loops = tuple(replace(turns, **{name: step}) for turns, step in zip(loops, moved.steps, strict=True))
        link = replace(link, outer=loops[: leading - 1], rows=loops[leading - 1], **{own: loops[leading]})
        link = replace(link, **{name: replace(access, offset=0)})
    return link


def _move(access: Access, plan: Plan) -> Access:
    if access.memory not in plan.stack:
        return access
    leading, place = len(plan.chain.extents), plan.chain.places[access.memory]
    pitch, dense, _ = plan.stack[access.memory]
    moved = [0] * (leading - 1) + [pitch]
    for step in access.steps[leading:]:
        fitting = (n for n, (_, old) in reversed(list(enumerate(place.inner))) if step and step % old == 0)
        best = max(fitting, key=lambda n: place.inner[n][1], default=None)
        moved.append(0 if best is None else step // place.inner[best][1] * dense[best])
    return replace(access, offset=0, steps=tuple(moved))


class _Blocks:
    """The loop over blocks in a kernel."""

    def __init__(
        self,
        site: HostSite,
        kernel: Kernel,
        plan: Plan,
        groups: Sequence[tuple[Link, ...]],
        factors: Sequence[tuple[Side, Side, tuple[Cuts, Cuts]] | None],
        known: dict[ir.Value, ir.Value],
        seen: dict[ir.Value, ir.Value],
    ) -> None:
        self._site, self._kernel, self._plan = site, kernel, plan
        self._groups, self._factors = groups, factors
        self._known, self._seen = known, seen
        self._b: Builder = kernel.b

    def write(self) -> None:
        b, work, plan = self._b, self._kernel.work, self._plan
        self._scratch = {name: b.scratch(size, name.type.element_type) for name, (*_, size) in plan.stack.items()}
        extents = [*plan.chain.extents[:-1], plan.blocks]

        def one_block(number: ir.Value) -> None:
            *outer, block = b.digits(number, extents)
            first = b.mul(block, plan.units)
            self._block(outer, (first, b.minimum(b.add(first, plan.units), plan.all_units)))

        b.each(work.first_tile, work.last_tile, one_block)

    def _row(self, unit: Index) -> Index:
        """Return the first row of a unit."""
        b, plan = self._b, self._plan
        if plan.rows is None:
            return b.minimum(b.mul(unit, plan.unit), plan.chain.extents[-1])
        cuts = plan.rows
        return b.add(b.mul(unit, cuts.longest - 1), b.minimum(unit, cuts.many))

    def _block(self, outer: list[Index], units: tuple[Index, Index]) -> None:
        b, plan = self._b, self._plan
        rows = self._row(units[0]), self._row(units[1])
        memories = {name: FlatMemory(memory) for name, memory in self._known.items()}
        for name, (pitch, *_) in plan.stack.items():
            memories[name] = FlatMemory(self._scratch[name], b.mul(rows[0], -pitch))
        for group, factors in zip(self._groups, self._factors, strict=True):
            if factors is not None:
                self._product(group[0], factors, outer, units, memories)
            else:
                self._nests(group, outer, (rows, units), memories)

    def _nests(
        self,
        group: Sequence[Any],
        outer: list[Index],
        bounds: tuple[tuple[Index, Index], tuple[Index, Index]],
        memories: dict[ir.Value, FlatMemory],
    ) -> None:
        """Write a pass over some rows, or over some strips of rows."""
        b, plan = self._b, self._plan
        rows, units = bounds
        lanes = _lanes(self._site, group, plan.chain, along_rows=plan.along_rows)
        # Rows of what moved to the stack may be neighbours only there: units are not made for vectors of them.
        if lanes is None or (plan.along_rows and plan.unit < lanes.lanes):
            assert len(group) == 1, "passes of several nests have vectors"
            b.each(*rows, lambda row: compute_turn(b, group[0], memories, [*outer, row]))
            return
        if plan.along_rows:
            lanes = replace(lanes, vectors=plan.unit // lanes.lanes)
        Pass(b, tuple(group), memories, lanes, plan.kept).write(outer, units if plan.along_rows else rows)

    def _product(
        self,
        product: Any,
        factors: tuple[Side, Side, tuple[Cuts, Cuts]],
        outer: list[Index],
        units: tuple[Index, Index],
        memories: dict[ir.Value, FlatMemory],
    ) -> None:
        b, (lhs, rhs, (rows, columns)) = self._b, factors
        on_stack = memories.get(product.lhs.memory) if product.lhs.memory in self._plan.stack else None
        left = FlatMemory(self._seen[lhs.memory]) if on_stack is None else on_stack
        made, right = memories[product.out.memory], self._seen[rhs.memory]
        sides = [(lhs.first, lhs.outer), (rhs.first, rhs.outer), (product.out.offset, [t.out for t in product.outer])]
        places = [_address(b, first, outer, steps) for first, steps in sides]
        begin = b.add(places[0], left.first), places[1], b.add(places[2], made.first)
        matmul = Matmul(
            *(b, rows, columns, product.depth.extent, lhs.factor(left.memref), rhs.factor(right), made.memref),
            *(product.rows.out, product.adds, Epilogue(None, None, self._site.epilogue.activation)),
        )
        matmul.emit(begin, units, (0, columns.count))


def _address(b: Builder, first: Index, turns: Sequence[Index], steps: Sequence[int]) -> Index:
    for turn, step in zip(turns, steps, strict=True):
        first = b.add(b.mul(turn, step), first)
    return first
