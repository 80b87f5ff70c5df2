"""Whether a model computes each image of a batch on its own, so that code for some images can be called for any."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from patc.diagnostics import PatcError, first_line
from patc.frontend import ExampleInputs
from patc.frontend.modules import check_inputs, check_module
from patc.frontend.pt2 import open_shapes
from patc.frontend.shapes import shapes_of
from patc.frontend.torch import input_specs, load_program
from patc.frontend.tracing import copy_for_tracing
from patc.images_alone import MOST_DIFFERENT, TOLERANCE


def any_batch(model: Any, example_inputs: ExampleInputs) -> tuple[Any, Any]:
    """Return a module and example inputs to compile for blocks of as many images as these have.

    The module is run on two other images, together and each alone: all must be the same. A file that leaves the batch
    open comes back as it is, with shapes: what is compiled of it has to be run for that.

    Args:
        model: a torch.nn.Module in eval mode, or a program, or the path of its .pt2 file, exported so that any batch
            goes through, or of an .onnx or .mlir file that leaves the batch open, or of a .param file of ncnn.
        example_inputs: as for `patc.compile`, each with images along its first dimension.

    Raises:
        PatcError: the model is of another kind, or its batch cannot be taken apart.
    """
    file = Path(model) if isinstance(model, (str, os.PathLike)) else None
    if file is not None and file.suffix.lower() == ".onnx":
        from patc.frontend import onnx

        return model, onnx.open_shapes(file, example_inputs) or None
    if file is not None and file.suffix.lower() == ".mlir":
        from patc.frontend import mlir

        return model, mlir.open_shapes(file, None if example_inputs is None else shapes_of(example_inputs)) or None
    if file is not None and file.suffix.lower() == ".pt2":
        shapes = open_shapes(file, None if example_inputs is None else shapes_of(example_inputs))
        if shapes:
            return model, shapes
        model = load_program(file)
    if file is not None and file.suffix.lower() == ".param":
        from patc.frontend.ncnn import load_ncnn

        model, example_inputs = load_ncnn(file, None if example_inputs is None else shapes_of(example_inputs))
    if isinstance(model, ExportedProgram):
        if example_inputs is None:
            example_inputs = model.example_inputs[0] if model.example_inputs else _made_inputs(model)
        model = model.module(check_guards=False)  # of the batch that it was exported with
    if not isinstance(model, torch.nn.Module):
        found = type(model).__name__ if file is None else f"a {file.suffix} file"
        expected = "expected a torch.nn.Module, an exported program or a file of a model together with dynamic_batch"
        raise PatcError(f"{expected}, got {found}")
    if example_inputs is None:
        raise PatcError("expected example inputs together with dynamic_batch, found none")
    positional, named = check_inputs(model, example_inputs)
    check_module(model)
    names = list(named) or [str(i) for i in range(len(positional))]
    _require_images(names, [*positional, *named.values()])
    _compare(model, positional, named)
    return model, example_inputs


def _made_inputs(program: ExportedProgram) -> list[torch.Tensor]:
    """Return zeros as inputs of a program; of integers and truth values zeros and ones."""
    specs = [(spec.shape, getattr(torch, spec.dtype)) for spec in input_specs(program)]
    return [
        torch.zeros(shape, dtype=dtype)
        if dtype.is_floating_point
        else (torch.arange(math.prod(shape)) % 2).reshape(shape).to(dtype)
        for shape, dtype in specs
    ]


def _require_images(names: Sequence[str], values: Sequence[torch.Tensor]) -> None:
    if not values or any(value.dim() == 0 or value.shape[0] != values[0].shape[0] for value in values):
        found = ", ".join(f"'{name}' {list(value.shape)}" for name, value in zip(names, values, strict=True))
        raise PatcError(f"expected inputs with the batch as first dimension for dynamic_batch, got {found or 'none'}")


def _compare(model: torch.nn.Module, positional: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    leaves, structure = pytree.tree_flatten((positional, named))
    pairs = [_two_images(value, generator) for value in leaves]
    twin = copy_for_tracing(model)

    def run(images: slice) -> list[Any]:
        args, kwargs = pytree.tree_unflatten([pair[images].clone() for pair in pairs], structure)
        return pytree.tree_leaves(twin(*args, **kwargs))

    try:
        with torch.no_grad():
            together, alone = run(slice(0, 2)), [run(slice(i, i + 1)) for i in range(2)]
    except Exception as error:  # whatever the model's own code raises
        raise PatcError(f"expected a model of any batch size for dynamic_batch: {first_line(error)}") from error
    for place, values in enumerate(zip(together, *alone, strict=True)):
        if isinstance(values[0], torch.Tensor):
            _require_alone(place, *values)
        elif values[0] != values[1]:
            raise PatcError(f"expected output {place} of any batch size for dynamic_batch, found {values[0]}")


def _two_images(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    shape = (2, *value.shape[1:])
    if value.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(value.dtype)
    low, high = (0, 1) if value.dtype == torch.bool else (int(value.min()), int(value.max()))
    return torch.randint(low, high + 1, shape, generator=generator).to(value.dtype)


def _require_alone(place: int, both: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> None:
    if first.dim() == 0 or first.shape[0] != 1 or both.shape != (2, *first.shape[1:]):
        found = f"shape {list(first.shape)} for one image and {list(both.shape)} for two"
        raise PatcError(f"expected output {place} with the batch as first dimension for dynamic_batch, found {found}")
    alone = torch.cat([first, second])
    if both.dtype.is_floating_point:
        scale = float(alone.abs().nan_to_num(0, 0, 0).max())
        same = torch.allclose(both, alone, rtol=0, atol=TOLERANCE * scale, equal_nan=True)
    else:
        same = float((both != alone).double().mean()) <= MOST_DIFFERENT
    if not same:
        raise PatcError(
            f"expected images that are computed alone for dynamic_batch, found that output {place} mixes them"
        )
