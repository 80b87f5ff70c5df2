"""Programs of a part of the way to code, on this machine, that return what layers make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.backends.registry import find_backend
from patc.codegen.program import find_main
from patc.execution import compile_module
from patc.passes.base import PassState
from patc.passes.ir.functions import top_level_ops
from patc.samples import Sample


def returning(
    module: ir.Module, values: Sequence[ir.Value], state: PassState, stage: str
) -> Callable[[Sample], list[np.ndarray]]:
    """Return a function that computes tensors of a module's @main, which returns these alone from now on.

    Args:
        stage: the last that the module went through.
    """
    function = find_main(module)
    ops = list(top_level_ops(function))
    with ir.InsertionPoint(ops[-1]), function.location:
        ir.Operation.create("func.return", operands=list(values))
    ops[-1].operation.erase()
    type_ = ir.FunctionType.get(function.attributes["function_type"].value.inputs, [value.type for value in values])
    function.attributes["function_type"] = ir.TypeAttr.get(type_)
    if "res_attrs" in function.attributes:
        del function.attributes["res_attrs"]
    program = compile_module(module, state.parameters, target="host", stage=stage)
    model: Any = find_backend(program.backend).load(program)
    return lambda sample: [np.asarray(array) for array in model(*sample)]
