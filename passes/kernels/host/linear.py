"""Fully connected layers: dot products along the input, several filters and images at a time."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from patc.dialects.attributes import Schedule
from patc.integers import ceil_div
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.convolution import Epilogue, Work


@dataclass(frozen=True)
class LinearShape:
    """Images, input features and filters."""

    images: int
    features: int
    filters: int


def linear(
    b: Builder,
    work: Work,
    source: ir.Value,
    weight: ir.Value,
    output: ir.Value,
    shape: LinearShape,
    epilogue: Epilogue,
    schedule: Schedule,
) -> None:
    """Emit output[n, f] = activation(weight[f] . source[n] + bias[f]), summed in f32.

    `schedule.filters` filters and up to `schedule.rows` images share the vectors that are loaded. Blocks at the end
    start early and may overlap their neighbours.

    Args:
        weight: packed as [block of filters][vector of features][filter of the block][lane], zeros behind the last
            feature: one stream through memory.
    """
    block, images, lanes = schedule.filters, min(schedule.rows, shape.images), schedule.lanes
    whole, rest = divmod(shape.features, lanes)

    def one_block(number: ir.Value, _: Vectors) -> Vectors:
        filter_ = b.minimum(b.mul(number, block), shape.filters - block)

        def some_images(group: Index, _: Vectors) -> Vectors:
            image = b.minimum(b.mul(group, images), shape.images - images)
            packed = b.mul(number, ceil_div(shape.features, lanes) * block * lanes)
            columns = [b.mul(b.add(image, member), shape.features) for member in range(images)]

            def step(position: Index, sums: Vectors, valid: int = lanes) -> Vectors:
                start = b.mul(position, lanes)
                loaded = [b.load_masked(source, b.add(column, start), 0, lanes, valid) for column in columns]
                inputs = [b.convert(vector, b.f32) for vector in loaded]
                sums = list(sums)
                first = b.add(packed, b.mul(position, block * lanes))
                for member in range(block):
                    weights = b.convert(b.load(weight, first, member * lanes, lanes), b.f32)
                    for place, vector in enumerate(inputs):
                        slot = member * images + place
                        sums[slot] = b.fma(weights, vector, sums[slot])
                return sums

            sums = [b.splat(0.0, lanes, b.f32)] * (block * images)
            if whole:
                sums = b.loop(0, whole, sums, step)
            if rest:
                sums = step(whole, sums, rest)
            for member in range(block):
                channel = b.add(filter_, member)
                for place in range(images):
                    value = b.sum_lanes(sums[member * images + place])
                    if epilogue.bias is not None:
                        value = b.plus(value, b.convert(b.load_scalar(epilogue.bias, channel), b.f32))
                    value = b.convert(tiling.apply_activation(b, value, epilogue.activation, 1), b.element)
                    b.store(value, output, b.add(b.mul(b.add(image, place), shape.filters), channel), 0)
            return []

        groups = ceil_div(shape.images, images)
        if groups == 1:
            some_images(0, [])
        else:
            b.loop(0, groups, [], some_images)
        return []

    b.loop(work.first_filter, work.last_filter, [], one_block)
