"""From the torch dialect of torch-mlir to linalg, and from arguments to parameters: what all front ends end with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_mlir import ir, passmanager

from patc.diagnostics import PatcError, describe_location, first_line
from patc.dialects.pattern import ParameterOp
from patc.frontend.pads import keep_apart
from patc.frontend.places import count_nan

TO_LINALG = "torch-backend-to-linalg-on-tensors-backend-pipeline{allow-non-finites=true}"


def run_torch_passes(module: ir.Module, passes: Sequence[str]) -> None:
    """Run passes of torch-mlir on a module.

    Raises:
        PatcError: one of them failed, at the first place that it named.
    """
    errors: list[tuple[str, Any]] = []

    def collect(diagnostic: Any) -> bool:
        if diagnostic.severity == ir.DiagnosticSeverity.ERROR:
            errors.append((diagnostic.message, describe_location(diagnostic.location)))
        return True

    context = module.context
    # Some torch-mlir passes report an error and go on; without this the bindings would abort the process.
    before, context.emit_error_diagnostics = context.emit_error_diagnostics, True
    handler = context.attach_diagnostic_handler(collect)
    try:
        with context:
            for each in passes:
                if each == TO_LINALG:
                    keep_apart(module)
                passmanager.PassManager.parse(f"builtin.module({each})").run(module.operation)
    except ir.MLIRError as error:
        message, place = errors[0] if errors else (first_line(error), "")
        raise PatcError(f"torch-mlir cannot lower the model: {message}", place) from error
    finally:
        handler.detach()
        context.emit_error_diagnostics = before
    with context:
        count_nan(module)


def name_parameters(module: ir.Module, names: Sequence[str], inputs: int) -> list[str]:
    """Replace the arguments of @main after the first `inputs` by `pattern.parameter` ops; return the names in use."""
    main = module.body.operations[0]
    block = main.entry_block
    weights = zip(list(block.arguments)[inputs:], names, strict=True)
    used = [(argument, name) for argument, name in weights if next(iter(argument.uses), None) is not None]
    with ir.InsertionPoint.at_block_begin(block), module.context:
        for argument, name in used:
            parameter = ParameterOp(result=argument.type, name=ir.StringAttr.get(name), loc=ir.Location.name(name))
            argument.replace_all_uses_with(parameter.result)
    for index in reversed(range(inputs, len(block.arguments))):
        block.erase_argument(index)
    set_type(main)
    return [name for _, name in used]


def set_type(function: Any) -> None:
    """Give a function the type that its arguments and what it returns have."""
    block = function.entry_block
    returned = block.operations[len(block.operations) - 1].operands
    inputs, results = ([value.type for value in values] for values in (block.arguments, returned))
    type_ = ir.FunctionType.get(inputs, results, context=function.context)
    function.attributes["function_type"] = ir.TypeAttr.get(type_, context=function.context)
