"""The emission site of a layer on a GPU: what an algorithm reads a layer from, and launches its kernels through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from patc.dialects.attributes import Activation, Layout
from patc.dialects.joins import Join
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.gpu.launches import Emit, Grid, Launches
from patc.passes.algorithms.gpu.memory import NetMemory
from patc.passes.base import PassState, fail
from patc.passes.formats.layer_weights import require_array
from patc.passes.ir.elements import compute_type, numpy_type
from patc.passes.ir.quantised import is_quantised
from patc.passes.ir.windows import Window
from patc.passes.kernels.gpu.kernel import LANES
from patc.passes.kernels.gpu.layer import GpuArray, GpuEpilogue, GpuLayer
from patc.passes.kernels.gpu.tensors import GpuTensor, has_vector_rows
from patc.targets import Target


@dataclass(frozen=True)
class Plan:
    """What an algorithm found out about a layer before memory is given out; some add to it.

    Attributes:
        scratch_bytes: of the arena that the layer needs for itself.
    """

    scratch_bytes: int = 0


@dataclass(frozen=True)
class GpuSite:
    """One layer, where its kernels are launched.

    Attributes:
        op: the layer.
        schedule: how it is computed.
        memory: where its tensors are.
        launches: those of the net, to which the layer's are added.
        plan: what the algorithm planned for the layer.
        target: the machine.
    """

    op: Any
    schedule: Schedule
    memory: NetMemory
    launches: Launches
    plan: Plan
    target: Target

    @property
    def state(self) -> PassState:
        """What passes share, with the arrays of constants."""
        return self.memory.state

    @property
    def source(self) -> GpuTensor:
        """The operand `input`."""
        return self.memory.tensor(self.op.input)

    @property
    def output(self) -> GpuTensor:
        """The result."""
        return self.memory.tensor(self.op.result)

    def array(self, role: str) -> np.ndarray:
        """Return the values of a constant operand.

        Raises:
            PatcError: it is none.
        """
        return require_array(self.op, getattr(self.op, role), role, self.state)

    def layer(self, *sources: GpuTensor) -> GpuLayer:
        """Return the layer as its kernel sees it: what it has of window, bias, residual and activation.

        Args:
            sources: what it reads, the operand `input` by default.
        """
        op, attributes = self.op, self.op.attributes
        window = Window.of(op) if "strides" in attributes else Window((1, 1))
        return GpuLayer(sources or (self.source,), self.output, self.schedule, window, self._epilogue())

    def sliding_layer(self) -> GpuLayer:
        """Return the layer, one whose window slides over its input.

        Raises:
            PatcError: the rows of the input do not start on vectors, or its halo does not cover the pads.
        """
        pads, layout = list(self.op.pads), Layout.of(self.op.input.type)
        halo = (layout.top, layout.left, layout.bottom, layout.right)
        if not has_vector_rows(layout) or any(pad > side for pad, side in zip(pads, halo, strict=True)):
            expected = f"an input with a halo of at least {pads} and rows of {LANES}-element vectors"
            raise fail(self.op, f"{expected} (run pattern-layout with target=spirv-vulkan first)", self.op.input.type)
        return self.layer()

    def launch(self, grid: Grid, emit: Emit, schedule: Schedule | None = None) -> None:
        """Launch the kernel that `emit` writes, to compute in the type of the first result; `schedule` is given
        where a part of the layer has one of its own."""
        self.launches.add(schedule or self.schedule, self.op.results[0].type.element_type, grid, emit)

    def grid(self, blocks: int) -> Grid:
        """Return the workgroups along pixels of the result, `blocks` of channels, and images."""
        return pixel_grid(self.output, self.schedule, blocks)

    def _epilogue(self) -> GpuEpilogue:
        op = self.op
        residual = self.memory.tensor(op.residual) if getattr(op, "residual", None) is not None else None
        bias: GpuArray | None = None
        if getattr(op, "bias", None) is not None and not is_quantised(op):  # which begins with sums of its own
            bias = self.memory.constant(self.array("bias"), op.bias, "")
        activation, table = Activation.of(op), None
        if activation.arrays:
            array = np.array(activation.arrays, numpy_type(compute_type(op.result.type))).ravel()
            table = self.memory.constant(array, op.result, "activation")
        return GpuEpilogue(bias, residual, activation, table, Join.of(op))


def pixel_grid(output: GpuTensor, schedule: Schedule, blocks: int) -> Grid:
    """Return the workgroups along pixels, blocks of channels, and images."""
    pixels = output.vectors * ceil_div(output.height, schedule.rows)
    return ceil_div(pixels, schedule.threads // schedule.sums), blocks, output.images
