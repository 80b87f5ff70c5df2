"""ONNX files as messages and arrays, read as data: no code runs, and nothing outside of the file's folder is read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patc.diagnostics import PatcError, first_line
from patc.files import check_regular, note_read
from patc.frontend.onnx_choices import check_choices
from patc.frontend.onnx_contrib import expand_contrib
from patc.frontend.onnx_sparse import densify
from patc.torch_archives import describe_content

if TYPE_CHECKING:
    import onnx

WHAT = "an .onnx file"
OLDEST, NEWEST = 7, 23
_MOST_BYTES = (1 << 31) - 1  # of a protobuf message
_MAGICS = {b"PK\x03\x04": "a zip archive", b"\x1f\x8b": "a gzip file", b"\x89HDF": "an HDF5 file"}


def read_model(path: Path) -> onnx.ModelProto:
    """Return a model whose nodes are sorted and whose operations are all ONNX's own or functions of the model.

    Raises:
        PatcError: onnx is not installed, or the file is missing, damaged, of another kind or version, or has operations
            of other domains.
    """
    place = os.fspath(path)
    check_regular(path, WHAT)
    onnx = load_onnx()
    model = _parse(onnx, path, place)
    for message in (*model.opset_import, *_all_nodes(model), *model.functions):
        message.domain = "" if message.domain == "ai.onnx" else message.domain
    name_nodes(model)
    expand_contrib(model)
    _check_domains(model, place)
    _check_version(model, place)
    _check_operations(onnx, model, place)
    densify(model, _all_nodes(model), place)
    sort_nodes(model.graph, place)
    return model


def load_onnx() -> Any:
    """Return the package onnx.

    Raises:
        PatcError: it is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise PatcError("expected the package onnx for .onnx files, found none: pip install 'patc[onnx]'") from None
    return onnx


def _parse(onnx: Any, path: Path, place: str) -> onnx.ModelProto:
    from google.protobuf.message import DecodeError

    try:
        size = path.stat().st_size
        data = b"" if size > _MOST_BYTES else path.read_bytes()
    except OSError as error:
        raise PatcError(f"cannot read the file: {error.strerror or error}", place) from None
    if size > _MOST_BYTES:
        advice = "larger models keep their weights in external data files"
        raise PatcError(f"expected {WHAT} below 2 GB, protobuf's limit, found {size / 1e9:.1f} GB; {advice}", place)
    if not data:
        raise PatcError(f"expected {WHAT}, found an empty file", place)
    for magic, what in _MAGICS.items():
        if data.startswith(magic):
            raise PatcError(f"expected {WHAT}, found {describe_content(path) or what}", place)
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
        is_text = _is_text(model)
    except (DecodeError, UnicodeDecodeError):
        is_text = False
    if not is_text:
        raise PatcError(f"expected {WHAT}, found damaged, truncated or other data", place) from None
    if not model.HasField("graph") or not model.graph.output:
        raise PatcError(f"expected {WHAT} with a graph that has outputs, found none", place)
    return model


def _is_text(message: Any) -> bool:
    """Return whether all names in a message are UTF-8: others are bytes to Python, or an error when they are read."""
    for field, value in message.ListFields():
        parts = [value] if isinstance(value, (str, bytes)) or hasattr(value, "ListFields") else value
        if field.type == field.TYPE_STRING and not all(isinstance(part, str) for part in parts):
            return False
        if field.name in ("s", "strings"):  # attributes, which MLIR takes as text
            [part.decode() for part in parts]
        if field.type == field.TYPE_MESSAGE and not all(map(_is_text, parts)):
            return False
    return True


def _check_version(model: onnx.ModelProto, place: str) -> None:
    versions = [opset.version for opset in model.opset_import if not opset.domain]
    found = max(versions, default=1)  # files of before there were opsets
    if not OLDEST <= found <= NEWEST:
        raise PatcError(f"expected ONNX opset {OLDEST} to {NEWEST}, found {found}", place)


def _check_operations(onnx: Any, model: onnx.ModelProto, place: str) -> None:
    """Refuse operations that ONNX does not have, or not in this opset, all of them in one line."""
    opset = max(opset.version for opset in model.opset_import if not opset.domain)
    schemas = onnx.defs.get_all_schemas_with_history()
    known = {schema.name for schema in schemas if not schema.domain and schema.since_version <= opset}
    others = [node for node in _all_nodes(model) if not node.domain and node.op_type not in known]
    if others:
        raise PatcError(f"model has operations that are not in opset {opset}: {describe_nodes(others)}", place)
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = onnx.IR_VERSION, {"": opset}
    for node in _all_nodes(model):
        if node.domain or any(attribute.ref_attr_name for attribute in node.attribute):
            continue
        plain = onnx.NodeProto.FromString(node.SerializeToString())
        for attribute in plain.attribute:  # of what subgraphs take from outside the checker does not know
            if attribute.HasField("g"):
                attribute.g.CopyFrom(onnx.GraphProto(name="subgraph"))
        try:
            onnx.checker.check_node(plain, context)
        except Exception as error:  # ValidationError, and whatever C++ throws
            expected = f"expected inputs and attributes of {node.op_type}"
            raise PatcError(f"{expected}, found others: {first_line(error)}", f"{place}: {node.name}") from None
        check_choices(node, place)


def _check_domains(model: onnx.ModelProto, place: str) -> None:
    """Refuse operations that neither ONNX nor the model defines, all of them in one line."""
    defined = {(function.domain, function.name): index for index, function in enumerate(model.functions)}
    others = [node for node in _all_nodes(model) if node.domain and (node.domain, node.op_type) not in defined]
    if others:
        listed = describe_nodes(others)
        raise PatcError(f"model has operations of other domains, which patc cannot compile: {listed}", place)
    calls = [{defined.get((node.domain, node.op_type), -1) for node in _inside(f.node)} - {-1} for f in model.functions]
    if len(_order(calls)) < len(calls):
        raise PatcError("expected functions that do not call themselves, found some that do", place)


def _all_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return _inside([*model.graph.node, *(node for function in model.functions for node in function.node)])


def name_nodes(model: onnx.ModelProto) -> None:
    """Give nodes without a name that of what they make, and parts that nobody wants one of their own: torch-mlir takes
    Split with all of them."""
    for node in _all_nodes(model):
        node.name = node.name or next(filter(None, node.output), node.op_type)
        for index, name in enumerate(node.output):
            if not name and node.op_type == "Split":
                node.output[index] = f"{node.name}.{index}"


def _inside(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return nodes and those of their subgraphs."""
    return [inner for node in nodes for inner in (node, *(n for graph in all_graphs(node) for n in graph.node))]


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs that a node has as attributes."""
    return [
        graph
        for attribute in node.attribute
        for graph in ((attribute.g,) if attribute.HasField("g") else attribute.graphs)
    ]


def all_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs inside a node, and those inside of them."""
    for graph in subgraphs(node):
        yield graph
        for inner in graph.node:
            yield from all_graphs(inner)


def captured_names(node: onnx.NodeProto) -> set[str]:
    """Return the values that a node reads, those that its subgraphs take from outside among them."""
    names = set(filter(None, node.input))
    for graph in subgraphs(node):
        inside = {value.name for value in (*graph.input, *graph.initializer)}
        read = {value.name for value in graph.output}
        for inner in graph.node:
            inside |= set(inner.output)
            read |= captured_names(inner)
        names |= read - inside
    return names


def sort_nodes(graph: onnx.GraphProto, place: str) -> None:
    """Bring nodes into an order in which values are made before they are read.

    Raises:
        PatcError: a value is made twice or never, or nodes wait for each other.
    """
    known = {value.name for value in (*graph.input, *graph.initializer)}
    if len({value.name for value in graph.input}) < len(graph.input):
        raise PatcError("expected inputs of different names, found some of one name", place)
    makers: dict[str, int] = {}
    nodes = list(graph.node)
    for index, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in makers or name in known:
                raise PatcError(
                    f"expected each value to be made once, found '{name}' made again", f"{place}: {node.name}"
                )
            makers[name] = index
    waits: list[set[int]] = []
    for node in nodes:
        read = captured_names(node) - known
        _require_made(read, makers, f"{place}: {node.name}")
        waits.append({makers[name] for name in read})
    _require_made({value.name for value in graph.output} - known, makers, place)
    order = _order(waits)
    if len(order) < len(nodes):
        sorted_ones = {*order}
        left = [node.name for index, node in enumerate(nodes) if index not in sorted_ones]
        raise PatcError(
            f"expected a graph without cycles, found nodes that wait for each other: {join_names(left)}", place
        )
    if order != sorted(order):
        copies = [type(nodes[0]).FromString(nodes[index].SerializeToString()) for index in order]
        del graph.node[:]
        graph.node.extend(copies)


def _require_made(names: Iterable[str], makers: dict[str, int], place: str) -> None:
    missing = sorted(set(names) - set(makers))
    if missing:
        expected = "expected values that an input, an initializer or a node makes"
        raise PatcError(f"{expected}, found {join_names(missing)}", place)


def _order(waits: list[set[int]]) -> list[int]:
    """Return the nodes that can run, in the order of the file where that is one."""
    import heapq

    readers: dict[int, list[int]] = {}
    for index, others in enumerate(waits):
        for other in others:
            readers.setdefault(other, []).append(index)
    left = [len(others) for others in waits]
    ready, order = [index for index, count in enumerate(left) if not count], []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers.get(order[-1], ()):
            left[reader] -= 1
            if not left[reader]:
                heapq.heappush(ready, reader)
    return order


def join_names(names: Iterable[str], most: int = 5) -> str:
    """Return names for a message; of many the first ones."""
    listed = [f"'{name}'" for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def describe_nodes(nodes: Iterable[onnx.NodeProto]) -> str:
    """Return operations with how many there are and the names of their nodes, for a message."""
    names: dict[str, list[str]] = {}
    for node in nodes:
        names.setdefault(".".join(filter(None, (node.domain, node.op_type))), []).append(node.name)
    return ", ".join(f"{kind} x{len(where)} ({join_names(where)})" for kind, where in names.items())


# -- Tensors ---------------------------------------------------------------------------------------------


def read_tensor(tensor: onnx.TensorProto, path: Path) -> np.ndarray:
    """Return the values of a tensor of a file, those of external data too.

    Raises:
        PatcError: strings, other values than its shape says, or external data that is missing, too short, or not in the
            file's folder.
    """
    onnx, where = load_onnx(), f"{os.fspath(path)}: initializer '{tensor.name}'"
    known = tensor.data_type in onnx.TensorProto.DataType.values() and tensor.data_type not in (0, 8)
    if not known or tensor.HasField("segment") or any(size < 0 for size in tensor.dims):
        named = tensor.data_type in onnx.TensorProto.DataType.values()
        type_ = onnx.TensorProto.DataType.Name(tensor.data_type) if named else tensor.data_type
        raise PatcError(f"expected numbers of a known type and shape, found {type_} of {list(tensor.dims)}", where)
    if math.prod(tensor.dims) > 1 << 40:
        raise PatcError(f"expected as many values as its shape {list(tensor.dims)} says, found fewer", where)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        tensor = _with_data(onnx, tensor, path.parent, where)
    try:
        return np.ascontiguousarray(onnx.numpy_helper.to_array(tensor)).reshape(tuple(tensor.dims))
    except (ValueError, TypeError, RuntimeError) as error:
        expected = f"expected as many values as its shape {list(tensor.dims)} says"
        raise PatcError(f"{expected}, found others ({first_line(error)})", where) from None


def _with_data(onnx: Any, tensor: onnx.TensorProto, folder: Path, where: str) -> onnx.TensorProto:
    """Return a tensor with the bytes of its external data in it."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = _external_file(entries.get("location", ""), folder, where)
    numbers = [entries.get(key, "0") for key in ("offset", "length")]
    if not all(number.isdecimal() and len(number) < 20 for number in numbers):
        raise PatcError(f"expected offset and length as numbers, found {', '.join(map(ascii, numbers))}", where)
    offset, length = map(int, numbers)
    type_ = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    wanted = math.prod(tensor.dims) * type_.itemsize
    if tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
        wanted = (math.prod(tensor.dims) + 1) // 2
    size = file.stat().st_size
    if (length or wanted) != wanted or offset + wanted > size:
        found = f"{length or max(size - offset, 0)} at {offset} of {file.name}, a file of {size}"
        raise PatcError(f"expected {wanted} bytes of external data, found {found}", where)
    with open(file, "rb") as stream:
        stream.seek(offset)
        data = stream.read(wanted)
    return onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=data)


def _external_file(location: str, folder: Path, where: str) -> Path:
    inside = location and not os.path.isabs(location) and "\0" not in location and ".." not in Path(location).parts
    if not inside:
        raise PatcError(f"expected external data in a file within the model's folder, found {location!a}", where)
    file = folder / location
    if not file.is_file():
        raise PatcError(f"expected external data in {location}, found no such file", where)
    if not file.resolve().is_relative_to(folder.resolve()):
        raise PatcError(f"expected external data within the model's folder, found a link out of it: {location}", where)
    note_read(file)
    return file
