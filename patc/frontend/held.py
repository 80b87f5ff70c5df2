"""Layers that torch-mlir does not know stay outside of its passes: what they read is returned meanwhile, and what they
make is given.

Front ends write `patc.recurrent` with the operands of `pattern.recurrent` and, as text, its attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import func

from patc.dialects.attributes import Activation
from patc.dialects.pattern import RecurrentOp
from patc.frontend.lowering import set_type
from patc.passes.ir.groups import sort_block

OPERANDS = ("input", "weight", "hidden", "bias", "cell", "peepholes", "projection", "lengths")
_NAMES = ("torch.patc.recurrent", "onnx.Recurrent")  # as the importers of torch-mlir write it


def describe_layer(mode: str, direction: str, activations: tuple[Activation, ...], clip: float | None = None) -> str:
    """Return the attributes of a recurrent layer as text."""
    listed = ", ".join(f"[{', '.join([repr(each.kind), *map(repr, each.constants)])}]" for each in activations)
    bound = "" if clip is None else f", clip = {clip!r} : f32"
    return f'{{activations = [{listed}], direction = "{direction}", mode = "{mode}"{bound}}}'.replace("'", '"')


@dataclass(frozen=True)
class HeldLayer:
    """A layer that was taken out of a function.

    Attributes:
        names: of its operands, among the last results of the function.
        attributes: as `describe_layer` writes them.
        results: how many of the function's last arguments it makes.
    """

    names: tuple[str, ...]
    attributes: str
    results: int
    location: ir.Location


def hold_layers(module: ir.Module) -> list[HeldLayer]:
    """Take such layers out of @main."""
    main = module.body.operations[0]
    block, held, read = main.entry_block, list[HeldLayer](), list[ir.Value]()
    for op in list(block.operations):
        if op.operation.name != "torch.operator" or op.attributes["name"].value not in _NAMES:
            continue
        text = op.attributes["torch.onnx.layer"] if "torch.onnx.layer" in op.attributes else _text(op.operands[-1])
        given = [(name, value) for name, value in zip(OPERANDS, op.operands, strict=False) if _is_tensor(value)]
        names = tuple(name for name, _ in given)
        held.append(HeldLayer(names, text.value, len(op.results), op.location))
        read += [value for _, value in given]
        for result in op.results:
            result.replace_all_uses_with(block.add_argument(result.type, op.location))
        op.operation.erase()
    if held:
        _set_results(main, [*_returned(main), *read])
    return held


def release_layers(module: ir.Module, held: Sequence[HeldLayer]) -> None:
    """Put layers back, as ops of patc, into the @main that they were taken out of."""
    if not held:
        return
    main = module.body.operations[0]
    block, returned = main.entry_block, len(_returned(main)) - sum(len(layer.names) for layer in held)
    first, argument = returned, len(block.arguments) - sum(layer.results for layer in held)
    kept = argument
    for layer in held:
        operands = dict(zip(layer.names, _returned(main)[first:], strict=False))
        arguments = list(block.arguments)[argument : argument + layer.results]
        with module.context, layer.location, ir.InsertionPoint.at_block_terminator(block):
            made = _release(operands, [each.type for each in arguments], ir.Attribute.parse(layer.attributes))
        for old, new in zip(arguments, made, strict=True):
            old.replace_all_uses_with(new)
        first, argument = first + len(layer.names), argument + layer.results
    for number in reversed(range(kept, len(block.arguments))):
        block.erase_argument(number)
    _set_results(main, _returned(main)[:returned])
    sort_block(block)


def _returned(main: Any) -> list[ir.Value]:
    return list(main.entry_block.operations[len(main.entry_block.operations) - 1].operands)


def _set_results(main: Any, values: Sequence[ir.Value]) -> None:
    """Let a function return other values."""
    block = main.entry_block
    old = block.operations[len(block.operations) - 1]
    with main.context, old.location, ir.InsertionPoint(old):
        func.ReturnOp(list(values))
    old.operation.erase()
    set_type(main)


def _release(operands: dict[str, ir.Value], types: Sequence[ir.Type], attributes: Any) -> list[ir.Value]:
    result, hidden, cell = types
    activations = [
        Activation(kind.value, tuple(constant.value for constant in constants)).to_attr()
        for kind, *constants in attributes["activations"]
    ]
    op = RecurrentOp(
        **operands,
        result=result,
        final_hidden=hidden,
        final_cell=cell if "cell" in operands else None,
        mode=attributes["mode"],
        direction=attributes["direction"],
        activations=ir.ArrayAttr.get(activations),
    )
    if "clip" in attributes:
        op.attributes["clip"] = attributes["clip"]
    return list(op.results) if op.final_cell is not None else [*op.results, op.final_hidden]  # it has that type then


def _text(value: ir.Value) -> Any:
    return value.owner.attributes["value"]


def _is_tensor(value: ir.Value) -> bool:
    return str(value.type).startswith("!torch.vtensor")
