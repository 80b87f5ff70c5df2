"""Layers that torch-mlir does not know stay outside of its passes: what they read is returned meanwhile, and what they
make is given.

Front ends write `patc.recurrent` with the operands of `pattern.recurrent` and, as text, its attributes; and
`patc.requantise`, the real numbers of what a tensor is as integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import func, tensor

from patc.dialects.attributes import Activation
from patc.dialects.pattern import RecurrentOp, RelayoutOp
from patc.dialects.quantised import Quantisation
from patc.frontend.lowering import set_type
from patc.passes.ir.elements import with_element
from patc.passes.ir.groups import sort_block

OPERANDS = ("input", "weight", "hidden", "bias", "cell", "peepholes", "projection", "lengths")


def describe_layer(mode: str, direction: str, activations: tuple[Activation, ...], clip: float | None = None) -> str:
    """Return the attributes of a recurrent layer as text."""
    listed = ", ".join(f"[{', '.join([repr(each.kind), *map(repr, each.constants)])}]" for each in activations)
    bound = "" if clip is None else f", clip = {clip!r} : f32"
    return f'{{activations = [{listed}], direction = "{direction}", mode = "{mode}"{bound}}}'.replace("'", '"')


def describe_integers(given: Quantisation) -> str:
    """Return the attributes of a `patc.requantise` as text."""
    storage = "si8" if given.signed else "ui8"
    return f"{{element = !pattern.quantised<{storage}, {given.scale:.9e} : f32, {given.zero_point} : i64>}}"


@dataclass(frozen=True)
class HeldLayer:
    """A layer that was taken out of a function.

    Attributes:
        build: builds it of its operands by name, the types of its results and its attributes.
        names: of its operands, among the last results of the function.
        attributes: as `describe_layer` and `describe_integers` write them.
        results: how many of the function's last arguments it makes.
    """

    build: Callable[[dict[str, ir.Value], Sequence[ir.Type], Any], list[ir.Value]]
    names: tuple[str, ...]
    attributes: str
    results: int
    location: ir.Location


def hold_layers(module: ir.Module) -> list[HeldLayer]:
    """Take such layers out of @main."""
    main = module.body.operations[0]
    block, held, read = main.entry_block, list[HeldLayer](), list[ir.Value]()
    for op in list(block.operations):
        build = _BUILT.get(op.attributes["name"].value) if op.operation.name == "torch.operator" else None
        if build is None:
            continue
        text = op.attributes["torch.onnx.layer"] if "torch.onnx.layer" in op.attributes else _text(op.operands[-1])
        given = [(name, value) for name, value in zip(OPERANDS, op.operands, strict=False) if _is_tensor(value)]
        names = tuple(name for name, _ in given)
        held.append(HeldLayer(build, names, text.value, len(op.results), op.location))
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
            made = layer.build(operands, [each.type for each in arguments], ir.Attribute.parse(layer.attributes))
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


def _recurrent(operands: dict[str, ir.Value], types: Sequence[ir.Type], attributes: Any) -> list[ir.Value]:
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


def _requantise(operands: dict[str, ir.Value], types: Sequence[ir.Type], attributes: Any) -> list[ir.Value]:
    """Build what makes integers and what makes real numbers of these; of planes as they are, of others as rows."""
    value, (made,) = operands["input"], types
    *outer, last = shape = list(made.shape)
    groups = [list(range(len(outer))), [len(outer)]]
    is_plain = len(shape) in (2, 4)
    if not is_plain:
        rows = ir.RankedTensorType.get([math.prod(outer), last], made.element_type)
        value = tensor.collapse_shape(rows, value, groups)
    integers = RelayoutOp(input=value, result=with_element(value.type, attributes["element"].value)).result
    real = RelayoutOp(input=integers, result=value.type).result
    return [real if is_plain else tensor.expand_shape(made, real, groups, [], shape)]


_BUILT = {  # by the names that the importers of torch-mlir write
    "torch.patc.recurrent": _recurrent,
    "onnx.Recurrent": _recurrent,
    "torch.patc.requantise": _requantise,
    "onnx.Requantise": _requantise,
}


def _text(value: ir.Value) -> Any:
    return value.owner.attributes["value"]


def _is_tensor(value: ir.Value) -> bool:
    return str(value.type).startswith("!torch.vtensor")
