"""Parts of a module's @main as modules of their own: the layers between some values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.codegen.program import find_main
from patc.diagnostics import describe_origin, layer_name
from patc.dialects.quantised import Quantisation
from patc.parameters import ParameterStore
from patc.passes.ir.constants import CONSTANTS
from patc.passes.ir.functions import OUTLINED, RESHAPES, describe_call, find_callee
from patc.passes.ir.modules import clone_module

# What hands values on, or makes some of nothing.
_SILENT = (*CONSTANTS, *RESHAPES, "tensor.empty", "tensor.cast", "linalg.fill")
_PURE = ("arith", "math", "linalg", "pattern", "tensor", "tm_tensor", "scf")


@dataclass(frozen=True)
class Case:
    """What can be run: a module on tensors with @main, its parameters, and an array for each argument."""

    module: ir.Module
    parameters: ParameterStore
    inputs: Sequence[np.ndarray]

    def clone(self) -> Case:
        """Return a copy that passes may change; the arrays are the same."""
        return Case(clone_module(self.module), self.parameters.copy(), self.inputs)


@dataclass(frozen=True)
class Place:
    """A value of @main: a result of its op number `op`, or where that is -1 an argument."""

    op: int
    number: int

    def find(self, module: ir.Module) -> ir.Value:
        """Return the value in a module."""
        block = _body(module)
        return block.arguments[self.number] if self.op < 0 else block.operations[self.op].results[self.number]


def body_ops(module: ir.Module) -> list[Any]:
    """Return the ops of @main."""
    return list(_body(module).operations)


def steps(module: ir.Module) -> list[int]:
    """Return the numbers of the ops that compute tensors from others: layers, and whatever linalg there is.

    What an op makes on the grid of integers is no value that a function takes or returns: it counts for the op that
    makes numbers of it.
    """
    return [
        number
        for number, op in enumerate(body_ops(module))
        if op.operation.name not in _SILENT
        and any(isinstance(each.type, ir.RankedTensorType) for each in op.results)
        and all(Quantisation.of(each.type) is None for each in op.results)
    ]


def results_of(module: ir.Module, numbers: Sequence[int]) -> list[Place]:
    """Return the results of some ops."""
    ops = body_ops(module)
    return [Place(number, place) for number in numbers for place in range(len(ops[number].results))]


def returned(module: ir.Module) -> list[Place]:
    """Return what @main returns."""
    places = {value: place for place, value in values(module)}
    return [places[value] for value in body_ops(module)[-1].operands]


def values(module: ir.Module) -> Iterator[tuple[Place, ir.Value]]:
    """Yield all values of @main."""
    block = _body(module)
    yield from ((Place(-1, number), value) for number, value in enumerate(block.arguments))
    for number, op in enumerate(block.operations):
        yield from ((Place(number, place), value) for place, value in enumerate(op.results))


def short_name(op: Any) -> str:
    """Return the name of an op's layer, or else what it stands for, where it is from, or the op's own name."""
    named = layer_name(op.location) or ", ".join(describe_call(op)) or describe_origin(op.location)
    return named or op.operation.name


def users(module: ir.Module) -> dict[int, set[int]]:
    """Return for each step those that read what it computes, through whatever is no step."""
    ops = body_ops(module)
    numbers, known = {op.operation: number for number, op in enumerate(ops)}, set(steps(module))
    found: dict[int, set[int]] = {}
    for number in reversed(range(len(ops))):
        readers: set[int] = set()
        for result in ops[number].results:
            for use in result.uses:
                owner = use.owner.operation
                while owner not in numbers:
                    owner = owner.parent.operation
                reader = numbers[owner]
                readers |= {reader} if reader in known else found[reader]
        found[number] = readers
    return {number: found[number] for number in known}


def makers(module: ir.Module, place: Place) -> set[int]:
    """Return the steps that make a value: one, or those that a reshape or the like hands it on from."""
    known = set(steps(module))
    if place.op < 0 or place.op in known:
        return {place.op} & known
    places = {value: each for each, value in values(module)}
    operands = body_ops(module)[place.op].operands
    return {number for value in operands for number in makers(module, places[value])}


def cut(module: ir.Module, outputs: Sequence[Place], given: Sequence[Place]) -> tuple[ir.Module, list[Place]]:
    """Return a copy in which @main returns some values, and takes others as arguments instead of computing them.

    Returns:
        The module, and what its arguments stand for: arguments and given values, those that are read.
    """
    work = clone_module(module)
    main = find_main(work)
    block = main.regions[0].blocks[0]
    with work.context, ir.Location.unknown():
        wanted = [place.find(work) for place in outputs]
        stands_for = [Place(-1, number) for number in range(len(block.arguments))]
        for place in given:
            value = place.find(work)
            argument = block.add_argument(value.type, main.location)
            value.replace_all_uses_with(argument)
            stands_for.append(place)
        terminator = block.operations[len(block.operations) - 1]
        with ir.InsertionPoint(terminator):
            ir.Operation.create("func.return", operands=wanted)
        terminator.operation.erase()
        _erase_unused(block)
        for number in reversed(range(len(stands_for))):
            if next(iter(block.arguments[number].uses), None) is None:
                block.erase_argument(number)
                del stands_for[number]
        set_signature(main)
        _erase_uncalled(work)
    return work, stands_for


def set_signature(main: Any) -> None:
    """Give a function the type that its body has."""
    block = main.regions[0].blocks[0]
    arguments = [argument.type for argument in block.arguments]
    results = [value.type for value in block.operations[len(block.operations) - 1].operands]
    main.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(arguments, results))
    for name in ("arg_attrs", "res_attrs"):
        if name in main.attributes:
            del main.attributes[name]


def _erase_unused(block: ir.Block) -> None:
    """Erase what computes nothing that is returned; calls of outlined functions have no effect either."""
    for op in reversed(list(block.operations)):
        is_read = any(next(iter(result.uses), None) is not None for result in op.results)
        is_call = op.operation.name == "func.call" and find_callee(op) is not None
        if not is_read and (is_call or op.operation.name.split(".")[0] in _PURE):
            op.operation.erase()


def _erase_uncalled(module: ir.Module) -> None:
    called = {op.attributes["callee"].value for op in body_ops(module) if op.operation.name == "func.call"}
    for op in list(module.body.operations):
        if OUTLINED in op.attributes and op.attributes["sym_name"].value not in called:
            op.operation.erase()


def _body(module: ir.Module) -> ir.Block:
    return find_main(module).regions[0].blocks[0]
