"""Which operations of a decomposed torch graph the passes can compile.

A graph is checked before it is imported, so that a model's unsupported operations are listed all at once, as
the user wrote them, with their source lines.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node

from patc.diagnostics import PatcError
from patc.frontend.source import describe_place, layer_path, source_place

aten, prims = torch.ops.aten, torch.ops.prims

# A rule returns None for a node that can be compiled, or else why not: a word or two, or "".
Rule = Callable[[Node, set[Node]], "str | None"]


@dataclass
class _Unsupported:
    """Uses of one operation that cannot be compiled: why, its calls in the user's graph, and where they are.

    A call's place is its source line, or its layer where only torch's modules, as nn.Sequential, lead to it.
    """

    reasons: dict[str, None] = field(default_factory=dict)
    calls: set[str] = field(default_factory=set)
    places: dict[str, None] = field(default_factory=dict)  # as `reasons`, a set that keeps the order

    def describe(self, name: str) -> str:
        reason = f" ({', '.join(self.reasons)})" if "" not in self.reasons else ""
        places = f" ({', '.join(self.places)})" if self.places else ""
        return f"{name}{reason} x{len(self.calls)}{places}"


def check_operations(graph: torch.fx.Graph, constants: set[Node]) -> None:
    """Require that every operation on activations can be compiled.

    Args:
        graph: aten operations, decomposed.
        constants: the nodes that do not depend on the model's inputs, see `constant_nodes`.

    Raises:
        PatcError: names all operations that cannot, with their counts and source lines.
    """
    found: dict[str, _Unsupported] = {}
    for node in graph.nodes:
        if node.op != "call_function" or node in constants:
            continue
        reason = _RULES.get(node.target, _reject)(node, constants)
        if not reason:
            reason = _check_type(node, constants) or reason
        if reason is not None:
            _record(found.setdefault(_name(node), _Unsupported()), node, reason)
    if found:
        listed = ", ".join(uses.describe(name) for name, uses in found.items())
        raise PatcError(f"model has operations patc cannot compile: {listed}")


def constant_nodes(graph: torch.fx.Graph, inputs: set[str]) -> set[Node]:
    """Return the nodes whose values do not depend on the placeholders named in `inputs`."""
    constants: set[Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            constant = node.name not in inputs
        elif node.op == "call_function":
            constant = _is_pure(node.target) and all(used in constants for used in node.all_input_nodes)
        else:
            constant = node.op == "get_attr"
        if constant:
            constants.add(node)
    return constants


def shape_of(node: Node) -> list[int]:
    """Return the shape of a node's tensor."""
    return list(node.meta["val"].shape)


def _is_pure(target: Any) -> bool:
    if target is operator.getitem:
        return True
    is_overload = isinstance(target, torch._ops.OpOverload)
    return is_overload and torch.Tag.nondeterministic_seeded not in target.tags


def _name(node: Node) -> str:
    """Return the operation as the user's graph has it: `aten.silu.default`, not the `aten.sigmoid` in it."""
    origin = node.meta.get("from_node")
    return str(origin[-1].target if origin else node.target)


def _record(uses: _Unsupported, node: Node, reason: str) -> None:
    origin = node.meta.get("from_node")
    place = source_place(node)
    uses.reasons[reason] = None
    uses.calls.add(origin[-1].name if origin else node.name)
    where = describe_place(place) if place is not None else _layer(node)
    if where:
        uses.places[where] = None


def _layer(node: Node) -> str:
    path = layer_path(node)
    return f"layer {path}" if path else ""


def _accept(node: Node, constants: set[Node]) -> None:
    return None


def _reject(node: Node, constants: set[Node]) -> str:
    return ""


def _check_rank(node: Node, constants: set[Node]) -> str | None:
    rank = len(shape_of(node.args[0]))
    return None if rank == 4 else f"{rank}-D input"


def _check_convolution(node: Node, constants: set[Node]) -> str | None:
    _, weight, bias, *_, transposed, _, _ = node.args
    if transposed:
        return "transposed"
    if weight not in constants or (bias is not None and bias not in constants):
        return "weights computed at run time"
    return _check_rank(node, constants)


def _check_clamp(node: Node, constants: set[Node]) -> str | None:
    bounds = [bound for bound in (*node.args[1:], *node.kwargs.values()) if bound is not None]
    if not all(isinstance(bound, (int, float)) for bound in bounds):
        return ""
    return "a bound that is NaN" if any(math.isnan(bound) for bound in bounds) else None


def _check_max_pool(node: Node, constants: set[Node]) -> str | None:
    if any(user.args[1] != 0 for user in node.users):
        return "indices used"
    return _check_rank(node, constants)


def _check_adaptive_pool(node: Node, constants: set[Node]) -> str | None:
    """Name the sizes: where all windows are alike, decomposition has made an ordinary pool of it."""
    before, after = ("x".join(map(str, sizes[-2:])) for sizes in (shape_of(node.args[0]), node.args[1]))
    return f"{before} to {after}, which takes windows of several sizes"


def _check_pad(node: Node, constants: set[Node]) -> str | None:
    """Take zeros around height and width in front of convolutions, which become part of them."""
    pads, *value = node.args[1:]
    if any(user.target is not aten.convolution.default for user in node.users):
        return "not in front of a convolution"
    if len(pads) > 4 or min(pads) < 0 or any(value):
        return "not zeros around height and width"
    return _check_rank(node, constants)


def _check_mean(node: Node, constants: set[Node]) -> str | None:
    axes = {axis % 4 for axis in node.args[1] or ()}
    return _check_rank(node, constants) or (None if axes == {2, 3} else "not over height and width")


def _check_view(node: Node, constants: set[Node]) -> str | None:
    before, after = shape_of(node.args[0]), shape_of(node)
    flat = [before[0], math.prod(before[1:])] if before else before
    squeezed = before[:2] == after[:2] and math.prod(before[2:]) == 1 and len(before) > len(after)
    if len(after) != 2:  # half way to a flat tensor
        squeezed = squeezed and all(user.target in _VIEWS for user in node.users)
    if after == before or (len(before) == 4 and after == flat) or squeezed:
        return None
    return "not a flatten of N x C x H x W"


def _check_matmul(node: Node, constants: set[Node]) -> str | None:
    lhs, rhs = node.args
    return None if lhs not in constants and rhs in constants else "weights computed at run time"


def _check_no_cast(node: Node, constants: set[Node]) -> str | None:
    before, after = (_describe_type(value.meta["val"].dtype) for value in (node.args[0], node))
    return None if before == after else f"{before} to {after}"


def _check_type(node: Node, constants: set[Node]) -> str | None:
    """Take f32 only; what follows from another type is not another fault, and one of several results is known."""
    if node.target is operator.getitem:
        return None
    values = [used.meta.get("val") for used in (node, *node.all_input_nodes) if used not in constants]
    made, *given = [getattr(value, "dtype", torch.float32) for value in values]
    is_first = made != torch.float32 and all(dtype == torch.float32 for dtype in given)
    return f"{_describe_type(made)} result" if is_first else None


def _describe_type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check_arithmetic(node: Node, constants: set[Node]) -> str | None:
    """Take residual sums, per-channel arithmetic, and the bias of a linear layer."""
    lhs, rhs = node.args
    data = [operand for operand in (lhs, rhs) if isinstance(operand, Node) and operand not in constants]
    if len(data) == 2:
        return _check_sum(node, lhs, rhs, constants)
    if _is_times_one(node):
        return None
    other = rhs if data[0] is lhs else lhs
    rank = len(shape_of(data[0]))
    if rank == 2:
        return None if _is_linear_bias(node, data[0], other) else "2-D input"
    if rank != 4:
        return f"{rank}-D input"
    if not _is_per_channel(other) or shape_of(node) != shape_of(data[0]):
        return "not per channel"
    return "division by activations" if node.target is aten.div.Tensor and data[0] is rhs else None


def _check_sum(node: Node, lhs: Node, rhs: Node, constants: set[Node]) -> str | None:
    if node.target is not aten.add.Tensor:
        return ""
    if node.kwargs.get("alpha", 1) != 1:
        return "alpha"
    if shape_of(lhs) != shape_of(rhs):
        return "operands of two shapes"
    return _check_rank(node, constants)


def _is_times_one(node: Node) -> bool:
    return node.target is aten.mul.Tensor and node.args[1] == 1


def _is_linear_bias(node: Node, data: Node, other: Any) -> bool:
    while _is_times_one(data):
        data = data.args[0]
    fits = isinstance(other, Node) and shape_of(other) == shape_of(node)[1:]
    return fits and node.target is aten.add.Tensor and data.target is aten.mm.default


def _is_per_channel(operand: Any) -> bool:
    """Return whether an operand is a number, or a tensor that varies along the channels only."""
    if not isinstance(operand, Node):
        return True
    shape = shape_of(operand)
    batch, _, height, width = [1] * (4 - len(shape)) + shape
    return batch == height == width == 1


_VIEWS = (
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.squeeze.dims,
    prims.squeeze.default,
)
ARITHMETIC = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)

_RULES: dict[Any, Rule] = {
    **dict.fromkeys(ARITHMETIC, _check_arithmetic),
    **dict.fromkeys(_VIEWS, _check_view),
    **dict.fromkeys((prims.convert_element_type.default, aten._to_copy.default), _check_no_cast),
    **dict.fromkeys(
        (aten.relu.default, aten.clone.default, aten.alias.default, aten.detach.default, operator.getitem),
        _accept,
    ),
    **dict.fromkeys((aten.clamp.default, aten.hardtanh.default), _check_clamp),
    aten.convolution.default: _check_convolution,
    aten.max_pool2d_with_indices.default: _check_max_pool,
    aten.avg_pool2d.default: _check_rank,
    **dict.fromkeys((aten._adaptive_avg_pool2d.default, aten.adaptive_max_pool2d.default), _check_adaptive_pool),
    aten.constant_pad_nd.default: _check_pad,
    aten.mean.dim: _check_mean,
    aten.mm.default: _check_matmul,
}
