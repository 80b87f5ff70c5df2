"""Linalg that no kernel was made for, as compute shaders, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpu import NAN_BYTE, compile_for_gpu, fill_arena, needs_device, needs_validator, require_valid
from native import CONTEXT
from torch import nn
from torch_mlir import ir

import patc
from patc.diagnostics import PatcError
from patc.parameters import ParameterStore
from patc.passes.base import PassState
from patc.pipeline import Pipeline
from patc.runtime.vulkan_model import VulkanModel

# Rows and columns are more than a workgroup has threads together, and no multiple of them.
FUNCTION = """
#same = affine_map<(i, j) -> (i, j)>
func.func @main(%x: tensor<37x70xf32>) -> tensor<37x70xf32> {
  %empty = tensor.empty() : tensor<37x70xf32>
  %y = linalg.generic {indexing_maps = [#same, #same], iterator_types = ["parallel", "parallel"]}
      ins(%x : tensor<37x70xf32>) outs(%empty : tensor<37x70xf32>) {
  ^bb0(%a: f32, %o: f32):
    %f = math.NAME %a : f32
    linalg.yield %f : f32
  } -> tensor<37x70xf32>
  return %y : tensor<37x70xf32>
}
"""
SOFTMAX = """
#same = affine_map<(i, j) -> (i, j)>
#row = affine_map<(i, j) -> (i)>
func.func @main(%x: tensor<37x70xf32>) -> tensor<37x70xf32> {
  %lowest = arith.constant 0xFF800000 : f32
  %zero = arith.constant 0.0 : f32
  %row = tensor.empty() : tensor<37xf32>
  %empty = tensor.empty() : tensor<37x70xf32>
  %first = linalg.fill ins(%lowest : f32) outs(%row : tensor<37xf32>) -> tensor<37xf32>
  %nothing = linalg.fill ins(%zero : f32) outs(%row : tensor<37xf32>) -> tensor<37xf32>
  %largest = linalg.generic {indexing_maps = [#same, #row], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<37x70xf32>) outs(%first : tensor<37xf32>) {
  ^bb0(%a: f32, %o: f32):
    %m = arith.maximumf %a, %o : f32
    linalg.yield %m : f32
  } -> tensor<37xf32>
  %powers = linalg.generic {indexing_maps = [#same, #row, #same], iterator_types = ["parallel", "parallel"]}
      ins(%x, %largest : tensor<37x70xf32>, tensor<37xf32>) outs(%empty : tensor<37x70xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %d = arith.subf %a, %b : f32
    %e = math.exp %d : f32
    linalg.yield %e : f32
  } -> tensor<37x70xf32>
  %sum = linalg.generic {indexing_maps = [#same, #row], iterator_types = ["parallel", "reduction"]}
      ins(%powers : tensor<37x70xf32>) outs(%nothing : tensor<37xf32>) {
  ^bb0(%a: f32, %o: f32):
    %s = arith.addf %a, %o : f32
    linalg.yield %s : f32
  } -> tensor<37xf32>
  %y = linalg.generic {indexing_maps = [#same, #row, #same], iterator_types = ["parallel", "parallel"]}
      ins(%powers, %sum : tensor<37x70xf32>, tensor<37xf32>) outs(%empty : tensor<37x70xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %d = arith.divf %a, %b : f32
    linalg.yield %d : f32
  } -> tensor<37x70xf32>
  return %y : tensor<37x70xf32>
}
"""
PRODUCT = """
#left = affine_map<(i, j, k) -> (i, k)>
#right = affine_map<(i, j, k) -> RIGHT>
#out = affine_map<(i, j, k) -> (i, j)>
func.func @main(%a: tensor<LEFTxf32>, %b: tensor<OTHERxf32>) -> tensor<RESULTxf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<RESULTxf32>
  %start = linalg.fill ins(%zero : f32) outs(%empty : tensor<RESULTxf32>) -> tensor<RESULTxf32>
  %y = linalg.generic {indexing_maps = [#left, #right, #out], iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%a, %b : tensor<LEFTxf32>, tensor<OTHERxf32>) outs(%start : tensor<RESULTxf32>) {
  ^bb0(%l: f32, %r: f32, %o: f32):
    %p = arith.mulf %l, %r : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<RESULTxf32>
  return %y : tensor<RESULTxf32>
}
"""
# How many elements of a row are positive, and which they are.
COUNT = """
#same = affine_map<(i, j) -> (i, j)>
#row = affine_map<(i, j) -> (i)>
func.func @main(%x: tensor<37x70xf32>) -> (tensor<37xi64>, tensor<37x70xi1>) {
  %zero = arith.constant 0.0 : f32
  %none = arith.constant 0 : i64
  %start = tensor.empty() : tensor<37xi64>
  %bits = tensor.empty() : tensor<37x70xi1>
  %first = linalg.fill ins(%none : i64) outs(%start : tensor<37xi64>) -> tensor<37xi64>
  %above = linalg.generic {indexing_maps = [#same, #same], iterator_types = ["parallel", "parallel"]}
      ins(%x : tensor<37x70xf32>) outs(%bits : tensor<37x70xi1>) {
  ^bb0(%a: f32, %o: i1):
    %c = arith.cmpf ogt, %a, %zero : f32
    linalg.yield %c : i1
  } -> tensor<37x70xi1>
  %count = linalg.generic {indexing_maps = [#same, #row], iterator_types = ["parallel", "reduction"]}
      ins(%above : tensor<37x70xi1>) outs(%first : tensor<37xi64>) {
  ^bb0(%a: i1, %o: i64):
    %n = arith.extui %a : i1 to i64
    %s = arith.addi %n, %o : i64
    linalg.yield %s : i64
  } -> tensor<37xi64>
  return %count, %above : tensor<37xi64>, tensor<37x70xi1>
}
"""
# The columns of each row backwards, and those beyond the last one, which are the last one.
GATHER = """
#same = affine_map<(i, j) -> (i, j)>
func.func @main(%x: tensor<37x70xf32>) -> tensor<37x70xf32> {
  %last = arith.constant 75 : index
  %empty = tensor.empty() : tensor<37x70xf32>
  %y = linalg.generic {indexing_maps = [#same], iterator_types = ["parallel", "parallel"]}
      outs(%empty : tensor<37x70xf32>) {
  ^bb0(%o: f32):
    %i = linalg.index 0 : index
    %j = linalg.index 1 : index
    %k = arith.subi %last, %j : index
    %a = tensor.extract %x[%i, %k] : tensor<37x70xf32>
    linalg.yield %a : f32
  } -> tensor<37x70xf32>
  return %y : tensor<37x70xf32>
}
"""
LOOP = """
func.func @main(%x: tensor<37x70xf32>) -> tensor<37xf32> {
  %low = arith.constant 0 : index
  %one = arith.constant 1 : index
  %high = arith.constant 37 : index
  %start = tensor.empty() : tensor<37xf32>
  %y = scf.for %i = %low to %high step %one iter_args(%made = %start) -> tensor<37xf32> {
    %a = tensor.extract %x[%i, %low] : tensor<37x70xf32>
    %next = tensor.insert %a into %made[%i] : tensor<37xf32>
    scf.yield %next : tensor<37xf32>
  } loc("first")
  return %y : tensor<37xf32>
}
"""


class Largest(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.argmax(1)


def compile_linalg(text: str) -> VulkanModel:
    module = ir.Module.parse(text, CONTEXT)
    Pipeline().add("pattern-outline").run(module, PassState())
    return compile_for_gpu(module, ParameterStore())


def random_matrix() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((37, 70), np.float32)


def run(model: VulkanModel, *x: np.ndarray) -> list[np.ndarray]:
    """Return the results of a second call, the first of which found memory full of NaN."""
    fill_arena(model, NAN_BYTE)
    model(*x)
    return list(model(*x))


@needs_device
@pytest.mark.parametrize("name", ["exp", "tanh", "cos", "sin", "log1p", "trunc", "sqrt"])
def test_elementary_functions(name: str) -> None:
    x = np.linspace(0.0, 9.0, 37 * 70, dtype=np.float32).reshape(37, 70)
    (found,) = run(compile_linalg(FUNCTION.replace("NAME", name)), x)
    wanted = getattr(np, name)(x.astype(np.float64))
    assert np.abs(found - wanted).max() <= 1e-6 * np.abs(wanted).max()


@needs_device
def test_workgroups_go_on_along_y() -> None:
    """Devices need not take more than 65535 along an axis."""
    model = compile_linalg(FUNCTION.replace("NAME", "absf").replace("37x70", "1030x2048"))
    assert model.code.dispatches[0].groups == (32768, 2, 1)
    x = np.random.default_rng(0).standard_normal((1030, 2048), np.float32)
    np.testing.assert_array_equal(model(x)[0], np.abs(x))


@needs_device
def test_reductions() -> None:
    x = random_matrix()
    (found,) = run(compile_linalg(SOFTMAX), x)
    wanted = np.exp(x.astype(np.float64))
    wanted /= wanted.sum(axis=1, keepdims=True)
    assert np.abs(found - wanted).max() <= 1e-6 * wanted.max()


@needs_device
@pytest.mark.parametrize(("rows", "depth", "columns", "turned"), [(8, 8, 8, False), (70, 33, 45, True), (64, 32, 96, False), (520, 17, 513, True)])  # fmt: skip
def test_products(rows: int, depth: int, columns: int, turned: bool) -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((rows, depth), np.float32)
    b = rng.standard_normal((columns, depth) if turned else (depth, columns), np.float32)
    text = PRODUCT.replace("RIGHT", "(j, k)" if turned else "(k, j)")
    for name, array in (("LEFT", a), ("OTHER", b), ("RESULT", np.empty((rows, columns)))):
        text = text.replace(name, "x".join(map(str, array.shape)))
    model = compile_linalg(text)
    assert len(model.code.dispatches) == 1
    (found,) = run(model, a, b)
    wanted = a.astype(np.float64) @ (b.T if turned else b)
    assert np.abs(found - wanted).max() <= 1e-6 * np.abs(wanted).max()


@needs_device
def test_the_largest_of_a_flattened_plane() -> None:
    """Where an element was before its tensor was flattened is arithmetic of the affine dialect."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten()).eval()
    x = torch.randn(2, 3, 8, 9)
    largest = nn.Sequential(net, Largest()).eval()
    assert torch.equal(patc.compile(largest, (x,), target="spirv-vulkan")(x), largest(x))


@needs_device
def test_integers_and_truth_values() -> None:
    model, x = compile_linalg(COUNT), random_matrix()
    assert model.code.capabilities == {"Shader", "Int64"}
    count, above = run(model, x)
    np.testing.assert_array_equal(count, (x > 0).sum(axis=1))
    np.testing.assert_array_equal(above, x > 0)


@needs_device
def test_places_that_are_computed_stay_inside() -> None:
    x = random_matrix()
    (found,) = run(compile_linalg(GATHER), x)
    np.testing.assert_array_equal(found, x[:, np.minimum(75 - np.arange(70), 69)])


def test_the_kernels_of_a_layer_are_one_layer() -> None:
    model = compile_linalg(SOFTMAX)
    assert [layer.op for layer in model.layers] == ["generic"]
    assert len(model.code.dispatches) > 1 and {dispatch.layer for dispatch in model.code.dispatches} == {0}


@needs_device
def test_profiles_add_up_the_kernels_of_a_layer() -> None:
    model = compile_linalg(SOFTMAX)
    assert len(model.profile(random_matrix(), repetitions=1)) == 1


@needs_validator
@pytest.mark.parametrize("text", [SOFTMAX, COUNT, GATHER])
def test_kernels_are_valid(text: str) -> None:
    require_valid(compile_linalg(text).code)


def test_what_threads_cannot_share_is_named() -> None:
    with pytest.raises(PatcError) as caught:
        compile_linalg(LOOP)
    assert str(caught.value).splitlines() == ["first: target 'spirv-vulkan' cannot compute: scf.for (first)"]
