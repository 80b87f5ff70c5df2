"""A thin layer over the bindings for writing loop nests on flat memrefs.

Index arithmetic takes Python integers and SSA values alike and folds the integers, so that a loop nest reads like
the formula it implements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from torch_mlir import ir
from torch_mlir.dialects import arith, func, llvm, math, memref, scf, vector

from patc.integers import ceil_div
from patc.passes.ir.elements import accumulator_type, compute_type

Index: TypeAlias = int | ir.Value
Vectors: TypeAlias = list[ir.Value]
Compute: TypeAlias = Callable[["Builder", Sequence[ir.Value]], ir.Value]


class Builder:
    """Emits operations at the current insertion point; constants go to the start of `entry`.

    Args:
        element: of the tensors that the kernel computes with, f32 by default.

    Attributes:
        element: what it computes in.
        accumulator: what long sums of elements are made in.

    What is loaded is of the type that elements of the memory are computed in, and becomes such elements when it is
    stored.

    Arithmetic is that of the operands' element type; integers have a sign, and wrap.
    """

    def __init__(self, entry: ir.Block, element: ir.Type | None = None) -> None:
        self._entry = entry
        self._constants: dict[object, ir.Value] = {}
        self._results: dict[tuple[ir.Block, str, ir.Value, ir.Value], ir.Value] = {}
        self._outlined: set[str] = set()
        self.f32 = ir.F32Type.get()
        stored = self.f32 if element is None else element
        self.element, self.accumulator = compute_type(stored), accumulator_type(stored)
        self.index_type = ir.IndexType.get()
        self.i8, self.i16, self.i32 = (ir.IntegerType.get_signless(bits) for bits in (8, 16, 32))

    # Constants ------------------------------------------------------------------------------------

    def index(self, value: Index) -> ir.Value:
        """Return an index value."""
        if isinstance(value, ir.Value):
            return value
        return self._constant(("index", value), lambda: arith.ConstantOp(self.index_type, value))

    def scalar(self, value: float, element: ir.Type | None = None) -> ir.Value:
        """Return a constant, of the kernel's element type by default."""
        element = element or self.element
        return self._constant((element, value), lambda: arith.ConstantOp(element, _attribute(element, value)))

    def splat(self, value: float, lanes: int, element: ir.Type | None = None) -> ir.Value:
        """Return a constant vector of equal elements, or a scalar for one lane."""
        element = element or self.element
        if lanes == 1:
            return self.scalar(value, element)
        type_, attr = ir.VectorType.get([lanes], element), _attribute(element, value)
        return self._constant(
            (type_, value), lambda: arith.ConstantOp(type_, ir.DenseElementsAttr.get_splat(type_, attr))
        )

    def mask(self, valid: int, lanes: int) -> ir.Value:
        """Return a constant vector<lanes x i1> whose first `valid` elements are set."""
        type_ = ir.VectorType.get([lanes], ir.IntegerType.get_signless(1))
        return self._constant(("mask", valid, lanes), lambda: vector.ConstantMaskOp(type_, [valid]))

    def scratch(self, elements: int, element: ir.Type | None = None) -> ir.Value:
        """Return memory for elements on the stack, there while the function runs and aligned to a cache line."""
        with ir.InsertionPoint.at_block_begin(self._entry):
            return memref.AllocaOp(ir.MemRefType.get([elements], element or self.element), [], [], alignment=64).result

    def _constant(self, key: object, make: Callable[[], ir.OpView]) -> ir.Value:
        if key not in self._constants:
            with ir.InsertionPoint.at_block_begin(self._entry):
                self._constants[key] = make().result
        return self._constants[key]

    # Index arithmetic -----------------------------------------------------------------------------

    def add(self, a: Index, b: Index) -> Index:
        """Return a + b."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if isinstance(b, int) and b == 0:
            return a
        if isinstance(a, int) and a == 0:
            return b
        return self._once("add", self.index(a), self.index(b), lambda x, y: arith.AddIOp(x, y).result)

    def subtract(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a - b."""
        return arith.SubIOp(a, b).result

    def mul(self, a: Index, b: Index) -> Index:
        """Return a * b."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if b == 0 or a == 0:
            return 0
        if isinstance(b, int) and b == 1:
            return a
        return self._once("mul", self.index(a), self.index(b), lambda x, y: arith.MulIOp(x, y).result)

    def _once(self, name: str, a: ir.Value, b: ir.Value, make: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
        """Return the result of an operation; equal ones of a block are made once."""
        key = (ir.InsertionPoint.current.block, name, a, b)
        if key not in self._results:
            self._results[key] = make(a, b)
        return self._results[key]

    def divide(self, a: Index, b: Index) -> tuple[Index, Index]:
        """Return quotient and remainder of a non-negative index."""
        if isinstance(a, int) and isinstance(b, int):
            return divmod(a, b)
        if isinstance(b, int) and b == 1:
            return a, 0
        number, divisor = self.index(a), self.index(b)
        return arith.DivUIOp(number, divisor).result, arith.RemUIOp(number, divisor).result

    def divide_up(self, a: Index, b: Index) -> Index:
        """Return the quotient of a non-negative index, rounded up."""
        if isinstance(a, int) and isinstance(b, int):
            return ceil_div(a, b)
        below = self.subtract(self.index(b), self.index(1)) if isinstance(b, ir.Value) else b - 1
        return self.divide(self.add(a, below), b)[0]

    def digits(self, number: Index, extents: Sequence[int]) -> list[Index]:
        """Return the turns of loops, the outermost first, from the number of the turn of all of them together."""
        found: list[Index] = []
        for extent in reversed(extents[1:]):
            number, digit = self.divide(number, extent)
            found.insert(0, digit)
        return [number, *found] if extents else []

    def minimum(self, a: Index, b: Index) -> Index:
        """Return the smaller of two non-negative indices."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return arith.MinUIOp(self.index(a), self.index(b)).result

    def maximum_index(self, a: Index, b: int) -> Index:
        """Return the larger of two non-negative indices."""
        if b == 0:
            return a
        return max(a, b) if isinstance(a, int) else arith.MaxUIOp(a, self.index(b)).result

    # Memory ---------------------------------------------------------------------------------------

    def load_scalar(self, memory: ir.Value, index: Index) -> ir.Value:
        """Load one element."""
        return self._widen(memref.LoadOp(memory, [self.index(index)]).result)

    def load_index(self, memory: ir.Value, index: Index) -> ir.Value:
        """Load one integer as an index."""
        return arith.IndexCastOp(self.index_type, self.load_scalar(memory, index)).result

    def load(self, memory: ir.Value, base: Index, offset: int, lanes: int) -> ir.Value:
        """Load `lanes` elements at base + offset."""
        address = self.index(self.add(base, offset))
        if lanes == 1:
            return self.load_scalar(memory, address)
        return self._widen(vector.LoadOp(ir.VectorType.get([lanes], element_type(memory)), memory, [address]).result)

    def load_anew(self, memory: ir.Value, address: Index, lanes: int) -> ir.Value:
        """Load `lanes` elements by an instruction of its own, where equal loads would be one and copies of it."""
        pointer_type, element = ir.Type.parse("!llvm.ptr"), element_type(memory)
        start = memref.ExtractAlignedPointerAsIndexOp(memory).result
        place = self.index(self.add(start, self.mul(address, element.width // 8)))
        pointer = llvm.IntToPtrOp(pointer_type, arith.IndexCastOp(ir.IntegerType.get_signless(64), place).result)
        type_ = ir.VectorType.get([lanes], element)
        return llvm.LoadOp(type_, pointer.result, alignment=element.width // 8, volatile_=True).result

    def load_masked(self, memory: ir.Value, base: Index, offset: int, lanes: int, valid: int) -> ir.Value:
        """Load the first `valid` of `lanes` elements; the others are zero and their memory is not touched."""
        if valid == lanes:
            return self.load(memory, base, offset, lanes)
        return self.load_bounded(memory, base, offset, lanes, valid)

    def load_bounded(self, memory: ir.Value, base: Index, offset: int, lanes: int, valid: int) -> ir.Value:
        """Load as `load_masked` does, and also forbid `pattern-vectorize` to touch the elements around."""
        address = self.index(self.add(base, offset))
        mask, zero = self.mask(valid, lanes), self.splat(0.0, lanes, element_type(memory))
        return self._widen(vector.MaskedLoadOp(zero.type, memory, [address], mask, zero).result)

    def _widen(self, loaded: ir.Value) -> ir.Value:
        return self.convert(loaded, compute_type(loaded.type))

    def store(self, value: ir.Value, memory: ir.Value, base: Index, offset: int) -> None:
        """Store a vector or a scalar at base + offset."""
        address, value = self.index(self.add(base, offset)), self.convert(value, element_type(memory))
        if isinstance(value.type, ir.VectorType):
            vector.StoreOp(value, memory, [address])
        else:
            memref.StoreOp(value, memory, [address])

    def store_masked(self, value: ir.Value, memory: ir.Value, base: Index, offset: int, valid: int) -> None:
        """Store the first `valid` elements of a vector."""
        lanes = value.type.shape[0]
        if valid == lanes:
            self.store(value, memory, base, offset)
        elif valid > 0:
            address, value = self.index(self.add(base, offset)), self.convert(value, element_type(memory))
            vector.MaskedStoreOp(memory, [address], self.mask(valid, lanes), value)

    def prefetch(self, memory: ir.Value, base: Index, offset: int, *, write: bool = False, level: int = 1) -> None:
        """Ask a cache, the first or the second one, for the line at base + offset, to read it or to write it."""
        memref.PrefetchOp(memory, [self.index(self.add(base, offset))], write, 4 - level, True)

    def fill(self, value: float, memory: ir.Value, base: Index, start: int, end: int, lanes: int) -> None:
        """Store `value` to the elements start .. end - 1 after `base`."""
        element = element_type(memory)
        many = (end - start) // lanes if end - start > 8 * lanes else 0
        if many:

            def body(step: ir.Value, _: Vectors) -> Vectors:
                self.store(self.splat(value, lanes, element), memory, self.add(base, self.mul(step, lanes)), start)
                return []

            self.loop(0, many, [], body)
            start += many * lanes
        for piece in pieces(end - start, lanes):
            self.store(self.splat(value, piece, element), memory, base, start)
            start += piece

    # Vectors --------------------------------------------------------------------------------------

    def broadcast(self, scalar: ir.Value, lanes: int) -> ir.Value:
        """Return a vector of `lanes` equal elements."""
        return vector.BroadcastOp(ir.VectorType.get([lanes], scalar.type), scalar).result

    def convert(self, value: ir.Value, element: ir.Type) -> ir.Value:
        """Return a vector or a scalar in another type: rounded to nearest where that is of fewer bits and floating
        point, f64 to f32 before f16 as PyTorch does; numbers that become integers have to fit and lose their fraction.
        """
        given = element_type(value)
        if given == element:
            return value
        if isinstance(given, ir.F64Type) and isinstance(element, ir.F16Type):  # no x86 CPU without AVX512-FP16 does
            value, given = self.convert(value, ir.F32Type.get()), ir.F32Type.get()
        is_vector = isinstance(value.type, ir.VectorType)
        type_ = ir.VectorType.get(value.type.shape, element) if is_vector else element
        return _conversion(given, element)(type_, value).result

    def shuffle(self, a: ir.Value, b: ir.Value, picks: Sequence[int]) -> ir.Value:
        """Return the elements `picks` of the concatenation of a and b."""
        return vector.ShuffleOp(a, b, list(picks)).result

    def concatenate(self, vectors: Sequence[ir.Value], lanes: int) -> ir.Value:
        """Return a vector of `lanes` elements that begins with those of `vectors`, which have equal lengths; what the
        rest holds does not matter."""
        parts = list(vectors)
        while len(parts) > 1 or parts[0].type.shape[0] < lanes:
            size = parts[0].type.shape[0]
            pairs = [parts[first : first + 2] for first in range(0, len(parts), 2)]
            ignored = [-1] * size
            parts = [
                self.shuffle(pair[0], pair[-1], [*range(size), *(range(size, 2 * size) if len(pair) == 2 else ignored)])
                for pair in pairs
            ]
        return parts[0]

    def slice(self, value: ir.Value, first: int, lanes: int) -> ir.Value:
        """Return `lanes` neighbouring elements of a vector."""
        return self.shuffle(value, value, range(first, first + lanes))

    def extract(self, value: ir.Value, position: int) -> ir.Value:
        """Return one element of a vector."""
        return vector.ExtractOp(value, [], [position]).result

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Return a * b + c, of floating-point numbers with one rounding."""
        return math.FmaOp(a, b, c).result if is_float(a) else self.plus(self.times(a, b), c)

    def plus(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a + b."""
        return (arith.AddFOp if is_float(a) else arith.AddIOp)(a, b).result

    def times(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a * b."""
        return (arith.MulFOp if is_float(a) else arith.MulIOp)(a, b).result

    def minus(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a - b."""
        return (arith.SubFOp if is_float(a) else arith.SubIOp)(a, b).result

    def bitcast(self, value: ir.Value, element: ir.Type) -> ir.Value:
        """Return the bits of a vector as a vector of other elements."""
        if element_type(value) == element:
            return value
        lanes = lanes_of(value) * element_type(value).width // element.width
        return vector.BitCastOp(ir.VectorType.get([lanes], element), value).result

    def shift_left(self, value: ir.Value, bits: int) -> ir.Value:
        """Return integers times a power of two."""
        return arith.ShLIOp(value, self._amount(value, bits)).result if bits else value

    def shift_right(self, value: ir.Value, bits: int, *, signed: bool) -> ir.Value:
        """Return integers without their last bits, filled up with their sign or with zeros."""
        shift = arith.ShRSIOp if signed else arith.ShRUIOp
        return shift(value, self._amount(value, bits)).result if bits else value

    def bits_and(self, value: ir.Value, mask: int) -> ir.Value:
        """Return the bits of integers that a mask has."""
        return arith.AndIOp(value, self._amount(value, mask)).result

    def bits_or(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return the bits of either."""
        return arith.OrIOp(a, b).result

    def _amount(self, value: ir.Value, number: int) -> ir.Value:
        return self.splat(number, lanes_of(value), element_type(value))

    def sum_lanes(self, value: ir.Value) -> ir.Value:
        """Return the sum of a vector's elements, in any order."""
        kind = ir.Attribute.parse("#vector.kind<add>")
        fast = ir.Attribute.parse("#arith.fastmath<reassoc>") if is_float(value) else None
        return vector.ReductionOp(element_type(value), kind, value, fastmath=fast).result

    def largest_lane(self, value: ir.Value) -> ir.Value:
        """Return the largest of a vector's elements, NaN where one is; of two zeros it may be any."""
        kind = ir.Attribute.parse(f"#vector.kind<{'maximumf' if is_float(value) else 'maxsi'}>")
        fast = ir.Attribute.parse("#arith.fastmath<nsz>") if is_float(value) else None
        return vector.ReductionOp(element_type(value), kind, value, fastmath=fast).result

    def from_lanes(self, values: Vectors) -> ir.Value:
        """Return the vector of some scalars; a single one as it is."""
        if len(values) == 1:
            return values[0]
        return vector.FromElementsOp(ir.VectorType.get([len(values)], values[0].type), values).result

    def maximum(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return max(a, b), NaN where either is; of two zeros it may be any."""
        if not is_float(a):
            return arith.MaxSIOp(a, b).result
        fast = ir.Attribute.parse("#arith.fastmath<nsz>")
        return arith.MaximumFOp(a, b, fastmath=fast).result

    def at_least(self, value: ir.Value, bound: ir.Value) -> ir.Value:
        """Return max(value, bound) for a bound that is not NaN; NaN stays NaN. This form is a single instruction on
        x86."""
        if not is_float(value):
            return arith.MaxSIOp(value, bound).result
        below = arith.CmpFOp(arith.CmpFPredicate.OGT, bound, value).result
        return arith.SelectOp(below, bound, value).result

    def at_most(self, value: ir.Value, bound: ir.Value) -> ir.Value:
        """Return min(value, bound) for a bound that is not NaN; NaN stays NaN."""
        if not is_float(value):
            return arith.MinSIOp(value, bound).result
        above = arith.CmpFOp(arith.CmpFPredicate.OLT, bound, value).result
        return arith.SelectOp(above, bound, value).result

    # Control flow ---------------------------------------------------------------------------------

    def outline(self, name: str, operands: Vectors, compute: Compute) -> ir.Value:
        """Return what `compute` makes of vectors or scalars, of the type of the first, as the call of a function.

        Long computations would otherwise be written for each vector of a tile.

        Args:
            name: says all that the result depends on, but for the operands.
        """
        module = self._entry.owner.operation.parent.operation
        body, types = module.regions[0].blocks[0], [operand.type for operand in operands]
        if name not in self._outlined and name not in ir.SymbolTable(module):
            with ir.InsertionPoint(body):
                function = func.FuncOp(name, (types, types[:1]), visibility="private")
            function.attributes["llvm.no_inline"] = ir.UnitAttr.get()
            block = function.add_entry_block()
            with ir.InsertionPoint(block):
                func.ReturnOp([compute(Builder(block, self.element), list(block.arguments))])
        self._outlined.add(name)
        return func.CallOp(types[:1], name, operands).result

    def loop(
        self,
        lower: Index,
        upper: Index,
        carried: Vectors,
        body: Callable[[ir.Value, Vectors], Vectors],
        step: Index = 1,
    ) -> Vectors:
        """Emit `for i in lower .. upper - 1 step step`; `body(i, carried)` returns the carried values of the next
        turn."""
        op = scf.ForOp(self.index(lower), self.index(upper), self.index(step), carried)
        with ir.InsertionPoint(op.body):
            scf.YieldOp(body(op.induction_variable, list(op.inner_iter_args)))
        return list(op.results)

    def each(self, lower: Index, upper: Index, body: Callable[[ir.Value], None]) -> None:
        """Emit `for i in lower .. upper - 1`, whose turns leave nothing to each other."""

        def turn(number: ir.Value, _: Vectors) -> Vectors:
            body(number)
            return []

        self.loop(lower, upper, [], turn)

    def parallel(self, count: int, body: Callable[[ir.Value], None]) -> None:
        """Emit `body(number)` for so many threads at the same time; all wait for the last."""
        loop = scf.ParallelOp([], [self.index(0)], [self.index(count)], [self.index(1)], [])
        block = loop.regions[0].blocks.append(self.index_type)
        with ir.InsertionPoint(block):
            body(block.arguments[0])
            scf.ReduceOp([], 0)

    def repeat(self, count: int, body: Callable[[Index], None]) -> None:
        """Emit a loop of `count` turns, or its body alone."""
        if count == 1:
            body(0)
        else:
            self.each(0, count, body)

    def when_equal(self, a: Index, b: int, body: Callable[[], None]) -> None:
        """Emit `if a == b`."""
        if isinstance(a, int):
            if a == b:
                body()
            return
        self.when(arith.CmpIOp(arith.CmpIPredicate.eq, a, self.index(b)).result, body)

    def when(self, condition: ir.Value, body: Callable[[], None]) -> None:
        """Emit `if condition`."""
        op = scf.IfOp(condition)
        with ir.InsertionPoint(op.then_block):
            body()
            scf.YieldOp([])


def lanes_of(value: ir.Value) -> int:
    """Return how many elements a vector has, 1 for a scalar."""
    return value.type.shape[0] if isinstance(value.type, ir.VectorType) else 1


def element_type(value: ir.Value) -> ir.Type:
    """Return what a memref or a vector has elements of, or the type of a scalar."""
    return value.type.element_type if isinstance(value.type, ir.ShapedType) else value.type


def is_float(value: ir.Value) -> bool:
    """Whether a vector or a scalar is of a floating-point type."""
    return isinstance(element_type(value), ir.FloatType)


def _attribute(element: ir.Type, value: float) -> ir.Attribute:
    if isinstance(element, ir.FloatType):
        return ir.FloatAttr.get(element, float(value))
    return ir.IntegerAttr.get(element, int(value))


def _conversion(given: Any, element: Any) -> Any:
    """Return the op that makes one element type of another."""
    if isinstance(given, ir.FloatType) != isinstance(element, ir.FloatType):
        return arith.SIToFPOp if isinstance(element, ir.FloatType) else arith.FPToSIOp
    if isinstance(given, ir.FloatType):
        return arith.ExtFOp if given.width < element.width else arith.TruncFOp
    return arith.ExtSIOp if given.width < element.width else arith.TruncIOp


def pieces(count: int, lanes: int) -> list[int]:
    """Split `count` elements into vector lengths: `lanes` as often as possible, then smaller powers of two."""
    sizes = []
    while count > 0:
        while lanes > count:
            lanes //= 2
        sizes.append(lanes)
        count -= lanes
    return sizes
