"""linalg on tensors to the `pattern` dialect: one op a layer, with its epilogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch_mlir import ir

from patc.diagnostics import PatcError, describe_location
from patc.passes.base import Pass, PassState
from patc.passes.ir.functions import erase_dead
from patc.passes.layers.base import Raiser
from patc.passes.layers.registry import kinds
from patc.passes.raising.epilogue import fuse_epilogues, raise_bias
from patc.passes.raising.linalg_layers import flat_like, reshape_sources

_RESHAPES = ("tensor.collapse_shape", "tensor.expand_shape")


@dataclass(frozen=True)
class PatternRaise(Pass):
    """Raise linalg on tensors to `pattern` ops, one a layer.

    Bias, residual addition and relu or clamp go into the convolution or linear layer before them. A residual
    that two convolutions could take goes to the later one; a sum that none can take becomes `pattern.add`, an
    activation that no layer can take `pattern.activate`. Flattening stays `tensor.collapse_shape`.

    Requires: f32 tensors of static shape, NCHW; batch norm folded.
    Ensures: functions hold `pattern` ops, constants and flattening `tensor.collapse_shape` only; each op has
        the location of the layer it came from. A second run changes nothing.

    Before:
        %p = tensor.pad %x low[0, 0, 1, 1] high[0, 0, 1, 1] ...
        %i = linalg.broadcast ins(%b) outs(%e) dimensions = [0, 2, 3]
        %c = linalg.conv_2d_nchw_fchw ins(%p, %w) outs(%i)
        %s = linalg.generic ins(%c, %skip) { arith.addf }
        %y = linalg.generic ins(%s) { arith.cmpf ugt, arith.select }
    After:
        %y = "pattern.conv2d"(%x, %w, %b, %skip) {activation = "relu", pads = array<i64: 1, 1, 1, 1>, ...}
    """

    name: ClassVar[str] = "pattern-raise"

    def run(self, module: ir.Module, state: PassState) -> None:
        functions = [op for op in module.body.operations if op.operation.name == "func.func"]
        functions = [function for function in functions if not function.is_external]
        raisers, late_raisers = (_collect_raisers(is_late) for is_late in (False, True))
        with module.context:
            for function in functions:
                _raise_layers(function.entry_block, state, raisers)
                erase_dead(function.entry_block)  # dead users would keep values from being fused
                _raise_layers(function.entry_block, state, late_raisers)
                erase_dead(function.entry_block)
                fuse_epilogues(function.entry_block)
                erase_dead(function.entry_block)
        _report_left(functions)


def _collect_raisers(is_late: bool) -> dict[str, list[Raiser]]:
    """Return what raises the linalg ops of each name, in order: the first that takes an op has it."""
    found: dict[str, list[Raiser]] = {}
    for raiser in (*_EPILOGUES, *(raiser for kind in kinds() for raiser in kind.raisers)):
        if raiser.is_late == is_late:
            found.setdefault(raiser.op, []).append(raiser)
    return found


def _raise_layers(block: ir.Block, state: PassState, raisers: Mapping[str, Sequence[Raiser]]) -> None:
    """Replace each linalg op by the pattern op with the same result; the ops in front of it become dead."""
    for op in list(block.operations):
        found = raisers.get(op.operation.name, ())
        if not found or _unsupported_type(op) is not None:
            continue
        with op.location, ir.InsertionPoint(op):
            values = (raiser.build(op, state) for raiser in found)
            raised = next((value for value in values if value is not None), None)
        if raised is not None:
            op.operation.result.replace_all_uses_with(raised)
            op.operation.erase()


def _raise_reshape(op: Any, state: PassState) -> ir.Value | None:
    """Remove a reshape that undoes another; make one flattening out of several."""
    sources = reshape_sources(op.result)
    shape = list(op.result.type.shape)
    for source in sources:
        if list(source.type.shape) == shape:
            return source
    root = sources[-1]
    flattens = len(shape) == 2 and root.type.rank == 4 and root.type.shape[0] == shape[0]
    if not flattens or len(sources) == 1:
        return None
    return flat_like(root, op.result)


# What no kind of layer raises by itself.
_EPILOGUES = (Raiser("linalg.generic", raise_bias), *(Raiser(name, _raise_reshape) for name in _RESHAPES))

# What is left.


def _unsupported_type(op: Any) -> ir.Type | None:
    """Return the type that keeps an op from being raised: anything but an f32 tensor of static shape."""
    for value in [*op.operation.results, *op.operation.operands]:
        is_f32 = isinstance(value.type, ir.RankedTensorType) and isinstance(value.type.element_type, ir.F32Type)
        if not is_f32 or not value.type.has_static_shape:
            return value.type
    return None


# Destinations and their initial values: of no interest beside the op that they are for.
_SCAFFOLDING = ("tensor.empty", "linalg.fill")


def _report_left(functions: Sequence[Any]) -> None:
    """Raise one error that names every op that no raiser took."""
    left = [op for function in functions for op in function.entry_block.operations if not _may_stay(op)]
    left = [op for op in left if op.operation.name not in _SCAFFOLDING] or left
    if not left:
        return
    places: dict[str, list[str]] = {}
    for op in left:
        places.setdefault(_describe(op), []).append(describe_location(op.location))
    listed = ", ".join(f"{what}{_count(where)}{_list_places(where)}" for what, where in places.items())
    raise PatcError(f"cannot raise: {listed}", left[0].location)


def _may_stay(op: Any) -> bool:
    name = op.operation.name
    if name == "tensor.collapse_shape":
        source, result = (list(value.type.shape) for value in (op.operands[0], op.result))
        return len(source) == 4 and len(result) == 2 and source[0] == result[0]
    return name.startswith("pattern.") or name in ("arith.constant", "func.return")


def _describe(op: Any) -> str:
    """Return the name of an op, and the type that keeps a layer from being raised."""
    name = op.operation.name
    raised = {raiser.op for kind in kinds() for raiser in kind.raisers}
    is_layer = name in raised and name != "linalg.generic"
    wrong = _unsupported_type(op) if is_layer else None
    return name if wrong is None else f"{name} of {wrong}"


def _count(places: list[str]) -> str:
    return f" x{len(places)}" if len(places) > 1 else ""


def _list_places(places: list[str]) -> str:
    distinct = [place for place in dict.fromkeys(places) if place]
    return f" ({', '.join(distinct)})" if distinct else ""
