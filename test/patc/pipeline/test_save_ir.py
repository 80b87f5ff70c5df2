"""`save_ir`: the IR after each pass in files, without weights, with names that can be compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from command import fail, run
from torch import nn

import patc
from patc.compiler import host_pipeline
from patc.tools.patc import make_parser


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the IR of a net, and its file."""
    path = tmp_path_factory.mktemp("ir")
    torch.manual_seed(0)
    x = torch.zeros(1, 3, 12, 12)
    torch.export.save(torch.export.export(Net().eval(), (x,)), path / "net.pt2")
    patc.compile(Net().eval(), (x,), threads=1, save_ir=path / "ir")
    return path


def test_there_is_a_file_for_the_import_and_for_each_pass(folder: Path) -> None:
    names = sorted(path.name for path in (folder / "ir").iterdir())
    passes = ["import", *(item.name for item in host_pipeline("host", 1).passes)]
    assert names == [f"{place:02d}-{name}.mlir" for place, name in enumerate(passes)]


def test_files_are_small_and_can_be_read(folder: Path) -> None:
    """Weights are names up to `pattern-encode`, and places in memory after."""
    for path in (folder / "ir").iterdir():
        assert not re.search(r"dense<\[[^>]{300}", path.read_text()), path.name
    raised = next((folder / "ir").glob("*-pattern-raise.mlir")).read_text()
    assert '%second = "pattern.conv2d"(%first, %second.weight, %second.bias)' in raised


def test_commands_write_the_same(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--threads", "1", "--save-ir")
    run(capsys, "run", folder / "net.pt2", *words, tmp_path / "run")
    run(
        capsys,
        "compile",
        folder / "net.pt2",
        "-o",
        tmp_path / "n.mlir",
        "--emit",
        "mlir@raise",
        *words,
        tmp_path / "emit",
    )
    assert len(list((tmp_path / "run").iterdir())) == len(list((folder / "ir").iterdir()))
    emitted = sorted((tmp_path / "emit").iterdir())
    assert emitted[0].name == "00-import.mlir" and emitted[-1].name.endswith("pattern-raise.mlir")
    for path in emitted:
        assert path.read_text() == (tmp_path / "run" / path.name).read_text()
    (tmp_path / "file").write_text("")
    assert "file: expected a folder" in fail(capsys, "run", folder / "net.pt2", "--save-ir", tmp_path / "file")


def test_pruning_to_a_speedup_writes_each_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = "torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.Conv2d(16, 16, 3))"
    source = f"import torch\n\n\ndef build():\n    return {layers}, torch.zeros(1, 3, 12, 12)\n"
    (tmp_path / "net.py").write_text(source)
    model = f"{tmp_path}/net.py:build"
    run(capsys, "prune", model, "--speedup", "1.2", "--save-ir", tmp_path / "ir")
    folders = sorted((tmp_path / "ir").iterdir())
    assert len(folders) > 1 and all(re.fullmatch(r"rate-[\d.]+", folder.name) for folder in folders)
    assert all((folder / "00-import.mlir").exists() for folder in folders)


@pytest.mark.parametrize(
    ("words", "said"), [("prune resnet18_cifar --compression 2", "--speedup"), ("calibrate --renew", "--check")]
)
def test_commands_that_compile_no_model_say_so(
    words: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"expected {said}" in fail(capsys, *words.split(), "--save-ir", tmp_path / "ir")
    assert not (tmp_path / "ir").exists()


def test_two_models_of_a_report_have_folders(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "report", folder / "net.pt2", folder / "net.pt2", "--threads", "1", "--save-ir", tmp_path / "ir")
    assert sorted(path.name for path in (tmp_path / "ir").iterdir()) == ["model-1", "model-2"]
    assert all(len(list(path.iterdir())) > 10 for path in (tmp_path / "ir").iterdir())


def test_every_command_that_compiles_takes_it() -> None:
    commands = next(action.choices for action in make_parser()._actions if isinstance(action.choices, dict))
    without = {name for name, parser in commands.items() if "--save-ir" not in parser.format_help()}
    assert without == {"devices", "doctor", "sign", "verify"}
