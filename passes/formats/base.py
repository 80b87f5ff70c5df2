"""What a weight format is: all that passes ask about how the weights of a sparse layer are stored."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from torch_mlir import ir

from patc.dialects.schedules import KeptKernels

Arrays: TypeAlias = tuple[np.ndarray, ...]


class StaysDense(Exception):
    """Why a layer's weights are not stored in a format."""


@dataclass(frozen=True)
class EncodeOptions:
    """What a format may do to a layer's weights; the options of `pattern-encode`."""

    max_patterns: int = 16
    min_sparsity: float = 0.3
    library: tuple[int, ...] = ()


class WeightFormat(abc.ABC):
    """One layer's format: a way to store weights without their zeros, and what it needs to know for this layer.

    The arrays that its methods take and return are those of the layer, in the order of `attribute.array_names`. They
    are written for F filters and C input channels. Stored filters may be in another order than output channels.

    Attributes:
        attribute: class of the attribute by which a sparse op carries the format.
    """

    attribute: ClassVar[type]

    @classmethod
    @abc.abstractmethod
    def encode(cls, weight: np.ndarray, groups: int, options: EncodeOptions) -> tuple[WeightFormat, Arrays] | None:
        """Return the format and the arrays of a layer's weights; None where they are dense as a matter of course.

        Args:
            weight: F x C/groups x KH x KW of a convolution, F x C of a linear layer, float32.

        Raises:
            StaysDense: the weights do not fit the format; the reason.
        """

    @classmethod
    @abc.abstractmethod
    def from_attr(cls, attr: Any) -> WeightFormat:
        """Return the format that an attribute of the class `attribute` stands for."""

    @abc.abstractmethod
    def to_attr(self) -> ir.Attribute:
        """Return the attribute for `from_attr`."""

    @abc.abstractmethod
    def decode(self, arrays: Arrays, channels: int, groups: int = 1) -> np.ndarray:
        """Return the F x C/groups x KH x KW weights, F x C x 1 x 1 of a linear layer, ordered by output channel.

        Args:
            channels: C.
            groups: of a convolution; no filter reads a channel of another group than its own.
        """

    @abc.abstractmethod
    def find_violation(self, arrays: Arrays, channels: int, groups: int = 1) -> tuple[str, Any] | None:
        """Return the first rule that arrays of the right shapes break, and what was found instead.

        Args:
            channels: C.
            groups: of a convolution.
        """

    @abc.abstractmethod
    def kept_weights(self, shapes: Sequence[Sequence[int]]) -> int:
        """Return how many weights arrays of these shapes hold: the multiplications for one place of the result."""

    @property
    @abc.abstractmethod
    def reads_neighbours(self) -> bool:
        """Whether what is stored reads several consecutive input channels, so that these cannot change places."""

    @abc.abstractmethod
    def order_filters(self, arrays: Arrays) -> np.ndarray:
        """Return the stored filters in the order in which they are computed best, which is then 0, 1, 2, ...: F."""

    @abc.abstractmethod
    def output_channels(self, arrays: Arrays) -> np.ndarray:
        """Return the output channel of each stored filter: F."""

    @abc.abstractmethod
    def permute_filters(self, arrays: Arrays, order: np.ndarray, positions: np.ndarray) -> Arrays:
        """Return the arrays with the stored filters in another order, and their output channels renumbered.

        Args:
            order: F, from `order_filters`.
            positions: F, the new number of each output channel.
        """

    @abc.abstractmethod
    def permute_channels(self, arrays: Arrays, positions: np.ndarray) -> Arrays:
        """Return the arrays with the input channels renumbered.

        Args:
            positions: C, the new number of each input channel; 0, 1, 2, ... for a format that `reads_neighbours`.
        """

    @abc.abstractmethod
    def shares(self, arrays: Arrays) -> tuple[float, ...]:
        """Return which part of the kept weights each loop of a kernel computes; together they are 1."""

    def vectors(self, arrays: Arrays) -> float:
        """Return the operations on vectors of 16 filters for one row of a linear layer's input, or for one pixel, by
        which the formats that take a layer's weights are compared; infinite for one that gives way to any other."""
        return float("inf")

    def kept_kernels(self, arrays: Arrays, channels: int, groups: int = 1) -> KeptKernels | None:
        """Return what reports say of the kernels, of a format that keeps some and drops others."""
        return None
