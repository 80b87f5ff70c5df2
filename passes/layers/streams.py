"""Which layers run band by band: those whose results are too large to stay near, and whose rings are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

from patc.dialects.attributes import Layout
from patc.dialects.schedules import IMAGES, Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.base import find_algorithm
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.rings import Read, Tiled, plan
from patc.passes.algorithms.host.streams import Stream
from patc.passes.ir.constants import CONSTANTS
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.functions import top_level_ops
from patc.passes.ir.planes import is_flat
from patc.passes.layers.base import Access, LayerKind
from patc.passes.layers.registry import kind_of
from patc.targets import Target

_LEAST_GAIN = 16  # rings that do not stay near have at most one part in so many of the tensors
_MOST_MOVED = 0.5  # rows that are moved, of those of a tensor


def find_streams(function: Any, target: Target) -> list[Stream]:
    """Return the streams of a function's scheduled layers: as long as may be, one behind the other."""
    size, found, run, ready = target.core_costs().shared_level_bytes, list[Stream](), _Run(), list[Stream]()
    for op in top_level_ops(function):
        if op.operation.name in CONSTANTS:
            continue
        longer = run.with_layer(op)
        streams = [] if longer is None else longer.stream(size)
        if longer is None or (run.layers and not streams):
            found += ready
            longer, streams = _Run().with_layer(op), []
        run, ready = longer or _Run(), streams
    return found + ready


@dataclass(frozen=True)
class _Run:
    """Layers that follow each other, each of which reads one before it."""

    layers: tuple[tuple[HostAlgorithm, Any, Schedule], ...] = ()
    tiled: tuple[Tiled, ...] = ()

    def with_layer(self, op: Any) -> _Run | None:
        """Return the run with another layer, or None where that does not continue it, or cannot run band by band."""
        kind = kind_of(op)
        if kind is None or len(op.results) > 1 or op.results[0].type.rank != 4 or is_flat(op):
            return None
        algorithm, schedule = find_algorithm(op, kind.host_algorithms(op))
        if schedule.split == IMAGES:
            return None
        reads = self._reads(op, kind)
        if not algorithm.runs_in_bands or reads is None:
            return None
        height, layout = op.result.type.shape[2], Layout.of(op.result.type)
        total = ceil_div(layout.plane, layout.pitch)
        tiled = Tiled(min(schedule.rows, height), height, layout.top, total, reads)
        return _Run((*self.layers, (algorithm, op, schedule)), (*self.tiled, tiled))

    def _reads(self, op: Any, kind: LayerKind) -> tuple[Read, ...] | None:
        """Return what an op reads of the run, or None where it is not rows that follow those of the result."""
        made = {layer.result: number for number, (_, layer, _) in enumerate(self.layers)}
        if self.layers and (not len(op.operands) or op.operands[0] not in made):
            return None
        found = []
        for operand in kind.operands(op):
            value = op.operands[operand.number]
            if value not in made:
                continue
            layout, width = Layout.of(value.type), value.type.shape[3]
            window = kind.window(op) if operand.access is Access.WINDOW else None
            is_same = operand.access is Access.ELEMENTS and list(value.type.shape[2:]) == list(op.result.type.shape[2:])
            if window is None and not is_same:
                return None
            stride, first, last = 1, layout.top, layout.top
            if window is not None:
                stride, first = window.strides[0], layout.top - window.top
                last = first + (window.kernel[0] - 1) * window.dilations[0]
            # The halo on the right may be that of the next row on the left.
            last += layout.left + width + layout.right > layout.pitch
            found.append(Read(made[value], stride, first, last))
        return tuple(found)

    @property
    def _inside(self) -> tuple[int, ...]:
        """Numbers of the layers whose results only layers of the run read."""
        ops = [op.operation for _, op, _ in self.layers]
        found = [all(use.owner.operation in ops for use in op.result.uses) for _, op, _ in self.layers]
        return tuple(number for number, is_inside in enumerate(found[:-1]) if is_inside)

    def stream(self, size: int) -> list[Stream]:
        """Return the run as a stream, with the highest bands whose rings fit `size` bytes together, or else the lowest
        that move few rows; nothing where what the last layer reads would stay near without, or rings gain too
        little."""
        types, inside = [op.result.type for _, op, _ in self.layers], self._inside
        whole = {each: types[each].shape[0] * _bytes(types[each], Layout.of(types[each]).plane) for each in inside}
        if not inside or whole.get(max(read.maker for read in self.tiled[-1].reads), 0) <= size:
            return []
        tiles, fallback = self.tiled[-1].tiles, list[Stream]()
        for step in sorted({ceil_div(tiles, 2**power) for power in range(tiles.bit_length() + 1)}, reverse=True):
            found = plan(self.tiled, step)
            rings = sum(_bytes(types[each], found.rings[each].rows * Layout.of(types[each]).pitch) for each in inside)
            moved = sum(sum(found.rings[each].kept) for each in inside) / sum(self.tiled[each].total for each in inside)
            if rings <= size and moved <= _MOST_MOVED:
                return [Stream(self.layers, found, inside)]
            if rings <= sum(whole.values()) // _LEAST_GAIN and moved <= _MOST_MOVED / 2:
                fallback = [Stream(self.layers, found, inside)]
        return fallback


def _bytes(type_: ir.Type, plane: int) -> int:
    return int(type_.shape[1] * plane * element_bytes(type_))
