"""The reference lowering: what a `pattern` module means, in plain linalg on tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch_mlir import ir

from patc.dialects.pattern import LayoutAttr
from patc.dialects.quantised import Quantisation
from patc.passes.base import Pass, PassState
from patc.passes.ir.constants import CONSTANTS
from patc.passes.ir.elements import with_element
from patc.passes.ir.functions import walk_ops
from patc.passes.layers.base import LayerKind
from patc.passes.layers.reference import replace_results
from patc.passes.layers.registry import kind_of


@dataclass(frozen=True)
class ConvertPatternToLinalg(Pass):
    """Decode `pattern` ops of any stage before specialise into linalg ops that compute the same numbers.

    Requires: the arrays of sparse layers are constants.
    Ensures: no `pattern` op but `pattern.parameter`, and no `#pattern.layout` in any type or signature. The
        arrays of a layer become one dense weight, in the parameter store if the first was there. Ops on f16 compute
        in f32 and round their result. Quantised tensors become tensors of i8, see docs/int8.md. Calls of outlined
        functions stay: those are linalg.

    Before:
        %y = "pattern.conv2d"(%x, %w, %b) {activation = "relu", pads = array<i64: 1, 1, 1, 1>, ...}
    After:
        %p = tensor.pad %x low[0, 0, 1, 1] high[0, 0, 1, 1] ...
        %i = linalg.broadcast ins(%b) outs(%e) dimensions = [0, 2, 3]
        %c = linalg.conv_2d_nchw_fchw ins(%p, %w) outs(%i)
        %y = linalg.generic ins(%c) { arith.maximumf }
    """

    name: ClassVar[str] = "convert-pattern-to-linalg"

    def run(self, module: ir.Module, state: PassState) -> None:
        with module.context:
            _retype(module, _without_layout)
            for kind, op in _layers(module):
                with op.location, ir.InsertionPoint(op):
                    computed = kind.reference(op, state)
                    if computed is None:
                        continue
                    replace_results(op, computed)
                _erase_with_dead_constants(op)
            _retype(module, _as_integers)
            _erase_casts(module)


def _layers(module: ir.Module) -> list[tuple[LayerKind, Any]]:
    """Return the ops to lower and their kinds, in the order of the text."""
    return [(kind, op) for op in walk_ops(module) if (kind := kind_of(op)) is not None]


def _erase_with_dead_constants(op: Any) -> None:
    operands = list(op.operation.operands)
    op.operation.erase()
    for value in operands:
        owner = value.owner
        if isinstance(owner, ir.Block):
            continue
        if owner.operation.name in CONSTANTS and not list(value.uses):
            owner.operation.erase()


def _retype(module: ir.Module, change: Callable[[ir.Type], ir.Type]) -> None:
    """Change the types of all values and function signatures."""
    for op in walk_ops(module):
        operation = op.operation
        blocks = [block for region in operation.regions for block in region.blocks]
        arguments = [argument for block in blocks for argument in block.arguments]
        for value in [*operation.results, *arguments]:
            value.set_type(change(value.type))
        if operation.name == "func.func":
            signature = operation.attributes["function_type"].value
            plain = [[change(t) for t in types] for types in (signature.inputs, signature.results)]
            operation.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(*plain))


def _as_integers(type_: ir.Type) -> ir.Type:
    """Return a quantised tensor as one of the integers that it has."""
    is_tensor = isinstance(type_, ir.RankedTensorType)
    if is_tensor and Quantisation.of(type_) is not None:
        return with_element(type_, ir.IntegerType.get_signless(8))
    return type_


def _erase_casts(module: ir.Module) -> None:
    """Let values stand for casts of them to what they are."""
    for op in walk_ops(module):
        is_cast = op.operation.name == "builtin.unrealized_conversion_cast"
        if is_cast and op.operands[0].type == op.results[0].type:
            op.results[0].replace_all_uses_with(op.operands[0])
            op.operation.erase()


def _without_layout(type_: ir.Type) -> ir.Type:
    if isinstance(type_, ir.RankedTensorType) and isinstance(type_.encoding, LayoutAttr):
        return ir.RankedTensorType.get(type_.shape, type_.element_type)
    return type_
