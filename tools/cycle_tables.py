"""What `patc bench --model-cycles` prints, for terminals of 110 columns and more."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from patc.bench.cycles import CycleResult, ModelledLayer
from patc.tools.bench_tables import describe_workload, fill_table, name_among, op_words
from patc.tools.console import shorten

_NAMES = ("layer", "op", "algorithm", "instr.", "FMLA", "loads", "cycles", "FMLA/cycle", "of peak", "predicted")
_WORD_COLUMNS = 3  # the first ones hold words, the others numbers
_LEGEND = (
    "instructions, FMLA (vector multiply-adds, FMLS too) and loads are counted in an emulator; cycles are what a "
    "scheduling model of the core says of the executed code, with no cache misses and no mispredicted branches; "
    "of layers that take turns band by band, the first one has what all of them take; "
    "predicted: cycles by the cost model that chose the schedules"
)


def render(result: CycleResult) -> RenderableType:
    """Return everything that is printed."""
    title = f"{result.cpu}, {result.dtype}, 1 thread: modelled, not measured; assumes all data in L1"
    rows = [*(_row(item, result) for item in result.layers), _total(result)]
    lines = [_summary(result)]
    if result.is_wrong:
        message = f"wrong: the error is {result.error:.1e}, above {result.error_bound:g}"
        lines.append(Text(message, style="bold red"))
    return Group(
        Text(f"{describe_workload(result.workload)}: compiled for {result.target}, run in an emulator"),
        "",
        fill_table(title, _NAMES, rows, _WORD_COLUMNS),
        Text(_LEGEND, style="dim"),
        *lines,
    )


def _row(item: ModelledLayer, result: CycleResult) -> list[str]:
    counts = [item.instructions, item.multiply_adds, item.loads]
    return [
        item.layer.name,
        op_words(item.layer),
        item.layer.algorithm,
        *map(shorten, counts),
        f"{item.cycles:,.0f}",
        *(_rate(item.rate, result) if item.multiply_adds else ["", ""]),
        f"{item.layer.predicted_cycles:,}",
    ]


def _total(result: CycleResult) -> list[str]:
    counts = [result.instructions, result.multiply_adds, result.loads]
    predicted = sum(item.layer.predicted_cycles for item in result.layers)
    rate = _rate(result.rate, result)
    return ["all together", "", "", *map(shorten, counts), f"{result.cycles:,.0f}", *rate, f"{predicted:,}"]


def _rate(rate: float, result: CycleResult) -> list[str]:
    return [f"{rate:.2f}", f"{rate / result.fma_peak:.0%}"]


def _summary(result: CycleResult) -> Text:
    layers = [item.layer for item in result.layers]
    far = [f"{name_among(item.layer, layers)} {item.rate:.2f}" for item in result.furthest_from_peak()]
    lost = [f"{name_among(item.layer, layers)} {result.lost_cycles(item):,.0f}" for item in result.most_cycles_lost()]
    lines = [
        f"the peak is {result.fma_peak:g} FMLA a cycle; furthest from it: {', '.join(far)}",
        f"most cycles beyond those of their FMLA: {', '.join(lost)}",
        f"error against PyTorch in float64: {result.error:.0e}",
    ]
    return Text("\n".join(lines))
