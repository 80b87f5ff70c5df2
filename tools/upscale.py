"""`patc upscale`: pictures and streams of frames through a super-resolution net."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from patc.diagnostics import PatcError
from patc.tools import arguments

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from patc.runtime.model import CompiledModel
    from patc.upscaling.tiles import Upscaler

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_PICTURE_TILE = 512  # pixels of a side at most: the results of all layers are in memory
_FRAME_TILE = 1280 * 720  # pixels of a frame that is computed whole

_DESCRIPTION = """\
Upscale a picture, or with --size the raw frames of a stream (rgb24), by a super-resolution net. Frames are of any size:
what a net of one size cannot take whole goes through it in tiles, which overlap by as much as the net sees, so that the
result is that of the whole frame.
"""
_EPILOG = """\
examples:
  patc upscale realesr-animevideov3-x2.param small.png large.png
  patc compile net.param --shape data=1x3x360x640 -o net.patc && patc upscale net.patc small.png large.png
  ffmpeg -i in.mp4 -f rawvideo -pix_fmt rgb24 - \\
    | patc upscale realesr-animevideov3-x2.param - - --size 640x360 \\
    | ffmpeg -f rawvideo -pix_fmt rgb24 -s 1280x720 -r 25 -i - out.mp4
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(
        subparsers, "upscale", "upscale pictures and streams of frames", _DESCRIPTION, _EPILOG
    )
    arguments.add_model(parser, f"a file of patc compile, {arguments.MODEL_HELP}")
    parser.add_argument("input", metavar="IN", help="a picture, or with --size raw frames, - for standard input")
    parser.add_argument(
        "output",
        metavar="OUT",
        type=arguments.output_path,
        help=f"a picture ({', '.join(PICTURES)}), or with --size raw frames, - for standard output",
    )
    parser.add_argument("--size", metavar="WxH", type=arguments.frame_size, help="size of the frames of a stream")
    parser.add_argument(
        "--tile",
        metavar="WxH",
        type=arguments.frame_size,
        help="pixels that are upscaled at once, where MODEL is compiled for it (the frame, up to 1280x720 pixels of a "
        "stream, 512 a side of a picture)",
    )
    arguments.add_pruning(parser)
    arguments.add_compilation(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: an argument is wrong, the net does not upscale pictures, a file cannot be read or written, or the
            stream ends within a frame.
    """
    arguments.check_threads(args.threads)
    arguments.check_output(args.output, () if args.size else PICTURES)
    if args.size is None and args.input == "-":
        raise PatcError("expected --size WxH together with standard input, got none")
    if args.size is None:
        _upscale_picture(args)
    else:
        _upscale_stream(args)
    return 0


# -- A picture -------------------------------------------------------------------------------------


def _upscale_picture(args: argparse.Namespace) -> None:
    import numpy as np

    from patc.tools.images import read_picture

    picture = read_picture(args.input)
    upscaler = _open(args, picture.size, _PICTURE_TILE)
    frame = np.asarray(picture.convert("RGB"))
    upscaler.prepare(*frame.shape[:2])
    start = time.perf_counter()
    result = upscaler(frame)
    seconds = time.perf_counter() - start
    _save(args.output, result, picture)
    height, width = result.shape[:2]
    print(f"{args.output}: {width}x{height} of {picture.width}x{picture.height} in {seconds:.2f} s")


def _save(path: str, frame: np.ndarray, source: Image.Image) -> None:
    """Write a picture, with the transparency of another one, enlarged."""
    from PIL import Image

    from patc.files import atomic_write

    picture = Image.fromarray(frame)
    suffix = Path(path).suffix.lower()
    if "A" in source.getbands() and suffix not in (".jpg", ".jpeg", ".ppm", ".bmp"):
        picture.putalpha(source.getchannel("A").resize(picture.size, Image.Resampling.BICUBIC))
    stream = io.BytesIO()
    # Other formats than JPEG and WebP lose nothing, and know no quality.
    picture.save(stream, format=Image.registered_extensions().get(suffix, "PNG"), quality=95)
    atomic_write(path, stream.getvalue())


# -- A stream --------------------------------------------------------------------------------------


def _upscale_stream(args: argparse.Namespace) -> None:
    from patc.backends.host import available_threads
    from patc.upscaling.stream import upscale_stream

    # Frames beside each other gain more than a frame that threads divide.
    args.threads = args.threads or (None if arguments.is_compiled_file(args.model) else 1)
    width, height = args.size
    upscaler = _open(args, args.size, None)
    upscaler.prepare(height, width)
    workers = max(1, available_threads() // upscaler.model.program.threads)
    start = time.perf_counter()
    with _open_source(args.input) as source, _open_sink(args.output) as sink, _progress() as report:
        count = upscale_stream(upscaler, source, sink, args.size, workers, report)
    seconds = time.perf_counter() - start
    scale = upscaler.geometry.scale
    rate = f"{count / seconds:.2f} a second" if seconds else ""
    print(f"{count} frames of {scale * width}x{scale * height} in {seconds:.1f} s, {rate}")


@contextlib.contextmanager
def _open_source(path: str) -> Iterator[BinaryIO]:
    try:
        file = os.fdopen(os.dup(0) if path == "-" else os.open(path, os.O_RDONLY), "rb")
    except OSError as error:
        raise PatcError(f"cannot read the frames: {error.strerror or error}", path) from None
    with file:
        yield file


@contextlib.contextmanager
def _open_sink(path: str) -> Iterator[BinaryIO]:
    """Frames are written as they come, also to a file."""
    from patc.files import is_standard_output

    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        file = os.fdopen(os.dup(1) if is_standard_output(path) else os.open(path, flags, 0o666), "wb")
    except OSError as error:
        raise PatcError(f"cannot write the frames: {error.strerror or error}", path) from None
    try:
        yield file
        file.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise PatcError(f"cannot write the frames: {error.strerror or error}", path) from None
    finally:
        with contextlib.suppress(OSError):  # of what could not be written before
            file.close()


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """Show on standard error how many frames are done while it lasts; nothing where that is no terminal.

    Yields:
        What to call with the number.
    """
    from patc.tools.console import steps_shown

    start = time.perf_counter()
    shown = start
    with steps_shown() as tell:

        def report(frames: int) -> None:
            nonlocal shown
            now = time.perf_counter()
            if now - shown > 0.25:
                shown = now
                tell(f"{frames} frames, {frames / (now - start):.2f} a second")

        yield report


# -- The net ---------------------------------------------------------------------------------------


def _open(args: argparse.Namespace, size: tuple[int, int], side: int | None) -> Upscaler:
    """Return what upscales frames: by a compiled file, or by a model that is compiled for tiles of pictures.

    Args:
        size: width and height of a frame.
        side: the longest one of a tile; None for whole frames up to a size.
    """
    from patc.upscaling.tiles import Upscaler

    if arguments.is_compiled_file(args.model):
        if args.tile is not None:
            raise PatcError("expected a model to compile together with --tile, got a compiled one", args.model)
        from patc.loading import load

        arguments.refuse_compilation(args)
        return Upscaler(load(args.model))
    return Upscaler(_compile(args, args.tile or _choose_tile(size, side)))


def _choose_tile(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    width, height = size
    if side is None:
        rows = max(1, min(height, _FRAME_TILE // width))
        return (width, rows) if rows >= height // 8 else (1280, min(height, 720))
    return min(width, side), min(height, side)


def _compile(args: argparse.Namespace, tile: tuple[int, int]) -> CompiledModel:
    """Return a model that takes and makes bytes; a file of .onnx, .mlir or .pt2 as it is."""
    from patc.tools.compile import cache_key, compile_arguments, compile_loaded, kept

    suffix = Path(args.model).suffix.lower()
    if suffix in arguments.MODEL_SUFFIXES and suffix != arguments.NCNN:
        return compile_arguments(args)
    if args.shape or args.input_shape:
        raise PatcError("expected --tile to say the size, got a shape", args.model)
    if args.dynamic_batch or args.streaming:
        raise PatcError("expected a net of one picture, got --dynamic-batch or --streaming", args.model)
    key = cache_key(args, tile=tile, pictures=True)
    if key is None:
        return compile_arguments(args, loaded=_load(args, tile))
    return kept(key, lambda: compile_loaded(args, loaded=_load(args, tile)))


def _load(args: argparse.Namespace, tile: tuple[int, int]) -> arguments.LoadedModel:
    import torch

    from patc import pruning
    from patc.factories import build
    from patc.upscaling.picture_net import PictureNet, border_of

    spec = arguments.pattern_spec(args)
    net = build(args.model, arguments.read_weights(args.weights, args.trust_pickle)).model
    report = pruning.prune_(net, spec) if spec is not None else None
    border = border_of(net, (1, 3, tile[1] + 32, tile[0] + 32))
    shape = (1, 3, tile[1] + 2 * border, tile[0] + 2 * border)
    return arguments.LoadedModel(args.model, PictureNet(net).eval(), (torch.zeros(shape, dtype=torch.uint8),), report)
