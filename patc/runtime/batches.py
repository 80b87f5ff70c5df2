"""Calls with any number of images of code that computes blocks of them, and what shapes such code takes."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from patc.diagnostics import PatcError
from patc.integers import ceil_div
from patc.runtime.inputs import ADVICE
from patc.runtime.program import Program, TensorInfo

Run = Callable[[Sequence[int], Sequence[int], int], None]


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


class Block(NamedTuple):
    """What code computes in a call.

    Attributes:
        images: how many.
        cost: of a call.
        counts: whether it may be fewer images, at less cost.
    """

    images: int
    cost: int
    counts: bool


class Call(NamedTuple):
    """A call of code: the number of its block, its first image, and how many images it has."""

    number: int
    start: int
    images: int


@functools.lru_cache(maxsize=256)
def divide(images: int, blocks: tuple[Block, ...]) -> tuple[Call, ...]:
    """Divide a batch into calls, in order.

    Where all code counts images, the smallest block takes them that can, or the largest one in nearly equal parts. Else
    those blocks are called that cost least together: the last one may overlap the one before, and one that is larger
    than the batch comes alone, and has to be padded.
    """
    if all(block.counts or block.images == 1 for block in blocks):
        return tuple(_in_parts(images, blocks))
    return tuple(_in_blocks(images, blocks))


def _in_parts(images: int, blocks: Sequence[Block]) -> Iterator[Call]:
    order = sorted(range(len(blocks)), key=lambda number: blocks[number].images)
    number = next((number for number in order if blocks[number].images >= images), order[-1])
    parts = ceil_div(images, blocks[number].images)
    for part in range(parts):
        start, end = (images * place // parts for place in (part, part + 1))
        yield Call(number, start, end - start)


def _in_blocks(images: int, blocks: Sequence[Block]) -> Iterator[Call]:
    best = min(range(len(blocks)), key=lambda number: (blocks[number].cost / blocks[number].images, -blocks[number][0]))
    size = blocks[best].images
    whole = max(0, images // size - 1)
    costs, chosen = [0], [0]
    for count in range(1, images - whole * size + 1):
        totals = [block.cost + costs[max(0, count - block.images)] for block in blocks]
        costs.append(min(totals))
        chosen.append(totals.index(costs[-1]))
    numbers, left = [best] * whole, images - whole * size
    while left > 0:
        numbers.append(chosen[left])
        left -= blocks[chosen[left]].images
    start = 0
    for number in sorted(numbers, key=lambda number: -blocks[number].images):
        block = blocks[number].images
        yield Call(number, max(0, min(start, images - block)), block)
        start += block


def run_block(
    program: Program, run: Run, images: int, call: Call, inputs: Sequence[int], outputs: Sequence[int]
) -> None:
    """Compute some images of a batch, which is padded where the code computes more.

    Args:
        run: computes so many images at some addresses.
        inputs, outputs: addresses of `images` images.
    """
    if images < call.images:
        _run_padded(program, run, images, inputs, outputs)
        return
    given, made = (
        [address + call.start * (info.nbytes // program.block) for address, info in zip(addresses, infos, strict=True)]
        for addresses, infos in ((inputs, program.inputs), (outputs, program.outputs))
    )
    run(given, made, call.images)


def _run_padded(program: Program, run: Run, images: int, inputs: Sequence[int], outputs: Sequence[int]) -> None:
    """Compute fewer images than a block; the others are copies of the first, which is one that the model can take."""
    taken, made = ([np.zeros(info.shape, info.dtype) for info in infos] for infos in (program.inputs, program.outputs))
    for array, address in zip(taken, inputs, strict=True):
        ctypes.memmove(array.ctypes.data, address, images * array[0].nbytes)
        array[images:] = array[0]
    run([array.ctypes.data for array in taken], [array.ctypes.data for array in made], program.block)
    for array, address in zip(made, outputs, strict=True):
        ctypes.memmove(address, array.ctypes.data, images * array[0].nbytes)
