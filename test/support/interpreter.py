"""A second, independent meaning of the pattern ops: evaluates a module with PyTorch, in float64.

Tests compare it with what passes and code generation make of a module. It shares no code with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch_mlir import ir

from patc.parameters import ParameterStore


def interpret(
    module: ir.Module, parameters: ParameterStore, inputs: Sequence[np.ndarray], function: str = "main"
) -> list[np.ndarray]:
    """Return the results of a function of `module` as float64 arrays."""
    body = _find_function(module, function).regions[0].blocks[0]
    values = dict(zip(body.arguments, (_real(array) for array in inputs), strict=True))
    with _one_thread():
        for op in body.operations:
            operands = [values[operand] for operand in op.operation.operands]
            if op.operation.name == "func.return":
                return [operand.numpy() for operand in operands]
            values[op.operation.results[0]] = _evaluate(op, operands, parameters)
    raise ValueError(f"@{function} has no return")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small convolutions spend their time waiting for threads of a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _find_function(module: ir.Module, name: str) -> Any:
    for op in module.body.operations:
        if op.operation.name == "func.func" and op.operation.attributes["sym_name"].value == name:
            return op
    raise ValueError(f"no function @{name}")


def _real(array: np.ndarray) -> Tensor:
    """Return floating point numbers in float64, integers as they are."""
    tensor = torch.from_numpy(np.array(array))
    return tensor.double() if tensor.is_floating_point() else tensor.long()


def _evaluate(op: Any, operands: list[Tensor], parameters: ParameterStore) -> Tensor:
    name = op.operation.name
    if name == "pattern.parameter":
        return _real(parameters[op.operation.attributes["name"].value])
    if name == "arith.constant":
        return _constant(op.operation.attributes["value"])
    if name not in _MEANINGS:
        raise NotImplementedError(f"the interpreter does not know '{name}'")
    return _MEANINGS[name](op, operands)


def _constant(attr: Any) -> Tensor:
    if attr.is_splat:
        return torch.full(attr.type.shape, attr.get_splat_value().value).double()
    return _real(np.array(attr).reshape(attr.type.shape))


def _split_optional(op: Any, operands: list[Tensor], required: int) -> list[Tensor | None]:
    """Return the operands after the required ones, None for one that is absent."""
    rest = iter(operands[required:])
    present = list(op.operation.attributes["operandSegmentSizes"])[required:]
    return [next(rest) if count else None for count in present]


def _activate(op: Any, y: Tensor) -> Tensor:
    kind = str(op.operation.attributes["activation"]).strip('"')
    if kind.startswith("#pattern.clamp<"):
        low, high = (float(text.split(":")[0]) for text in kind[len("#pattern.clamp<") : -1].split(","))
        return y.clamp(low, high)
    return {"none": y, "relu": y.relu()}[kind]


def _finish(op: Any, y: Tensor, residual: Tensor | None) -> Tensor:
    join, attributes = "add", op.operation.attributes
    if "join" in attributes:
        join = attributes["join"].value
    if residual is None:
        return _activate(op, y)
    if "joins_last" in attributes:
        return _JOINS[join](_activate(op, y), residual)
    return _activate(op, _JOINS[join](y, residual))


_JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "subtract": torch.sub,
    "subtract_from": torch.rsub,
    "multiply": torch.mul,
    "divide": torch.div,
}


def _pad(op: Any, x: Tensor, value: float) -> Tensor:
    top, left, bottom, right = op.operation.attributes["pads"]
    return functional.pad(x, (left, right, top, bottom), value=value)


def _convolve(op: Any, x: Tensor, weight: Tensor, groups: int, rest: list[Tensor | None]) -> Tensor:
    bias, residual = rest
    strides, dilations = (list(op.operation.attributes[name]) for name in ("strides", "dilations"))
    y = functional.conv2d(_pad(op, x, 0.0), weight, bias, strides, 0, dilations, groups)
    return _finish(op, y, residual)


def _conv2d(op: Any, operands: list[Tensor]) -> Tensor:
    groups = op.operation.attributes["groups"].value
    return _convolve(op, operands[0], operands[1], groups, _split_optional(op, operands, 2))


def _sparse_conv2d(op: Any, operands: list[Tensor]) -> Tensor:
    x, values, index, offset, pattern_offsets, reorder = operands[:6]
    attr = op.operation.attributes["format"]
    (height, width, *depth), masks = (list(part.maybe_downcast()) for part in (attr.kernel, attr.masks))
    planes = depth[0] if depth else 1
    # One row of taps a filter: the taps of a kernel that spans several channels run on from one to the next.
    rows = torch.zeros(len(reorder), x.shape[1] * height * width, dtype=torch.float64)
    for stored, filter_ in enumerate(reorder):
        for pattern, mask in enumerate(masks):
            taps = torch.tensor([tap for tap in range(planes * height * width) if mask & (1 << tap)])
            first, end = (int(offset[stored] + pattern_offsets[stored, pattern + i]) for i in (0, 1))
            places = index[first:end, None] * (height * width) + taps
            rows[filter_].index_add_(0, places.flatten(), values[first:end].flatten())
    dense = rows.reshape(len(reorder), x.shape[1], height, width)
    return _convolve(op, x, dense, 1, _split_optional(op, operands, 6)[-2:])


def _linear(op: Any, operands: list[Tensor]) -> Tensor:
    bias, residual = _split_optional(op, operands, 2)
    return _finish(op, functional.linear(operands[0], operands[1], bias), residual)


def _windows(op: Any, x: Tensor, fill: float) -> Tensor:
    """Return N x C x H x W x window: what each output of a pool sees."""
    return _slide(op, _pad(op, x, fill))


def _slide(op: Any, padded: Tensor) -> Tensor:
    kernel, strides, dilations = (list(op.operation.attributes[name]) for name in ("kernel", "strides", "dilations"))
    rows, columns = (
        torch.arange(0, padded.shape[2 + axis] - dilations[axis] * (kernel[axis] - 1), strides[axis])[:, None]
        + torch.arange(kernel[axis])[None, :] * dilations[axis]
        for axis in (0, 1)
    )
    return padded[:, :, rows[:, None, :, None], columns[None, :, None, :]].flatten(4)


def _max_pool2d(op: Any, operands: list[Tensor]) -> Tensor:
    return _windows(op, operands[0], -torch.inf).amax(-1)


def _avg_pool2d(op: Any, operands: list[Tensor]) -> Tensor:
    x, attributes = operands[0], op.operation.attributes
    total = _windows(op, x, 0.0).sum(-1)
    if "divisor" in attributes:
        return total / attributes["divisor"].value
    counted = torch.ones_like(x)
    if attributes["count_include_pad"].value:
        counted = _pad(op, counted, 1.0)
        rows, columns = attributes.get("uncounted_pads", (0, 0))
        counted[:, :, counted.shape[2] - rows :] = counted[..., counted.shape[3] - columns :] = 0.0
        return total / _slide(op, counted).sum(-1)
    return total / _windows(op, counted, 0.0).sum(-1).clamp(min=1)


def _collapse_shape(op: Any, operands: list[Tensor]) -> Tensor:
    shape, result = operands[0].shape, []
    for group in op.operation.attributes["reassociation"]:
        result.append(int(np.prod([shape[int(axis)] for axis in group])))
    return operands[0].reshape(result)


def _expand_shape(op: Any, operands: list[Tensor]) -> Tensor:
    shape = list(op.operation.results[0].type.shape)
    return operands[0].reshape([-1 if size < 0 else size for size in shape])


_MEANINGS: dict[str, Callable[[Any, list[Tensor]], Tensor]] = {
    "pattern.conv2d": _conv2d,
    "pattern.sparse_conv2d": _sparse_conv2d,
    "pattern.linear": _linear,
    "pattern.max_pool2d": _max_pool2d,
    "pattern.avg_pool2d": _avg_pool2d,
    "pattern.add": lambda op, operands: _activate(op, operands[0] + operands[1]),
    "pattern.multiply": lambda op, operands: _activate(op, operands[0] * operands[1]),
    "pattern.activate": lambda op, operands: _activate(op, operands[0]),
    "pattern.relayout": lambda op, operands: operands[0],
    "tensor.collapse_shape": _collapse_shape,
    "tensor.expand_shape": _expand_shape,
    "tensor.concat": lambda op, operands: torch.cat(operands, op.operation.attributes["dim"].value),
}
