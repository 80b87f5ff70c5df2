"""How fast a layer could be on this machine, and which limit binds it.

The limit is a lower bound of a layer's time, from counts and measured peaks (`patc.bench.peak`), all of the
threads that run together:

    time >= 2 * kept weights * output places / FMA peak, of halves twice that of floats, of bytes four times
    time >= all bytes that the layer moves   / bandwidth of the second-level caches (L2)
    time >= its bytes that cannot be in L2   / bandwidth of the third-level cache (L3)
    time >= its bytes that cannot be in L3   / bandwidth of memory

The longest of the four is the limit, and it is named after what it divides by. A layer moves its inputs, outputs
and weights, each once. Which of them cannot be in a cache of C bytes:

- activations were written by the layer just before: those beyond C, max(0, activation bytes - C);
- weights were last read one inference ago. A net that touches F bytes in all can find the part C / F of them in
  the cache at best, so max(0, 1 - C / F) of the layer's weights come from beyond it. For a net that fits into L3,
  a fully connected layer is thus bound by L3, and by memory for one such as VGG-16.

Bandwidths are those of reading; that writing costs more, that first-level caches are small and that loops have ends
is not in the limit. It is what no implementation of these loops can beat, not what one can expect to reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from patc.bench.machine import Caches
from patc.bench.peak import Peak
from patc.layers import LayerReport
from patc.runtime.model import LayerTime

# Bytes of a weight, by what products are of. An instruction adds as many of them to 32 bits of a register as fit there.
_WEIGHT_BYTES = {"f32": 4, "f16": 2, "i8": 1}
WORST = 3  # layers that a summary names


@dataclass(frozen=True)
class Limit:
    """A lower bound in seconds, and what it comes from: "FMA", "L2", "L3" or "memory"."""

    seconds: float
    bound: str


@dataclass(frozen=True)
class MeasuredLayer:
    """A layer beside its limit.

    Attributes:
        layer: what it computes and how.
        seconds: measured, median.
        predicted_seconds: by the cost model of `pattern-schedule`, divided evenly among the threads.
        limit: what no implementation can beat.
    """

    layer: LayerReport
    seconds: float
    predicted_seconds: float
    limit: Limit

    @property
    def gflops(self) -> float:
        """Operations on kept weights and real pixels, in 1e9 a second."""
        return self.layer.flops / self.seconds / 1e9

    @property
    def share(self) -> float:
        """The part of its limit that the layer reaches; 1 is as fast as the machine allows."""
        return self.limit.seconds / self.seconds

    @property
    def lost_seconds(self) -> float:
        """Time above the limit."""
        return self.seconds - self.limit.seconds

    def to_json(self) -> dict[str, Any]:
        """Return the layer, its times and its limit as JSON values."""
        return {
            **self.layer.to_json(),
            "seconds": self.seconds,
            "predicted_seconds": self.predicted_seconds,
            "gflops": self.gflops,
            "limit_seconds": self.limit.seconds,
            "bound": self.limit.bound,
            "share_of_limit": self.share,
        }


@dataclass(frozen=True)
class PeakShare:
    """What a group of layers reaches of the FMA peak: together, and the slowest one; parts of 1."""

    layers: int
    together: float
    lowest: float
    lowest_name: str


def measure_layers(
    times: Sequence[LayerTime], peak: Peak, caches: Caches, footprint_bytes: int, fma_lanes: int
) -> list[MeasuredLayer]:
    """Set measured layers beside their limits.

    Args:
        times: from `CompiledModel.profile`.
        peak: of as many threads as the model was compiled for.
        caches: of the machine.
        footprint_bytes: weights and activations of the whole net, see `layer_limit`.
        fma_lanes: float32 multiply-adds that start in one cycle of one core; gives the clock from the peak.
    """
    clock = clock_hz(peak, fma_lanes)
    return [
        MeasuredLayer(
            layer=time.layer,
            # A layer shorter than a tick of the counter still took some time.
            seconds=max(time.seconds, 1e-9),
            predicted_seconds=time.layer.predicted_cycles / clock / peak.threads,
            limit=layer_limit(time.layer, peak, caches, footprint_bytes),
        )
        for time in times
    ]


def clock_hz(peak: Peak, fma_lanes: int) -> float:
    """Return the clock of the cores while they multiply and add; see `measure_layers`."""
    return peak.gflops * 1e9 / peak.threads / (2 * fma_lanes)


def layer_limit(layer: LayerReport, peak: Peak, caches: Caches, footprint_bytes: int) -> Limit:
    """Return the limit of one layer by the rule at the top of this file.

    Args:
        layer: kept weights, operations and moved bytes.
        peak: of the threads that share the layer.
        caches: second level for each thread, third level for all.
        footprint_bytes: what one inference of the whole net touches: weights and the arena of activations.
    """
    beyond_l2 = _bytes_beyond(peak.threads * caches.level2, layer, footprint_bytes)
    beyond_l3 = _bytes_beyond(max(caches.level3, peak.threads * caches.level2), layer, footprint_bytes)
    limits = (
        Limit(layer.flops / peak.gflops / 1e9 * _weight_bytes(layer) / _WEIGHT_BYTES["f32"], "FMA"),
        Limit(layer.moved_bytes / peak.l2_gbs / 1e9, "L2"),
        Limit(beyond_l2 / peak.l3_gbs / 1e9, "L3"),
        Limit(beyond_l3 / peak.read_gbs / 1e9, "memory"),
    )
    return max(limits, key=lambda limit: limit.seconds)


def _bytes_beyond(capacity: int, layer: LayerReport, footprint_bytes: int) -> float:
    """Return how many of the layer's bytes cannot be in a cache of `capacity` bytes when it starts."""
    weights = _weight_bytes(layer) * layer.kept_weights
    activations = layer.moved_bytes - weights
    missing = max(0.0, 1 - capacity / footprint_bytes) if footprint_bytes else 0.0
    return missing * weights + max(0, activations - capacity)


def _weight_bytes(layer: LayerReport) -> int:
    return _WEIGHT_BYTES.get(layer.dtype, 4)


def is_plain_3x3(layer: LayerReport) -> bool:
    """Whether a layer is a 3x3 convolution of stride 1 that is not depthwise."""
    return (
        layer.op in ("conv2d", "sparse_conv2d")
        and layer.kernel == (3, 3)
        and layer.strides == (1, 1)
        and not layer.algorithm.startswith("depthwise")
    )


def peak_share(layers: Sequence[MeasuredLayer], peak: Peak) -> PeakShare | None:
    """Return what the 3x3 layers of stride 1 reach of the FMA peak; None without such layers."""
    plain = [item for item in layers if is_plain_3x3(item.layer)]
    if not plain:
        return None
    seconds = sum(item.seconds for item in plain)
    slowest = min(plain, key=lambda item: item.gflops)
    return PeakShare(
        layers=len(plain),
        together=sum(item.layer.flops for item in plain) / seconds / 1e9 / peak.gflops,
        lowest=slowest.gflops / peak.gflops,
        lowest_name=slowest.layer.name,
    )


def furthest_from_limit(layers: Sequence[MeasuredLayer]) -> list[MeasuredLayer]:
    """Return the layers that reach the least of their own limits, the worst first."""
    return sorted(layers, key=lambda item: item.share)[:WORST]


def most_time_lost(layers: Sequence[MeasuredLayer]) -> list[MeasuredLayer]:
    """Return the layers with the most time above their limits, the worst first."""
    return sorted(layers, key=lambda item: -item.lost_seconds)[:WORST]
