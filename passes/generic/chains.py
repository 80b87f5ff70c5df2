"""Neighbouring steps that go through the same blocks of rows: what one hands to the next stays in cache.

A softmax is four nests, of maxima, exponentials, sums and quotients: block after block goes through all of them. An
attention is such nests between two products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch_mlir import ir

from patc.passes.generic.nests import Access, Loop, Nest, indexed_dims, read_loops
from patc.passes.generic.products import Product, Turns
from patc.passes.generic.vector_loops import vector_loops
from patc.passes.ir.functions import walk_ops

Link: TypeAlias = Nest | Product
Dims: TypeAlias = tuple[tuple[int, int], ...]  # extents and steps


@dataclass(frozen=True)
class Place:
    """Where the links of a chain find a memory.

    Attributes:
        offset: of the first element.
        leading: elements from one turn to the next of each leading loop.
        inner: extents and steps of what a row is, the widest step first.
    """

    offset: int
    leading: tuple[int, ...]
    inner: Dims

    def is_apart(self, extents: Sequence[int]) -> bool:
        """Whether each turn of the leading loops has elements of its own."""
        if any(step == 0 for step, extent in zip(self.leading, extents, strict=True) if extent > 1):
            return False
        reach = 1
        dims = [(step, extent) for step, extent in zip(self.leading, extents, strict=True) if extent > 1]
        for step, extent in sorted([*dims, *((step, extent) for extent, step in self.inner)]):
            if step < reach:
                return False
            reach += step * (extent - 1)
        return True


@dataclass(frozen=True)
class Chain:
    """Steps whose outermost loops are the same.

    Attributes:
        links: in their order; the leading loops of each nest are its first ones, those of a product its outer ones and
            its rows.
        extents: of the leading loops, of which the last one are the rows.
        places: where memories lie that one link writes and another one uses.
    """

    links: tuple[Link, ...]
    extents: tuple[int, ...]
    places: dict[ir.Value, Place]

    @property
    def has_products(self) -> bool:
        return any(isinstance(link, Product) for link in self.links)

    @staticmethod
    def of(links: Sequence[Link]) -> Chain | None:
        """Return the chain that some steps are; None where one reads what another one writes for a different row."""
        unmerged = [_unmerged(link) if isinstance(link, Nest) else link for link in links]
        if any(link is None for link in unmerged):
            return None
        aligned = _align([link for link in unmerged if link is not None])
        if aligned is None:
            return None
        found, extents = _join_leading(*aligned)
        places = _find_places(found, extents)
        return None if places is None else Chain(tuple(_merged(link, len(extents)) for link in found), extents, places)


def accesses(link: Link) -> list[tuple[Access, bool]]:
    """Return the accesses of a link to memory with the steps of its leading and its own loops, and whether it writes
    there; without the right factor of a product, which all rows share."""
    if isinstance(link, Product):
        return [(_steps(link, "lhs"), False), (_steps(link, "out"), True)]
    first = len(link.op.inputs)
    return [(access, n >= first) for n, access in enumerate(link.accesses) if access.memory is not None]


def _steps(product: Product, side: str) -> Access:
    own = product.depth if side == "lhs" else product.columns
    return replace(
        getattr(product, side), steps=tuple(getattr(turns, side) for turns in (*product.outer, product.rows, own))
    )


def _own(link: Link, side: int, leading: int) -> list[int]:
    """Return the extents of the loops of a link that are not leading; `side` is the number of an access."""
    if isinstance(link, Product):
        return [(link.depth, link.columns)[side].extent]
    return [loop.extent for loop in link.loops[leading:]]


def _unmerged(nest: Nest) -> Nest | None:
    """Return a nest with each loop of its own, the parallel ones first; None where what it reads depends on more than
    where it is."""
    if indexed_dims(nest.op) or any(inner.operation.name == "memref.load" for inner in walk_ops(nest.op)):
        return None
    loops, found = read_loops(nest.op)
    order = [n for n in range(len(loops)) if loops[n].extent > 1]
    order.sort(key=lambda n: not loops[n].is_parallel)
    return Nest(
        nest.op,
        tuple(loops[n] for n in order),
        tuple(replace(access, steps=tuple(access.steps[n] for n in order)) for access in found),
        None,
        nest.starts,
    )


# Leading loops.


def _align(links: list[Link]) -> tuple[list[Link], tuple[int, ...]] | None:
    """Return links with the same leading loops, and their extents."""
    anchor = next((n for n, link in enumerate(links) if _is_anchor(link)), 0)
    extents = _leading(links[anchor])
    if not extents:
        return None
    done: dict[int, Link] = {anchor: links[anchor]}
    known: dict[ir.Value, tuple[int, ...]] = {}
    _note(links[anchor], len(extents), known)
    pending = [n for n in range(len(links)) if n != anchor]
    while pending:
        for n in pending:
            found = _lead(links[n], extents, known)
            if found is not None:
                break
        else:
            return None
        done[n] = found
        pending.remove(n)
        _note(found, len(extents), known)
    return [done[n] for n in range(len(links))], extents


def _is_anchor(link: Link) -> bool:
    return isinstance(link, Product) or link.carried < len(link.loops)


def _leading(link: Link) -> tuple[int, ...]:
    if isinstance(link, Product):
        return (*(turns.extent for turns in link.outer), link.rows.extent)
    return tuple(loop.extent for loop in link.loops if loop.is_parallel)


def _note(link: Link, leading: int, known: dict[ir.Value, tuple[int, ...]]) -> None:
    for access, _ in accesses(link):
        assert access.memory is not None
        known.setdefault(access.memory, access.steps[:leading])


def _lead(link: Link, extents: tuple[int, ...], known: dict[ir.Value, tuple[int, ...]]) -> Link | None:
    """Return a link whose leading loops are those through which others step over a memory that it uses, too."""
    for side, (access, _) in enumerate(accesses(link)):
        steps = known.get(access.memory)
        if steps is None or not all(step or extent == 1 for step, extent in zip(steps, extents, strict=True)):
            continue
        dims = tuple(zip(extents, steps, strict=True))
        found = _lead_product(link, side, dims) if isinstance(link, Product) else _lead_nest(link, access, dims)
        if found is not None:
            return found
    return None


def _lead_nest(nest: Nest, access: Access, dims: Dims) -> Nest | None:
    number = next(n for n, each in enumerate(nest.accesses) if each is access)
    loops: list[tuple[Loop, tuple[int, ...]]] = [
        (loop, tuple(each.steps[n] for each in nest.accesses)) for n, loop in enumerate(nest.loops)
    ]
    leading = []
    for extent, step in dims:
        if extent == 1:
            leading.append((Loop(1, True, 0), (0,) * len(nest.accesses)))
            continue
        place, cut = _find_cut([(loop.extent * loop.is_parallel, steps[number]) for loop, steps in loops], extent, step)
        if cut is None:
            return None
        (loop, steps), (outer, inner) = loops[place], cut
        sizes = [(outer, extent * inner), (extent, inner), (inner, 1)]
        parts = [(replace(loop, extent=count), tuple(each * times for each in steps)) for count, times in sizes]
        leading.append(parts[1])
        loops[place : place + 1] = [parts[n] for n in (0, 2) if sizes[n][0] > 1]
    every = [*leading, *loops]
    found = [replace(each, steps=tuple(steps[n] for _, steps in every)) for n, each in enumerate(nest.accesses)]
    return replace(nest, loops=tuple(loop for loop, _ in every), accesses=tuple(found))


def _find_cut(loops: Sequence[tuple[int, int]], extent: int, step: int) -> tuple[int, tuple[int, int] | None]:
    """Return the first of some loops that a wanted one is a part of, and the turns around and inside of it there."""
    for number, (turns, own) in enumerate(loops):
        inner = step // own if own and step % own == 0 else 0
        if inner > 0 and turns and turns % (extent * inner) == 0:
            return number, (turns // (extent * inner), inner)
    return 0, None


def _lead_product(product: Product, side: int, dims: Dims) -> Product | None:
    """Return a product with the given leading loops; these have to be all loops but columns and depth."""
    name = ("lhs", "out")[side]
    loops = [*product.outer, product.rows]
    leading: list[Turns] = []
    for extent, step in dims:
        if extent == 1:
            leading.append(Turns(1, 0, 0, 0))
            continue
        place, cut = _find_cut([(turns.extent, getattr(turns, name)) for turns in loops], extent, step)
        if cut is None:
            return None
        turns, (outer, inner) = loops[place], cut
        leading.append(turns.times(extent, inner))
        parts = [turns.times(outer, extent * inner), turns.times(inner, 1)]
        loops[place : place + 1] = [each for each in parts if each.extent > 1]
    if any(turns.extent > 1 for turns in loops) or leading[-1].rhs:
        return None
    return replace(product, outer=tuple(leading[:-1]), rows=leading[-1])


def _join_leading(links: list[Link], extents: tuple[int, ...]) -> tuple[list[Link], tuple[int, ...]]:
    """Make one of two leading loops that every link steps over as one."""
    if any(isinstance(link, Product) for link in links):
        return links, extents
    number = 0
    nests = [link for link in links if isinstance(link, Nest)]
    while number + 1 < len(extents):
        if all(nest.steps_as_one(number) for nest in nests):
            nests = [nest.joined(number) for nest in nests]
            extents = (*extents[:number], extents[number] * extents[number + 1], *extents[number + 2 :])
        else:
            number += 1
    return list(nests), extents


def _merged(link: Link, leading: int) -> Link:
    """Return a link with its own loops in the order in which they step over memory, and those made one that it steps
    over as one."""
    if isinstance(link, Product):
        return link
    read = next((access for access in link.accesses if access.memory is not None), link.accesses[0])
    loops, written = link.loops, link.outputs[-1]

    def order(number: int) -> tuple[bool, int]:
        is_parallel = loops[number].is_parallel
        return not is_parallel, -(written if is_parallel else read).steps[number]

    link = link.reordered([*range(leading), *sorted(range(leading, len(loops)), key=order)])
    number = leading
    while number + 1 < len(link.loops):
        if link.loops[number].is_parallel == link.loops[number + 1].is_parallel and link.steps_as_one(number):
            link = link.joined(number)
        else:
            number += 1
    return link


# Memory.


def _find_places(links: Sequence[Link], extents: tuple[int, ...]) -> dict[ir.Value, Place] | None:
    """Return where the links find what one of them writes and another one uses; None where turns of the leading loops
    do not have elements of their own."""
    users: dict[ir.Value, set[int]] = {}
    written: set[ir.Value] = set()
    for n, link in enumerate(links):
        for access, writes in accesses(link):
            assert access.memory is not None
            users.setdefault(access.memory, set()).add(n)
            written |= {access.memory} if writes else set()
        if isinstance(link, Product) and link.rhs.memory is not None:
            users.setdefault(link.rhs.memory, set()).add(n)
            if link.rhs.memory in written:
                return None  # all rows of it are read for each row
    shared = {memory for memory in written if len(users[memory]) > 1}
    places: dict[ir.Value, Place] = {}
    for link in links:
        if isinstance(link, Product) and link.rhs.memory in written:
            return None
        for side, (access, _) in enumerate(accesses(link)):
            if access.memory not in shared:
                continue
            place = _place(link, side, access, len(extents))
            if places.setdefault(access.memory, place) != place or not place.is_apart(extents):
                return None
    return places


def _place(link: Link, side: int, access: Access, leading: int) -> Place:
    dims: list[tuple[int, int]] = []
    own = zip(_own(link, side, leading), access.steps[leading:], strict=True)
    for extent, step in sorted(((e, s) for e, s in own if s and e > 1), key=lambda dim: -dim[1]):
        if dims and dims[-1][1] == step * extent:
            dims[-1] = (dims[-1][0] * extent, step)
        else:
            dims.append((extent, step))
    return Place(access.offset, access.steps[:leading], tuple(dims))


def passes(links: Sequence[Link], leading: int, *, along_rows: bool) -> list[list[Link]]:
    """Return the links in groups of nests that can go through elements together; a product is alone.

    Nests of a group have loops of equal extents, and read what others of it write in the same turn of all loops.

    Args:
        along_rows: whether vectors hold several rows; see `vector_loop`.
    """
    groups: list[list[Link]] = []
    for link in links:
        if groups and isinstance(link, Nest) and _joins(groups[-1], link, leading, along_rows):
            groups[-1].append(link)
        else:
            groups.append([link])
    return groups


def _joins(group: Sequence[Link], nest: Nest, leading: int, along_rows: bool) -> bool:
    if not isinstance(group[0], Nest):
        return False
    nests = [link for link in group if isinstance(link, Nest)]
    if [loop.extent for loop in nests[0].loops] != [loop.extent for loop in nest.loops]:
        return False
    if vector_loop([*nests, nest], leading, along_rows=along_rows) is None:
        return False
    for other in nests:
        for access, writes in accesses(other):
            for own, own_writes in accesses(nest):
                if access.memory != own.memory or not (writes or own_writes):
                    continue
                is_sum = writes and other.carried < len(other.loops)
                alike = (access.offset, access.steps) == (own.offset, own.steps)
                if is_sum or not alike or (writes and own_writes):
                    return False
    return True


def vector_loop(nests: Sequence[Nest], leading: int, *, along_rows: bool) -> int | None:
    """Return the loop that vectors go along in all of some nests: the last leading one, or else the last of all."""
    wanted = leading - 1 if along_rows else len(nests[0].loops) - 1
    if wanted < leading and not along_rows:
        return None
    return wanted if all(wanted in vector_loops(nest) for nest in nests) else None
