"""Time stamps of layers that take turns in a loop: how long each took in all turns."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, func, memref

from patc.passes.algorithms.host.memory import Memory
from patc.passes.ir.functions import CLOCK
from patc.passes.kernels.builder import Builder


def now() -> ir.Value:
    """Emit a time stamp."""
    return func.CallOp([ir.IntegerType.get_signless(64)], CLOCK, []).result


@dataclass(frozen=True)
class Stamps:
    """Memory of times.

    Attributes:
        spent: time stamps that each layer took, and the last one.
        count: layers.
    """

    b: Builder
    spent: ir.Value
    count: int

    @staticmethod
    def start(memory: Memory, count: int) -> Stamps:
        """Emit what is in front of the loop."""
        b = memory.builder
        spent = memory.allocate(count + 1, ir.IntegerType.get_signless(64))
        zero = arith.ConstantOp(ir.IntegerType.get_signless(64), 0).result
        for number in range(count):
            b.store(zero, spent, number, 0)
        b.store(now(), spent, count, 0)
        return Stamps(b, spent, count)

    def add(self, number: int) -> None:
        """Emit: the time since the last stamp is that of a layer."""
        b, stamp = self.b, now()
        before, own = (memref.LoadOp(self.spent, [b.index(place)]).result for place in (self.count, number))
        b.store(arith.AddIOp(own, arith.SubIOp(stamp, before).result).result, self.spent, number, 0)
        b.store(stamp, self.spent, self.count, 0)
