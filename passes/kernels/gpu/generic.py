"""The loops of any linalg op on a GPU: a thread computes one turn of all parallel loops, or the threads of a workgroup
share its sum."""

from __future__ import annotations

import math

from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.passes.generic.nests import Nest
from patc.passes.kernels.generic import Memories, SharedTurn, compute_turn
from patc.passes.kernels.gpu.kernel import Kernel
from patc.passes.kernels.gpu.reductions import combine_threads

THREADS = 64  # of a workgroup
_LEAST_SHARED = 64  # turns of the innermost loop, for threads to share
_ENOUGH = 1 << 15  # sums, for threads to make one each
# What makes one of two partial results, and what changes nothing.
_COMBINED = {
    "arith.addf": (arith.addf, 0.0),
    "arith.maximumf": (arith.maximumf, -math.inf),
    "arith.minimumf": (arith.minimumf, math.inf),
}


def parallel_turns(nest: Nest) -> int:
    """Return the turns of the outermost loops, which are parallel."""
    return math.prod(loop.extent for loop in nest.loops[: nest.carried])


def is_shared(nest: Nest) -> bool:
    """Return whether the threads of a workgroup share each sum, or largest or smallest element, of a nest."""
    if nest.carried == len(nest.loops) or len(nest.op.outputs) != 1 or parallel_turns(nest) >= _ENOUGH:
        return False
    return nest.loops[-1].extent >= _LEAST_SHARED and _combination(nest) is not None


def _combination(nest: Nest) -> ir.Operation | None:
    """Return the op that adds what a turn computes to the result so far, if that is all that the result is for."""
    block = nest.op.operation.regions[0].blocks[0]
    result, (last,) = list(block.arguments)[-1], list(block.operations)[-1].operands
    uses = [use.owner.operation for use in result.uses]
    if isinstance(last.owner, ir.Block) or last.owner.name not in _COMBINED or uses != [last.owner.operation]:
        return None
    return last.owner.operation if list(last.owner.operands).count(result) == 1 else None


def compute_nest(k: Kernel, nest: Nest, memories: Memories, groups: int) -> None:
    """Emit a nest whose parallel loops are the outermost ones.

    Args:
        memories: what each memory of the nest is.
        groups: workgroups along x; they go on along y.
    """
    k.is_exact = True  # elementary functions round by adding large numbers
    group = k.add(k.mul(k.group("y"), groups), k.group("x"))
    extents = [loop.extent for loop in nest.loops[: nest.carried]]
    if is_shared(nest):
        _share(k, nest, memories, k.digits(k.minimum(group, parallel_turns(nest) - 1), extents))
        return
    number = k.add(k.mul(group, k.threads), k.thread())

    def one_turn() -> None:
        compute_turn(k, nest, memories, k.digits(number, extents))

    k.when(k.less(number, parallel_turns(nest)), one_turn)


def _share(k: Kernel, nest: Nest, memories: Memories, turns: list[ir.Value]) -> None:
    combination = _combination(nest)
    assert combination is not None
    combine, neutral = _COMBINED[combination.name]
    turn = SharedTurn(k, nest, memories, turns)
    none = k.scalar(neutral, combination.results[0].type)
    total = combine_threads(k, turn.part(none, k.thread(), k.threads), k.threads, combine)
    k.when(k.equal(k.thread(), 0), lambda: turn.store(combine(turn.start(), total)))
