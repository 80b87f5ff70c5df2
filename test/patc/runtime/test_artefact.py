"""Files of compiled models that were changed, with digests that are right again: refused in one line, or as before.

What instructions do, what is in constants of the code, and which of its symbols a relocation means, is other code.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from repository import SUPPORT
from torch import nn

import patc
from patc.diagnostics import PatcError
from patc.runtime import artefact, elf
from patc.runtime.artefact import FORMAT, Parts
from patc.runtime.description import parse
from patc.runtime.gpu_code import GpuCode
from patc.runtime.model import CompiledModel
from patc.runtime.native_model import NativeModel
from patc.runtime.spirv_module import check_module

SHAPE = (1, 4, 8, 8)
WRONG_NUMBERS = (True, -1, 0, 1.5, 1 << 31, 1 << 63, 10**30)
WRONG_VALUES = (*WRONG_NUMBERS, None, "", "x\ny", "\ud800", "\x1b[1m", "x" * 70000, [], [0], [[]], {}, {"leaf": 0})


class Net(nn.Module):
    """Convolutions, and outputs of equal shapes in containers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        y = torch.relu(self.first(x))
        return {"a": [y, float("inf"), None], "b": (self.second(y),)}


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    torch.manual_seed(0)
    return patc.compile(Net().eval(), (torch.zeros(SHAPE),), threads=2)


@pytest.fixture(scope="module")
def single() -> CompiledModel:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    return patc.compile(model.eval(), (torch.zeros(SHAPE),), threads=2)


@pytest.fixture(scope="module")
def gpu() -> CompiledModel:
    torch.manual_seed(0)
    return patc.compile(Net().eval(), (torch.zeros(SHAPE),), target="spirv-vulkan")


@pytest.fixture(scope="module")
def parts(single: CompiledModel) -> Parts:
    return artefact.split(single.to_bytes())


def load_error(path: Path, content: bytes) -> str:
    """Return why a file of some content cannot be loaded."""
    path.write_bytes(content)
    with pytest.raises(PatcError) as caught:
        patc.load(path)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def outcomes(folder: Path, model: CompiledModel, files: dict[str, bytes]) -> dict[str, str | None]:
    """Return the error of each file, None where it computes what the model does. None may crash, hang or compute else.

    Args:
        model: what the files were before they were changed.
    """
    (folder / "files").write_bytes(pickle.dumps({"good": model.to_bytes(), **files}))
    command = [sys.executable, str(SUPPORT / "load_files.py"), "files", "edited.patc"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    lines = run.stdout.splitlines()
    assert run.returncode == 0, f"{lines[-1] if lines else ''}\n{run.stderr[-2000:]}"
    decoder, found = json.JSONDecoder(), {}
    for line in lines:
        name, end = decoder.raw_decode(line)
        found[name] = json.loads(line[end:])
    assert list(found) == list(files)
    assert [name for name, error in found.items() if error == "wrong numbers"] == []
    assert [error for error in found.values() if error and len(error.splitlines()) != 1] == []
    return found


# -- The file ----------------------------------------------------------------------------------------


def test_parts_make_the_file_again(compiled: CompiledModel, parts: Parts) -> None:
    data = compiled.to_bytes()
    assert artefact.join(artefact.split(data)) == data
    assert json.loads(parts.description)["threads"] == 2
    assert not parts.weights.flags.writeable


def test_a_process_that_may_start_no_thread_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.arange(3 * artefact.PART + 1, dtype=np.uint32).view(np.uint8)[: 3 * artefact.PART + 1]
    wanted = artefact.digest_weights(weights)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert artefact.digest_weights(weights) == wanted
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert artefact.digest_weights(weights) == wanted


def test_every_byte_counts(compiled: CompiledModel, tmp_path: Path) -> None:
    data = compiled.to_bytes()
    step = len(data) // 500
    places = [*range(192), *range(192, len(data), step), len(data) - 1]
    loads = []
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1
        try:
            artefact.split(bytes(changed))
            loads.append(place)
        except ValueError as error:
            assert str(error).startswith("expected a compiled model")
    # Only who asks for a signature looks at it.
    assert loads == list(range(96, 160))


def test_refuses_what_is_cut_or_longer(compiled: CompiledModel, tmp_path: Path) -> None:
    data = compiled.to_bytes()
    _, _, *sizes = struct.unpack_from("<8s4Q", data)
    code = 192 + sizes[0] + -sizes[0] % 64
    ends = [1, 7, 8, 40, 191, 192, 192 + sizes[0], code, code + sizes[1], len(data) - 1]
    for content in [*(data[:end] for end in ends), data + b"\0", data + data]:
        assert load_error(tmp_path / "x", content).startswith("expected a compiled model, found damaged data (")


@pytest.mark.parametrize("content", [b"", b"x", b"\x7fELF" + bytes(100), b"{}" * 50, bytes(300)])
def test_refuses_foreign_files(tmp_path: Path, content: bytes) -> None:
    found = load_error(tmp_path / "x", content)
    assert found == "expected a compiled model, found damaged data or another format"


@pytest.mark.parametrize("version", [0, FORMAT - 1, FORMAT + 1, 1 << 63])
def test_says_which_version_it_found(parts: Parts, tmp_path: Path, version: int) -> None:
    data = bytearray(artefact.join(parts))
    struct.pack_into("<Q", data, 8, version)
    wanted = f"expected a compiled model of format {FORMAT}, found format {version}; compile it again"
    assert load_error(tmp_path / "x", bytes(data)) == wanted


def test_knows_the_files_of_version_2(tmp_path: Path) -> None:
    """They were safetensors files, in which an element type could be changed unseen."""
    from safetensors.numpy import save

    tensors = {"code": np.zeros(9, np.uint8), "weights": np.zeros(8, np.bool_)}
    data = save(tensors, {"patc": '{"format": 2, "checksum": 1}\n{}'})
    wanted = f"expected a compiled model of format {FORMAT}, found format 2; compile it again"
    assert load_error(tmp_path / "x", data) == wanted


@pytest.mark.parametrize("place", [16, 24, 32, 40])
@pytest.mark.parametrize("size", [0, 1, 1 << 20, 1 << 39, 1 << 63, (1 << 64) - 1])
def test_refuses_sizes_that_the_file_does_not_have(parts: Parts, tmp_path: Path, place: int, size: int) -> None:
    data = bytearray(artefact.join(parts))
    struct.pack_into("<Q", data, place, size or (place == 40))
    assert load_error(tmp_path / "x", bytes(data)).startswith("expected a compiled model, found damaged data (")


def test_says_that_memory_is_short(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(size: int) -> Any:
        raise MemoryError

    monkeypatch.setattr(artefact, "aligned_bytes", refuse)
    assert load_error(tmp_path / "x", artefact.join(parts)) == "cannot read the file: out of memory"


# -- The description -----------------------------------------------------------------------------------


def paths(value: Any, start: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the places of the values within a value; of a list those of the first two, as others are like them."""
    yield start
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, part in items:
        yield from paths(part, (*start, key))


def changed(value: Any, path: tuple[Any, ...], edit: Callable[[Any, Any], None]) -> Any:
    """Return a copy in which `edit(container, key)` changed what is at a place."""
    whole = [copy.deepcopy(value)]
    container: Any = whole
    for key in (0, *path)[:-1]:
        container = container[key]
    edit(container, (0, *path)[-1])
    return whole[0]


def put(value: Any) -> Callable[[Any, Any], None]:
    return lambda container, key: container.__setitem__(key, value)


def edits_of(values: Any) -> Iterator[tuple[str, Any]]:
    """Yield every edit of JSON values: each one of another type or range, missing, or twice."""
    for path in paths(values):
        place = ".".join(map(str, path))
        for number, wrong in enumerate(WRONG_VALUES):
            yield f"{place} = {number}", changed(values, path, put(wrong))
        if path:
            yield f"{place} deleted", changed(values, path, lambda container, key: container.__delitem__(key))
            if isinstance(path[-1], int):
                twice = changed(values, path, lambda container, key: container.append(container[key]))
                yield f"{place} twice", twice


def dump(values: Any) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode()


@pytest.mark.parametrize("name", ["compiled", "gpu"])
def test_refuses_every_other_description(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    good = artefact.split(model.to_bytes())
    texts = {place: dump(values) for place, values in edits_of(json.loads(good.description))}
    files = {place: artefact.join(replace(good, description=text)) for place, text in texts.items()}
    found = outcomes(tmp_path, model, files)
    assert {place for place, error in found.items() if error is None} == {
        place for place, text in texts.items() if text == good.description
    }


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("inputs",), [], "its code was compiled for another description, or for other weights"),
        (("arena_bytes",), 64, "its code was compiled for another description, or for other weights"),
        (("arena_bytes",), True, "arena_bytes: expected an integer from 0 to 1099511627776, found true"),
        (("arena_bytes",), 10**30, f"arena_bytes: expected an integer from 0 to 1099511627776, found {10**30}"),
        (("threads",), 0, "threads: expected an integer from 1 to 1024, found 0"),
        (("threads",), 1, "its code was compiled for another description, or for other weights"),
        (("inputs", 0, "shape", 1), 1.0, "inputs[0].shape[1]: expected an integer from 1 to 2147483647, found 1.0"),
        (
            ("outputs", 0, "shape"),
            [1 << 20, 1 << 20, 1 << 20],
            "outputs[0].shape: expected a tensor of at most 1099511627776 bytes, found [1048576, 1048576, 1048576]",
        ),
        (("outputs", 0, "name"), "a\nb", 'outputs[0].name: expected a line of at most 65536 characters, found "a\\nb"'),
        (("structure",), {"leaf": 0}, "structure: expected each of 2 outputs once, found [0]"),
        (("structure",), {"tuple": [{"leaf": 1}, {"leaf": 1}]}, "structure: expected each of 2 outputs once, found [1, 1]"),
        (
            ("structure",),
            {"tuple": [{"leaf": 1}, {"leaf": 0}]},
            "its code was compiled for another description, or for other weights",
        ),
        (
            ("structure",),
            {"namedtuple": ["Two", ["a", "__import__('os')"], [{"leaf": 0}, {"leaf": 1}]]},
            """structure.namedtuple[1][1]: expected a name, found "__import__('os')\"""",
        ),
        (
            ("structure",),
            {"namedtuple": ["Two", ["a", "a"], [{"leaf": 0}, {"leaf": 1}]]},
            'structure.namedtuple[1]: expected names of fields that differ and start with a letter, found ["a", "a"]',
        ),
        (
            ("structure",),
            {"namedtuple": ["Two", ["fi", "\ufb01"], [{"leaf": 0}, {"leaf": 1}]]},  # one name, as Python sees it
            'structure.namedtuple[1][1]: expected a name, found "\\ufb01"',
        ),
        (
            ("structure",),
            {"dict": [[["a"], {"leaf": 0}], ["b", {"leaf": 1}]]},
            "structure.dict[0][0]: expected an integer from -9223372036854775807 to 9223372036854775807, found [\"a\"]",
        ),
        (("layers",), {}, "layers: expected a list of 0 to 65536 items, found {}"),
        (("layers",), [], "its code was compiled for another description, or for other weights"),
        (("layers", 0, "kernel"), [3], "layers[0].kernel: expected a list of 2 items, found [3]"),
        (
            ("layers", 0, "schedule", "rows"),
            0,
            "layers[0].schedule.rows: expected an integer from 1 to 9223372036854775807, found 0",
        ),
        (
            ("layers", 0, "explanation", "alternatives", 0, "ratio"),
            -1.5,
            "layers[0].explanation.alternatives[0].ratio: expected a number of 0 or more, written with a point, found -1.5",
        ),
        (("layers", 0, "explanation"), None, "its code was compiled for another description, or for other weights"),
        (("features",), [], "its code was compiled for another description, or for other weights"),
        (("target",), "x86-64-v9", "its code was compiled for another description, or for other weights"),
    ],
)  # fmt: skip
def test_says_what_is_wrong(
    compiled: CompiledModel, tmp_path: Path, path: tuple[Any, ...], value: Any, message: str
) -> None:
    good = artefact.split(compiled.to_bytes())
    text = dump(changed(json.loads(good.description), path, put(value)))
    found = load_error(tmp_path / "x", artefact.join(replace(good, description=text)))
    assert found == f"expected a compiled model, found damaged data ({message})"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[:-1], "Expecting ',' delimiter"),
        (lambda text: b"", "Expecting value"),
        (lambda text: b"[" * 100_000 + b"]" * 100_000, "its text is nested too deep"),
        (lambda text: text.replace(b'"threads":2', b'"threads":2,"threads":2'), "a key comes twice"),
        (lambda text: text.replace(b'"threads":2', b'"threads":NaN'), "NaN is no number of JSON"),
        (lambda text: text.replace(b'"threads":2', b'"threads":1e999'), "1e999 is too large"),
        (lambda text: text.replace(b'"threads":2', b'"threads":' + b"2" * 5000), "Exceeds the limit"),
        (lambda text: text.replace(b'"threads":2', b'"threads": 2'), "expected the text as patc writes it"),
        (lambda text: text.replace(b'"threads"', b'"thr\xffads"'), "its text is not UTF-8"),
        (lambda text: text + b" ", "expected the text as patc writes it"),
    ],
)
def test_refuses_other_texts(
    compiled: CompiledModel, tmp_path: Path, edit: Callable[[bytes], bytes], message: str
) -> None:
    good = artefact.split(compiled.to_bytes())
    assert edit(good.description) != good.description
    found = load_error(tmp_path / "x", artefact.join(replace(good, description=edit(good.description))))
    assert found.startswith(f"expected a compiled model, found damaged data ({message}")


def test_refuses_texts_that_nest_at_the_limit_of_python() -> None:
    limit = sys.getrecursionlimit()
    for depth in range(limit - 100, limit):
        with pytest.raises(ValueError, match=r"^(description: expected an object of .*|its text is nested too deep)$"):
            parse(b"[" * depth + b"]" * depth)


def test_structures_come_back(compiled: CompiledModel, tmp_path: Path) -> None:
    compiled.save(tmp_path / "net.patc")
    x = torch.ones(SHAPE)
    for y in (compiled(x), patc.load(tmp_path / "net.patc")(x)):
        assert list(y) == ["a", "b"] and y["a"][1:] == [float("inf"), None] and isinstance(y["b"], tuple)


def test_code_knows_its_weights(compiled: CompiledModel, gpu: CompiledModel, tmp_path: Path) -> None:
    """They hold places in memory, too."""
    for model in (compiled, gpu):
        good = artefact.split(model.to_bytes())
        weights = good.weights.copy()
        weights[0] ^= 1
        for other in (weights, good.weights[:-64].copy(), np.concatenate([good.weights, weights]), weights[:0]):
            found = load_error(tmp_path / "x", artefact.join(replace(good, weights=other)))
            assert "its code was compiled for another description, or for other weights" in found


# -- Object files --------------------------------------------------------------------------------------

LONG = (0, 1, 7, 8, 64, 4096, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
SECTION = {"name": (0, 4), "type": (4, 4), "flags": (8, 8), "address": (16, 8), "offset": (24, 8), "size": (32, 8),
           "link": (40, 4), "info": (44, 4), "alignment": (48, 8), "entry": (56, 8)}  # fmt: skip
SYMBOL = {"name": (0, 4), "info": (4, 1), "other": (5, 1), "section": (6, 2), "size": (16, 8)}


def set_number(data: bytes, place: int, size: int, number: int) -> bytes:
    return data[:place] + (number % (1 << 8 * size)).to_bytes(size, "little") + data[place + size :]


def object_edits(code: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield edits of the header, the sections, the symbols and the relocations of an object file."""
    for place in range(64):
        for number in (0, 1, 0x7F, 0xFF, code[place] ^ 1):
            yield f"header {place} = {number}", set_number(code, place, 1, number)
    (table,) = struct.unpack_from("<Q", code, 40)
    sections = elf.sections(code)
    for index, section in enumerate(sections):
        for field, (place, size) in SECTION.items():
            start = table + 64 * index + place
            old = int.from_bytes(code[start : start + size], "little")
            # Sizes within the padding are as good as the right one.
            for number in (*LONG, old + 64, old - 64, old + 4096):
                yield f"section {section.name} {field} = {number}", set_number(code, start, size, number)
    (symbols,) = (section for section in sections if section.type == elf.SYMBOL_TABLE)
    for index, symbol in enumerate(elf.symbols(code, sections)):
        for field, (place, size) in SYMBOL.items():
            start = symbols.offset + 24 * index + place
            old = int.from_bytes(code[start : start + size], "little")
            for number in {0, 1, 2, 3, 5, old + 1, old - 1, (1 << 8 * size) - 1, 0xFFF1 % (1 << 8 * size)}:
                yield f"symbol {index} '{symbol.name}' {field} = {number}", set_number(code, start, size, number)
    for section in sections:
        if section.type == elf.RELOCATIONS:
            for start in range(section.offset, section.offset + section.size, 24):
                count = symbols.size // 24
                yield f"relocation {start} far", set_number(code, start, 8, 1 << 40)
                yield f"relocation {start} behind", set_number(code, start, 8, sections[section.info].size - 7)
                yield f"relocation {start} of no symbol", set_number(code, start + 12, 4, 0)
                yield f"relocation {start} of a symbol behind", set_number(code, start + 12, 4, count)
                yield f"relocation {start} with a large addend", set_number(code, start + 16, 8, 1 << 40)
                yield f"relocation {start} with a small addend", set_number(code, start + 16, 8, -4096)
                for kind in (0, 2, 10, 11, 37, 200, 1 << 31):
                    yield f"relocation {start} of kind {kind}", set_number(code, start + 8, 4, kind)


def cut_objects(code: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield object files that end early or late."""
    ends = {section.offset + part for section in elf.sections(code) for part in (0, section.size // 2, section.size)}
    for end in sorted({0, 1, 4, 16, 63, 64, len(code) - 64, len(code) - 1, *ends}):
        if end < len(code):
            yield f"cut at {end}", code[:end]
    yield "longer", code + b"\0"
    yield "twice", code + code


def test_object_files_are_as_they_were(single: CompiledModel, parts: Parts, tmp_path: Path) -> None:
    objects = dict([*object_edits(parts.code), *cut_objects(parts.code)])
    files = {name: artefact.join(replace(parts, code=code)) for name, code in objects.items()}
    found = outcomes(tmp_path, single, {name: data for name, data in files.items() if objects[name] != parts.code})
    assert [name for name, error in found.items() if error is None and name.startswith(("cut", "relocation"))] == []
    # What sizes of functions and the like say, nothing reads.
    assert 0 < sum(error is None for error in found.values()) < len(found) / 4
    lines = set(found.values())
    for message in (
        "expected a little-endian ELF file of 64 bits",
        "expected a table of sections inside the file",
        "expected a name inside its table",
    ):
        assert f"expected a compiled model, found damaged data ({message})" in lines
    code = next(name for name in (".ltext", ".text") if f".rela{name}" in parts.code.decode("latin-1"))
    for message in (
        "expected an object file that is relocatable",
        "expected sections one behind the other",
        "expected local symbols before the others",
        f"expected relocations of known kinds in {code}, found 2",
        f"expected relocations inside {code}",
        f"expected relocations in {code} by symbols that there are",
        f"expected relocations in {code} that stay within their symbols",
    ):
        assert any(line and line.endswith(f"cannot link the compiled code: {message}") for line in lines), message


def test_several_edits_at_once(single: CompiledModel, gpu: CompiledModel, tmp_path: Path) -> None:
    """A sample, drawn with a seed."""
    choices = random.Random(7)
    for model, draw in ((single, object_edits), (gpu, gpu_edits)):
        good = artefact.split(model.to_bytes())
        codes = [code for _, code in draw(good.code)]
        descriptions = [dump(values) for _, values in edits_of(json.loads(good.description))]
        files = {}
        for number in range(150):
            description = choices.choice(descriptions) if number % 2 else good.description
            edited = replace(good, code=choices.choice(codes), description=description)
            files[str(number)] = artefact.join(edited)
        outcomes(tmp_path, model, files)


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="objects are no ELF files")
def test_code_for_another_machine(parts: Parts, tmp_path: Path) -> None:
    found = load_error(tmp_path / "x", artefact.join(replace(parts, code=set_number(parts.code, 18, 2, 243))))
    assert "cannot link the compiled code: expected an object file for machine" in found
    assert found.endswith("found machine 243")


def test_a_symbol_called_like_a_section(parts: Parts, tmp_path: Path) -> None:
    """The linker would take what refers to the one for the other."""
    sections = elf.sections(parts.code)
    (names,) = (section for section in sections if section.type == elf.STRING_TABLE)
    (symbols,) = (section for section in sections if section.type == elf.SYMBOL_TABLE)
    constants = next(section.name for section in sections if section.name in (".rodata", ".lrodata"))
    text = parts.code[names.offset : names.offset + names.size].index(constants.encode() + b"\0")
    used = next(i for i, item in enumerate(elf.symbols(parts.code, sections)) if i and item.section == elf.UNDEFINED)
    code = set_number(parts.code, symbols.offset + 24 * used, 4, text)
    found = load_error(tmp_path / "x", artefact.join(replace(parts, code=code)))
    assert found.endswith("cannot link the compiled code: expected names of sections that nothing else has")


@pytest.mark.parametrize("name", [".eh_frame", ".init_array", ".lrodatas"])
def test_a_section_that_the_process_would_read(parts: Parts, tmp_path: Path, name: str) -> None:
    """Unwinding goes by what is in .eh_frame, of the whole process."""
    (table,), sections = struct.unpack_from("<Q", parts.code, 40), elf.sections(parts.code)
    (texts,) = (section.offset for section in sections if section.type == elf.STRING_TABLE)
    text = parts.code.index(b".note.GNU-stack\0", texts)
    constants = next(i for i, item in enumerate(sections) if "rodata.str" in item.name)
    code = set_number(parts.code, table + 64 * constants, 4, text - texts)
    code = code[:text] + name.encode() + b"\0" + code[text + len(name) + 1 :]
    found = load_error(tmp_path / "x", artefact.join(replace(parts, code=code)))
    assert found.endswith(f"cannot link the compiled code: expected code, constants or zeros in section {name}")


def test_very_many_long_names_are_refused_at_once() -> None:
    """All of them end at the same place: to read them would take as long as they are, each time."""
    count, texts = 100_000, b"\0" + b"x" * 1_000_000 + b"\0"
    texts += bytes(-len(texts) % 8)
    names = elf.Section("", elf.STRING_TABLE, 0, 0, 0, len(texts), 0, 0, 1)
    table = elf.Section("", elf.SYMBOL_TABLE, 0, 0, len(texts), 24 * count, 0, 0, 8)
    entry = struct.pack("<IBBHQQ", 1, 0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match=r"^expected names of at most 4096 bytes$"):
        elf.symbols(texts + entry * count, [names, table])


def test_a_symbol_that_means_another_section(parts: Parts, tmp_path: Path) -> None:
    sections = elf.sections(parts.code)
    (symbols,) = (section for section in sections if section.type == elf.SYMBOL_TABLE)
    (interface,) = (symbol.section for symbol in elf.symbols(parts.code, sections) if symbol.name == "patc_interface")
    for place, symbol in enumerate(elf.symbols(parts.code, sections)):
        if symbol.type == 3 and symbol.section != interface:
            code = set_number(parts.code, symbols.offset + 24 * place + 6, 2, interface)
            load_error(tmp_path / "x", artefact.join(replace(parts, code=code)))


def test_a_name_that_nothing_defines(parts: Parts, single: CompiledModel, tmp_path: Path) -> None:
    """And the linker stays usable."""
    code = parts.code.replace(b"__kmpc_barrier", b"__kmpc_barriex")
    found = load_error(tmp_path / "x", artefact.join(replace(parts, code=code)))
    assert found.endswith("expected code that calls its team and the C library for numbers, found __kmpc_barriex")
    single.save(tmp_path / "net.patc")
    patc.load(tmp_path / "net.patc")


# -- Code for a GPU ------------------------------------------------------------------------------------


def gpu_edits(code: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield edits of all but the modules."""
    size = int.from_bytes(code[8:16], "little")
    values, modules = json.loads(code[16 : 16 + size]), code[16 + size :]
    for place, changed_values in edits_of(values):
        text = dump(changed_values)
        yield place, b"".join([code[:8], len(text).to_bytes(8, "little"), text, modules])
    for wrong in (0, size - 1, size + 1, 1 << 40, (1 << 64) - 1):
        yield f"length {wrong}", set_number(code, 8, 8, wrong)
    yield "cut", code[:-4]
    yield "longer", code + bytes(4)


def test_gpu_code_is_as_it_was(gpu: CompiledModel, tmp_path: Path) -> None:
    good = artefact.split(gpu.to_bytes())
    codes = dict(gpu_edits(good.code))
    files = {name: artefact.join(replace(good, code=code)) for name, code in codes.items()}
    found = outcomes(tmp_path, gpu, files)
    assert {name for name, error in found.items() if error is None} == {
        name for name, code in codes.items() if code == good.code
    }


def test_gpu_code_knows_its_description(gpu: CompiledModel, tmp_path: Path) -> None:
    code = gpu.code  # type: ignore[attr-defined]
    good = artefact.split(gpu.to_bytes())
    first = code.dispatches[0]
    constants = (first.push_constants[0] + 1, *first.push_constants[1:])
    backwards = tuple(replace(dispatch, layer=layer) for layer, dispatch in enumerate(code.dispatches[::-1]))
    for other in (
        replace(code, dispatches=(replace(first, push_constants=constants), *code.dispatches[1:])),
        replace(code, dispatches=backwards),
        replace(code, inputs=(code.inputs[0] + 64,)),
    ):
        found = load_error(tmp_path / "x", artefact.join(replace(good, code=other.to_bytes())))
        assert "its code was compiled for another description, or for other weights" in found
    unordered = replace(code, dispatches=code.dispatches[::-1])
    found = load_error(tmp_path / "x", artefact.join(replace(good, code=unordered.to_bytes())))
    assert "code.dispatches: expected layers in order, found" in found


def without_operands(data: bytes, opcode: int) -> bytes:
    """Return a module whose first instruction of some number has none."""
    place = 20
    while struct.unpack_from("<H", data, place)[0] != opcode:
        place += 4 * struct.unpack_from("<H", data, place + 2)[0]
    end = place + 4 * struct.unpack_from("<H", data, place + 2)[0]
    return data[:place] + struct.pack("<HH", opcode, 1) + data[end:]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data[:-1], "expected SPIR-V of whole words"),
        (lambda data: b"", "expected SPIR-V of whole words"),
        (lambda data: data[:-4], "expected a module '{name}' that ends with a function"),
        (lambda data: set_number(data, 0, 4, 0x03022307), "expected SPIR-V of version 1.0 to 1.3"),
        (lambda data: set_number(data, 4, 4, 0x00010600), "expected SPIR-V of version 1.0 to 1.3"),
        (lambda data: set_number(data, 12, 4, 1 << 31), "expected SPIR-V of version 1.0 to 1.3"),
        (lambda data: set_number(data, 20, 4, 17), "expected SPIR-V of whole instructions"),
        (lambda data: set_number(data, 22, 2, 0xFFFF), "expected SPIR-V of whole instructions"),
        (lambda data: set_number(data, 24, 4, 5345), "expected a module '{name}' of the capabilities that its kernel tells"),
        (lambda data: without_operands(data, 17), "expected a module '{name}' of the capabilities that its kernel tells"),
        (lambda data: without_operands(data, 15), "expected a module of one kernel '{name}'"),
        (lambda data: without_operands(data, 16), "expected a module '{name}' of {threads} threads"),
        (lambda data: without_operands(data, 10), "expected a text that ends"),
        (lambda data: data.replace(b"SPV_KHR", b"SPV_EXT"), "expected a module '{name}' of the extensions that its kernel tells"),
    ],
)  # fmt: skip
def test_refuses_damaged_modules(gpu: CompiledModel, edit: Callable[[bytes], bytes], message: str) -> None:
    code: GpuCode = gpu.code  # type: ignore[attr-defined]
    kernel = code.kernels[0]
    arguments = (kernel.name, kernel.threads, kernel.capabilities, kernel.extensions)
    data = code.modules[kernel.name]
    check_module(data, *arguments)
    for wrong in ("other", 1):
        name, threads = (wrong, kernel.threads) if isinstance(wrong, str) else (kernel.name, wrong)
        with pytest.raises(ValueError, match=f"expected a module .*'{name}'"):
            check_module(data, name, threads, *arguments[2:])
    with pytest.raises(ValueError) as caught:
        check_module(edit(data), *arguments)
    assert str(caught.value) == message.format(name=kernel.name, threads=kernel.threads)


# -- Copies --------------------------------------------------------------------------------------------


def leaves(value: Any) -> list[np.ndarray]:
    return [part for item in (*value["a"][:1], *value["b"]) for part in (np.asarray(item),)]


@pytest.mark.parametrize(
    "make",
    [
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: pickle.loads(pickle.dumps(model, protocol=0)),
        copy.copy,
        copy.deepcopy,
        lambda model: copy.deepcopy([model, model])[1],
    ],
    ids=["pickle", "old pickle", "copy", "deepcopy", "deepcopy within"],
)
def test_copies_compute_the_same(compiled: CompiledModel, make: Callable[[Any], Any]) -> None:
    other = make(compiled)
    assert type(other) is NativeModel and other is not compiled
    assert repr(other) == repr(compiled) and other.layers == compiled.layers
    assert list(map(str, other.diagnostics)) == list(map(str, compiled.diagnostics)) != []
    inputs = compiled.random_inputs()
    for one, wanted in zip(leaves(other(*inputs)), leaves(compiled(*inputs)), strict=True):
        np.testing.assert_array_equal(one, wanted)


def test_models_go_to_other_processes(compiled: CompiledModel, tmp_path: Path) -> None:
    """By spawn, which knows nothing of this one; and through files of joblib, where that is installed."""
    program = """
import multiprocessing, pickle, sys
import numpy as np

def call(model, x):
    return model(x)["b"][0]

if __name__ == "__main__":
    model = pickle.load(open(sys.argv[1], "rb"))
    (x,) = model.random_inputs()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert np.array_equal(pool.apply(call, (model, x)), call(model, x))
    assert "torch" not in sys.modules and "torch_mlir" not in sys.modules
    try:
        import joblib
    except ImportError:
        sys.exit()
    joblib.dump(model, sys.argv[1])
    assert np.array_equal(call(joblib.load(sys.argv[1]), x), call(model, x))
"""
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "model").write_bytes(pickle.dumps(compiled))
    command = [sys.executable, "program.py", "model"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


def test_models_for_gpus_go_to_other_processes(gpu: CompiledModel) -> None:
    other = pickle.loads(pickle.dumps(gpu))
    assert type(other) is type(gpu) and other.to_bytes() == gpu.to_bytes()
    assert copy.deepcopy(gpu).to_bytes() == gpu.to_bytes()


def test_programs_are_plain_data(compiled: CompiledModel) -> None:
    other = pickle.loads(pickle.dumps(compiled.program))
    assert NativeModel(other).to_bytes() == compiled.to_bytes() == NativeModel(copy.deepcopy(other)).to_bytes()


def test_pickles_are_checked_like_files(compiled: CompiledModel) -> None:
    data = bytearray(pickle.dumps(compiled))
    data[len(data) // 2] ^= 1
    with pytest.raises(PatcError, match="expected the bytes of a compiled model, found others"):
        pickle.loads(bytes(data))


def test_errors_and_diagnostics_pickle_with_the_text_of_their_places(compiled: CompiledModel) -> None:
    from torch_mlir import ir

    from patc.diagnostics import Diagnostic
    from patc.ir_diagnostics import IRError
    from patc.runtime.vulkan import VulkanError

    with ir.Context():
        place = ir.Location.name("conv1", ir.Location.file("net.py", 3, 1))
    diagnostic = Diagnostic("remark", "stays dense", place)
    errors = [PatcError("no", place), PatcError("no"), IRError([replace(diagnostic, severity="error")])]
    for one in (*errors, VulkanError("lost", -4), diagnostic):
        for other in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), copy.copy(one)):
            assert type(other) is type(one) and str(other) == str(one)
    assert pickle.loads(pickle.dumps(VulkanError("lost", -4))).result == -4
    assert str(pickle.loads(pickle.dumps(errors[0]))) == "conv1 (net.py:3:1): no"
