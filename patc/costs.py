"""The numbers that cost models read: how fast the cores of a CPU, or the threads of a GPU, are.

The defaults of `CoreCosts` were fitted to measured tiles on an x86-64 core with two 256-bit multiply-add units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from patc.diagnostics import PatcError


def check_numbers(owner: Any, name: str) -> None:
    """Check the numbers among the fields of a dataclass: whole ones count something, and are divided by.

    Args:
        name: what messages call the owner.

    Raises:
        PatcError: a number is of another type, or too small.
    """
    for item in fields(owner):
        value, least = getattr(owner, item.name), 1 if item.type == "int" else 0
        is_number = type(value) in ((int,) if least else (int, float)) and math.isfinite(value)
        if item.type in ("int", "float") and not (is_number and value >= least):
            kind = "an integer" if least else "a number"
            raise PatcError(f"{name} expected {item.name} to be {kind} of {least} or more, got {value!r}")
        if item.name.endswith("_per_cycle") and not value:
            raise PatcError(f"{name} expected {item.name} to be more than 0, got {value!r}")
        if item.name == "line_bytes" and (value < 16 or value & (value - 1)):
            raise PatcError(f"{name} expected {item.name} to be a power of two of 16 or more, got {value!r}")


@dataclass(frozen=True)
class CoreCosts:
    """What one core of a CPU waits for. Sizes are in bytes, times in cycles of the core.

    Attributes:
        fma_latency_cycles: from a multiply-add to one that needs its sum.
        sustained_fma: part of the multiply-adds that could start, that do in loops with loads and shifts.
        contention: part of the shorter one of multiply-adds and loads that does not hide behind the other; of loads
            that cross no line, where there are as many.
        panel_cycles: of each product of a panel beside its multiply-adds: end of the loop, and weights that come.
        copied_cycles: to copy a vector into a panel.
        parked_cycles: to add a vector of sums to those that wait in a cache, or to take it from there.
        transform_operation: vector operation of Winograd's transforms, shuffles among them, in multiply-adds.
        sums_in_flight: multiply-adds that wait for each other at least, for a core to be busy.
        loads_per_cycle: vector loads that start in one cycle, however short the vectors.
        crossing_loads: that start in the time of one that crosses a cache line.
        store_cycles: of one vector through the epilogue.
        product_cycles: to store a vector of Winograd's products, beside multiply-adds of others.
        wide_shift_cycles: what a shift of two full vectors takes from the multiply-adds.
        narrow_shift_cycles: the same of shorter vectors.
        loop_entry_cycles: to enter a loop whose length the branch predictor does not know.
        mispredicted_cycles: to leave such a loop, unless that much work is waiting.
        kernel_cycles: index, address and weights of one kept kernel, beside its multiply-adds.
        loop_instructions: index, address and weights of one kept kernel, and the end of the loop.
        code_cost: what each multiply-add instruction of a kernel adds to its cost, as a part of the cost: caches and
            compile time count too.
        line_bytes: of a cache line.
        first_level_bytes: of the first-level cache, without what weights and outputs take.
        first_level_ways: lines of the first-level cache that share a set.
        way_bytes: by which such lines lie apart.
        second_level_bytes: of the second-level cache.
        shared_level_bytes: of the last-level cache that stay from one stage of a layer to the next.
        memory_bytes: a tensor of more comes from memory.
        line_cycles: of one cache line from the second-level cache.
        streamed_lines: part of these that is waited for where planes are read in order: the core fetches those ahead.
        distant_line_cycles: of one cache line from behind the second-level cache.
        prefetched_line_cycles: the same, asked for in time.
        place_cycles: more for each stretch of neighbouring lines that comes from memory.
        written_line_cycles: the same, to be written (or to be added to what is written).
        memory_bytes_per_cycle: of a layer that computes next to nothing.
        outlined_bytes_per_cycle: of the loops of outlined functions, which do little more than load and store.
        spilled_bytes_per_cycle: of what does not stay in `shared_level_bytes`.
        planes_bytes_per_cycle: rows of many planes, from behind the second-level cache.
        stream_bytes_per_cycle: one stream from memory.
        exposed_stream: part of such a stream of weights that no multiply-adds hide.
        exposed_weights: the same of the lines of weights from the second level, whose vectors take all filters.
        remote_bytes_per_cycle: from the cache of another core, many lines in a row.
        remote_line_cycles: of one line from there.
        meeting_cycles: until all threads know that each of them has come.
        shared_work_cycles: of work that is worth dividing among threads.
        product_share: of its multiply-adds that a core reaches in products of matrices.
        dot_share: the same of a matrix and a vector, beside the loads.
        lane_sum_cycles: to add up the lanes of one vector.
        activation_cycles: of one vector, where it is an exponential or made of them.
        shared_band: factor for threads that share the stages of Winograd's bands instead of having bands of their own.
        stationary_fma: input-stationary: part of the cycles that multiply-adds would take alone; the rest overlaps.
        stationary_sums: part of the cycles of the loads of accumulators and weights.
        stationary_inputs: part of the cycles of the loads of a pattern's inputs.
        stationary_packs: to put one more row into a vector of a pattern's inputs.
        stationary_beside: to make a vector of weights, of taps whose products lie side by side.
        stationary_far: part of the cycles of the lines of accumulators that the first-level cache does not hold.
        stationary_ends_cycles: one vector of accumulators from its bias to the output.

    Raises:
        PatcError: a number that a model cannot compute with.
    """

    fma_latency_cycles: float = 4.0
    sustained_fma: float = 1.0
    contention: float = 0.0
    panel_cycles: float = 0.0
    copied_cycles: float = 1.5
    parked_cycles: float = 2.0
    transform_operation: float = 1.0
    sums_in_flight: int = 8
    loads_per_cycle: int = 2
    crossing_loads: float = 2.0
    store_cycles: float = 2.0
    product_cycles: float = 1.0
    wide_shift_cycles: float = 0.15
    narrow_shift_cycles: float = 0.5
    loop_entry_cycles: float = 3.0
    mispredicted_cycles: float = 30.0
    kernel_cycles: float = 1.0
    loop_instructions: int = 7
    code_cost: float = 1.2e-4
    line_bytes: int = 64
    first_level_bytes: int = 20 * 1024
    first_level_ways: int = 8
    way_bytes: int = 4096
    second_level_bytes: int = 1 << 20
    shared_level_bytes: int = 4 << 20
    memory_bytes: int = 8 << 20
    line_cycles: float = 1.3
    streamed_lines: float = 0.5
    distant_line_cycles: float = 38.0
    prefetched_line_cycles: float = 4.0
    place_cycles: float = 0.0
    written_line_cycles: float = 8.0
    memory_bytes_per_cycle: float = 6.0
    outlined_bytes_per_cycle: float = 4.0
    spilled_bytes_per_cycle: float = 8.0
    planes_bytes_per_cycle: float = 2.5
    stream_bytes_per_cycle: float = 5.5
    exposed_stream: float = 0.0
    exposed_weights: float = 0.0
    remote_bytes_per_cycle: float = 4.0
    remote_line_cycles: float = 100.0
    meeting_cycles: float = 6000.0
    shared_work_cycles: int = 8192
    product_share: float = 0.85
    dot_share: float = 0.6
    lane_sum_cycles: float = 3.0
    activation_cycles: float = 25.0
    shared_band: float = 1.2
    stationary_fma: float = 0.92
    stationary_sums: float = 0.35
    stationary_inputs: float = 0.06
    stationary_packs: float = 1.0
    stationary_beside: float = 0.0
    stationary_far: float = 0.0
    stationary_ends_cycles: float = 11.0

    def __post_init__(self) -> None:
        check_numbers(self, "CoreCosts")


@dataclass(frozen=True)
class GpuCosts:
    """How a GPU computes. Cycles are those of a multiply-add of four elements in one thread.

    Attributes:
        resident_threads: that the GPU works on at once.
        load_cycles: of a vector load.
        uniform_cycles: of a load that is the same for a whole workgroup.
        loop_cycles: of one turn of a loop.
        start_cycles: of a thread, with its addresses, epilogue and store.
        barrier_cycles: of adding up the parts of a sum.
        accumulators: vectors of sums that a thread holds.
        shared_bytes: of workgroup memory.
        line_bytes: of a cache line.
        workgroups: threads of a workgroup that are worth a thought: whole waves, which have 8 to 64 threads.

    Raises:
        PatcError: a number that a model cannot compute with.
    """

    resident_threads: int = 4096
    load_cycles: float = 2.0
    uniform_cycles: float = 1.0
    loop_cycles: float = 4.0
    start_cycles: float = 40.0
    barrier_cycles: float = 30.0
    accumulators: int = 8
    shared_bytes: int = 16384
    line_bytes: int = 64
    workgroups: tuple[int, ...] = (64, 128)

    def __post_init__(self) -> None:
        check_numbers(self, "GpuCosts")
        if not self.workgroups or any(type(threads) is not int or threads < 8 for threads in self.workgroups):
            raise PatcError(f"GpuCosts expected workgroups of 8 threads or more, got {self.workgroups!r}")
