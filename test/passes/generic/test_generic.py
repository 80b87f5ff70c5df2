"""What is no layer of the dialect is compiled as any linalg is, and computes what PyTorch computes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from emulated import needs_arm
from gpu import needs_device
from torch import Tensor, nn
from torch.nn import functional

import patc
from patc.bench.emulator import run_program
from patc.diagnostics import PatcError

TOLERANCE = 1e-4  # of the largest output
SHAPE = (2, 8, 6, 10)

_Function = Callable[[Tensor], Any]


class Several(nn.Module):
    """Functions of one input, each alone or between two convolutions."""

    def __init__(self, functions: dict[str, _Function], *, between: bool) -> None:
        super().__init__()
        modules = {name: each for name, each in functions.items() if isinstance(each, nn.Module)}
        self.modules_by_name = nn.ModuleDict(modules)
        self.functions = {name: each for name, each in functions.items() if name not in modules}
        self.first = nn.Conv2d(8, 8, 3, padding=1) if between else nn.Identity()
        self.last = nn.ModuleDict({name: nn.LazyConv2d(4, 3, padding=1) for name in functions} if between else {})

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.first(x)
        made = [(name, self.modules_by_name[name](x)) for name in self.modules_by_name]
        made += [(name, function(x)) for name, function in self.functions.items()]
        return [self._finish(name, y) for name, y in made]

    def _finish(self, name: str, y: Tensor) -> Tensor:
        is_planes = name in self.last and y.dim() == 4 and y.is_floating_point()
        return self.last[name](y) if is_planes else y


def table(rows: int, columns: int) -> Tensor:
    return torch.linspace(-1.0, 1.0, rows * columns).reshape(rows, columns)


class Embed(nn.Module):
    """Looks up the rows of a table at the places of largest elements."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows(x.argmax(-1))


GROUPS: dict[str, dict[str, _Function]] = {
    "activations": {
        "silu": nn.SiLU(),
        "gelu": nn.GELU(),
        "gelu_tanh": nn.GELU(approximate="tanh"),
        "hardswish": nn.Hardswish(),
        "sigmoid": nn.Sigmoid(),
        "tanh": nn.Tanh(),
        "softplus": nn.Softplus(),
        "elu": nn.ELU(),
        "mish": nn.Mish(),
    },
    "norms": {
        "softmax": nn.Softmax(1),
        "softmax_rows": nn.Softmax(-1),
        "layer_norm": nn.LayerNorm((10,)),
        "layer_norm_planes": nn.LayerNorm((8, 6, 10)),
        "group_norm": nn.GroupNorm(2, 8),
        "instance_norm": nn.InstanceNorm2d(8, affine=True),
        "log_softmax": nn.LogSoftmax(1),
        "rms": lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6),
    },
    "means": {
        "all": lambda x: x.mean(),
        "batch": lambda x: x.mean(0),
        "channels": lambda x: x.mean((1,)),
        "rows": lambda x: x.mean(2, keepdim=True),
        "columns": lambda x: x.mean(-1),
        "planes": lambda x: x.mean((1, 3)),
        "sum": lambda x: x.sum((0, 2)),
        "maximum": lambda x: x.amax(1),
        "deviation": lambda x: x.std(1),
        "adaptive": nn.AdaptiveAvgPool2d((4, 3)),
    },
    "moves": {
        "concat": lambda x: torch.cat([x, x * 2.0, x[:, 1:3]], 1),
        "slice": lambda x: x[:, 1:7:2, 1:, ::3],
        "first": lambda x: x.index_select(3, torch.tensor([0, 1])),
        "permute": lambda x: x.permute(0, 2, 3, 1),
        "transpose": lambda x: x.transpose(2, 3),
        "pad": lambda x: functional.pad(x, (1, 2, 0, 1), value=0.5),
        "cut": lambda x: functional.pad(x, (-1, 2, 1, -2), value=0.5),
        "reflect": lambda x: functional.pad(x, (1, 2, 1, 1), mode="reflect"),
        "flip": lambda x: x.flip(2),
        "shuffle": nn.PixelShuffle(2),
        "unshuffle": nn.PixelUnshuffle(2),
        "shape": lambda x: x.reshape(4, 4, 6, 10),
        "stack": lambda x: torch.stack([x[:, 0], x[:, 3]], 1),
    },
    "resizes": {
        "nearest": nn.Upsample(scale_factor=2),
        "nearest_size": nn.Upsample(size=(9, 7)),
        "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
        "bilinear_corners": nn.Upsample(size=(9, 7), mode="bilinear", align_corners=True),
    },
    "products": {
        "batched": lambda x: x[0] @ x[1].transpose(1, 2),
        "attention": lambda x: functional.scaled_dot_product_attention(x, x, x),
        "flat": lambda x: x.flatten(1) @ x.flatten(1).T,
        "linear": lambda x: functional.linear(x, table(4, 10)),
        "transposed": nn.ConvTranspose2d(8, 4, 3, stride=2),
        "by_itself": lambda x: functional.conv2d(x, x[:, :, :3, :3]),
        "line": lambda x: functional.conv1d(x[:, :, 0], table(16, 9).reshape(6, 8, 3)),
    },
    "integers": {
        "argmax": lambda x: (x.argmax(1) + 1) * 2.0,
        "embedding": Embed(),
        "mask": lambda x: torch.where((x > 0.0) & ~(x > 1.0), x, x * 0.1),
        "remainder": lambda x: (x * 8.0).to(torch.int64) % 3 + x,
        "one_hot": lambda x: functional.one_hot(x.argmax(1), 8).permute(0, 3, 1, 2) * x,
        "count": lambda x: (x > 0.25).sum(1).to(torch.float32),
        # The gather reads a reshape of what is computed here.
        "gather": lambda x: torch.tanh(x).reshape(4, 4, 60).gather(2, x.argmax(1).reshape(2, 2, 30).repeat(2, 1, 1)),
    },
    "loops": {
        "largest": lambda x: x.topk(3, -1)[0],
        "sorted": lambda x: x.sort(1)[0],
        "running": lambda x: x.cumsum(2),
    },
}


def nets(group: str, *, between: bool) -> tuple[Several, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(SHAPE)
    net = Several(GROUPS[group], between=between).eval()
    with torch.no_grad():
        net(x)  # the last convolutions learn their channels
    for name in [name for name, layer in net.last.items() if isinstance(layer, nn.LazyConv2d)]:
        del net.last[name]  # what is before it makes no planes
    return net, x


def expected_results(net: Several, x: Tensor) -> list[np.ndarray]:
    """Return what PyTorch computes in float64."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            return [y.numpy() for y in copy.deepcopy(net).double()(x.double())]
    finally:
        torch.set_default_dtype(default)


def check(net: Several, results: Sequence[Any], expected: list[np.ndarray]) -> None:
    names = [*net.modules_by_name, *net.functions]
    for name, found, wanted in zip(names, results, expected, strict=True):
        array = np.asarray(found).reshape(wanted.shape)
        error = np.abs(array - wanted).max() / np.abs(wanted).max()
        assert error < TOLERANCE, f"{name}: {error:.1e}"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("between", [False, True], ids=["alone", "between"])
@pytest.mark.parametrize("group", GROUPS)
def test_computes_what_torch_computes(group: str, between: bool, threads: int) -> None:
    net, x = nets(group, between=between)
    model = patc.compile(net, (x,), threads=threads)
    check(net, model(x), expected_results(net, x))


@needs_arm
@pytest.mark.parametrize("group", ["activations", "norms", "integers", "loops"])
def test_aarch64_computes_the_same(group: str) -> None:
    net, x = nets(group, between=False)
    results = run_program(compile_for("aarch64-linux", net, x), [x.numpy()])
    check(net, results, expected_results(net, x))


@needs_arm
def test_half_precision_computes_the_rest_in_single() -> None:
    net, x = nets("activations", between=True)
    results = run_program(compile_for("aarch64-linux:cortex-a55", net, x, dtype="f16"), [x.numpy()])
    for found, wanted in zip(results, expected_results(net, x), strict=True):
        assert np.abs(found - wanted).max() < 2e-2 * np.abs(wanted).max()


def compile_for(target: str, net: nn.Module, x: Tensor, dtype: str = "f32") -> Any:
    return patc.compile(net, (x,), target=target, dtype=dtype).program


@pytest.mark.parametrize("threads", [1, 2])
def test_results_have_the_same_bits_for_any_number_of_threads(threads: int) -> None:
    x = torch.linspace(-3.0, 3.0, 64 * 1024).reshape(1, 4, 128, 128)
    net = nn.Sequential(nn.SiLU(), nn.Softmax(1), nn.LayerNorm((128,)))
    results = [np.asarray(patc.compile(net.eval(), (x,), threads=count)(x)) for count in (1, threads)]
    assert results[0].tobytes() == results[1].tobytes()


def test_sums_that_start_from_one_number_do_not_share_a_result() -> None:
    class Sums(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            total = x.sum(3)
            return total, total @ total, functional.gelu(total)

    x = torch.rand(1, 1, 1, 1, dtype=torch.float64) + 2
    torch.testing.assert_close(patc.compile(Sums().eval(), (x,))(x), Sums()(x))


def test_special_values() -> None:
    x = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1e-40, 88.8, -104.0, 3e38, -3e38, 1e30, 5e5])
    functions = {
        name: getattr(torch, name)
        for name in ("exp", "log", "log1p", "expm1", "tanh", "erf", "sin", "cos", "atan", "sinh", "cosh", "sigmoid")
    }
    net = Several(functions, between=False).eval()
    results = patc.compile(net, (x,), threads=1)(x)
    for name, found, y in zip(functions, results, net(x.double()), strict=True):
        wanted, array = y.float().numpy(), np.asarray(found)
        if name in ("sin", "cos"):  # of 1e30, which is many turns from its neighbours
            assert np.all(np.abs(array[np.isfinite(wanted)]) <= 1.0)
            array = np.where(np.abs(x.numpy()) > 1e15, wanted, array)
        np.testing.assert_allclose(array, wanted, rtol=1e-6, atol=1e-6, err_msg=name)


def sweeps() -> tuple[dict[str, _Function], Tensor]:
    """Return functions of rows of numbers, and the rows: ordinary numbers, pairs whose power is one, arguments."""
    random = np.random.default_rng(0)
    base = np.exp(random.uniform(-87.0, 87.0, 20000))
    base[::2] = random.uniform(0.5, 2.0, 10000)
    exponent = random.uniform(-86.0, 86.0, 20000) / np.log(base)
    line = np.linspace(-1.0, 1.0, 20000)
    rows = np.stack([base, exponent, 125.0 * line, 80.0 * line, 9.0 * line, 1e6 * line])
    functions: dict[str, _Function] = {
        "pow": lambda x: torch.pow(x[0], x[1]),
        "square": lambda x: torch.pow(x[2], 2),
        "seventh": lambda x: torch.pow(x[4], 7),
        "root": lambda x: torch.pow(x[0], -0.5),
        "decimal": lambda x: torch.pow(x[0], 0.4375),
        "log": lambda x: torch.log(x[0]),
        "exp2": lambda x: torch.exp2(x[2]),
        "exp": lambda x: torch.exp(x[3]),
        "erf": lambda x: torch.erf(x[4]),
        "tanh": lambda x: torch.tanh(x[4]),
        "sin": lambda x: torch.sin(x[5]),
        "cos": lambda x: torch.cos(x[5]),
        "sin_near": lambda x: torch.sin(x[4]),
        "sinh": lambda x: torch.sinh(x[3]),
        "atan": lambda x: torch.atan(x[4]),
    }
    return functions, torch.from_numpy(rows.astype(np.float32))


def check_sweeps(functions: dict[str, _Function], x: Tensor, results: Sequence[Any]) -> None:
    """Require 1e-6 of each number; where sines and cosines cross zero, of one."""
    for (name, function), result in zip(functions.items(), results, strict=True):
        wanted, found = function(x.double()).numpy(), np.asarray(result)
        slack = 1e-7 if name.startswith(("sin", "cos")) else 1e-37  # subnormal numbers have fewer bits
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=slack, err_msg=name)


def test_elementary_functions_within_a_millionth() -> None:
    functions, x = sweeps()
    check_sweeps(functions, x, patc.compile(Several(functions, between=False).eval(), (x,), threads=1)(x))


# On whole tensors, without linalg. torch-mlir does not know this function, but MLIR does.
ERFC = """
func.func @main(%x: tensor<20000xf32>) -> tensor<20000xf32> {
  %one = arith.constant dense<1.0> : tensor<20000xf32>
  %y = math.erfc %x : tensor<20000xf32>
  %z = arith.mulf %y, %one : tensor<20000xf32>
  return %z : tensor<20000xf32>
}
"""


@pytest.mark.parametrize("target", ["host", pytest.param("spirv-vulkan", marks=needs_device)])
def test_complementary_error_function(target: str) -> None:
    x = np.linspace(-6.0, 11.0, 20000, dtype=np.float32)
    x[:4] = math.nan, math.inf, -math.inf, -0.0
    (found,) = patc.run_module(ERFC, inputs=[x], target=target)
    np.testing.assert_allclose(found, torch.erfc(torch.from_numpy(x).double()), rtol=1e-6, atol=1e-37)


@needs_arm
def test_elementary_functions_within_a_millionth_on_aarch64() -> None:
    functions, x = sweeps()
    x = x[:, ::40].contiguous()
    net = Several(functions, between=False).eval()
    check_sweeps(functions, x, run_program(compile_for("aarch64-linux", net, x), [x.numpy()]))


@needs_device
def test_elementary_functions_within_a_millionth_on_gpus() -> None:
    functions, x = sweeps()
    check_sweeps(functions, x, patc.compile(Several(functions, between=False).eval(), (x,), target="spirv-vulkan")(x))


def powers() -> tuple[dict[str, _Function], Tensor]:
    special = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 2.5, -1.5]
    special += [3e38, -3e38, 2.0**24 + 2, 2.0**23 + 1, -(2.0**23) - 1, 1 - 2.0**-24, 1 + 2.0**-23]
    x = torch.cartesian_prod(torch.tensor(special), torch.tensor(special)).T.contiguous()
    constants = (0.0, 1.0, 2.0, 3.0, -1.0, -3.0, 0.5, -0.5, 1.5, -2.5, 9.0, -11.0, 0.3125, math.inf, -math.inf)
    functions: dict[str, _Function] = {"pow": lambda x: torch.pow(x[0], x[1])}
    return functions | {f"to_{y}": lambda x, y=y: torch.pow(x[0], y) for y in constants}, x


def check_powers(functions: dict[str, _Function], x: Tensor, results: Sequence[Any]) -> None:
    """Require numbers within 1e-6, NaN and infinities where PyTorch has them, and the signs of zeros."""
    for (name, function), found in zip(functions.items(), results, strict=True):
        wanted = function(x.double()).float().numpy()
        np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-6, atol=1e-37, err_msg=name)
        is_zero = wanted == 0.0
        np.testing.assert_array_equal(np.signbit(found)[is_zero], np.signbit(wanted)[is_zero], err_msg=name)


@pytest.mark.parametrize("target", ["host", pytest.param("spirv-vulkan", marks=needs_device)])
def test_powers_of_special_values(target: str) -> None:
    functions, x = powers()
    check_powers(functions, x, patc.compile(Several(functions, between=False).eval(), (x,), target=target)(x))


def test_a_profile_says_what_took_this_road() -> None:
    # Over columns: differences and quotients with a map or gates are layers.
    net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Softmax(3), nn.Conv2d(8, 8, 3)).eval()
    x = torch.randn(SHAPE)
    model = patc.compile(net, (x,), threads=1)
    (remark,) = [each for each in model.diagnostics if "computed as any linalg is" in each.message]
    total = sum(layer.predicted_cycles for layer in model.layers)
    own = sum(layer.predicted_cycles for layer in model.layers if layer.op == "generic")
    share = f"{own / total:.0%} of the modelled cycles"
    assert remark.message == f"computed as any linalg is, {share}: aten.softmax.int (1)"
    generic = [time for time in model.profile(x, repetitions=1) if time.layer.op == "generic"]
    assert [time.layer.name for time in generic] == ["1"]
    assert generic[0].seconds > 0.0
    assert generic[0].layer.explanation is not None
    assert "computes aten.softmax.int (1)" in generic[0].layer.explanation.notes


def test_places_outside_a_table_read_what_is_nearest() -> None:
    net = Several({"rows": lambda x: table(4, 3)[x.to(torch.int64)]}, between=False).eval()
    x = torch.tensor([0.0, 3.0, 9.0, 1e6])
    (found,) = patc.compile(net, (x,), threads=1)(x)
    np.testing.assert_array_equal(np.asarray(found), table(4, 3)[[0, 3, 3, 3]].numpy())


@needs_device
@pytest.mark.parametrize("between", [False, True], ids=["alone", "between"])
@pytest.mark.parametrize("group", [group for group in GROUPS if group != "loops"])
def test_gpus_compute_the_same(group: str, between: bool) -> None:
    net, x = nets(group, between=between)
    model = patc.compile(net, (x,), target="spirv-vulkan")
    check(net, model(x), expected_results(net, x))


def test_loops_whose_turns_depend_on_each_other_are_refused_for_gpus() -> None:
    net, x = nets("loops", between=False)
    with pytest.raises(PatcError) as caught:
        patc.compile(net, (x,), target="spirv-vulkan")
    (line,) = str(caught.value).splitlines()
    assert "target 'spirv-vulkan' cannot compute: aten.topk.default" in line
    assert "aten.sort.default" in line and "aten.cumsum.default" in line
