"""The cache of compiled models: what finds an entry, what does not, and how large it may become."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import run
from torch import nn

from patc import code_cache
from patc.code_cache import CodeCache, make_key
from patc.tools import compile as compile_command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, and an empty cache."""
    monkeypatch.delenv("PATC_NO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _export(tmp_path / "net.pt2", 0)
    return tmp_path


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that are compiled, and not found."""
    found: list[str] = []
    compile_now = compile_command.compile_loaded

    def count(args: Any, *rest: Any, **others: Any) -> Any:
        found.append(Path(args.model).name)
        return compile_now(args, *rest, **others)

    monkeypatch.setattr(compile_command, "compile_loaded", count)
    return found


def _export(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 8, 8),)), path)


def test_the_same_is_compiled_once(folder: Path, compilations: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ("compile", folder / "net.pt2", "--threads", "1")
    first = run(capsys, *words, "-o", folder / "a.patc")
    second = run(capsys, *words, "-o", folder / "b.patc")
    assert compilations == ["net.pt2"]
    assert (folder / "a.patc").read_bytes() == (folder / "b.patc").read_bytes()
    assert first.splitlines()[:-1] == second.splitlines()[:-1] != []  # the remarks
    run(capsys, "run", folder / "net.pt2", "--threads", "1")
    assert len(compilations) == 1
    run(capsys, *words, "-o", folder / "c.patc", "--no-cache")
    assert len(compilations) == 2


@pytest.mark.parametrize("option", ["--threads 2", "--target x86-64-v3", "--dynamic-batch"])
def test_other_options_are_another_model(
    folder: Path, compilations: list[str], capsys: pytest.CaptureFixture[str], option: str
) -> None:
    for words in ((), option.split()):
        given = words if "--threads" in words else (*words, "--threads", "1")
        run(capsys, "compile", folder / "net.pt2", *given, "-o", folder / "a.patc")
    assert len(compilations) == 2


def test_files_count_by_their_bytes(folder: Path, compilations: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Not by their times: an older file with other bytes is another model, a newer copy is not."""
    words = ("run", folder / "net.pt2", "--threads", "1", "--output", folder / "y.npy")
    run(capsys, *words)
    before = np.load(folder / "y.npy")
    os.utime(folder / "net.pt2")
    run(capsys, *words)
    assert len(compilations) == 1
    times = os.stat(folder / "net.pt2")
    _export(folder / "net.pt2", 1)
    os.utime(folder / "net.pt2", ns=(times.st_atime_ns, times.st_mtime_ns))
    run(capsys, *words)
    assert len(compilations) == 2
    assert not np.allclose(np.load(folder / "y.npy"), before)


def test_weights_beside_a_model_count(
    folder: Path, compilations: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """External data of an .onnx file, and the parameters of an .mlir file."""
    onnx = pytest.importorskip("onnx")
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, (3, 4), weight.tobytes(), raw=True)
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", (2, 3)), ("y", (2, 4))))
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.save(model, folder / "n.onnx", save_as_external_data=True, location="n.data", size_threshold=0)
    run(capsys, "compile", folder / "net.pt2", "--emit", "mlir@linalg", "-o", folder / "m.mlir")
    for name, weights in (("n.onnx", "n.data"), ("m.mlir", "m.safetensors")):
        for _ in range(2):
            run(capsys, "run", folder / name, "--threads", "1")
        assert compilations == [name]
        data = bytearray((folder / weights).read_bytes())
        data[-2] ^= 1
        (folder / weights).write_bytes(data)
        run(capsys, "run", folder / name, "--threads", "1")
        assert compilations == [name, name]
        compilations.clear()


_NET = """
import json
from pathlib import Path

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, json.loads(Path("sizes.json").read_text()), 3)
        self.rnn = nn.LSTM(6, 5, batch_first=True)

    def forward(self, x):
        y = torch.relu(self.conv(x)).mean((1, 2))[:, None]
        return self.rnn(y)[0]


def build():
    return Net(), torch.zeros(1, 3, 8, 8)
"""


def test_what_code_builds_counts_by_its_graph_and_weights(
    folder: Path, compilations: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Functions may read anything: a file that nobody knows of, and what a graph keeps of a module's code."""
    monkeypatch.chdir(folder)
    (folder / "sizes.json").write_text("4")
    (folder / "net.py").write_text(_NET)
    words = ("run", "net.py:build", "--threads", "1")
    first = run(capsys, *words)
    assert run(capsys, *words) == first
    (folder / "net.py").write_text(f"{_NET}\nunrelated = 1\n")
    assert run(capsys, *words) == first
    assert len(compilations) == 1
    changes = {
        "sizes.json": "5",
        "net.py": _NET.replace("torch.relu", "torch.sigmoid"),
        "./net.py": _NET.replace("[0]\n", '[0], {"twice": y}\n'),  # other outputs of the same layers
    }
    for number, (name, text) in enumerate(changes.items(), 2):
        (folder / name).write_text(text)
        run(capsys, *words)
        assert len(compilations) == number
    for number, option in enumerate(("--streaming", "--dynamic-batch", "--shape x=1x3x9x8"), 5):
        for _ in range(2):
            run(capsys, *words, *option.split())
        assert len(compilations) == number
    run(capsys, *words, "--no-cache")
    assert len(compilations) == number + 1


def test_modules_that_were_read_count_by_their_content(
    folder: Path, compilations: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A pruned program, and what is checked afterwards: the file is read before the cache is asked."""
    words = ("run", folder / "net.pt2", "--threads", "1", "--check-finite")
    for options in ((), ("--connectivity", "2")):
        for _ in range(2):
            run(capsys, *words, *options)
    assert len(compilations) == 2
    _export(folder / "net.pt2", 1)
    for options in ((), ("--connectivity", "2")):
        run(capsys, *words, *options)
    assert len(compilations) == 4


def test_damaged_entries_are_made_again(
    folder: Path, compilations: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("run", folder / "net.pt2", "--threads", "1")
    text = run(capsys, *words)
    for suffix, data in ((".json", b"[1, 2]"), (".json", b"{"), (".patc", b"")):
        (path,) = (folder / "cache" / "patc" / "code").glob(f"*{suffix}")
        path.write_bytes(data)
        assert run(capsys, *words) == text
    assert len(compilations) == 4


def test_code_of_another_patc_is_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [make_key({"model": "net.pt2"}), make_key({"model": "net.pt2"}), make_key({"model": "other.pt2"})]
    monkeypatch.setattr(code_cache, "_digest_sources", lambda: "changed")
    assert keys[0] == keys[1] and len({*keys, make_key({"model": "net.pt2"})}) == 3


def test_what_was_used_longest_ago_goes_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "compile", folder / "net.pt2", "--threads", "1", "-o", folder / "a.patc")
    import patc

    model = patc.load(folder / "a.patc")
    cache = CodeCache(folder / "own", most_bytes=2 * (folder / "a.patc").stat().st_size)
    for place, key in enumerate(("first", "second", "third")):
        with cache.storing(key) as made:
            made.append(model)
        for path in cache.folder.glob(f"{key}.*"):
            os.utime(path, (place, place))
        if key == "second":
            assert cache.load("first") is not None  # used now
    assert cache.load("second") is None
    assert sorted({path.stem for path in cache.folder.iterdir()}) == ["first", "third"]


def test_a_folder_that_cannot_be_written_to_is_no_error(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "blocked").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "blocked"))
    assert "output: largest of 5" in run(capsys, "run", folder / "net.pt2", "--threads", "1")
