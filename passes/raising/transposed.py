"""Transposed convolutions, which come as convolutions over an input with zeros between its elements.

Outputs whose places differ by a multiple of the stride see the same taps: they are one convolution over the input
itself, with every stride-th tap. Its results, a phase for each place within a stride, are put between each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import tensor

from patc.integers import ceil_div
from patc.passes.base import PassState
from patc.passes.ir.constants import constant_name, make_constant, read_constant
from patc.passes.ir.windows import Window
from patc.passes.raising.linalg_layers import Build, cropped, is_filled, is_zero, reshape_sources


@dataclass(frozen=True)
class Spread:
    """An input with zeros between and around its elements.

    Attributes:
        source: the input.
        offsets: vertical and horizontal, of its first element.
        strides: from one element to the next.
    """

    source: ir.Value
    offsets: tuple[int, int]
    strides: tuple[int, int]

    @staticmethod
    def read(value: ir.Value, state: PassState) -> Spread | None:
        """Return what a value is the spread form of, or None."""
        if isinstance(value.owner, ir.Block) or value.owner.operation.name != "tensor.insert_slice":
            return None
        slice_, source = value.owner.opview, value.owner.operands[0]
        offsets, strides = list(slice_.static_offsets), list(slice_.static_strides)
        is_whole = len(value.owner.operands) == 2 and list(slice_.static_sizes) == list(source.type.shape)
        if not is_whole or offsets[:2] != [0, 0] or strides[:2] != [1, 1] or len(strides) != 4:
            return None
        around = value.owner.operands[1]
        if not is_filled(around, is_zero):
            zeros = read_constant(around, state)
            if zeros is None or zeros.any():
                return None
        inner = Spread.read(source, state) or Spread(source, (0, 0), (1, 1))  # one axis after the other
        (top, left), (down, right) = offsets[2:], strides[2:]
        places = top + down * inner.offsets[0], left + right * inner.offsets[1]
        return Spread(inner.source, places, (down * inner.strides[0], right * inner.strides[1]))


@dataclass(frozen=True)
class _Phase:
    """Outputs of one axis that see the same taps.

    Attributes:
        first, step: the taps: the first one, and from one to the next.
        window: kernel size, dilation, and pads before and after.
        places: how many outputs there are.
    """

    first: int
    step: int
    window: tuple[int, int, int, int]
    places: int


@dataclass(frozen=True)
class Transposed:
    """A convolution of stride 1 over a spread input.

    Attributes:
        spread: the input.
        weight: F x C/groups x KH x KW.
        window: its kernel and dilations count.
        shape: of the result.
    """

    spread: Spread
    weight: ir.Value
    window: Window
    shape: Sequence[int]

    def raised(self, build: Build, state: PassState) -> ir.Value | None:
        """Return the result; None where the weight is not constant, or where outputs see no tap at all.

        Args:
            build: makes a convolution.
        """
        array, axes = read_constant(self.weight, state), [self._axis(0), self._axis(1)]
        if array is None or not all(phases for _, phases in axes):
            return None
        crops, (rows, columns) = [crop for crop, _ in axes], [phases for _, phases in axes]
        results = {
            (place[0], place[1]): build(*self._phase(rows[place[0]], columns[place[1]], array, state))
            for place in itertools.product(range(len(rows)), range(len(columns)))
        }
        joined = self._join(results, [sum(phase.places for phase in axis) for axis in (rows, columns)])
        return cropped(joined, [0, 0, *crops], self.shape)

    def _axis(self, axis: int) -> tuple[int, list[_Phase]]:
        """Return how many outputs are computed in front of the first, and the phases of all; none where there is no
        way."""
        size, result, offset = self.spread.source.type.shape[axis + 2], self.shape[axis + 2], self.spread.offsets[axis]
        stride, taps, dilation = self.spread.strides[axis], self.window.kernel[axis], self.window.dilations[axis]
        phases = _phases((size, result, offset), stride, taps, dilation)
        reach = dilation * (taps - 1)
        if phases or offset >= reach:
            return 0, phases
        # Pads cut off whole elements of the input: what they cut off is computed, and left out then.
        whole = max(result + reach - offset, (size - 1) * stride + reach + 1)
        return reach - offset, _phases((size, whole, reach), stride, taps, dilation)

    def _phase(
        self, rows: _Phase, columns: _Phase, array: np.ndarray, state: PassState
    ) -> tuple[ir.Value, ir.Value, Window, list[int]]:
        """Return input, weight, window and result's shape of the convolution of one phase."""
        taps = array[:, :, rows.first :: rows.step, columns.first :: columns.step]
        is_all = taps.shape == array.shape
        name = constant_name(self.weight)
        weight = self.weight if is_all else make_constant(np.ascontiguousarray(taps), name, state)
        (height, down, top, bottom), (width, right, left, end) = rows.window, columns.window
        window = Window((height, width), (1, 1), (top, left, bottom, end), (down, right))
        return self.spread.source, weight, window, [*self.shape[:2], rows.places, columns.places]

    def _join(self, results: dict[tuple[int, int], ir.Value], size: Sequence[int]) -> ir.Value:
        if len(results) == 1:
            return results[0, 0]
        joined = tensor.empty([*self.shape[:2], *size], self.weight.type.element_type)
        for place, result in results.items():
            sizes, strides = list(result.type.shape), [1, 1, *self.spread.strides]
            joined = tensor.insert_slice(result, joined, [], [], [], [0, 0, *place], sizes, strides)
        return joined


def _phases(extents: tuple[int, int, int], stride: int, taps: int, dilation: int) -> list[_Phase]:
    """Return the phases of one axis, none where one sees no tap or leaves out the first or last of the input.

    Args:
        extents: sizes of the input and of the result, and the place of the first element when they are spread.
    """
    size, result, offset = extents
    shared = math.gcd(stride, dilation)
    step, apart = stride // shared, dilation // shared
    phases = []
    for place in range(min(stride, result)):
        first = next((tap for tap in range(min(step, taps)) if (place + tap * dilation - offset) % stride == 0), None)
        if first is None:
            return []
        count, places = len(range(first, taps, step)), ceil_div(result - place, stride)
        before = (offset - place - first * dilation) // stride
        after = places - before + (count - 1) * apart - size
        if before < 0 or after < 0:
            return []
        phases.append(_Phase(first, step, (count, apart, before, after), places))
    return phases


# Weights.


def turn_weights(block: ir.Block, state: PassState) -> bool:
    """Compute the weights of transposed convolutions, turned element by element; return whether there are any.

    The ops that are replaced stay, without users.
    """
    found = False
    for op in [op.operation for op in block.operations]:
        turned = _turn(op, state) if op.name == "linalg.generic" and len(op.operands) == 1 else None
        if turned is not None:
            op.result.replace_all_uses_with(turned)
            found = True
    return found


def _turn(op: ir.Operation, state: PassState) -> ir.Value | None:
    """Return what a linalg.generic picks of a constant, or None where it does anything else."""
    shape, places = list(op.result.type.shape), dict[ir.Value, Any]()
    if not op.result.type.has_static_shape:
        return None
    for inner in (inner.operation for inner in op.regions[0].blocks[0].operations):
        if inner.name == "linalg.index":
            axis = inner.attributes["dim"].value
            places[inner.result] = np.arange(shape[axis]).reshape([-1] + [1] * (len(shape) - axis - 1))
        elif inner.name == "arith.subi":
            places[inner.result] = _number(inner.operands[0], places) - _number(inner.operands[1], places)
        elif inner.name == "tensor.extract":
            source, *where = inner.operands
            root = [source, *reshape_sources(source)][-1]
            array = read_constant(root, state)
            if array is None:
                return None
            array = array.reshape(source.type.shape)
            picked = np.broadcast_to(array[tuple(_number(place, places) for place in where)], shape)
            with ir.InsertionPoint(op), op.location:
                return make_constant(np.ascontiguousarray(picked), constant_name(root), state)
        else:
            return None
    return None


def _number(value: ir.Value, known: dict[ir.Value, Any]) -> Any:
    return known[value] if value in known else value.owner.operation.attributes["value"].value
