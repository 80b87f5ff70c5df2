"""What a compiled model reports about each of its layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from patc.instruments import Instrument

if TYPE_CHECKING:
    from torch_mlir import ir


@dataclass(frozen=True)
class LayerReport:
    """One layer of a compiled model.

    Attributes:
        name: path of the module in the model, or of the op where there is none.
        source: Python file and line of the call, or "".
        op: the pattern op, without the dialect's name.
        shape: of the result.
        kernel: height and width of the window, (1, 1) where there is none.
        strides: vertical and horizontal.
        algorithm: chosen by `pattern-schedule`.
        schedule: tile and thread split in words.
        reason: why it was chosen.
        weights: weights of the dense layer.
        kept_weights: weights that are multiplied.
        flops: two for each kept weight and output place.
        moved_bytes: input, output and weights, each once.
        predicted_cycles: of one thread, by the cost model.
    """

    name: str
    source: str
    op: str
    shape: tuple[int, ...]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    algorithm: str
    schedule: str
    reason: str
    weights: int
    kept_weights: int
    flops: int
    moved_bytes: int
    predicted_cycles: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> LayerReport:
        """Return the report that `to_json` wrote."""
        lists = {key: tuple(values[key]) for key in ("shape", "kernel", "strides")}
        return LayerReport(**{**values, **lists})


@dataclass
class CollectLayers(Instrument):
    """Keep the reports of the layers as soon as they have schedules: later passes dissolve them into loops."""

    found: list[LayerReport] = field(default_factory=list)

    def after(self, name: str, module: Any, seconds: float) -> None:
        if name == "pattern-schedule":
            self.found = collect_layers(module)


def collect_layers(module: ir.Module) -> list[LayerReport]:
    """Return the scheduled layers of `@main`, in the order in which they run."""
    return [_report(op) for op in _scheduled_ops(module)]


def _scheduled_ops(module: ir.Module) -> Iterator[Any]:
    from patc.passes.ir.functions import defined_functions, top_level_ops

    for function in defined_functions(module):
        yield from (op for op in top_level_ops(function) if "schedule" in op.attributes)


def _report(op: Any) -> LayerReport:
    from patc.diagnostics import layer_name, source_line
    from patc.dialects.attributes import Schedule

    schedule = Schedule.from_attr(op.attributes["schedule"])
    shape = tuple(op.result.type.shape)
    kernel, weights, kept = _weights(op)
    places = math.prod(shape) // shape[1]
    kind = op.operation.name.removeprefix("pattern.")
    words = [f"{schedule.rows}x{schedule.columns}", f"lanes {schedule.lanes}"]
    if schedule.filters > 1:
        words.append(f"{schedule.filters} filters")
    if schedule.sums > 1:
        words.append(f"{schedule.sums} sums")
    if schedule.threads > 1:
        words.append(f"{schedule.threads} threads by {schedule.split}")
    return LayerReport(
        name=layer_name(op.location) or kind,
        source=source_line(op.location) or "",
        op=kind,
        shape=shape,
        kernel=kernel,
        strides=tuple(op.strides) if "strides" in op.attributes else (1, 1),
        algorithm=schedule.algorithm,
        schedule=", ".join(words),
        reason=op.attributes["reason"].value if "reason" in op.attributes else "given",
        weights=weights,
        kept_weights=kept,
        flops=2 * kept * places,
        moved_bytes=_moved_bytes(op),
        predicted_cycles=op.attributes["cycles"].value if "cycles" in op.attributes else 0,
    )


def _weights(op: Any) -> tuple[tuple[int, int], int, int]:
    """Return the window, the dense layer's weights and the kept ones."""
    from patc.dialects import pattern
    from patc.passes.formats.registry import format_of

    if isinstance(op, pattern.SparseConv2dOp):
        kernel = op.format.kernel_size()
        dense = op.result.type.shape[1] * op.input.type.shape[1] * math.prod(kernel)
        return kernel, dense, format_of(op).kept_weights([value.type.shape for value in op.arrays])
    if isinstance(op, (pattern.Conv2dOp, pattern.LinearOp)):
        shape = list(op.weight.type.shape)
        kernel = (shape[2], shape[3]) if len(shape) == 4 else (1, 1)
        return kernel, math.prod(shape), math.prod(shape)
    if "kernel" in op.attributes:
        return tuple(op.kernel), 0, 0
    return (1, 1), 0, 0


def _moved_bytes(op: Any) -> int:
    from patc.passes.ir.elements import element_bytes

    types = [value.type for value in (*op.operands, op.result)]
    return sum(element_bytes(type_) * math.prod(type_.shape) for type_ in types)
