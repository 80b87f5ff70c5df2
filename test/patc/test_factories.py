"""Models that a function of the user's code builds, by FILE.py:FUNCTION and MODULE:FUNCTION, on every command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from patc.diagnostics import PatcError
from patc.factories import build, is_factory
from patc.tools import patc

_CODE = """
import helper_of_net
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(width, 10)
    def forward(self, x):
        return self.fc(self.drop(self.conv(x).relu()).mean((2, 3)))

def plain():
    return Net(helper_of_net.WIDTH)

def with_input():
    return Net(8), torch.randn(1, 3, 32, 32)

def with_names():
    return Net(8), {"x": torch.randn(2, 3, 12, 12)}

def seven():
    return nn.Sequential(Net(8), nn.Linear(10, 7)), torch.zeros(1, 3, 32, 32)

def wrong():
    return [1, 2, 3]

def broken():
    return Net(
        1 // 0)

def leaving():
    raise SystemExit("no data\\nhere")

model = Net(4)
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("factory")
    (folder / "net.py").write_text(_CODE)
    (folder / "syntax.py").write_text("x = 1\ndef f(:\n")
    (folder / "helper_of_net.py").write_text("WIDTH = 8\n")
    return folder / "net.py"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("net.py:build", True),
        ("./models/net.py:build", True),
        ("torchvision.models:resnet18", True),
        ("resnet18", False),
        ("net.py", False),
        ("net.onnx", False),
        ("net.patc:build", True),  # no such module, says the error
        ("C:\\net.patc", False),
        ("net.py:", False),
        ("net.py:a-b", False),
    ],
)
def test_what_a_function_looks_like(word: str, expected: bool) -> None:
    assert is_factory(word) == expected


def test_models_are_in_eval_mode_seeded_and_may_import_what_lies_beside_them(net: Path) -> None:
    state = torch.get_rng_state()
    first, again = build(f"{net}:plain"), build(f"{net}:plain")
    assert not first.model.training
    assert first.inputs is None
    assert torch.equal(first.model.conv.weight, again.model.conv.weight)
    assert not torch.equal(first.model.conv.weight, build(f"{net}:plain", seed=1).model.conv.weight)
    assert torch.equal(state, torch.get_rng_state())
    assert isinstance(build(f"{net}:model").model, nn.Module)
    assert isinstance(build("torch.nn:ReLU").model, nn.ReLU)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("net.py:plane", r"net\.py: expected a function 'plane', found none; did you mean 'plain'"),
        ("absent.py:f", r"absent\.py: expected a Python file, found no such file"),
        ("net.py:wrong", r"net\.py:wrong: expected a torch\.nn\.Module, or one and its inputs, found a list"),
        ("net.py:broken", r"net\.py:32: the model's code raised ZeroDivisionError: .*by zero"),
        ("net.py:leaving", r"net\.py:35: the model's code raised SystemExit: no data"),
        ("net.py:helper_of_net", r"expected a torch\.nn\.Module, .* found a module"),
        ("syntax.py:f", r"syntax\.py:2: the model's code raised SyntaxError: "),
    ],
)
def test_what_the_code_does_wrong_is_one_line_with_its_place(net: Path, word: str, message: str) -> None:
    with pytest.raises(PatcError, match=message) as error:
        build(str(net.parent / word))
    assert "\n" not in str(error.value)


def test_modules_that_are_missing_are_named() -> None:
    with pytest.raises(
        PatcError, match=r"^absent_module: the model's code raised ModuleNotFoundError: No module named"
    ):
        build("absent_module:f")


def test_compile_run_and_report_take_functions(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, output = f"{net}:with_input", tmp_path / "y.npy"
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assert patc.main(["compile", model, "--threads", "1", "-o", str(tmp_path / "net.patc"), "--quiet"]) == 0
    assert (
        patc.main(["run", str(tmp_path / "net.patc"), "--input", str(tmp_path / "x.npy"), "--output", str(output)]) == 0
    )
    with torch.no_grad():
        wanted = build(model).model.double()(torch.from_numpy(x).double()).numpy()
    assert np.abs(np.load(output) - wanted).max() < 1e-5
    for words in (["report", model], ["run", f"{net}:plain", "--input-shape", "1,3,8,8"], ["run", f"{net}:with_names"]):
        assert patc.main([*words, "--threads", "1"]) == 0
    capsys.readouterr()
    assert patc.main(["run", f"{net}:plain"]) == 1
    message = (
        f"patc: error: {net}:plain: expected --input-shape, or a function that returns (model, inputs); got neither"
    )
    assert capsys.readouterr().err == message + "\n"


def test_prune_and_bench_take_functions(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pruned = tmp_path / "pruned.safetensors"
    assert patc.main(["prune", f"{net}:with_input", "--connectivity", "2", "-o", str(pruned)]) == 0
    assert patc.main(["report", f"{net}:with_input", "--weights", str(pruned), "--threads", "1"]) == 0
    words = ["bench", f"{net}:with_input", "--connectivity", "2", "--threads", "1", "--repetitions", "2", "--peers", ""]
    assert patc.main([*words, "--json", str(tmp_path / "b.json")]) == 0
    assert json.loads((tmp_path / "b.json").read_text())
    capsys.readouterr()
    assert patc.main(["prune", f"{net}:seven", "--connectivity", "2", "--data", "digits"]) == 1
    assert ":seven: expected 10 scores an image, as digits has classes, got 7\n" in capsys.readouterr().err
