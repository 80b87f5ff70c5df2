"""Convolutions of quantised planes with few weights; see `passes/kernels/host/block_words.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.dots import (
    layer_of,
    own_constant,
    padded,
    padded_filters,
    residual_factor,
    sums_and_factors,
)
from patc.passes.algorithms.host.images import Reach
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import TileCost, register_tiles
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.formats.layer_weights import groups_of, require_array
from patc.passes.ir.constants import read_constant
from patc.passes.kernels.dots import dots_of
from patc.passes.kernels.host.block_words import BlockWords as Kernels
from patc.passes.kernels.host.block_words import Scratch, blocks_of, cover
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.quantised import QuantisedLoops
from patc.targets import Target

_MOST_KEPT = 0.5  # of the kernels' blocks: beyond it, dense loops multiply less
_LARGEST = 1 << 19  # bytes of scratch memory that a thread may have
_EXPANSION = 26  # instructions for four vectors of words


class BlockWords(HostAlgorithm):
    """Sums of a tile in registers, for one filter after the other."""

    name: ClassVar[str] = "block-words"
    skips_zeros: ClassVar[bool] = True

    def reach(self, op: Any, most: int) -> Reach:
        return Reach.NONE

    def applies(self, op: Any) -> bool:
        is_plain = groups_of(op) == 1 and list(op.strides) == list(op.dilations) == [1, 1]
        return is_plain and min(op.kernel_size) > 1

    def filter_blocks(self, op: Any, schedule: Schedule) -> int:
        return 1

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        weight = read_constant(op.weight, state)
        filters, channels, height, width = op.weight.type.shape
        if weight is None or np.count_nonzero(weight.any(axis=(2, 3))) > _MOST_KEPT * filters * channels:
            return
        entries = sum(len(blocks_of(kernel)) for kernel in weight.reshape(-1, height, width))
        layer = layer_of(op, target, threads)
        model, costs = layer.model, layer.model.costs
        for tile in register_tiles(layer.height, layer.width, model.lanes):
            scratch = Scratch.of(tile.rows, layer.width, model.lanes, channels)
            if tile.columns < layer.width or tile.vectors + 2 > model.registers or 4 * scratch.size > _LARGEST:
                continue
            vectors = scratch.vectors * sum(len(strip.chunks) for strip in tile.strips)
            stays = 4 * scratch.size <= costs.first_level_bytes
            # Half of the loads cross a line.
            multiply = vectors * max(model.vector_cycles(model.lanes), 1.5 / costs.loads_per_cycle)
            multiply = max(multiply, float(costs.fma_latency_cycles))  # a sum waits for the entry before
            entry = multiply if stays else math.hypot(multiply, vectors * costs.line_cycles / 2)
            expansion = _EXPANSION / 4 * (tile.rows + 1) * scratch.pitch / model.lanes * scratch.channels / target.pipes
            ends = layer.filters * vectors * 3 * costs.store_cycles + layer.filters * costs.loop_entry_cycles
            cycles = float(entries * (entry + 1.0) + expansion + ends)
            schedule = Schedule(self.name, tile.rows, tile.columns, model.lanes)
            yield layer.candidate(schedule, tile, TileCost(cycles, 1, "multiply-adds", kept=float(entries * entry)))

    def emit(self, site: HostSite) -> None:
        op, filters, schedule = site.op, padded_filters(site.op), site.schedule
        weight = require_array(op, op.weight, "weight", site.state)
        rows = min(schedule.rows, op.result.type.shape[2])
        scratch = Scratch.of(rows, op.result.type.shape[3], schedule.lanes, weight.shape[1])
        arrays = cover(padded(weight, filters), scratch)
        entries, ends = (own_constant(site, *each) for each in zip(("entries", "ends"), arrays, strict=True))
        sums, factors = sums_and_factors(site, filters)
        memory = site.memory.allocate(schedule.threads * scratch.size, sums.type.element_type)
        residual, epilogue, dots = residual_factor(op), site.epilogue_with(sums), dots_of(site.target)

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, pairs, places, scale, words, made, epilogue = arguments
            loops = QuantisedLoops(kernel, made, epilogue, given, dots, scale, residual, filters, False)
            start = kernel.b.mul(kernel.thread(loops.row_tiles), scratch.size)
            Kernels(loops, scratch, words, start, pairs, places).emit()

        site.call([site.source, entries, ends, factors, memory, site.output, epilogue], emit, [1.0])
