"""Example inputs for each of several shapes that a model is compiled for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from patc.diagnostics import PatcError
from patc.frontend import ExampleInputs

# Shapes of the inputs, in order or by name.
Shapes: TypeAlias = list[tuple[int, ...]] | dict[str, tuple[int, ...]]
BLOCK = 16  # images that are computed at once where the batch is dynamic and the example has one
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
    return [example_inputs, *inputs_of_shapes(model, example_inputs, given, but_its_own=True)]


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
        return {name: _sizes(value) for name, value in example_inputs.items()}
    return [_sizes(value) for value in example_inputs]


def _sizes(value: Any) -> tuple[int, ...]:
    sizes: Any = getattr(value, "shape", value)
    return tuple(sizes)


def _distinct(entries: Sequence[AnyShapes]) -> list[AnyShapes]:
    return [item for place, item in enumerate(entries) if item not in entries[:place]]


def inputs_of_shapes(
    model: Any, example_inputs: Any, given: Sequence[Shapes], but_its_own: bool = False
) -> list[ExampleInputs]:
    """Return inputs of a torch.nn.Module of some shapes, each once: zeros, of the element types of its example inputs.

    Args:
        but_its_own: leave out the shapes of the example inputs.

    Raises:
        PatcError: a shape goes with no input.
    """
    from patc.frontend.modules import argument_names, check_inputs

    positional, named = check_inputs(model, example_inputs)
    tensors = named or dict(zip(argument_names(model, len(positional)), positional, strict=True))
    first = {name: tuple(value.shape) for name, value in tensors.items()}
    entries = [first]
    for item in given:
        by_name = item if isinstance(item, dict) else dict(zip(tensors, item, strict=False))
        unknown = [name for name in by_name if name not in tensors]
        if unknown or (isinstance(item, list) and len(item) != len(tensors)):
            found = f"one for '{unknown[0]}'" if unknown else str(len(item))
            raise PatcError(f"expected shapes for the inputs {', '.join(tensors)}, got {found}")
        entries.append({**first, **by_name})
    wanted = _distinct(entries)[1:] if but_its_own else _distinct(entries[1:])
    made = [{name: tensors[name].new_zeros(shape) for name, shape in entry.items()} for entry in wanted]
    return [entry if named else tuple(entry.values()) for entry in made]


def with_blocks(entries: Sequence[Any]) -> list[ExampleInputs]:
    """Return the inputs of some shapes for a dynamic batch: of each the batches that are given, one image, and `BLOCK`
    where there are no others. Where sizes are not known they come back as they are: the import says so."""
    if None in entries:
        return list(entries)
    groups: dict[Any, list[Any]] = {}
    for entry in entries:
        shapes = [shape[1:] for shape in _shapes_in(entry)]
        groups.setdefault(tuple(shapes), []).append(entry)
    found: list[ExampleInputs] = []
    for first, *others in groups.values():
        given = dict.fromkeys(_shapes_in(entry)[0][0] for entry in (first, *others))
        sizes = dict.fromkeys((*given, 1) if max(given) > 1 else (1, BLOCK))
        found += [_of_batch(first, size) for size in sizes]
    return found


def _shapes_in(entry: Any) -> list[tuple[int, ...]]:
    shapes = shapes_of(entry)
    return list(shapes.values()) if isinstance(shapes, dict) else shapes


def _of_batch(entry: Any, batch: int) -> ExampleInputs:
    """Return inputs, or their shapes, with another batch."""
    if isinstance(entry, Mapping):
        return {name: _resize(value, batch) for name, value in entry.items()}
    return tuple(_resize(value, batch) for value in entry)


def _resize(value: Any, batch: int) -> Any:
    if not hasattr(value, "shape"):
        return (batch, *value[1:])
    return value if value.shape[0] == batch else value[:1].repeat(batch, *[1] * (value.dim() - 1))
