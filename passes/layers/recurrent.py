"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, scf, tensor

from patc.dialects.attributes import Activation
from patc.dialects.recurrent import RecurrentOp
from patc.numerics import NUMERICS
from patc.passes.algorithms.host.recurrent import MOST_PACKED
from patc.passes.algorithms.host.recurrent import Recurrent as Steps
from patc.passes.base import PassState, fail
from patc.passes.ir.constants import read_constant
from patc.passes.ir.stored import cannot_store, decoded, holds_integers, store_weights
from patc.passes.layers import reference
from patc.passes.layers.base import (
    Access,
    Channels,
    Operand,
    Sign,
    WithoutWeights,
    Work,
    fix_all,
    list_operands,
    operand_number,
)

_OPERANDS = ("input", "weight", "hidden", "bias", "cell", "peepholes", "projection", "lengths")


class Recurrent(WithoutWeights):
    """`pattern.recurrent`, which is computed in f32 whatever the net is."""

    op = RecurrentOp
    elements = tuple(NUMERICS)
    converts = packs = keeps_types = True
    fill = "zero"
    rereads = False
    raisers = ()
    host = (Steps(),)
    gpu = ()
    keeps_scale = False
    quantised = ()
    quantised_gpu = ()

    def operands(self, op: Any) -> tuple[Operand, ...]:
        return list_operands(op, dict.fromkeys(_OPERANDS, Access.PACKED), shared=("input",))

    def window(self, op: Any) -> None:
        return None

    def is_pointwise(self, op: Any) -> bool:
        return False

    def sign(self, op: Any) -> Sign:
        return Sign.ANY

    def channels(self, op: Any, state: PassState) -> Channels:
        return fix_all(op)

    def work(self, op: Any) -> Work:
        s = op.sizes
        weights = s.directions * (s.gates * s.units * s.outputs)
        if op.projection is not None:
            weights += s.directions * s.outputs * s.units
        return Work(weights, weights, 2 * weights * s.steps * s.sequences)

    def check_elements(self, op: Any) -> None:
        matrices = [value for value in (op.weight, op.projection) if value is not None]
        expanded = matrices if holds_integers(op) else []
        for value in (*op.operands, *op.results):
            is_length = op.lengths is not None and value == op.lengths
            if value in expanded:
                continue  # the verifier of the op saw to it
            wanted = "i32 or i64" if is_length else "f32"
            if str(value.type.element_type) not in wanted.split():
                raise fail(op, f"tensors of {wanted}", value.type)

    def store(self, op: Any, bits: int, state: PassState) -> tuple[bool, str]:
        matrices = [value for value in (op.weight, op.projection) if value is not None]
        for matrix in matrices:
            if reason := cannot_store(matrix, state) or _few_weights(matrix, state):
                return False, reason
        names = {"weight": "scales", "projection": "projection_scales"}
        found = [
            store_weights(op, operand_number(op, operand), bits, state, name)
            for operand, name in names.items()
            if getattr(op, operand) is not None
        ]
        return True, "; of the projection ".join(found)

    def reference(self, op: Any, state: PassState) -> tuple[ir.Value, ...]:
        return self._results(op, [each.loop() for each in _directions(op, state)])

    def without_algorithm(self, op: Any, state: PassState) -> tuple[ir.Value, ...]:
        return self._results(op, [each.unrolled() for each in _directions(op, state)])

    def _results(self, op: Any, ways: list[tuple[ir.Value, ...]]) -> tuple[ir.Value, ...]:
        made = [ways[0]] if len(ways) == 1 else ways
        results = [_join([way[number] for way in made], axis) for number, axis in enumerate((2, 0, 0))]
        return tuple(results[: len(op.results)])


def _few_weights(matrix: ir.Value, state: PassState) -> str:
    """Return that a matrix is better stored without its zeros; "" where it has few."""
    array = read_constant(matrix, state)
    assert array is not None, "its weights can be stored"
    return "its zeros are left out" if np.count_nonzero(array) <= MOST_PACKED * array.size else ""


def _join(parts: Sequence[ir.Value], axis: int) -> ir.Value:
    if len(parts) == 1:
        return parts[0]
    shape = list(parts[0].type.shape)
    shape[axis] *= len(parts)
    return tensor.concat(ir.RankedTensorType.get(shape, parts[0].type.element_type), axis, parts)


def _directions(op: Any, state: PassState) -> list[_Direction]:
    weight, projection = decoded(op, op.weight, state), op.projection
    if projection is not None:
        projection = decoded(op, projection, state, "projection_scales")
    return [_Direction(op, number, weight, projection) for number in range(op.sizes.directions)]


@dataclass(frozen=True)
class _Direction:
    """One direction of a layer, as linalg.

    Attributes:
        weight, projection: of all directions, in f32.
    """

    op: Any
    number: int
    weight: ir.Value
    projection: ir.Value | None

    def loop(self) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Return the results of all steps, T x N x P, and the last state, 1 x N x P and 1 x N x H, by one loop."""
        op, s = self.op, self.op.sizes
        hidden, cell = self._start()
        results = reference.zeros([s.steps, s.sequences, s.outputs], op)
        bounds = [arith.ConstantOp(ir.IndexType.get(), bound).result for bound in (0, s.steps, 1)]
        loop = scf.ForOp(*bounds, [results, hidden, cell])
        with ir.InsertionPoint(loop.body):
            time = loop.induction_variable
            if self._is_backwards:
                time = arith.SubIOp(arith.ConstantOp(ir.IndexType.get(), s.steps - 1).result, time).result
            results, hidden, cell = loop.inner_iter_args
            y, hidden, cell = self._turn(time, hidden, cell)
            scf.YieldOp([_insert(y, results, time), hidden, cell])
        results, *last = loop.results
        return results, *(_expand(value) for value in last)

    def unrolled(self) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Return the same as `loop`, by code for each step."""
        hidden, cell = self._start()
        steps = range(self.op.sizes.steps)
        found: dict[int, ir.Value] = {}
        for time in reversed(steps) if self._is_backwards else steps:
            y, hidden, cell = self._turn(time, hidden, cell)
            found[time] = _expand(y)
        return _join([found[time] for time in steps], 0), _expand(hidden), _expand(cell)

    @property
    def _is_backwards(self) -> bool:
        return bool(self.op.direction.value == "reverse" or self.number)

    def _start(self) -> tuple[ir.Value, ir.Value]:
        op, s = self.op, self.op.sizes
        hidden = self._state(op.hidden, s.outputs)
        return hidden, hidden if op.cell is None else self._state(op.cell, s.units)

    def _turn(self, time: ir.Value | int, hidden: ir.Value, cell: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Return the result of a step, and hidden state and cell after it."""
        after, new_cell = self._step(_slice(self._part(self.op.input, 2), [time, 0, 0], [1]), hidden, cell)
        if self.op.lengths is None:
            return after, after, new_cell
        is_inside = self._is_inside(time)
        y = _choose(is_inside, after, reference.zeros(after.type.shape, self.op))
        return y, _choose(is_inside, after, hidden), _choose(is_inside, new_cell, cell)

    def _step(self, x: ir.Value, hidden: ir.Value, cell: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return hidden state and cell after a step; x is N x G H."""
        op, s, mode = self.op, self.op.sizes, self.op.mode.value
        a, b, d = op.three_activations
        if mode == "gru":
            sums = self._product(hidden, 0, 3)
            r, z = (self._activate(a, _sum(self._gate(x, g), self._gate(sums, g))) for g in (0, 1))
            n = self._activate(b, _sum(self._gate(x, 2), _times(r, self._gate(sums, 2))))
            return reference.elementwise([n, z, hidden], _mix), cell
        if mode == "gru_reset_first":
            sums = self._product(hidden, 0, 2)
            r, z = (self._activate(a, _sum(self._gate(x, g), self._gate(sums, g))) for g in (0, 1))
            n = self._activate(b, _sum(self._gate(x, 2), self._product(_times(r, hidden), 2, 3)))
            return reference.elementwise([n, z, hidden], _mix), cell
        sums = _sum(x, self._product(hidden, 0, s.gates))
        if mode == "rnn":
            return self._activate(a, sums), cell
        i, f, g, o = (self._gate(sums, number) for number in range(4))
        i, f = (self._activate(a, self._peep(gate, cell, number)) for number, gate in enumerate((i, f)))
        cell = _sum(_times(f, cell), _times(i, self._activate(b, g)))
        hidden = _times(self._activate(a, self._peep(o, cell, 2)), self._activate(d, cell, is_clipped=False))
        if self.projection is not None:
            hidden = self._matmul(
                hidden, self._rows(self.projection, s.outputs), reference.zeros([s.sequences, s.outputs], op)
            )
        return hidden, cell

    def _product(self, hidden: ir.Value, first: int, last: int) -> ir.Value:
        """Return the products of a state with the weights of some gates, and their biases: N x (last - first) H."""
        op, s = self.op, self.op.sizes
        shape, start, count = [s.sequences, (last - first) * s.units], first * s.units, (last - first) * s.units
        init = reference.zeros(shape, op)
        if op.bias is not None:
            bias = _slice(self._part(op.bias, 0), [start], [], [count])
            init = reference.broadcast(bias, shape, [0], op)
        weight = _slice(self._rows(self.weight, s.gates * s.units), [start, 0], [], [count, s.outputs])
        return self._matmul(hidden, weight, init)

    def _matmul(self, value: ir.Value, rows: ir.Value, init: ir.Value) -> ir.Value:
        return linalg.matmul(value, reference.transposed(rows, self.op), outs=[init])

    def _activate(self, activation: Activation, value: ir.Value, *, is_clipped: bool = True) -> ir.Value:
        if is_clipped and self.op.limits is not None:
            value = reference.apply(self.op.limits, value)
        return reference.apply(activation, value)

    def _peep(self, gate: ir.Value, cell: ir.Value, number: int) -> ir.Value:
        if self.op.peepholes is None:
            return gate
        units = self.op.sizes.units
        factors = _slice(self._part(self.op.peepholes, 0), [number * units], [], [units])
        return reference.elementwise([gate, cell, factors], lambda x, c, p: arith.addf(x, arith.mulf(c, p)))

    def _gate(self, values: ir.Value, number: int) -> ir.Value:
        units = self.op.sizes.units
        return _slice(values, [0, number * units], [], [values.type.shape[0], units])

    def _part(self, value: ir.Value, axis: int) -> ir.Value:
        """Return this direction's part of an operand."""
        shape = list(value.type.shape)
        shape[axis] //= self.op.sizes.directions
        starts = [self.number * size if place == axis else 0 for place, size in enumerate(shape)]
        return reference.widen(_slice(value, starts, [], shape))

    def _rows(self, value: ir.Value, rows: int) -> ir.Value:
        return reference.widen(_slice(value, [self.number * rows, 0], [], [rows, value.type.shape[1]]))

    def _state(self, value: ir.Value, width: int) -> ir.Value:
        sequences = self.op.sizes.sequences
        return reference.widen(_slice(value, [self.number, 0, 0], [1], [sequences, width]))

    def _is_inside(self, time: ir.Value | int) -> ir.Value:
        """Return for each sequence whether a step is before its end."""
        i64, lengths = ir.IntegerType.get_signless(64), self.op.lengths
        element = lengths.type.element_type
        if isinstance(time, int):
            time = arith.ConstantOp(ir.IndexType.get(), time).result
        now = arith.IndexCastOp(element if element.width < 64 else i64, time).result
        compare = arith.CmpIPredicate.slt
        boolean = ir.IntegerType.get_signless(1)
        return reference.elementwise([lengths], lambda length: arith.cmpi(compare, now, length), boolean)


def _mix(n: ir.Value, z: ir.Value, h: ir.Value) -> ir.Value:
    return arith.addf(n, arith.mulf(z, arith.subf(h, n)))


def _sum(a: ir.Value, b: ir.Value) -> ir.Value:
    return reference.elementwise([a, b], arith.addf)


def _times(a: ir.Value, b: ir.Value) -> ir.Value:
    return reference.elementwise([a, b], arith.mulf)


def _slice(value: ir.Value, starts: Sequence[Any], ones: Sequence[int], sizes: Sequence[int] | None = None) -> ir.Value:
    """Return a part of a tensor; dimensions of size 1 in front, as many as `ones` has, are dropped."""
    shape = list(value.type.shape[len(ones) :]) if sizes is None else list(sizes)
    type_ = ir.RankedTensorType.get(shape, value.type.element_type)
    dynamic = [start for start in starts if isinstance(start, ir.Value)]
    fixed = [ir.ShapedType.get_dynamic_size() if isinstance(start, ir.Value) else start for start in starts]
    full = [*ones, *shape]
    return tensor.ExtractSliceOp(type_, value, dynamic, [], [], fixed, full, [1] * len(full)).result


def _insert(value: ir.Value, into: ir.Value, time: ir.Value) -> ir.Value:
    """Put N x P values at a step of T x N x P ones."""
    shape = [1, *value.type.shape]
    dynamic = ir.ShapedType.get_dynamic_size()
    return tensor.InsertSliceOp(value, into, [time], [], [], [dynamic, 0, 0], shape, [1] * 3).result


def _expand(value: ir.Value) -> ir.Value:
    shape = [1, *value.type.shape]
    type_ = ir.RankedTensorType.get(shape, value.type.element_type)
    return tensor.expand_shape(type_, value, [[0, 1], [2]], [], shape)


def _choose(is_inside: ir.Value, value: ir.Value, other: ir.Value) -> ir.Value:
    """Return rows of one matrix where something holds, and of the other elsewhere."""
    destination = tensor.empty(list(value.type.shape), is_inside.type.element_type)
    spread = linalg.broadcast(is_inside, outs=[destination], dimensions=[1]).result[0]
    return reference.elementwise([value, other, spread], lambda a, b, inside: arith.select(inside, a, b))
