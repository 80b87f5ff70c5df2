"""Layers without weights on words on a GPU: elements become quantised, stop being so, are added up or copied."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch_mlir import ir

from patc.passes.ir.elements import WORD
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.gpu.kernel import LANES, Kernel
from patc.passes.kernels.gpu.layer import GpuActivation, GpuArray, GpuLayer
from patc.passes.kernels.gpu.planes import for_planes
from patc.passes.kernels.gpu.tensors import GpuTensor, Place, View
from patc.passes.kernels.gpu.words import Packing, Steps, Unpacking, join_members

Compute: TypeAlias = Callable[[Place, ir.Value], Vectors]


@dataclass(frozen=True)
class Summands:
    """What the words of a result are made of.

    Attributes:
        factors: of the sources, in units of the sum.
        steps: see `Steps`, of a single source that is not quantised; None else.
        depth: channels of the result.
    """

    factors: tuple[float, ...]
    steps: GpuArray | None
    depth: int


def word_planes(k: Kernel, layer: GpuLayer, summands: Summands) -> None:
    """Emit what makes planes of words, of one or two tensors, or of floats, of one."""
    k.is_exact = True
    if layer.output.quantisation is None:
        for_planes(k, layer, _floats(k, layer, summands))
    elif summands.steps is not None:
        for_planes(k, layer, _quantised(k, layer, summands.depth, summands.steps))
    elif [source.quantisation for source in layer.sources] == [layer.output.quantisation]:
        for_planes(k, layer, _copied(k, layer))
    else:
        for_planes(k, layer, _sums(k, layer, summands))


class _Rows:
    """The vectors that a thread reads of a tensor."""

    def __init__(self, k: Kernel, tensor: GpuTensor, rows: int) -> None:
        self._k, self._view, self._rows = k, View(k, tensor), rows

    def read(self, place: Place, channel: Index) -> Vectors:
        """Return those of a plane, row by row."""
        k, view = self._k, self._view
        plane = view.channel(place.image, channel)
        return [view.load(view.at(plane, k.add(place.row, row), place.vector)) for row in range(self._rows)]


def _copied(k: Kernel, layer: GpuLayer) -> Compute:
    rows = _Rows(k, layer.source, layer.schedule.rows)
    return rows.read


def _sums(k: Kernel, layer: GpuLayer, summands: Summands) -> Compute:
    given = []
    for source, factor in zip(layer.sources, summands.factors, strict=True):
        assert source.quantisation is not None, "numbers in f32 are converted alone"
        given.append((_Rows(k, source, layer.schedule.rows), Unpacking(k, source.quantisation), k.real(factor)))
    assert layer.output.quantisation is not None, "words are made"
    packing = Packing(k, layer.output.quantisation, layer.epilogue.activation)
    activation = GpuActivation(k, layer.epilogue, summands.depth)

    def compute(place: Place, plane: ir.Value) -> Vectors:
        constants = [activation.constants(k.add(k.mul(plane, WORD), member)) for member in range(WORD)]
        terms = [
            [unpacking.floats(words, factor) for words in rows.read(place, plane)] for rows, unpacking, factor in given
        ]
        made = []
        for parts in zip(*terms, strict=True):
            values = [functools.reduce(k.plus, some) for some in zip(*parts, strict=True)]
            made.append(packing.words(values, constants))
        return made

    return compute


def _quantised(k: Kernel, layer: GpuLayer, depth: int, table: GpuArray) -> Compute:
    assert layer.output.quantisation is not None, "words are made"
    rows = _Rows(k, layer.source, layer.schedule.rows)
    steps, last = Steps(k, layer.output.quantisation, table), k.subtract(k.number(depth), k.index(1))

    def compute(place: Place, plane: ir.Value) -> Vectors:
        channels = [k.smaller(k.index(k.add(k.mul(plane, WORD), member)), last) for member in range(WORD)]
        read = [rows.read(place, channel) for channel in channels]
        return [join_members(k, [steps.integer(value) for value in some]) for some in zip(*read, strict=True)]

    return compute


def _floats(k: Kernel, layer: GpuLayer, summands: Summands) -> Compute:
    source, (factor,) = layer.source, summands.factors
    assert source.quantisation is not None, "words are read"
    rows, unpacking = _Rows(k, source, layer.schedule.rows), Unpacking(k, source.quantisation)
    scale = k.real(factor)

    def compute(place: Place, channel: ir.Value) -> Vectors:
        plane, member = k.divide(channel, WORD)
        numbers = [unpacking.member(words, member) for words in rows.read(place, plane)]
        return [k.times(k.convert(number, k.f32), k.broadcast(scale, LANES)) for number in numbers]

    return compute


def word_rows(k: Kernel, layer: GpuLayer, summands: Summands) -> None:
    """Emit what makes rows of words, of one tensor, or of floats: a thread for each word, whose numbers are
    neighbours."""
    k.is_exact = True
    source, output = layer.source, layer.output
    memory, start = k.elements(source.memory, source.start, source.element)
    target, first = k.elements(output.memory, output.start, output.element)
    given, made = (k.mul(k.group("y"), k.number(tensor.width)) for tensor in (source, output))
    number = k.index(k.add(k.mul(k.group("x"), layer.schedule.threads), k.thread()))
    depth, column = k.number(summands.depth), k.mul(number, WORD)

    def read() -> ir.Value:
        """Return the four numbers, as integers with the zero point or as floats in units of the result."""
        if source.quantisation is not None:
            word = k.load_scalar(memory, k.add(k.add(start, given), number))
            return k.compose(Unpacking(k, source.quantisation).floats(word, k.real(summands.factors[0])))
        assert summands.steps is not None and output.quantisation is not None, "words are made"
        last = k.subtract(depth, k.index(1))
        columns = [k.smaller(k.index(k.add(column, member)), last) for member in range(WORD)]
        values = k.compose([k.load_scalar(memory, k.add(k.add(start, given), each)) for each in columns])
        return Steps(k, output.quantisation, summands.steps).integer(values)

    def one_word() -> None:
        values = read()
        if output.quantisation is None:
            for member in range(WORD):
                place = k.add(column, member)
                k.when(k.less(place, depth), functools.partial(store, k.extract(values, member), place))
        elif source.quantisation is None:
            store(join_members(k, [k.extract(values, member) for member in range(WORD)]), number)
        else:
            store(Packing(k, output.quantisation, layer.epilogue.activation).word(values), number)

    def store(value: ir.Value, place: Index) -> None:
        k.store_element(value, target, k.add(k.add(first, made), place))

    k.when(k.less(column, depth), one_word)
