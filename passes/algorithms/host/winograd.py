"""Winograd convolution; see `passes/kernels/host/winograd.py`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import Layout
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.site import HostSite, Number, StoredEpilogue
from patc.passes.algorithms.host.tiles import core_model, register_limit
from patc.passes.algorithms.limits import Limit, block_of
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.core import CoreModel
from patc.passes.cost.winograd import winograd_cycles
from patc.passes.formats.layer_weights import DenseWeight, find_dense_weight, groups_of, read_dense_weight
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.modules import parts_of_images
from patc.passes.kernels.builder import Builder, Index
from patc.passes.kernels.host import winograd, winograd_repair
from patc.passes.kernels.host.ends import Ends
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.weights import pack_filters
from patc.passes.kernels.host.winograd_bands import Bands, Plan
from patc.passes.kernels.host.winograd_input import InputTransform
from patc.passes.kernels.host.winograd_output import OutputTransform
from patc.passes.kernels.host.winograd_products import Multiplication
from patc.passes.kernels.host.winograd_transforms import TILE, amplification
from patc.passes.kernels.host.winograd_vectors import Band, Planes, Products
from patc.targets import Target

BLOCKS = (1, 2, 3, 4, 6, 8, 12, 16, 24)  # filters whose products registers keep
_LEAST_CHANNELS = 32  # of a group: for fewer the transforms cost more than is won


class Winograd(HostAlgorithm):
    """Tiles of 4x4 outputs; sparse weights are decoded."""

    name: ClassVar[str] = "winograd"
    has_stages: ClassVar[bool] = True

    def applies(self, op: Any) -> bool:
        if element_bytes(op.result.type) < 4:
            return False  # the transforms would lose most bits of f16
        phases = Layout.of(op.input.type).phases
        return winograd.applies(op.kernel_size, op.strides, op.dilations, groups_of(op), phases)

    def objection(self, op: Any, state: PassState) -> str:
        weight = find_dense_weight(op, state)  # a layer without its weights can be scheduled, but not compiled
        if weight is None or not winograd.cancels(weight.array, op.strides[0]):
            return ""
        return "no winograd: filters cancel where channels are equal, and rounding errors would show"

    def rounding(self, op: Any) -> float:
        (kernel, _), stride = op.kernel_size, op.strides[0]
        return stride * amplification(ceil_div(kernel, stride)) / kernel  # a sum of each phase and channel

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model, (batch, filters, height, width) = core_model(op, target), op.result.type.shape
        groups = groups_of(op)
        if groups > 1 and op.input.type.shape[1] // groups < _LEAST_CHANNELS:
            return
        shape, kernel = (batch, op.input.type.shape[1], filters, height, width), (op.kernel_size[0], op.strides[0])
        uncut = winograd.TiledLayer(*shape, 1, model.lanes, 1, model.lanes, *kernel, groups, model.costs)
        parts = parts_of_images(op)
        for layer in cuts(uncut, model.registers):
            cycles = [_cycles_of_part(layer, part, model) for part in parts]
            cost = sum(cycles) / sum(parts)
            schedule = Schedule(self.name, TILE * layer.band, layer.strip, layer.lanes, layer.block)
            yield Candidate(schedule, cycles[-1], cost, "multiply-adds")

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield block_of("filters", schedule.filters, op.result.type.shape[1], groups_of(op))
        yield register_limit(schedule.filters * ceil_div(schedule.columns, schedule.lanes), schedule, target)

    def emit(self, site: HostSite) -> None:
        output, schedule = site.output, site.schedule
        weight = read_dense_weight(site.op, site.state)
        filters, channels, kernel, _ = weight.array.shape
        images, _, height, width = output.shape
        band = min(ceil_div(schedule.rows, TILE), images * ceil_div(height, TILE))
        cut = band, schedule.lanes, schedule.filters, schedule.columns, kernel, site.op.strides[0]
        layer = winograd.TiledLayer(
            images, channels * weight.groups, filters, height, width, *cut, weight.groups, site.costs
        )
        plan = Plan(layer, schedule, site.images is not None)
        emission = _Emission(site, plan, _Arrays.of(site, plan, weight))
        emission.bands() if plan.own_bands else emission.stages()
        emission.repair()


def cuts(layer: winograd.TiledLayer, registers: int) -> Iterator[winograd.TiledLayer]:
    """Yield the ways to cut a layer that are worth a thought; `layer` is cut in any way into vectors of its lanes."""
    rows, group = layer.images * layer.rows, layer.filters // layer.groups
    bands = sorted({ceil_div(rows, 2**power) for power in range(rows.bit_length())})
    for band, vectors in itertools.product(bands, (1, 2, 3, 4)):
        blocks = [size for size in BLOCKS if size <= group and (layer.groups == 1 or group % size == 0)]
        blocks = [size for size in blocks if (size + 1) * vectors + 1 <= registers]
        if blocks:
            yield replace(layer, band=band, block=blocks[-1], strip=vectors * layer.lanes)


def _cycles_of_part(layer: winograd.TiledLayer, part: float, model: CoreModel) -> float:
    """Return the cycles of a call with some of a layer's images."""
    if part == 1.0:
        return winograd_cycles(layer, model)
    images = round(layer.images * part)
    rows = images * layer.rows
    size = layer.equal_bands(rows)
    whole, rest = divmod(rows, size)
    return sum(
        count * _cycles_of_band(replace(layer, images=images, band=band), model)
        for count, band in ((whole, size), (1, rest))
        if count * band
    )


def _cycles_of_band(layer: winograd.TiledLayer, model: CoreModel) -> float:
    """Return the cycles of one of a layer's bands."""
    return winograd_cycles(layer, model) / layer.bands


@dataclass(frozen=True)
class _Arrays:
    """What a layer's kernels share.

    Attributes:
        weights: transformed and packed.
        planes, products: memory for transformed inputs and for products.
        status: 1 if a sum was not finite.
        matrices, places: as of `winograd_repair.Weights`.
        epilogue: of the layer.
    """

    weights: ir.Value
    planes: ir.Value
    products: ir.Value
    epilogue: StoredEpilogue
    status: ir.Value
    matrices: ir.Value
    places: ir.Value

    @staticmethod
    def of(site: HostSite, plan: Plan, weight: DenseWeight) -> _Arrays:
        layer, memory = plan.layer, site.memory
        transformed = winograd.transform_weights(weight.array, layer.stride)
        packed = np.stack([pack_filters(part[:, :, None, None], layer.block) for part in transformed])
        weights = site.constant(packed, weight.origin, f"winograd{layer.block}")
        planes, products = (memory.allocate(size, site.element) for size in plan.sizes)
        epilogue, status = site.epilogue, memory.allocate_zero(site.element)
        matrices = site.constant(winograd_repair.restoring_matrices(layer), weight.origin, "restoring")
        source = Layout.of(site.op.input.type)
        places = site.constant(winograd_repair.places(layer, source, site.window), site.op.result, "places")
        return _Arrays(weights, planes, products, epilogue, status, matrices, places)


@dataclass(frozen=True)
class _Emission:
    """The calls of a layer's kernels, and the kernels."""

    site: HostSite
    plan: Plan
    arrays: _Arrays

    @property
    def layer(self) -> winograd.TiledLayer:
        return self.plan.layer

    def bands(self) -> None:
        """Let each thread compute bands of its own."""
        site, arrays, any_images = self.site, self.arrays, self.plan.any_images
        units = self.layer.images * self.layer.rows if any_images else self.layer.bands

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, *memories, status, made, epilogue, units = arguments
            bands = Bands.of_thread(Loops(kernel, made, epilogue, given), self.layer, memories, units)
            winograd_repair.report(kernel.b, bands.emit_rows() if any_images else bands.emit(), status)

        memories = [arrays.planes, arrays.weights, arrays.products, arrays.status]
        whole = site.scheduled(site.schedule, (0, units))
        whole.call([site.source, *memories, site.output, arrays.epilogue, site.of_call(units)], emit, [1.0])

    def stages(self) -> None:
        """Let all threads share each stage of each band."""
        layer, images = self.layer, self.site.images
        if images is None:
            for number in range(layer.bands):
                self._stages_of((number, number + 1), Number(layer.tiles))
            return

        def cut(b: Builder, count: ir.Value) -> tuple[Index, Index, Index]:
            rows = b.mul(count, layer.images // images.most * layer.rows)
            size = Band.size(b, layer, rows)
            return rows, size, b.divide_up(rows, size)

        rows, size, bands = images.at_start(cut)
        b = self.site.memory.builder

        def one_band(number: ir.Value) -> None:
            start = b.mul(number, size)
            band = Band(start, b.minimum(size, b.subtract(b.index(rows), b.index(start))))
            self._stages_of((start, b.add(start, band.rows)), Number(band.tiles(b, layer)))

        b.each(0, bands, one_band)

    def _stages_of(self, at: tuple[Index, Index], tiles: Number) -> None:
        """Compute a band.

        Args:
            at: its number, and the one after it; of any number of images, its rows of tiles.
            tiles: of the band.
        """
        self._transform_input(at)
        self._multiply(tiles)
        self._transform_output(at)

    def _band(self, kernel: Kernel) -> Band:
        """Return the band that a kernel is called for."""
        b, work = kernel.b, kernel.work
        if not self.plan.any_images:
            return Band.of_number(b, self.layer, work.first_tile)
        return Band(work.first_tile, b.subtract(b.index(work.last_tile), b.index(work.first_tile)))

    def _transform_input(self, at: tuple[Index, Index]) -> None:
        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, planes = arguments
            work, transform = kernel.work, InputTransform(kernel, self.layer, given)
            transform.emit(Planes(planes), (work.first_filter, work.last_filter), self._band(kernel))

        site = self.site.scheduled(self.plan.stage("input"), (0, 1))
        site.call([site.source, self.arrays.planes], emit, [1.0] * self.layer.channels, at=at)

    def _multiply(self, tiles: Number) -> None:
        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            planes, weights, products, tiles = arguments
            memories = Planes(planes), weights, Products(products)
            multiplication = Multiplication(kernel.b, self.layer, *memories)
            work = kernel.work
            multiplication.emit((work.first_tile, work.last_tile), (work.first_filter, work.last_filter), tiles)

        site, ends = self.site.scheduled(self.plan.stage("products"), (0, self.layer.positions)), self._ends_of_products
        memories = [self.arrays.planes, self.arrays.weights, self.arrays.products, tiles]
        site.call(memories, emit, [1.0] * self.layer.blocks, ends=ends)

    def _ends_of_products(self, count: int) -> tuple[int, int]:
        """Return the end of positions and of blocks: those of any number of images."""
        return self.layer.positions, self.layer.blocks

    def _transform_output(self, at: tuple[Index, Index]) -> None:
        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            products, status, made, epilogue = arguments
            work, seen = kernel.work, winograd_repair.nothing_seen(kernel.b, self.layer)
            transform = OutputTransform(Ends(kernel, made, epilogue), self.layer, Products(products))
            seen = transform.emit((work.first_filter, work.last_filter), self._band(kernel), seen)
            winograd_repair.report(kernel.b, seen, status)

        site = self.site.scheduled(self.plan.stage("output"), (0, 1))
        memories = [self.arrays.products, self.arrays.status, site.output, self.arrays.epilogue]
        site.call(memories, emit, [1.0] * self.layer.filters, at=at)

    def repair(self) -> None:
        """Compute the layer again if a sum was not finite."""
        arrays = self.arrays

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, *weights, status, made, epilogue = arguments
            loops = Loops(kernel, made, epilogue, given)
            winograd_repair.Repair(loops, self.layer, winograd_repair.Weights(*weights), status).emit()

        site = self.site.scheduled(winograd_repair.repair_schedule(self.layer, self.site.schedule))
        memories = [arrays.weights, arrays.matrices, arrays.places, arrays.status]
        costs = [1.0] * self.layer.filters
        site.call([site.source, *memories, site.output, arrays.epilogue], emit, costs, is_small=True)
