"""Calls with any number of images of code that computes a block of them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from patc.diagnostics import PatcError
from patc.runtime.program import Program, TensorInfo

Run = Callable[[Sequence[int], Sequence[int]], None]


def count_images(info: TensorInfo, value: Any) -> int:
    """Return how many images an input has.

    Raises:
        PatcError: none, or other sizes than the batch are not those of the input.
    """
    shape = tuple(getattr(value, "shape", info.shape))
    if len(shape) != len(info.shape) or shape[1:] != info.shape[1:] or shape[0] < 1:
        wanted = f"expected input '{info.name}' of shape {describe_sizes(info, True)} {info.dtype}"
        raise PatcError(f"{wanted}, got shape {list(shape)}: the batch alone is free, from 1 on")
    return int(shape[0])


def sized(infos: Sequence[TensorInfo], images: int) -> tuple[TensorInfo, ...]:
    """Return tensors of as many images."""
    return tuple(info if info.shape[0] == images else replace(info, shape=(images, *info.shape[1:])) for info in infos)


def describe_sizes(info: TensorInfo, dynamic_batch: bool) -> str:
    """Return a shape, whose first size may be any batch."""
    return f"[{', '.join(['batch', *map(str, info.shape[1:])])}]" if dynamic_batch else str(list(info.shape))


def run_blocks(program: Program, run: Run, images: int, inputs: Sequence[int], outputs: Sequence[int]) -> None:
    """Compute images block by block: the last one overlaps the one before, and fewer than a block are padded.

    Args:
        run: computes a block at some addresses.
        inputs, outputs: addresses of `images` images.
    """
    block = program.block
    if images == block:
        run(inputs, outputs)
        return
    if images < block:
        _run_padded(program, run, images, inputs, outputs)
        return
    steps = [[info.nbytes // block for info in infos] for infos in (program.inputs, program.outputs)]
    starts = [*range(0, images - block + 1, block), *([images - block] if images % block else [])]
    for start in starts:
        places = (
            [address + start * step for address, step in zip(addresses, sizes, strict=True)]
            for addresses, sizes in zip((inputs, outputs), steps, strict=True)
        )
        run(*places)


def _run_padded(program: Program, run: Run, images: int, inputs: Sequence[int], outputs: Sequence[int]) -> None:
    """Compute fewer images than a block; the others are copies of the first, which is one that the model can take."""
    taken, made = ([np.zeros(info.shape, info.dtype) for info in infos] for infos in (program.inputs, program.outputs))
    for array, address in zip(taken, inputs, strict=True):
        ctypes.memmove(array.ctypes.data, address, images * array[0].nbytes)
        array[images:] = array[0]
    run([array.ctypes.data for array in taken], [array.ctypes.data for array in made])
    for array, address in zip(made, outputs, strict=True):
        ctypes.memmove(address, array.ctypes.data, images * array[0].nbytes)
