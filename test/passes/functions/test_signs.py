"""Numbers of which it is known that they are not positive: elements less the largest of some with them among these."""

from __future__ import annotations

import pytest
from torch_mlir import ir

from patc.context import make_context
from patc.passes.functions.signs import is_never_positive
from patc.passes.ir.functions import walk_ops

MODULE = """
#all = affine_map<(d0, d1, d2) -> (d0, d1, d2)>
func.func @main(%x: tensor<4x4x9xf32>, %y: tensor<4x4x9xf32>) -> tensor<4x4x9xf32> {
  %low = arith.constant dense<0xFF800000> : tensor<4x4x1xf32>
  %wide = tensor.expand_shape GIVEN [[0], [1, 2], [3]] output_shape [4, 4, 1, 9]
    : tensor<4x4x9xf32> into tensor<4x4x1x9xf32>
  %m = linalg.generic {indexing_maps = [affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>, affine_map<WRITTEN>],
      iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
      ins(%wide : tensor<4x4x1x9xf32>) outs(%low : tensor<4x4x1xf32>) {
  ^bb0(%in: f32, %out: f32):
    %0 = arith.COMBINE %in, %out : f32
    linalg.yield %0 : f32
  } -> tensor<4x4x1xf32>
  %e = tensor.empty() : tensor<4x4x9xf32>
  %r = linalg.generic {indexing_maps = [#all, affine_map<READ>, #all],
      iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%x, %m : tensor<4x4x9xf32>, tensor<4x4x1xf32>) outs(%e : tensor<4x4x9xf32>) {
  ^bb0(%in: f32, %most: f32, %out: f32):
    %0 = arith.subf DIFFERENCE : f32
    linalg.yield %0 : f32
  } -> tensor<4x4x9xf32>
  return %r : tensor<4x4x9xf32>
}
"""
SOFTMAX = {
    "GIVEN": "%x",
    "WRITTEN": "(d0, d1, d2, d3) -> (d0, d1, d2)",
    "COMBINE": "maximumf",
    "READ": "(d0, d1, d2) -> (d0, d1, 0)",
    "DIFFERENCE": "%in, %most",
}

DIAGONAL = {  # of which the maxima are
    "4x4x1xf32": "4x1x1xf32",
    "(d0, d1, d2, d3) -> (d0, d1, d2, d3)": "(d0, d1, d2, d3) -> (d0, d0, d2, d3)",
    "READ": "(d0, d1, d2) -> (d0, 0, 0)",
}


@pytest.mark.parametrize(
    ("changes", "is_known"),
    [
        ({}, True),
        ({"GIVEN": "%y"}, False),
        ({"WRITTEN": "(d0, d1, d2, d3) -> (d1, d0, d2)"}, False),
        ({"READ": "(d0, d1, d2) -> (d1, d0, 0)"}, False),
        ({"WRITTEN": "(d0, d1, d2, d3) -> (d1, d0, d2)", "READ": "(d0, d1, d2) -> (d1, d0, 0)"}, True),
        ({"COMBINE": "minimumf"}, False),
        (DIAGONAL, False),
        ({"DIFFERENCE": "%most, %in"}, False),
    ],
)
def test_what_is_never_positive(changes: dict[str, str], is_known: bool) -> None:
    text = MODULE
    for name, value in (SOFTMAX | changes).items():
        text = text.replace(name, value)
    with make_context():
        module = ir.Module.parse(text)
        (difference,) = (op for op in walk_ops(module.operation) if op.operation.name == "arith.subf")
        assert is_never_positive(difference.operation.results[0]) == is_known
        sources = [op.operation.results[0] for op in walk_ops(module.operation) if op.operation.name == "tensor.empty"]
        assert not any(map(is_never_positive, sources))
