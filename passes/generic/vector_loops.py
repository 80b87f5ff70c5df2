"""Which loop of a nest vectors go along, and how sums along it are made of vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

from patc.passes.generic.nests import Nest, indexed_dims

_FEW = 4  # elements, of which vectors would hold little


@dataclass(frozen=True)
class Combiner:
    """What joins an element to a sum.

    Attributes:
        op: of a body, as `arith.addf`.
        kind: of `vector.reduction` over the lanes.
        neutral: what leaves any element as it is.
    """

    op: Any
    kind: str
    neutral: float


_KINDS = {
    "arith.addf": ("add", 0.0),
    "arith.addi": ("add", 0),
    "arith.mulf": ("mul", 1.0),
    "arith.muli": ("mul", 1),
    "arith.andi": ("and", -1),
    "arith.ori": ("or", 0),
    "arith.maximumf": ("maximumf", -math.inf),
    "arith.minimumf": ("minimumf", math.inf),
    "arith.maxnumf": ("maxnumf", -math.inf),
    "arith.minnumf": ("minnumf", math.inf),
}


def combiners(nest: Nest) -> list[Combiner] | None:
    """Return what joins elements to each output of a nest; None where an output is no sum of that sort."""
    block = nest.op.operation.regions[0].blocks[0]
    arguments, terminator = list(block.arguments)[len(nest.op.inputs) :], list(block.operations)[-1]
    found = [_combiner(value, argument) for value, argument in zip(terminator.operands, arguments, strict=True)]
    known = [each for each in found if each is not None]
    return known if len(known) == len(found) else None


def _combiner(value: ir.Value, argument: ir.Value) -> Combiner | None:
    if (
        isinstance(value.owner, ir.Block)
        or value.owner.name not in _KINDS
        or list(value.owner.operands).count(argument) != 1
    ):
        return None
    return Combiner(value.owner.opview, *_KINDS[value.owner.name]) if len(list(argument.uses)) == 1 else None


def vector_loops(nest: Nest) -> Iterator[int]:
    """Yield the loops that vectors can go along, the best one first: they step over neighbours or stay where they are,
    and those of sums are known."""
    if not _is_simple(nest):
        return
    found = []
    for number, loop in enumerate(nest.loops):
        steps = [access.steps[number] for access in nest.accesses]
        stored = [access.steps[number] for access in nest.outputs]
        fits = all(step in (0, 1) for step in steps) and loop.extent >= _FEW
        fits = fits and (all(stored) if loop.is_parallel else not any(stored) and combiners(nest) is not None)
        if fits and not any(
            step and _is_bit(access.operand) for step, access in zip(steps, nest.accesses, strict=True)
        ):
            found.append((-sum(steps), -loop.extent, number))
    for *_, number in sorted(found):
        yield number


def _is_bit(value: ir.Value) -> bool:
    """Whether elements are single bits, which vectors would hold without the bits between them in memory."""
    return isinstance(value.type, ir.ShapedType) and value.type.element_type == ir.IntegerType.get_signless(1)


# Lanes behind the last element hold zeros, which integers must not be divided by; no CPU divides vectors of them.
_TRAPS = ("arith.ceildiv", "arith.div", "arith.floordiv", "arith.rem")


def _is_simple(nest: Nest) -> bool:
    """Whether a body is arithmetic on elements alone, none of which traps."""
    body = list(nest.op.operation.regions[0].blocks[0].operations)[:-1]
    simple = all(
        op.operation.name.split(".")[0] in ("arith", "math")
        and not (op.operation.name.startswith(_TRAPS) and isinstance(op.results[0].type, ir.IntegerType))
        and not any(isinstance(value.type, ir.IndexType) for value in (*op.operands, *op.results))
        for op in body
    )
    return simple and not indexed_dims(nest.op)
