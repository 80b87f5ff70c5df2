"""Layers as they are on one image of their batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import tensor

from patc.passes.ir.constants import is_constant


def one_image(type_: ir.RankedTensorType) -> ir.RankedTensorType:
    """Return the type of one image of a tensor."""
    return ir.RankedTensorType.get([1, *type_.shape[1:]], type_.element_type, type_.encoding)


class OneImage:
    """Copies of layers, each in front of its layer, that compute one image; what they read of other layers are slices.

    Attributes:
        ops: the copies.
        inputs: the slices, by the tensors that they are of.
    """

    def __init__(self, ops: Sequence[Any]) -> None:
        """Make copies of layers that follow each other, whose activations are planes of as many images."""
        images = ops[0].result.type.shape[0]
        self.ops: list[Any] = []
        self.inputs: dict[ir.Value, ir.Value] = {}
        made: dict[ir.Value, ir.Value] = {}
        for op in ops:
            with ir.InsertionPoint(op), op.location:
                given = [self._of(value, made, images) for value in op.operands]
                copy = op.operation.clone()
            for number, value in enumerate(given):
                copy.operands[number] = value
            copy.results[0].set_type(one_image(op.result.type))
            made[op.result] = copy.results[0]
            self.ops.append(copy.opview)

    def _of(self, value: ir.Value, made: dict[ir.Value, ir.Value], images: int) -> ir.Value:
        type_ = value.type
        if value in made or type_.rank != 4 or type_.shape[0] != images or is_constant(value):
            return made.get(value, value)
        if value not in self.inputs:
            sizes = [1, *type_.shape[1:]]
            cut = tensor.ExtractSliceOp(one_image(type_), value, [], [], [], [0] * 4, sizes, [1] * 4)
            self.inputs[value] = cut.result
        return self.inputs[value]

    def erase(self) -> None:
        """Remove the copies."""
        for op in reversed(self.ops):
            op.operation.erase()
        for value in self.inputs.values():
            value.owner.operation.erase()
