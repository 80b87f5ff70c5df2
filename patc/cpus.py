"""CPUs as rows of a table, and what cost models make of a row.

Each row has its source. Where a guide tells of several sizes of a cache, the row has the smallest that is sold for
phones, laptops or servers in numbers. What a row does not say, `CoreCosts` takes from the cores that it was fitted to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from patc.costs import CoreCosts

KIB, MIB = 1024, 1 << 20
USABLE = 5, 8  # of the first-level cache: weights and outputs take the rest
# Fitted costs that stay for shorter vectors: of what comes from behind the caches, and of input-stationary loops, in
# parts of what their instructions cost.
KEPT = (
    "distant_line_cycles",
    "prefetched_line_cycles",
    "written_line_cycles",
    "place_cycles",
    "memory_bytes_per_cycle",
    "planes_bytes_per_cycle",
    "stream_bytes_per_cycle",
    "exposed_stream",
    "remote_bytes_per_cycle",
    "remote_line_cycles",
    "stationary_fma",
    "stationary_sums",
    "stationary_inputs",
    "stationary_packs",
    "stationary_beside",
    "stationary_far",
    "stationary_ends_cycles",
)


@dataclass(frozen=True)
class Cpu:
    """A core as its guide describes it, with the widest vectors that patc gives it.

    Attributes:
        lanes: f32 elements of these vectors.
        fma_lanes: f32 multiply-adds that start in one cycle.
        fma_latency: cycles from a multiply-add to one that needs its sum.
        pipes: multiply-add instructions that start in one cycle, however short the vectors.
        loads: vector loads that start in one cycle, however short.
        load_bytes: that come from the first-level cache in one cycle.
        decoded: instructions that enter the core in one cycle.
        level1, level2: KiB of the caches of a core: of data, and its share of the second level.
        ways: of the first-level cache.
        line_cycles: of one 64-byte line from the second-level cache, many in a row.
        fitted: costs that were fitted to layers on this CPU, with these vectors.
    """

    lanes: int
    fma_lanes: int
    fma_latency: float
    pipes: int
    loads: int
    load_bytes: int
    decoded: int
    level1: int
    level2: int
    ways: int
    line_cycles: float
    fitted: Mapping[str, float] = field(default_factory=dict, hash=False)

    def narrowed(self, lanes: int) -> Cpu:
        """Return what code for shorter vectors finds."""
        if lanes >= self.lanes:
            return self
        fma_lanes, load_bytes = self.pipes * lanes, self.loads * 4 * lanes
        return replace(
            self,
            lanes=lanes,
            fma_lanes=min(fma_lanes, self.fma_lanes),
            load_bytes=min(load_bytes, self.load_bytes),
            fitted={name: value for name, value in self.fitted.items() if name in KEPT},
        )

    def costs(self) -> CoreCosts:
        """Return the costs of this core; what its guide does not tell is that of others."""
        share, whole = USABLE
        found = CoreCosts(
            fma_latency_cycles=float(self.fma_latency),
            sums_in_flight=round(self.fma_latency * self.pipes),
            loads_per_cycle=self.loads,
            first_level_bytes=self.level1 * KIB * share // whole,
            first_level_ways=self.ways,
            way_bytes=self.level1 * KIB // self.ways,
            second_level_bytes=self.level2 * KIB,
            line_cycles=self.line_cycles,
        )
        return replace(found, **self.fitted)  # type: ignore[arg-type]


# Sources, which rows name in short:
#   Intel    optimization reference manual (248966), chapter of the core: ports, latencies, caches, sustained bytes a
#            cycle from the second level
#   AMD N    software optimization guide N, and its spreadsheet of latencies
#   Arm      software optimization guide of the core: FMLA from sum to sum, loads; "manual": technical reference manual
#   Apple    CPU optimization guide; of Firestorm also D. Johnson's measurements, which later cores are taken to be like
#   C&C      Chips and Cheese: "Popping the Hood on Golden Cove", "A Peek at Sapphire Rapids", "Zen 5 on Desktop"
# Looked up again in November 2026: what is marked C&C; dispatch and loads of Zen 4, as LLVM's model cites AMD 57647;
# decoders, pipes and loads of the Cortex-A76 (AnandTech, "Cortex A76 unveiled"). Not so the other rows, nor any line
# from the second level. LLVM's model of the Cortex-A53 gives four lanes two cycles, where the row has one.
# Fitted to 37 layers of ResNet's and MobileNet's shapes with up to 16 schedules each, then to all layers of ResNet-18
# and MobileNetV2 within their nets, where the caches hold other layers' data too; one core of two, November 2026.
_SAPPHIRE_RAPIDS = {
    "sustained_fma": 0.72,
    "contention": 0.15,
    "panel_cycles": 1.0,
    "parked_cycles": 3.0,
    "transform_operation": 3.5,
    "store_cycles": 0.35,
    "wide_shift_cycles": 0.18,
    "product_cycles": 0.77,
    "crossing_loads": 2.0,
    "mispredicted_cycles": 12.0,
    "first_level_bytes": 24 * KIB,
    "second_level_bytes": MIB,  # of 2 MiB: the rest holds what layers before and after this one work on
    "line_cycles": 1.7,
    "streamed_lines": 0.3,
    "stream_bytes_per_cycle": 5.0,
    "exposed_stream": 1.0,
    "prefetched_line_cycles": 6.0,
    "place_cycles": 90.0,
    "written_line_cycles": 3.0,
    "planes_bytes_per_cycle": 2.5,
    "remote_bytes_per_cycle": 4.0,
    "remote_line_cycles": 100.0,
    "stationary_sums": 0.23,
    "stationary_ends_cycles": 21.0,
}
# Fitted to 57 layers of ResNet's, VGG's and MobileNet's shapes, dense and with patterns, with up to 12 schedules each,
# one core of an EPYC (family 26, model 2), nothing else running, November 2026; `stationary_*` to 30 layers of
# patterns, 3x3 and 1x1, with up to 24 tiles each (median error 5%), what loops cost as it was.
_ZEN_5 = {
    "contention": 0.05,
    "parked_cycles": 3.0,
    "transform_operation": 2.0,
    "store_cycles": 0.3,
    "loop_entry_cycles": 1.0,
    "distant_line_cycles": 6.0,
    "prefetched_line_cycles": 2.0,
    "written_line_cycles": 0.7,
    "memory_bytes_per_cycle": 16.0,
    "planes_bytes_per_cycle": 16.0,
    "stream_bytes_per_cycle": 24.0,
    "stationary_fma": 0.69,
    "stationary_sums": 0.67,
    "stationary_inputs": 0.03,
    "stationary_packs": 0.05,
    "stationary_beside": 0.34,
    "stationary_far": 0.49,
    "stationary_ends_cycles": 5.0,
}
# Fitted to 61 layers of the same nets' shapes with 8 to 16 schedules each, by descent from the costs of Sapphire Rapids
# as in `patc.calibration.fit`, one core of two of a Cascade Lake server, November 2026.
_CASCADE_LAKE = {
    "contention": 0.27,
    "panel_cycles": 0.26,
    "parked_cycles": 1.3,
    "transform_operation": 4.7,
    "crossing_loads": 2.9,
    "store_cycles": 0.77,
    "product_cycles": 0.23,
    "wide_shift_cycles": 1.1,
    "loop_entry_cycles": 3.6,
    "mispredicted_cycles": 20.0,  # in nets, where other layers run between; of layers by themselves 7
    "kernel_cycles": 1.9,
    "line_cycles": 1.5,
    "streamed_lines": 1.0,
    "distant_line_cycles": 28.0,
    "prefetched_line_cycles": 7.1,
    "written_line_cycles": 2.0,
    "place_cycles": 90.0,
    "planes_bytes_per_cycle": 5.0,
    "stream_bytes_per_cycle": 6.1,
    "exposed_stream": 0.66,
    "exposed_weights": 0.66,
    "spilled_bytes_per_cycle": 2.0,
    "shared_level_bytes": 3145728,
    "stationary_fma": 1.4,
    "stationary_sums": 0.87,
    "stationary_inputs": 0.034,
    "stationary_packs": 0.56,
    "stationary_beside": 0.55,
    "stationary_far": 0.43,
    "stationary_ends_cycles": 7.1,
}
X86 = {
    "haswell": Cpu(8, 16, 5, 2, 2, 64, 4, 32, 256, 8, 2.5),  # Intel, 4th generation: 25 bytes a cycle
    "skylake": Cpu(8, 16, 4, 2, 2, 64, 4, 32, 256, 8, 2.2),  # Intel, client: 29 bytes a cycle
    # Intel, server: 48 bytes a cycle from the second level.
    "skylake-avx512": Cpu(16, 32, 4, 2, 2, 128, 4, 32, 1024, 8, 1.33, _CASCADE_LAKE),
    "icelake-client": Cpu(16, 16, 4, 2, 2, 128, 5, 48, 512, 12, 1.33),  # Intel; one of two pipes is 512 bits wide
    "icelake-server": Cpu(16, 32, 4, 2, 2, 128, 5, 48, 1280, 12, 1.33),  # Intel, Sunny Cove of servers
    "alderlake": Cpu(8, 16, 4, 2, 3, 96, 6, 48, 1280, 12, 1.33),  # Intel, Golden Cove, the P core; C&C
    "gracemont": Cpu(8, 8, 6, 2, 2, 32, 5, 32, 512, 8, 2.0),  # Intel, Gracemont, the E core: four share 2 MiB
    # Intel, Golden Cove of servers; C&C.
    "sapphirerapids": Cpu(16, 32, 4, 2, 2, 128, 6, 48, 2048, 12, 1.33, _SAPPHIRE_RAPIDS),
    "znver2": Cpu(8, 16, 5, 2, 2, 64, 6, 32, 512, 8, 2.0),  # AMD 56305: 32 bytes a cycle
    # AMD 56665; a line of the second level and what Winograd's transforms take were measured.
    "znver3": Cpu(8, 16, 4, 2, 2, 64, 6, 32, 512, 8, 2.0, {"transform_operation": 2.0}),
    "znver4": Cpu(16, 16, 4, 2, 2, 64, 6, 32, 1024, 8, 1.3),  # AMD 57647; a line was fitted to tiles
    "znver5": Cpu(16, 32, 4, 2, 2, 128, 8, 48, 1024, 12, 1.0, _ZEN_5),  # AMD 58455: 64 bytes a cycle; C&C
}
AARCH64 = {
    "cortex-a53": Cpu(4, 4, 4, 1, 1, 8, 2, 32, 128, 4, 4.0),  # Arm (manual); four share 512 KiB
    "cortex-a55": Cpu(4, 4, 4, 1, 1, 8, 2, 32, 128, 4, 4.0),  # Arm: Q form one a cycle
    "cortex-a72": Cpu(4, 4, 3, 1, 1, 16, 3, 32, 256, 2, 4.0),  # Arm: 3 from sum to sum; four share 1 MiB
    "cortex-a76": Cpu(4, 8, 2, 2, 2, 32, 4, 64, 512, 4, 2.0),  # Arm: 2 from sum to sum
    "cortex-a78": Cpu(4, 8, 2, 2, 3, 48, 4, 64, 512, 4, 2.0),  # Arm: three loads
    "neoverse-n1": Cpu(4, 8, 2, 2, 2, 32, 4, 64, 1024, 4, 2.0),  # Arm, as the Cortex-A76
    "cortex-x1": Cpu(4, 16, 2, 4, 3, 48, 5, 64, 1024, 4, 1.0),  # Arm: four pipes, three loads
    "cortex-x2": Cpu(4, 16, 2, 4, 3, 48, 5, 64, 1024, 4, 1.0),  # Arm
    "cortex-x3": Cpu(4, 16, 2, 4, 3, 48, 6, 64, 1024, 4, 1.0),  # Arm
    "cortex-x4": Cpu(4, 16, 2, 4, 3, 48, 10, 64, 2048, 4, 1.0),  # Arm: ten a cycle
    "apple-m1": Cpu(4, 16, 4, 4, 3, 48, 8, 128, 3072, 8, 2.0),  # Apple, Firestorm; a fourth of 12 MiB
    "apple-m2": Cpu(4, 16, 4, 4, 3, 48, 8, 128, 4096, 8, 2.0),  # Apple, Avalanche; a fourth of 16 MiB
    "apple-m3": Cpu(4, 16, 4, 4, 3, 48, 9, 128, 4096, 8, 2.0),  # Apple
    "apple-m4": Cpu(4, 16, 4, 4, 3, 48, 10, 128, 4096, 8, 2.0),  # Apple
}


def fitted_rows(lanes: int) -> list[Mapping[str, float]]:
    """Return the costs of each CPU of x86-64 that were fitted to its layers, with vectors of so many lanes."""
    return [cpu.fitted for cpu in X86.values() if len(cpu.fitted) > 1 and cpu.lanes == lanes]
