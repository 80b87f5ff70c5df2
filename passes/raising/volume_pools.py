"""3-D pools of linalg as 2-D ones, which become layers: of all planes, and then of rows of all depths.

Where no window meets another one, and nothing is around the volume, the loops of any linalg read each element once, and
are as fast as the copies to planes would be: maxima of such windows stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import linalg, tensor

from patc.passes.layers import reference
from patc.passes.raising.linalg_layers import float_constant, is_filled, is_lowest, is_zero, reshaped, tensor_like
from patc.passes.raising.volumes import Volume, is_volume, three

_CHANNELS_LAST, _CHANNELS_FIRST = [0, 2, 3, 4, 1], [0, 4, 1, 2, 3]
_LOOPS = ["parallel"] * 5 + ["reduction"] * 3


def lay_pools(block: ir.Block) -> bool:
    """Rewrite the 3-D pools of a function; return whether there are any.

    The ops that are replaced stay, without users.
    """
    found = False
    for op in [op.operation for op in block.operations]:
        pool = _Pool.read(op)
        if pool is None or not pool.is_slow:
            continue
        with op.location, ir.InsertionPoint(op):
            op.results[0].replace_all_uses_with(reshaped(pool.build(op), op.results[0].type))
        found = True
    return found


@dataclass(frozen=True)
class _Pool:
    """A pool of a volume.

    Attributes:
        is_sum: of sums; else of maxima.
        kernel, strides, dilations: of depth, height and width.
    """

    volume: Volume
    is_sum: bool
    kernel: list[int]
    strides: list[int]
    dilations: list[int]

    @staticmethod
    def read(op: ir.Operation) -> _Pool | None:
        """Return what an op computes, which may be the transposition of a pool whose channels come last."""
        if len(op.results) != 1 or not is_volume(op.results[0].type):
            return None
        if op.name == "linalg.generic":
            return _read_maxima(op)
        if op.name != "linalg.transpose" or list(op.opview.permutation) != _CHANNELS_FIRST:
            return None
        pool = op.operands[0].owner
        if isinstance(pool, ir.Block) or pool.name != "linalg.pooling_ndhwc_sum":
            return None
        swapped = pool.operands[0].owner
        if isinstance(swapped, ir.Block) or swapped.name != "linalg.transpose":
            return None
        if list(swapped.opview.permutation) != _CHANNELS_LAST or not is_filled(pool.operands[2], is_zero):
            return None
        geometry = three(pool.operation, "strides"), three(pool.operation, "dilations")
        return _of(swapped.operands[0], True, list(pool.operands[1].type.shape), *geometry)

    @property
    def is_slow(self) -> bool:
        """Whether planes are worth their copies."""
        reaches = (dilation * (size - 1) + 1 for size, dilation in zip(self.kernel, self.dilations, strict=True))
        meets = any(stride < reach for stride, reach in zip(self.strides, reaches, strict=True))
        return self.is_sum or meets or self.volume.fill is not None

    def build(self, op: ir.Operation) -> ir.Value:
        """Return the results, as rows of a plane for each depth; `op` is what computed them."""
        volume, given = self.volume, self.volume.value
        batch, channels, deep, *size = given.type.shape
        depth, height, width = op.results[0].type.shape[2:]
        start = reference.scalar(0.0 if self.is_sum else -math.inf, op)
        planes = volume.around(reshaped(given, tensor_like([batch, channels * deep, *size], given)))
        planes = self._pool(planes, start, [height, width], slice(1, 3))
        rows = volume.around_rows(reshaped(planes, tensor_like([batch, channels, deep, height * width], planes)))
        return self._pool(rows, start, [depth, height * width], slice(1))

    def _pool(self, planes: ir.Value, start: ir.Value, size: list[int], axes: slice) -> ir.Value:
        """Pool planes along their height and width, or along their height alone.

        Args:
            start: what changes nothing.
            size: of the results.
            axes: depth, or height and width.
        """
        kernel, strides, dilations = ((*given[axes], 1)[:2] for given in (self.kernel, self.strides, self.dilations))
        element = planes.type.element_type
        init = linalg.fill(start, outs=[tensor.empty([*planes.type.shape[:2], *size], element)])
        make = linalg.pooling_nchw_sum if self.is_sum else linalg.pooling_nchw_max
        window = tensor.empty(list(kernel), element)
        return make(planes, window, outs=[init], strides=list(strides), dilations=list(dilations))


def _of(padded: ir.Value, is_sum: bool, kernel: list[int], strides: list[int], dilations: list[int]) -> _Pool | None:
    volume = Volume.read(padded)
    around = None if volume.fill is None else float_constant(volume.fill)
    is_neutral = is_zero if is_sum else is_lowest
    if volume.fill is not None and (around is None or not is_neutral(around)):
        return None
    return _Pool(volume, is_sum, kernel, strides, dilations)


def _read_maxima(op: ir.Operation) -> _Pool | None:
    """Return the pool that a generic is whose window is its second input."""
    maps = [attr.value for attr in op.attributes["indexing_maps"]]
    body = op.regions[0].blocks[0]
    is_maximum = [inner.operation.name for inner in body.operations] == ["arith.maximumf", "linalg.yield"]
    if len(op.operands) != 3 or not is_maximum or not is_filled(op.operands[2], is_lowest):
        return None
    window, (given, _, out) = op.operands[1].type.shape, body.arguments
    if len(maps[0].results) != 5 or len(window) != 3 or set(body.operations[0].operands) != {given, out}:
        return None
    strides, dilations = ([_factor(maps[0].results[2 + n], first + n) for n in range(3)] for first in (2, 5))
    dims = [ir.AffineExpr.get_dim(n) for n in range(8)]
    places = [dims[2 + n] * strides[n] + dims[5 + n] * dilations[n] for n in range(3)]
    wanted = [ir.AffineMap.get(8, 0, results) for results in ([*dims[:2], *places], dims[5:], dims[:5])]
    kinds = [str(kind).split("<")[1].rstrip(">") for kind in op.attributes["iterator_types"]]
    if maps != wanted or kinds != _LOOPS or min(strides) < 1 or min(dilations) < 1:
        return None
    return _of(op.operands[0], False, list(window), strides, dilations)


def _factor(expression: ir.AffineExpr, dim: int) -> int:
    """Return what a dim is multiplied by in a linear expression."""
    if isinstance(expression, ir.AffineDimExpr):
        return int(expression.position == dim)
    if isinstance(expression, ir.AffineAddExpr):
        return _factor(expression.lhs, dim) + _factor(expression.rhs, dim)
    if isinstance(expression, ir.AffineMulExpr) and isinstance(expression.rhs, ir.AffineConstantExpr):
        return _factor(expression.lhs, dim) * expression.rhs.value
    return 0
