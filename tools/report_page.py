"""The page of `patc report`: one file of HTML that needs nothing else, see templates/report.html."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patc.dialects.schedules import KeptKernels
from patc.explain.report import Advice, Net, Report, ReportedLayer
from patc.tools.console import (
    describe_bytes,
    describe_explanation,
    describe_kept,
    describe_op,
    describe_schedule,
    format_part,
    format_speedup,
    format_time,
    join_sizes,
    plural,
    shorten,
)
from patc.tools.report import describe_change, describe_saving

ROW, LANE = 28, 14  # pixels of a layer and of an edge in the graph
_MOST_LANES = 16
_SHOWN_PATTERNS = 16


def render(report: Report) -> str:
    """Return the page."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    page = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    page.filters.update(
        bytes=describe_bytes,
        change=describe_change,
        describe_op=describe_op,
        explain=describe_explanation,
        kept=describe_kept,
        saving=describe_saving,
        part=format_part,
        picture=_picture,
        plural=plural,
        schedule=describe_schedule,
        shorten=shorten,
        sizes=join_sizes,
        speedup=format_speedup,
        time=format_time,
        unit=_unit,
    )
    kernels = [item.layer.kernels for model in report.models for net in model.nets for item in net.layers]
    masks = sorted({(kept.size, mask) for kept in kernels if kept is not None for mask in _commonest(kept)})
    names = {pattern: f"k{number}" for number, pattern in enumerate(masks)}
    return page.get_template("report.html").render(
        report=report,
        symbols=[(names[size, mask], _view_box(size), _path(size, mask)) for size, mask in masks],
        symbols_of=names,
        commonest=_commonest,
        by_layer=_by_layer,
        draw_graph=draw_graph,
        row=ROW,
    )


def _by_layer(net: Net) -> dict[int, list[Advice]]:
    found: dict[int, list[Advice]] = {}
    for advice in net.advice:
        if advice.layer is not None:
            found.setdefault(advice.layer, []).append(advice)
    return found


def _unit(net: Net) -> str:
    return "cycles" if net.time is None else "time"


# The graph ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Graph:
    """A net as edges beside a list of its inputs and layers, from top to bottom.

    Attributes:
        inputs: of the net that are read.
        edges: paths of SVG.
        dots: places of inputs and layers.
        width, height: in pixels.
    """

    inputs: tuple[int, ...]
    edges: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]
    width: int
    height: int


def draw_graph(layers: Sequence[ReportedLayer]) -> Graph:
    """Return the graph of layers. What is computed goes down a lane of its own until its last reader."""
    inputs = tuple(sorted({-1 - read for item in layers for read in item.layer.reads if read < 0}))
    rows = {-1 - number: row for row, number in enumerate(inputs)}
    rows |= {number: len(inputs) + number for number in range(len(layers))}
    reads = [()] * len(inputs) + [tuple(rows[read] for read in item.layer.reads) for item in layers]
    last = {source: row for row, sources in enumerate(reads) for source in sources}
    lanes: list[int | None] = []
    lane_of: list[int] = []
    for row, sources in enumerate(reads):
        for lane, owner in enumerate(lanes):
            if owner is not None and last[owner] <= row:
                lanes[lane] = None  # its last reader may take the lane over
        free = [lane_of[source] for source in sources if lanes[lane_of[source]] is None]
        lane = min(free) if free else lanes.index(None) if None in lanes else len(lanes)
        lanes += [None] * (lane == len(lanes))
        lanes[lane] = row if row in last else None
        lane_of.append(lane)
    step = LANE * min(1.0, _MOST_LANES / max(len(lanes), 1))
    dots = tuple((round((lane + 0.5) * step, 1), (row + 0.5) * ROW) for row, lane in enumerate(lane_of))
    edges = tuple(_edge(dots[source], dots[row]) for row, sources in enumerate(reads) for source in sources)
    return Graph(inputs, edges, dots, round(len(lanes) * step) + 2, len(dots) * ROW)


def _edge(source: tuple[float, float], reader: tuple[float, float]) -> str:
    """Return a path that goes down the lane of the source and turns to the reader in front of it."""
    return f"M{source[0]:g} {source[1]:g}V{reader[1] - ROW / 2:g}L{reader[0]:g} {reader[1]:g}"


# Kernels ------------------------------------------------------------------------------------------


def _picture(kept: KeptKernels) -> str:
    """Return the kept part of blocks of kernels as a PNG, in an address: the more is kept, the less transparent."""
    from PIL import Image

    image = Image.new("P", (len(kept.picture[0]), len(kept.picture)))
    image.putdata([int(digit, 16) for row in kept.picture for digit in row])
    image.putpalette([37, 99, 235] * 16)
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=bytes(range(0, 256, 17)), bits=4, optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _commonest(kept: KeptKernels) -> dict[int, int]:
    """Return the kept kernels of the most frequent patterns, by mask."""
    ranked = sorted(zip(kept.masks, kept.counts, strict=True), key=lambda pair: -pair[1])
    return dict(ranked[:_SHOWN_PATTERNS])


def _path(size: Sequence[int], mask: int) -> str:
    """Return the taps of a pattern as squares of one unit."""
    columns = _columns(size)
    bits = (bit for bit in range(mask.bit_length()) if mask >> bit & 1)
    return "".join(f"M{bit % columns} {bit // columns}h1v1h-1z" for bit in bits)


def _columns(size: Sequence[int]) -> int:
    """Return how many taps of a kernel are drawn side by side: those of a row, or the channels of a 1x1 kernel."""
    depth, height, width = size
    return width if height * width > 1 else depth


def _view_box(size: Sequence[int]) -> str:
    columns = _columns(size)
    return f"0 0 {columns} {math.prod(size) // columns}"
