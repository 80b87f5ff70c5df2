"""Raw frames from one stream to another: read, upscaled and written at the same time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

import numpy as np

from patc.diagnostics import PatcError

_CHANNELS = 3


def upscale_stream(
    upscale: Callable[[np.ndarray], np.ndarray],
    source: BinaryIO,
    sink: BinaryIO,
    size: tuple[int, int],
    workers: int,
    report: Callable[[int], None] = lambda frames: None,
) -> int:
    """Upscale frames of rgb24, as ffmpeg has them in `rawvideo`, until the source ends; return how many there were.

    One thread reads, `workers` compute a frame each, this one writes; no more than two frames beside those are kept.

    Args:
        upscale: takes and returns height x width x 3 of uint8, in any thread.
        size: width and height of a frame.
        report: called with the number of frames that are written.

    Raises:
        PatcError: the source ends within a frame, after the frames before it were written.
        BrokenPipeError: the sink takes no more.
    """
    width, height = size
    frame_bytes = _CHANNELS * width * height
    pending: queue.Queue[Future[np.ndarray] | Exception | None] = queue.Queue(maxsize=workers)
    is_over = threading.Event()

    def hand_over(item: Future[np.ndarray] | Exception | None) -> bool:
        """Wait for a place in the queue, as long as somebody reads it."""
        while not is_over.is_set():
            try:
                pending.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        count = 0
        try:
            while not is_over.is_set():
                data = _read_frame(source, frame_bytes, count)
                if data is None:
                    hand_over(None)
                    return
                frame = np.frombuffer(data, np.uint8).reshape(height, width, _CHANNELS)
                if not hand_over(pool.submit(upscale, frame)):
                    return
                count += 1
        except Exception as error:  # for the thread that writes
            hand_over(error)

    written = 0
    with ThreadPoolExecutor(workers) as pool:
        reader = threading.Thread(target=read, daemon=True)  # it may wait for a source that never ends
        reader.start()
        try:
            while (item := pending.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                sink.write(np.ascontiguousarray(item.result()).data)
                written += 1
                report(written)
            sink.flush()
        finally:
            is_over.set()
    return written


def _read_frame(source: BinaryIO, size: int, before: int) -> bytearray | None:
    """Return the bytes of a frame; None where the source has ended.

    Raises:
        PatcError: it ended within the frame.
    """
    data = bytearray(size)
    view, found = memoryview(data), 0
    while found < size:
        count = source.readinto(view[found:])  # type: ignore[attr-defined] # of files and pipes
        if not count:
            break
        found += count
    if found == 0:
        return None
    if found < size:
        raise PatcError(f"expected frames of {size} bytes, got {found} at the end, behind frame {before}")
    return data
