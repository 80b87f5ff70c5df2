"""Rewrites of a decomposed torch graph before it is imported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from patc.diagnostics import PatcError, first_line
from patc.frontend.operations import ARITHMETIC, shape_of
from patc.frontend.source import layer_path

aten, prims = torch.ops.aten, torch.ops.prims

# Of all constants that a network computes of its weights, which are a few times as large as these; more than that takes
# the machine's memory.
_LEAST_ROOM, _ROOM = 1 << 30, 16

# Ops that only rearrange a constant: they are lowered with it, and the parameter keeps its name and form.
_VIEWS = (
    aten.permute.default,
    aten.expand.default,
    aten.unsqueeze.default,
    aten.view.default,
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    prims.convert_element_type.default,
)

_ROLES = {
    (aten.convolution.default, 1): "weight",
    (aten.convolution.default, 2): "bias",
    (aten.mm.default, 1): "weight",
}


def simplify(graph: torch.fx.Graph) -> None:
    """Remove run-time checks, dead nodes, and flags of average pooling that change nothing.

    Average pooling has all its arguments afterwards.
    """
    for node in list(graph.nodes):
        if node.op == "call_function" and "_assert" in str(node.target) and not node.users:
            graph.erase_node(node)
        elif node.target is aten.avg_pool2d.default:
            _simplify_average_pool(node)
    graph.eliminate_dead_code()


def _simplify_average_pool(node: Node) -> None:
    defaults: tuple[Any, ...] = (None, None, [], 0, False, True, None)
    arguments = node.args + defaults[len(node.args) :]
    data, kernel, stride, pads, ceil_mode, count_include_pad, divisor = arguments
    window, step, border = _pair(kernel), _pair(stride or kernel), _pair(pads)
    before, after = shape_of(data)[-2:], shape_of(node)[-2:]
    # torch-mlir lowers both flags to arithmetic on indices, even where they change nothing.
    sizes = zip(before, window, step, border, strict=True)
    floor = [(size + 2 * pad - taps) // stride + 1 for size, taps, stride, pad in sizes]
    ceil_mode = ceil_mode and floor != after
    count_include_pad = count_include_pad or (border == [0, 0] and not ceil_mode)
    node.args = (data, window, step, border, ceil_mode, count_include_pad, divisor)


def _pair(value: Any) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


def cast_constants(graph: torch.fx.Graph, constants: set[Node]) -> None:
    """Give the constant operands of arithmetic the element type of the result, as torch's type promotion does.

    Args:
        constants: the nodes that do not depend on the inputs; the casts are added.
    """
    for node in graph.nodes:
        if node in constants or node.target not in ARITHMETIC:
            continue
        dtype = node.meta["val"].dtype
        for operand in node.all_input_nodes:
            if operand in constants and operand.meta["val"].dtype != dtype:
                with graph.inserting_before(node):
                    cast = graph.call_function(prims.convert_element_type.default, (operand, dtype))
                cast.meta = {**node.meta, "val": operand.meta["val"].to(dtype)}
                constants.add(cast)
                node.replace_input_with(operand, cast)


def fold_constants(program: ExportedProgram, constants: set[Node]) -> dict[int, str]:
    """Evaluate what the model computes from its weights alone, as masks and other parametrizations are.

    Batch norm's arithmetic stays: a pass folds it, from parameters with the names of the state dict.

    Args:
        program: decomposed; its graph is rewritten.
        constants: the nodes that do not depend on the inputs.

    Returns:
        Names of all tensors that the graph holds itself, by the identity of the tensor.
    """
    graph, names = program.graph, {id(tensor): name for name, tensor in program.constants.items()}
    values = ConstantValues(program)
    taken = {*program.state_dict, *program.constants}
    for node in [node for node in graph.nodes if node in constants and not _stays(node)]:
        readers = [user for user in node.users if user not in constants or _stays(user)]
        if not readers:
            continue
        name = _unique(_name(node), taken)
        tensor = values[node].contiguous()
        names[id(tensor)] = name
        attribute = f"_constant_{len(taken)}"
        graph.owning_module.register_buffer(attribute, tensor)
        for reader in readers:
            # torch-mlir takes a node of an attribute once.
            with graph.inserting_before(node):
                constant = graph.get_attr(attribute)
                if reader.op == "output":  # nor does it return one
                    constant = graph.call_function(aten.clone.default, (constant,))
                    _rename_output(program, node.name, constant.name)
            constant.meta["val"] = node.meta["val"]
            reader.replace_input_with(node, constant)
    graph.eliminate_dead_code()
    _remove_unused_constants(program)
    return names


def _rename_output(program: ExportedProgram, old: str, new: str) -> None:
    for spec in program.graph_signature.output_specs:
        if spec.arg.name == old:
            spec.arg = replace(spec.arg, name=new)


def _remove_unused_constants(program: ExportedProgram) -> None:
    """Remove lifted tensors without users from the signature: those are imported even so."""
    used = {node.name for node in program.graph.find_nodes(op="placeholder") if node.users}
    specs = program.graph_signature.input_specs
    specs[:] = [spec for spec in specs if spec.kind != InputKind.CONSTANT_TENSOR or spec.arg.name in used]


class ConstantValues(dict[Node, Any]):
    """The values of constant nodes, evaluated when they are asked for."""

    def __init__(self, program: ExportedProgram) -> None:
        signature = program.graph_signature
        sources = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        stored = {**program.constants, **program.state_dict}
        for node in program.graph.find_nodes(op="placeholder"):
            if node.name in sources:
                self[node] = stored[sources[node.name]]
        self._most = max(_LEAST_ROOM, _ROOM * sum(_count_bytes(tensor) for tensor in stored.values()))
        self._taken = 0

    def __missing__(self, node: Node) -> Any:
        pending = [node]  # a chain of constants may be longer than Python's stack
        while pending:
            missing = [used for used in pending[-1].all_input_nodes if used not in self]
            if missing:
                pending += missing
            elif (last := pending.pop()) not in self:
                self[last] = self._evaluate(last)
        return self[node]

    def _evaluate(self, node: Node) -> Any:
        if node.op == "get_attr":
            return getattr(node.graph.owning_module, node.target)
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), self.__getitem__)
        self._take_room(node)
        try:
            with torch.no_grad():
                return node.target(*args, **kwargs)
        except Exception as error:  # of torch: memory, or a program that says what it cannot compute
            raise PatcError(f"torch cannot evaluate {node.target} of constants: {first_line(error)}") from error

    def _take_room(self, node: Node) -> None:
        """Refuse constants that take more memory than any network's do."""
        size = _count_bytes(node.meta.get("val"))
        self._taken += size
        if self._taken > self._most:
            expected = f"expected at most {self._most / 1e9:.1f} GB of constants, for these weights"
            raise PatcError(f"{expected}, found {node.target} of {size / 1e9:.1f} GB more", layer_path(node) or None)


def _count_bytes(value: Any) -> int:
    """Return the bytes of a tensor, or of several; other values take none."""
    if isinstance(value, (list, tuple)):
        return sum(map(_count_bytes, value))
    return value.numel() * value.itemsize if isinstance(value, torch.Tensor) else 0


def _stays(node: Node) -> bool:
    """Return whether a constant node is a stored tensor, only rearranges one, or is part of a batch norm."""
    if node.target is prims.convert_element_type.default and node.meta["val"].dtype != node.args[0].meta["val"].dtype:
        return False
    from_batch_norm = "batch_norm" in str(node.meta.get("original_aten"))
    times_one = node.target is aten.mul.Tensor and node.args[1] == 1
    return node.op != "call_function" or node.target in _VIEWS or from_batch_norm or times_one


def _name(node: Node) -> str:
    """Return the parameter name of an evaluated node: `conv1.weight` where a convolution reads it so."""
    reader, operand = next(iter(node.users)), node
    while reader.target in _VIEWS:
        reader, operand = next(iter(reader.users)), reader
    roles = [_ROLES.get((reader.target, i)) for i, value in enumerate(reader.args) if value is operand]
    role = roles[0] if roles and roles[0] else node.name
    return ".".join(part for part in (layer_path(reader), role) if part)


def _unique(name: str, taken: set[str]) -> str:
    unique, suffix = name, 0
    while unique in taken:
        suffix += 1
        unique = f"{name}.{suffix}"
    taken.add(unique)
    return unique
