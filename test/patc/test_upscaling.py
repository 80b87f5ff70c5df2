"""Frames of any size in tiles and in streams, against the net on whole frames."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from ncnn_nets import write_upscaler
from torch import Tensor, nn

import patc
from patc.diagnostics import PatcError
from patc.frontend.ncnn import load_net
from patc.upscaling.picture_net import PictureNet, border_of
from patc.upscaling.stream import upscale_stream
from patc.upscaling.tiles import Geometry, Span, Upscaler, divide, find_reach


def frame(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def whole(net: nn.Module, picture: np.ndarray, border: int = 0) -> np.ndarray:
    """Return what torch makes of a whole frame, as bytes."""
    bordered = np.pad(picture, ((border, border), (border, border), (0, 0)), mode="edge") if border else picture
    with torch.no_grad():
        given = torch.from_numpy(bordered.transpose(2, 0, 1).copy())[None]
        return PictureNet(net)(given)[0].numpy().transpose(1, 2, 0)


@pytest.fixture(scope="module", params=[1, 0], ids=["pads", "no pads"])
def upscaled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Upscaler]:
    net = load_net(write_upscaler(tmp_path_factory.mktemp("net"), pads=request.param))
    border = border_of(net, (1, 3, 40, 40))
    assert border == 2 * (1 - request.param)
    example = torch.zeros((1, 3, 20 + 2 * border, 24 + 2 * border), dtype=torch.uint8)
    return net, Upscaler(patc.compile(PictureNet(net).eval(), (example,), threads=1))


@pytest.mark.parametrize("size", [(20, 24), (21, 24), (47, 61), (100, 24)], ids=str)
def test_tiles_are_what_the_whole_frame_is(upscaled: tuple[nn.Module, Upscaler], size: tuple[int, int]) -> None:
    net, upscale = upscaled
    picture = frame(*size)
    found = upscale(picture)
    wanted = whole(net, picture, upscale.geometry.border)
    assert found.shape == wanted.shape == (2 * size[0], 2 * size[1], 3)
    difference = np.abs(found.astype(int) - wanted)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3  # sums that end at half a step round either way
    assert upscale.reach in (None, 2)


def test_frames_smaller_than_a_tile(upscaled: tuple[nn.Module, Upscaler]) -> None:
    net, upscale = upscaled
    picture = frame(9, 7)
    found = upscale(picture).astype(int)
    wanted = whole(net, picture, upscale.geometry.border)
    inner = (slice(4, -4),) * 2 if not upscale.geometry.border else (slice(None),) * 2
    assert found.shape == wanted.shape
    assert np.abs(found[inner] - wanted[inner]).max() <= 1


def test_a_net_of_floats(tmp_path: Path) -> None:
    path = write_upscaler(tmp_path)
    upscale = Upscaler(patc.compile(str(path), {"data": (1, 3, 20, 24)}, threads=1))
    picture = frame(33, 41)
    assert np.abs(upscale(picture).astype(int) - whole(load_net(path), picture)).max() <= 1


def test_spans_share_the_output_among_them() -> None:
    geometry = Geometry(20, 20, 2, 0)
    assert divide(20, 20, geometry, 3) == [Span(0, 0, 40)]
    assert divide(21, 20, geometry, 3) == [Span(0, 0, 8), Span(1, 8, 42)]
    assert divide(40, 20, geometry, 3) == [Span(0, 0, 34), Span(14, 34, 46), Span(20, 46, 80)]
    valid = Geometry(20, 20, 2, 3)
    assert divide(28, 20, valid, 3) == [Span(0, 0, 28), Span(14, 28, 56)]
    with pytest.raises(PatcError, match=r"expected tiles of more than 20 pixels, as far as the net sees, got 20"):
        divide(40, 20, geometry, 10)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True)


def run(net: nn.Module) -> object:
    def call(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(x)).numpy()

    return call


def test_nets_that_see_everything_or_depend_on_the_place() -> None:
    geometry = Geometry(32, 32, 1, 0)
    with pytest.raises(PatcError, match=r"expected a net that sees less than half a tile of 32x32, got one that sees"):
        find_reach(run(Mean()), geometry, False)
    pooled = nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2))
    with pytest.raises(PatcError, match=r"expected a net that moves its output with its input"):
        find_reach(run(pooled), geometry, False)
    assert find_reach(run(nn.Conv2d(3, 3, 5, padding=2)), geometry, False) == 2
    dilated = nn.Sequential(nn.Conv2d(3, 3, 3, padding=3, dilation=3), nn.PReLU(), nn.Conv2d(3, 3, 3, padding=1))
    assert find_reach(run(dilated), geometry, False) == 4


@pytest.mark.parametrize(
    ("net", "shape", "message"),
    [
        (
            nn.Conv2d(1, 3, 1),
            (1, 1, 8, 8),
            "expected a net that takes a picture, 1x3xHxW of float32 or uint8, got 1x1x8x8",
        ),
        (nn.Conv2d(3, 4, 1), (1, 3, 8, 8), "expected a net that makes a picture, .* got 1x4x8x8 float32"),
        (nn.Conv2d(3, 3, 2), (1, 3, 8, 8), "expected an output as large as the input.* got 1x3x7x7 float32 of 1x3x8x8"),
        (nn.Upsample((12, 16)), (1, 3, 8, 8), "expected an output as large as the input"),
    ],
)
def test_nets_that_do_not_upscale(net: nn.Module, shape: tuple[int, ...], message: str) -> None:
    compiled = patc.compile(net.eval(), (torch.zeros(shape),), threads=1)
    with pytest.raises(PatcError, match=message):
        Upscaler(compiled)


# -- Streams ---------------------------------------------------------------------------------------


def double(picture: np.ndarray) -> np.ndarray:
    return picture.repeat(2, 0).repeat(2, 1)


def test_frames_keep_their_order() -> None:
    frames = [frame(4, 6, seed) for seed in range(25)]
    sink, told = io.BytesIO(), []
    source = io.BytesIO(b"".join(picture.tobytes() for picture in frames))
    assert upscale_stream(double, source, sink, (6, 4), 3, told.append) == 25
    assert sink.getvalue() == b"".join(double(picture).tobytes() for picture in frames)
    assert told == list(range(1, 26))


def test_an_empty_stream() -> None:
    assert upscale_stream(double, io.BytesIO(), io.BytesIO(), (6, 4), 1) == 0


def test_a_stream_that_ends_within_a_frame() -> None:
    sink = io.BytesIO()
    source = io.BytesIO(frame(4, 6).tobytes() + b"12345")
    with pytest.raises(PatcError, match=r"expected frames of 72 bytes, got 5 at the end, behind frame 1"):
        upscale_stream(double, source, sink, (6, 4), 2)
    assert len(sink.getvalue()) == 4 * 72


def test_errors_of_a_frame_end_the_stream() -> None:
    def refuse(picture: np.ndarray) -> np.ndarray:
        raise PatcError("expected less")

    before = threading.active_count()
    source = io.BytesIO(bytes(72 * 100))
    with pytest.raises(PatcError, match="expected less"):
        upscale_stream(refuse, source, io.BytesIO(), (6, 4), 2)
    assert threading.active_count() <= before + 1


def test_a_sink_that_takes_no_more() -> None:
    class Closed(io.BytesIO):
        def write(self, data: object) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        upscale_stream(double, io.BytesIO(bytes(72 * 100)), Closed(), (6, 4), 2)
