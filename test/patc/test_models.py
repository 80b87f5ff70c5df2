"""patc.models: torchvision's names and shapes, seeded initialisation, checkpoints and their errors."""

from __future__ import annotations

import functools
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from patc.checkpoints import read_checkpoint
from patc.diagnostics import PatcError
from patc.models import MODELS, build, mobilenet_v2, resnet18, resnet18_cifar, vgg16_cifar

PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "mobilenet_v2": 3_504_872,
    "resnet18_cifar": 11_173_962,
    "vgg16_cifar": 14_728_266,
}

# Place in the state dict, name and shape, as torchvision 0.29 has them.
ENTRIES: dict[str, list[tuple[int, str, tuple[int, ...]]]] = {
    "resnet18": [
        (0, "conv1.weight", (64, 3, 7, 7)),
        (5, "bn1.num_batches_tracked", ()),
        (6, "layer1.0.conv1.weight", (64, 64, 3, 3)),
        (42, "layer2.0.downsample.0.weight", (128, 64, 1, 1)),
        (47, "layer2.0.downsample.1.num_batches_tracked", ()),
        (121, "fc.bias", (1000,)),
    ],
    "resnet50": [
        (6, "layer1.0.conv1.weight", (64, 64, 1, 1)),
        (12, "layer1.0.conv2.weight", (64, 64, 3, 3)),
        (18, "layer1.0.conv3.weight", (256, 64, 1, 1)),
        (24, "layer1.0.downsample.0.weight", (256, 64, 1, 1)),
        (318, "fc.weight", (1000, 2048)),
    ],
    "vgg16": [
        (0, "features.0.weight", (64, 3, 3, 3)),
        (25, "features.28.bias", (512,)),
        (26, "classifier.0.weight", (4096, 25088)),
        (31, "classifier.6.bias", (1000,)),
    ],
    "vgg16_bn": [
        (2, "features.1.weight", (64,)),
        (84, "features.40.weight", (512, 512, 3, 3)),
        (96, "classifier.6.bias", (1000,)),
    ],
    "mobilenet_v2": [
        (0, "features.0.0.weight", (32, 3, 3, 3)),
        (6, "features.1.conv.0.0.weight", (32, 1, 3, 3)),
        (12, "features.1.conv.1.weight", (16, 32, 1, 1)),
        (18, "features.2.conv.0.0.weight", (96, 16, 1, 1)),
        (306, "features.18.0.weight", (1280, 320, 1, 1)),
        (312, "classifier.1.weight", (1000, 1280)),
    ],
    "resnet18_cifar": [(0, "conv1.weight", (64, 3, 3, 3)), (120, "fc.weight", (10, 512))],
    "vgg16_cifar": [
        (84, "features.40.weight", (512, 512, 3, 3)),
        (91, "classifier.weight", (10, 512)),
    ],
}


@pytest.mark.parametrize("name", MODELS)
def test_names_shapes_order_and_counts_are_torchvisions(name: str) -> None:
    model = _structure(name)
    state = list(model.state_dict().items())
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    for place, entry, shape in ENTRIES[name]:
        assert (state[place][0], tuple(state[place][1].shape)) == (entry, shape)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "resnet18_cifar", "vgg16_cifar"])
def test_activations_keep_their_scale_and_depend_on_the_input(name: str) -> None:
    model, shape = build(name), MODELS[name].input_shape
    assert not model.training
    scales: list[float] = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _m, _i, out: scales.append(float(out.square().mean().sqrt())))
    first, second = _outputs(model, shape, 1), _outputs(model, shape, 2)
    assert first.shape == (1, 10 if name.endswith("cifar") else 1000)
    assert min(scales) > 0.1 and max(scales) < 30
    assert (first - second).abs().max() > 1e-2 * first.abs().max()


def test_batch_norm_is_far_from_the_identity() -> None:
    for module in vgg16_cifar().modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None and module.running_mean is not None
            assert module.running_var.std() > 0.2 and module.running_var.min() > 0.01
            assert module.running_mean.std() > 0.1
            assert module.weight.std() > 0.1 and module.bias.std() > 0.1


def test_seed_decides_the_weights() -> None:
    assert _equal(resnet18_cifar(seed=3), resnet18_cifar(seed=3))
    assert not _equal(resnet18_cifar(seed=3), resnet18_cifar(seed=4))
    assert _equal(build("resnet18_cifar", seed=3), resnet18_cifar(seed=3))


def test_global_generator_is_neither_read_nor_changed() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = mobilenet_v2()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert _equal(first, mobilenet_v2())


def test_number_of_classes_sets_the_last_layer() -> None:
    assert mobilenet_v2(num_classes=7).state_dict()["classifier.1.weight"].shape == (7, 1280)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18_cifar", "vgg16_cifar"])
def test_models_export(name: str) -> None:
    model, shape = build(name), MODELS[name].input_shape
    exported = torch.export.export(model, (torch.zeros(shape),)).module()
    assert torch.equal(_outputs(exported, shape, 1), _outputs(model, shape, 1))


@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors"])
def test_weights_survive_a_round_trip(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    saved = mobilenet_v2(seed=5, num_classes=10)
    (save_file if suffix == "safetensors" else torch.save)(saved.state_dict(), path)
    loaded = mobilenet_v2(path, num_classes=10)
    assert _equal(saved, loaded) and not loaded.training
    assert _equal(saved, mobilenet_v2(str(path), num_classes=10))


def test_checkpoint_from_before_batches_were_counted_loads(tmp_path: Path) -> None:
    saved = mobilenet_v2(seed=5)
    state = {k: v for k, v in saved.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    assert _equal(saved, mobilenet_v2(tmp_path / "old.pth"))


def test_unknown_model_lists_the_names_and_the_nearest() -> None:
    with pytest.raises(PatcError, match=r"resnet18, .*vgg16_cifar; found 'resnet81'; did you mean 'resnet18'"):
        build("resnet81")


def _write_nothing(path: Path) -> None:
    pass


def _write_truncated(path: Path) -> None:
    torch.save(mobilenet_v2().state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])


def _write_truncated_safetensors(path: Path) -> None:
    save_file(mobilenet_v2().state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])


def _write_other_network(path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)).state_dict(), path)


def _write_other_classes(path: Path) -> None:
    torch.save(mobilenet_v2(num_classes=10).state_dict(), path)


def _write_call(path: Path) -> None:
    """Write what would make a folder."""

    class Call:
        def __reduce__(self) -> object:
            return os.mkdir, (f"{path}.called",)

    torch.save(Call(), path)


def _write_compressed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"N" * 100_000)


_ODD_TENSORS = (
    (3, torch.zeros(1), "3 as a name"),
    ("a", torch.eye(2).to_sparse(), r"'a' sparse: save its to_dense\(\)"),
    ("a", torch.zeros(1, device="meta"), "'a' without values, on the meta device"),
    ("a", torch.zeros(1, dtype=torch.complex64), "'a' of complex64"),
    ("classifier.1.bias", torch.zeros(1).expand(1 << 40), "'classifier.1.bias' with more elements than the file has"),
    ("classifier.1.bias", torch.zeros(1000, dtype=torch.int8), "int8"),
)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # of torch, about its older types
@pytest.mark.parametrize(
    ("file", "write", "message"),
    [
        ("absent.pth", _write_nothing, "expected a state dict file, found no such file"),
        ("folder.pth", Path.mkdir, "expected a state dict file, found a folder"),
        ("model.h5", Path.touch, r"expected a file named \.pth, .* or \.safetensors, found '\.h5'"),
        ("empty.pth", Path.touch, "expected a readable state dict, found: damaged data, or another format"),
        ("cut.pth", _write_truncated, "expected a readable state dict, found: "),
        ("cut.safetensors", _write_truncated_safetensors, "expected a readable state dict, found: "),
        ("text.pt", lambda path: path.write_text("hello"), "expected a readable state dict, found: "),
        (
            "whole.pt",
            lambda path: torch.save(nn.ReLU(), path),
            r"expected a state dict, found a pickled 'torch\.nn\.modules\.activation\.ReLU': save model\.state_dict\(\), or --trust",
        ),
        ("script.pt", lambda path: torch.jit.script(nn.ReLU()).save(path), "found a TorchScript archive: save model"),
        ("call.pth", _write_call, "expected a state dict, found a pickled 'posix.mkdir': save model"),
        ("csr.pth", lambda path: torch.save({"a": torch.eye(2).to_sparse_csr()}, path), "'a' sparse: save"),
        (
            "qint8.pth",
            lambda path: torch.save({"a": torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.qint8)}, path),
            "'a' of qint8",
        ),
        ("bomb.pth", _write_compressed, "expected stored entries, found 'data.pkl' compressed"),
        ("pipe.pth", os.mkfifo, "expected a state dict file, found a pipe, device or socket"),
        ("pipe.safetensors", os.mkfifo, "expected a state dict file, found a pipe, device or socket"),
        *(
            (f"{i}.pth", functools.partial(torch.save, {name: tensor}), f"expected .*, found {found}")
            for i, (name, tensor, found) in enumerate(_ODD_TENSORS)
        ),
        ("list.pt", lambda path: torch.save([1], path), "expected a state dict, found a list"),
        (
            "wrapped.pt",
            lambda path: torch.save({"epoch": 3}, path),
            "expected a state dict of tensors, found 'epoch' holding int",
        ),
        (
            "other.pth",
            _write_other_network,
            r"expected the 314 entries of MobileNetV2; missing 'features\.0\.0\.weight', .* and 259 more; "
            r"unexpected '0\.weight', '0\.bias'",
        ),
        ("ten.pth", _write_other_classes, "expected 'classifier.1.weight' of shape 1000x1280, found 10x1280"),
    ],
)
def test_bad_weights_give_one_line_with_the_file(
    tmp_path: Path, file: str, write: Callable[[Path], object], message: str
) -> None:
    write(tmp_path / file)
    with pytest.raises(PatcError, match=message) as error:
        mobilenet_v2(tmp_path / file)
    assert str(error.value).startswith(str(tmp_path / file))
    assert "\n" not in str(error.value)
    assert not (tmp_path / f"{file}.called").exists()


def test_trusted_files_may_hold_a_module(tmp_path: Path) -> None:
    saved = mobilenet_v2(seed=5, num_classes=10)
    torch.save(saved, tmp_path / "whole.pth")
    state = read_checkpoint(tmp_path / "whole.pth", trust_pickle=True).state
    assert _equal(saved, build("mobilenet_v2", state))
    with pytest.raises(PatcError, match=r"^expected 'classifier\.1\.weight' of shape 1000x1280, found 10x1280"):
        mobilenet_v2(state)


def test_error_of_surplus_entries_says_that_none_is_missing(tmp_path: Path) -> None:
    state = {**mobilenet_v2().state_dict(), "head.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "more.pth")
    with pytest.raises(PatcError, match=r"missing none; unexpected 'head\.weight'$"):
        mobilenet_v2(tmp_path / "more.pth")


def test_resnet18_stem_and_stages_have_the_strides_of_imagenet() -> None:
    model = resnet18(num_classes=3)
    sizes: list[int] = []
    for child in model.children():
        child.register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[-1]))
    _outputs(model, (1, 3, 224, 224), 0)
    #     conv1, bn1, relu, maxpool, four stages, avgpool, fc
    assert sizes == [112, 112, 112, 56, 56, 28, 14, 7, 1, 3]


def _structure(name: str) -> nn.Module:
    """Build a model on the meta device: VGG-16's weights alone would take half a gigabyte."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("patc.models._initialise", lambda model, seed: None)
        patch.setattr(nn.Module, "to_empty", lambda module, device: module)
        return build(name)


def _outputs(model: nn.Module, shape: tuple[int, ...], seed: int) -> Tensor:
    with torch.no_grad():
        return model(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def _equal(left: nn.Module, right: nn.Module) -> bool:
    pairs = zip(left.state_dict().items(), right.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
