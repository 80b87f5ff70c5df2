"""linalg on tensors to the `pattern` dialect: one op a layer, with its epilogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch_mlir import ir

from patc.passes.base import Pass, PassState
from patc.passes.ir.functions import defined_functions, erase_dead, works_on_tensors
from patc.passes.ir.targets import target_of
from patc.passes.layers.base import LayerKind, Raiser
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

    Requires: NCHW tensors; batch norm folded.
    Ensures: what the layers of the dialect compute, on f32 tensors of static shape, is `pattern` ops; each has the
        location of the layer it came from. Other ops stay, see `pattern-outline`, and so do layers for which the
        module's target has no algorithm. A second run changes nothing.

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
        functions = [function for function in defined_functions(module) if works_on_tensors(function)]
        target = target_of(module)
        computed = [kind for kind in kinds() if kind.algorithms(target)]
        raisers, late_raisers = (_collect_raisers(computed, is_late) for is_late in (False, True))
        with module.context:
            for function in functions:
                _raise_layers(function.entry_block, state, raisers)
                erase_dead(function.entry_block)  # dead users would keep values from being fused
                _raise_layers(function.entry_block, state, late_raisers)
                erase_dead(function.entry_block)
                fuse_epilogues(function.entry_block)
                erase_dead(function.entry_block)


def _collect_raisers(wanted: Sequence[LayerKind], is_late: bool) -> dict[str, list[Raiser]]:
    """Return what raises the linalg ops of each name to some kinds, in order: the first that takes an op has it."""
    found: dict[str, list[Raiser]] = {}
    for raiser in (*_EPILOGUES, *(raiser for kind in wanted for raiser in kind.raisers)):
        if raiser.is_late == is_late:
            found.setdefault(raiser.op, []).append(raiser)
    return found


def _raise_layers(block: ir.Block, state: PassState, raisers: Mapping[str, Sequence[Raiser]]) -> None:
    """Replace each linalg op by the pattern op with the same result; the ops in front of it become dead."""
    for op in list(block.operations):
        found = raisers.get(op.operation.name, ())
        if not found or not _has_known_types(op):
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


def _has_known_types(op: Any) -> bool:
    """Whether an op works on f32 tensors of static shape only."""
    types = [value.type for value in (*op.operation.results, *op.operation.operands)]
    tensors = [type_ for type_ in types if isinstance(type_, ir.RankedTensorType) and type_.has_static_shape]
    return len(tensors) == len(types) and all(isinstance(type_.element_type, ir.F32Type) for type_ in tensors)
