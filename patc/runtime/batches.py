"""Calls with any number of images of code that computes blocks of them, and what shapes such code takes."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from patc.diagnostics import PatcError
from patc.runtime.inputs import ADVICE
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
        raise PatcError(f"{wanted}, got shape {list(shape)}: the batch alone is free, from 1 on; {ADVICE}")
    return int(shape[0])


def sized(infos: Sequence[TensorInfo], images: int) -> tuple[TensorInfo, ...]:
    """Return tensors of as many images."""
    return tuple(info if info.shape[0] == images else replace(info, shape=(images, *info.shape[1:])) for info in infos)


def describe_sizes(info: TensorInfo, dynamic_batch: bool) -> str:
    """Return a shape, whose first size may be any batch."""
    return f"[{', '.join(['batch', *map(str, info.shape[1:])])}]" if dynamic_batch else str(list(info.shape))


def describe_tensors(infos: Sequence[TensorInfo], dynamic_batch: bool) -> str:
    """Return names and shapes of tensors."""
    return ", ".join(f"{info.name} {describe_sizes(info, dynamic_batch)}" for info in infos)


def describe_entries(program: Program) -> str:
    """Return the shapes of inputs that a program takes; blocks of a dynamic batch are none of their own."""
    return " or ".join(dict.fromkeys(describe_tensors(entry.inputs, entry.dynamic_batch) for entry in program.entries))


@functools.lru_cache(maxsize=256)
def divide(images: int, blocks: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Divide a batch into blocks, at the lowest cost: (number of the block, its first image) of each, in order.

    The last block may overlap the one before. One that is larger than the batch comes alone, and has to be padded.

    Args:
        blocks: how many images each computes at once, and what that costs.
    """
    best = min(range(len(blocks)), key=lambda number: (blocks[number][1] / blocks[number][0], -blocks[number][0]))
    size = blocks[best][0]
    whole = max(0, images // size - 1)
    costs, chosen = [0], [0]
    for count in range(1, images - whole * size + 1):
        totals = [cost + costs[max(0, count - covered)] for covered, cost in blocks]
        costs.append(min(totals))
        chosen.append(totals.index(costs[-1]))
    numbers, left = [best] * whole, images - whole * size
    while left > 0:
        numbers.append(chosen[left])
        left -= blocks[chosen[left]][0]
    found, start = [], 0
    for number in sorted(numbers, key=lambda number: -blocks[number][0]):
        found.append((number, max(0, min(start, images - blocks[number][0]))))
        start += blocks[number][0]
    return tuple(found)


def run_block(
    program: Program, run: Run, images: int, start: int, inputs: Sequence[int], outputs: Sequence[int]
) -> None:
    """Compute one block of a batch, which is padded where the batch is smaller.

    Args:
        run: computes a block at some addresses.
        start: the first of its images.
        inputs, outputs: addresses of `images` images.
    """
    block = program.block
    if images < block:
        _run_padded(program, run, images, inputs, outputs)
        return
    places = (
        [address + start * (info.nbytes // block) for address, info in zip(addresses, infos, strict=True)]
        for addresses, infos in ((inputs, program.inputs), (outputs, program.outputs))
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
