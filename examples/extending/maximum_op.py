"""An op from outside of the package: the larger of two tensors, with loops of its own on CPUs.

    python examples/extending/maximum_op.py

There is no algorithm for GPUs here: there, the same takes the generic road.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch_mlir import ir
from torch_mlir.dialects import arith
from torch_mlir.dialects.ext import Operand, Pure, Result

import patc
from patc.dialects.pattern import PatternDialect
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import core_model, memory_bound, moved_bytes, plane_schedule
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.ir.planes import as_planes
from patc.passes.kernels.builder import Vectors
from patc.passes.kernels.host.kernel import Kernel, Tile
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.rows import Rows
from patc.passes.layers import reference
from patc.passes.layers.base import (
    Access,
    Channels,
    OneType,
    Raiser,
    Sign,
    WithoutWeights,
    list_operands,
)
from patc.passes.layers.base import (
    Operand as LayerOperand,
)
from patc.passes.layers.registry import register
from patc.targets import Target

Tensor = ir.RankedTensorType


class MaximumOp(PatternDialect.Operation, name="maximum", traits=[Pure]):
    """y = max(lhs, rhs), element by element."""

    lhs: Operand[Tensor]
    rhs: Operand[Tensor]
    result: Result[Tensor]


def raise_maximum(op: Any, state: PassState) -> ir.Value | None:
    """Raise a `linalg.generic` that selects the larger elements of two tensors of one shape."""
    block = op.regions[0].blocks[0]
    names, inputs = [inner.operation.name for inner in block.operations], list(op.operands)[:-1]
    fits = [value.type for value in inputs] == [op.result.type] * 2
    if names != ["arith.cmpf", "arith.select", "linalg.yield"] or not fits:
        return None
    compare, select, _ = block.operations
    pair = list(block.arguments)[:2]
    is_greater = compare.attributes["predicate"].value == arith.CmpFPredicate.OGT
    if not is_greater or list(compare.operands) != pair or list(select.operands)[1:] != pair:
        return None
    return MaximumOp(lhs=inputs[0], rhs=inputs[1], result=op.result.type).result


class Larger(HostAlgorithm):
    """Elements in the order in which they lie in memory."""

    name = "larger"

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model = core_model(op, target)
        yield memory_bound(model, plane_schedule(op, self.name, model.lanes, vectors=4), moved_bytes(op))

    def emit(self, site: HostSite) -> None:
        sources = [site.buffer(operand) for operand in site.op.operands]
        costs = [1.0] * as_planes(site.output.shape)[1]
        site.call([*sources, site.epilogue, site.output], emit_larger, costs)


def emit_larger(kernel: Kernel, arguments: Sequence[Any]) -> None:
    """Write the loops of a kernel function."""
    lhs, rhs, epilogue, output = arguments
    loops = Loops(kernel, output, epilogue, lhs)
    b = loops.b

    def one_tile(tile: Tile, channel: ir.Value) -> None:
        bases = [b.add(tile.base(b, tensor), b.mul(channel, tensor.layout.plane)) for tensor in (lhs, rhs)]
        left, right = (Rows(b, tensor, base) for tensor, base in zip((lhs, rhs), bases, strict=True))

        def larger(row: int) -> Vectors:
            return [b.maximum(left.load(row, chunk), right.load(row, chunk)) for chunk in tile.chunks]

        loops.store_tile(tile, [larger(row) for row in range(tile.rows)], channel)

    loops.for_work(one_tile, filters_first=True)


class Maximum(WithoutWeights, OneType):
    """`pattern.maximum`."""

    op = MaximumOp
    raisers = (Raiser("linalg.generic", raise_maximum),)
    host = (Larger(),)
    gpu = ()
    keeps_scale = False
    quantised = ()
    quantised_gpu = ()

    def operands(self, op: Any) -> tuple[LayerOperand, ...]:
        return list_operands(op, {"lhs": Access.ELEMENTS, "rhs": Access.ELEMENTS})

    def window(self, op: Any) -> None:
        return None

    def is_pointwise(self, op: Any) -> bool:
        return False

    def sign(self, op: Any) -> Sign:
        return Sign.ANY

    def channels(self, op: Any, state: PassState) -> Channels:
        return Channels(tied=(op.lhs, op.rhs, op.result))

    def reference(self, op: Any, state: PassState) -> ir.Value:
        return reference.elementwise([reference.widen(op.lhs), reference.widen(op.rhs)], arith.maximumf)


register(Maximum())


class Largest(torch.nn.Module):
    """The larger of what two convolutions compute."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = (torch.nn.Conv2d(c, 8, 3, padding=1) for c in (3, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.last(torch.maximum(y, self.second(y)))


def main() -> None:
    torch.manual_seed(0)
    model, x = Largest().eval(), torch.randn(1, 3, 17, 19)
    compiled = patc.compile(model, (x,))
    with torch.no_grad():
        wanted = model.double()(x.double())
    error = float((compiled(x) - wanted).abs().max() / wanted.abs().max())
    print("computed by", ", ".join(layer.algorithm for layer in compiled.layers if layer.op == "maximum"))
    print(f"error {error:.1e} of the largest output")


if __name__ == "__main__":
    main()
