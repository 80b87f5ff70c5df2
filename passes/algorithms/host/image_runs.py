"""Layers that compute image by image: a loop over images, or one for each thread, whose turns call their kernels.

What only these layers read is memory of one image, which each thread has of its own. Threads get equally many images;
of each one that is left over they compute parts, layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, memref, scf

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.buffers import Buffer, count_elements, first_of, flat_type, layout_of, slack
from patc.passes.algorithms.host.memory import Memory
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.stamps import Stamps
from patc.passes.ir.arena import lifetime_of, place
from patc.passes.ir.elements import element_bytes, memory_shape, memory_type
from patc.passes.ir.one_image import OneImage
from patc.passes.ir.planes import is_flat, row_tiles
from patc.passes.kernels.builder import Builder, Index


class _ImageMemory(Memory):
    """The memory of a turn of the loop, each of which makes all that it reads there.

    Attributes:
        body: of the loop.
        made: what was allocated in it.
    """

    def __init__(self, outer: Memory, body: ir.Block) -> None:
        super().__init__(outer.block, outer.kernels, {})
        self.builder = outer.builder
        self.body = body
        self.made: list[Any] = []
        self._outer = outer

    def allocate(self, elements: int, element: ir.Type) -> ir.Value:
        with ir.InsertionPoint.at_block_begin(self.body):
            self.made.append(memref.AllocOp(flat_type(elements, element), [], []))
        return self.made[-1].result

    def allocate_zero(self, element: ir.Type) -> ir.Value:
        memory = self.allocate(1, element)
        memref.StoreOp(arith.ConstantOp(element, 0.0).result, memory, [self.builder.index(0)])
        return memory

    def constant(self, array: np.ndarray, origin: ir.Value, role: str) -> ir.Value:
        return self._outer.constant(array, origin, role)


@dataclass(frozen=True)
class ImageRun:
    """Layers that follow each other, with their algorithms and schedules, and the memory of their function."""

    layers: Sequence[tuple[HostAlgorithm, Any, Schedule]]
    memory: Memory

    @property
    def b(self) -> Builder:
        return self.memory.builder

    @cached_property
    def ops(self) -> list[Any]:
        return [op for _, op, _ in self.layers]

    @property
    def images(self) -> int:
        return int(self.ops[0].result.type.shape[0])

    @property
    def threads(self) -> int:
        return self.layers[0][2].threads

    @cached_property
    def results(self) -> list[ir.Value]:
        """What others read, too."""
        own = {op.operation for op in self.ops}
        return [
            op.result
            for op in self.ops
            if op.result in self.memory.parts or not all(use.owner.operation in own for use in op.result.uses)
        ]

    def emit(self) -> ir.Value:
        """Emit the loop, and return where the time stamps that each layer took are."""
        whole = {value: self.memory.result(value) for value in self.results}
        copies = OneImage(self.ops)
        whole |= {value: self.memory.buffer(value) for value in copies.inputs}
        stamps = Stamps.start(self.memory, len(self.layers))
        counted = self.memory.images
        count: Index = self.images if counted is None else counted.count
        if self.threads == 1:
            self._loop((0, count), None, copies, whole, stamps)
        else:
            self._share(count, copies, whole, stamps)
        copies.erase()
        return stamps.spent

    def _share(self, count: Index, copies: OneImage, whole: dict[ir.Value, Buffer], stamps: Stamps) -> None:
        """Let each thread compute as many of the images, and parts of those that are left."""
        b = self.b
        share, left = b.divide(count, self.threads)
        if share != 0:

            def part(thread: ir.Value) -> None:
                images = b.mul(thread, share), b.mul(b.add(thread, 1), share)
                self._loop(images, thread, copies, whole, stamps)

            b.parallel(self.threads, part)
        if left != 0:
            self._loop((b.mul(share, self.threads), count), None, copies, whole, stamps)

    def _loop(
        self,
        images: tuple[Index, Index],
        thread: ir.Value | None,
        copies: OneImage,
        whole: dict[ir.Value, Buffer],
        stamps: Stamps,
    ) -> None:
        """Emit a loop over images, up to the second number; `thread` is None where all threads compute each of them."""
        b = self.b
        loop = scf.ForOp(b.index(images[0]), b.index(images[1]), b.index(1))
        memory = _ImageMemory(self.memory, loop.body)
        with ir.InsertionPoint(loop.body):
            self._one_image(loop.induction_variable, thread, memory, copies, whole, stamps)
            scf.YieldOp([])
            self._place(memory, thread)

    def _place(self, memory: _ImageMemory, thread: ir.Value | None) -> None:
        """Let what is allocated in turns lie in one piece of memory, of each thread that has turns, in front of the
        loop."""
        order = {op.operation: number for number, op in enumerate(memory.body.operations)}
        offsets, size = place([lifetime_of(op, order) for op in memory.made])
        copies = 1 if thread is None else self.threads
        root = self.memory.allocate(copies * size, ir.IntegerType.get_signless(8))
        b = self.b
        with ir.InsertionPoint.at_block_begin(memory.body):
            for op, offset in zip(memory.made, offsets, strict=True):
                shift = b.index(b.add(b.mul(0 if thread is None else thread, size), offset))
                op.result.replace_all_uses_with(memref.ViewOp(op.result.type, root, shift, []).result)
        for op in memory.made:
            op.operation.erase()

    def _one_image(
        self,
        image: Index,
        thread: ir.Value | None,
        memory: Memory,
        copies: OneImage,
        whole: dict[ir.Value, Buffer],
        stamps: Stamps,
    ) -> None:
        for value, cut in copies.inputs.items():
            memory.place(cut, self._input(cut, whole[value], image, memory))
        later: list[tuple[ir.Value, ir.Value]] = []
        for op, copy in zip(self.ops, copies.ops, strict=True):
            if op.result in whole:
                place, is_own = self._output(copy.result, whole[op.result], image, memory)
                memory.reserve(copy.result, place)
                if is_own:
                    later.append((place, self._slice(copy.result, whole[op.result], image)))
        for number, ((algorithm, _, schedule), copy) in enumerate(zip(self.layers, copies.ops, strict=True)):
            divided = _divided(algorithm, copy, schedule if thread is None else replace(schedule, threads=1))
            with copy.location:
                algorithm.emit(HostSite(copy, divided, memory))
            self.b.when_equal(0 if thread is None else thread, 0, partial(stamps.add, number))
        for made, place in later:
            memref.CopyOp(first_of(made, place.type.shape[0]), place)

    def _input(self, cut: ir.Value, whole: Buffer, image: Index, memory: Memory) -> ir.Value:
        """Return an image of a tensor in memory; a copy where the memory is the caller's, which none but it can cut."""
        seen = self._view(cut, whole, image)
        if seen is not None:
            return seen
        place = self._slice(cut, whole, image)
        size = place.type.shape[0]
        own = memory.allocate(size + slack(cut), memory_type(cut.type))
        memref.CopyOp(place, first_of(own, size))
        return own

    def _output(self, value: ir.Value, whole: Buffer, image: Index, memory: Memory) -> tuple[ir.Value, bool]:
        """Return where an image of a result is made, and whether it has to be copied."""
        seen = self._view(value, whole, image)
        if seen is not None:
            return seen, False
        size = count_elements(memory_shape(value.type), layout_of(value))
        return memory.allocate(size + slack(value), memory_type(value.type)), True

    def _view(self, value: ir.Value, whole: Buffer, image: Index) -> ir.Value | None:
        """Return an image of a tensor that lies in bytes of the function's own; else None."""
        maker = whole.memory.owner
        if isinstance(maker, ir.Block) or maker.operation.name != "memref.view":
            return None
        b, element = self.b, memory_type(value.type)
        root, start = maker.operands
        shift = b.add(start, b.mul(image, self._pitch(value, whole) * element_bytes(element)))
        size = count_elements(memory_shape(value.type), layout_of(value))
        return memref.ViewOp(flat_type(size, element), root, b.index(shift), []).result

    def _slice(self, value: ir.Value, whole: Buffer, image: Index) -> ir.Value:
        """Return an image of a tensor in the caller's memory."""
        size = count_elements(memory_shape(value.type), layout_of(value))
        offset, dynamic = self.b.index(self.b.mul(image, size)), ir.ShapedType.get_dynamic_size()
        layout = ir.StridedLayoutAttr.get(ir.ShapedType.get_dynamic_stride_or_offset(), [1])
        type_ = ir.MemRefType.get([size], memory_type(value.type), layout)
        return memref.ReinterpretCastOp(type_, whole.memory, [offset], [], [], [dynamic], [size], [1]).result

    @staticmethod
    def _pitch(value: ir.Value, whole: Buffer) -> int:
        """Return the elements from one image to the next."""
        size = count_elements(memory_shape(value.type), layout_of(value))
        channels = memory_shape(value.type)[1]
        return size if whole.planes is None else size // channels * whole.planes


def _divided(algorithm: HostAlgorithm, op: Any, schedule: Schedule) -> Schedule:
    """Return the schedule of a layer on one image that all of its threads compute together."""
    by_rows, by_filters = (replace(schedule, split=split) for split in ("rows", "filters"))
    # Rows of flat planes would be cut in another way for several threads.
    if schedule.threads == 1 or not algorithm.has_row_tiles or is_flat(op):
        return by_filters
    return by_rows if row_tiles(op, by_rows) >= schedule.threads else by_filters
