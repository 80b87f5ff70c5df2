"""What the taps of a sliding window read on a GPU: vectors of a row, shifted by a shuffle of two of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch_mlir import ir

from patc.passes.ir.windows import Tap
from patc.passes.kernels.builder import Index
from patc.passes.kernels.gpu.kernel import LANES, Kernel
from patc.passes.kernels.gpu.layer import GpuLayer
from patc.passes.kernels.gpu.tensors import Place, View


class Taps:
    """What the taps of a window read for the outputs of one thread.

    Args:
        layer: its source has aligned rows.
        place: the thread's outputs.
        read: the taps.
    """

    def __init__(self, k: Kernel, layer: GpuLayer, place: Place, read: Sequence[Tap]) -> None:
        self._k = k
        self._window = window = layer.window
        self._left = layer.source.layout.left
        self.view = View(k, layer.source, top=window.top)
        origin = self.view.channel(place.image, 0)
        origin = k.add(origin, k.mul(k.mul(self.view.row, window.strides[0]), place.row))
        origin = k.add(origin, k.mul(place.vector, window.strides[1]))
        rows = sorted({self.input_row(row, dy) for row in range(layer.schedule.rows) for _, dy, _ in read})
        self._rows = {row: k.add(origin, k.mul(self.view.row, row)) for row in rows}
        self._loaded: dict[tuple[Index, int, int], ir.Value] = {}
        self._read: dict[tuple[Index, int, int], ir.Value] = {}

    def input_row(self, row: int, dy: int) -> int:
        """Return the row that output row `row` reads with a tap, counted from the window's first one."""
        return row * self._window.strides[0] + dy * self._window.dilations[0]

    def read(self, plane: Index, row: int, dx: int) -> ir.Value:
        """Return the inputs of a tap for four outputs: in one row of the plane at address `plane`."""
        first = dx * self._window.dilations[1] - self._window.left + self._left
        key = (plane, row, first)
        if key not in self._read:
            self._read[key] = self._gather(plane, row, first)
        return self._read[key]

    def _gather(self, plane: Index, row: int, first: int) -> ir.Value:
        places = [divmod(first + lane * self._window.strides[1], LANES) for lane in range(LANES)]
        numbers = sorted({number for number, _ in places})
        vectors = {number: self._load(plane, row, number) for number in numbers}
        k = self._k
        if len(numbers) == 1 and [lane for _, lane in places] == [*range(LANES)]:
            return vectors[numbers[0]]
        if len(numbers) <= 2:
            shift = {number: LANES * order for order, number in enumerate(numbers)}
            picks = [lane + shift[number] for number, lane in places]
            return k.shuffle(vectors[numbers[0]], vectors[numbers[-1]], picks)
        return k.compose([k.extract(vectors[number], lane) for number, lane in places])

    def _load(self, plane: Index, row: int, number: int) -> ir.Value:
        key = (plane, row, number)
        if key not in self._loaded:
            k = self._k
            address = k.add(k.add(self._rows[row], plane), number)
            self._loaded[key] = k.load_scalar(self.view.memory, address)
        return self._loaded[key]
