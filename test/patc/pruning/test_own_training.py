"""`patc prune` of the user's own models and data, to other schemes, by other methods, in one process and in several."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command import fail, run
from safetensors.torch import load_file

from patc.pruning import Block, Plan, Reweighted, Unstructured
from patc.pruning.own_data import as_data
from patc.pruning.train import train
from patc.pruning.train_options import TrainOptions

pytestmark = pytest.mark.usefixtures("one_thread")

# Which of two signs comes first in a sequence of tokens: a recurrent net, and one of inputs in a dictionary.
CODE = """
import torch
from torch import nn

class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.names = nn.Embedding(8, 16)
        self.rnn = nn.GRU(16, 16, batch_first=True)
        self.head = nn.Linear(16, 8)

    def forward(self, tokens):
        return self.head(self.rnn(self.names(tokens))[0][:, -1])

def build():
    return Reader()

class Sequences(torch.utils.data.Dataset):
    def __init__(self, count, seed):
        self.tokens = torch.randint(2, 8, (count, 6), generator=torch.Generator().manual_seed(seed))
        self.tokens[:, 2] = torch.arange(count) % 2

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        return self.tokens[index], int(self.tokens[index, 2])

def open_data():
    return Sequences(128, 0), Sequences(64, 1)

def named():
    return [({"tokens": torch.zeros(6, dtype=torch.int64)}, 1)] * 8, [({"tokens": torch.zeros(6, dtype=torch.int64)}, 1)]

def broken():
    raise ValueError("no such file")

def floats():
    return [(torch.zeros(3), 0.5)], [(torch.zeros(3), 0.5)]

def one():
    return Sequences(8, 0)
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(CODE)
    return tmp_path


def words(*more: str) -> list[str]:
    return ["prune", "own.py:build", "--data", "own.py:open_data", "--dense-epochs", "2", "--prune-epochs", "2",
            "--retrain-epochs", "1", "--batch-size", "16", "--device", "cpu", *more]  # fmt: skip


def test_own_nets_train_to_blocks(capsys: pytest.CaptureFixture[str], code: Path) -> None:
    text = run(capsys, *words("--scheme", "block", "--block", "8", "--method", "reweighted", "--compression", "4",
                              "-o", "out.safetensors"))  # fmt: skip
    assert "own.py:open_data: 128 items to train on, 64 to test with\n" in text
    assert re.findall(r"^epoch \d/5 (\w+) +loss", text, re.MULTILINE) == ["dense", "dense", "prune", "prune", "retrain"]
    state = load_file("out.safetensors")
    for name in ("rnn.weight_ih_l0", "rnn.weight_hh_l0", "head.weight"):
        bands = (state[name] != 0).reshape(-1, 8, 16)
        assert bool((bands.all(1) == bands.any(1)).all()) and 0 < int(bands.sum()) < state[name].numel()
    kept, whole = (sum(int(count(tensor)) for name, tensor in state.items() if "weight" in name and "names" not in name)
                   for count in (torch.count_nonzero, torch.numel))  # fmt: skip
    assert whole / kept == pytest.approx(4.0, rel=0.02)
    row = re.search(r"rnn\.weight_hh_l0 .*block.*", text)
    assert row is not None and "kept kernels by pattern" not in text


@pytest.mark.parametrize(("method", "scheme"), [("magnitude", "unstructured"), ("group-lasso", "filters")])
def test_methods_resume(capsys: pytest.CaptureFixture[str], code: Path, method: str, scheme: str) -> None:
    options = words("--scheme", scheme, "--layers", "head", "--method", method, "--connectivity", "2", "-o", "a.pth")
    whole = run(capsys, *options)
    again = run(capsys, *options[:-1], "b.pth", "--resume")
    assert "epoch" in whole and not re.search(r"^epoch \d", again, re.MULTILINE)
    first, second = (torch.load(name, weights_only=True) for name in ("a.pth", "b.pth"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    message = fail(capsys, *[word if word != method else "reweighted" for word in options], "--resume")
    assert "expected the checkpoint of a run with method Reweighted" in message


@pytest.mark.parametrize(
    ("more", "method"), [((), "Magnitude(iterations=2, ramp=0.8)"), (("--bits", "4"), "Admm(schedule=")]
)
def test_masks_grow_and_levels_are_driven_to(
    capsys: pytest.CaptureFixture[str], code: Path, more: tuple[str, ...], method: str
) -> None:
    """By default: magnitudes alone do not bring weights near to levels."""
    run(capsys, *words("--scheme", "block", "--compression", "2", "--run-folder", "run", *more))
    assert torch.load("run/last.pt", weights_only=True)["identity"]["method"].startswith(method)


@pytest.mark.parametrize("bits", [1, 4])
def test_bits_are_of_all_weights(capsys: pytest.CaptureFixture[str], code: Path, bits: int) -> None:
    options = words("--scheme", "block", "--layers", "rnn.*", "--compression", "2", "--bits", str(bits), "-o", "a.pth")
    text = run(capsys, *options)
    assert len(re.findall(rf" block, {bits} bits? ", text)) == 2 and f"8x16    {bits} bit" in text
    state = torch.load("a.pth", weights_only=True)
    for name in ("rnn.weight_ih_l0", "rnn.weight_hh_l0", "head.weight"):
        sizes = [row[row != 0].abs().unique().numel() for row in state[name]]
        assert 0 < max(sizes) <= max(1, 2 ** (bits - 1) - 1)
    assert bool((state["head.weight"] != 0).all()) or bits > 1
    alone = words("--bits", str(bits), "--run-folder", "alone")
    assert "block" not in run(capsys, *alone)
    message = fail(capsys, *alone, "--scheme", "block")
    assert "expected --compression or --connectivity together with --scheme, got --bits alone" in message


def test_two_processes_take_the_steps_of_one_with_twice_the_batch(
    capsys: pytest.CaptureFixture[str], code: Path
) -> None:
    more = ["--scheme", "block", "--compression", "3", "--run-folder"]
    one = words(*more, "one", "-o", "one.safetensors")
    one[one.index("16")] = "32"
    run(capsys, *one)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    result = subprocess.run(
        [*launcher, "-m", "patc.tools.patc", *words(*more, "two", "-o", "two.safetensors")],
        capture_output=True, text=True, timeout=180, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("128 items to train on") == 1 and result.stdout.count("two.safetensors:") == 1
    first, second = load_file("one.safetensors"), load_file("two.safetensors")
    for name, tensor in first.items():
        assert torch.equal(tensor != 0, second[name] != 0), name
        assert torch.allclose(tensor, second[name], atol=1e-5), name


def test_inputs_by_name(code: Path) -> None:
    sys.path.insert(0, str(code))
    from patc.factories import build, call

    model = build("own.py:build").model
    data = as_data("own.py:named", call("own.py:named"))
    options = TrainOptions(prune_epochs=1, retrain_epochs=1, batch_size=4, method=Reweighted(), device="cpu")
    report = train(model, data, Plan([("rnn.*", Block(8), 2.0), ("head", Unstructured(), 4.0)]), options, code / "run")
    assert report.pruned.compression == pytest.approx(2.08, rel=0.01) and len(report.epochs) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own.py:broken", r"own.py:\d+: the data set's code raised ValueError: no such file"),
        ("own.py:floats", r"own.py:floats: expected classes as whole numbers \(train other targets in Python"),
        ("own.py:one", r"own.py:one: expected a function that returns \(train, test\), .*, got Sequences"),
        ("own.py:missing", r"own.py: expected a function 'missing', found none"),
        ("nowhere.py:open_data", "nowhere.py: expected a Python file, found no such file"),
    ],
)
def test_bad_data_is_one_line(capsys: pytest.CaptureFixture[str], code: Path, name: str, message: str) -> None:
    options = words("--scheme", "block", "--compression", "4")
    options[options.index("own.py:open_data")] = name
    assert re.search(message, fail(capsys, *options))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--scheme block --library phase1", "expected --scheme pattern together with --library, got block"),
        ("--scheme block --balanced", "expected --scheme pattern together with --balanced, got block"),
        ("--remove rows", "expected --scheme block together with --remove, got pattern"),
        ("--layers head", "expected another --scheme together with --layers, got pattern"),
        ("--scheme block --block 8y", "argument --block: expected rows of a block, or rows and columns as in 8x16"),
        ("--scheme block --block 7", "expected a weight that the plan's schemes fit, found none: rnn.weight_ih_l0"),
        ("--scheme block --layers lstm", "expected a weight that 'lstm' names, found rnn.weight_ih_l0, rnn.weight_hh_l0"),
        ("--scheme blocks", "argument --scheme: invalid choice: 'blocks'"),
        ("--scheme block --method reweighted --rho 1", "expected --method admm together with --rho, got reweighted"),
        ("--rho 1", "expected --method admm together with --rho, got magnitude"),
        ("--scheme block --method reweighted --ramp 1", "expected --method magnitude or admm together with --ramp, got reweighted"),
        ("--scheme block --strength 1", "expected --method reweighted or group-lasso together with --strength, got magnitude"),
        ("--scheme block --method magnitude --ramp 2", "expected ramp to be from 0 to 1, found 2.0"),
        ("--scheme block --bits 9", "expected levels of 1 to 8 bits, found 9"),
        ("--bits 4 --first-layer dense", "expected no --first-layer together with --bits, got both"),
        ("--bits 4 --extract 8", "expected no --extract together with --bits, got both"),
        ("--scheme gather-scatter", "rnn.weight_ih_l0: expected"),
        ("--scheme kernel-blocks", "expected a convolution with 3x3 kernels, not a transposed one"),
    ],
)  # fmt: skip
def test_bad_options_are_one_line(capsys: pytest.CaptureFixture[str], code: Path, more: str, message: str) -> None:
    assert message in fail(capsys, *words("--compression", "4", *more.split()))


def test_schemes_in_one_shot(capsys: pytest.CaptureFixture[str], code: Path) -> None:
    text = run(capsys, "prune", "own.py:build", "--scheme", "block", "--block", "8x4", "--remove", "block",
               "--compression", "4", "--rate", "head=2", "-o", "out.pth")  # fmt: skip
    state: dict[str, Any] = torch.load("out.pth", weights_only=True)
    assert int((state["head.weight"] != 0).sum()) == 64 and "out.pth" in text
    message = fail(capsys, *words("--scheme", "block", "--speedup", "2"))
    assert "expected images to choose rates for a speedup, got a data set of other inputs" in message
