"""Pooling of quantised planes on a GPU; see `passes/kernels/gpu/word_pools.py`."""

from __future__ import annotations

import functools
import math
from typing import Any

from patc.dialects.attributes import Activation
from patc.passes.algorithms.gpu.global_pool import GlobalPool
from patc.passes.algorithms.gpu.pool import Pool
from patc.passes.algorithms.gpu.site import GpuSite
from patc.passes.ir.planes import is_global_pool
from patc.passes.ir.quantised import mean_factor
from patc.passes.ir.windows import has_one_divisor
from patc.passes.kernels.gpu import word_pools
from patc.passes.kernels.gpu.pooling import UNROLLED_TAPS


class _WordPool(Pool):
    """A window slides over planes of words."""

    def applies(self, op: Any) -> bool:
        return math.prod(op.kernel_size) <= UNROLLED_TAPS and not Activation.of(op).arrays


class MaxPoolWords(_WordPool):
    """The largest of a window."""

    def applies(self, op: Any) -> bool:
        return super().applies(op) and Activation.of(op) == Activation()

    def emit(self, site: GpuSite) -> None:
        layer = site.sliding_layer()
        site.launch(site.grid(layer.output.channels), functools.partial(word_pools.largest, layer=layer))


class AveragePoolWords(_WordPool):
    """The mean of a window; all windows are divided by one number."""

    def applies(self, op: Any) -> bool:
        return super().applies(op) and not is_global_pool(op) and has_one_divisor(op)

    def emit(self, site: GpuSite) -> None:
        layer = site.sliding_layer()
        emit = functools.partial(word_pools.means, layer=layer, factor=float(mean_factor(site.op)))
        site.launch(site.grid(layer.output.channels), emit)


class GlobalPoolWords(GlobalPool):
    """The mean of whole planes."""

    def applies(self, op: Any) -> bool:
        return super().applies(op) and has_one_divisor(op) and not Activation.of(op).arrays

    def emit(self, site: GpuSite) -> None:
        layer = self.whole_layer(site)
        emit = functools.partial(word_pools.global_means, layer=layer, factor=float(mean_factor(site.op)))
        site.launch((1, layer.output.channels, layer.output.images), emit)
