"""Functions of a dynamic batch: a call says how many images it has, up to those that the tensors are made for.

Images lie one behind the other, so those of a call are the first part of each tensor, and loops end where they do. A
function has a batch like that where it has followed the images of its arguments through all of its layers.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch_mlir import ir

from patc.passes.ir.constants import is_constant
from patc.passes.ir.planes import as_planes
from patc.passes.kernels.builder import Builder

Found = TypeVar("Found")


class Reach(enum.Enum):
    """How many images of a tensor an algorithm goes through, where a call has fewer than all."""

    OWN = "those of the call"
    ROUNDED = "those of the call, and some behind them"
    WHOLE = "all, whatever numbers those have that the call does not"
    NONE = "all, of which each has to be one of the call"


@dataclass(frozen=True)
class Images:
    """The images of a call.

    Attributes:
        count: how many they are, an argument of the function.
        most: those of the tensors.
    """

    count: ir.Value
    most: int

    def at_start(self, compute: Callable[[Builder, ir.Value], Found]) -> Found:
        """Return what is computed from the number of images where the function begins: all threads see it there."""
        block = self.count.owner
        with ir.InsertionPoint.at_block_begin(block):
            return compute(Builder(block), self.count)

    def times(self, number: int) -> ir.Value:
        """Return how many things there are, of which each image has so many."""
        return self.at_start(lambda b, count: b.index(b.mul(count, number)))


def uncounted(function: Any, most: int, reach: Callable[[Any], Reach | None]) -> tuple[Any, str] | None:
    """Return the first op of a function on tensors that keeps it from computing as many images as a call has, and why
    it does; None if no op does.

    Args:
        most: images of its arguments.
        reach: returns that of a layer's algorithm; None for an op that is no layer.
    """
    block = function.regions[0].blocks[0]
    held = {argument for argument in block.arguments if argument.type.shape[:1] == [most]}
    for op in block.operations:
        found, moving = reach(op), [value for value in op.operands if not is_constant(value)]
        if found is Reach.NONE:
            return op, "has no loop over them"
        follows = all(value in held for value in moving)
        is_cut = found in (None, Reach.WHOLE) or not any(_parts(value.type) % most for value in op.results)
        if not (follows and is_cut) and (found is not None or op.operation.name == "func.return"):
            return op, "does not have them one behind the other"
        if follows and moving:
            held.update(op.results)
    return None


def _parts(type_: Any) -> int:
    """Return how many equal parts of a tensor's memory, one behind the other, its layers go through."""
    images, channels, _, _ = as_planes(type_.shape)
    return images if type_.rank == 4 else channels
