"""Winograd convolution F(4x4, r x r) on planar tensors: with 3x3 kernels 36 multiplications for 16 outputs, not 144.

Outputs are cut into tiles of 4x4, each of which reads inputs d, 6x6 of them for a 3x3 kernel g. With the matrices A, B
and G of `winograd_transforms`, and o for the element by element product, summed over input channels,

    outputs = A^T [(G g G^T) o (B^T d B)] A

so a layer becomes 36 matrix products, one for each position in a tile, with a transform before and one after them:

    for band of rows of tiles:
      transform_input:    for channel: for vector of tiles: input vectors -> one vector for each position
      for group of filters:
        multiply:         for position: for block of filters x strip of tiles: accumulators stay in registers
        transform_output: for filter: for vector of tiles: a vector a position -> bias, residual, activation, outputs

A convolution of stride 2 is the sum of four of stride 1 (polyphase decomposition): of the phases of the input, every
second row and column from either of the first two on, with those of the kernel. Those of a 7x7 kernel have 4x4, 4x3,
3x4 and 3x3 taps. They count as so many more input channels of one layer of 4x4 taps with 49 positions, of which a phase
of fewer taps uses 42 or 36: together 169 multiplications a channel for 16 outputs, not 784.

Vectors lie along tiles. Rows are transformed vertically as they lie in memory; then columns four apart are picked into
vectors for the horizontal transform. Tiles at the lower and right edge may have outputs that do not exist: those are
not stored, and what they alone would read is replaced by inputs that do exist.

Here is how layers are cut; the loops are in `winograd_bands`, and what they cost in `passes/cost/winograd.py`.

In a `Schedule`, `rows` are the output rows of a band, counted through all images; `columns` (tiles) x `filters` is the
register tile of the products. With split "rows" each thread computes bands of its own, if there are enough of them;
else all threads share each stage of each band.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from patc.costs import CoreCosts
from patc.integers import ceil_div
from patc.passes.kernels import tiling
from patc.passes.kernels.host.winograd_transforms import TAPS, TILE, Label, weight_matrix


def applies(kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], groups: int, phases: int) -> bool:
    """Whether a convolution can be computed this way; `phases` are those of its input's layout."""
    stride = strides[0]
    square = len({*kernel}) == 1 and tuple(strides) == (stride, stride)
    plain = (*dilations,) == (1, 1) and phases == stride <= (2 if groups == 1 else 1)
    return square and plain and ceil_div(kernel[0], stride) in TAPS


# Phases


@dataclass(frozen=True)
class Phase:
    """Every `stride`-th row and column of the input and of the kernel.

    Attributes:
        row, column: the first ones.
        height, width: of the part of the kernel.
    """

    row: int
    column: int
    height: int
    width: int

    @property
    def lines(self) -> int:
        """Rows of inputs of a tile, and of positions that they are transformed to."""
        return TILE - 1 + max(self.height, min(TAPS))

    @property
    def shifts(self) -> int:
        """Columns of inputs of a tile, and of positions that they are transformed to."""
        return TILE - 1 + max(self.width, min(TAPS))


@functools.cache
def phases(kernel: int, stride: int) -> tuple[Phase, ...]:
    """Return the phases of a layer. Those that use a position are neighbours: all, the first or the middle two."""
    order = [(0, 0)] if stride == 1 else [(0, 1), (0, 0), (1, 0), (1, 1)]
    return tuple(Phase(*first, *(len(range(place, kernel, stride)) for place in first)) for first in order)


def transform_weights(weight: np.ndarray, stride: int = 1) -> np.ndarray:
    """Return F x C x K x K weights as positions x F x (phases * C): G g G^T of each phase, computed in float64.

    Positions that a phase does not use hold zeros.
    """
    filters, channels, kernel, _ = weight.shape
    taps = ceil_div(kernel, stride)
    parts = phases(kernel, stride)
    found = np.zeros((taps + TILE - 1, taps + TILE - 1, filters, len(parts), channels), np.float32)
    for number, part in enumerate(parts):
        own = weight[:, :, part.row :: stride, part.column :: stride].astype(np.float64)
        down, across = (
            weight_matrix(count - TILE + 1)[:, :present]
            for count, present in ((part.lines, part.height), (part.shifts, part.width))
        )
        transformed = np.einsum("ij,fcjk,lk->ilfc", down, own, across, optimize=True)
        found[: part.lines, : part.shifts, :, number] = transformed
    return found.reshape(-1, filters, len(parts) * channels)


# Accuracy

RANDOM_ERRORS = {3: 4e-6, 4: 1.2e-5}  # over the largest output, of random kernels on random inputs, by taps
TOLERABLE_ERROR = 1e-4 / 3


def cancels(weight: np.ndarray, stride: int) -> bool:
    """Whether all filters of F x C x K x K weights nearly cancel where channels are equal, as those of a grey picture.

    Rounding errors are as large as elsewhere then, and too large for what is left of the outputs. What cancels within a
    channel, as filters that look for edges do on a plain page, needs no such care: see `winograd_transforms.POINTS`.
    """
    found = np.sqrt(np.square(weight.sum(1, dtype=np.float64)).sum((1, 2)).max())
    scale = np.sqrt(np.einsum("fcij,fcij->f", weight, weight).max())
    return bool(RANDOM_ERRORS[ceil_div(weight.shape[2], stride)] * scale > TOLERABLE_ERROR * found)


# Tiles

# One part in so many of the second-level cache is for the inputs of a band, and for the products of a group.
BAND_PART = 2
GROUP_PART = 8


@dataclass(frozen=True)
class Strip:
    """`count` vectors of tiles, one behind the other in the same rows of tiles.

    Attributes:
        start: first column of tiles.
        rows, columns: tiles of one vector, row by row in its lanes.
        lanes: of the vector; those behind its tiles repeat the last one.
        is_last: whether the vector ends a row.
    """

    start: int
    count: int
    rows: int
    columns: int
    lanes: int
    is_last: bool

    def tiles(self) -> list[Label]:
        """Return row and column of the tile in each lane."""
        count = self.rows * self.columns
        return [divmod(min(lane, count - 1), self.columns) for lane in range(self.lanes)]


@dataclass(frozen=True)
class TiledLayer:
    """A layer and how it is cut into tiles.

    Attributes:
        images, channels, filters: of the layer.
        height, width: of its output.
        band: rows of tiles, counted through all images, that are computed together.
        lanes: elements of a vector.
        block: filters that the products keep in registers.
        strip: tiles that the products keep in registers.
        kernel: rows, and columns, of a kernel.
        stride: of the layer.
        groups: that channels and filters are in: each filter reads the channels of its own; 1 where the stride is not.
        costs: of the core.
    """

    images: int
    channels: int
    filters: int
    height: int
    width: int
    band: int
    lanes: int
    block: int
    strip: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    costs: CoreCosts = field(default_factory=CoreCosts)

    @property
    def phases(self) -> tuple[Phase, ...]:
        return phases(self.kernel, self.stride)

    @property
    def taps(self) -> int:
        """Rows, and columns, of the largest phase of a kernel."""
        return ceil_div(self.kernel, self.stride)

    @property
    def read(self) -> int:
        """Rows, and columns, of the inputs of a tile."""
        return self.taps + TILE - 1

    @property
    def positions(self) -> int:
        """Products of a tile and a kernel."""
        return self.read**2

    @property
    def depth(self) -> int:
        """Channels of all phases."""
        return len(self.phases) * self.channels

    @property
    def summed(self) -> int:
        """Channels of all phases that a filter reads."""
        return self.depth // self.groups

    @property
    def rows(self) -> int:
        """Rows of tiles of an image."""
        return ceil_div(self.height, TILE)

    @property
    def columns(self) -> int:
        """Tiles of a row."""
        return ceil_div(self.width, TILE)

    @property
    def bands(self) -> int:
        """Bands of all images; the last one may overlap its neighbour."""
        return ceil_div(self.images * self.rows, self.band)

    @property
    def filled(self) -> int:
        """Rows of tiles that fill vectors, if a band has so many; else 1."""
        rows = self.lanes // math.gcd(self.lanes, self.columns)
        return rows if rows <= self.band else 1

    def equal_bands(self, rows: int) -> int:
        """Return the size of bands that some rows of tiles are divided into, nearly equal ones that fill vectors; the
        last one has what is left."""
        size = ceil_div(rows, ceil_div(rows, self.band))
        return min(self.band, ceil_div(size, self.filled) * self.filled)

    @property
    def tiles(self) -> int:
        """Tiles of a band."""
        return self.band * self.columns

    @property
    def blocks(self) -> int:
        """Blocks of filters, each of one of `groups`; without groups the last one may overlap its neighbour."""
        return ceil_div(self.filters, self.block)

    def strips(self) -> list[Strip]:
        """Cut a row of tiles into vectors, or several short rows together into one."""
        if self.columns <= self.lanes:
            rows = max(1, min(self.lanes // self.columns, 4, self.band))
            lanes = tiling.cut(rows * self.columns, self.lanes)[0].lanes
            return [Strip(0, 1, rows, self.columns, lanes, True)]
        whole = (self.columns - 1) // self.lanes
        start = whole * self.lanes
        rest = self.columns - start
        last = Strip(start, 1, 1, rest, tiling.cut(rest, self.lanes)[0].lanes, True)
        return [Strip(0, whole, 1, self.lanes, self.lanes, False), last]

    def parts(self) -> list[tiling.Strip]:
        """Cut the tiles of a band into what the products keep in registers.

        Several vectors of a strip are equally long: a weight takes one register, then, not one for each length.
        """

        def widened(strip: tiling.Strip) -> tiling.Strip:
            return replace(strip, chunks=tuple(replace(chunk, lanes=self.lanes) for chunk in strip.chunks))

        found = tiling.strips(self.tiles, self.strip, self.lanes)
        return [widened(strip) if len(strip.chunks) > 1 else strip for strip in found]

    @property
    def is_streamed(self) -> bool:
        """Whether no cache near the core holds the weights."""
        return 4 * self.positions * self.summed * self.filters > self.costs.second_level_bytes // 2

    @property
    def line(self) -> int:
        """Elements of a cache line."""
        return self.costs.line_bytes // 4

    @property
    def plane(self) -> int:
        """Elements of the tiles of one position, with those that the last vectors store behind them."""
        last = self.strips()[-1]
        spilled = self.tiles + last.lanes - last.rows * last.columns
        covered = tiling.covered_by(self.parts())
        return ceil_div(max(spilled, covered), self.line) * self.line

    @property
    def channel(self) -> int:
        """Elements of all positions of a channel (or filter): positions are close together, and channels an odd number
        of cache lines apart, so that neither compete for the same set of a cache."""
        return (self.positions * self.plane // self.line | 1) * self.line

    @property
    def group(self) -> int:
        """Blocks of filters whose products are computed and transformed before those of others.

        Few, so that their products stay near; but all where the inputs of a band, which each group reads, do not.
        """
        if 4 * self.depth * self.channel > self.costs.second_level_bytes // BAND_PART:
            return self.blocks
        group_bytes = self.costs.second_level_bytes // GROUP_PART
        return max(1, min(self.blocks, group_bytes // (4 * self.block * self.channel)))

    @property
    def kept(self) -> int:
        """Filters of a group."""
        return min(self.group * self.block, self.filters)


def inputs_of(layer: TiledLayer, phase: Phase, strip: Strip) -> int:
    """Return how many columns of inputs the tiles of a strip read, of those that exist."""
    columns = TILE * (strip.columns - 1) + phase.shifts
    return min(columns, layer.width + phase.width - 1 - TILE * strip.start) if strip.is_last else columns
