"""A pass from outside of the package: it makes small weights zero, for `pattern-encode` to leave out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch_mlir import ir

from patc.dialects.pattern import Conv2dOp
from patc.passes.base import Pass, PassState
from patc.passes.ir.constants import read_constant, replace_constant


@dataclass(frozen=True)
class ZeroSmallWeights(Pass):
    """Make the weights of convolutions zero that are small beside the largest one of their layer.

    Requires: `pattern-raise`.
    Ensures: a remark for each layer says how many there were.
    """

    name: ClassVar[str] = "zero-small-weights"

    below: float = field(
        default=0.01, metadata={"help": "magnitude, of the largest weight", "minimum": 0.0, "maximum": 1.0}
    )

    def run(self, module: ir.Module, state: PassState) -> None:
        for op in ir.get_ops_of_type(module, Conv2dOp):
            weight = read_constant(op.weight, state)
            if weight is None:
                continue
            is_small = np.abs(weight) < self.below * np.abs(weight).max()
            state.remark(op, f"{np.count_nonzero(is_small & (weight != 0))} of {weight.size} weights become zero")
            with op.location:
                replace_constant(op, 1, np.where(is_small, np.float32(0.0), weight), state)
