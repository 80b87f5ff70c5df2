"""Element types, and what nets compute in: the tables that everything else asks.

Neither torch nor MLIR nor numpy is needed here: compiled models are loaded without the first two, and `--help` without
all three.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ElementType:
    """What a tensor has elements of.

    Attributes:
        dtype: numpy's name, which is torch's and that of saved models.
        mlir: how MLIR spells it; integers have no sign there.
        c: in headers; what C has no type for is its bits.
    """

    dtype: str
    mlir: str
    c: str

    @property
    def bytes(self) -> int:
        """Of an element in memory."""
        return max(1, int(self.mlir.lstrip("bfi")) // 8)  # a boolean takes a whole one


BFLOAT16 = "bfloat16"  # numpy knows it by the package ml_dtypes
ELEMENT_TYPES = {
    type_.dtype: type_
    for type_ in (
        ElementType("float64", "f64", "double"),
        ElementType("float32", "f32", "float"),
        ElementType("float16", "f16", "uint16_t"),
        ElementType(BFLOAT16, "bf16", "uint16_t"),
        ElementType("int64", "i64", "int64_t"),
        ElementType("int32", "i32", "int32_t"),
        ElementType("int16", "i16", "int16_t"),
        ElementType("int8", "i8", "int8_t"),
        ElementType("uint64", "i64", "uint64_t"),
        ElementType("uint32", "i32", "uint32_t"),
        ElementType("uint16", "i16", "uint16_t"),
        ElementType("uint8", "i8", "uint8_t"),
        ElementType("bool", "i1", "uint8_t"),
    )
}
# Those of tensors of torch that patc compiles: torch computes with no others.
TORCH_TYPES = tuple(name for name in ELEMENT_TYPES if name not in ("uint64", "uint32", "uint16"))
FLOAT32 = ELEMENT_TYPES["float32"]
FLOAT16 = ELEMENT_TYPES["float16"]
INT32 = ELEMENT_TYPES["int32"]
# By MLIR's name, where an integer of which nothing else is known has a sign.
MLIR_TYPES = {type_.mlir: type_ for type_ in ELEMENT_TYPES.values() if not type_.dtype.startswith("u")}


@dataclass(frozen=True)
class Numerics:
    """What a net computes in between its inputs and outputs.

    Attributes:
        name: what users call it: MLIR's name of `storage`.
        storage: activations and weights in memory; what is computed becomes this, rounded to nearest.
        compute: what the factors of a product are, and the sums of convolutions.
        accumulator: sums of means and of fully connected layers, and all that the oracle of tests computes.
        unit: how far rounding to `compute` moves a number at most, relative to it.
        longest_sum: products that a sum in `compute` takes before it goes to a total; None for any number.
        error_bound: what is promised of results, relative to the output's largest magnitude.
        features: extensions, any of which a CPU needs to compute so; none where every CPU does.
    """

    storage: ElementType
    compute: ElementType
    accumulator: ElementType
    unit: float
    longest_sum: int | None
    error_bound: float
    features: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.storage.mlir


NUMERICS = {
    numerics.name: numerics
    for numerics in (
        Numerics(FLOAT32, FLOAT32, FLOAT32, 2.0**-24, None, 1e-4, ()),
        # Accumulators hold 11 bits: of a sum of many products most would be lost.
        Numerics(FLOAT16, FLOAT16, FLOAT32, 2.0**-11, 256, 2e-2, ("fullfp16", "avx512fp16")),
    )
}
