"""How the outputs of a model nest, in the form that is saved with it: see `patc.runtime.model.nest`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from patc.diagnostics import PatcError


@dataclass(frozen=True)
class _Leaf:
    """A leaf of the outputs, as an object that no container is."""

    entry: dict[str, Any]


def describe_structure(structure: Any, constants: dict[int, Any]) -> Any:
    """Return a tree specification of torch in that form.

    Args:
        structure: of all leaves.
        constants: the values of leaves that are no tensors, by their numbers.

    Raises:
        PatcError: a container that is no tuple, list or dict.
    """
    from torch.utils import _pytree as pytree

    results = iter(range(structure.num_leaves))
    leaves = [
        _Leaf(_describe_constant(constants[i]) if i in constants else {"leaf": next(results)})
        for i in range(structure.num_leaves)
    ]
    return _describe(pytree.tree_unflatten(leaves, structure))


def _describe_constant(value: Any) -> dict[str, Any]:
    # JSON has no numbers for these.
    is_odd = isinstance(value, float) and not math.isfinite(value)
    return {"float": str(value)} if is_odd else {"constant": value}


def _describe(value: Any) -> dict[str, Any]:
    if isinstance(value, _Leaf):
        return value.entry
    if isinstance(value, dict) and all(_is_plain(key) for key in value):
        return {"dict": [[key, _describe(part)] for key, part in value.items()]}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = [_describe(part) for part in value]
        return {"namedtuple": [type(value).__name__, list(value._fields), parts]}
    if isinstance(value, (tuple, list)):
        return {"tuple" if isinstance(value, tuple) else "list": [_describe(part) for part in value]}
    found = type(value).__name__
    raise PatcError(f"expected a model that returns tensors in tuples, lists and dicts, got {found}")


def _is_plain(key: Any) -> bool:
    """Return whether a key of a dict comes back from a file as it was."""
    return key is None or (isinstance(key, (str, int, bool)) and json.loads(json.dumps(key)) == key)
