"""Places of maxima and minima where some numbers are NaN, as PyTorch finds them.

torch-mlir compares in ways that are false for NaN. Of a reduction the first NaN is the largest and the smallest number:

    %best = arith.maximumf %x, %before
    %is_better = arith.cmpf ogt, %x, %before        becomes ugt, where `%before` is no NaN
    %place = arith.select %is_better, %index, %place_before

Of a window of a max pool it is the last NaN. The maximum is known there, and the first number that equals it is found:

    %x = tensor.extract ...
    %is_it = arith.cmpf oeq, %x, %maximum
    %here = arith.select %is_it, %index, %place_before
    %place = arith.select %is_first, %here, %place_before        becomes `%index` where `%x` is NaN
"""

from __future__ import annotations

from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import arith, tensor

from patc.passes.ir.functions import walk_ops

_UNORDERED = {  # of the comparison that goes with a maximum or a minimum: the one that is true for NaN, too
    (arith.MaximumFOp, arith.CmpFPredicate.OGT): arith.CmpFPredicate.UGT,
    (arith.MinimumFOp, arith.CmpFPredicate.OLT): arith.CmpFPredicate.ULT,
}


def count_nan(module: ir.Module) -> None:
    """Let reductions and max pools that keep places find that of a NaN."""
    for op in walk_ops(module):
        if isinstance(op, arith.CmpFOp) and all(use.owner.name == "arith.select" for use in op.result.uses):
            predicate = arith.CmpFPredicate(op.attributes["predicate"].value)
            if predicate == arith.CmpFPredicate.OEQ:
                _count_in_window(op)
            else:
                _count_in_reduction(op, predicate)


def _count_in_reduction(comparison: Any, predicate: arith.CmpFPredicate) -> None:
    number, before = comparison.operands
    users = [use.owner.opview for use in number.uses]
    kinds = [type(user) for user in users if list(user.operands) == [number, before]]
    unordered = next((_UNORDERED[kind, predicate] for kind in kinds if (kind, predicate) in _UNORDERED), None)
    if unordered is None:
        return
    with ir.InsertionPoint(comparison), comparison.location:
        is_better = arith.CmpFOp(unordered, number, before).result
        is_number = arith.CmpFOp(arith.CmpFPredicate.ORD, before, before).result
        chosen = arith.AndIOp(is_better, is_number).result
    comparison.result.replace_all_uses_with(chosen)
    comparison.operation.erase()


def _count_in_window(comparison: Any) -> None:
    number, maximum = comparison.operands
    is_read = not isinstance(number.owner, ir.Block) and isinstance(number.owner.opview, tensor.ExtractOp)
    here = [use.owner.opview for use in comparison.result.uses]
    if not is_read or not isinstance(maximum.owner, ir.Block) or len(here) != 1:
        return
    _, index, before = here[0].operands
    for use in list(here[0].result.uses):
        place = use.owner.opview
        if place.operation.name != "arith.select" or list(place.operands)[1:] != [here[0].result, before]:
            continue
        with ir.InsertionPoint.after(place), place.location:
            is_nan = arith.CmpFOp(arith.CmpFPredicate.UNO, number, number).result
            chosen = arith.SelectOp(is_nan, index, place.result)
        place.result.replace_all_uses_except(chosen.result, [chosen.operation])
