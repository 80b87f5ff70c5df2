"""FKR over a whole module: sorts each layer's filters; consumers absorb the new order of the channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.passes.base import Pass, PassState
from patc.passes.ir.functions import walk_ops
from patc.passes.layers.base import Channels, FilterOrder, Permutation, fix_all
from patc.passes.layers.registry import kind_of

FLATTEN = "tensor.collapse_shape"


@dataclass(frozen=True)
class PatternReorder(Pass):
    """Sort filters so that similar ones are neighbours, and renumber the channels between layers to match.

    Filters are sorted by falling number of kept kernels. Among equals each filter is followed by the most
    similar one that is left: by pattern histogram, then by the kernels with the same pattern on the same
    input channel, then by the shared input channels. Kernels of one filter and pattern are sorted by input
    channel.

    Where only layers with constant weights touch a tensor, its channels take the order in which the layer
    that does most work computes them, so that the `reorder` of that layer is 0, 1, 2, ...: producers permute
    their filters and biases, consumers their input channels. Additions, residuals, pools, activations,
    depthwise convolutions and flattening tie tensors together; they share one order. Elsewhere (arguments,
    results, inputs of layers whose kernels span several consecutive channels, ops not named here) channels keep
    their numbers, and `reorder` says which one a stored filter computes.

        %y = "pattern.sparse_conv2d"(%x, %values, %index, ..., %reorder, %b)    filters 0, 1, 2, 3
        %z = "pattern.conv2d"(%y, %w)                                           columns 0, 1, 2, 3
    ->
        %y = "pattern.sparse_conv2d"(%x, %values, %index, ..., %identity, %b)   filters 2, 0, 3, 1
        %z = "pattern.conv2d"(%y, %w)                                           columns 2, 0, 3, 1

    FKR is in section 6.2 of the paper.

    Requires: nothing; a layer whose arrays are not constant is left as it is, with a remark if it is sparse.
    Ensures: the module computes the same sums, in another order. A second run changes nothing: among equals
        FKR takes the first, and the first run put it there.

    Raises:
        PatcError: the arrays of a sparse layer are not those of its format.
    """

    name: ClassVar[str] = "pattern-reorder"

    def run(self, module: ir.Module, state: PassState) -> None:
        with module.context, ir.Location.unknown():
            found = [(op, _channels_of(op, state)) for op in walk_ops(module)]
            orders = _new_orders(found)
            for op, channels in found:
                kind = kind_of(op)
                filters = channels.order.stored if channels.order else None
                changes = filters is not None or any(tensor in orders for tensor in (*op.operands, *op.results))
                if kind is not None and changes:
                    kind.permute(op, Permutation(orders.get, filters), state)


def _channels_of(op: Any, state: PassState) -> Channels:
    """Return what an op is to the channels of its tensors.

    Raises:
        PatcError: the constants of the op are not valid.
    """
    kind = kind_of(op)
    if kind is not None:
        return kind.channels(op, state)
    return Channels(tied=(*op.operands, *op.results)) if _flattens_channels(op) else fix_all(op)


def _flattens_channels(op: Any) -> bool:
    """Whether an op turns N x C x H x W into N x CHW."""
    if op.operation.name != FLATTEN:
        return False
    groups = [[int(axis) for axis in group] for group in op.operation.attributes["reassociation"]]
    return groups == [[0], [1, 2, 3]]


def _new_orders(found: Sequence[tuple[Any, Channels]]) -> dict[ir.Value, np.ndarray]:
    """Return the orders that channels take, for each tensor where they do not keep theirs."""
    classes = _classify_tensors(found)
    wanted: dict[ir.Value, FilterOrder] = {}
    for op, channels in found:
        if channels.order is None or classes.is_fixed(op.result):
            continue
        key = classes.find(op.result)
        if key not in wanted or channels.order.work > wanted[key].work:
            wanted[key] = channels.order
    orders = {key: order.channels for key, order in wanted.items() if not _is_identity(order.channels)}
    tensors = [tensor for op, _ in found for tensor in (*op.operands, *op.results)]
    return {tensor: orders[key] for tensor in tensors if (key := classes.find(tensor)) in orders}


def _is_identity(permutation: np.ndarray) -> bool:
    return np.array_equal(permutation, np.arange(len(permutation)))


class _Classes:
    """Sets of tensors whose channels must have one order (union-find); some must keep the one they have."""

    def __init__(self) -> None:
        self._parents: dict[ir.Value, ir.Value] = {}
        self._fixed: set[ir.Value] = set()

    def find(self, tensor: ir.Value) -> ir.Value:
        """Return the tensor that stands for the class of `tensor`."""
        while (parent := self._parents.get(tensor, tensor)) != tensor:
            tensor = parent
        return tensor

    def tie(self, tensors: Sequence[ir.Value]) -> None:
        """Put tensors in one class."""
        for tensor in tensors[1:]:
            kept, other = self.find(tensors[0]), self.find(tensor)
            if kept == other:
                continue
            self._parents[other] = kept
            if other in self._fixed or not _may_share_order(kept, other):
                self._fixed.add(kept)

    def fix(self, tensor: ir.Value) -> None:
        """Keep the channels of a tensor's class as they are."""
        self._fixed.add(self.find(tensor))

    def is_fixed(self, tensor: ir.Value) -> bool:
        """Whether the channels of a tensor must stay as they are."""
        return self.find(tensor) in self._fixed


def _classify_tensors(found: Sequence[tuple[Any, Channels]]) -> _Classes:
    classes = _Classes()
    for op, channels in found:
        if channels.tied:
            classes.tie(channels.tied)
        arguments = [operand for operand in op.operands if isinstance(operand.owner, ir.Block)]
        for tensor in (*channels.fixed, *arguments):
            classes.fix(tensor)
    return classes


def _may_share_order(first: ir.Value, second: ir.Value) -> bool:
    """Whether two classes have equally many channels; a flattened tensor has those of its rank 4 source."""
    ranks = [len(tensor.type.shape) for tensor in (first, second)]
    return ranks != [4, 4] or first.type.shape[1] == second.type.shape[1]
