"""The two files of a net of ncnn: the text that lists layers, and the weights beside it.

    7767517
    3 3
    Input         input    0 1 data 0=4 1=4 2=1
    InnerProduct  ip       1 1 data fc 0=10 1=1 2=160
    Softmax       softmax  1 1 fc prob 0=0

A line is a layer: its type, its name, how many blobs it takes and makes, their names, and parameters by number. The
other file holds weights in the order of the layers, without names: which there are follows from the parameters.
Source: ncnn, docs/developer-guide/param-and-model-file-structure.md.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeAlias

import numpy as np

from patc.diagnostics import PatcError
from patc.files import check_regular

WHAT = "a .param file of ncnn"
MAGIC = "7767517"
Value: TypeAlias = int | float | str | list[float]

_MOST_BYTES = 1 << 26  # of text; nets of a thousand layers have 100 KB
_ARRAY = 23300  # -23303 is an array for parameter 3
_COMMON = {30, 31}  # shapes of the outputs as a hint, and which features of ncnn a layer is to use
_FLOAT16, _BFLOAT16, _INT8, _FLOAT32 = 0x01306B47, 0x01348B83, 0x000D4B38, 0x0002C056


@dataclass
class NcnnLayer:
    """A line of the text. What a builder does not ask for is no parameter that patc knows, see `require_all_known`.

    Attributes:
        type: such as Convolution.
        inputs, outputs: names of blobs.
        values: parameters by their numbers.
        place: how errors name it.
        asked: numbers of parameters that were looked at.
    """

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: dict[int, Value]
    place: str
    asked: set[int] = field(default_factory=set)

    def integer(self, key: int, default: int) -> int:
        """Return a parameter that is an integer."""
        value = self._get(key, default)
        if not isinstance(value, int):
            self.refuse(f"expected an integer for parameter {key}", str(value))
        return value

    def number(self, key: int, default: float) -> float:
        """Return a parameter that is a float."""
        value = self._get(key, default)
        if not isinstance(value, (int, float)):
            self.refuse(f"expected a number for parameter {key}", str(value))
        return float(value)

    def numbers(self, key: int) -> list[float]:
        """Return a parameter that is an array, an empty one where it is missing."""
        value = self._get(key, [])
        if isinstance(value, str):
            self.refuse(f"expected an array of numbers for parameter {key}", f"'{value}'")
        return value if isinstance(value, list) else [value]

    def integers(self, key: int) -> list[int]:
        """Return a parameter that is an array of integers, an empty one where it is missing."""
        values = self.numbers(key)
        if not all(isinstance(value, int) for value in values):
            self.refuse(f"expected integers in parameter {key}", str(values))
        return [int(value) for value in values]

    def sizes(self) -> list[int]:
        """Return the sizes of a blob, outermost first, of those axes that have one."""
        return [size for size in (self.integer(key, 0) for key in (2, 11, 1, 0)) if size]

    def choose(self, key: int, names: Sequence[str], default: int = 0) -> str:
        """Return the name of what an integer stands for."""
        value = self.integer(key, default)
        if not 0 <= value < len(names):
            self.refuse(f"expected 0 to {len(names) - 1} for parameter {key}", str(value))
        return names[value]

    def require(self, key: int, wanted: int, why: str) -> None:
        """Refuse a parameter that has another value than the only one that patc knows."""
        found = self._get(key, wanted)
        if found != wanted:
            self.refuse(f"expected {key}={wanted}", f"{key}={found}: {why}")

    def require_all_known(self) -> None:
        """Refuse parameters that nothing asked for."""
        unknown = sorted(self.values.keys() - self.asked - _COMMON)
        if unknown:
            self.refuse(
                "expected parameters that patc knows", ", ".join(f"{key}={self.values[key]}" for key in unknown)
            )

    def refuse(self, expected: str, found: str) -> NoReturn:
        """Raise the error for this layer."""
        raise PatcError(f"{expected} of {self.type}, found {found}", self.place)

    def _get(self, key: int, default: Value) -> Value:
        self.asked.add(key)
        return self.values.get(key, default)


# -- The text --------------------------------------------------------------------------------------


def read_layers(path: Path) -> list[NcnnLayer]:
    """Return the layers of a .param file, each behind those whose blobs it takes.

    Raises:
        PatcError: there is no such file, or it is none of ncnn's text; the line is named.
    """
    check_regular(path, WHAT)
    lines = _read_text(path).splitlines()
    magic = lines[0].strip() if lines else ""
    if magic != MAGIC:
        hint = ", the binary form: give the .param file that it was made of" if _is_binary(path) else f" '{magic[:20]}'"
        raise PatcError(f"expected {MAGIC} in the first line of {WHAT}, found{hint}", str(path))
    counts = lines[1].split() if len(lines) > 1 else []
    if len(counts) != 2 or not all(word.isdecimal() and len(word) < 10 for word in counts):
        raise PatcError("expected numbers of layers and blobs in the second line", f"{path}:2")
    layers = [_read_layer(line, f"{path}:{number}") for number, line in enumerate(lines[2:], 3) if line.strip()]
    if len(layers) != int(counts[0]):
        raise PatcError(f"expected {counts[0]} layers as the second line says, found {len(layers)}", str(path))
    _check_blobs(layers)
    return layers


def _read_text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_BYTES).decode(errors="replace")
    except OSError as error:
        raise PatcError(f"cannot read the file: {error.strerror or error}", str(path)) from None


def _is_binary(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == int(MAGIC).to_bytes(4, "little")


def _read_layer(line: str, place: str) -> NcnnLayer:
    words = line.split()
    counts = words[2:4]
    if len(counts) != 2 or not all(word.isdecimal() and len(word) < 6 for word in counts):
        raise PatcError("expected a layer's type and name, and how many blobs it takes and makes", place)
    taken, made = map(int, counts)
    blobs, pairs = words[4 : 4 + taken + made], words[4 + taken + made :]
    if len(blobs) != taken + made:
        raise PatcError(f"expected the names of {taken + made} blobs, found {len(blobs)}", place)
    place = f"{place}: {words[1]}"
    values: dict[int, Value] = {}
    for pair in pairs:
        key, value = _read_pair(pair, place)
        if key in values:
            raise PatcError(f"expected each parameter once, found {key} twice", place)
        values[key] = value
    return NcnnLayer(words[0], words[1], tuple(blobs[:taken]), tuple(blobs[taken:]), values, place)


def _read_pair(pair: str, place: str) -> tuple[int, Value]:
    """Return number and value of `4=1`, `10=0.1,6.0`, `-23310=2,0.1,6.0` or `6=text`."""
    word, separator, text = pair.partition("=")
    if not separator or not re.fullmatch(r"-?\d{1,5}", word):
        raise PatcError(f"expected parameters such as 0=16, found '{pair[:40]}'", place)
    key = int(word)
    if key > -_ARRAY:
        values: list[Value] = [_read_value(part, place) for part in text.split(",")]
        if len(values) == 1:
            return key, values[0]
    else:
        key, (count, *parts) = -key - _ARRAY, text.split(",")
        if not count.isdecimal() or int(count) != len(parts):
            raise PatcError(f"expected an array of {count[:9]} numbers, found {len(parts)}", place)
        values = [_read_value(part, place) for part in parts]
    numbers = [value for value in values if isinstance(value, (int, float))]
    if len(numbers) < len(values):
        return key, text  # an expression
    return key, numbers


def _read_value(text: str, place: str) -> int | float | str:
    try:
        return int(text) if re.fullmatch(r"[-+]?\d{1,10}", text) else float(text)
    except ValueError:
        if not text or len(text) > 255:
            raise PatcError(f"expected a value, found '{text[:40]}'", place) from None
        return text.strip('"')


def _check_blobs(layers: Sequence[NcnnLayer]) -> None:
    made: set[str] = set()
    for layer in layers:
        missing = next((name for name in layer.inputs if name not in made), None)
        if missing is not None:
            raise PatcError(f"expected blobs that earlier layers make, found '{missing}'", layer.place)
        for name in layer.outputs:
            if name in made:
                raise PatcError(f"expected each blob to be made once, found '{name}' twice", layer.place)
            made.add(name)
    twice = next((name for name, count in Counter(layer.name for layer in layers).items() if count > 1), None)
    if twice is not None:
        place = [layer.place for layer in layers if layer.name == twice][1]
        raise PatcError("expected each layer to have a name of its own, found one twice", place)


# -- The weights -----------------------------------------------------------------------------------


class WeightReader:
    """Hands out the weights of a .bin file in their order, as float32 arrays that hold exactly what the file does."""

    def __init__(self, path: Path) -> None:
        check_regular(path, "the weights of a net of ncnn")
        try:
            self._data = np.fromfile(path, np.uint8)
        except OSError as error:
            raise PatcError(f"cannot read the file: {error.strerror or error}", str(path)) from None
        self.path, self._place = path, 0

    def tagged(self, layer: NcnnLayer, *shape: int) -> np.ndarray:
        """Return weights in front of which their element type stands."""
        tag = int(self._take(layer, np.dtype("<u4"), 1)[0])
        count = math.prod(shape)
        if tag in (0, _FLOAT32):
            values = self._take(layer, np.dtype("<f4"), count).astype(np.float32)
        elif tag == _FLOAT16:
            values = self._take(layer, np.dtype("<f2"), count).astype(np.float32)
        elif tag == _BFLOAT16:
            values = (self._take(layer, np.dtype("<u2"), count).astype(np.uint32) << 16).view(np.float32)
        else:
            found = "int8" if tag == _INT8 else f"other ones (tag {tag:#010x}), such as a table of 256 values"
            layer.refuse("expected float32, float16 or bfloat16 weights", found)
        return values.reshape(shape)

    def plain(self, layer: NcnnLayer, *shape: int) -> np.ndarray:
        """Return float32 weights, in front of which nothing stands."""
        return self._take(layer, np.dtype("<f4"), math.prod(shape)).astype(np.float32).reshape(shape)

    def require_end(self) -> None:
        """Refuse bytes behind the last weight.

        Raises:
            PatcError: there are some.
        """
        if self._place != self._data.size:
            found = f"expected {self._place} bytes, as the layers have weights, found {self._data.size}"
            raise PatcError(found, str(self.path))

    def _take(self, layer: NcnnLayer, dtype: np.dtype, count: int) -> np.ndarray:
        end = self._place + count * dtype.itemsize
        if count < 0 or end > self._data.size:
            expected = f"expected {count * dtype.itemsize} bytes of weights for '{layer.name}' at byte {self._place}"
            raise PatcError(f"{expected}, found {self._data.size - self._place}", str(self.path))
        values = self._data[self._place : end].view(dtype)
        self._place = min(end + -end % 4, self._data.size)  # the last padding may be missing
        return values
