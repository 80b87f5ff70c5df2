"""Weights as conductances on tiles, and what they take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.pruning.levels import Grid
from patc.pruning.schemes import Crossbar, Levels
from patc.pruning.sites import Site, check_finite, find_sites
from patc.pruning.tiling import number_parts, sum_parts


@dataclass(frozen=True)
class Counts:
    """What weights take on crossbars.

    Attributes:
        tiles: crossbars, after columns that are in use have moved together over the outputs, or rows over the inputs,
            whichever leaves fewer.
        columns: that are in use, of all tiles: an output's, for the inputs of one tile.
        pairs: of devices: where columns and rows in use cross, before they move.
    """

    tiles: int
    columns: int
    pairs: int


@dataclass(frozen=True)
class LayerMap:
    """A layer on crossbars: weight = (positive - negative) * scale, of each output.

    Attributes:
        name: of the weight, as in `Plan`.
        positive, negative: conductances in microsiemens (outputs, inputs); one of a pair is the least one. Inputs are
            in the order of the weight's memory.
        scales: weight for a microsiemens (outputs,): the digital factor behind a column.
        used: what is in use, and `dense`: what the layer would take without zeros.
    """

    name: str
    positive: Tensor = field(repr=False)
    negative: Tensor = field(repr=False)
    scales: Tensor = field(repr=False)
    used: Counts
    dense: Counts


@dataclass(frozen=True)
class CrossbarMap:
    """The layers of a model on crossbars. `str()` gives a table with one line a layer.

    Attributes:
        size: most rows and columns of a tile.
        bits: of the levels: a device has 2^(bits - 1) conductances from `least` to `most`, two with one bit.
        least, most: conductance of a device in microsiemens.
        layers: in the order of the model's modules.
        digital: weights that are on no crossbar, by name.
    """

    size: int
    bits: int
    least: float
    most: float
    layers: tuple[LayerMap, ...]
    digital: tuple[str, ...]

    @property
    def used(self) -> Counts:
        """Of all layers."""
        return _sum(layer.used for layer in self.layers)

    @property
    def dense(self) -> Counts:
        """Of all layers, without zeros."""
        return _sum(layer.dense for layer in self.layers)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("layer", "outputs x inputs", "tiles", "of", "columns", "of", "pairs", "of")]
        for layer in self.layers:
            rows.append((layer.name or "(the model)", "x".join(map(str, layer.positive.shape)), *_pair(layer)))
        rows.append(("total", "", *_pair(self)))
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if place < 2 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join(lines)


def map_model(model: nn.Module, size: int = 128, bits: int = 5, least: float = 0.0, most: float = 25.0) -> CrossbarMap:
    """Return convolutions of one group and linear layers on crossbars; what else has weights stays digital.

    Args:
        model: whose weights are on levels, as `Levels(bits)` leaves them.
        size: most rows and columns of a tile.
        bits: of the levels.
        least, most: conductance of a device, in microsiemens.

    Raises:
        PatcError: a value is out of its range, there is no layer for a crossbar, or a weight is on no levels.
    """
    scheme, levels = Crossbar(size), Levels(bits)
    if not (math.isfinite(least) and math.isfinite(most) and 0 <= least < most):
        raise PatcError(f"expected conductances from 0 on to a larger one, found {least} to {most}")
    layers, digital = [], []
    for site in find_sites(model):
        if isinstance(scheme.constrain(site), str):
            digital.append(site.name)
        else:
            layers.append(_map_layer(site, size, levels.bits, least, most))
    if not layers:
        raise PatcError("expected a model with a convolution of one group or a linear layer, found none")
    return CrossbarMap(size, bits, least, most, tuple(layers), tuple(digital))


def _map_layer(site: Site, size: int, bits: int, least: float, most: float) -> LayerMap:
    check_finite(site)
    weight, grid = site.weight.detach(), Grid(bits)
    steps = grid.find(weight)
    if bool((steps == 0).any()):
        wrong = int((steps == 0).sum())
        raise PatcError(
            f"expected weights on levels of {bits} bits, found {wrong} filters that are on none: "
            f"Both(Crossbar({size}), Levels({bits})) prunes to them",
            site.name,
        )
    matrix = weight.double().flatten(1)
    each = (most - least) / grid.most
    conductances = (matrix / steps[:, None]).round() * each
    there = matrix != 0
    return LayerMap(
        site.name,
        (least + conductances.clamp_min(0.0)).float(),
        (least - conductances.clamp_max(0.0)).float(),
        (steps / each).float(),
        count_devices(there, size),
        count_devices(torch.ones_like(there), size),
    )


def count_devices(there: Tensor, size: int) -> Counts:
    """Return what weights take: bool (outputs, inputs), true where one is not zero."""
    outputs, inputs = (number_parts(count, size) for count in there.shape)
    columns = sum_parts(there.long(), inputs, 1) > 0  # (outputs, tiles of inputs)
    rows = sum_parts(there.long(), outputs, 0) > 0  # (tiles of outputs, inputs)
    columns_of = sum_parts(columns.long(), outputs, 0)  # of each tile
    rows_of = sum_parts(rows.long(), inputs, 1)
    tiles = [int((-(-counts // size)).sum()) for counts in (columns.sum(0), rows.sum(1))]
    return Counts(min(tiles), int(columns.sum()), int((columns_of * rows_of).sum()))


def _sum(counts: Iterator[Counts]) -> Counts:
    each = list(counts)
    return Counts(*(sum(getattr(one, name) for one in each) for name in ("tiles", "columns", "pairs")))


def _pair(owner: LayerMap | CrossbarMap) -> tuple[str, ...]:
    used, dense = owner.used, owner.dense
    return tuple(str(getattr(of, name)) for name in ("tiles", "columns", "pairs") for of in (used, dense))
