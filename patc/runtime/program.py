"""What a compiled model consists of."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from patc.diagnostics import PatcError
from patc.dialects.schedules import Buffer
from patc.layers import LayerReport
from patc.numerics import BFLOAT16, ELEMENT_TYPES, ElementType

ENTRY = "main"


@dataclass(frozen=True)
class TensorInfo:
    """An input or output.

    Attributes:
        dtype: a key of `ELEMENT_TYPES`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype == BFLOAT16:
            try:
                importlib.import_module("ml_dtypes")
            except ImportError:
                raise PatcError(
                    f"expected the package ml_dtypes for {self}, found none: pip install ml_dtypes"
                ) from None

    @property
    def element(self) -> ElementType:
        return ELEMENT_TYPES[self.dtype]

    @property
    def nbytes(self) -> int:
        return self.element.bytes * math.prod(self.shape)

    def __str__(self) -> str:
        return f"'{self.name}' of shape {list(self.shape)} {self.dtype}"


@dataclass(frozen=True)
class Program:
    """Everything that a compiled model consists of, as it is saved.

    Attributes:
        code: what the backend makes; for CPUs an object file whose `main` takes pointers to the inputs, the outputs,
            the time stamps, the arena and the weights.
        weights: the bytes that the kernels read.
        inputs, outputs: in the order of the pointers.
        structure: how outputs nest, see `patc.runtime.model.nest`.
        arena_bytes: memory for activations.
        backend: name of the backend that made the code and can run it.
        target: name of the target.
        features: instruction set extensions that the code needs.
        threads: threads that divide each layer.
        layers: in the order in which they run.
        dynamic_batch: whether a call may have any number of images; the code computes as many at once as the first
            dimensions of inputs and outputs say.
        counts_images: whether `main` takes how many images there are, up to `block`, behind the time stamps; else it
            computes all of a block.
        own_bytes: of the weights, those that the program of no shape before reads.
        buffers: where activations are in the arena.
        variants: the same net for inputs of other shapes, with code of their own and the same weights; they have none.
    """

    code: bytes
    weights: np.ndarray
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    structure: Any
    arena_bytes: int
    backend: str
    target: str
    features: tuple[str, ...]
    threads: int
    layers: tuple[LayerReport, ...]
    dynamic_batch: bool = False
    counts_images: bool = False
    own_bytes: int = 0
    buffers: tuple[Buffer, ...] = ()
    variants: tuple[Program, ...] = ()

    @property
    def block(self) -> int:
        """Images that the code computes at once, of a program of dynamic batch; else 0."""
        return self.inputs[0].shape[0] if self.dynamic_batch else 0

    @property
    def key(self) -> tuple[tuple[int, ...], ...]:
        """What tells the program from those of other shapes by; blocks of one dynamic batch have the same."""
        return self.key_of(info.shape for info in self.inputs)

    def key_of(self, shapes: Iterable[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
        """Return the key of inputs of some shapes: these, without their batch where that is dynamic."""
        return tuple(shape[1:] for shape in shapes) if self.dynamic_batch else tuple(shapes)

    @property
    def entries(self) -> tuple[Program, ...]:
        """The program for each of the shapes that it was compiled for."""
        return (self, *self.variants)

    def with_weights(self, weights: np.ndarray) -> Program:
        """Return the program with weights, which its variants share."""
        return replace(self, weights=weights, variants=tuple(item.with_weights(weights) for item in self.variants))

    def with_code(self, code: Sequence[bytes]) -> Program:
        """Return the program with code for each entry."""
        variants = (replace(item, code=part) for item, part in zip(self.variants, code[1:], strict=True))
        return replace(self, code=code[0], variants=tuple(variants))
