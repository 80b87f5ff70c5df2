"""The memory of a function that is being built: the buffers of its tensors, and constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, memref

from patc.dialects.attributes import Layout
from patc.passes.algorithms.host.buffers import Buffer, count_elements, flat_type, layout_of, slack
from patc.passes.algorithms.host.functions import KernelFunctions
from patc.passes.algorithms.host.images import Images
from patc.passes.base import PassState, fail
from patc.passes.ir.constants import constant_name, read_constant
from patc.passes.ir.elements import WORD, element_bytes, memory_shape, memory_type
from patc.passes.ir.views import Part
from patc.passes.kernels.builder import Builder


class Memory:
    """The memory of a function.

    Attributes:
        builder: of the function.
        kernels: that it calls.
        parts: tensors that lie in the memory of others.
        images: those of a call, of a dynamic batch; None where all are computed.
        rings: where tensors are, of which memory holds some rows.
        cut: tensors that some layers read or write image by image: they are in bytes.
    """

    def __init__(
        self,
        block: ir.Block,
        kernels: KernelFunctions,
        parts: Mapping[ir.Value, Part],
        images: Images | None = None,
    ) -> None:
        self.builder = Builder(block)
        self.kernels = kernels
        self.parts = parts
        self.images = images
        self.rings: dict[ir.Value, Buffer] = {}
        self.cut: set[ir.Value] = set()
        self._roots: dict[ir.Value, ir.Value] = {}
        self.block = block
        self._buffers: dict[ir.Value, Buffer] = {}
        self._outputs: dict[ir.Value, ir.Value] = {}
        self._constants: dict[object, ir.Value] = {}

    @property
    def state(self) -> PassState:
        return self.kernels.state

    def place(self, value: ir.Value, memory: ir.Value) -> None:
        """Say where a tensor is."""
        self._buffers[value] = Buffer.of(value, memory)

    def reshape(self, source: ir.Value, result: ir.Value) -> None:
        """Let a row-major tensor be in the memory of another one."""
        self._buffers[result] = replace(Buffer.of(result, self.buffer(source).memory), layout=None)

    def reserve(self, value: ir.Value, memory: ir.Value) -> None:
        """Say where a tensor will be made."""
        self._outputs[value] = memory

    def reserved(self, value: ir.Value) -> ir.Value | None:
        """Return where a tensor is made, or None if it has a buffer of its own."""
        return self._outputs.get(value)

    def result(self, value: ir.Value) -> Buffer:
        """Return the buffer of a result: a ring, what was reserved, a part of another tensor's, or a new allocation."""
        if value in self.rings:
            self._buffers[value] = self.rings[value]
            return self._buffers[value]
        memory = self._part(value) if value in self.parts else self.reserved(value)
        if memory is None:
            elements, element = count_elements(memory_shape(value.type), layout_of(value)), memory_type(value.type)
            allocate = self._allocate_bytes if value in self.cut else self.allocate
            memory = allocate(elements + slack(value), element)
        planes = memory_shape(self.parts[value].root.type)[1] if value in self.parts else None
        self._buffers[value] = Buffer.of(value, memory, planes)
        return self._buffers[value]

    def _part(self, value: ir.Value) -> ir.Value:
        """Return the memory of a tensor that lies in another one's."""
        part, element = self.parts[value], memory_type(value.type)
        if part.root not in self._roots:
            room = max(slack(other) for other, place in self.parts.items() if place.root == part.root)
            size = count_elements(memory_shape(part.root.type), layout_of(part.root)) + room
            self._roots[part.root] = self.allocate(size * element_bytes(element), ir.IntegerType.get_signless(8))
        # Channels of words are joined and cut in whole words.
        channel = part.channel if element == value.type.element_type else part.channel // WORD
        start = self.builder.index(channel * Layout.of(value.type).plane * element_bytes(element))
        images, channels = memory_shape(value.type)[:2]
        planes = (images - 1) * memory_shape(part.root.type)[1] + channels
        type_ = flat_type(planes * Layout.of(value.type).plane, element)
        with self._in_function():
            return memref.ViewOp(type_, self._roots[part.root], start, []).result

    def buffer(self, value: ir.Value) -> Buffer:
        """Return the buffer of an activation, or of a constant in its place.

        Raises:
            PatcError: a constant whose values are nowhere.
        """
        if value not in self._buffers and value in self.parts:
            return self.result(value)
        if value not in self._buffers:
            array = read_constant(value, self.state)
            if array is None:  # every other op was converted before
                raise fail(value.owner, "values in the text", value.owner.attributes.get("value", "none"))
            self.place(value, self.constant(array, value, ""))
        return self._buffers[value]

    def constant(self, array: np.ndarray, origin: ir.Value, role: str) -> ir.Value:
        """Return an array in memory; it keeps name and form of the constant `origin` that it was made from."""
        name = constant_name(origin)
        key = (name or origin, role)
        if key not in self._constants:
            label = ".".join(part for part in (name or "constant", role) if part)
            symbol, type_ = self.kernels.add_global(label, array, inline=name is None)
            with self._in_function():
                self._constants[key] = memref.GetGlobalOp(type_, symbol).result
        return self._constants[key]

    def allocate(self, elements: int, element: ir.Type) -> ir.Value:
        """Return new memory, which is there to the end of the function."""
        with self._in_function():
            return memref.AllocOp(flat_type(elements, element), [], []).result

    def _allocate_bytes(self, elements: int, element: ir.Type) -> ir.Value:
        """Return new memory that is a view of bytes."""
        root = self.allocate(elements * element_bytes(element), ir.IntegerType.get_signless(8))
        with self._in_function():
            return memref.ViewOp(flat_type(elements, element), root, self.builder.index(0), []).result

    def _in_function(self) -> ir.InsertionPoint:
        """Return where code is written now or, in a loop, the place in front of that."""
        now = ir.InsertionPoint.current
        if now.block == self.block:
            return now
        loop = now.block.owner.operation
        while loop.block != self.block:
            loop = loop.parent.operation
        return ir.InsertionPoint(loop)

    def allocate_zero(self, element: ir.Type) -> ir.Value:
        """Return memory of one element, zero when the function starts."""
        with ir.InsertionPoint.at_block_begin(self.block):
            memory = self.allocate(1, element)
            zero = arith.ConstantOp(element, 0.0).result
            memref.StoreOp(zero, memory, [arith.ConstantOp(self.builder.index_type, 0).result])
        return memory
