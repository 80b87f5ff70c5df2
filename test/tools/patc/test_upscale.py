"""`patc upscale`: pictures, raw frames, and what it refuses."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import fail, run
from ncnn_nets import write_upscaler
from PIL import Image
from repository import ROOT

from patc.tools.upscale import _choose_tile

SIZE = (24, 20)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_upscaler(tmp_path_factory.mktemp("net"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (30, 40, 4), np.uint8)
    Image.fromarray(values).save(tmp_path / "small.png")
    return tmp_path / "small.png"


def test_a_picture(net: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "large.png"
    printed = run(capsys, "upscale", net, picture, output)
    assert "large.png: 80x60 of 40x30 in " in printed
    whole = np.asarray(Image.open(output))
    assert whole.shape == (60, 80, 4)  # transparency stays
    run(capsys, "upscale", net, picture, tmp_path / "tiles.webp", "--tile", "24x20")
    run(capsys, "upscale", net, picture, tmp_path / "tiles.png", "--tile", "24x20")
    tiles = np.asarray(Image.open(tmp_path / "tiles.png"))
    assert np.abs(whole.astype(int) - tiles).max() <= 1
    assert Image.open(tmp_path / "tiles.webp").size == (80, 60)


def test_a_compiled_file_takes_any_picture(
    net: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled = tmp_path / "net.patc"
    run(capsys, "compile", net, "--shape", "data=1x3x20x24", "-o", compiled)
    run(capsys, "upscale", compiled, picture, tmp_path / "large.png")
    assert Image.open(tmp_path / "large.png").size == (80, 60)
    assert "expected a model to compile together with --tile, got a compiled one" in fail(
        capsys, "upscale", compiled, picture, tmp_path / "x.png", "--tile", "24x20"
    )


def stream(net: Path, data: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "patc.tools.patc", "upscale", str(net), "-", "-", "--size", "24x20", *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, input=data, capture_output=True, env=environment, check=False)


def test_frames_of_a_stream(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (5, *SIZE[::-1], 3), np.uint8)
    result = stream(net, frames.tobytes())
    assert result.returncode == 0, result.stderr
    found = np.frombuffer(result.stdout, np.uint8).reshape(5, 40, 48, 3)
    assert b"5 frames of 48x40 in " in result.stderr
    for number in (0, 4):
        Image.fromarray(frames[number]).save(tmp_path / "frame.png")
        run(capsys, "upscale", net, tmp_path / "frame.png", tmp_path / "large.png")
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "large.png")), found[number])
    (tmp_path / "frames.raw").write_bytes(frames.tobytes())
    run(capsys, "upscale", net, tmp_path / "frames.raw", tmp_path / "large.raw", "--size", "24x20", "--threads", "2")
    assert (tmp_path / "large.raw").stat().st_size == 5 * 48 * 40 * 3


def test_a_stream_that_ends_within_a_frame(net: Path) -> None:
    result = stream(net, bytes(24 * 20 * 3 + 7))
    assert result.returncode == 1
    assert len(result.stdout) == 48 * 40 * 3
    expected = b"patc: error: expected frames of 1440 bytes, got 7 at the end, behind frame 1\n"
    assert result.stderr.endswith(expected)


def test_a_reader_that_has_seen_enough(net: Path) -> None:
    command = [sys.executable, "-m", "patc.tools.patc", "upscale", str(net), "-", "-", "--size", "24x20"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(bytes(24 * 20 * 3))
        process.stdin.flush()
        assert len(process.stdout.read(48 * 40 * 3)) == 48 * 40 * 3
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            for _ in range(2000):  # more than pipes hold
                process.stdin.write(bytes(24 * 20 * 3))
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-", "x.png"), "expected --size WxH together with standard input, got none"),
        (("small.png", "x.txt"), "expected a file named .bmp or .jpeg"),
        (("small.png", "x.png", "--size", "24"), "expected a size such as 640x360, got '24'"),
        (("missing.png", "x.png"), "missing.png: expected a picture, found no such file"),
        (("small.png", "x.png", "--shape", "data=1x3x20x24"), "expected --tile to say the size, got a shape"),
        (("missing.raw", "-", "--size", "24x20"), "missing.raw: cannot read the frames: No such file or directory"),
    ],
)
def test_errors_are_one_line(
    words: tuple[str, ...],
    message: str,
    net: Path,
    picture: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(picture.parent)
    assert message in fail(capsys, "upscale", net, *words)


@pytest.mark.parametrize(
    ("size", "side", "tile"),
    [
        ((640, 360), None, (640, 360)),
        ((1920, 1080), None, (1920, 480)),
        ((3840, 2160), None, (1280, 720)),
        ((30000, 300), None, (1280, 300)),
        ((2000, 300), 512, (512, 300)),
    ],
)
def test_tiles_are_no_larger_than_the_frame(size: tuple[int, int], side: int | None, tile: tuple[int, int]) -> None:
    assert _choose_tile(size, side) == tile
