"""Schedules for kernels of the CPU that the cost model did not choose: random legal ones, and Winograd everywhere."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from native import Retile

from patc.dialects.attributes import Layout, Library
from patc.dialects.schedules import Schedule
from patc.passes.algorithms.host.pattern_packed import PatternPacked
from patc.passes.algorithms.host.tap_direct import TapDirect
from patc.passes.algorithms.host.tiles import MOST_REGISTERS
from patc.passes.formats.layer_weights import groups_of
from patc.passes.ir.planes import kernel_plane
from patc.passes.kernels import tiling
from patc.passes.kernels.host import winograd


def random_schedules(choices: random.Random) -> Retile | None:
    """Return what keeps the chosen schedules, or what draws random legal ones."""
    return None if choices.random() < 0.4 else lambda op, chosen: random_schedule(op, chosen, choices)


def random_schedule(op: Any, chosen: Schedule, choices: random.Random) -> Schedule:
    """Draw any legal tile: whole vectors in all strips but the last, blocks of filters that divide a group."""
    lanes = choices.choice([4, 8, 16])
    chosen = replace(chosen, lanes=lanes, split=choices.choice(["rows", "filters"]))
    shape = list(op.result.type.shape)
    if chosen.algorithm == "global-pool":
        return chosen
    if chosen.algorithm == "gemv":
        return replace(chosen, rows=choices.randint(1, 5), filters=choices.randint(1, min(shape[1], 9)))
    is_sparse = "format" in op.attributes
    if is_sparse:
        some = [algorithm.name for algorithm in (PatternPacked(), TapDirect()) if algorithm.applies(op)]
        known = ["pattern-direct", "input-stationary", "dense-direct", *some]
        chosen = replace(chosen, algorithm=choices.choice(known))
        if chosen.algorithm == "pattern-packed":
            return replace(chosen, rows=choices.randint(1, 20), columns=lanes, filters=1, sums=1)
    elif chosen.algorithm == "winograd":
        filters = block_of(op, choices.randint(1, 8))
        return replace(chosen, rows=choices.randint(1, 30), columns=lanes * choices.randint(1, 3), filters=filters)
    if chosen.algorithm == "filter-lanes":
        return random_filter_lanes(op, replace(chosen, lanes=4), choices)
    if chosen.algorithm == "implicit-gemm":
        return random_implicit_gemm(op, chosen, choices)
    # A flat plane is one row of its kernel, or one a thread.
    width = kernel_plane(op, chosen.row_parts)[1] if len(shape) == 4 else shape[-1]
    whole = [size for size in range(4, 40, 4) if is_whole(tiling.cut(size, lanes))]
    columns = choices.choice([width, width + 3, *whole])
    filters, sums, across = 1, 1, tiling.vectors(min(columns, width), lanes)
    if chosen.algorithm in ("dense-direct", "depthwise-direct"):
        group, most = shape[1] // groups_of(op), 4 * MOST_REGISTERS // (across * lanes)  # where vectors are narrowest
        blocks = range(1, min(group, max(1, most)) + 1)
        filters = choices.choice([size for size in blocks if group == shape[1] or group % size == 0])
    if chosen.algorithm == "pattern-direct":
        sums = choices.randint(1, 4)
    rows = choices.randint(1, max(1, min(9, 30 // (across * filters * sums))))
    if chosen.algorithm == "input-stationary":
        entries, height = Library.from_attr(op.format).entries, kernel_plane(op, chosen.row_parts)[0]
        is_even = height % min(rows, height) == 0  # rows of two tiles have one order
        filters, sums = choices.randint(1, shape[1]), choices.choice([1, entries & -entries]) if is_even else 1
    return replace(chosen, rows=rows, columns=columns, filters=filters, sums=sums)


def random_filter_lanes(op: Any, chosen: Schedule, choices: random.Random) -> Schedule:
    """Draw a legal tile of the algorithm filter-lanes: blocks of whole vectors of filters that divide a group."""
    lanes, (filters, _, height, width) = chosen.lanes, (op.weight.type.shape[0], *op.result.type.shape[1:])
    group = filters // groups_of(op)
    blocks = [size for size in range(2 * lanes, 6 * lanes + 1, 2 * lanes) if size <= group]
    blocks = [size for size in blocks if group == filters or group % size == 0]
    columns = choices.choice([width, *(size for size in (4, 8, 12) if is_whole(tiling.cut(size, lanes)))])
    rows = choices.randint(1, max(1, min(height, 14 // columns)))
    return Schedule("filter-lanes", rows, columns, lanes, choices.choice(blocks), 1, chosen.split, chosen.threads)


def random_implicit_gemm(op: Any, chosen: Schedule, choices: random.Random) -> Schedule:
    """Draw a legal tile of the algorithm implicit-gemm: any rows, whole vectors in all strips but the last."""
    (filters, height, width), lanes = op.result.type.shape[1:], chosen.lanes
    columns = choices.choice([width, *(size for size in range(4, width, 4) if is_whole(tiling.cut(size, lanes)))])
    block = choices.randint(1, min(filters, 15))
    return replace(chosen, algorithm="implicit-gemm", rows=choices.randint(1, height), columns=columns, filters=block)


def is_whole(chunks: Sequence[tiling.Chunk]) -> bool:
    return all(chunk.valid == chunk.lanes for chunk in chunks)


def block_of(op: Any, most: int) -> int:
    """Return a block of at most so many filters: one of a group, which it divides, where there are several."""
    groups = groups_of(op)
    group = op.result.type.shape[1] // groups
    return max(size for size in range(1, min(most, group) + 1) if groups == 1 or group % size == 0)


def by_winograd(**fields: Any) -> Retile:
    """Return what gives the convolutions that it suits a Winograd schedule, and leaves other layers alone."""

    def retile(op: Any, chosen: Schedule) -> Schedule:
        if op.operation.name != "pattern.conv2d":
            return chosen
        phases = Layout.of(op.input.type).phases
        if not winograd.applies(op.weight.type.shape[2:], op.strides, op.dilations, op.groups.value, phases):
            return chosen
        filters = block_of(op, fields.get("filters", 8))
        defaults = {"rows": 1 << 20, "columns": 48, "lanes": chosen.lanes, "threads": chosen.threads, "split": "rows"}
        return Schedule("winograd", **{**defaults, **fields, "filters": filters})

    return retile
