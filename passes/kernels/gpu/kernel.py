"""What kernels for GPUs are written with: a `gpu.func` that grows its arguments while its body is emitted.

A kernel sees few buffers, each of them as vectors of four elements, as single elements or as i32, and numbers that the
launch gives it: offsets into the buffers, sizes and strides. So layers that differ in these alone share a kernel.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, gpu, memref, scf, vector

from patc.passes.ir.elements import element_bytes
from patc.passes.kernels.builder import Builder, Compute, Index, Vectors

LANES = 4  # elements of a vector: what every GPU loads at once
EXACT = "pattern.exact"  # marks modules of kernels whose sums and products have to be rounded one by one
SPLIT = "pixels"  # `Schedule.split` of a GPU: what the threads of a workgroup divide


class Memory(enum.Enum):
    """The buffers of a net: activations, inputs and outputs in one, what the kernels only read in the other."""

    ARENA = 0
    WEIGHTS = 1


@dataclass(frozen=True)
class BufferArgument:
    """A kernel's argument that is a buffer, seen as elements of one type."""

    memory: Memory
    type: ir.Type


@dataclass(frozen=True)
class WeightsPlace:
    """A kernel's argument that is a place in the weights, counted from where what the kernel sees of them starts.

    Attributes:
        start: byte among all weights at which the array starts that the kernel reads.
        unit: bytes that one number counts.
        more: units from the start to the place.
    """

    start: int
    unit: int
    more: int


class Kernel(Builder):
    """Emits the body of a kernel.

    Args:
        block: the empty entry block of a `gpu.func`.
        element: what the kernel computes in.
        threads: of a workgroup.

    Attributes:
        is_exact: whether sums and products have to be rounded one by one.
        arguments: what a launch has to give, in order: buffers, places and numbers.
    """

    def __init__(self, block: ir.Block, element: ir.Type, threads: int) -> None:
        super().__init__(block, element)
        self._block = block
        self.threads = threads
        self.is_exact = False
        self.i32 = ir.IntegerType.get_signless(32)
        self.arguments: list[BufferArgument | WeightsPlace | int] = []
        self._buffers: dict[BufferArgument, ir.Value] = {}
        self._ids: dict[tuple[str, str], ir.Value] = {}

    # Arguments ------------------------------------------------------------------------------------

    def number(self, value: int | WeightsPlace) -> ir.Value:
        """Return an argument of type index that is `value` in the launch of this layer."""
        self.arguments.append(value)
        return self._block.add_argument(self.index_type, ir.Location.unknown())

    def elements(self, memory: Memory, start: int, type_: ir.Type, more: int = 0) -> tuple[ir.Value, ir.Value]:
        """Return the arguments that are a buffer of elements, or vectors, of a type, and the number of one of them.

        Args:
            start: first byte of an array there.
            more: elements from the start to that one.
        """
        unit = element_bytes(type_) * (type_.shape[0] if isinstance(type_, ir.VectorType) else 1)
        place = WeightsPlace(start, unit, more) if memory is Memory.WEIGHTS else start // unit + more
        return self.buffer(memory, type_), self.number(place)

    def real(self, value: float) -> ir.Value:
        """Return an f32 argument that is `value` in the launch of this layer."""
        return arith.BitcastOp(self.f32, self.integer(struct.unpack("<i", struct.pack("<f", value))[0])).result

    def integer(self, value: int) -> ir.Value:
        """Return an i32 argument that is `value` in the launch of this layer."""
        return arith.IndexCastOp(self.i32, self.number(value)).result

    def buffer(self, memory: Memory, type_: ir.Type) -> ir.Value:
        """Return the argument that is a buffer of elements of a type."""
        key = BufferArgument(memory, type_)
        if key not in self._buffers:
            self.arguments.append(key)
            kind = ir.MemRefType.get([ir.ShapedType.get_dynamic_size()], type_)
            self._buffers[key] = self._block.add_argument(kind, ir.Location.unknown())
        return self._buffers[key]

    def vector_type(self, element: ir.Type | None = None) -> ir.Type:
        """Return the type of a vector, of the kernel's element type by default."""
        return ir.VectorType.get([LANES], element or self.element)

    # Where a thread is ----------------------------------------------------------------------------

    def thread(self) -> ir.Value:
        """Return the number of this thread in its workgroup."""
        return self._id("thread", "x")

    def group(self, axis: str) -> ir.Value:
        """Return the number of this workgroup along x, y or z."""
        return self._id("group", axis)

    def _id(self, kind: str, axis: str) -> ir.Value:
        if (kind, axis) not in self._ids:
            make = gpu.ThreadIdOp if kind == "thread" else gpu.BlockIdOp
            with ir.InsertionPoint.at_block_begin(self._block):
                self._ids[kind, axis] = make(ir.Attribute.parse(f"#gpu<dim {axis}>")).result
        return self._ids[kind, axis]

    # Integers -------------------------------------------------------------------------------------

    def quotient(self, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return quotient and remainder of non-negative numbers."""
        return arith.DivUIOp(a, b).result, arith.RemUIOp(a, b).result

    def smaller(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return the smaller of two non-negative numbers."""
        return arith.MinUIOp(a, b).result

    def less(self, a: Index, b: Index) -> ir.Value:
        """Return whether a < b."""
        return arith.CmpIOp(arith.CmpIPredicate.ult, self.index(a), self.index(b)).result

    def equal(self, a: Index, b: Index) -> ir.Value:
        """Return whether a == b."""
        return arith.CmpIOp(arith.CmpIPredicate.eq, self.index(a), self.index(b)).result

    def both(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return whether both of two conditions hold."""
        return arith.AndIOp(a, b).result

    # Vectors --------------------------------------------------------------------------------------

    def compose(self, scalars: Sequence[ir.Value]) -> ir.Value:
        """Return the vector of some scalars."""
        type_ = ir.VectorType.get([len(scalars)], scalars[0].type)
        return vector.FromElementsOp(type_, list(scalars)).result

    def keep_first(self, value: ir.Value, count: ir.Value, fill: ir.Value) -> ir.Value:
        """Return a vector whose elements from `count` on are those of `fill`."""
        numbers = ir.VectorType.get([LANES], self.i32)
        lanes = self._constant(
            "lanes",
            lambda: arith.ConstantOp(
                numbers,
                ir.DenseElementsAttr.get(
                    [ir.IntegerAttr.get(self.i32, lane) for lane in range(LANES)],
                    numbers,
                ),
            ),
        )
        bound = vector.BroadcastOp(numbers, arith.IndexCastOp(self.i32, count).result).result
        inside = arith.CmpIOp(arith.CmpIPredicate.slt, lanes, bound).result
        return arith.SelectOp(inside, value, fill).result

    def store_element(self, value: ir.Value, memory: ir.Value, address: Index) -> None:
        """Store what one index of a buffer stands for, a vector or a scalar."""
        memref.StoreOp(value, memory, [self.index(address)])

    # Control flow and workgroups ------------------------------------------------------------------

    def outline(self, name: str, operands: Vectors, compute: Compute) -> ir.Value:
        """Return what `compute` makes of vectors or scalars, in place: kernels have no functions beside them."""
        self.is_exact = True  # elementary functions round by adding large numbers
        return compute(self, operands)

    def when(self, condition: ir.Value, body: Callable[[], None]) -> None:
        """Emit `if condition`."""
        op = scf.IfOp(condition)
        with ir.InsertionPoint(op.then_block):
            body()
            scf.YieldOp([])

    def shared(self, elements: int, type_: ir.Type) -> ir.Value:
        """Return memory that the threads of a workgroup share."""
        space = ir.Attribute.parse("#gpu.address_space<workgroup>")
        with ir.InsertionPoint.at_block_begin(self._block):
            return memref.AllocOp(ir.MemRefType.get([elements], type_, memory_space=space), [], []).result

    def barrier(self) -> None:
        """Wait for all threads of the workgroup, and for what they wrote to shared memory."""
        gpu.BarrierOp()
