"""The loops of any linalg op on a GPU: a thread computes one turn of all parallel loops, and adds up alone."""

from __future__ import annotations

import math

from patc.passes.generic.nests import Nest
from patc.passes.kernels.generic import Memories, compute_turn
from patc.passes.kernels.gpu.kernel import Kernel


def parallel_turns(nest: Nest) -> int:
    """Return the turns of the outermost loops, which are parallel."""
    return math.prod(loop.extent for loop in nest.loops[: nest.carried])


def compute_nest(k: Kernel, nest: Nest, memories: Memories, groups: int) -> None:
    """Emit a nest whose parallel loops are the outermost ones.

    Args:
        memories: what each memory of the nest is.
        groups: workgroups along x; they go on along y.
    """
    k.is_exact = True  # elementary functions round by adding large numbers
    group = k.add(k.mul(k.group("y"), groups), k.group("x"))
    number = k.add(k.mul(group, k.threads), k.thread())

    def one_turn() -> None:
        compute_turn(k, nest, memories, k.digits(number, [loop.extent for loop in nest.loops[: nest.carried]]))

    k.when(k.less(number, parallel_turns(nest)), one_turn)
