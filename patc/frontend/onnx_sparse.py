"""Sparse tensors of ONNX files, as dense ones: zeros are found again where layers are encoded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from patc.diagnostics import PatcError

_MOST_BYTES = 2**31  # of a dense tensor: what protobuf could hold


def densify(model: Any, nodes: Iterable[Any], place: str) -> None:
    """Replace sparse initializers, and sparse values of Constant nodes, by dense ones.

    Args:
        nodes: all of the model, those of subgraphs and functions too.

    Raises:
        PatcError: one is not valid, external, or dense too large.
    """
    graph = model.graph
    graph.initializer.extend(_dense(tensor, place) for tensor in graph.sparse_initializer)
    del graph.sparse_initializer[:]
    for node in nodes:
        for attribute in node.attribute if node.op_type == "Constant" and not node.domain else ():
            if attribute.name == "sparse_value":
                tensor = _dense(attribute.sparse_tensor, place)
                attribute.Clear()
                attribute.name, attribute.type = "value", attribute.TENSOR
                attribute.t.CopyFrom(tensor)


def _dense(tensor: Any, place: str) -> Any:
    from onnx import numpy_helper

    name, dims, parts = tensor.values.name, list(tensor.dims), (tensor.values, tensor.indices)
    what = f"sparse tensor '{name}'"
    if any(part.data_location == part.EXTERNAL for part in parts):
        raise PatcError(f"expected {what} in the file, found it in external data", place)
    try:
        values, indices = (numpy_helper.to_array(part) for part in parts)
    except (TypeError, ValueError):
        raise PatcError(f"expected {what} of whole values and indices, found it damaged", place) from None
    if min(dims, default=0) < 0 or math.prod(dims) * values.itemsize > _MOST_BYTES:
        raise PatcError(f"expected {what} below 2 GB, found dimensions {dims}", place)
    shapes = [[len(values)], [len(values), len(dims)]]
    if values.ndim != 1 or list(indices.shape) not in shapes or indices.dtype != np.int64:
        raise PatcError(f"expected {what} with an index for each value, found indices of {indices.shape}", place)
    sizes = dims if indices.ndim == 2 else [math.prod(dims)]
    rows = indices.reshape(len(values), len(sizes))
    if ((rows < 0) | (rows >= sizes)).any():
        raise PatcError(f"expected indices of {what} within {dims}, found others", place)
    dense = np.zeros(sizes, values.dtype)
    dense[tuple(rows.T)] = values
    return numpy_helper.from_array(dense.reshape(dims), name)
