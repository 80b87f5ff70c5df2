"""FKR over a whole module: sorts each layer's filters; consumers absorb the new order of the channels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import Library
from patc.dialects.pattern import (
    ActivateOp,
    AddOp,
    AvgPool2dOp,
    Conv2dOp,
    LinearOp,
    MaxPool2dOp,
    RelayoutOp,
    SparseConv2dOp,
)
from patc.passes.base import Pass, PassState, fail
from patc.passes.formats.fkr import order_filters
from patc.passes.formats.fkw import Fkw, find_violation, invert, rearrange
from patc.passes.ir.constants import constant_name, make_constant, read_constant

FLATTEN = "tensor.collapse_shape"
TIES = tuple(op.OPERATION_NAME for op in (ActivateOp, AddOp, AvgPool2dOp, MaxPool2dOp, RelayoutOp))


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
        PatcError: the arrays of a `pattern.sparse_conv2d` are not valid FKW arrays.
    """

    name: ClassVar[str] = "pattern-reorder"

    def run(self, module: ir.Module, state: PassState) -> None:
        with module.context, ir.Location.unknown():
            for change in plan_changes(read_layers(module, state)):
                apply_change(change, state)


# Reading: what each op is to the channels of its tensors


@dataclass(frozen=True)
class Layer:
    """What the pass knows of one op.

    Attributes:
        role: "sparse", "dense", "depthwise" or "linear" for a layer with constant arrays; "tie" for an op
            whose tensors have the same channels in the same order; "opaque" for all others.
        fkw: the arrays of a "sparse" layer.
    """

    op: Any
    role: str
    fkw: Fkw | None = None


def read_layers(module: ir.Module, state: PassState) -> list[Layer]:
    """Return all ops of a module in program order.

    Raises:
        PatcError: the arrays of a `pattern.sparse_conv2d` are not valid FKW arrays.
    """
    ops: list[Any] = []

    def visit(operation: Any) -> ir.WalkResult:
        ops.append(operation.opview)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit, ir.WalkOrder.PRE_ORDER)
    return [_read_layer(op, state) for op in ops]


def _read_layer(op: Any, state: PassState) -> Layer:
    name = op.operation.name
    if name == SparseConv2dOp.OPERATION_NAME:
        return _read_sparse(op, state)
    if name == Conv2dOp.OPERATION_NAME and _are_constant([op.weight, op.bias], state):
        return Layer(op, _convolution_role(op))
    if name == LinearOp.OPERATION_NAME and _are_constant([op.weight], state):
        return Layer(op, "linear")
    return Layer(op, "tie" if name in TIES or _flattens_channels(op) else "opaque")


def _read_sparse(op: SparseConv2dOp, state: PassState) -> Layer:
    operands = [op.values, op.index, op.offset, op.stride, op.reorder]
    if not _are_constant([*operands, op.bias], state):
        state.remark(op, "keeps the order of its filters: its arrays are not constant")
        return Layer(op, "opaque")
    fkw = Fkw(*(_array(operand, state) for operand in operands))
    violation = find_violation(fkw, op.input.type.shape[1], Library.from_attr(op.library).depth)
    if violation:
        raise fail(op, *violation)
    return Layer(op, "sparse", fkw)


def _convolution_role(op: Conv2dOp) -> str:
    filters, group_channels = op.weight.type.shape[:2]
    if op.groups.value == 1:
        return "dense"
    return "depthwise" if group_channels == 1 and filters == op.groups.value else "opaque"


def _are_constant(values: Iterable[ir.Value | None], state: PassState) -> bool:
    return all(value is None or read_constant(value, state) is not None for value in values)


def _flattens_channels(op: Any) -> bool:
    """Whether an op turns N x C x H x W into N x CHW."""
    if op.operation.name != FLATTEN:
        return False
    groups = [[int(axis) for axis in group] for group in op.operation.attributes["reassociation"]]
    return groups == [[0], [1, 2, 3]]


# Analysis: which tensors have their channels in one order, and in which


@dataclass(frozen=True)
class Change:
    """What happens to one layer; entry i of a permutation is the old number of what becomes number i.

    Attributes:
        order: permutes the stored filters of a "sparse" layer; None for other layers.
        inputs, outputs: permute the channels; None for no change.
    """

    layer: Layer
    order: np.ndarray | None
    inputs: np.ndarray | None
    outputs: np.ndarray | None


def plan_changes(layers: Sequence[Layer]) -> list[Change]:
    """Return the changes of all layers that have arrays."""
    orders = [order_filters(layer.fkw) if layer.fkw else None for layer in layers]
    classes = _classify_tensors(layers)
    wanted: dict[ir.Value, tuple[int, np.ndarray]] = {}
    for layer, order in zip(layers, orders, strict=True):
        if layer.fkw is None or classes.is_fixed(layer.op.result):
            continue
        key, work = classes.find(layer.op.result), _work(layer.op)
        if key not in wanted or work > wanted[key][0]:
            wanted[key] = work, layer.fkw.reorder[order]

    permutations = {key: order for key, (_, order) in wanted.items() if not _is_identity(order)}

    def permutation(tensor: ir.Value) -> np.ndarray | None:
        return permutations.get(classes.find(tensor))

    return [
        Change(layer, order, permutation(layer.op.input), permutation(layer.op.result))
        for layer, order in zip(layers, orders, strict=True)
        if layer.role not in ("tie", "opaque")
    ]


def _is_identity(permutation: np.ndarray) -> bool:
    return np.array_equal(permutation, np.arange(len(permutation)))


def _work(op: SparseConv2dOp) -> int:
    """Return the multiplications of a layer for one image; a dynamic size counts as one."""
    kernels, entries = op.values.type.shape
    return kernels * entries * math.prod(max(size, 1) for size in op.result.type.shape[2:])


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


def _classify_tensors(layers: Sequence[Layer]) -> _Classes:
    classes = _Classes()
    for layer in layers:
        op = layer.op
        for operand in op.operation.operands:
            if isinstance(operand.owner, ir.Block):
                classes.fix(operand)
        if layer.role in ("sparse", "dense", "depthwise"):
            residual = [op.residual] if op.residual is not None else []
            classes.tie([op.result, *residual, *([op.input] if layer.role == "depthwise" else [])])
            if layer.role == "sparse" and Library.from_attr(op.library).depth > 1:
                classes.fix(op.input)  # its kernels read consecutive channels
        elif layer.role == "tie":
            classes.tie([*op.operation.operands, *op.operation.results])
        elif layer.role == "linear":
            classes.fix(op.result)
        else:
            for tensor in (*op.operation.operands, *op.operation.results):
                classes.fix(tensor)
    return classes


def _may_share_order(first: ir.Value, second: ir.Value) -> bool:
    """Whether two classes have equally many channels; a flattened tensor has those of its rank 4 source."""
    ranks = [len(tensor.type.shape) for tensor in (first, second)]
    return ranks != [4, 4] or first.type.shape[1] == second.type.shape[1]


# Application: new arrays in the place of the old


def apply_change(change: Change, state: PassState) -> None:
    """Permute the constant arrays of one layer; those that stay the same are left alone."""
    apply = {
        "sparse": _apply_sparse,
        "dense": _apply_convolution,
        "depthwise": _apply_convolution,
        "linear": _apply_linear,
    }
    apply[change.layer.role](change, state)


def _apply_sparse(change: Change, state: PassState) -> None:
    op, fkw = change.layer.op, change.layer.fkw
    assert fkw is not None and change.order is not None
    new = rearrange(fkw, change.order, _positions(change.inputs, op.input), _positions(change.outputs, op.result))
    for number, array in enumerate((new.values, new.index, new.offset, new.stride, new.reorder), start=1):
        _replace_operand(op, number, array, state)
    _permute_bias(change, 6, state)


def _apply_convolution(change: Change, state: PassState) -> None:
    op = change.layer.op
    weight = _array(op.weight, state)
    if change.outputs is not None:
        weight = weight[change.outputs]
    if change.inputs is not None and change.layer.role == "dense":
        weight = weight[:, change.inputs]
    _replace_operand(op, 1, weight, state)
    _permute_bias(change, 2, state)


def _apply_linear(change: Change, state: PassState) -> None:
    """Permute the columns of a linear layer; each channel has as many as the flattened tensor had pixels."""
    if change.inputs is None:
        return
    weight = _array(change.layer.op.weight, state)
    columns = np.take(weight.reshape(len(weight), len(change.inputs), -1), change.inputs, axis=1)
    _replace_operand(change.layer.op, 1, columns.reshape(weight.shape), state)


def _permute_bias(change: Change, number: int, state: PassState) -> None:
    bias = change.layer.op.bias
    if bias is not None and change.outputs is not None:
        _replace_operand(change.layer.op, number, _array(bias, state)[change.outputs], state)


def _positions(permutation: np.ndarray | None, tensor: ir.Value) -> np.ndarray:
    """Return the new number of each channel of a tensor."""
    return np.arange(tensor.type.shape[1]) if permutation is None else invert(permutation)


def _array(value: ir.Value, state: PassState) -> np.ndarray:
    array = read_constant(value, state)
    assert array is not None, "roles are given to layers with constant arrays only"
    return array


def _replace_operand(op: Any, number: int, array: np.ndarray, state: PassState) -> None:
    """Make `array` an operand in the place of another constant, which goes when nothing else needs it."""
    old = op.operation.operands[number]
    if np.array_equal(_array(old, state), array):
        return
    with ir.InsertionPoint(old.owner):
        new = make_constant(array, constant_name(old), state, location=old.owner.location)
    op.operation.operands[number] = new
    if next(iter(old.uses), None) is None:
        old.owner.erase()
