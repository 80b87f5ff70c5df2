"""What a compiled model reports about each of its layers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from patc.dialects.schedules import Choice, Explanation, KeptKernels, Schedule, Zeros
from patc.instruments import Instrument

if TYPE_CHECKING:
    from torch_mlir import ir

    from patc.passes.base import PassState


@dataclass(frozen=True)
class LayerReport:
    """One layer of a compiled model.

    Attributes:
        name: path of the module in the model, or of the op where there is none.
        source: name of the Python file and line of the call, or "". Not its folder: files of equal models are equal,
            wherever these lie.
        op: the pattern op, without the dialect's name; "generic" for any other linalg.
        shape: of the result, the first of several.
        kernel: height and width of the window, (1, 1) where there is none.
        strides: vertical and horizontal.
        schedule: how it is computed.
        explanation: why, by `pattern-schedule`; None where the schedule was given, or changed in the IR.
        weights: weights of the dense layer.
        kept_weights: weights that are multiplied.
        flops: two for each kept weight and output place.
        moved_bytes: input, output and weights, each once.
        predicted_cycles: of one thread, by the cost model; 0 where the schedule was given, or changed in the IR.
        reads: numbers of the layers whose results it reads; -1 - i stands for input i of the model.
        kernels: what pruning left of its weights; None where these are dense.
        dtype: what its products are of, "f32", "f16" or "i8".
        weight_dtype: what its weights are in memory where its products are of others: "i8", or "i1" for bits.
        zeros: of its weights and inputs, where samples of inputs were given; None where they are not known.
        remarks: what passes remarked about its weights, as why they stay dense, or about a change to integers or back.
    """

    name: str
    source: str
    op: str
    shape: tuple[int, ...]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    schedule: Schedule
    explanation: Explanation | None
    weights: int
    kept_weights: int
    flops: int
    moved_bytes: int
    predicted_cycles: int
    reads: tuple[int, ...] = ()
    kernels: KeptKernels | None = None
    remarks: tuple[str, ...] = ()
    dtype: str = "f32"
    weight_dtype: str = ""
    zeros: Zeros | None = None

    @property
    def algorithm(self) -> str:
        """How it is computed, in a word."""
        return self.schedule.algorithm

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


@dataclass
class CollectLayers(Instrument):
    """Keep the reports of the layers as soon as they have schedules: later passes dissolve them into loops.

    Attributes:
        state: that the passes share.
    """

    state: PassState
    found: list[LayerReport] = field(default_factory=list)

    def after(self, name: str, module: Any, seconds: float) -> None:
        if name == "pattern-schedule":
            self.found = collect_layers(module, self.state)


def unnamed_layers(count: int) -> tuple[LayerReport, ...]:
    """Return reports of layers of which nothing is known any more, since passes dissolved them into loops."""
    loops = Schedule("given as loops")
    return tuple(LayerReport(f"layer{i}", "", "", (), (1, 1), (1, 1), loops, None, 0, 0, 0, 0, 0) for i in range(count))


def collect_layers(module: ir.Module, state: PassState) -> list[LayerReport]:
    """Return the scheduled layers of `@main`, in the order in which they run."""
    from patc.diagnostics import layer_name

    remarks: dict[str, list[str]] = {}
    for item in state.diagnostics:
        remarks.setdefault(layer_name(item.location) or "", []).append(item.message)
    sources = _Sources()
    layers = []
    for number, op in enumerate(_scheduled_ops(module)):
        layer = replace(_report(op, state), reads=sources.read_by(op))
        is_told = layer.weights or (layer.name and layer.op == "relayout")  # where integers stop or begin
        layers.append(replace(layer, remarks=tuple(remarks.get(layer.name, ()))) if is_told else layer)
        sources.known[op.operation] = {number}
    return layers


@dataclass
class _Sources:
    """The layers, or inputs of the model, that ops compute their results from.

    Attributes:
        known: by op; a layer is its own source.
    """

    known: dict[Any, set[int]] = field(default_factory=dict)

    def read_by(self, op: Any) -> tuple[int, ...]:
        return tuple(sorted(set().union(*map(self._of, op.operands))))

    def _of(self, value: Any) -> set[int]:
        owner = value.owner
        if hasattr(owner, "arguments"):  # a block
            return {-1 - value.arg_number}
        if owner not in self.known:
            self.known[owner] = set().union(*map(self._of, owner.operands))
        return self.known[owner]


def _scheduled_ops(module: ir.Module) -> Iterator[Any]:
    from patc.passes.ir.functions import defined_functions, top_level_ops
    from patc.passes.layers.registry import kind_of

    for function in defined_functions(module):
        yield from (op for op in top_level_ops(function) if kind_of(op) is not None and "schedule" in op.attributes)


def _report(op: Any, state: PassState) -> LayerReport:
    from patc.diagnostics import layer_name, source_line
    from patc.passes.ir.functions import describe_call
    from patc.passes.ir.records import read_cycles, read_record
    from patc.passes.ir.zeros import read_zeros
    from patc.passes.layers.registry import kind_of

    kind = kind_of(op)
    assert kind is not None, "others have no schedule"
    stands_for = describe_call(op)
    name = "generic" if stands_for else op.operation.name.removeprefix("pattern.")
    window, work = kind.window(op), kind.work(op)
    schedule = read_record(op, Schedule)
    explanation = read_record(op, Choice).explain(schedule) if "explanation" in op.attributes else None
    # Cycles are those of the schedule that was chosen.
    is_changed = "explanation" in op.attributes and explanation is None
    if explanation is not None and stands_for:
        explanation = replace(explanation, notes=(*explanation.notes, f"computes {', '.join(stands_for)}"))
    return LayerReport(
        name=layer_name(op.location) or name,
        source=os.path.basename(source_line(op.location) or ""),
        op=name,
        shape=tuple(op.results[0].type.shape),
        kernel=(1, 1) if window is None else window.kernel,
        strides=(1, 1) if window is None else window.strides,
        schedule=schedule,
        explanation=explanation,
        weights=work.weights,
        kept_weights=work.kept_weights,
        flops=work.flops,
        moved_bytes=_moved_bytes(op),
        predicted_cycles=0 if is_changed else read_cycles(op),
        kernels=_kept_kernels(op, state),
        dtype=_dtype(op),
        weight_dtype=_weight_dtype(op),
        zeros=read_zeros(op),
    )


def _dtype(op: Any) -> str:
    from patc.passes.ir.quantised import is_quantised

    return "i8" if is_quantised(op) else str(op.results[0].type.element_type)


def _weight_dtype(op: Any) -> str:
    from patc.passes.ir.stored import holds_integers

    return str(op.weight.type.element_type) if holds_integers(op) else ""


def _kept_kernels(op: Any, state: PassState) -> KeptKernels | None:
    from patc.passes.formats.layer_weights import groups_of
    from patc.passes.layers.sparse import are_constant, read_weights

    if "format" not in op.attributes or not are_constant(op.arrays, state):
        return None
    stored, arrays = read_weights(op, state)
    return stored.kept_kernels(arrays, op.input.type.shape[1], groups_of(op))


def _moved_bytes(op: Any) -> int:
    from patc.passes.ir.stored import tensor_bytes

    return sum(tensor_bytes(op, value) for value in (*op.operands, *op.results))
