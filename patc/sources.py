"""Models of any accepted kind, as modules that are ready for the passes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch_mlir import ir

from patc.codegen.program import find_main
from patc.diagnostics import PatcError
from patc.frontend import ExampleInputs, import_model
from patc.frontend.mlir_shapes import argument_name
from patc.frontend.shapes import shapes_of
from patc.frontend.structure import describe_structure
from patc.locks import compiling
from patc.numerics import MLIR_TYPES
from patc.parameters import ParameterStore
from patc.passes.ir.modules import read_signature
from patc.runtime.program import ENTRY, TensorInfo

if TYPE_CHECKING:
    from patc.frontend.torch import ImportedModel


@dataclass(frozen=True)
class Source:
    """A model that is ready for the passes.

    Attributes:
        module: @main of tensors, linalg or pattern ops.
        parameters: the arrays behind its `pattern.parameter` ops.
        inputs, outputs: arguments and results of @main.
        structure: how the outputs nest, as `patc.runtime.model.nest` reads it.
        dynamic_batch: see `patc.runtime.program.Program`.
    """

    module: ir.Module
    parameters: ParameterStore
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    structure: Any
    dynamic_batch: bool = False


@compiling()
def import_source(model: Any, example_inputs: ExampleInputs, context: ir.Context) -> Source:
    """Return a model of any accepted kind as a module. See `compile_model` for the arguments.

    Raises:
        PatcError: the model is of another kind, its file cannot be read, or patc cannot compile it.
    """
    read = _READERS.get(Path(model).suffix.lower()) if isinstance(model, (str, os.PathLike)) else None
    if read is not None:
        source = read(Path(model), example_inputs, context)
        _require_elements(source)
        return source
    source = _torch_source(import_model(model, example_inputs, context))
    _require_elements(source)
    return source


def digest_sources(sources: Iterable[Source]) -> str:
    """Return the SHA-256 of all that sources hold: text with the places of its code, weights, names and structure."""
    digest = hashlib.sha256()
    for source in sources:
        text = source.module.operation.get_asm(enable_debug_info=True)
        outside = (source.inputs, source.outputs, source.structure, source.dynamic_batch)
        digest.update(f"{text}\0{outside!r}\0".encode())
        for name in source.parameters:
            array = source.parameters[name]
            digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _torch_source(imported: ImportedModel) -> Source:
    return Source(
        imported.module,
        imported.parameters,
        tuple(TensorInfo(spec.name, spec.shape, spec.dtype) for spec in imported.inputs),
        tuple(TensorInfo(spec.name, spec.shape, spec.dtype) for spec in imported.outputs),
        describe_structure(imported.structure, imported.constants),
    )


def _require_elements(source: Source) -> None:
    for info in (*source.inputs, *source.outputs):
        if 0 in info.shape:
            raise PatcError(f"expected tensors with elements, got {info}")


def module_source(module: ir.Module, parameters: ParameterStore, place: str | None = None) -> Source:
    """Return a module of any stage as a source: its outputs are a tuple of tensors, or one tensor.

    Args:
        place: the name of its file.

    Raises:
        PatcError: there is no @main of tensors, or none that says which tensors its memory was.
    """
    main = find_main(module)
    if main is None:
        raise PatcError(f"expected a function @{ENTRY} with a body, got none", place)
    type_ = read_signature(module, main)
    inputs = tuple(_tensor_info(argument_name(i), part, main) for i, part in enumerate(type_.inputs))
    outputs = tuple(_tensor_info(f"result{i}", part, main) for i, part in enumerate(type_.results))
    leaves = [{"leaf": i} for i in range(len(outputs))]
    return Source(module, parameters, inputs, outputs, leaves[0] if len(leaves) == 1 else {"tuple": leaves})


def _read_mlir(path: Path, example_inputs: ExampleInputs, context: ir.Context) -> Source:
    from patc.frontend.mlir import import_mlir

    module, parameters = import_mlir(path, None if example_inputs is None else shapes_of(example_inputs), context)
    source = module_source(module, parameters, str(path))
    if not source.outputs:
        raise PatcError(f"expected @{ENTRY} to return tensors, got nothing", find_main(module).location)
    _require_shapes(source, example_inputs)
    return source


def _read_onnx(path: Path, example_inputs: ExampleInputs, context: ir.Context) -> Source:
    from patc.frontend.onnx import import_onnx

    found = import_onnx(path, example_inputs, context)
    source = module_source(found.module, found.parameters, str(path))
    return replace(source, inputs=found.inputs, outputs=found.outputs)


def _read_ncnn(path: Path, example_inputs: ExampleInputs, context: ir.Context) -> Source:
    from patc.frontend.ncnn import load_ncnn, output_names

    net, inputs = load_ncnn(path, None if example_inputs is None else shapes_of(example_inputs))
    source = _torch_source(import_model(net, inputs, context))
    names = zip(source.outputs, output_names(net), strict=True)
    return replace(source, outputs=tuple(replace(info, name=name) for info, name in names))


# What reads a file, by the end of its name; torch's are left to the front end for torch.
_READERS = {".mlir": _read_mlir, ".onnx": _read_onnx, ".param": _read_ncnn}


def _tensor_info(name: str, type_: ir.Type, main: Any) -> TensorInfo:
    is_static = isinstance(type_, ir.RankedTensorType) and type_.has_static_shape
    if not is_static or str(type_.element_type) not in MLIR_TYPES:
        expected = f"expected @{ENTRY} to take and return tensors of static shape, of {', '.join(MLIR_TYPES)}"
        raise PatcError(f"{expected}, got {type_}", main.location)
    return TensorInfo(name, tuple(type_.shape), MLIR_TYPES[str(type_.element_type)].dtype)


def _require_shapes(source: Source, example_inputs: ExampleInputs) -> None:
    if example_inputs is None:
        return
    given, known = shapes_of(example_inputs), {info.name: info.shape for info in source.inputs}
    by_name = given if isinstance(given, dict) else dict(zip(known, given, strict=False))
    if len(by_name) != len(given) or any(known.get(name) != shape for name, shape in by_name.items()):
        wanted = ", ".join(map(str, source.inputs))
        found = {name: list(shape) for name, shape in by_name.items()} if given is by_name else [*map(list, given)]
        raise PatcError(f"expected example inputs like those of @{ENTRY} ({wanted}), got shapes {found}")
