""" "pattern-direct" on a GPU: a workgroup computes filters that keep the same kernels on a tile of pixels."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from patc.dialects.attributes import MAX_TAPS, FkwAttr, Library, PacksAttr
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.gpu.base import GpuAlgorithm, convolution_limits
from patc.passes.algorithms.gpu.site import GpuSite
from patc.passes.algorithms.limits import Limit, divisor_of
from patc.passes.base import PassState, fail
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.gpu_convolution import convolution_candidate, convolution_schedules, turn_cycles
from patc.passes.cost.models import cost_model
from patc.passes.formats.layer_weights import pattern_counts, read_fkw, read_kernels
from patc.passes.ir.constants import read_constant
from patc.passes.kernels.gpu import convolution
from patc.passes.kernels.gpu.kernel import LANES
from patc.passes.kernels.gpu.weights import pack_kernels, share_kernels
from patc.targets import Target


class PatternDirect(GpuAlgorithm):
    """Goes through the kept kernels of each filter, pattern by pattern."""

    name = "pattern-direct"
    skips_zeros = True

    def applies(self, op: Any) -> bool:
        if isinstance(op.format, PacksAttr):
            return math.prod(op.format.kernel_size()) <= MAX_TAPS
        return isinstance(op.format, FkwAttr)

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        library, counts, blocks = _patterns(op, state)
        model = cost_model(target)
        filters = op.result.type.shape[1]
        places = [library.places(pattern) for pattern in range(len(library.masks))]
        for schedule in convolution_schedules(op, self.name, blocks, model):
            uniform = 1 + schedule.filters * ceil_div(library.entries, LANES)
            cycles = 0.0
            for count, taps in zip(counts, places, strict=True):
                turn = turn_cycles(op, taps, uniform, schedule, model)
                # Parts that get one kernel less than others wait for them.
                parts = schedule.sums
                cycles += turn * math.ceil(count / filters / parts) if parts > 1 else turn * count / filters
            yield convolution_candidate(op, schedule, cycles, model)

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield divisor_of("filters", schedule.filters, op.result.type.shape[1])
        yield from convolution_limits(schedule, target)

    def emit(self, site: GpuSite) -> None:
        op, block = site.op, site.schedule.filters
        library, fkw = read_kernels(op, site.state)
        if not share_kernels(fkw, block):
            raise fail(
                op, f"{block} filters each that keep the same kernels, for a schedule of {block} filters", "others"
            )
        plane = site.source.layout.plane // LANES
        arrays = pack_kernels(fkw, block, plane)
        held = {
            role: site.memory.constant(array, op.arrays[0], f"{role}.{block}.{plane}") for role, array in arrays.items()
        }
        weights = convolution.SparseArrays(library=library, **held)
        layer = site.sliding_layer()
        emit = functools.partial(convolution.pattern_direct, layer=layer, weights=weights)
        site.launch(site.grid(layer.output.channels // block), emit)


def _patterns(op: Any, state: PassState) -> tuple[Library, list[float], list[int]]:
    """Return the patterns, how many kept kernels have each, and the numbers of filters that keep the same kernels; one
    where the weights are not known."""
    if isinstance(op.format, FkwAttr):
        library = Library.from_attr(op.format)
        counts = pattern_counts(op, library, state)
        if any(read_constant(value, state) is None for value in op.arrays):
            return library, counts, [1]
        fkw = read_fkw(op, state)
    else:
        library, fkw = read_kernels(op, state)
        counts = [float(count) for count in np.bincount(fkw.owners()[1], minlength=len(library.masks))]
    return library, counts, [block for block in (1, 2, 4) if block == 1 or share_kernels(fkw, block)]
