"""Elementary functions are within 4 units in the last place of f32, for numbers of every size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from emulated import needs_arm
from gpu import needs_device
from large import LARGE

from patc.backends.registry import find_backend
from patc.execution import compile_module, run_module

FUNCTIONS = ("exp", "expm1", "exp2", "tanh", "erf", "log", "log1p", "cbrt")
UNITS = 4.0
SPECIAL = (0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 1, 0x80000001, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0xFF7FFFFF)
MODULE = """func.func @main(%x: tensor<NxF>) -> tensor<NxF> {
  %y = math.NAME %x : tensor<NxF>
  return %y : tensor<NxF>
}"""

# What the numerators of a softmax are, see `signs`.
NUMERATORS = """#each = affine_map<(d0) -> (d0)>
#one = affine_map<(d0) -> ()>
func.func @main(%x: tensor<NxF>) -> tensor<NxF> {
  %low = arith.constant dense<0xFF800000> : tensor<f32>
  %most = linalg.generic {indexing_maps = [#each, #one], iterator_types = ["reduction"]}
      ins(%x : tensor<NxF>) outs(%low : tensor<f32>) {
  ^bb0(%in: f32, %out: f32):
    %0 = arith.maximumf %in, %out : f32
    linalg.yield %0 : f32
  } -> tensor<f32>
  %e = tensor.empty() : tensor<NxF>
  %y = linalg.generic {indexing_maps = [#each, #one, #each], iterator_types = ["parallel"]}
      ins(%x, %most : tensor<NxF>, tensor<f32>) outs(%e : tensor<NxF>) {
  ^bb0(%in: f32, %largest: f32, %out: f32):
    %0 = arith.subf %in, %largest : f32
    %1 = math.exp %0 : f32
    linalg.yield %1 : f32
  } -> tensor<NxF>
  return %y : tensor<NxF>
}"""


def text(name: str, count: int) -> str:
    return MODULE.replace("NAME", name).replace("NxF", f"{count}xf32")


def all_sizes(count: int) -> np.ndarray:
    """Return numbers spread evenly over the bit patterns of f32, and special ones."""
    bits = np.linspace(0, 2**32 - 1, count).astype(np.uint32)
    bits[: len(SPECIAL)] = SPECIAL
    return bits.view(np.float32)


def blocks(size: int) -> Iterator[np.ndarray]:
    if LARGE:  # all 2^32 numbers: about ten minutes a function
        for first in range(0, 2**32, size):
            yield np.arange(first, first + size, dtype=np.uint32).view(np.float32)
    else:
        yield all_sizes(size)


def require_close(name: str, x: np.ndarray, found: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        exact = np.cbrt(wide) if name == "cbrt" else getattr(torch, name)(torch.from_numpy(wide)).numpy()
        nearest = exact.astype(np.float32)
        unit = np.maximum(np.spacing(np.abs(nearest)).astype(np.float64), 2.0**-149)
        error = np.abs(found.astype(np.float64) - exact) / unit
    error[(found == nearest) | (np.isnan(found) & np.isnan(nearest))] = 0.0
    worst = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
    assert error[worst] <= UNITS, (
        f"{name}({x[worst]!r}): {found[worst]!r}, {error[worst]:.2f} units from {exact[worst]!r}"
    )


@functools.cache
def compiled(name: str, target: str, count: int) -> Callable[[np.ndarray], list[np.ndarray]]:
    program = compile_module(text(name, count), target=target, threads=1)
    return find_backend(program.backend).load(program, device=None)


@pytest.mark.parametrize("target", ["host", "x86-64-v3"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_on_this_machine(name: str, target: str) -> None:
    size = 1 << 18
    for x in blocks(size):
        (found,) = compiled(name, target, size)(x)
        require_close(name, x, found)


@pytest.mark.parametrize("target", ["host", "x86-64-v3"])
def test_numerators_of_a_softmax(target: str) -> None:
    x = -np.abs(all_sizes(1 << 16))
    x = x[~np.isnan(x)]
    assert x.max() == 0
    (found,) = run_module(NUMERATORS.replace("NxF", f"{len(x)}xf32"), inputs=[x], target=target)
    require_close("exp", x, found)


@needs_arm
@pytest.mark.parametrize("name", FUNCTIONS)
def test_on_aarch64(name: str) -> None:
    x = all_sizes(1 << 12)
    (found,) = run_module(text(name, len(x)), inputs=[x], target="aarch64-linux")
    require_close(name, x, found)


@needs_device
@pytest.mark.parametrize("name", FUNCTIONS)
def test_on_gpus(name: str) -> None:
    x = all_sizes(1 << 16)
    (found,) = run_module(text(name, len(x)), inputs=[x], target="spirv-vulkan")
    subnormal = [np.abs(each) < np.finfo(np.float32).tiny for each in (x, found)]  # Vulkan lets devices flush them
    kept = ~(subnormal[0] | subnormal[1])
    require_close(name, x[kept], found[kept])
