"""Layers with dense weights on quantised activations: what kernels of CPUs and of GPUs read of them.

A word is the same place of four channels, and the weights of a filter are words like those that they meet.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from patc.dialects.quantised import Quantisation
from patc.integers import ceil_div
from patc.passes.base import PassState
from patc.passes.formats.layer_weights import groups_of, require_array
from patc.passes.ir.elements import WORD
from patc.passes.ir.quantised import operand_factor


def has_whole_words(op: Any) -> bool:
    """Return whether each filter of a convolution reads whole words, or one channel of a word of its own."""
    groups = groups_of(op)
    whole = not any(tensor.type.shape[1] // groups % WORD for tensor in (op.input, op.result))
    return groups == 1 or whole or is_depthwise(op)


def words_of(op: Any, weight: np.ndarray) -> np.ndarray:
    """Return the weights of a layer as F x words x KH x KW of i32."""
    return as_words(_in_words(weight) if is_depthwise(op) else weight)


def is_depthwise(op: Any) -> bool:
    """Whether each filter has one channel of its own, and four of them read one word."""
    groups = groups_of(op)
    return bool(groups > 1 and op.input.type.shape[1] == op.result.type.shape[1] == groups and groups % WORD == 0)


def word_groups(op: Any) -> int:
    """Return the groups of filters that read words of their own."""
    return ceil_div(groups_of(op), WORD) if is_depthwise(op) else groups_of(op)


def words_read(op: Any) -> int:
    """Return the words that each filter reads at a place."""
    return 1 if is_depthwise(op) else ceil_div(op.input.type.shape[1] // groups_of(op), WORD)


def _in_words(weight: np.ndarray) -> np.ndarray:
    """Return F x 1 x KH x KW weights of a depthwise convolution as F x 4 x ..., zeros for the other channels of the
    word."""
    words = np.zeros((len(weight), WORD, *weight.shape[2:]), weight.dtype)
    filters = np.arange(len(weight))
    words[filters, filters % WORD] = weight[:, 0]
    return words


def unit_of(op: Any) -> int:
    """Return how many filters are stored together."""
    return 1 if Quantisation.of(op.result.type) is None else WORD


def padded_filters(op: Any) -> int:
    """Return the filters that are computed: there may be some without weights, to fill words of the result."""
    return ceil_div(op.result.type.shape[1], unit_of(op)) * unit_of(op)


def padded(array: np.ndarray, size: int) -> np.ndarray:
    """Return an array with zeros behind its first dimension."""
    return np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])


def as_words(weight: np.ndarray) -> np.ndarray:
    """Return F x C x ... weights of i8 as F x words x ... of i32: four neighbouring channels are one."""
    channels = ceil_div(weight.shape[1], WORD) * WORD
    fours = (
        padded(weight.swapaxes(0, 1), channels)
        .swapaxes(0, 1)
        .reshape(len(weight), channels // WORD, WORD, *weight.shape[2:])
    )
    words: np.ndarray = np.ascontiguousarray(np.moveaxis(fours, 2, -1)).view("<i4")[..., 0]
    return words


def residual_factor(op: Any) -> float:
    """Return what a quantised residual is multiplied with; 0 where there is none."""
    is_quantised = op.residual is not None and Quantisation.of(op.residual.type) is not None
    return float(operand_factor(op, op.residual)) if is_quantised else 0.0


def first_sums(op: Any, state: PassState) -> np.ndarray:
    """Return what the sums of a layer begin with, F of i32: bias, less all weights times the zero point."""
    given, weight = Quantisation.of(op.input.type), require_array(op, op.weight, "weight", state)
    assert given is not None, "a layer with scales has a quantised input"
    bias = 0 if op.bias is None else require_array(op, op.bias, "bias", state).astype(np.int64)
    sums = weight.reshape(len(weight), -1).sum(axis=1, dtype=np.int64)
    first: np.ndarray = (bias - given.zero_point * sums).astype(np.int32)
    return first


def own_role(role: str, array: np.ndarray) -> str:
    """Return what sets apart an array that is made of a layer's weights, and of more than them: layers may share
    weights that have inputs of different scales."""
    return f"{role}.{hashlib.sha256(array.tobytes()).hexdigest()[:16]}"
