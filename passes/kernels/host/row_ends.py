"""How the sums of linear layers end in memory, where lanes are neighbouring filters."""

from __future__ import annotations

from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.host.ends import Ends


def finish_rows(ends: Ends, row: Index, filter_: Index, sums: Vectors, vectors: int) -> None:
    """Add the bias, let the residual join, apply the activation, and store.

    Args:
        row: of the input, the first one of those that have sums.
        filter_: of the first lane.
        sums: so many vectors of each row, row by row.
    """
    b, epilogue, output, lanes = ends.b, ends.epilogue, ends.output, ends.schedule.lanes
    for vector in range(vectors):
        first = b.add(filter_, vector * lanes)
        bias = None if epilogue.bias is None else b.convert(b.load(epilogue.bias, first, 0, lanes), b.accumulator)
        tables = range(len(epilogue.activation.arrays))
        constants = [b.load(epilogue.table, first, number * output.width, lanes) for number in tables]
        for member in range(len(sums) // vectors):
            value = sums[member * vectors + vector]
            value = value if bias is None else b.plus(value, bias)
            address, residual = b.add(b.mul(b.add(row, member), output.width), first), epilogue.residual
            joined = None if residual is None else b.load(residual.memory, address, 0, lanes)
            b.store(b.convert(epilogue.finish(b, value, joined, constants), b.element), output.memory, address, 0)
