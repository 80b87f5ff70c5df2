"""Tensors and arrays as compiled code reads them: elements one behind the other, at an address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from patc.diagnostics import PatcError
from patc.numerics import BFLOAT16
from patc.runtime.program import TensorInfo

ADVICE = "other sizes are fixed when a model is compiled: shapes=[...] makes one for several"


def take_tensor(info: TensorInfo, value: Any, torch: Any) -> tuple[Any, int]:
    """Return a torch tensor as a contiguous one, and its address.

    Raises:
        PatcError: another shape, element type or device, or no numbers in memory.
    """
    if type(value) is not torch.Tensor:
        value = _without_subclass(info, value, torch)
    if value.is_nested or value.shape != info.shape or value.dtype != getattr(torch, info.dtype):
        shape = "nested tensors of" if value.is_nested else f"shape {list(value.shape)}"
        got = f"{shape} {str(value.dtype).removeprefix('torch.')}"
        raise PatcError(f"expected input {info}, got {got}{_advice(info, () if value.is_nested else value.shape)}")
    if not value.is_cpu or value.layout != torch.strided:
        raise PatcError(f"expected input {info} as a dense tensor on the CPU, got {value.layout} on {value.device}")
    try:
        _require_memory(info, value)
        if value.is_neg() or not value.is_contiguous():
            value = value.detach().resolve_neg().contiguous()
        address: int = value.data_ptr()
        # Zeros that torch does not store have the address 0; a tensor on bytes of something else can be anywhere.
        if address == 0 or address % info.element.bytes:
            value = value.detach().clone()
            address = value.data_ptr()
        return value, address
    except RuntimeError:
        # What transforms of torch.func and modes without numbers hand out looks like a tensor.
        raise PatcError(f"expected input {info} with its numbers in memory, got a tensor without") from None


def _without_subclass(info: TensorInfo, value: Any, torch: Any) -> Any:
    """Return a tensor of a class of its own as a plain one, if it holds the numbers itself."""
    kind = type(value)
    if kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        raise PatcError(f"expected input {info} as a plain tensor, got {kind.__name__}")
    with torch._C.DisableTorchFunctionSubclass():
        return value.detach().as_subclass(torch.Tensor)


def _require_memory(info: TensorInfo, value: Any) -> None:
    """Refuse a tensor whose memory was given back."""
    found, count = value.untyped_storage().nbytes(), value.numel()
    if not value.is_contiguous():
        count = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    needed = info.element.bytes * (value.storage_offset() + count)
    if found < needed:
        raise PatcError(f"expected input {info} with its numbers in memory, got {found} of {needed} bytes")


def _advice(info: TensorInfo, shape: Sequence[int]) -> str:
    """Return how a model takes other sizes, where these are what is wrong."""
    if len(shape) != len(info.shape) or tuple(shape) == info.shape:
        return ""
    is_batch = tuple(shape[1:]) == info.shape[1:]
    return "; compile with dynamic_batch=True for any batch size" if is_batch else f"; {ADVICE}"


def take_array(info: TensorInfo, value: Any) -> tuple[np.ndarray, int]:
    """Return a numpy array as a contiguous one, and its address.

    Raises:
        PatcError: something else, another shape or element type, or numbers that a mask hides.
    """
    if not isinstance(value, np.ndarray):
        raise PatcError(f"expected input {info}, got {type(value).__name__}")
    if info.dtype == BFLOAT16 and value.dtype == "V2":  # as numpy reads them from its files
        value = value.view(BFLOAT16)
    if value.shape != info.shape or value.dtype != info.dtype:
        got = f"shape {list(value.shape)} {value.dtype}"
        raise PatcError(f"expected input {info}, got {got}{_advice(info, value.shape)}")
    if type(value) is not np.ndarray and np.any(getattr(value, "mask", False)):
        raise PatcError(f"expected input {info} without a mask, got {type(value).__name__} with one")
    value = np.ascontiguousarray(value)
    address = value.ctypes.data
    if address % info.element.bytes:
        value = value.copy()
        address = value.ctypes.data
    return value, address


def random_arrays(infos: Sequence[TensorInfo], seed: int) -> tuple[np.ndarray, ...]:
    """Return arrays like some inputs; see `CompiledModel.random_inputs`."""
    generator = np.random.default_rng(seed)
    return tuple(_random_array(info, generator) for info in infos)


def _random_array(info: TensorInfo, generator: np.random.Generator) -> np.ndarray:
    if "f" in info.element.mlir:
        return generator.standard_normal(info.shape, np.float32).astype(info.dtype, copy=False)
    return generator.integers(0, 2, info.shape).astype(info.dtype)
