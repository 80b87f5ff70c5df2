"""The bands of a Winograd convolution, see `winograd`: how threads divide them, and all stages of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch_mlir import ir

from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.winograd import TiledLayer
from patc.passes.kernels.host.winograd_input import InputTransform
from patc.passes.kernels.host.winograd_output import OutputTransform
from patc.passes.kernels.host.winograd_products import Multiplication
from patc.passes.kernels.host.winograd_repair import nothing_seen
from patc.passes.kernels.host.winograd_vectors import Band, Planes, Products, repeat


@dataclass(frozen=True)
class Plan:
    """How threads divide a layer, and the memory that its stages need.

    Attributes:
        any_images: whether a call says how many images it has.
    """

    layer: TiledLayer
    schedule: Schedule
    any_images: bool = False

    @property
    def own_bands(self) -> bool:
        """Whether each thread computes bands of its own."""
        if self.any_images and self.layer.is_streamed and self.schedule.threads > 1:
            return False  # of few images each thread would read all weights for little work
        return self.schedule.split == "rows" and self.layer.bands >= self.schedule.threads

    @property
    def sizes(self) -> tuple[int, int]:
        """Elements of the transformed inputs and of the products of all threads."""
        layer = self.layer
        copies, kept = (self.schedule.threads, layer.kept) if self.own_bands else (1, layer.filters)
        return copies * layer.depth * layer.channel, copies * kept * layer.channel

    def stage(self, name: str) -> Schedule:
        """Return how all threads share one stage of a band: "input", "products" or "output"."""
        layer, threads = self.layer, self.schedule.threads
        are_even = layer.positions % threads == 0 or layer.blocks % threads != 0
        split = "rows" if name == "products" and are_even else "filters"
        return replace(self.schedule, algorithm=f"winograd-{name}", split=split)


@dataclass(frozen=True)
class Bands:
    """All stages of bands of a layer, one band after the other.

    Attributes:
        weights: as of `Multiplication`.
    """

    loops: Loops
    layer: TiledLayer
    planes: Planes
    weights: ir.Value
    products: Products

    @staticmethod
    def of_thread(loops: Loops, layer: TiledLayer, memories: Sequence[ir.Value], units: Index) -> Bands:
        """Return the bands of a thread among which those of the layer are divided evenly.

        Args:
            memories: for transformed inputs, the weights, and for products; each thread has its own part of the first
                and the last.
            units: how many the threads share: bands, or of a call with any number of images its rows of tiles.
        """
        b, slot = loops.b, loops.kernel.thread(units)
        planes, weights, products = memories
        own = Planes(planes, b.mul(slot, layer.depth * layer.channel))
        return Bands(loops, layer, own, weights, Products(products, b.mul(slot, layer.kept * layer.channel)))

    def emit(self) -> ir.Value:
        """Emit the bands of the kernel's share, and return what `winograd_repair.watch` saw."""
        b, work, nothing = self.loops.b, self.loops.kernel.work, nothing_seen(self.loops.b, self.layer)

        def one_band(number: ir.Value, seen: Vectors) -> Vectors:
            return self._one_band(Band.of_number(b, self.layer, number), seen)

        return b.loop(work.first_tile, work.last_tile, [nothing], one_band)[0]

    def emit_rows(self) -> ir.Value:
        """Do what `emit` does for a share of rows of tiles, in bands of `Band.size`."""
        b, work, nothing = self.loops.b, self.loops.kernel.work, nothing_seen(self.loops.b, self.layer)
        first, last = b.index(work.first_tile), b.index(work.last_tile)
        rows = b.subtract(last, first)
        size = Band.size(b, self.layer, rows)

        def one_band(start: ir.Value, seen: Vectors) -> Vectors:
            return self._one_band(Band(start, b.minimum(size, b.subtract(last, start))), seen)

        return b.loop(first, last, [nothing], one_band, b.maximum_index(size, 1))[0]

    def _one_band(self, band: Band, seen: Vectors) -> Vectors:
        b, layer = self.loops.b, self.layer
        InputTransform(self.loops.kernel, layer, self.loops.source).emit(self.planes, (0, layer.channels), band)
        groups = ceil_div(layer.blocks, layer.group)
        return repeat(b, groups, lambda group, seen: [self._one_group(band, group, seen[0])], seen)

    def _one_group(self, band: Band, group: Index, seen: ir.Value) -> ir.Value:
        b, layer = self.loops.b, self.layer
        first, end = (b.mul(b.add(group, step), layer.group) for step in (0, 1))
        blocks = first, b.minimum(end, layer.blocks)
        filters = b.mul(first, layer.block), b.minimum(b.mul(end, layer.block), layer.filters)
        products = replace(self.products, filter=b.minimum(filters[0], layer.filters - layer.block))
        multiplication = Multiplication(b, layer, self.planes, self.weights, products)
        multiplication.emit((0, layer.positions), blocks, band.tiles(b, layer))
        return OutputTransform(self.loops, layer, products).emit(filters, band, seen)
