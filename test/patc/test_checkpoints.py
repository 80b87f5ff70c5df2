"""Checkpoints of training loops: which of their entries are the weights, and whose names they have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from patc.checkpoints import Checkpoint, load_checkpoint, read_checkpoint, safetensors_bytes
from patc.diagnostics import PatcError
from patc.models import build
from patc.tools import patc


def _net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def _equal(left: nn.Module, right: nn.Module) -> bool:
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def _prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("others", "entry"),
    [
        ({"epoch": 3, "best_acc": 71.2, "args": "lr=0.1"}, "model"),
        ({"epoch": 3}, "state_dict"),
        ({"iteration": 9, "loss": 0.1}, "model_state_dict"),
        ({}, "params"),
        ({"step": 4}, "generator"),
    ],
)
def test_weights_beside_the_state_of_training_are_found(tmp_path: Path, others: dict[str, object], entry: str) -> None:
    net, twin = _net(1), _net(2)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    torch.save({**others, entry: net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "last.pth")
    found = read_checkpoint(tmp_path / "last.pth")
    assert (found.entry, found.others) == (entry, ())
    load_checkpoint(twin, found)
    assert _equal(net, twin)


@pytest.mark.parametrize("name", ["last.pt", "epoch=3.ckpt", "pytorch_model.bin", "model_best.pth.tar", "LAST.PTH"])
def test_files_are_named_as_training_loops_name_them(tmp_path: Path, name: str) -> None:
    net, twin = _net(1), _net(2)
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, tmp_path / name)
    load_checkpoint(twin, read_checkpoint(tmp_path / name))
    assert _equal(net, twin)


def test_a_file_of_another_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"x")
    with pytest.raises(PatcError, match=r"model.h5: expected a file named .pth, .pt, .* or .safetensors, found '.h5'$"):
        read_checkpoint(tmp_path / "model.h5")


@pytest.mark.parametrize("entry", ["model_ema", "state_dict_ema", "params_ema", "ema", "ema_state_dict"])
def test_averaged_weights_come_first_and_the_others_are_named(tmp_path: Path, entry: str) -> None:
    net, twin = _net(1), _net(2)
    torch.save({"model": twin.state_dict(), entry: net.state_dict()}, tmp_path / "last.pth")
    found = read_checkpoint(tmp_path / "last.pth")
    load_checkpoint(twin, found)
    assert _equal(net, twin)
    assert str(found) == f"{tmp_path / 'last.pth'}: weights of '{entry}'; 'model' left alone"


def test_several_unknown_entries_are_refused(tmp_path: Path) -> None:
    torch.save({"teacher": _net().state_dict(), "student": _net().state_dict()}, tmp_path / "two.pth")
    with pytest.raises(
        PatcError, match=r"expected one state dict, found 2: 'teacher', 'student'; save the one to take$"
    ):
        read_checkpoint(tmp_path / "two.pth")


@pytest.mark.parametrize("prefix", ["module.", "model.", "module._orig_mod.", "net.backbone."])
def test_prefixes_of_wrappers_go_with_what_else_the_wrappers_hold(prefix: str) -> None:
    net, twin = _net(1), _net(2)
    state = {**_prefixed(prefix, net.state_dict()), "n_averaged": torch.tensor(7), "criterion.weight": torch.ones(2)}
    load_checkpoint(twin, Checkpoint(state))
    assert _equal(net, twin)


def test_compiled_parts_have_the_names_of_the_model() -> None:
    net, twin = _net(1), _net(2)
    net[3] = torch.compile(net[3])
    assert "3._orig_mod.weight" in net.state_dict()
    load_checkpoint(twin, Checkpoint(net.state_dict()))
    assert torch.equal(twin[3].weight, net[3].weight)


def test_a_part_of_the_names_is_no_prefix() -> None:
    """Neither are names changed nor weights loaded where a prefix does not make all of them fit."""
    net, twin = _net(1), _net(2)
    state = _prefixed("module.", net.state_dict())
    del state["module.3.bias"]
    with pytest.raises(
        PatcError, match=r"expected the 9 entries of Sequential; missing '0.weight', .*unexpected 'module"
    ):
        load_checkpoint(twin, Checkpoint(state))
    assert _equal(twin, _net(2))


def test_networks_by_name_count_the_classes_of_a_checkpoint(tmp_path: Path) -> None:
    saved = build("resnet18_cifar", seed=3)
    torch.save({"epoch": 1, "state_dict": _prefixed("module.", saved.state_dict())}, tmp_path / "last.pt")
    assert _equal(saved, build("resnet18_cifar", tmp_path / "last.pt"))


def test_prune_says_which_entry_it_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = build("resnet18_cifar").state_dict()
    torch.save({"epoch": 1, "model": state, "model_ema": state}, tmp_path / "last.pt")
    assert patc.main(["prune", "resnet18_cifar", "--weights", str(tmp_path / "last.pt"), "--compression", "8"]) == 0
    assert f"{tmp_path / 'last.pt'}: weights of 'model_ema'; 'model' left alone" in capsys.readouterr().out


def test_weights_that_layers_share_are_written_one_by_one(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    (tmp_path / "tied.safetensors").write_bytes(safetensors_bytes(net.state_dict()))
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    load_checkpoint(other, read_checkpoint(tmp_path / "tied.safetensors"))
    assert _equal(net, other)
