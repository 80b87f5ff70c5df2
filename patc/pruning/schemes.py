"""The structures that a layer's weights can be pruned to. A `Plan` says which layers get which.

Each says what it asks of a weight in plain Python; `constrain` gives the constraint set, and imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from patc.diagnostics import PatcError
from patc.pruning.libraries import Library
from patc.pruning.spec import PatternSpec
from patc.pruning.windows import SHARE

if TYPE_CHECKING:
    from patc.pruning.constraints.base import Constraint
    from patc.pruning.sites import Site

Removed = Literal["columns", "rows", "both", "block"]


class Scheme(Protocol):
    """A structure of zeros."""

    def constrain(self, site: Site) -> Constraint | str:
        """Return what is asked of a weight, or in words why the scheme does not fit it ("rows that 8 divides, found 10
        in each of 4 gates")."""


@dataclass(frozen=True)
class Pattern:
    """Kernels that each fit one pattern of a library, the weakest of them removed. Convolutions only.

    The attributes are those of `PatternSpec`. All convolutions are treated alike, the first one too; a rate counts
    weights, so that 2.25 asks for patterns of 4 in 9 without connectivity sparsity.
    """

    library: str | Library = "phase2"
    filter_group: int = 1
    balanced: bool = False
    pointwise: Literal["dense", "groups"] = "dense"
    depthwise: Literal["dense", "pattern"] = "dense"
    kernels: Literal["3x3", "all"] = "3x3"
    share: float = SHARE
    libraries: Mapping[str, Iterable[int]] | tuple[tuple[str, Library], ...] = field(default=())

    def __post_init__(self) -> None:
        spec = self.spec
        object.__setattr__(self, "library", spec.masks)
        object.__setattr__(self, "libraries", spec.libraries)

    @property
    def spec(self) -> PatternSpec:
        """What prunes convolutions so."""
        return PatternSpec(
            self.library,
            filter_group=self.filter_group,
            balanced=self.balanced,
            pointwise=self.pointwise,
            depthwise=self.depthwise,
            kernels=self.kernels,
            share=self.share,
            libraries=self.libraries,
        )

    def constrain(self, site: Site) -> Constraint | str:
        from patc.pruning.kernels import constrain, describe_prunable

        found = constrain(site, self.spec) if site.role == "conv" else None
        return found or f"a convolution ({describe_prunable(self.spec)})"


@dataclass(frozen=True)
class Block:
    """Parts of blocks of the weight's matrix, whose columns are the inputs: those of a convolution tap by tap.

    Attributes:
        rows: of a block; a band of so many outputs, none of which reaches from one gate of a recurrent layer into the
            next. They divide the outputs (of each gate).
        columns: of a block; 0 for all. They divide the inputs.
        remove: "columns" removes single columns of bands, "rows" single rows of blocks, "both" rows and columns so
            that a smaller dense matrix is left of each block, "block" whole blocks. Projections are nearest points; of
            "both" up to 8 rows or columns nearest but for the rest of the budget, of more what searches find.

    Raises:
        PatcError: a value is out of its range.
    """

    rows: int = 8
    columns: int = 0
    remove: Removed = "columns"

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise PatcError(f"expected rows of a block to be 1 or more, found {self.rows}")
        if self.columns < 0:
            raise PatcError(f"expected columns of a block to be 0 or more, found {self.columns}")
        if self.remove not in ("columns", "rows", "both", "block"):
            raise PatcError(f"expected remove to be columns, rows, both or block; found {self.remove!r}")
        if self.remove == "block" and not self.columns:
            raise PatcError("expected the columns of the blocks to remove, found 0")

    def constrain(self, site: Site) -> Constraint | str:
        from patc.pruning.constraints.crossed import CrossedConstraint
        from patc.pruning.constraints.tiles import TileConstraint

        columns = self.columns or site.size // site.filters
        if refused := _refuse_turned_groups(site) or _refuse_parts(site, self.rows, columns, "a block"):
            return refused
        if self.remove == "both":
            return CrossedConstraint(site, "block", self.rows, columns)
        rows, columns = {"columns": (self.rows, 1), "rows": (1, columns)}.get(self.remove, (self.rows, columns))
        return TileConstraint(site, "block", rows, columns)


@dataclass(frozen=True)
class KernelBlocks:
    """Kernels that are unions of 2x2 blocks, none to four of them: 0, 4, 6 or 7, 8 or 9 weights of a 3x3 kernel.

    A rate counts 4 weights a block, as int8 kernels compute it, though blocks share weights where they overlap.
    Convolutions with 3x3 kernels, of any groups.
    """

    def constrain(self, site: Site) -> Constraint | str:
        from patc.pruning.constraints.kernel_blocks import KernelBlockConstraint

        if site.role != "conv" or site.is_turned or site.shape[2:] != (3, 3):
            return "a convolution with 3x3 kernels, not a transposed one"
        return KernelBlockConstraint(site, "kernel-blocks")


@dataclass(frozen=True)
class GatherScatter:
    """Packs of weights that a gather loads together, no two of them from one bank: column mod `banks`.

    The weight's matrix, as of `Block`, is in tiles of `banks` / `per_row` rows. A tile of a convolution, whose columns
    are the input channels of one tap after those of another, has channels of a single tap. A pack has at most one
    weight of each bank and `per_row` of each row of a tile; tiles have as many packs as their weights are worth. From
    F. Sun and others, "Load-balanced Gather-scatter Patterns for Sparse Deep Neural Networks", 2021 (arXiv 2112.10898).

    Attributes:
        banks: weights of a pack.
        per_row: of them in each row, from 1, where a pack has a weight of each of `banks` rows, to `banks`.
        tile: columns of a tile, which `banks` divide, and which divide the inputs, of a convolution its input channels;
            at most 32 * `per_row`.
        permute_rows: whether rows that are far from each other may make a tile, those with the largest weights the
            first; else they are neighbours, as they always are in recurrent layers.

    Raises:
        PatcError: a value is out of its range.
    """

    banks: int = 16
    per_row: int = 1
    tile: int = 32
    permute_rows: bool = True

    def __post_init__(self) -> None:
        if self.banks < 1:
            raise PatcError(f"expected banks to be 1 or more, found {self.banks}")
        if self.per_row < 1 or self.banks % self.per_row:
            raise PatcError(f"expected weights per row that divide {self.banks} banks, found {self.per_row}")
        if self.tile < 1 or self.tile % self.banks or self.tile > 32 * self.per_row:
            wanted = f"a multiple of {self.banks} banks, at most {32 * self.per_row}"
            raise PatcError(f"expected columns of a tile to be {wanted}; found {self.tile}")

    def constrain(self, site: Site) -> Constraint | str:
        from patc.pruning.constraints.gather_scatter import GatherScatterConstraint
        from patc.pruning.constraints.packing import Packing

        rows = self.banks // self.per_row
        if refused := _refuse_turned_groups(site) or _refuse_parts(site, rows, self.tile, "a tile"):
            return refused
        inputs = site.size // site.filters // math.prod(site.shape[2:])
        if inputs % self.tile:  # a tile would read two taps, and compiled weights have tiles of their own in each
            return f"input channels that {self.tile} columns of a tile divide, found {inputs}"
        packing = Packing(self.banks, self.per_row, self.tile)
        permutes = self.permute_rows and site.role != "recurrent"
        return GatherScatterConstraint(site, "gather-scatter", packing, permutes)


@dataclass(frozen=True)
class Unstructured:
    """Single weights."""

    def constrain(self, site: Site) -> Constraint | str:
        from patc.pruning.constraints.tiles import TileConstraint

        return TileConstraint(site, "unstructured", 1, 1)


@dataclass(frozen=True)
class Filters:
    """Whole filters: all that an output of a convolution or linear layer reads."""

    def constrain(self, site: Site) -> Constraint | str:
        from patc.pruning.constraints.tiles import TileConstraint

        if site.role not in ("conv", "linear"):
            return "a convolution or a linear layer, whose outputs are no state"
        return _refuse_turned_groups(site) or TileConstraint(site, "filters", 1, site.size // site.filters)


@dataclass(frozen=True)
class Crossbar:
    """Columns or rows of the tiles of a crossbar: inputs are a tile's rows, outputs its columns.

    Convolutions of one group and linear layers. Inputs are in the order of the weight's memory, channel by channel;
    where a layer has more than a tile, its tiles differ by one row or column at most.

    Attributes:
        size: most rows and columns of a tile.
        remove: "columns" removes what an output reads of the inputs of a tile, "rows" what the outputs of a tile read
            of an input.

    Raises:
        PatcError: a value is out of its range.
    """

    size: int = 128
    remove: Literal["columns", "rows"] = "columns"

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise PatcError(f"expected a crossbar of 1 or more rows and columns, found {self.size!r}")
        if self.remove not in ("columns", "rows"):
            raise PatcError(f"expected remove to be columns or rows, found {self.remove!r}")

    def constrain(self, site: Site) -> Constraint | str:
        from patc.pruning.constraints.crossbars import CrossbarConstraint

        if site.role not in ("conv", "linear") or site.is_turned or getattr(site.module, "groups", 1) > 1:
            return "a convolution of one group, not a transposed one, or a linear layer"
        return CrossbarConstraint(site, "crossbar", self.size, self.remove == "columns")


@dataclass(frozen=True)
class Levels:
    """Weights that are whole multiples q of a scale, one scale a filter: all of a weight, or what a structure of zeros
    leaves (`Both`).

    The scale and q of a filter are those of least squares.

    Attributes:
        bits: 8 to 1: q goes from -(2^(bits-1) - 1) to 2^(bits-1) - 1; of one bit it is -1 or 1.

    Raises:
        PatcError: the bits are out of their range.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 1 <= self.bits <= 8:
            raise PatcError(f"expected levels of 1 to 8 bits, found {self.bits!r}")

    @property
    def kind(self) -> str:
        """Words for reports."""
        return f"{self.bits} bit{'s' if self.bits > 1 else ''}"

    def constrain(self, site: Site) -> Constraint | str:
        from patc.pruning.constraints.levels import LevelConstraint, Whole
        from patc.pruning.levels import Grid

        return LevelConstraint(site, self.kind, Whole(site), Grid(self.bits, int(site.is_turned)))


@dataclass(frozen=True)
class Both:
    """A structure of zeros, and levels of what stays.

    Attributes:
        structure: of zeros.
        levels: of the weights that it keeps.

    Raises:
        PatcError: the structure is no structure of zeros, or the levels are none.
    """

    structure: Scheme
    levels: Levels

    def __post_init__(self) -> None:
        if not isinstance(self.levels, Levels):
            raise PatcError(f"expected levels as in Both(Block(8), Levels(4)), found {self.levels!r}")
        if isinstance(self.structure, (Levels, Both)) or not hasattr(self.structure, "constrain"):
            raise PatcError(f"expected a structure as in Both(Block(8), Levels(4)), found {self.structure!r}")

    def constrain(self, site: Site) -> Constraint | str:
        from patc.pruning.constraints.levels import LevelConstraint
        from patc.pruning.levels import Grid

        found = self.structure.constrain(site)
        if isinstance(found, str):
            return found
        return LevelConstraint(
            site, f"{found.kind}, {self.levels.kind}", found, Grid(self.levels.bits, int(site.is_turned))
        )


def _refuse_turned_groups(site: Site) -> str:
    groups = getattr(site.module, "groups", 1)
    return f"one group of a transposed convolution, found {groups}" if site.is_turned and groups > 1 else ""


def _refuse_parts(site: Site, rows: int, columns: int, part: str) -> str:
    """Return why a weight's matrix cannot be cut into parts of so many rows and columns; "" if it can."""
    outputs, inputs = site.filters // site.gates, site.size // site.filters
    if outputs % rows:
        gates = f" in each of {site.gates} gates" if site.gates > 1 else ""
        return f"outputs that {rows} rows of {part} divide, found {outputs}{gates}"
    return f"inputs that {columns} columns of {part} divide, found {inputs}" if inputs % columns else ""
