"""Checks of the graph in a .pt2 file, after which torch builds it without running anything that the file says.

torch's deserializer trusts its input: it finds operations by attributes of modules, evaluates symbolic sizes as Python,
imports modules that containers name, and compiles names into the source of a function. So it gets only what needs none
of that: operations on tensors, sizes that are numbers, plain containers, and names that are names.
"""

from __future__ import annotations

import contextlib
import importlib
import keyword
import re
from collections.abc import Iterator

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import deserialize_scalar_type

from patc.frontend.json_schema import Mismatch, placed, quote

# Blocks under no_grad and autocast; torch takes them apart when it decomposes the program.
_BLOCKS = ("torch.ops.higher_order.wrap_with_set_grad_enabled", "torch.ops.higher_order.wrap_with_autocast")
_BLOCK_DEPTH = 16
_OPERATION = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed(?=\.(?:de)?quantize_per_(?:tensor|channel)\.default))\.(\w+)\.(\w+)",
    re.ASCII,
)
_CHECKS = ("aten::_assert", "aten::_functional_assert")
# What torch.export writes of the operations that torch keeps for itself: many of those read memory wherever their
# arguments say. Those of the core set, as `_softmax`, are public in spite of their names.
_INTERNAL = (*_CHECKS, "aten::_to_copy", "aten::_unsafe_view", "aten::_weight_norm_interface", "aten::_convolution")
# Public in name or by their tags alone: packed weights and states of other libraries, and one that trusts its input.
_TRUSTING = ("aten::fbgemm_", "aten::mkldnn_", "aten::quantized_", "aten::_pdist_forward")
# No storages, streams, futures or objects of any type.
_DATA = re.compile(
    r"(Tensor|number|int|float|bool|complex|str|Sym(Int|Float|Bool)|Scalar(Type)?|Layout|Device|MemoryFormat|Generator"
    r"|Optional|List|NoneType|[][()?, ])*"
)
# Arguments that torch takes as numbers too, and does not check then: a number that is no such type crashes it.
_ENUMERATED = {"ScalarType": "as_scalar_type", "Layout": "as_layout", "MemoryFormat": "as_memory_format"}
_SYMBOLIC = ("sym_int_values", "sym_bool_values", "sym_float_values")
# Above every size, offset and number of elements; torch computes with 63 bits.
_LIMIT = 1 << 48
STATIC = "a number: export with static shapes"


def check_graph(graph: schema.Graph, depth: int = 0) -> None:
    """Check a graph that has the types of torch's schema; metadata that nobody needs is removed from it.

    Raises:
        Mismatch: a part is not what torch may get.
    """
    for field in _SYMBOLIC:
        if getattr(graph, field):
            raise Mismatch("empty: export with static shapes", quote(getattr(graph, field)), field)
    if graph.custom_obj_values:
        raise Mismatch("empty: patc takes tensors", quote(graph.custom_obj_values), "custom_obj_values")
    for name, meta in graph.tensor_values.items():
        with placed("tensor_values", name):
            check_tensor_meta(meta)
    known: set[str] = set()
    for index, argument in enumerate(graph.inputs):
        with placed("inputs", index):
            if argument.type != "as_tensor":
                raise Mismatch("a tensor", describe(argument))
            _define(argument.value.name, graph, known)
    for index, node in enumerate(graph.nodes):
        with placed("nodes", index):
            _check_node(node, graph, known, depth)
    for index, argument in enumerate(graph.outputs):
        with placed("outputs", index):
            _require(argument, known)


def check_tensor_meta(meta: schema.TensorMeta) -> None:
    """Check element type, layout, sizes, strides and offset of a tensor; its device becomes the CPU.

    Raises:
        Mismatch: one of them is out of range, or symbolic.
    """
    if meta.dtype == schema.ScalarType.UNKNOWN:
        raise Mismatch("an element type", "an unknown one", "dtype")
    if meta.layout != schema.Layout.Strided:
        raise Mismatch("strided", schema.Layout(meta.layout).name, "layout")
    if len(meta.strides) != len(meta.sizes):
        raise Mismatch(f"a list of {len(meta.sizes)}, as sizes is", quote(meta.strides), "strides")
    for field, values in (("sizes", meta.sizes), ("strides", meta.strides), ("storage_offset", [meta.storage_offset])):
        for index, size in enumerate(values):
            if size.type != "as_int":
                raise Mismatch(STATIC, quote(size.value.expr_str), field, index)
            if not 0 <= size.value < _LIMIT:
                raise Mismatch("a number from 0 to 2^48", quote(size.value), field, index)
    if count_elements(meta) >= _LIMIT:
        raise Mismatch("those of at most 2^48 elements", "more", "sizes")
    with placed("device"):
        _use_cpu(meta.device)


def count_elements(meta: schema.TensorMeta) -> int:
    """Return the number of elements of a tensor of static shape."""
    count = 1
    for size in meta.sizes:
        count *= size.value
    return count


def scalar_type(meta: schema.TensorMeta) -> torch.dtype:
    """Return the element type of a tensor that `check_tensor_meta` let pass."""
    return deserialize_scalar_type(meta.dtype)


def tensor_names(argument: schema.Argument) -> Iterator[str]:
    """Yield the names of tensors that an argument consists of."""
    kind, value = argument.type, argument.value
    if kind in ("as_optional_tensor", "as_optional_tensors"):
        items = [item.value for item in (value if isinstance(value, list) else [value]) if item.type == "as_tensor"]
    elif kind == "as_nested_tensors":
        items = [item for part in value for item in part]
    else:
        items = {"as_tensor": [value], "as_tensors": value}.get(kind, [])
    return (item.name for item in items)


def describe(argument: schema.Argument) -> str:
    """Return how messages call an argument: `'x'` for a tensor, or its kind."""
    kind = str(argument.type).removeprefix("as_").replace("_", " ")
    return argument.value.name if kind == "tensor" else kind


def _check_node(node: schema.Node, graph: schema.Graph, known: set[str], depth: int) -> None:
    operation = None if node.target in _BLOCKS else _find_operation(node.target)
    if node.name is not None:
        with placed("name"):
            check_name(node.name)
    for index, item in enumerate(node.inputs):
        with placed("inputs", index, "arg"):
            if operation is None and item.arg.type == "as_graph":
                _check_block(item.arg.value, depth)
            else:
                _check_argument(item.arg, known)
    if operation is not None:
        _check_names(node, operation)
        _check_enumerated(node, operation)
    for index, output in enumerate(node.outputs):
        with placed("outputs", index):
            if output.type not in ("as_tensor", "as_tensors", "as_none"):
                raise Mismatch("a tensor", describe(output))
            for name in tensor_names(output):
                _define(name, graph, known)
    # Layers and source lines are for messages; what else there may be torch would look up in its modules.
    kept = ("stack_trace", "nn_module_stack")
    node.metadata = {key: text for key, text in node.metadata.items() if key in kept}
    with placed("metadata", "nn_module_stack"):
        _check_layers(node.metadata.get("nn_module_stack", ""))


def _find_operation(target: str) -> torch._ops.OpOverload:
    """Return the operation called `torch.ops.NAMESPACE.NAME.OVERLOAD`, which computes values of values."""
    match = _OPERATION.fullmatch(target)
    if match and match[1] == "quantized_decomposed":
        with contextlib.suppress(ImportError):  # where torch has them no more, torchao does
            importlib.import_module("torch.ao.quantization.fx._decomposed")
    packet = getattr(getattr(torch.ops, match[1]), match[2], None) if match else None
    operation = getattr(packet, match[3], None) if match and isinstance(packet, torch._ops.OpOverloadPacket) else None
    if not isinstance(operation, torch._ops.OpOverload) or not (_is_on_data(operation) and _is_public(operation)):
        raise Mismatch("a public operation of aten or prims on tensors", quote(target), "target")
    return operation


def _is_on_data(operation: torch._ops.OpOverload) -> bool:
    """Return whether an operation computes values of values: torch also has some that read and write files."""
    arguments, results = operation._schema.arguments, operation._schema.returns
    if not all(_DATA.fullmatch(str(value.type)) for value in (*arguments, *results)):
        return False
    if any("filename" in argument.name for argument in arguments):
        return False
    # Checks of shapes and values have no result, or none that is used.
    return operation.name().startswith(_CHECKS) or any("Tensor" in str(result.type) for result in results)


def _is_public(operation: torch._ops.OpOverload) -> bool:
    """Return whether models call an operation: what only torch calls may trust its arguments, and crash on others."""
    name = operation.name()
    is_out = any(argument.is_out for argument in operation._schema.arguments)
    if is_out or "backward" in name or name.startswith(_TRUSTING):
        return False
    is_plain = not name.partition("::")[2].startswith("_")
    return is_plain or torch.Tag.core in operation.tags or name.startswith(_INTERNAL)


def _check_names(node: schema.Node, operation: torch._ops.OpOverload) -> None:
    given, arguments = [item.name for item in node.inputs], operation._schema.arguments
    known = {argument.name for argument in arguments}
    for index, name in enumerate(given):
        if name not in known or name in given[:index]:
            raise Mismatch(f"an argument of {operation}", quote(name), "inputs", index, "name")
    for argument in arguments:
        if argument.name not in given and not argument.has_default_value():
            raise Mismatch(f"the arguments of {operation}, with '{argument.name}'", quote(given), "inputs")


def _check_enumerated(node: schema.Node, operation: torch._ops.OpOverload) -> None:
    types = {argument.name: str(argument.real_type) for argument in operation._schema.arguments}
    for index, item in enumerate(node.inputs):
        kind = types[item.name].removeprefix("Optional[").removesuffix("]")
        if item.arg.type not in (_ENUMERATED.get(kind, item.arg.type), "as_none"):
            raise Mismatch(f"a {kind}", describe(item.arg), "inputs", index, "arg")


def _check_block(block: schema.GraphArgument, depth: int) -> None:
    if depth == _BLOCK_DEPTH:
        raise Mismatch(f"at most {_BLOCK_DEPTH} blocks deep", "more", "as_graph")
    with placed("as_graph", "name"):
        check_name(block.name)
    with placed("as_graph", "graph"):
        check_graph(block.graph, depth + 1)


def _check_argument(argument: schema.Argument, known: set[str]) -> None:
    kind, value = argument.type, argument.value
    if kind in ("as_graph", "as_custom_obj", "as_operator", "as_string_to_argument"):
        raise Mismatch("a tensor or a number", describe(argument))
    if kind in ("as_scalar_type", "as_memory_format", "as_layout") and value == 0:
        raise Mismatch(f"a known {describe(argument)}", "an unknown one")
    if kind == "as_device":
        _use_cpu(value)
    elif kind.startswith("as_sym"):
        for number in value if isinstance(value, list) else [value]:
            if number.type == "as_name":
                raise Mismatch(STATIC, quote(number.value))
    else:
        _require(argument, known)


def _use_cpu(device: schema.Device) -> None:
    """Make a device the CPU: that is where patc reads weights, and what a GPU was to compute is the same there."""
    if device.type not in ("cpu", "cuda", "xpu", "mps"):
        raise Mismatch("a CPU or GPU", quote(device.type), "type")
    device.type, device.index = "cpu", None


def _define(name: str, graph: schema.Graph, known: set[str]) -> None:
    check_name(name)
    if name in known:
        raise Mismatch("a new name", quote(name))
    if name not in graph.tensor_values:
        raise Mismatch("the name of one of tensor_values", quote(name))
    known.add(name)


def _require(argument: schema.Argument, known: set[str]) -> None:
    for name in tensor_names(argument):
        if name not in known:
            raise Mismatch("the name of an earlier tensor", quote(name))


def check_name(name: str) -> None:
    """Require a name that can stand in Python's source: torch writes a function of them."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise Mismatch("a name", quote(name))


def _check_layers(stack: str) -> None:
    """Require layers that torch can take apart: key, path and type, where types may have brackets."""
    for layer in stack.split(";") if stack else ():
        depth, parts = 0, 1
        for letter in layer:
            depth += (letter in "[(") - (letter in "])")
            parts += letter == "," and depth == 0
        if parts != 3:
            raise Mismatch("layers of a key, a path and a type", quote(layer))
