"""What a saved model says about itself, as JSON: written, and read again with every field checked.

The digests of the description and of the weights are part of the code, see `interface`: code never runs with others.
"""

from __future__ import annotations

import hashlib
import json
import keyword
import unicodedata
from dataclasses import astuple, replace
from typing import Any

import numpy as np

from patc.dialects.schedules import Alternative, Buffer, Explanation, KeptKernels, Schedule, Zeros
from patc.layers import LayerReport
from patc.numerics import ELEMENT_TYPES
from patc.runtime.json_values import JsonValue, printable, read_json
from patc.runtime.program import Program, TensorInfo
from patc.targets import MOST_THREADS

_MOST_TENSORS, _MOST_DIMENSIONS, _MOST_LAYERS, _MOST_FEATURES, _MOST_VARIANTS = 1 << 10, 16, 1 << 16, 512, 1 << 10
_LARGEST_DIMENSION = (1 << 31) - 1
_LARGEST_MEMORY = 1 << 40  # bytes
_LARGEST_NUMBER = (1 << 63) - 1
_MOST_LETTERS = 64  # of a row of a picture
_DEEPEST = 64
_KEYS = (
    "inputs",
    "outputs",
    "structure",
    "arena_bytes",
    "backend",
    "target",
    "features",
    "threads",
    "layers",
    "dynamic_batch",
    "counts_images",
    "own_bytes",
    "buffers",
    "variants",
)
# The others are those of all.
_VARIANT_KEYS = ("inputs", "outputs", "structure", "arena_bytes", "layers", "counts_images", "own_bytes", "buffers")
_WORDS = ("name", "source", "op", "dtype", "weight_dtype")  # of a layer
_COUNTS = ("weights", "kept_weights", "flops", "moved_bytes", "predicted_cycles")


def describe(program: Program) -> bytes:
    """Return all but code and weights as JSON text; equal programs give equal text."""
    values = _values(program)
    variants = map(_values, program.variants)
    values["variants"] = [{key: variant[key] for key in _VARIANT_KEYS} for variant in variants]
    return json.dumps(values, separators=(",", ":")).encode()


def _values(program: Program) -> dict[str, Any]:
    return {
        "inputs": [_tensor(info) for info in program.inputs],
        "outputs": [_tensor(info) for info in program.outputs],
        "structure": program.structure,
        "arena_bytes": program.arena_bytes,
        "backend": program.backend,
        "target": program.target,
        "features": program.features,
        "threads": program.threads,
        "layers": [_printable(layer.to_json()) for layer in program.layers],
        "dynamic_batch": program.dynamic_batch,
        "counts_images": program.counts_images,
        "own_bytes": program.own_bytes,
        "buffers": [astuple(buffer) for buffer in program.buffers],
    }


def _tensor(info: TensorInfo) -> dict[str, Any]:
    return {"name": printable(info.name), "shape": info.shape, "dtype": info.dtype}


def _printable(value: Any) -> Any:
    """Return JSON values with texts that can be printed."""
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def interface(description: bytes, weights_digest: bytes, entry: int) -> bytes:
    """Return what code says that it was compiled for; a constant of an object file, see `patc.runtime.object_code`.

    Args:
        description: text of `describe`.
        weights_digest: of `patc.runtime.artefact.digest_weights`.
        entry: number of the entry that the code is for.
    """
    return hashlib.sha256(entry.to_bytes(8, "little") + description).digest() + weights_digest


def parse(text: bytes) -> Program:
    """Return the program, without code and weights, that a text of `describe` says.

    Raises:
        ValueError: what is wrong and where, in one line.
    """
    fields = dict(zip(_KEYS, JsonValue(read_json(text), "").fields(*_KEYS), strict=True))
    program = Program(
        code=b"",
        weights=np.zeros(0, np.uint8),
        inputs=_parse_tensors(fields["inputs"], 0),
        outputs=_parse_tensors(fields["outputs"], 1),
        structure=fields["structure"].value,
        arena_bytes=fields["arena_bytes"].integer(0, _LARGEST_MEMORY),
        backend=fields["backend"].text(64),
        target=fields["target"].text(64),
        features=tuple(item.text(32) for item in fields["features"].items(0, _MOST_FEATURES)),
        threads=fields["threads"].integer(1, MOST_THREADS),
        layers=tuple(_parse_layer(item) for item in fields["layers"].items(0, _MOST_LAYERS)),
        dynamic_batch=fields["dynamic_batch"].truth(),
        counts_images=fields["counts_images"].truth(),
        own_bytes=fields["own_bytes"].integer(0, _LARGEST_MEMORY),
        buffers=_parse_buffers(fields["buffers"]),
    )
    _check_entry(program, fields["structure"])
    variants = [_parse_variant(item, program) for item in fields["variants"].items(0, _MOST_VARIANTS)]
    program = replace(program, variants=tuple(variants))
    shapes = [tuple(info.shape for info in entry.inputs) for entry in program.entries]
    if len({*shapes}) < len(shapes):
        raise ValueError("variants: expected inputs of other shapes")
    if describe(program) != text:
        raise ValueError("expected the text as patc writes it")
    return program


def _parse_variant(value: JsonValue, main: Program) -> Program:
    """Return a program that differs from another one in shapes and in how it computes."""
    inputs, outputs, structure, arena_bytes, layers, counts_images, own_bytes, buffers = value.fields(*_VARIANT_KEYS)
    program = replace(
        main,
        inputs=_parse_tensors(inputs, 0),
        outputs=_parse_tensors(outputs, 1),
        structure=structure.value,
        arena_bytes=arena_bytes.integer(0, _LARGEST_MEMORY),
        layers=tuple(_parse_layer(item) for item in layers.items(0, _MOST_LAYERS)),
        counts_images=counts_images.truth(),
        own_bytes=own_bytes.integer(0, _LARGEST_MEMORY),
        buffers=_parse_buffers(buffers),
    )
    if [(info.name, info.dtype) for info in program.inputs] != [(info.name, info.dtype) for info in main.inputs]:
        inputs.refuse("the inputs of all variants")
    _check_entry(program, structure)
    return program


def _check_entry(program: Program, structure: JsonValue) -> None:
    batches = {info.shape[:1] for info in (*program.inputs, *program.outputs)}
    if any(number <= max(layer.reads, default=-1) for number, layer in enumerate(program.layers)):
        raise ValueError("layers: expected each to read from layers before it")
    if program.dynamic_batch and (not program.inputs or len(batches) > 1 or () in batches):
        raise ValueError("dynamic_batch: expected inputs and outputs of one batch size")
    leaves: list[int] = []
    _check_structure(structure, leaves, 0)
    if sorted(leaves) != list(range(len(program.outputs))):
        raise ValueError(f"structure: expected each of {len(program.outputs)} outputs once, found {leaves}")


def _parse_tensors(value: JsonValue, fewest: int) -> tuple[TensorInfo, ...]:
    return tuple(_parse_tensor(item) for item in value.items(fewest, _MOST_TENSORS))


def _parse_tensor(value: JsonValue) -> TensorInfo:
    name, sizes, dtype = value.fields("name", "shape", "dtype")
    if dtype.text() not in ELEMENT_TYPES:
        dtype.refuse(f"one of {', '.join(ELEMENT_TYPES)}")
    info = TensorInfo(name.text(), sizes.integers(0, _MOST_DIMENSIONS, 1, _LARGEST_DIMENSION), dtype.text())
    if info.nbytes > _LARGEST_MEMORY:
        sizes.refuse(f"a tensor of at most {_LARGEST_MEMORY} bytes")
    return info


def _parse_buffers(value: JsonValue) -> tuple[Buffer, ...]:
    items = value.items(0, _MOST_LAYERS)
    return tuple(Buffer(*item.integers(4, 4, 0, _LARGEST_MEMORY)) for item in items)


def _parse_layer(value: JsonValue) -> LayerReport:
    fields = _fields(value, LayerReport)
    words = {word: fields[word].text() for word in _WORDS}
    counts = {count: fields[count].integer(0, _LARGEST_NUMBER) for count in _COUNTS}
    lists = {
        name: fields[name].integers(*length, 1, _LARGEST_DIMENSION)
        for name, length in (("shape", (0, _MOST_DIMENSIONS)), ("kernel", (2, 2)), ("strides", (2, 2)))
    }
    explanation, kernels, zeros = fields["explanation"], fields["kernels"], fields["zeros"]
    others: dict[str, Any] = {
        "schedule": _parse_schedule(fields["schedule"]),
        "explanation": None if explanation.value is None else _parse_explanation(explanation),
        "reads": fields["reads"].integers(0, _MOST_LAYERS, -_MOST_TENSORS, _MOST_LAYERS),
        "kernels": None if kernels.value is None else _parse_kernels(kernels),
        "remarks": tuple(item.text() for item in fields["remarks"].items(0, _MOST_LAYERS)),
        "zeros": None if zeros.value is None else _parse_zeros(zeros),
    }
    return LayerReport(**words, **counts, **lists, **others)  # type: ignore[arg-type] # lengths are checked


def _parse_kernels(value: JsonValue) -> KeptKernels:
    size, masks, counts, spread, picture = value.fields("size", "masks", "counts", "spread", "picture")
    kept = KeptKernels(
        size.integers(3, 3, 1, _LARGEST_DIMENSION),
        masks.integers(1, _MOST_LAYERS, 1, _LARGEST_NUMBER),
        counts.integers(1, _MOST_LAYERS, 0, _LARGEST_NUMBER),
        spread.integers(10, 10, 0, _LARGEST_DIMENSION),
        tuple(row.text(_MOST_LETTERS) for row in picture.items(1, _MOST_LETTERS)),
    )
    digits = {*"".join(kept.picture)} <= {*"0123456789abcdef"}
    if len({*map(len, kept.picture)}) > 1 or not kept.picture[0] or not digits:
        picture.refuse("rows of as many hexadecimal digits each")
    if len(kept.masks) != len(kept.counts):
        counts.refuse("a number for each mask")
    return kept


def _parse_zeros(value: JsonValue) -> Zeros:
    parts = {name: field.number() for name, field in _fields(value, Zeros).items()}
    if not all(0 <= part <= 1 for part in parts.values()):
        value.refuse("parts from 0 to 1")
    return Zeros(**parts)


def _parse_schedule(value: JsonValue) -> Schedule:
    fields = _fields(value, Schedule)
    return Schedule(
        **{
            name: field.text() if name in ("algorithm", "split") else field.integer(1, _LARGEST_NUMBER)
            for name, field in fields.items()
        }  # type: ignore[arg-type] # words are strings
    )


def _parse_explanation(value: JsonValue) -> Explanation:
    fields = _fields(value, Explanation)
    return Explanation(
        bound=fields["bound"].text(),
        considered=fields["considered"].integer(1, _LARGEST_NUMBER),
        alternatives=tuple(_parse_alternative(item) for item in fields["alternatives"].items(0, _MOST_LAYERS)),
        notes=tuple(item.text() for item in fields["notes"].items(0, _MOST_LAYERS)),
        sharing=None if fields["sharing"].value is None else fields["sharing"].number(),
    )


def _parse_alternative(value: JsonValue) -> Alternative:
    fields = _fields(value, Alternative)
    kept = fields["kept_cycles"]
    return Alternative(
        schedule=_parse_schedule(fields["schedule"]),
        cycles=fields["cycles"].integer(0, _LARGEST_NUMBER),
        ratio=fields["ratio"].number(),
        seconds=None if fields["seconds"].value is None else fields["seconds"].number(),
        kept_cycles=None if kept.value is None else kept.integer(0, _LARGEST_NUMBER),
    )


def _fields(value: JsonValue, record: type) -> dict[str, JsonValue]:
    """Return the values of an object that has the fields of a record."""
    names = tuple(record.__annotations__)
    return dict(zip(names, value.fields(*names), strict=True))


# -- The structure of the outputs ----------------------------------------------------------------------


def _check_structure(value: JsonValue, leaves: list[int], depth: int) -> None:
    """Check what `patc.runtime.model.nest` reads, and collect the leaves."""
    members = value.members(1)
    if len(members) != 1 or depth > _DEEPEST:
        value.refuse(f"an object of one key, nested at most {_DEEPEST} deep")
    ((kind, part),) = members
    if kind == "leaf":
        leaves.append(part.integer(0, _MOST_TENSORS))
    elif kind == "constant":
        _check_constant(part)
    elif kind == "float":
        if part.value not in ("inf", "-inf", "nan"):
            part.refuse("inf, -inf or nan")
    else:
        for item in _parts(kind, part, value):
            _check_structure(item, leaves, depth + 1)


def _check_constant(value: JsonValue) -> None:
    if type(value.value) is int:
        value.integer(-_LARGEST_NUMBER, _LARGEST_NUMBER)
    elif value.value is not None and not isinstance(value.value, (bool, float, str)):
        value.refuse("a number, a text or null")


def _parts(kind: str, value: JsonValue, whole: JsonValue) -> list[JsonValue]:
    """Return the parts of a container, whose keys or names are checked."""
    most = 4 * _MOST_TENSORS  # constants are leaves, too
    if kind in ("tuple", "list"):
        return value.items(0, most)
    if kind == "dict":
        pairs = [item.items(2, 2) for item in value.items(0, most)]
        keys = [_key(key) for key, _ in pairs]
        if len(set(keys)) != len(keys):
            value.refuse("keys that differ")
        return [part for _, part in pairs]
    if kind == "namedtuple":
        name, fields, parts = value.items(3, 3)
        names = [_identifier(name), *(_identifier(item) for item in fields.items(0, most))]
        if len(set(names[1:])) != len(names) - 1 or any(item.startswith("_") for item in names[1:]):
            fields.refuse("names of fields that differ and start with a letter")
        return parts.items(len(names) - 1, len(names) - 1)
    whole.refuse("leaf, constant, float, tuple, list, dict or namedtuple as the key")


def _key(value: JsonValue) -> Any:
    if value.value is not None and not isinstance(value.value, (str, bool)):
        return value.integer(-_LARGEST_NUMBER, _LARGEST_NUMBER)
    return value.value


def _identifier(value: JsonValue) -> str:
    # Python takes names of the same normal form for one.
    normal = unicodedata.normalize("NFKC", value.text(256))
    if normal != value.value or not normal.isidentifier() or keyword.iskeyword(normal):
        value.refuse("a name")
    name: str = value.value
    return name
