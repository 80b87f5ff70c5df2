"""Recurrent layers; see `passes/kernels/host/recurrent.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.dialects.schedules import FILTERS, Schedule
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.images import Reach
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import core_model, register_limit
from patc.passes.algorithms.limits import Limit, divisor_of, one_of
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.core import CoreModel
from patc.passes.formats.packs import TILE, count_packs, encode_packs, first_packs
from patc.passes.ir.constants import read_constant
from patc.passes.ir.stored import holds_bits, holds_integers, read_scales, tensor_bytes
from patc.passes.kernels.host.kernel import Kernel, set_apart
from patc.passes.kernels.host.recurrent import Recurrence, emit_start
from patc.passes.kernels.host.recurrent_weights import Layer, Panels
from patc.passes.kernels.host.weight_vectors import WORD_BITS
from patc.passes.kernels.lookups import Lookup, lookup_of
from patc.targets import Target

_MOST_COLUMNS = 0.5  # of all, for which a list of those that have a weight is faster
MOST_PACKED = 0.5  # of all weights, above which no packs are looked for
_LEAST_ZEROS = 0.3  # part of a matrix that is worth a remark


class Recurrent(HostAlgorithm):
    """Steps one after the other. Several threads have a direction each, or share the units and meet after each step."""

    name: ClassVar[str] = "recurrent"
    reaches: ClassVar[Reach] = Reach.NONE
    is_divided: ClassVar[bool] = False

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        s, model = op.sizes, core_model(op, target)
        lanes = min(target.lanes, max(4, 1 << (s.units - 1).bit_length()))
        rows = min(s.sequences, max(1, (target.registers - s.gates - 2) // s.gates))
        layer = Layer.of(op, lanes, rows)
        products = _kept_products(op, layer, _lookup_for(target, lanes), state)
        size = tensor_bytes(op, op.weight) / math.prod(op.weight.type.shape)

        def step(share: float) -> float:
            return _step_cycles(layer, model, products, share, size)

        alone = s.directions * s.steps * step(s.directions)
        ways = {1: alone}
        if s.directions > 1:
            ways[min(threads, s.directions)] = s.steps * step(1)
        elif not layer.has_stages:
            ways[threads] = s.steps * (step(1 / threads) / threads + model.costs.meeting_cycles)
        for parts, cycles in {**ways, 1: alone}.items():
            schedule = Schedule(self.name, rows, 1, lanes, threads=parts)
            yield Candidate(schedule, alone, cycles * threads, "multiply-adds")

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield one_of("split", schedule.split, [FILTERS])
        rows = min(schedule.rows, op.sizes.sequences)
        yield register_limit(rows * op.sizes.gates, schedule, target)
        if holds_bits(op):
            yield divisor_of("lanes", schedule.lanes, WORD_BITS)

    def unused_zeros(self, op: Any, schedule: Schedule, target: Target, state: PassState) -> str:
        lanes = schedule.lanes
        for name, panels in Layer.of(op, lanes, schedule.rows).panels.items():
            array = read_constant(op.projection if name == "projection" else op.weight, state)
            if array is None or holds_integers(op) or np.mean(array == 0) < _LEAST_ZEROS:
                continue
            if _stored(panels, array, _lookup_for(target, lanes)) == "panels":
                kept = float(panels.columns(array).mean())
                return f"{kept:.0%} of the columns of {lanes} units have a weight, at most {_MOST_COLUMNS:.0%} expected"
        return ""

    def emit(self, site: HostSite) -> None:
        op, s, threads = site.op, site.op.sizes, site.schedule.threads
        layer = Layer.of(op, site.schedule.lanes, site.schedule.rows)
        memory = _memories(site, layer)
        _pack(site, layer, memory)
        alone, lookup = site.scheduled(Schedule(self.name), (0, 1)), _lookup_for(site.target, layer.lanes)
        _call(alone, memory, lambda kernel, seen: emit_start(kernel.b, layer, seen))
        if threads == 1 or s.directions > 1:
            whole = site.scheduled(site.schedule, (0, 1))
            _call(whole, memory, lambda k, seen: Recurrence(k, layer, seen, lookup).emit_directions(), s.directions)
        else:
            steps = site.scheduled(site.schedule, (0, s.steps))
            _call(steps, memory, lambda k, seen: Recurrence(k, layer, seen, lookup).emit_steps(), layer.blocks, True)


def _kept_part(panels: Panels, matrix: np.ndarray) -> float:
    """Return the part of the columns to go through: those that have a weight, or 1.0. In a list each takes a load of
    its place and of its element, which all gates share where they go through all."""
    kept = float(panels.columns(matrix).mean())
    return kept if kept <= _MOST_COLUMNS else 1.0


def _lookup_for(target: Target, lanes: int) -> Lookup | None:
    """Return how elements are picked into vectors of so many lanes; None where a CPU has no instruction for it."""
    found = lookup_of(target)
    return found if found is not None and found.lanes == lanes else None


def _stored(panels: Panels, matrix: np.ndarray, lookup: Lookup | None) -> str:
    """Return how a matrix is stored so that a step has the fewest operations: "panels", "columns" or "packs"; one of
    integers is always the first."""
    if matrix.dtype != np.float32:
        return "panels"
    columns = _kept_part(panels, matrix)
    whole = float(panels.layer.sizes.directions * panels.blocks * len(panels.taken) * panels.depth)
    if lookup is not None and panels.depth >= TILE and np.count_nonzero(matrix) <= MOST_PACKED * matrix.size:
        packs = (1 + lookup.cycles) * count_packs(panels.rows(matrix), panels.layer.lanes)
        if packs < columns * whole:
            return "packs"
    return "columns" if columns < 1.0 else "panels"


def _packs(panels: Panels, matrix: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return values, index and counts of the packs of each gate of a block; see `PacksAttr`."""
    rows = panels.rows(matrix)
    return encode_packs(rows, np.arange(len(rows)), panels.layer.lanes)[:3]


def _kept_products(op: Any, layer: Layer, lookup: Lookup | None, state: PassState) -> tuple[float, float]:
    """Return the products of a step in one direction, in vectors, and the loads beside those of weights."""
    products = loads = 0.0
    for name, panels in layer.panels.items():
        array = read_constant(op.projection if name == "projection" else op.weight, state)
        whole = float(panels.blocks * panels.depth * len(panels.taken))
        kind = "panels" if array is None else _stored(panels, array, lookup)
        if array is None or kind == "panels":
            products += whole
            loads += whole / len(panels.taken)
        elif kind == "columns":
            products += whole * _kept_part(panels, array)
            loads += 2 * whole * _kept_part(panels, array)
        else:
            packs = count_packs(panels.rows(array), layer.lanes) / layer.sizes.directions
            products += packs * (1 + (0.0 if lookup is None else lookup.cycles)) / 2
            loads += packs + whole / len(panels.taken) / layer.lanes
    return products, loads


def _step_cycles(layer: Layer, model: CoreModel, kept: tuple[float, float], share: float, weight: float) -> float:
    """Return the cycles of a step in one direction, of which a thread's weights are `share`.

    Args:
        kept: see `_kept_products`.
        weight: bytes of one.
    """
    s, (products, loads) = layer.sizes, kept
    computed = s.sequences * products * model.vector_cycles(layer.lanes) / model.costs.product_share
    computed = max(computed, (products + s.sequences * loads) / model.costs.loads_per_cycle)
    size = weight * layer.lanes * products
    if share * size <= model.costs.first_level_bytes:
        moved = 0.0
    elif share * size <= model.costs.second_level_bytes:
        moved = size / model.costs.line_bytes * model.costs.line_cycles
    else:
        moved = size / model.costs.spilled_bytes_per_cycle
    return max(computed, moved) + s.sequences * layer.blocks * s.gates * model.costs.activation_cycles


def _memories(site: HostSite, layer: Layer) -> dict[str, ir.Value]:
    """Return where operands and results are, and memory for what one step leaves to another one, or to its stages."""
    op, s, allocate = site.op, layer.sizes, site.memory.allocate
    names = ("input", "hidden", "bias", "cell", "peepholes", "lengths")
    memory = {name: site.memory.buffer(value).memory for name in names if (value := getattr(op, name)) is not None}
    for name in ("result", "final_hidden", "final_cell"):
        if getattr(op, name) is not None:
            memory[name] = site.memory.result(getattr(op, name)).memory
    rows = s.directions * s.sequences
    memory["state"] = allocate(2 * rows * s.outputs, site.element)
    stages = {"update": "candidate" in layer.panels, "gated": layer.has_stages}
    return {**memory, **{name: allocate(rows * s.units, site.element) for name, needed in stages.items() if needed}}


def _pack(site: HostSite, layer: Layer, memory: dict[str, ir.Value]) -> None:
    """Put the weights into panels: now where they are constant, else before the first step."""
    for name, panels in layer.panels.items():
        value = site.op.projection if name == "projection" else site.op.weight
        array = read_constant(value, site.state)
        if array is not None:
            role = f"{name}{layer.lanes}x{layer.sizes.directions}x{layer.sizes.gates}"
            kind = _stored(panels, array, _lookup_for(site.target, layer.lanes))
            if kind == "packs":
                values, index, counts = _packs(panels, array)
                for part, packed in (("", values), (".places", index), (".packs", first_packs(counts))):
                    memory[f"{name}{part}"] = site.constant(packed, value, f"{role}.packed{part}")
                continue
            if kind == "columns":
                for part, packed in zip(("", ".index", ".offset"), panels.pack_columns(array), strict=True):
                    memory[f"{name}{part}"] = site.constant(packed, value, f"{role}.columns{part}")
                continue
            memory[name] = site.constant(panels.pack(array), value, role)
            scales = read_scales(site.op, "projection_scales" if name == "projection" else "scales")
            if scales is not None:
                memory[f"{name}.scales"] = site.constant(scales, value, "scales")
            continue
        memory[name] = site.memory.allocate(panels.size, site.element)
        given = {"source": site.memory.buffer(value).memory, "packed": memory[name]}
        alone = site.scheduled(Schedule(Recurrent.name), (0, 1))

        def emit(kernel: Kernel, seen: dict[str, ir.Value], panels: Panels = panels) -> None:
            panels.emit(kernel.b, seen["source"], seen["packed"])

        _call(alone, given, emit)


def _call(
    site: HostSite,
    memory: dict[str, ir.Value],
    emit: Callable[[Kernel, dict[str, ir.Value]], None],
    filters: int = 1,
    meets: bool = False,
) -> None:
    """Call a kernel with memories by their names."""

    def write(kernel: Kernel, arguments: list[Any]) -> None:
        set_apart(arguments)
        emit(kernel, dict(zip(memory, arguments, strict=True)))

    site.call(list(memory.values()), write, [1.0] * filters, meets=meets)
