"""An op from outside of the package: the product of two tensors, with loops of its own on CPUs.

    python examples/extending/multiply_op.py

There is no algorithm for GPUs here: there, the same product takes the generic road.
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


class MultiplyOp(PatternDialect.Operation, name="multiply", traits=[Pure]):
    """y = lhs * rhs, element by element."""

    lhs: Operand[Tensor]
    rhs: Operand[Tensor]
    result: Result[Tensor]


def raise_product(op: Any, state: PassState) -> ir.Value | None:
    """Raise a `linalg.generic` that multiplies two tensors of one shape."""
    body = [inner.operation.name for inner in op.regions[0].blocks[0].operations]
    inputs = list(op.operands)[:-1]
    if body != ["arith.mulf", "linalg.yield"] or [value.type for value in inputs] != [op.result.type] * 2:
        return None
    return MultiplyOp(lhs=inputs[0], rhs=inputs[1], result=op.result.type).result


class Product(HostAlgorithm):
    """Elements in the order in which they lie in memory."""

    name = "product"

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model = core_model(op, target)
        yield memory_bound(model, plane_schedule(op, self.name, model.lanes, vectors=4), moved_bytes(op))

    def emit(self, site: HostSite) -> None:
        sources = [site.buffer(operand) for operand in site.op.operands]
        costs = [1.0] * as_planes(site.output.shape)[1]
        site.call([*sources, site.epilogue, site.output], emit_product, costs)


def emit_product(kernel: Kernel, arguments: Sequence[Any]) -> None:
    """Write the loops of a kernel function."""
    lhs, rhs, epilogue, output = arguments
    loops = Loops(kernel, output, epilogue, lhs)
    b = loops.b

    def one_tile(tile: Tile, channel: ir.Value) -> None:
        bases = [b.add(tile.base(b, tensor), b.mul(channel, tensor.layout.plane)) for tensor in (lhs, rhs)]
        left, right = (Rows(b, tensor, base) for tensor, base in zip((lhs, rhs), bases, strict=True))

        def products(row: int) -> Vectors:
            return [b.times(left.load(row, chunk), right.load(row, chunk)) for chunk in tile.chunks]

        loops.store_tile(tile, [products(row) for row in range(tile.rows)], channel)

    loops.for_work(one_tile, filters_first=True)


class Multiply(WithoutWeights, OneType):
    """`pattern.multiply`."""

    op = MultiplyOp
    raisers = (Raiser("linalg.generic", raise_product),)
    host = (Product(),)
    gpu = ()

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
        return reference.elementwise([reference.widen(op.lhs), reference.widen(op.rhs)], arith.mulf)


register(Multiply())


class Gated(torch.nn.Module):
    """A convolution that another one gates."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = (torch.nn.Conv2d(c, 8, 3, padding=1) for c in (3, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.last(y * self.gate(y))


def main() -> None:
    torch.manual_seed(0)
    model, x = Gated().eval(), torch.randn(1, 3, 17, 19)
    compiled = patc.compile(model, (x,))
    with torch.no_grad():
        wanted = model.double()(x.double())
    error = float((compiled(x) - wanted).abs().max() / wanted.abs().max())
    print("computed by", ", ".join(layer.algorithm for layer in compiled.layers if layer.op == "multiply"))
    print(f"error {error:.1e} of the largest output")


if __name__ == "__main__":
    main()
