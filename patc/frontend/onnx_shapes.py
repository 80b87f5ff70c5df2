"""Shapes of the inputs of an ONNX graph, as its file and the caller say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from patc.diagnostics import PatcError, nearest
from patc.frontend.onnx_graph import OnnxGraph, ValueType, describe_type, value_type
from patc.mlir_limits import MOST_ELEMENTS

if TYPE_CHECKING:
    import onnx

# Places of the operands: input and weights of convolutions, and lists of numbers.
_WEIGHTS = {"Conv": (0, 1), "ConvInteger": (0, 1), "ConvTranspose": (0, 1), "QLinearConv": (0, 3)}
# Their axis is one of the output, or counts where there are parameters for each channel alone.
_OTHER_AXIS = ("OneHot", "QuantizeLinear", "DequantizeLinear", "ConcatFromSequence", "SplitToSequence")
_LISTS = {
    "ConstantOfShape": (0,), "Expand": (1,), "Pad": (1, 3), "Reshape": (1,), "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4), "Split": (1,), "Tile": (1,), "Upsample": (1,),
}  # fmt: skip


def set_input_shapes(graph: OnnxGraph, given: Mapping[str, Any] | Sequence[Any] | None) -> None:
    """Give the inputs of a graph static shapes.

    Args:
        given: shapes by the names of inputs; tensors or arrays of such shapes by name, or one for each input in the
            order of the file; None for those of the file.

    Raises:
        PatcError: there is no such input, its shape is another one, or sizes stay unknown; those are listed.
    """
    place, inputs = str(graph.path), list(graph.model.graph.input)
    _require_tensors("inputs", inputs, place)
    _require_tensors("outputs", [value for value in graph.model.graph.output if value.type.WhichOneof("value")], place)
    shapes = _by_name(inputs, given, place)
    for name in shapes:
        names = [value.name for value in inputs]
        if name not in names:
            known = ", ".join(map(_describe, inputs))
            raise PatcError(f"expected shapes for inputs of {known}; got '{name}'{nearest(name, names)}", place)
    sizes: dict[str, int] = {}
    for value in inputs:
        if value.name in shapes:
            _bind(value, shapes[value.name], sizes, place)
    unknown = [value for value in inputs if not _set_shape(value, shapes.get(value.name), sizes)]
    if unknown:
        value = unknown[0]
        shape = value_type(value).shape
        usual = (1, 3, 224, 224) if not shape or len(shape) == 4 else (1,) * len(shape)
        example = "x".join(str(size if (size or 0) > 0 else usual[axis]) for axis, size in enumerate(shape or usual))
        listed = ", ".join(map(_describe, unknown))
        advice = f"--shape {value.name}={example}"
        raise PatcError(f"expected inputs of known shapes, found {listed}; give them as in {advice}", place)


def _require_tensors(role: str, values: Sequence[onnx.ValueInfoProto], place: str) -> None:
    for value in values:
        if not value.type.HasField("tensor_type"):
            kind = (value.type.WhichOneof("value") or "none").removesuffix("_type")
            raise PatcError(f"expected {role} to be tensors, found '{value.name}' of type {kind}", place)


def require_operands(graph: OnnxGraph) -> None:
    """Refuse what onnx does not see, and torch-mlir ends the process for, or never ends with: convolutions whose
    weights are for other inputs, numbers where a list of them belongs, and an axis that the input does not have.

    Raises:
        PatcError: at the first of them.
    """
    for node in graph.nodes:
        types = [graph.types.get(name, ValueType(0, None)) for name in node.input]
        if node.op_type in _WEIGHTS:
            x, weight = _WEIGHTS[node.op_type]
            _require_channels(node, types[x], types[weight], f"{graph.path}: {node.name}")
        if types and types[0].is_static and node.op_type not in _OTHER_AXIS:
            _require_axis(node, len(types[0].sizes), f"{graph.path}: {node.name}")
        for place in _LISTS.get(node.op_type, ()):
            found = types[place] if place < len(node.input) and node.input[place] else None
            if found is not None and found.is_static and len(found.sizes) != 1:
                expected = f"expected a list as input {place + 1} of {node.op_type}"
                raise PatcError(f"{expected}, found {describe_type(found)}", f"{graph.path}: {node.name}")


def _require_channels(node: onnx.NodeProto, x: ValueType, weight: ValueType, place: str) -> None:
    if not (x.is_static and weight.is_static and min(len(x.sizes), len(weight.sizes)) > 1):
        return
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    channels, filters = x.sizes[1], weight.sizes[0]
    wanted = filters if node.op_type == "ConvTranspose" else weight.sizes[1] * groups
    if channels != wanted or groups < 1 or filters % groups:
        found = f"weights {describe_type(weight)} of {groups} group{'s' if groups != 1 else ''}"
        raise PatcError(f"expected weights for {channels} channels of input, found {found}", place)


def _require_axis(node: onnx.NodeProto, rank: int, place: str) -> None:
    most = rank + (node.op_type == "Flatten")
    for attribute in node.attribute:
        if attribute.name == "axis" and not -rank <= attribute.i < most:
            expected = f"expected axis of {node.op_type} from {-rank} to {most - 1}"
            raise PatcError(f"{expected}, found {attribute.i}", place)


def open_batch(graph: OnnxGraph, given: Mapping[str, Any] | Sequence[Any] | None) -> dict[str, tuple[int, ...]]:
    """Return shapes of the inputs of a graph that leaves their batch open: that of one image where none is given.

    Args:
        given: as for `set_input_shapes`.

    Raises:
        PatcError: the file says how many images there are.
    """
    place, inputs = str(graph.path), list(graph.model.graph.input)
    shapes = _by_name(inputs, given, place)
    for value in inputs:
        known = value_type(value).shape if value.type.HasField("tensor_type") else None
        dimensions = value.type.tensor_type.shape.dim
        if not known or dimensions[0].dim_value > 0:
            expected = "expected inputs whose first size the file leaves open for dynamic_batch"
            raise PatcError(f"{expected}, found {_describe(value)}", place)
        sizes = [dimension.dim_value if dimension.dim_value > 0 else None for dimension in dimensions[1:]]
        if value.name not in shapes and None not in sizes:
            shapes[value.name] = (1, *(size for size in sizes if size is not None))
    return shapes


def _by_name(inputs: Sequence[onnx.ValueInfoProto], given: Any, place: str) -> dict[str, tuple[int, ...]]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if len(given) != len(inputs):
            raise PatcError(f"expected {len(inputs)} example inputs, found {len(given)}", place)
        given = {value.name: part for value, part in zip(inputs, given, strict=True)}
    shapes = {}
    for name, part in given.items():
        shape = tuple(getattr(part, "shape", part))
        if not all(isinstance(size, int) and size > 0 for size in shape) or math.prod(shape) > MOST_ELEMENTS:
            raise PatcError(f"expected a shape for input '{name}', got {shape}", place)
        shapes[name] = shape
    return shapes


def _bind(value: onnx.ValueInfoProto, shape: tuple[int, ...], sizes: dict[str, int], place: str) -> None:
    """Refuse a shape that contradicts the file, and learn the sizes that its names stand for."""
    if not value.type.tensor_type.HasField("shape"):
        return
    dimensions = value.type.tensor_type.shape.dim
    fits = len(dimensions) == len(shape)
    for size, dimension in zip(shape, dimensions, strict=False):
        known = dimension.dim_value if dimension.dim_value > 0 else sizes.get(dimension.dim_param, size)
        fits = fits and size == known
        if dimension.dim_param not in ("", "?"):  # some exporters call all sizes so that they do not know
            sizes[dimension.dim_param] = size
    if not fits:
        raise PatcError(f"expected input {_describe(value)}, got {'x'.join(map(str, shape))}", place)


def _set_shape(value: onnx.ValueInfoProto, shape: tuple[int, ...] | None, sizes: dict[str, int]) -> bool:
    """Give an input its shape; return whether there is one."""
    tensor = value.type.tensor_type
    if shape is None:
        if not tensor.HasField("shape"):
            return False
        found = [size.dim_value if size.dim_value > 0 else sizes.get(size.dim_param, 0) for size in tensor.shape.dim]
        if 0 in found:
            return False
        shape = tuple(found)
    del tensor.shape.dim[:]
    tensor.shape.SetInParent()
    for size in shape:
        tensor.shape.dim.add().dim_value = size
    return True


def _describe(value: onnx.ValueInfoProto) -> str:
    """Return an input with what is known of its shape: `'x' (N x 3 x ? x 640)`."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return f"'{value.name}' (of unknown rank)"
    sizes = (str(size.dim_value) if size.dim_value > 0 else size.dim_param or "?" for size in tensor.shape.dim)
    return f"'{value.name}' ({' x '.join(sizes) or 'scalar'})"
