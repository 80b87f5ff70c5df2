"""The first stage of Winograd convolution, see `winograd`: inputs become positions of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir

from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.rows import Tensor
from patc.passes.kernels.host.winograd import Phase, Strip, TiledLayer, inputs_of
from patc.passes.kernels.host.winograd_transforms import TILE, Label, Named, regroup, transform_inputs
from patc.passes.kernels.host.winograd_vectors import Band, Planes, Range, for_vectors


@dataclass(frozen=True)
class InputTransform:
    """B^T d B of a band."""

    kernel: Kernel
    layer: TiledLayer
    source: Tensor

    def emit(self, planes: Planes, channels: Range, band: Band) -> None:
        """Emit the loops for some channels."""
        for number in range(len(self.layer.phases)):
            self.kernel.b.each(*channels, _PhaseTransform(self, planes, number, band).emit)


@dataclass(frozen=True)
class _PhaseTransform:
    """The transform of one phase."""

    transform: InputTransform
    planes: Planes
    number: int
    band: Band

    def emit(self, channel: ir.Value) -> None:
        """Emit the loops over the vectors of a channel."""
        b, layer = self.transform.kernel.b, self.transform.layer
        plane = b.mul(channel, self.transform.source.layout.plane)
        target = b.add(self.planes.start, b.mul(b.add(channel, self.number * layer.channels), layer.channel))
        phase = layer.phases[self.number]

        def one_vector(first: Index, column: Index, strip: Strip, _: Vectors) -> Vectors:
            self._one_vector(_InputVector(self.transform, phase, strip, plane, column), first, target)
            return []

        for_vectors(b, layer, self.band.rows, [], one_vector)

    def _one_vector(self, vector: _InputVector, first: Index, target: Index) -> None:
        """Transform a vector of tiles from row `first` of the band on, to the channel at `target`."""
        b, layer = self.transform.kernel.b, self.transform.layer
        parts = vector.transformed_rows(self.band.places(b, first, vector.strip.rows))
        tile = b.add(b.add(target, b.mul(first, layer.columns)), vector.column)
        for line, values in enumerate(parts):
            for shift, value in enumerate(transform_inputs(b, vector.columns_of_tiles(values))):
                b.store(value, self.planes.memory, tile, (layer.read * line + shift) * layer.plane)


@dataclass(frozen=True)
class _InputVector:
    """The inputs of a vector of tiles.

    Attributes:
        plane: address of the channel.
        column: of tiles, the first one.
    """

    transform: InputTransform
    phase: Phase
    strip: Strip
    plane: Index
    column: Index

    def transformed_rows(self, places: Sequence[Index]) -> list[list[Named]]:
        """Load the input rows of all rows of tiles, as far as the strip reads them, and transform them vertically.

        Args:
            places: of the rows of tiles, counted through all images.
        """
        rows = [self._transformed_row(row, self._bases(place)) for row, place in enumerate(places)]
        return [[part for row in rows for part in row[line]] for line in range(self.phase.lines)]

    def _bases(self, place: Index) -> list[Index]:
        """Return the addresses of the input rows of a row of tiles."""
        b, layer, source = self.transform.kernel.b, self.transform.layer, self.transform.source
        image, index = b.divide(place, layer.rows)
        base = b.add(b.add(self.plane, b.mul(image, source.image)), b.mul(self.column, TILE))
        bases = []
        last = layer.height + self.phase.height - 2
        for number in range(self.phase.lines):
            y = b.add(b.mul(index, TILE), number)
            if TILE * (layer.rows - 1) + number > last:
                y = b.minimum(y, last)
            bases.append(b.add(base, b.mul(y, layer.stride * source.layout.pitch)))
        return bases

    def _transformed_row(self, row: int, bases: Sequence[Index]) -> list[list[Named]]:
        """Do what `transformed_rows` does for one row of tiles of the vector."""
        b, source, window = self.transform.kernel.b, self.transform.source, self.transform.kernel.window
        layout = source.layout
        position, part = divmod(layout.left - window.left + self.phase.column, layout.phases)
        corner = (layout.top - window.top + self.phase.row) * layout.pitch + part * layout.row + position
        lines: list[list[Named]] = [[] for _ in range(self.phase.lines)]
        distant = source.bytes > self.transform.kernel.costs.second_level_bytes
        for chunk in tiling.cut(self._inputs, self.transform.layer.lanes):
            labels = tuple((row, chunk.column + lane) for lane in range(chunk.lanes))
            values = [b.load(source.memory, base, corner + chunk.column, chunk.lanes) for base in bases]
            if distant:  # ask for the same rows of the next channel
                for base in bases:
                    b.prefetch(source.memory, base, corner + chunk.column + layout.plane)
            for line, value in zip(lines, transform_inputs(b, values), strict=True):
                line.append(Named(value, labels))
        return lines

    def columns_of_tiles(self, parts: Sequence[Named]) -> Vectors:
        """Return the columns of each tile, a vector each, from rows of inputs.

        Where a column does not exist, another one of the tile is in its place: no output that exists depends on it, but
        rounding errors do.
        """
        b, inputs, phase = self.transform.kernel.b, self._inputs, self.phase

        def column(shift: int) -> list[Label]:
            places = [(row, TILE * tile, TILE * tile + shift) for row, tile in self.strip.tiles()]
            return [(row, place if place < inputs else first + shift % 2) for row, first, place in places]

        # Columns 0 and 4 of neighbouring tiles are the same, so are 1 and 5, and 2 and 6.
        vectors: dict[int, ir.Value] = {}
        for shifts in ([0, 1, 4, 5], [2, 3, 6][: phase.shifts - TILE]):
            vectors.update(zip(shifts, regroup(b, parts, [column(shift) for shift in shifts]), strict=True))
        return [vectors[shift] for shift in range(phase.shifts)]

    @property
    def _inputs(self) -> int:
        return inputs_of(self.transform.layer, self.phase, self.strip)
