"""Constant tensors that passes evaluate: each op against numpy."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from torch_mlir import ir

from patc.context import make_context
from patc.parameters import ParameterStore
from patc.passes.base import PassState
from patc.passes.raising.evaluate import NotConstant, evaluate

A = np.array([4.0, -1.0, 0.25], np.float32)
B = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)


def compute(body: str, result: str) -> np.ndarray:
    """Evaluate what a function of the constants %a (3) and %b (2 x 3) and the argument %x (3) returns."""
    text = f"""
      #map = affine_map<(d0) -> (d0)>
      func.func @main(%x: tensor<3xf32>) -> {result} {{
        %two = arith.constant 2.0 : f32
        %a = "pattern.parameter"() {{name = "a"}} : () -> tensor<3xf32>
        %b = arith.constant dense<[[1., 2., 3.], [4., 5., 6.]]> : tensor<2x3xf32>
        %e = tensor.empty() : tensor<3xf32>
        {body}
        return %y : {result}
      }}"""
    module = ir.Module.parse(text, make_context())
    block = module.body.operations[0].entry_block
    returned = block.operations[len(block.operations) - 1].operation.operands[0]
    return evaluate(returned, PassState(ParameterStore({"a": A})))


def scalar(body: str) -> np.ndarray:
    """Evaluate %y of the elements %in of %a."""
    generic = f"""
      %y = linalg.generic {{indexing_maps = [#map, #map], iterator_types = ["parallel"]}}
          ins(%a : tensor<3xf32>) outs(%e : tensor<3xf32>) {{
      ^bb0(%in: f32, %out: f32):
        {body}
        linalg.yield %y : f32
      }} -> tensor<3xf32>"""
    return compute(generic, "tensor<3xf32>")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%y = arith.addf %in, %two : f32", A + 2),
        ("%y = arith.subf %two, %in : f32", 2 - A),
        ("%y = arith.mulf %in, %in : f32", A * A),
        ("%y = arith.divf %two, %in : f32", 2 / A),
        ("%y = arith.negf %in : f32", -A),
        ("%y = arith.maximumf %in, %two : f32", [4, 2, 2]),
        ("%y = arith.minimumf %in, %two : f32", [2, -1, 0.25]),
        ("%y = math.absf %in : f32", abs(A)),
        ("%y = math.sqrt %in : f32", [2, np.nan, 0.5]),
        ("%y = math.rsqrt %in : f32", [0.5, np.nan, 2]),
        ("%c = arith.constant 0.5 : f32 %y = arith.mulf %in, %c : f32", A / 2),
        ("%w = arith.extf %in : f32 to f64 %y = arith.truncf %w : f64 to f32", A),
        ("%c = arith.constant 3 : i64 %y = arith.sitofp %c : i64 to f32", [3, 3, 3]),
    ],
)
def test_arithmetic(body: str, expected: Any) -> None:
    np.testing.assert_array_equal(scalar(body), expected)


@pytest.mark.parametrize(
    ("predicate", "with_nan"),
    [
        *((name, False) for name in ("oeq", "ogt", "oge", "olt", "ole", "one")),
        *((name, True) for name in ("ueq", "ugt", "uge", "ult", "ule", "une")),
    ],
)
def test_comparisons(predicate: str, with_nan: bool) -> None:
    """The square root of -1 is NaN, that of 4 is 2, and that of 0.25 is less."""
    found = scalar(
        f"""%root = math.sqrt %in : f32
            %c = arith.cmpf {predicate}, %root, %two : f32
            cf.assert %c, "not checked"
            %one = arith.constant 1.0 : f32
            %zero = arith.constant 0.0 : f32
            %y = arith.select %c, %one, %zero : f32"""
    )
    holds = {"eq": (True, False), "gt": (False, False), "ge": (True, False)} | {
        "lt": (False, True),
        "le": (True, True),
        "ne": (False, True),
    }
    equal, less = holds[predicate[1:]]
    assert found.tolist() == [equal, with_nan, less]


@pytest.mark.parametrize(
    ("body", "type_", "expected"),
    [
        (
            "%y = tensor.expand_shape %a [[0, 1]] output_shape [3, 1] : tensor<3xf32> into tensor<3x1xf32>",
            "tensor<3x1xf32>",
            A[:, None],
        ),
        (
            "%y = tensor.collapse_shape %b [[0, 1]] : tensor<2x3xf32> into tensor<6xf32>",
            "tensor<6xf32>",
            B.ravel(),
        ),
        (
            "%y = linalg.fill ins(%two : f32) outs(%e : tensor<3xf32>) -> tensor<3xf32>",
            "tensor<3xf32>",
            [2, 2, 2],
        ),
        (
            """%s = tensor.empty() : tensor<2x3x2xf32>
               %y = linalg.broadcast ins(%a : tensor<3xf32>)
                   outs(%s : tensor<2x3x2xf32>) dimensions = [0, 2]""",
            "tensor<2x3x2xf32>",
            np.broadcast_to(A[:, None], (2, 3, 2)),
        ),
        (
            """%s = tensor.empty() : tensor<3x2xf32>
               %y = linalg.transpose ins(%b : tensor<2x3xf32>)
                   outs(%s : tensor<3x2xf32>) permutation = [1, 0]""",
            "tensor<3x2xf32>",
            B.T,
        ),
        (
            """%s = tensor.empty() : tensor<3x2xf32>
               %y = linalg.generic {indexing_maps = [affine_map<(d0, d1) -> (d1, d0)>,
                   affine_map<(d0, d1) -> (d0)>, affine_map<(d0, d1) -> (0, d0)>,
                   affine_map<(d0, d1) -> (d0, d1)>], iterator_types = ["parallel", "parallel"]}
                   ins(%b, %a, %b : tensor<2x3xf32>, tensor<3xf32>, tensor<2x3xf32>)
                   outs(%s : tensor<3x2xf32>) {
               ^bb0(%p: f32, %q: f32, %r: f32, %out: f32):
                 %0 = arith.mulf %p, %q : f32
                 %1 = arith.addf %0, %r : f32
                 linalg.yield %1 : f32
               } -> tensor<3x2xf32>""",
            "tensor<3x2xf32>",
            B.T * A[:, None] + B[0][:, None],
        ),
    ],
    ids=["expand", "collapse", "fill", "broadcast", "transpose", "generic"],
)
def test_tensor_ops(body: str, type_: str, expected: Any) -> None:
    found = compute(body, type_)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "body",
    [
        "%y = tensor.cast %x : tensor<3xf32> to tensor<3xf32>",
        "%y = arith.addf %x, %a : tensor<3xf32>",
        "%y = tensor.empty() : tensor<3xf32>",
        """%n = tensor.extract %x[%i] : tensor<3xf32>
           %y = linalg.fill ins(%n : f32) outs(%e : tensor<3xf32>) -> tensor<3xf32>""",
        """%s = tensor.empty() : tensor<f32>
           %r = linalg.generic {indexing_maps = [#map, affine_map<(d0) -> ()>],
               iterator_types = ["reduction"]}
               ins(%a : tensor<3xf32>) outs(%s : tensor<f32>) {
           ^bb0(%in: f32, %out: f32):
             linalg.yield %in : f32
           } -> tensor<f32>
           %y = linalg.broadcast ins(%r : tensor<f32>) outs(%e : tensor<3xf32>) dimensions = [0]""",
        """%y = linalg.generic {indexing_maps = [affine_map<(d0) -> (d0, d0)>, #map],
               iterator_types = ["parallel"]}
               ins(%square : tensor<3x3xf32>) outs(%e : tensor<3xf32>) {
           ^bb0(%in: f32, %out: f32):
             linalg.yield %in : f32
           } -> tensor<3xf32>""",
        """%y = linalg.generic {indexing_maps = [affine_map<(d0) -> (d0 + 1)>, #map],
               iterator_types = ["parallel"]}
               ins(%four : tensor<4xf32>) outs(%e : tensor<3xf32>) {
           ^bb0(%in: f32, %out: f32):
             linalg.yield %in : f32
           } -> tensor<3xf32>""",
    ],
    ids=["argument", "op", "empty", "scalar", "reduction", "diagonal", "shifted"],
)
def test_what_is_not_constant(body: str) -> None:
    constants = """
      %i = arith.constant 0 : index
      %four = arith.constant dense<1.> : tensor<4xf32>
      %square = arith.constant dense<1.> : tensor<3x3xf32>
    """
    with pytest.raises(NotConstant):
        compute(constants + body, "tensor<3xf32>")


@pytest.mark.parametrize(
    "body",
    ["%y = math.sin %in : f32", "%c = arith.cmpf ord, %in, %in : f32 %y = arith.select %c, %in, %two : f32"],
)
def test_arithmetic_that_is_not_evaluated(body: str) -> None:
    with pytest.raises(NotConstant):
        scalar(body)


def test_what_a_deep_net_computes_is_no_constant() -> None:
    """However many ops lead back to its inputs, and whichever operand goes there."""
    add = """
      %{new} = linalg.generic {{indexing_maps = [#map, #map, #map], iterator_types = ["parallel"]}}
          ins(%{old}, %a : tensor<3xf32>, tensor<3xf32>) outs(%e : tensor<3xf32>) {{
      ^bb0(%one: f32, %other: f32, %out: f32):
        %sum = arith.addf %one, %other : f32
        linalg.yield %sum : f32
      }} -> tensor<3xf32>"""
    names = ["x", *(f"v{number}" for number in range(1500)), "y"]
    body = "".join(add.format(old=old, new=new) for old, new in pairwise(names))
    with pytest.raises(NotConstant):
        compute(body, "tensor<3xf32>")
