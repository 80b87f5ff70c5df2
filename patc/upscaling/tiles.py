"""Frames of any size through a net of one size: tiles that overlap by as much as the net sees.

A net turns 3 x h x w into 3 x s (h - 2 b) x s (w - 2 b): s is its scale, b the border that convolutions without pads
take. Along an axis tiles start at the frame's edge and end at its other edge, so that what a net does at edges happens
there alone; between two tiles as many rows are computed twice as a pixel of the output sees, and each is taken from the
tile that sees all of what it needs. So the result is that of the net on the whole frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from patc.diagnostics import PatcError
from patc.integers import ceil_div
from patc.runtime.model import CompiledModel
from patc.runtime.program import TensorInfo

Net: TypeAlias = Callable[[np.ndarray], np.ndarray]

_CHANNELS = 3
_LOUD = 100.0  # of pixels that nothing may see: what reaches an output at all changes its last bit
_TOLERANCE = 1e-3  # of the largest number, of a net that is moved by a pixel


@dataclass(frozen=True)
class Geometry:
    """Sizes of a net's input and output.

    Attributes:
        height, width: of its input.
        scale: output pixels for one of the input, along each axis.
        border: pixels of the input on each side that the output lacks.
    """

    height: int
    width: int
    scale: int
    border: int

    @classmethod
    def of(cls, model: CompiledModel) -> Geometry:
        """Return the geometry of a compiled net.

        Raises:
            PatcError: it does not turn one colour picture into a larger one.
        """
        inputs, outputs = model.program.inputs, model.program.outputs
        if len(inputs) != 1 or len(outputs) != 1:
            raise PatcError(f"expected a net of one input and one output, got {len(inputs)} and {len(outputs)}")
        source, result = inputs[0], outputs[0]
        for what, info in (("take", source), ("make", result)):
            if info.dtype not in ("float32", "uint8") or len(info.shape) != 4 or info.shape[:2] != (1, _CHANNELS):
                expected = f"expected a net that {what}s a picture, 1x3xHxW of float32 or uint8"
                raise PatcError(f"{expected}, got {_describe(info)}")
        (height, width), (tall, wide) = source.shape[2:], result.shape[2:]
        scale = ceil_div(tall, height)
        missing = scale * height - tall
        border = missing // (2 * scale)
        if missing != 2 * scale * border or scale * (width - 2 * border) != wide or border * 2 >= min(height, width):
            expected = "expected an output as large as the input, or two, three, ... times, but for a border"
            raise PatcError(f"{expected}, got {_describe(result)} of {_describe(source)}")
        return cls(height, width, scale, border)


def _describe(info: TensorInfo) -> str:
    return f"{'x'.join(map(str, info.shape))} {info.dtype}"


@dataclass(frozen=True)
class Span:
    """A tile along one axis.

    Attributes:
        start: of what the net takes, in the frame with its border.
        first, last: of the output's pixels that are taken from this tile, in the whole output; `last` is behind them.
    """

    start: int
    first: int
    last: int


def divide(size: int, tile: int, geometry: Geometry, reach: int) -> list[Span]:
    """Return the tiles along an axis.

    Args:
        size: of the frame.
        tile: the net's size along this axis.
        reach: how far an output pixel sees beyond its own place, in pixels of the input.

    Raises:
        PatcError: tiles see so far that they take no pixel.
    """
    whole, scale = size + 2 * geometry.border, geometry.scale
    if whole <= tile:
        return [Span(0, 0, scale * size)]
    inner = max(0, reach - geometry.border)  # what an output pixel sees beyond the tile's own output
    step = tile - 2 * geometry.border - 2 * inner
    if step < 1:
        raise PatcError(f"expected tiles of more than {2 * reach} pixels, as far as the net sees, got {tile}")
    starts = [*range(0, whole - tile, step), whole - tile]
    edges = [0, *(scale * (start + inner) for start in starts[1:]), scale * size]
    return [Span(start, *edges) for start, edges in zip(starts, pairwise(edges), strict=True)]


class Upscaler:
    """A compiled net for frames of any size.

    Attributes:
        geometry: of the net.
        reach: how far an output pixel sees, in pixels of the input; None until a frame needs several tiles.
    """

    def __init__(self, model: CompiledModel) -> None:
        self.model, self.geometry = model, Geometry.of(model)
        self.reach: int | None = None
        self._takes_bytes = model.program.inputs[0].dtype == "uint8"
        self._makes_bytes = model.program.outputs[0].dtype == "uint8"

    def prepare(self, height: int, width: int) -> None:
        """Find out how far the net sees, if frames of this size need several tiles.

        Raises:
            PatcError: it sees the whole picture, or its outputs depend on where a tile is.
        """
        border = 2 * self.geometry.border
        if self.reach is None and (height + border > self.geometry.height or width + border > self.geometry.width):
            self.reach = find_reach(self._net, self.geometry, self._takes_bytes)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Return a frame, height x width x 3 of uint8, upscaled.

        Where a frame is smaller than a tile it is mirrored at its edges: the net's own edges are then not at the
        frame's, and results differ there from those on the frame alone. Frames may come from several threads.
        """
        geometry, scale = self.geometry, self.geometry.scale
        height, width = frame.shape[:2]
        self.prepare(height, width)
        reach = self.reach or 0
        rows = divide(height, geometry.height, geometry, reach)
        columns = divide(width, geometry.width, geometry, reach)
        picture = self._with_border(frame)
        result = np.empty((scale * height, scale * width, _CHANNELS), np.uint8)
        for row in rows:
            for column in columns:
                tile = picture[row.start :, column.start :][: geometry.height, : geometry.width]
                made = self._run(tile.transpose(2, 0, 1)[None])
                top, left = (scale * span.start for span in (row, column))
                part = made[0, :, row.first - top : row.last - top, column.first - left : column.last - left]
                for channel in range(_CHANNELS):  # numpy takes five times as long for all at once
                    result[row.first : row.last, column.first : column.last, channel] = part[channel]
        return result

    def _with_border(self, frame: np.ndarray) -> np.ndarray:
        """Return a frame with the border that the net takes, and at least as large as a tile."""
        border, (height, width) = self.geometry.border, frame.shape[:2]
        below = max(0, self.geometry.height - height - 2 * border)
        right = max(0, self.geometry.width - width - 2 * border)
        if not (border or below or right):
            return frame
        pads = ((border, border + below), (border, border + right), (0, 0))
        mode = "edge" if border else "symmetric"
        return np.pad(frame, pads, mode=mode)  # type: ignore[call-overload] # one of its modes

    def _run(self, tile: np.ndarray) -> np.ndarray:
        """Return what the net makes of a tile of bytes, as bytes."""
        given = tile if self._takes_bytes else np.multiply(tile, np.float32(1 / 255), dtype=np.float32)
        made = self._net(np.ascontiguousarray(given))
        if self._makes_bytes:
            return made
        made *= 255
        np.rint(made, out=made)
        np.clip(made, 0, 255, out=made)
        return made.astype(np.uint8)

    def _net(self, tile: np.ndarray) -> np.ndarray:
        return np.asarray(self.model(tile))


# -- How far a net sees ----------------------------------------------------------------------------


def find_reach(net: Net, geometry: Geometry, takes_bytes: bool) -> int:
    """Return how many pixels of the input beyond its own place an output pixel sees.

    The net runs on random pictures and again with other pixels, far too bright ones, on one side of a line: behind the
    line outputs are the same to the last bit from some distance on.

    Raises:
        PatcError: that distance is more than half a tile, or a picture that is moved by a pixel comes out as another.
    """
    generator = np.random.default_rng(0)
    shape = (1, _CHANNELS, geometry.height, geometry.width)
    largest = 255.0 if takes_bytes else 1.0

    def draw(loudness: float) -> np.ndarray:
        values = generator.random(shape, np.float32) * np.float32(largest * (1.0 if takes_bytes else loudness))
        return values.astype(np.uint8) if takes_bytes else values

    quiet, loud = draw(1.0), draw(_LOUD)
    plain = net(quiet)
    found = 0
    for axis, size in ((2, geometry.height), (3, geometry.width)):
        half = size // 2
        for changed in (slice(None, half), slice(half, None)):
            other = quiet.copy()
            place = tuple(changed if i == axis else slice(None) for i in range(4))
            other[place] = loud[place]
            rows = _changed(plain, net(other), axis)
            end = half - geometry.border  # of the line, in pixels of the input that the output has
            if rows.size:
                last, first = int(rows.max()) + 1, int(rows.min())
                beyond = last - geometry.scale * end if changed.start is None else geometry.scale * end - first
                found = max(found, ceil_div(beyond, geometry.scale))
    if 2 * found >= min(geometry.height, geometry.width) - 2 * geometry.border:
        tile = f"{geometry.width}x{geometry.height}"
        expected = f"expected a net that sees less than half a tile of {tile}"
        raise PatcError(f"{expected}, got one that sees {found} pixels or more")
    _require_moving(net, geometry, quiet, plain, max(0, found - geometry.border))
    return found


def _changed(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
    """Return the places along an axis where two outputs differ."""
    others = tuple(i for i in range(4) if i != axis)
    return np.flatnonzero((one != other).any(axis=others))


def _require_moving(net: Net, geometry: Geometry, picture: np.ndarray, plain: np.ndarray, edge: int) -> None:
    """Refuse a net whose outputs depend on where a pixel is, as strides and pools make them.

    Args:
        edge: pixels at each side that may depend on it.
    """
    moved = net(np.ascontiguousarray(np.roll(picture, (1, 1), (2, 3))))
    scale = geometry.scale
    middle = [slice(scale * (edge + 1), max(0, size - scale * (edge + 2))) for size in plain.shape[2:]]
    behind = [slice(part.start + scale, part.stop + scale) for part in middle]
    one = plain[:, :, middle[0], middle[1]].astype(np.float32)
    other = moved[:, :, behind[0], behind[1]].astype(np.float32)
    allowed = max(_TOLERANCE * float(np.abs(one).max(initial=0.0)), 1.0 if plain.dtype == np.uint8 else 0.0)
    if one.size and float(np.abs(one - other).max()) > allowed:
        expected = "expected a net that moves its output with its input, to divide frames into tiles"
        raise PatcError(f"{expected}, got one that does not; compile it for the size of the frames")
