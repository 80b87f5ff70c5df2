"""Convolutions of every kind compute what PyTorch computes: all parameters, on small tensors, on every target."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

import pytest
import torch
from emulated import compile_emulated, needs_arm, needs_linker
from gpu import needs_device
from helpers import assert_close, layer_ops, raised_model, torch_results
from torch import Tensor, nn

import patc
from patc.codegen.reference import execute
from patc.passes.pattern_outline import PatternOutline

LAYERS_A_NET = 5


class Branches(nn.Module):
    """Several layers of one input."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(x) for layer in self.layers]


def random_lines(channels: int, size: int, choices: random.Random) -> nn.Module:
    """Return a 1-D convolution that fits lines of a size, with what comes after one in a net."""
    groups = choices.choice([1, 1, 2, channels])
    filters = groups * choices.randint(1, 3)
    kernel, dilation = choices.choice([1, 2, 3, 4, 9]), choices.choice([1, 1, 2])
    padding = choices.randint((max(0, dilation * (kernel - 1) + 1 - size) + 1) // 2, kernel * dilation)
    mode = choices.choice(["zeros", "zeros", "zeros", "replicate"])
    convolution = nn.Conv1d(
        channels,
        filters,
        kernel,
        stride=choices.choice([1, 1, 2, 3]),
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=choices.random() < 0.7,
        padding_mode=mode,
    )
    after: list[nn.Module] = choices.choice([
        [],
        [nn.ReLU()],
        [nn.BatchNorm1d(filters), nn.ReLU6()],
        [nn.BatchNorm1d(filters), nn.Conv1d(filters, 3, 3, padding=1), nn.MaxPool1d(3, 1, 1)],
        [nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()],
        [nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(filters, 2, 3)],
        [nn.SiLU(), nn.Conv1d(filters, 2, 1)],
    ])  # fmt: skip
    return nn.Sequential(convolution, *after)


def random_case(
    build: Callable[[int, int, random.Random], nn.Module], dimensions: int, seed: int
) -> tuple[nn.Module, Tensor]:
    choices = random.Random(seed)
    torch.manual_seed(seed)
    channels, size = 2 * choices.randint(1, 4), choices.randint(3, 40 // dimensions)
    layers = [build(channels, size, choices) for _ in range(LAYERS_A_NET)]
    model = Branches(layers).eval()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return model, torch.randn(choices.choice([1, 3]), channels, *[size] * dimensions)


@pytest.mark.parametrize("seed", range(4))
def test_random_lines(seed: int) -> None:
    model, x = random_case(random_lines, 1, seed)
    wanted = torch_results(model, [x])
    module, state = raised_model(model, [x])
    assert_close(execute(module, state.parameters, [x.numpy()]), wanted)
    assert_close([y.numpy() for y in patc.compile(model, (x,))(x)], wanted)


@needs_device
@pytest.mark.parametrize("seed", [100])
def test_random_lines_on_a_gpu(seed: int) -> None:
    model, x = random_case(random_lines, 1, seed)
    found = patc.compile(model, (x,), target="spirv-vulkan")(x)
    assert_close([y.numpy() for y in found], torch_results(model, [x]))


class Residual(nn.Module):
    """A block of a 1-D net: all that follows its convolutions is fused into them."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(8, 8, 5, padding=2, groups=8, bias=False)
        self.norm = nn.BatchNorm1d(8)
        self.pointwise = nn.Conv1d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.norm(self.depthwise(x)).relu()).add(x).relu().mean(-1)


def test_what_follows_1d_convolutions_is_fused() -> None:
    model, x = Residual().eval(), torch.randn(2, 8, 20)
    module, state = raised_model(model, [x])
    names = [op.operation.name for op in layer_ops(module) if "_shape" not in op.operation.name]
    assert names == ["pattern.conv2d", "pattern.conv2d", "pattern.avg_pool2d"]
    assert_close(execute(module, state.parameters, [x.numpy()]), torch_results(model, [x]))


def random_transposed(channels: int, size: int, choices: random.Random, planes: bool = True) -> nn.Module:
    """Return a transposed convolution and what comes after one in a net."""
    groups = choices.choice([1, 1, 1, 2, channels])
    filters = groups * choices.randint(1, 3)
    axes = 2 if planes else 1
    kernel, stride, dilation, padding, further = ([], [], [], [], [])
    for _ in range(axes):
        kernel.append(choices.choice([1, 2, 3, 4, 5]))
        stride.append(choices.choice([1, 2, 2, 2, 3, 4]))
        dilation.append(choices.choice([1, 1, 1, 2, 3]))
        reach = dilation[-1] * (kernel[-1] - 1)
        padding.append(choices.randint(0, min(reach, ((size - 1) * stride[-1] + reach) // 2)))
        further.append(choices.randint(0, max(stride[-1], dilation[-1]) - 1))
    kind = nn.ConvTranspose2d if planes else nn.ConvTranspose1d
    options = {"output_padding": further, "groups": groups, "bias": choices.random() < 0.7, "dilation": dilation}
    layer = kind(channels, filters, kernel, stride, padding, **options)
    norm, pool = (nn.BatchNorm2d, nn.AdaptiveAvgPool2d(1)) if planes else (nn.BatchNorm1d, nn.AdaptiveAvgPool1d(1))
    after = choices.choice([[], [nn.ReLU()], [norm(filters), nn.ReLU6()], [nn.ReLU(), pool]])
    return nn.Sequential(layer, *after)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("axes", [1, 2])
def test_random_transposed(seed: int, axes: int) -> None:
    model, x = random_case(functools.partial(random_transposed, planes=axes == 2), axes, seed)
    wanted = torch_results(model, [x])
    module, state = raised_model(model, [x])
    assert_close(execute(module, state.parameters, [x.numpy()]), wanted, bound=1e-4)
    assert_close([y.numpy() for y in patc.compile(model, (x,))(x)], wanted, bound=1e-4)


@needs_device
def test_random_transposed_on_a_gpu() -> None:
    model, x = random_case(random_transposed, 2, 200)
    found = patc.compile(model, (x,), target="spirv-vulkan")(x)
    assert_close([y.numpy() for y in found], torch_results(model, [x]), bound=1e-4)


def random_volume(channels: int, size: int, choices: random.Random) -> nn.Module:
    """Return a 3-D convolution that fits volumes of a size."""
    groups = choices.choice([1, 1, 2, channels])
    kernel, dilation, padding = [], [], []
    for _ in range(3):
        kernel.append(choices.choice([1, 2, 3, 3]))
        dilation.append(choices.choice([1, 1, 2]))
        reach = dilation[-1] * (kernel[-1] - 1)
        padding.append(choices.randint(max(0, (reach + 2 - size) // 2), reach))
    stride = [choices.choice([1, 1, 2]) for _ in range(3)]
    if choices.random() < 0.3:
        kernel[1:], stride[1:], padding[1:] = [1, 1], [1, 1], [0, 0]
    options = {"dilation": dilation, "groups": groups, "bias": choices.random() < 0.7}
    layer: nn.Module = nn.Conv3d(channels, groups * choices.randint(1, 2), kernel, stride, padding, **options)
    if choices.random() < 0.2:
        layer = nn.ConvTranspose3d(channels, 2, choices.randint(1, 3), choices.randint(1, 2))
    pool = nn.MaxPool3d((2, 1, 3), (2, 1, 1), (1, 0, 1), ceil_mode=choices.random() < 0.5)
    return nn.Sequential(layer, *choices.choice([[], [nn.ReLU()], [pool]]))


@pytest.mark.parametrize("seed", range(3))
def test_random_volumes(seed: int) -> None:
    model, x = random_case(random_volume, 3, seed)
    assert_close([y.numpy() for y in patc.compile(model, (x,))(x)], torch_results(model, [x]))


def test_volumes_become_planes() -> None:
    """Those of files, too: what they have is linalg of three dimensions."""
    model = nn.Sequential(nn.Conv3d(2, 3, 3, 2, (1, 0, 2)), nn.Conv3d(3, 4, (3, 1, 1))).eval()
    x = torch.randn(2, 2, 13, 9, 10)
    module, state = raised_model(model, [x])
    names = [op.operation.name for op in layer_ops(module)]
    found = [name for name in names if name.startswith("pattern.")]
    assert found == ["pattern.conv2d"] * 4
    assert_close(execute(module, state.parameters, [x.numpy()]), torch_results(model, [x]))


def pruned(layer: nn.Module, entries: int, patterns: int = 6) -> nn.Module:
    """Keep the entries of a few random patterns in two kernels of five."""
    weight = layer.weight.data
    taps = weight[0, 0].numel()
    masks = torch.stack([torch.randperm(taps) < entries for _ in range(patterns)])
    kept = masks[torch.randint(patterns, weight.shape[:2])] & (torch.rand(weight.shape[:2]) < 0.4)[..., None]
    weight *= kept.reshape(weight.shape)
    return layer


@pytest.mark.parametrize("axes", [1, 2])
def test_kernels_of_all_kinds_have_patterns(axes: int) -> None:
    torch.manual_seed(0)
    if axes == 1:
        layers = [pruned(nn.Conv1d(16, 16, 9, padding=4), 4), pruned(nn.ConvTranspose1d(16, 16, 8, 2, 3), 6)]
    else:
        layers = [
            pruned(nn.Conv2d(16, 16, 5, padding=2), 5),
            pruned(nn.Conv2d(16, 16, 7, padding=3), 5),
            pruned(nn.ConvTranspose2d(16, 16, 4, 2, 1), 8, 4),
            pruned(nn.ConvTranspose2d(16, 16, 5, 1, 2), 5),
        ]
    model, x = Branches(layers).eval(), torch.randn(1, 16, *[12] * axes)
    compiled = patc.compile(model, (x,))
    assert {layer.op for layer in compiled.layers if "conv" in layer.op} == {"sparse_conv2d"}
    assert_close([y.numpy() for y in compiled(x)], torch_results(model, [x]))


@pytest.mark.parametrize(("size", "dilation", "pad"), [((12, 13), 2, 2), ((20, 22), 3, 0), ((13, 19), 2, 4)])
def test_places_of_wide_dilated_layers_are_images_of_their_own(size: tuple[int, int], dilation: int, pad: int) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(256, 256, 3, padding=pad, dilation=dilation, bias=False), nn.BatchNorm2d(256), nn.ReLU()]
    model, x = nn.Sequential(*layers).eval(), torch.randn(2, 256, *size)
    module, state = raised_model(model, [x])
    (layer,) = [op for op in layer_ops(module) if op.operation.name == "pattern.conv2d"]
    assert list(layer.dilations) == [1, 1]
    assert layer.input.type.shape[0] == 2 * dilation**2
    wanted = torch_results(model, [x])
    assert_close(execute(module, state.parameters, [x.numpy()]), wanted)
    assert_close([patc.compile(model, (x,))(x).numpy()], wanted)


def test_pruned_dilated_layers_stay() -> None:
    layer = pruned(nn.Conv2d(256, 256, 3, padding=2, dilation=2), 4)
    module, _ = raised_model(layer.eval(), [torch.randn(1, 256, 12, 12)])
    assert "dilations = array<i64: 2, 2>" in str(module)


@needs_arm
@needs_linker
@pytest.mark.parametrize("axes", [1, 2])
def test_kinds_on_an_emulated_core(axes: int) -> None:
    torch.manual_seed(1)
    lines = [nn.Conv1d(4, 6, 5, 2, 3, groups=2), nn.ConvTranspose1d(4, 3, 4, 2, 1)]
    planes = [nn.ConvTranspose2d(4, 5, 3, 2, 1, 1), nn.ConvTranspose2d(4, 4, 4, 2, 1, groups=4)]
    model, x = Branches(lines if axes == 1 else planes).eval(), torch.randn(1, 4, *[9] * axes)
    module, state = raised_model(model, [x])
    PatternOutline().run(module, state)
    assert_close(compile_emulated(module, state.parameters)(x.numpy()), torch_results(model, [x]))
