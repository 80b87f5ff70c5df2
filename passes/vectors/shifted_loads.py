"""Vector loads that lie between two aligned vectors, put together from those.

On AVX-512 a 64-byte load that is not aligned touches two cache lines and counts twice. Where a block loads a vector
that lies one element behind an aligned one, the aligned ones are loaded (once, for all that need them) and shifted
together.
"""

from __future__ import annotations

from torch_mlir import ir
from torch_mlir.dialects import vector

from patc.passes.vectors.vector_addresses import Load, Offsets, address, group_loads, replace_load


def shift_loads(block: ir.Block, offsets: Offsets, lanes: int) -> None:
    """Replace the loads of a block that are worth it; `lanes` is the length of aligned vectors."""
    for loads in group_loads(block, lambda op: op.operation.name == "vector.load").values():
        if any(_worth_shifting(load, lanes) for load in loads):
            aligned: dict[int, ir.Value] = {}
            for load in loads:
                _rewrite(load, aligned, offsets, lanes)


def _worth_shifting(load: Load, lanes: int) -> bool:
    """Whether a load lies one element behind an aligned vector.

    Loads two elements behind stay: measured, three in four vectors from shifts make the shifts the limit.
    """
    return load.lanes == lanes and load.offset % lanes == 1


def _rewrite(load: Load, aligned: dict[int, ir.Value], offsets: Offsets, lanes: int) -> None:
    """Make a vector from the one or two aligned vectors it lies in; those in `aligned` are loaded already.

    A narrow load is replaced as well: LLVM would take it apart, element by element, to reuse the wide load that
    covers it.
    """
    shift = load.offset % lanes
    inside = shift + load.lanes <= lanes
    if load.lanes == lanes and inside and load.offset not in aligned:
        aligned[load.offset] = load.op.results[0]
        return
    if not inside and not _worth_shifting(load, lanes):
        return
    with ir.InsertionPoint(load.op), load.op.location:
        low = _aligned_vector(load, load.offset - shift, aligned, offsets, lanes)
        result = low
        if load.lanes < lanes or shift:
            high = low if inside else _aligned_vector(load, load.offset - shift + lanes, aligned, offsets, lanes)
            result = vector.ShuffleOp(low, high, list(range(shift, shift + load.lanes))).result
    replace_load(load, result)


def _aligned_vector(like: Load, offset: int, aligned: dict[int, ir.Value], offsets: Offsets, lanes: int) -> ir.Value:
    if offset not in aligned:
        type_ = ir.VectorType.get([lanes], like.op.results[0].type.element_type)
        aligned[offset] = vector.LoadOp(type_, like.memory, [address(like.base, offset, offsets)]).result
    return aligned[offset]
