"""A report as data, from which page, terminal and JSON are made; docs/report.schema.json describes the JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from patc.dialects.schedules import Buffer
from patc.layers import LayerReport
from patc.runtime.program import TensorInfo

if TYPE_CHECKING:
    from patc.bench.machine import Machine
    from patc.bench.peak import Peak

FORMAT = 1


@dataclass(frozen=True)
class Advice:
    """What would make a net faster.

    Attributes:
        kind: in a word, as in "prune".
        layer: number of the layer that it is about; None for the whole net.
        text: in one or two sentences.
        saves_share: part of the net's time that it saves, estimated.
        saves_seconds: the same in seconds; None where the clock is not known.
        is_bound: whether this is what it saves at most, rather than about.
    """

    kind: str
    layer: int | None
    text: str
    saves_share: float
    saves_seconds: float | None
    is_bound: bool


@dataclass(frozen=True)
class ReportedLayer:
    """A layer and its time.

    Attributes:
        layer: what it computes and how.
        cycles: modelled, until all threads are done.
        modelled_seconds: the same in seconds; None where the clock is not known.
        seconds: measured, the median; None where nothing was measured.
        share: of the net's time, measured or else modelled.
        bound: what most of the modelled cycles are spent on.
        limit_seconds: what no implementation can beat on this machine, see `patc.bench.limits`; None where its peaks
            are not known.
        limit_bound: where that comes from: "FMA", "L2", "L3" or "memory"; "" where it is not known.
        share_of_limit: part of the limit that is reached, of measured or else modelled time.
        ideal_speedup: how many times as fast as dense code it would be if nothing were multiplied by a zero of its
            weights or inputs; None where the zeros of its inputs are not known, or nothing is left.
        obtained_speedup: how many times as fast as the best dense way its own way is, modelled, or timed where ways
            were; None where zeros of inputs are not known, or there was no dense way.
    """

    layer: LayerReport
    cycles: float
    modelled_seconds: float | None
    seconds: float | None
    share: float
    bound: str
    limit_seconds: float | None
    limit_bound: str
    share_of_limit: float | None
    ideal_speedup: float | None = None
    obtained_speedup: float | None = None

    @property
    def time(self) -> float | None:
        """Measured or else modelled seconds."""
        return self.modelled_seconds if self.seconds is None else self.seconds


@dataclass(frozen=True)
class Net:
    """A model for inputs of some shapes.

    Attributes:
        inputs, outputs: in their order.
        block: images that are computed at once of a dynamic batch; 0 where the batch is fixed.
        own_bytes: weights that the nets before it do not read.
        arena_bytes: memory for activations.
        buffers: what lies where in it, and when.
        layers: in the order in which they run.
        cycles, modelled_seconds, seconds: of all layers together.
        generic_share: part of the time in what is computed as any linalg is.
        advice: what would make it faster, what saves most first.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    block: int
    own_bytes: int
    arena_bytes: int
    buffers: tuple[Buffer, ...]
    layers: tuple[ReportedLayer, ...]
    cycles: float
    modelled_seconds: float | None
    seconds: float | None
    generic_share: float
    advice: tuple[Advice, ...]

    @property
    def time(self) -> float | None:
        """Measured or else modelled seconds."""
        return self.modelled_seconds if self.seconds is None else self.seconds

    @property
    def weights(self) -> int:
        """Weights of all layers before pruning."""
        return sum(item.layer.weights for item in self.layers)

    @property
    def kept_weights(self) -> int:
        """Weights of all layers that are multiplied."""
        return sum(item.layer.kept_weights for item in self.layers)


@dataclass(frozen=True)
class ModelReport:
    """A compiled model.

    Attributes:
        name: of the model or its file, as the user gave it.
        target: what it was compiled for.
        features: instruction set extensions that the code needs.
        threads: that divide each layer.
        weights_bytes: of all weights, as kernels read them.
        clock_hz: of the cores, as the peak was measured; None where it was not.
        peak: of the cores; None where the model is for another machine, or was not asked for.
        nets: one for each of the shapes that it was compiled for.
    """

    name: str
    target: str
    features: tuple[str, ...]
    threads: int
    weights_bytes: int
    clock_hz: float | None
    peak: Peak | None
    nets: tuple[Net, ...]


@dataclass(frozen=True)
class Pair:
    """A layer in two nets.

    Attributes:
        first, second: its numbers there; None where it is missing.
        cycles, seconds: what the second net takes more; seconds measured or else modelled, None where the clock is not
            known.
    """

    first: int | None
    second: int | None
    cycles: float
    seconds: float | None


@dataclass(frozen=True)
class Report:
    """One model, or two to compare.

    Attributes:
        version: of patc.
        machine: that the report was made on.
        load: programs that wanted to run there at the time, on average of the last minute; more than there are cores
            make measured times too long. None where the system does not tell.
        models: the first nets of two are compared.
        pairs: the layers of these; empty for one model.
    """

    version: str
    machine: Machine
    load: float | None
    models: tuple[ModelReport, ...]
    pairs: tuple[Pair, ...] = ()

    @property
    def is_busy(self) -> bool:
        """Whether others wanted the machine's cores, too."""
        return self.load is not None and self.load > self.machine.cores

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values: seconds, bytes and plain ratios throughout."""
        return {"format": FORMAT, **asdict(self)}
