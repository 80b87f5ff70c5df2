"""What a kernel for GPUs computes: tensors, window, epilogue and schedule of one layer."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch_mlir import ir

from patc.dialects.attributes import Activation
from patc.dialects.joins import Join
from patc.dialects.schedules import Schedule
from patc.passes.ir.windows import Window
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.gpu.kernel import Kernel, Memory
from patc.passes.kernels.gpu.tensors import GpuTensor
from patc.passes.kernels.values import apply_activation, finish


@dataclass(frozen=True)
class GpuArray:
    """A constant array in the buffer of weights; `start` is its first byte there, a multiple of 64."""

    start: int
    element: ir.Type

    def scalars(self, k: Kernel) -> tuple[ir.Value, ir.Value]:
        """Return the buffer as single elements, and the number of the array's first one."""
        return k.elements(Memory.WEIGHTS, self.start, self.element)

    def vectors(self, k: Kernel) -> tuple[ir.Value, ir.Value]:
        """Return the buffer as vectors, and the number of the array's first one."""
        return k.elements(Memory.WEIGHTS, self.start, k.vector_type(self.element))


@dataclass(frozen=True)
class GpuEpilogue:
    """What happens to a sum of products before it is stored; the bias is by output channel."""

    bias: GpuArray | None = None
    residual: GpuTensor | None = None
    activation: Activation = field(default_factory=Activation)
    table: GpuArray | None = None
    join: Join = field(default_factory=Join)


class GpuActivation:
    """The activation of a layer in its kernel, and how a residual joins what it is applied to; of its constants, those
    that are one number a channel are in a table."""

    def __init__(self, k: Kernel, epilogue: GpuEpilogue, channels: int) -> None:
        self._k = k
        self._activation = epilogue.activation
        self._join = epilogue.join
        self._table = None if epilogue.table is None else epilogue.table.scalars(k)
        self._channels = k.number(channels) if len(self._activation.arrays) > 1 else 0

    def of(self, value: ir.Value, channel: Index, residual: ir.Value | None = None) -> ir.Value:
        """Return the activation of a vector, or of a scalar, in some channel, which a residual may join."""
        k, arrays = self._k, self.constants(channel)
        joined = None if residual is None else (residual, self._join)
        return finish(k, value, joined, lambda value: apply_activation(k, value, self._activation, arrays))

    def constants(self, channel: Index) -> Vectors:
        """Return the constants of a channel that are one number a channel."""
        if self._table is None:
            return []
        k, (memory, first) = self._k, self._table
        places = (k.mul(self._channels, number) for number in range(len(self._activation.arrays)))
        return [k.load_scalar(memory, k.add(k.add(first, channel), place)) for place in places]


class RowEpilogue:
    """The epilogue of a fully connected layer, whose rows lie one after the other, element by element."""

    def __init__(self, k: Kernel, epilogue: GpuEpilogue, columns: int) -> None:
        self._k = k
        self._bias = None if epilogue.bias is None else epilogue.bias.scalars(k)
        self._activation = GpuActivation(k, epilogue, columns)
        joined = epilogue.residual
        self._residual = None if joined is None else k.elements(joined.memory, joined.start, joined.element)

    def of(self, value: ir.Value, column: Index, place: Index) -> ir.Value:
        """Return what is stored of a sum of products; `place` counts elements from the first one of the result."""
        k = self._k
        if self._bias is not None:
            memory, first = self._bias
            value = k.plus(value, k.convert(k.load_scalar(memory, k.add(first, column)), k.accumulator))
        if self._residual is None:
            return self._activation.of(value, column)
        memory, first = self._residual
        return self._activation.of(value, column, k.load_scalar(memory, k.add(first, place)))


@dataclass(frozen=True)
class GpuLayer:
    """A layer without its weights.

    Attributes:
        sources: the activations that it works on; all but combinations of two have one.
        output: the result.
        schedule: how threads divide it.
        window: what slides over the source, of one element for layers that have no window.
    """

    sources: tuple[GpuTensor, ...]
    output: GpuTensor
    schedule: Schedule
    window: Window = field(default_factory=lambda: Window((1, 1)))
    epilogue: GpuEpilogue = field(default_factory=GpuEpilogue)

    @property
    def source(self) -> GpuTensor:
        """The only source."""
        (source,) = self.sources
        return source
