"""Convolutions by dense weights on a GPU: "dense-direct", and "depthwise-direct" for filters of one channel each."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.gpu.base import GpuAlgorithm, convolution_limits
from patc.passes.algorithms.gpu.site import GpuSite
from patc.passes.algorithms.limits import Limit, at_most, divisor_of
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.gpu_convolution import convolution_candidate, convolution_schedules, turn_cycles
from patc.passes.cost.models import cost_model
from patc.passes.formats.layer_weights import groups_of, read_dense_weight
from patc.passes.ir.windows import Window
from patc.passes.kernels.gpu import convolution
from patc.passes.kernels.gpu.kernel import LANES
from patc.passes.kernels.gpu.weights import pack_taps
from patc.targets import Target


@dataclass(frozen=True)
class _Shape:
    """What the dense weights of a convolution would be.

    Attributes:
        filters: of the layer.
        channels: that each filter reads.
        group: filters that read the same ones.
    """

    filters: int
    channels: int
    group: int

    @staticmethod
    def of(op: Any) -> _Shape:
        groups, filters = groups_of(op), op.result.type.shape[1]
        return _Shape(filters, op.input.type.shape[1] // groups, filters // groups)

    @property
    def is_depthwise(self) -> bool:
        """Whether each filter has one channel of its own."""
        return self.channels == self.group == 1

    def blocks(self) -> list[int]:
        """Return the numbers of filters that a thread could compute side by side."""
        if self.group < self.filters:
            return [block for block in (1, 2, 4) if self.group % block == 0]
        return [block for block in (1, 2, 4) if block <= self.filters]


class DenseDirect(GpuAlgorithm):
    """Goes through all input channels of a group, for several of its filters side by side."""

    name = "dense-direct"
    is_depthwise: ClassVar[bool] = False

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        shape, model = _Shape.of(op), cost_model(target)
        if shape.is_depthwise != self.is_depthwise:
            return
        height, width = Window.of(op).kernel
        taps = [(0, dy, dx) for dy in range(height) for dx in range(width)]
        for schedule in convolution_schedules(op, self.name, shape.blocks(), model):
            parts = schedule.sums
            if parts == 1 or shape.channels >= 4 * parts:
                turn = turn_cycles(op, taps, ceil_div(len(taps) * schedule.filters, LANES), schedule, model)
                yield convolution_candidate(op, schedule, turn * ceil_div(shape.channels, parts), model)

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        if groups_of(op) > 1:  # else weights of filters too many are zero
            yield divisor_of("filters", schedule.filters, op.result.type.shape[1] // groups_of(op))
        yield at_most("sums", schedule.sums, _Shape.of(op).channels)
        yield from convolution_limits(schedule, target)

    def emit(self, site: GpuSite) -> None:
        op, block = site.op, site.schedule.filters
        weight = read_dense_weight(op, site.state)
        filters, channels = weight.array.shape[:2]
        group = filters // weight.groups
        values = site.memory.constant(pack_taps(weight.array, block), weight.origin, f"taps{block}")
        weights = convolution.DenseArrays(values, channels, group, filters)
        emit = functools.partial(convolution.dense_direct, layer=site.sliding_layer(), weights=weights)
        site.launch(site.grid(ceil_div(filters, block)), emit)


class DepthwiseDirect(DenseDirect):
    """The same for filters that have one channel each, of their own."""

    name = "depthwise-direct"
    is_depthwise = True
