"""`pattern-vectorize`: rewrite the vector ops of the loop nests into what the target does best.

See `x86_vectors` and `neon_vectors`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch_mlir import ir

from patc.passes.base import Pass, PassState
from patc.passes.ir.functions import defined_functions
from patc.passes.ir.targets import OVERRIDE, target_of
from patc.passes.vectors.families import rewriting_of


@dataclass(frozen=True)
class PatternVectorize(Pass):
    """Rewrite vector ops into those that the target runs fastest.

    Requires: vector loads at `base + constant`, where `base` is a multiple of the vector (`pattern-specialize` on the
        rows that `pattern-layout` aligned).
    Ensures: the same values. On x86-64 maxima keep NaN by comparisons of pairs, see `maxima`. With AVX-512 each aligned
        vector is loaded once a block:

        %a = vector.load %m[%base] : vector<16xf32>
        %b = vector.load %m[%base + 1] : vector<16xf32>
      becomes
        %a = vector.load %m[%base] : vector<16xf32>
        %c = vector.load %m[%base + 16] : vector<16xf32>
        %b = vector.shuffle %a, %c [1, 2, ..., 16]

      and with NEON weights come four at once, to be multiplied by element:

        %w0 = memref.load %weights[%kernel] : f32
        %w1 = memref.load %weights[%kernel + 1] : f32
      becomes
        %w = vector.load %weights[%kernel] : vector<2xf32>
        %w0 = vector.extract %w[0]
        %w1 = vector.extract %w[1]

    Idempotent.
    """

    name: ClassVar[str] = "pattern-vectorize"

    target: str = field(default="", metadata={"help": OVERRIDE})

    def run(self, module: ir.Module, state: PassState) -> None:
        target = target_of(module, self.target)
        rewrite = rewriting_of(target)
        for function in defined_functions(module):
            rewrite(module, function, _loop_bodies(function), target)


def _loop_bodies(function: Any) -> list[ir.Block]:
    bodies: list[ir.Block] = []

    def collect(op: ir.Operation) -> ir.WalkResult:
        if op.name == "scf.for":
            bodies.append(op.regions[0].blocks[0])
        return ir.WalkResult.ADVANCE

    function.operation.walk(collect)
    return bodies
