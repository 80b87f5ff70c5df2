"""Example inputs for each of several shapes that a model is compiled for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from patc.diagnostics import PatcError
from patc.frontend import ExampleInputs

# Shapes of the inputs, in order or by name.
Shapes: TypeAlias = list[tuple[int, ...]] | dict[str, tuple[int, ...]]
AnyShapes = TypeVar("AnyShapes", bound=Shapes)

_EXPECTED = "expected shapes of (1, 3, 320, 320) each, or for several inputs of {'x': (1, 3, 320, 320), ...}"


def entry_inputs(model: Any, example_inputs: ExampleInputs, shapes: Sequence[Any]) -> list[ExampleInputs]:
    """Return the example inputs, and for each further shape others like them; each shape once.

    Args:
        model: as for `patc.compile`. For files and programs shapes stand for inputs.
        example_inputs: None takes the first of the shapes, except for a torch.nn.Module.
        shapes: see `patc.compile`.

    Raises:
        PatcError: a shape is none, or goes with no input.
    """
    if isinstance(shapes, (str, Mapping)) or not isinstance(shapes, Sequence):
        raise PatcError(f"{_EXPECTED} in a list, got {type(shapes).__name__}")
    given = [_read(item) for item in shapes]
    if not given:
        return [example_inputs]
    if isinstance(model, (str, os.PathLike)) or not hasattr(model, "named_modules"):
        entries = [*([] if example_inputs is None else [shapes_of(example_inputs)]), *given]
        return list(_distinct([_merge(entries[0], item) for item in entries]))
    if example_inputs is None:
        raise PatcError("expected example inputs for a torch.nn.Module, found none")
    return _like_tensors(model, example_inputs, given)


def _merge(first: Shapes, item: Shapes) -> Shapes:
    """Return shapes by name, with those of the first entry for inputs that have none."""
    return {**first, **item} if isinstance(first, dict) and isinstance(item, dict) else item


def _read(item: Any) -> Shapes:
    """Return the shapes of one entry."""
    if isinstance(item, Mapping):
        return {str(name): _shape(shape) for name, shape in item.items()}
    if not isinstance(item, Sequence) or isinstance(item, str):
        raise PatcError(f"{_EXPECTED}, got {type(item).__name__}")
    return [_shape(item)] if all(isinstance(size, int) for size in item) else [_shape(shape) for shape in item]


def _shape(value: Any) -> tuple[int, ...]:
    sizes: Any = getattr(value, "shape", value)
    if isinstance(sizes, Sequence) and all(type(size) is int and size > 0 for size in sizes):
        return tuple(sizes)
    raise PatcError(f"{_EXPECTED}, got {sizes!r}")


def shapes_of(example_inputs: Any) -> Shapes:
    """Return the shapes of example inputs, tensors or arrays or shapes already."""
    if isinstance(example_inputs, Mapping):
        return {name: tuple(getattr(value, "shape", value)) for name, value in example_inputs.items()}
    return [tuple(getattr(value, "shape", value)) for value in example_inputs]


def _distinct(entries: Sequence[AnyShapes]) -> list[AnyShapes]:
    return [item for place, item in enumerate(entries) if item not in entries[:place]]


def _like_tensors(model: Any, example_inputs: Any, given: Sequence[Shapes]) -> list[ExampleInputs]:
    """Return example inputs of a module: tensors of zeros, of other shapes and the same element types."""
    from patc.frontend.modules import argument_names, check_inputs

    positional, named = check_inputs(model, example_inputs)
    tensors = named or dict(zip(argument_names(model, len(positional)), positional, strict=True))
    first = {name: tuple(value.shape) for name, value in tensors.items()}
    entries = [first]
    for item in given:
        if len(item) > len(tensors) or (isinstance(item, list) and len(item) < len(tensors)):
            raise PatcError(f"expected shapes for the inputs {', '.join(tensors)}, got {len(item)}")
        by_name = item if isinstance(item, dict) else dict(zip(tensors, item, strict=True))
        unknown = [name for name in by_name if name not in tensors]
        if unknown:
            raise PatcError(f"expected shapes for the inputs {', '.join(tensors)}, got one for '{unknown[0]}'")
        entries.append({**first, **by_name})
    inputs: list[ExampleInputs] = [example_inputs]
    for entry in _distinct(entries)[1:]:
        made = {name: tensors[name].new_zeros(shape) for name, shape in entry.items()}
        inputs.append(made if named else tuple(made.values()))
    return inputs
