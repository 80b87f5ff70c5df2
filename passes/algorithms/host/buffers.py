"""Tensors of a function in memory: flat memrefs, in the layouts of the tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import memref

from patc.dialects.attributes import Layout
from patc.dialects.quantised import Quantisation
from patc.passes.ir.elements import element_bytes, memory_shape
from patc.passes.ir.planes import as_planes
from patc.passes.kernels.builder import Index
from patc.passes.kernels.host.rows import Tensor

SLACK_BYTES = 256  # that vector loads may read behind the last plane of a buffer, for each step of their stride


def flat_type(elements: int, element: ir.Type) -> ir.MemRefType:
    """Return the type of so many elements, one behind the other."""
    return ir.MemRefType.get([elements], element)


def count_elements(shape: Sequence[int], layout: Layout | None) -> int:
    """Return the elements of a tensor of such a shape in memory, without slack; `layout` is None for a row-major
    one."""
    return math.prod(shape) if layout is None else shape[0] * shape[1] * layout.plane


def slack(value: ir.Value) -> int:
    """Return the elements behind a tensor that its users may read."""
    users = [use.owner.opview for use in value.uses]
    stride = max((max(user.strides) for user in users if "strides" in user.attributes), default=1)
    return SLACK_BYTES // element_bytes(value.type) * stride


@dataclass(frozen=True)
class Buffer:
    """A tensor in memory.

    Attributes:
        planes: from one image to the next where the tensor lies in one of more channels, else None.
        end: where a plane ends, behind `layout.plane` where memory holds some rows of it; None where that is the end.
        quantisation: what its numbers stand for; None for those that stand for themselves.
    """

    memory: ir.Value
    shape: tuple[int, ...]
    layout: Layout | None
    planes: int | None = None
    end: int | None = None
    quantisation: Quantisation | None = None

    @staticmethod
    def of(value: ir.Value, memory: ir.Value, planes: int | None = None) -> Buffer:
        """Return a tensor value as it lies in some memory."""
        quantisation = Quantisation.of(value.type)
        return Buffer(memory, memory_shape(value.type), layout_of(value), planes, quantisation=quantisation)

    @property
    def memories(self) -> list[ir.Value]:
        """What a kernel has to be called with."""
        return [self.memory]

    def inside(self, arguments: Iterator[ir.Value]) -> Tensor:
        """Return the tensor as a kernel sees it through the next of its arguments."""
        images, channels, height, width = as_planes(self.shape)
        layout = self.layout or Layout.packed(height, width)
        end = self.end or layout.plane
        planes = self.planes or channels
        return Tensor(next(arguments), images, channels, height, width, layout, planes, end, self.quantisation)

    def flat(self, rows: int) -> Buffer:
        """Return the tensor with each plane, whose rows follow each other, as other rows."""
        images, channels, height, width = self.shape
        plane = (self.layout or Layout.packed(height, width)).plane
        columns = height * width // rows
        shape, layout = (images, channels, rows, columns), Layout(row=columns, plane=plane)
        return Buffer(self.memory, shape, layout, self.planes, quantisation=self.quantisation)


def layout_of(value: ir.Value) -> Layout | None:
    """Return the layout of a tensor, or None for one of another rank than 4."""
    return Layout.of(value.type) if len(value.type.shape) == 4 else None


def first_of(memory: ir.Value, count: Index) -> ir.Value:
    """Return the first elements of a memref."""
    if memory.type.shape == [count]:
        return memory
    dynamic = ir.ShapedType.get_dynamic_size()
    given, size = ([], count) if isinstance(count, int) else ([count], dynamic)
    type_ = flat_type(size, memory.type.element_type)
    return memref.ReinterpretCastOp(type_, memory, [], given, [], [0], [size], [1]).result
