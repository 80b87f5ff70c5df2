"""Fully connected layers: dot products along the input, several filters and images at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch_mlir import ir

from patc.integers import ceil_div
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.host.row_groups import RowGroups
from patc.passes.kernels.host.weight_vectors import WeightVectors


@dataclass(frozen=True)
class DotProducts(RowGroups):
    """The loops of output[n, f] = activation(weight[f] . source[n] + bias[f] + residual[n, f]), summed in f32.

    `schedule.filters` filters and up to `schedule.rows` images share the vectors that are loaded. Blocks at the end
    start early and may overlap their neighbours. Tiles of the work are those groups of images.

    Attributes:
        weight: packed as [block of filters][vector of features][filter of the block][lane], zeros behind the last
            feature: one stream through memory. They may be integers, see `WeightVectors`.
    """

    weight: ir.Value

    @property
    def _features(self) -> int:
        return self.loops.source.width

    def emit(self) -> None:
        """Emit all loops."""
        b, work, block = self._b, self.loops.kernel.work, self.loops.schedule.filters

        def one_block(number: ir.Value) -> None:
            filter_ = b.minimum(b.mul(number, block), self.loops.output.width - block)

            def some_images(image: Index) -> None:
                self._finish(image, filter_, self._products(number, image))

            self._each_group(some_images)

        b.each(work.first_filter, work.last_filter, one_block)

    def _products(self, block: Index, image: Index) -> Vectors:
        """Return the accumulators of a block of filters and some images, a vector each: filter by filter."""
        b, lanes, filters = self._b, self.loops.schedule.lanes, self.loops.schedule.filters
        weights = WeightVectors(b, self.weight, lanes, filters)
        features = lanes * weights.group
        whole, rest = divmod(self._features, features)
        step = self._step(block, image, weights)
        accumulators = [b.splat(0.0, lanes, b.accumulator)] * (filters * self._rows)
        if whole:
            accumulators = b.loop(0, whole, accumulators, lambda group, sums: step(group, sums, features))
        return step(whole, accumulators, rest) if rest else accumulators

    def _step(self, block: Index, image: Index, weights: WeightVectors) -> Callable[[Index, Vectors, int], Vectors]:
        """Return what adds the products of a group of vectors of features, of which so many are `valid`."""
        b, lanes = self._b, self.loops.schedule.lanes
        packed = b.mul(block, ceil_div(self._features, lanes * weights.group) * weights.elements)
        rows = [b.mul(b.add(image, member), self._features) for member in range(self._rows)]

        def step(group: Index, accumulators: Vectors, valid: int) -> Vectors:
            start, accumulators = b.mul(group, lanes * weights.group), list(accumulators)
            memory, first = self.loops.source.memory, b.add(packed, b.mul(group, weights.elements))
            for number in range(ceil_div(valid, lanes)):
                count = min(lanes, valid - number * lanes)
                loaded = [b.load_masked(memory, b.add(row, start), number * lanes, lanes, count) for row in rows]
                inputs = [b.convert(vector, b.accumulator) for vector in loaded]
                for member in range(weights.slots):
                    vector = weights.load(first, number, member)
                    for slot, given in enumerate(inputs, member * self._rows):
                        accumulators[slot] = b.fma(vector, given, accumulators[slot])
            return accumulators

        return step

    def _finish(self, image: Index, filter_: Index, accumulators: Vectors) -> None:
        """Add the bias, let the residual join, apply the activation, and store."""
        b, epilogue, output = self._b, self.loops.epilogue, self.loops.output
        for member in range(self.loops.schedule.filters):
            channel = b.add(filter_, member)
            constants = epilogue.constants(b, channel, output.width)
            for place in range(self._rows):
                value = b.sum_lanes(accumulators[member * self._rows + place])
                if epilogue.scales is not None:
                    value = b.times(value, b.load_scalar(epilogue.scales, channel))
                if epilogue.bias is not None:
                    value = b.plus(value, b.convert(b.load_scalar(epilogue.bias, channel), b.accumulator))
                address, residual = b.add(b.mul(b.add(image, place), output.width), channel), epilogue.residual
                joined = None if residual is None else b.load_scalar(residual.memory, address)
                value = b.convert(epilogue.finish(b, value, joined, constants), b.element)
                b.store(value, output.memory, address, 0)
