"""Quantised activations: a type of elements that says which real numbers its integers stand for."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import PatternDialect, f32, i64


class QuantisedType(PatternDialect.Type, name="quantised"):
    """An integer of eight bits that stands for a real number, real = scale * (integer - zero_point).

    `!pattern.quantised<ui8, 2.0e-02 : f32, 128 : i64>`: how the integer is stored, `si8` or `ui8`; the scale, above 0;
    the zero point, one of the integers. An activation has one for all of its elements. Weights are integers without a
    zero point, and have a scale for each filter: the attribute `scales` of their layer.
    """

    storage: Any
    scale: Any
    zero_point: Any

    def find_violation(self) -> str | None:
        """Return what was expected of the first part that is wrong."""
        storage, scale, zero_point = self.storage, self.scale.maybe_downcast(), self.zero_point.maybe_downcast()
        if str(storage) not in ("si8", "ui8"):
            return "!pattern.quantised of si8 or ui8"
        is_f32 = isinstance(scale, ir.FloatAttr) and isinstance(scale.type, ir.F32Type)
        if not is_f32 or not 0 < scale.value < math.inf:
            return "!pattern.quantised with a scale of f32 above 0"
        least = -128 if str(storage) == "si8" else 0
        if not isinstance(zero_point, ir.IntegerAttr) or not least <= zero_point.value < least + 256:
            return f"!pattern.quantised with a zero point of {least} to {least + 255}"
        return None


@dataclass(frozen=True)
class Quantisation:
    """Which real numbers the integers of an activation stand for: real = scale * (integer - zero_point).

    Attributes:
        scale: a float of 32 bits.
        zero_point: the integer of 0.0.
        signed: whether integers are -128 to 127, or else 0 to 255.
    """

    scale: float
    zero_point: int
    signed: bool

    @property
    def lowest(self) -> int:
        return -128 if self.signed else 0

    @property
    def highest(self) -> int:
        return self.lowest + 255

    def stored_as(self, signed: bool) -> "Quantisation":
        """Return the same numbers, stored with a sign or without."""
        moved = self.zero_point + (Quantisation(1.0, 0, signed).lowest - self.lowest)
        return Quantisation(self.scale, moved, signed)

    def integer(self, real: float) -> int:
        """Return the integer nearest to a number, which may be infinite; ties go to the even one."""
        limited = min(max(real / self.scale, -512.0), 512.0)
        return min(max(int(np.rint(limited)) + self.zero_point, self.lowest), self.highest)

    def to_type(self) -> ir.Type:
        storage = ir.IntegerType.get_signed(8) if self.signed else ir.IntegerType.get_unsigned(8)
        return QuantisedType.get(ir.TypeAttr.get(storage), f32(self.scale), i64(self.zero_point))

    @staticmethod
    def of(type_: ir.Type) -> "Quantisation | None":
        """Return what the elements of a tensor, or elements of this type, stand for; None where they are not
        quantised."""
        element = type_.element_type if isinstance(type_, ir.ShapedType) else type_
        if not isinstance(element, QuantisedType):
            return None
        scale, zero_point = element.scale.maybe_downcast().value, element.zero_point.maybe_downcast().value
        return Quantisation(scale, zero_point, str(element.storage) == "si8")


__all__ = ["Quantisation", "QuantisedType"]
