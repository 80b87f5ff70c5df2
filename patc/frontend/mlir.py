"""`.mlir` files of any stage, of linalg or of torch-mlir's own ops, as modules of static shapes."""

from __future__ import annotations

from pathlib import Path

from torch_mlir import ir

from patc.codegen.program import find_main
from patc.context import make_context
from patc.frontend.mlir_shapes import open_batch, set_shapes
from patc.frontend.shapes import Shapes
from patc.frontend.tensor_pads import keep_tensors_apart
from patc.frontend.unsupported import is_torch, lower_to_linalg
from patc.mlir_files import read_module
from patc.mlir_resources import take_resources
from patc.parameters import ParameterStore


def import_mlir(path: Path, shapes: Shapes | None, context: ir.Context) -> tuple[ir.Module, ParameterStore]:
    """Return the module of a file and the arrays behind its `pattern.parameter` ops.

    Args:
        shapes: of the arguments of @main, in order or by name, where the file leaves sizes open.

    Raises:
        PatcError: the file is no valid MLIR, has ops that torch-mlir cannot lower, or sizes that stay unknown.
    """
    module, parameters = _read(path, context)
    set_shapes(module, shapes, str(path))
    return module, parameters


def open_shapes(path: Path, given: Shapes | None) -> dict[str, tuple[int, ...]]:
    """Return shapes of a file's inputs for any batch; see `patc.frontend.mlir_shapes.open_batch`."""
    module, _ = _read(path, make_context())
    main = find_main(module)
    return {} if main is None else open_batch(main, given, str(path))


def _read(path: Path, context: ir.Context) -> tuple[ir.Module, ParameterStore]:
    module, parameters = read_module(path, context)
    if is_torch(module):
        lower_to_linalg(module)
        take_resources(module, parameters)
    else:
        keep_tensors_apart(module)
    return module, parameters
