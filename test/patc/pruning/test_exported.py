"""Programs of torch.export are pruned as the modules are that they were exported from."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from patc import pruning
from patc.diagnostics import PatcError
from patc.frontend.pt2 import load_program
from patc.pruning.exported import prune_program_
from patc.tools.patc import main


class Net(nn.Module):
    """Convolutions of all kinds, one of them used twice, and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.twice = nn.Conv2d(16, 16, 3, padding="same")
        self.point = nn.Conv2d(16, 32, 1, stride=2)
        self.depth = nn.Conv2d(32, 32, 3, groups=32)
        self.up = nn.ConvTranspose2d(32, 8, 4, 2)
        self.fc = nn.Linear(8, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.twice(self.stem(x)))
        return self.fc(self.up(self.depth(self.point(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    model, path = Net().eval(), tmp_path_factory.mktemp("exported") / "net.pt2"
    torch.export.save(torch.export.export(model, (torch.zeros(1, 3, 12, 12),)), path)
    return model, path


@pytest.mark.parametrize(
    "target",
    [
        pruning.PatternSpec(connectivity=2.0, pointwise="groups", depthwise="pattern"),
        pruning.PatternSpec(connectivity=2.0, kernels="all"),
        pruning.Plan([("*", pruning.Block(8))], rate=2.0),
    ],
)
def test_programs_are_pruned_as_their_modules(
    file: tuple[nn.Module, Path], target: pruning.PatternSpec | pruning.Plan
) -> None:
    module, path = copy.deepcopy(file[0]), file[1]
    program = load_program(path)
    found, wanted = prune_program_(program, target), pruning.prune_(module, target)
    assert found == wanted
    state = module.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in program.state_dict.items())


def test_the_command_saves_programs_and_their_weights(file: tuple[nn.Module, Path], tmp_path: Path) -> None:
    x, (module, path) = torch.randn(1, 3, 12, 12), file
    for name in ("pruned.pt2", "pruned.pth"):
        assert main(["prune", str(path), "--connectivity", "2", "-o", str(tmp_path / name)]) == 0
    pruned = copy.deepcopy(module)
    pruning.prune_(pruned, pruning.PatternSpec(connectivity=2.0))
    assert torch.equal(load_program(tmp_path / "pruned.pt2").module()(x), pruned(x))
    module = copy.deepcopy(module)
    module.load_state_dict(torch.load(tmp_path / "pruned.pth", weights_only=True))
    assert torch.equal(module(x), pruned(x))


def test_programs_cannot_be_trained(file: tuple[nn.Module, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", str(file[1]), "--connectivity", "2", "--data", "digits"]) == 1
    assert "expected the name of a model together with --data, got a program" in capsys.readouterr().err


def test_programs_without_such_layers_are_refused(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(nn.ReLU(), (torch.zeros(2),)), tmp_path / "relu.pt2")
    with pytest.raises(PatcError, match="expected a program with convolutions or linear layers"):
        prune_program_(load_program(tmp_path / "relu.pt2"), pruning.PatternSpec(connectivity=2.0))
