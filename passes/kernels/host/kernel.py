"""A kernel function of a layer: its share of the work, and the tiles of outputs that it computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch_mlir import ir

from patc.costs import CoreCosts
from patc.dialects.attributes import Activation
from patc.dialects.joins import Join
from patc.dialects.schedules import Schedule
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.windows import Window
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.rows import Tensor
from patc.passes.kernels.tiling import Chunk
from patc.passes.kernels.values import apply_activation, finish


@dataclass(frozen=True)
class Work:
    """The part of a layer that one call computes: row tiles first_tile .. last_tile - 1 (counted through all
    images) and filters (or blocks of filters) first_filter .. last_filter - 1."""

    first_tile: Index
    last_tile: Index
    first_filter: Index
    last_filter: Index


@dataclass(frozen=True)
class Kernel:
    """A kernel function, as its loops are written.

    Attributes:
        b: writes to it.
        work: its share of the layer.
        schedule: of the layer.
        window: that the layer moves over its input; one element where it moves none.
        costs: of the core that runs it.
    """

    b: Builder
    work: Work
    schedule: Schedule
    window: Window
    costs: CoreCosts

    def thread(self, tiles: Index) -> Index:
        """Return the number of the thread that runs the kernel, if threads divide row tiles; there are so many tiles.
        Thread t starts with tile floor(tiles * t / threads)."""
        threads = self.schedule.threads
        if threads == 1 or self.schedule.split != "rows":
            return 0
        return self.b.divide_up(self.b.mul(self.work.first_tile, threads), tiles)

    def may_be_distant(self, size: int) -> bool:
        """Return whether so many bytes of one tensor may not be in the second-level cache."""
        return size > self.costs.second_level_bytes // 2

    def line(self, type_: ir.Type) -> int:
        """Return how many elements a cache line holds; `type_` as in `element_bytes`."""
        return self.costs.line_bytes // element_bytes(type_)


@dataclass(frozen=True)
class Epilogue:
    """What happens to a sum of products before it is stored.

    Attributes:
        join: how the residual joins it.
        table: the constants of the activation that are one number a channel, one array after the other.
        scales: of weights that are integers in memory, one a channel: sums are multiplied with them first.
    """

    bias: ir.Value | None
    residual: Tensor | None
    activation: Activation
    table: ir.Value | None = None
    join: Join = field(default_factory=Join)
    scales: ir.Value | None = None

    def finish(self, b: Builder, value: ir.Value, residual: ir.Value | None, constants: Vectors) -> ir.Value:
        """Return what becomes of a sum, with its bias, where the residual is a vector like it.

        Args:
            constants: of the activation that are one number a channel.
        """
        joined = None if residual is None else (residual, self.join)
        return finish(b, value, joined, lambda value: apply_activation(b, value, self.activation, constants))

    def constants(self, b: Builder, channel: Index, channels: int) -> Vectors:
        """Return the constants of the activation for one of so many channels."""
        count = len(self.activation.arrays)
        return [b.load_scalar(self.table, b.add(channel, number * channels)) for number in range(count)]


@dataclass(frozen=True)
class Tile:
    """The rows and one strip of columns that are in registers together, and where they are.

    Attributes:
        image: the image of the batch.
        row: first output row.
        column: first output column, a multiple of the strip's columns.
        rows: output rows.
        chunks: the vectors of each row.
        index: number of the tile in the plane, from the top.
        ends_row: whether it has the last columns.
    """

    image: Index
    row: Index
    column: Index
    rows: int
    chunks: tuple[Chunk, ...]
    index: Index
    ends_row: bool

    def base(self, b: Builder, tensor: Tensor, strides: tuple[int, int] = (1, 1)) -> Index:
        """Address of the tile's first element in channel 0 of `tensor`, of the element it reads with `strides`."""
        layout = tensor.layout
        row = b.mul(self.row, strides[0] * layout.pitch)
        if strides[1] % layout.phases:
            column = b.divide(self.column, layout.phases)[0]
        else:
            column = b.mul(self.column, strides[1] // layout.phases)
        return b.add(b.add(b.mul(self.image, tensor.image), row), column)

    def by_row(self, accumulators: Vectors) -> list[Vectors]:
        """Return flat accumulators as rows."""
        width = len(self.chunks)
        return [accumulators[row * width : (row + 1) * width] for row in range(self.rows)]


def set_apart(arguments: list[Any]) -> None:
    """Say of the function being written that its memories do not overlap."""
    function = arguments[0].owner.owner
    apart, nothing = ir.DictAttr.get({"llvm.noalias": ir.UnitAttr.get()}), ir.DictAttr.get({})
    kinds = [argument.type for argument in function.regions[0].blocks[0].arguments]
    attributes = [apart if isinstance(kind, ir.MemRefType) else nothing for kind in kinds]
    function.attributes["arg_attrs"] = ir.ArrayAttr.get(attributes)
