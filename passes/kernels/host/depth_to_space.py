"""Channels that become places: planes are put between each other, as phases of a larger plane.

for tile of rows x columns of the input:
  for channel of the result:
    for each row within a step down:
      load the same columns of the planes of that row, one a place within a step to the right
      put them between each other, and store activation(...)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.rows import Rows, written
from patc.passes.kernels.tiling import Chunk


@dataclass(frozen=True)
class DepthToSpace:
    """The loops; the schedule's rows and columns are those of the input.

    Attributes:
        steps: places that each of the input becomes, down and to the right.
        apart: planes of the input from one phase to the next.
        each: planes of the input from one channel of the result to the next.
    """

    loops: Loops
    steps: tuple[int, int]
    apart: int
    each: int

    def emit(self) -> None:
        """Emit all loops."""
        over_input = replace(self.loops, output=self.loops.source)
        over_input.for_work(self._one_tile, filters_first=True)

    def _one_tile(self, tile: Tile, channel: Index) -> None:
        loops, b, (down, right) = self.loops, self.loops.b, self.steps
        plane = loops.source.layout.plane
        base = b.add(tile.base(b, loops.source), b.mul(channel, self.each * plane))
        phases = [Rows(b, loops.source, b.add(base, number * self.apart * plane)) for number in range(down * right)]
        rows = []
        for row in range(tile.rows):
            for first in range(0, down * right, right):
                found: Vectors = []
                for chunk in tile.chunks:
                    loaded = [phase.load(row, chunk) for phase in phases[first : first + right]]
                    found += interleave(b, loaded)[: len(list(_spread(chunk, right)))]
                rows.append(found)
        chunks = tuple(each for chunk in tile.chunks for each in _spread(chunk, right))
        place = b.mul(tile.row, down), b.mul(tile.column, right)
        made = Tile(tile.image, *place, tile.rows * down, chunks, tile.index, tile.ends_row)
        last = tiling.strips(loops.source.width, loops.schedule.columns, loops.schedule.lanes)[-1]
        end = right * (last.start + (last.count - 1) * last.columns) + chunks[-1].column + chunks[-1].lanes
        loops.store_tile(made, rows, channel, written(loops.output, end))


def _spread(chunk: Chunk, right: int) -> Iterator[Chunk]:
    """Yield the chunks of the result that a chunk of the input and those of the other phases become."""
    for number in range(right):
        before = number * chunk.lanes
        if before < right * chunk.valid:
            yield Chunk(right * chunk.column + before, chunk.lanes, min(chunk.lanes, right * chunk.valid - before))


def interleave(b: Builder, vectors: Vectors) -> Vectors:
    """Return the elements of several vectors in turns: first the first of each, then the second of each."""
    count, lanes = len(vectors), vectors[0].type.shape[0]
    if count == 1:
        return vectors
    if count % 2 == 0:
        halves = zip(*(interleave(b, vectors[first::2]) for first in (0, 1)), strict=True)
        turns = [lane // 2 + lanes * (lane % 2) for lane in range(2 * lanes)]
        return [b.shuffle(even, odd, part) for even, odd in halves for part in (turns[:lanes], turns[lanes:])]
    made = []
    for first in range(0, count * lanes, lanes):
        places = [divmod(first + lane, count) for lane in range(lanes)]  # position and vector
        picked = b.shuffle(vectors[0], vectors[0], [position for position, _ in places])
        for number in range(1, count):
            picks = [lanes + position if each == number else lane for lane, (position, each) in enumerate(places)]
            picked = b.shuffle(picked, vectors[number], picks)
        made.append(picked)
    return made
