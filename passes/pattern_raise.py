"""linalg on tensors to the `pattern` dialect: one op a layer, with its epilogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch_mlir import ir

from patc.dialects.pattern import ResampleOp
from patc.numerics import FLOAT32, NUMERICS
from patc.passes.base import Pass, PassState
from patc.passes.ir.functions import RESHAPES, defined_functions, erase_dead, works_on_tensors
from patc.passes.ir.quantised import is_quantised
from patc.passes.ir.targets import target_of
from patc.passes.layers.base import Raiser
from patc.passes.layers.reference import replace_results
from patc.passes.layers.registry import kind_of, kinds
from patc.passes.raising.epilogue import BIAS, FUSED, SCALES
from patc.passes.raising.functions import raise_activations
from patc.passes.raising.linalg_layers import flat_like, reshape_sources
from patc.passes.raising.lines import normalize_convolutions
from patc.passes.raising.resampling import raise_resampling
from patc.targets import Target


@dataclass(frozen=True)
class PatternRaise(Pass):
    """Raise linalg on tensors to `pattern` ops, one a layer.

    Bias, residual addition and activation go into the convolution or linear layer before them. A residual
    that two convolutions could take goes to the later one; a sum that none can take becomes `pattern.add`, an
    activation that no layer can take `pattern.activate`. What is left of batch norm is an activation. 1-D convolutions
    are 2-D ones of height 1, transposed ones one convolution for each place within their stride, whose results
    `pattern.depth_to_space` puts between each other. Interpolation and pads that are no constant are
    `pattern.resample`. Wide dilated 3x3 convolutions are undilated ones of more images, on CPUs.
    Reshapes stay.

    Requires: NCHW tensors; batch norm folded.
    Ensures: what the layers of the dialect compute, on f32 tensors of static shape, is `pattern` ops; each has the
        location of the layer it came from. Other ops stay, see `pattern-outline`, and so do layers for which the
        module's target has no algorithm: ops that stand for such a layer already become linalg. Quantised tensors
        that are numbers in f32 again become arithmetic on these where there are no kernels for integers: on GPUs and
        with `dtype=f16`. A second run changes nothing.

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

    dtype: str = field(
        default=FLOAT32.mlir,
        metadata={"help": f"element type to compute in, {' or '.join(NUMERICS)}", "choices": tuple(NUMERICS)},
    )

    def run(self, module: ir.Module, state: PassState) -> None:
        functions = [function for function in defined_functions(module) if works_on_tensors(function)]
        target = target_of(module)
        computed = [kind for kind in kinds() if kind.algorithms(target)]
        raisers = [*_OF_NO_KIND, *(raiser for kind in computed for raiser in kind.raisers)]
        late = [raiser for raiser in raisers if raiser.is_late]
        early = [raiser for raiser in raisers if not raiser.is_late]
        with module.context:
            for function in functions:
                _lower_others(function.entry_block, target, self.dtype == FLOAT32.mlir, state)
                if any(kind.op is ResampleOp for kind in computed):
                    raise_resampling(function.entry_block, state)
                normalize_convolutions(function.entry_block, state)
                raise_activations(function.entry_block, state)
                for some in (early, late, FUSED, SCALES, FUSED):
                    _raise_layers(function.entry_block, state, some)
                    erase_dead(function.entry_block)  # dead users would keep values from being fused


def _lower_others(block: ir.Block, target: Target, in_integers: bool, state: PassState) -> None:
    """Replace ops that a front end made, and that the target has no algorithm for, by linalg.

    Args:
        in_integers: whether there are algorithms for what is quantised at all.
    """
    for op in list(block.operations):
        kind = kind_of(op)
        if kind is None or (kind.algorithms(target, op) and (in_integers or not is_quantised(op))):
            continue
        with op.location, ir.InsertionPoint(op):
            made = kind.without_algorithm(op, state)
        if made is not None:
            replace_results(op, made)
            op.operation.erase()


def _raise_layers(block: ir.Block, state: PassState, raisers: Sequence[Raiser]) -> None:
    """Replace each op by what the first of its raisers that takes it makes; the ops in front of it become dead."""
    by_name: dict[str, list[Raiser]] = {}
    for raiser in raisers:
        by_name.setdefault(raiser.op, []).append(raiser)
    for op in list(block.operations):
        found = by_name.get(op.operation.name)
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


_OF_NO_KIND = (BIAS, *(Raiser(name, _raise_reshape) for name in RESHAPES))


def _has_known_types(op: Any) -> bool:
    """Whether an op works on f32 tensors of static shape only."""
    types = [value.type for value in (*op.operation.results, *op.operation.operands)]
    tensors = [type_ for type_ in types if isinstance(type_, ir.RankedTensorType) and type_.has_static_shape]
    return len(tensors) == len(types) and all(isinstance(type_.element_type, ir.F32Type) for type_ in tensors)
