"""Cycles of a Winograd convolution on one core, modelled."""

from __future__ import annotations

import math

from patc.integers import ceil_div
from patc.passes.cost.core import CoreModel
from patc.passes.kernels import tiling
from patc.passes.kernels.host.winograd import TiledLayer, inputs_of
from patc.passes.kernels.host.winograd_transforms import TILE

INPUT_ROW_OPERATIONS = {6: 14, 7: 20}  # to transform what one load brings, by the inputs of an axis
INPUT_LINE_OPERATIONS = {6: 24, 7: 30}  # to pick the columns of a line of tiles and transform them
OUTPUT_OPERATIONS = 15  # for each line and column


def winograd_cycles(layer: TiledLayer, model: CoreModel) -> float:
    """Return the cycles of a layer on one core.

    Fitted to layers from 64 channels at 224x224 to 512 at 7x7, and to those of 3 to 16 channels of kernels of 3x3, 4x4
    and, with stride 2, 7x7 and 8x8.
    """
    costs = model.costs
    bands, area = layer.bands, layer.images * layer.height * layer.width
    evicted = bands * max(0, 4 * (layer.depth + layer.kept) * layer.channel - costs.shared_level_bytes)
    moved = 2 * evicted + max(0, 4 * layer.filters * area - costs.shared_level_bytes)
    distant = max(0, 4 * layer.channels * layer.stride**2 * area - costs.second_level_bytes)
    transforms = bands * _transform_cycles(layer, model)
    transforms += moved / costs.spilled_bytes_per_cycle + distant / costs.planes_bytes_per_cycle
    weight_bytes = 4 * layer.positions * layer.summed * layer.filters
    streams = bands if weight_bytes > costs.shared_level_bytes else 1
    streamed = streams * weight_bytes / costs.stream_bytes_per_cycle
    hidden, waited = streamed * (1 - costs.exposed_stream), streamed * costs.exposed_stream
    return transforms + math.hypot(bands * _product_cycles(layer, model), hidden) + waited


def _transform_cycles(layer: TiledLayer, model: CoreModel) -> float:
    """Return the cycles of the transforms of a band's inputs and outputs."""
    inputs = outputs = 0.0
    for strip in layer.strips():
        stored = TILE * strip.rows * len(tiling.cut(TILE * strip.columns, layer.lanes))
        vectors = strip.count * ceil_div(layer.band, strip.rows)
        operation = model.vector_cycles(strip.lanes) * model.costs.transform_operation
        for phase in layer.phases:
            loaded = strip.rows * len(tiling.cut(inputs_of(layer, phase, strip), layer.lanes))
            operations = phase.lines * INPUT_LINE_OPERATIONS[phase.shifts] + loaded * INPUT_ROW_OPERATIONS[phase.lines]
            inputs += vectors * operation * operations
        operations = (layer.read + TILE) * OUTPUT_OPERATIONS
        outputs += vectors * (operation * operations + stored * model.costs.store_cycles)
    return layer.channels * inputs + layer.filters * outputs


def _product_cycles(layer: TiledLayer, model: CoreModel) -> float:
    """Return the cycles of a band's matrix products while all they read is near."""
    costs, products = model.costs, 0.0
    used = layer.channels // layer.groups * sum(phase.lines * phase.shifts for phase in layer.phases)
    for part in layer.parts():
        multiply = layer.block * sum(model.vector_cycles(chunk.lanes) for chunk in part.chunks)
        loads = sum(model.load_cycles(chunk.lanes, True) for chunk in part.chunks)
        beside = model.beside(multiply, loads + layer.block / costs.loads_per_cycle)
        channel = max(beside, costs.fma_latency_cycles)
        ends = layer.block * len(part.chunks) * costs.product_cycles + costs.loop_entry_cycles
        products += part.count * layer.blocks * (used * channel + layer.positions * ends)
    return products
