"""Elementwise linalg to additions and activations."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir

from patc.dialects.pattern import AddOp
from patc.passes.base import PassState
from patc.passes.raising.activations import activate
from patc.passes.raising.elementwise import read_elementwise


def raise_add(op: Any, state: PassState) -> ir.Value | None:
    """Raise the sum of two tensors."""
    meaning = read_elementwise(op, state)
    if meaning is None or meaning.divides or meaning.channel_terms or len(meaning.terms) != 2:
        return None
    lhs, rhs = meaning.terms
    return AddOp(lhs=lhs, rhs=rhs, result=op.result.type, activation=meaning.activation.to_attr()).result


def raise_activation(op: Any, state: PassState) -> ir.Value | None:
    """Raise what clamps one tensor; remove what leaves it as it is."""
    meaning = read_elementwise(op, state)
    if meaning is None or meaning.divides or meaning.channel_terms or len(meaning.terms) != 1:
        return None
    return activate(meaning.terms[0], meaning.activation)
