"""A weight format from outside of the package: compressed rows, for 1x1 convolutions and fully connected layers.

    python examples/extending/rows_format.py

No algorithm multiplies rows here, so that these layers are computed dense from what the format decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.utils import prune
from torch_mlir import ir

import patc
from patc.dialects.attributes import WeightFormatAttr
from patc.passes.formats.base import Arrays, EncodeOptions, StaysDense, WeightFormat
from patc.passes.formats.fkw import invert
from patc.passes.formats.registry import register


class RowsAttr(WeightFormatAttr, name="rows"):
    """Rows of a 1x1 convolution's weights, compressed: `values` and `columns` of row f begin at `offset[f]`."""

    def array_names(self) -> tuple[str, ...]:
        return ("values", "columns", "offset")

    def kernel_size(self) -> tuple[int, int]:
        return 1, 1

    def find_violation(self, op: Any) -> tuple[str, Any] | None:
        shape, wanted = list(op.array("offset").type.shape), [op.result.type.shape[1] + 1]
        return None if shape == wanted else (f"offset of shape {wanted}", shape)


@dataclass(frozen=True)
class RowsFormat(WeightFormat):
    """Compressed rows, of filters in the order of the output channels."""

    attribute: ClassVar[type] = RowsAttr

    @classmethod
    def encode(cls, weight: np.ndarray, groups: int, options: EncodeOptions) -> tuple[RowsFormat, Arrays] | None:
        if weight.shape[2:] not in ((1, 1), ()) or groups > 1:
            return None
        if np.mean(weight == 0) < options.min_sparsity:
            raise StaysDense("its rows are full")
        return cls(), _compress(weight.reshape(len(weight), -1))

    @classmethod
    def from_attr(cls, attr: Any) -> RowsFormat:
        return cls()

    def to_attr(self) -> ir.Attribute:
        return RowsAttr.get()

    def decode(self, arrays: Arrays, channels: int, groups: int = 1) -> np.ndarray:
        values, columns, offset = arrays
        dense = np.zeros((len(offset) - 1, channels, 1, 1), values.dtype)
        dense[np.repeat(np.arange(len(dense)), np.diff(offset)), columns, 0, 0] = values
        return dense

    def find_violation(self, arrays: Arrays, channels: int, groups: int = 1) -> tuple[str, Any] | None:
        last = int(arrays[1].max(initial=0))
        return None if last < channels else (f"columns below {channels}", last)

    def kept_weights(self, shapes: Sequence[Sequence[int]]) -> int:
        return shapes[0][0]

    @property
    def reads_neighbours(self) -> bool:
        return False

    def order_filters(self, arrays: Arrays) -> np.ndarray:
        return np.arange(len(arrays[2]) - 1)

    def output_channels(self, arrays: Arrays) -> np.ndarray:
        return np.arange(len(arrays[2]) - 1)

    def permute_filters(self, arrays: Arrays, order: np.ndarray, positions: np.ndarray) -> Arrays:
        columns = int(arrays[1].max()) + 1
        return _compress(self.decode(arrays, columns)[invert(positions), :, 0, 0])

    def permute_channels(self, arrays: Arrays, positions: np.ndarray) -> Arrays:
        return _compress(self.decode(arrays, len(positions))[:, invert(positions), 0, 0])

    def shares(self, arrays: Arrays) -> tuple[float, ...]:
        return (1.0,)


def _compress(rows: np.ndarray) -> Arrays:
    _, columns = np.nonzero(rows)
    offset = np.concatenate([[0], np.cumsum(np.count_nonzero(rows, axis=1))])
    return rows[rows != 0], columns.astype(np.int16), offset.astype(np.int32)


def main() -> None:
    register(RowsFormat)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(8, 24, 1), torch.nn.ReLU(), torch.nn.Conv2d(24, 16, 1)).eval()
    for layer in (model[0], model[2]):
        prune.remove(prune.random_unstructured(layer, "weight", amount=0.5), "weight")
    x = torch.randn(1, 8, 14, 14)
    compiled = patc.compile(model, (x,))
    with torch.no_grad():
        wanted = model.double()(x.double())
    error = float((compiled(x) - wanted).abs().max() / wanted.abs().max())
    kept = [f"{layer.kept_weights} of {layer.weights}" for layer in compiled.layers if layer.op == "sparse_conv2d"]
    print("kept weights", ", ".join(kept))
    print(f"error {error:.1e} of the largest output")


if __name__ == "__main__":
    main()
