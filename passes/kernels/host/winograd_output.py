"""The third stage of Winograd convolution, see `winograd`: sums of products become outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, scf

from patc.integers import ceil_div
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host import winograd_repair
from patc.passes.kernels.host.ends import Destination, Ends, Halo
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.rows import written
from patc.passes.kernels.host.winograd import Strip, TiledLayer
from patc.passes.kernels.host.winograd_transforms import TILE, Named, regroup, transform_outputs
from patc.passes.kernels.host.winograd_vectors import Band, Products, Range, for_vectors


@dataclass(frozen=True)
class OutputTransform:
    """A^T m A of a band, and the epilogue."""

    ends: Ends
    layer: TiledLayer
    products: Products

    def emit(self, filters: Range, band: Band, seen: ir.Value) -> ir.Value:
        """Emit the loops for some filters.

        Args:
            seen: by `winograd_repair.watch` so far.

        Returns:
            what it has seen then.
        """
        b, layer = self.ends.b, self.layer

        def one_filter(filter_: ir.Value, seen: Vectors) -> Vectors:
            plane = self.products.of_filter(b, layer, filter_)

            def one_vector(first: Index, column: Index, strip: Strip, seen: Vectors) -> Vectors:
                outputs = self._outputs(b.add(b.add(plane, b.mul(first, layer.columns)), column), strip)
                self._store(outputs, strip, band.places(b, first, strip.rows), column, filter_)
                return [winograd_repair.watch(b, strip, outputs, seen[0])]

            return for_vectors(b, layer, band.rows, seen, one_vector)

        return b.loop(*filters, [seen], one_filter)[0]

    def _outputs(self, place: Index, strip: Strip) -> list[Vectors]:
        """Return the outputs of a vector of tiles: for each row a vector for each column."""
        b, layer = self.ends.b, self.layer
        lines: list[Vectors] = [[] for _ in range(TILE)]
        for shift in range(layer.read):
            offsets = [(layer.read * line + shift) * layer.plane for line in range(layer.read)]
            values = [b.load(self.products.memory, place, offset, strip.lanes) for offset in offsets]
            for line, value in zip(lines, transform_outputs(b, values), strict=True):
                line.append(value)
        return [transform_outputs(b, line) for line in lines]

    def _store(
        self, outputs: list[Vectors], strip: Strip, places: Sequence[Index], column: Index, channel: Index
    ) -> None:
        """Store a vector of tiles.

        Args:
            places: of its rows of tiles, counted through all images.
            column: of its first tile.
        """
        b, layer = self.ends.b, self.layer
        valid = min(TILE * strip.columns, layer.width - TILE * strip.start if strip.is_last else layer.width)
        chunks = tiling.cut(valid, layer.lanes)
        lines = [_rows_of_outputs(b, strip, chunks, columns) for columns in outputs]
        for row, place in enumerate(places):
            image, index = b.divide(place, layer.rows)
            corner = image, b.mul(index, TILE), b.mul(column, TILE)
            own = [line[row * len(chunks) : (row + 1) * len(chunks)] for line in lines]
            self._store_row_of_tiles(Tile(*corner, TILE, chunks, index, strip.is_last), own, channel)

    def _store_row_of_tiles(self, tile: Tile, rows: list[Vectors], channel: Index) -> None:
        """Apply the epilogue to four rows of outputs and store those that exist; what ends a row writes the halo too.

        Args:
            rows: the chunks of each row.
        """
        b, layer, output = self.ends.b, self.layer, self.ends.output
        destination, halo = Destination.of(self.ends, tile, channel), Halo.of(self.ends, tile, channel)
        bias = self.ends.epilogue.bias
        scalar = b.load_scalar(bias, channel) if bias is not None else None
        has_halo = tile.ends_row and not output.layout.is_packed(output.height, output.width)
        end = written(output, tiling.covered_by(tiling.strips(output.width, TILE * layer.lanes, layer.lanes)))

        def store_rows(numbers: Sequence[int]) -> None:
            for row in numbers:
                destination.store(row, rows[row], scalar)
                if has_halo:
                    halo.fill_sides(row, end, layer.lanes)

        last = layer.rows - 1
        always = layer.height - TILE * last  # rows that exist in the last row of tiles too
        store_rows(range(always))
        if always < TILE and last > 0:
            above = arith.CmpIOp(arith.CmpIPredicate.ne, b.index(tile.index), b.index(last)).result
            with ir.InsertionPoint(scf.IfOp(above).then_block):
                store_rows(range(always, TILE))
                scf.YieldOp([])
        if has_halo:
            halo.fill_above_and_below(layer.rows, layer.lanes)


def _rows_of_outputs(b: Builder, strip: Strip, chunks: Sequence[tiling.Chunk], columns: Vectors) -> Vectors:
    """Return the chunks of one output row of each row of tiles, from vectors of the four columns of each tile."""
    places = strip.tiles()
    sources = [
        Named(value, tuple((row, TILE * tile + shift) for row, tile in places)) for shift, value in enumerate(columns)
    ]
    wanted = [
        [(row, chunk.column + min(lane, chunk.valid - 1)) for lane in range(chunk.lanes)]
        for row in range(strip.rows)
        for chunk in chunks
    ]
    half = ceil_div(len(wanted), 2)
    return [value for part in (wanted[:half], wanted[half:]) if part for value in regroup(b, sources, part)]
