"""How layers are computed and why, as data.

Only the conversions to attributes need MLIR, so that reports of compiled models hold it, too.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

ROWS, FILTERS, IMAGES = "rows", "filters", "images"  # see `Schedule.split`

AnyRecord = TypeVar("AnyRecord", bound="_Record")


class _Record:
    """What an attribute of the dialect holds."""

    def to_attr(self) -> Any:
        from patc.dialects.records import encode_record

        return encode_record(self)

    @classmethod
    def from_attr(cls: type[AnyRecord], attr: Any) -> AnyRecord:
        """Return the record that an attribute holds.

        Raises:
            ValueError: it holds none, or a count below 1.
        """
        from patc.dialects.records import decode_record

        record = decode_record(cls, attr)
        if any(value < 1 for value in vars(record).values() if isinstance(value, int)):
            raise ValueError
        return record


@dataclass(frozen=True)
class Schedule(_Record):
    """How one layer is computed; what a field means for an algorithm is said where the algorithm is.

    Attributes:
        algorithm: name of one that the kind of layer has, see `patc.passes.algorithms.base`.
        rows: output rows of a register tile; of a band for "winograd".
        columns: output columns of a register tile; tiles of 4x4 outputs for "winograd".
        lanes: elements of one vector.
        filters: filters (output channels) of a register tile; of a block whose accumulators are in cache together for
            "input-stationary" and "pack-direct".
        sums: sets of accumulators that the taps of a kernel take turns with, so that small tiles do not wait for
            the multiply-add before; parts of the input channels for "pack-direct"; taps side by side in a vector at
            most for "input-stationary".
        split: what threads divide: "rows" (row tiles of all images), "filters", or "images": the layer computes image
            by image, together with layers around it that do.
        threads: parts the work is divided into.
    """

    algorithm: str
    rows: int = 1
    columns: int = 16
    lanes: int = 16
    filters: int = 1
    sums: int = 1
    split: str = FILTERS
    threads: int = 1

    @property
    def row_parts(self) -> int:
        """Parts that the rows are divided into."""
        return self.threads if self.split == ROWS else 1


@dataclass(frozen=True)
class Alternative:
    """One way to compute a layer that was thought of.

    Attributes:
        schedule: the best of its algorithm by the model, for one thread; where ways were measured, one of those.
        cycles: modelled, of one thread.
        ratio: modelled costs, beside those of the alternative that costs least: cycles, and what threads and the size
            of the code cost.
        seconds: median of those that were measured.
        kept_cycles: those of `cycles` that go with the number of kept kernels, or of inputs that are not zero; None for
            dense algorithms.
    """

    schedule: Schedule
    cycles: int
    ratio: float
    seconds: float | None = None
    kept_cycles: int | None = None


@dataclass(frozen=True)
class Explanation(_Record):
    """Why a layer has its schedule.

    Attributes:
        bound: what most of the cycles of the modelled best are spent on, as in "multiply-adds".
        considered: ways to compute the layer that the model ranked.
        alternatives: the best first: by seconds where they were measured, by ratio otherwise.
        notes: why ways that the layer's shape would allow were no candidates.
        sharing: modelled time of all threads, beside an even share each of the best way for a single one; None for one
            thread, and where ways were measured.
    """

    bound: str
    considered: int
    alternatives: tuple[Alternative, ...]
    notes: tuple[str, ...] = ()
    sharing: float | None = None


@dataclass(frozen=True)
class Choice(Explanation):
    """An explanation in the IR, beside a schedule that may be changed there.

    Attributes:
        chosen: the schedule that is explained; None where it is that of the first alternative.
    """

    chosen: Schedule | None = None

    @classmethod
    def of(cls, explanation: Explanation, chosen: Schedule) -> Choice:
        """Return why a schedule was chosen."""
        is_first = any(item.schedule == chosen for item in explanation.alternatives[:1])
        return cls(**vars(explanation), chosen=None if is_first else chosen)

    def explain(self, schedule: Schedule) -> Explanation | None:
        """Return why a layer has this schedule; None if it is not the one that was chosen."""
        known = self.chosen or next((item.schedule for item in self.alternatives), None)
        names = (field.name for field in fields(Explanation))
        return Explanation(**{name: getattr(self, name) for name in names}) if schedule == known else None


@dataclass(frozen=True)
class KeptKernels:
    """The kernels that pruning left of a layer.

    Attributes:
        size: input channels, height and width of a kernel.
        masks: its patterns; place (dc, dy, dx) is bit `(dc * height + dy) * width + dx`.
        counts: kept kernels of each pattern.
        spread: ten numbers of filters: that keep up to a tenth of their kernels, up to two tenths, ..., all.
        picture: the kept part of the kernels in blocks of filters (rows) and input channels, in the order of the code,
            a hexadecimal digit each: 0 for none, f for all.
    """

    size: tuple[int, ...]
    masks: tuple[int, ...]
    counts: tuple[int, ...]
    spread: tuple[int, ...]
    picture: tuple[str, ...]


@dataclass(frozen=True)
class Zeros:
    """Parts of what a layer multiplies that are zero, from 0 to 1.

    Attributes:
        weights: of the weights of the dense layer.
        inputs: of the elements of its input, on average of the samples that it was looked at with.
    """

    weights: float
    inputs: float

    @property
    def ideal(self) -> float | None:
        """How many times as fast the layer would be that multiplied nothing by zero, where zeros of weights and inputs
        meet as if by chance; None where nothing would be left."""
        left = (1 - self.weights) * (1 - self.inputs)
        return 1 / left if left else None


@dataclass(frozen=True)
class Buffer:
    """Where an activation is while a net runs.

    Attributes:
        start, size: bytes of the arena.
        first, last: numbers of the layers that touch it first and last.
    """

    start: int
    size: int
    first: int
    last: int
