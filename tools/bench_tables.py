"""What `patc bench` prints, for terminals of 110 columns and more."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from patc.bench.limits import MeasuredLayer, furthest_from_limit, most_time_lost, peak_share
from patc.bench.machine import MIB, Machine
from patc.bench.results import ERROR_BOUND, WINOGRAD_NOTE, BenchResult, Entry, Run, count, wrong_entries
from patc.bench.timing import CALLS_PER_ROUND
from patc.bench.workload import Workload
from patc.diagnostics import describe_seconds
from patc.dialects.schedules import Schedule
from patc.layers import LayerReport
from patc.tools.console import join_sizes, shorten

WIDTH = 110  # where the output is no terminal

_SHORT_OPS = {"conv2d": "conv", "sparse_conv2d": "sparse", "max_pool2d": "maxpool", "avg_pool2d": "avgpool"}
_WORD_COLUMNS = 5  # of the table of layers: the first ones hold words, the others numbers
_LAYER_LEGEND = (
    "schedule: rows x columns of a tile, f filters and s sums at a time, split over threads by rows |r, filters |f "
    "or images |i; GFLOP/s on kept weights and real pixels, with Winograd too, which multiplies less and may exceed "
    "the peak; of limit: the part reached of what FMA peak or bandwidth allow; model: time predicted"
)


def make_console() -> Console:
    """Return a console for standard output; files and pipes get lines of `WIDTH` columns."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=WIDTH)


def render(result: BenchResult) -> RenderableType:
    """Return everything that `patc bench` prints."""
    parts: list[RenderableType] = [_header(result)]
    for run in result.runs:
        parts += ["", _speed_table(run, result), *_algorithms(run), _peak_line(run)]
        if run.layers:
            parts += ["", _layer_table(run), Text(_LAYER_LEGEND, style="dim"), *_layer_summary(run)]
    parts += ["", *_closing_lines(result)]
    return Group(*parts)


# Header and speed ---------------------------------------------------------------------------------


def _header(result: BenchResult) -> Text:
    run = result.runs[0]
    weights = f"{shorten(run.weights)} weights, {shorten(run.kept_weights)} kept"
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines = [
        f"{describe_workload(result.workload)}: {weights}, {run.footprint_bytes / MIB:.1f} MiB touched a call",
        f"on {describe_machine(result.machine)}{'' if result.target == 'host' else f', code for {result.target}'}",
        f"with {versions}",
    ]
    return Text("\n".join(lines))


def describe_workload(workload: Workload) -> str:
    """Return the model and its pruning in a few words."""
    words = [workload.model] if workload.is_file else [workload.model, f"batch {workload.batch}"]
    if workload.pruning is not None:
        words.append("pruned to " + ", ".join(f"{name} {value}" for name, value in workload.pruning.items()))
    return ", ".join(words)


def describe_machine(machine: Machine) -> str:
    """Return the machine on one line."""
    return f"{machine.cpu}, {count(machine.cores, 'core')}, {machine.caches}, {' '.join(machine.features)}"


def _speed_table(run: Run, result: BenchResult) -> Table:
    calls = f"{count(result.repetitions, 'call')} of each in turns of {CALLS_PER_ROUND}"
    unit = "images a second" if result.throughput else "milliseconds"
    table = _make_table(f"{count(run.threads, result.part)}: {unit}, {calls}")
    table.add_column("")
    table.add_column("weights")
    for name in ("median", "quartiles", "patc is", "error"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in run.entries:
        table.add_row(*_speed_row(entry, run, result), style="bold" if entry is run.patc else "")
    return table


def _speed_row(entry: Entry, run: Run, result: BenchResult) -> list[str]:
    low, high = entry.times.quartiles
    median, between = f"{entry.times.median * 1e3:.2f}", f"{low * 1e3:.2f}-{high * 1e3:.2f}"
    if result.throughput:
        rates = [result.images / seconds for seconds in (entry.times.median, high, low)]
        median, between = f"{rates[0]:.1f}", f"{rates[1]:.1f}-{rates[2]:.1f}"
    return [
        f"{entry.name} {entry.version.partition('-')[0]}",
        entry.kind,
        median,
        between,
        "" if entry is run.patc else str(run.speedup(entry)),
        "" if entry.error is None else f"{entry.error:.0e}",
    ]


def _algorithms(run: Run) -> list[Text]:
    """Name what each contestant computes convolutions by; it rarely depends on the weights."""
    lines = dict.fromkeys(f"  {entry.name}: {entry.algorithm}" for entry in run.entries)
    return [Text("convolutions by"), *map(Text, lines)]


def _peak_line(run: Run) -> Text:
    return Text(f"peak of {count(run.threads, 'core')}, measured in this run: {run.peak}")


def _make_table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))


# Layers -------------------------------------------------------------------------------------------


def _layer_table(run: Run) -> Table:
    total = sum(item.seconds for item in run.layers)
    names = ("layer", "op", "shape", "algorithm", "schedule", "kept", "time", "GFLOP/s", "of limit", "model")
    title = f"layers with {count(run.threads, 'thread')}: microseconds, {total * 1e3:.2f} ms together"
    return fill_table(title, names, [_layer_row(item) for item in run.layers], _WORD_COLUMNS)


def fill_table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> Table:
    """Return a table of layers whose first `words` columns hold words and whose others hold numbers."""
    table = _make_table(title)
    for place, name in enumerate(names):
        # Only the layers' names give way where there is no room; numbers are never cut.
        widest = None if place == 0 else max(len(name), *(len(row[place]) for row in rows))
        table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=widest)
        table.columns[-1].justify = "left" if place < words else "right"
    for row in rows:
        table.add_row(*row)
    return table


def _layer_row(item: MeasuredLayer) -> list[str]:
    layer = item.layer
    return [
        layer.name,
        op_words(layer),
        join_sizes(layer.shape[1:] if layer.shape[0] == 1 else layer.shape),
        layer.algorithm,
        _short_schedule(layer.schedule),
        shorten(layer.kept_weights) if layer.kept_weights else "",
        _microseconds(item.seconds),
        f"{item.gflops:.1f}" if layer.flops else "",
        f"{item.share:.0%} {item.limit.bound}",
        _microseconds(item.predicted_seconds),
    ]


def op_words(layer: LayerReport) -> str:
    """Return the op with its window and stride, as in `conv 7x7/2`."""
    words = _SHORT_OPS.get(layer.op, layer.op)
    if layer.op in _SHORT_OPS:
        words += f" {join_sizes(layer.kernel)}"
    if max(layer.strides) > 1:
        words += f"/{layer.strides[0] if len(set(layer.strides)) == 1 else join_sizes(layer.strides)}"
    return words


def _short_schedule(schedule: Schedule) -> str:
    """Return '8x48 f2 |r' for tiles of 8x48 of two filters, whose rows threads divide."""
    words = [f"{schedule.rows}x{schedule.columns}"]
    words += [f"f{schedule.filters}"] if schedule.filters > 1 else []
    words += [f"s{schedule.sums}"] if schedule.sums > 1 else []
    words += [f"|{schedule.split[0]}"] if schedule.threads > 1 else []
    return " ".join(words)


def _layer_summary(run: Run) -> list[Text]:
    lines = []
    share = peak_share(run.layers, run.peak)
    if share is not None:
        lines.append(
            f"{count(share.layers, '3x3 stride-1 layer')}: {share.together:.0%} of the FMA peak together, lowest "
            f"{share.lowest:.0%} ({share.lowest_name})"
        )
    layers = [item.layer for item in run.layers]
    far = [
        f"{name_among(item.layer, layers)} {item.share:.0%} of {item.limit.bound}"
        for item in furthest_from_limit(run.layers)
    ]
    lost = [
        f"{name_among(item.layer, layers)} {describe_seconds(item.lost_seconds)}" for item in most_time_lost(run.layers)
    ]
    lines.append(f"furthest from their limits: {', '.join(far)}")
    lines.append(f"most time above the limit: {', '.join(lost)}")
    return [Text(line) for line in lines]


def name_among(layer: LayerReport, layers: Sequence[LayerReport]) -> str:
    """Return the layer's name, with its op where another layer has the same name."""
    same = sum(other.name == layer.name for other in layers)
    return layer.name if same == 1 else f"{layer.name} {layer.op}"


# Closing lines ------------------------------------------------------------------------------------


def _closing_lines(result: BenchResult) -> list[Text]:
    lines = [_speedup_line(run, result.part) for run in result.runs if len(run.entries) > 1]
    first = result.runs[0]
    for run, ratio in result.scaling():
        more, fewer = count(run.threads, result.part), count(first.threads, result.part)
        lines.append(Text(f"{more}: {ratio} as fast as patc with {fewer}"))
    if result.workload.pruning is not None:
        lines.append(Text(WINOGRAD_NOTE))
    lines += [Text(f"noisy: {line}", style="yellow") for line in result.noise()]
    lines += [Text(f"missing: {item}", style="yellow") for item in result.missing]
    for run, entry in wrong_entries(result.runs):
        message = f"wrong: with {count(run.threads, result.part)} the error is {entry.error:.1e}, above {ERROR_BOUND:g}"
        lines.append(Text(message, style="bold red"))
    return lines


def _speedup_line(run: Run, part: str) -> Text:
    baseline = run.entries[1]
    ratio = run.speedup(baseline)
    algorithm = re.sub(r" \([^)]*\)", "", baseline.algorithm)
    spread = f"quartiles of the rounds {ratio.lower:.2f}-{ratio.upper:.2f}"
    return Text.assemble(
        f"{count(run.threads, part)}: ",
        (str(ratio), "bold"),
        f" as fast as {baseline.name} ({algorithm}) on {baseline.kind} weights; {spread}",
    )


def _microseconds(seconds: float) -> str:
    micro = seconds * 1e6
    return f"{micro:.1f}" if micro < 10 else f"{micro:.0f}"
