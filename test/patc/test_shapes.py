"""One artefact for several shapes of inputs: the code for each, shared weights, files, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu import needs_device
from torch import Tensor, nn

import patc
from patc.bench.emulator import Emulator
from patc.codegen import c_interface
from patc.library import compile_library
from patc.runtime import artefact
from patc.runtime.description import describe, interface, parse
from patc.runtime.inputs import ADVICE

SHAPES = ((1, 3, 24, 24), (1, 3, 40, 24), (2, 3, 24, 24))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.deep, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 24, 1), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = torch.relu(self.deep(torch.relu(self.conv(x))))
        return {"scores": self.head(y.mean((2, 3))), "features": y, "height": x.shape[2], "none": None}


class Pair(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask, x * 2, x.sum(-1, keepdim=True))


NET = Net().eval()


def images(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def require_right(compiled: patc.CompiledModel) -> None:
    for shape in SHAPES:
        with torch.no_grad():
            torch.testing.assert_close(compiled(images(shape)), NET(images(shape)), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def compiled() -> patc.CompiledModel:
    return patc.compile(NET, (images(SHAPES[0]),), threads=1, shapes=SHAPES)


def test_every_shape_is_right_and_weights_are_shared(compiled: patc.CompiledModel, tmp_path: Path) -> None:
    require_right(compiled)
    one = patc.compile(NET, (images(SHAPES[0]),), threads=1).program.weights.nbytes
    assert compiled.program.own_bytes == one
    assert compiled.program.weights.nbytes < 2 * one
    assert [entry.inputs[0].shape for entry in compiled.program.entries] == list(SHAPES)
    assert "x [1, 3, 24, 24] or x [1, 3, 40, 24] or x [2, 3, 24, 24] -> " in repr(compiled)
    compiled.save(tmp_path / "net.patc")
    loaded = patc.load(tmp_path / "net.patc")
    require_right(loaded)
    assert loaded.to_bytes() == compiled.to_bytes()
    times = loaded.profile(images(SHAPES[1]), repetitions=2)
    assert [item.layer for item in times] == list(loaded.program.variants[0].layers)


def test_another_shape_is_one_line_with_those_that_there_are(compiled: patc.CompiledModel) -> None:
    known = "expected inputs x [1, 3, 24, 24] or x [1, 3, 40, 24] or x [2, 3, 24, 24]"
    for shape in ((1, 3, 8, 8), (3, 24, 24)):
        with pytest.raises(patc.PatcError) as caught:
            compiled(torch.zeros(shape))
        assert str(caught.value) == f"{known}, got {list(shape)}; {ADVICE}"
    with pytest.raises(patc.PatcError, match=r"expected input .x. of shape .* float32, got shape .* float64"):
        compiled(images(SHAPES[1]).double())
    with pytest.raises(patc.PatcError, match=r"expected inputs x .*, got "):
        compiled()


def test_a_model_of_one_shape_says_how_to_get_several() -> None:
    compiled = patc.compile(nn.ReLU().eval(), (torch.zeros(1, 4),), threads=1)
    with pytest.raises(
        patc.PatcError, match=r"got shape \[1, 5\] float32; other sizes are fixed .*: shapes=\[\.\.\.\]"
    ):
        compiled(torch.zeros(1, 5))


@needs_device
def test_shapes_on_vulkan() -> None:
    require_right(patc.compile(NET, (images(SHAPES[0]),), target="spirv-vulkan", shapes=SHAPES[1:]))


def test_several_inputs_have_shapes_by_name_or_in_order() -> None:
    x, mask = torch.randn(2, 3), torch.ones(2, 3, dtype=torch.bool)
    for given in ({"x": (4, 5), "mask": (4, 5)}, [(4, 5), (4, 5)]):
        compiled = patc.compile(Pair().eval(), (x, mask), threads=1, shapes=[given])
        for size in ((2, 3), (4, 5)):
            y, chosen = torch.randn(size), torch.randn(size) > 0
            torch.testing.assert_close(compiled(y, mask=chosen), Pair()(y, chosen))
    compiled = patc.compile(Pair().eval(), {"x": x, "mask": mask}, threads=1, shapes=[{"mask": (2, 1)}])
    torch.testing.assert_close(compiled(x, mask[:, :1]), Pair()(x, mask[:, :1]))


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(1, 3, 0, 8)], "expected shapes of (1, 3, 320, 320) each, or for several inputs of"),
        ([(1, 3, 8.5, 8)], "expected shapes of"),
        ([5], "expected shapes of (1, 3, 320, 320) each"),
        ({"x": (1, 3, 8, 8)}, "in a list, got dict"),
        ([{"y": (1, 3, 8, 8)}], "expected shapes for the inputs x, got one for 'y'"),
        ([[(1, 3, 8, 8), (1, 3, 8, 8)]], "expected shapes for the inputs x, got 2"),
        ([(1, 5, 8, 8)], "torch cannot export the model: "),
    ],
)
def test_shapes_that_are_none(shapes: Any, expected: str) -> None:
    with pytest.raises(patc.PatcError) as caught:
        patc.compile(NET, (images(SHAPES[0]),), shapes=shapes)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_shapes_and_any_batch(compiled: patc.CompiledModel) -> None:
    both = patc.compile(NET, (images(SHAPES[0]),), threads=1, shapes=SHAPES[1:2], dynamic_batch=True)
    for shape in (*SHAPES, (5, 3, 40, 24)):
        with torch.no_grad():
            torch.testing.assert_close(both(images(shape)), NET(images(shape)), rtol=1e-4, atol=1e-5)
    with pytest.raises(patc.PatcError, match=r"expected inputs x \[batch, 3, 24, 24\] or x \[batch, 3, 40, 24\], got"):
        both(torch.zeros(1, 3, 24, 40))


def test_code_of_another_entry_is_refused(compiled: patc.CompiledModel, tmp_path: Path) -> None:
    parts = artefact.split(compiled.to_bytes())
    one, two = parts.variants
    wrong = "its code was compiled for another description"
    for variants, expected in (
        ((two, one), wrong),
        ((one,), "expected code for 2 variants, found 1"),
        ((one, two, two), "expected code for 2 variants, found 3"),
        ((parts.code, two), wrong),
        ((one, b""), "expected a compiled model, found damaged data"),
    ):
        path = tmp_path / "net.patc"
        path.write_bytes(artefact.join(replace(parts, variants=variants)))
        with pytest.raises(patc.PatcError, match=expected) as caught:
            patc.load(path)
        assert "\n" not in str(caught.value)
    cut = artefact.join(replace(parts, variants=(one, two)))
    length = (len(one) + 1).to_bytes(8, "little")
    assert interface(parts.description, parts.weights_digest, 0) != interface(
        parts.description, parts.weights_digest, 1
    )
    with pytest.raises(ValueError, match="expected a compiled model, found damaged data"):
        artefact.split(cut.replace(len(one).to_bytes(8, "little") + one[:8], length + one[:8]))


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (("inputs", 0, "shape"), [1, 3, 24, 24], "variants: expected inputs of other shapes"),
        (("inputs", 0, "dtype"), "int32", "expected the inputs of all variants"),
        (("inputs", 0, "name"), "y", "expected the inputs of all variants"),
        (("inputs",), [], "expected the inputs of all variants"),
        (("structure",), {"leaf": 0}, "expected each of 2 outputs once"),
        (("own_bytes",), -1, "own_bytes: expected"),
        (("layers",), {}, "layers: expected"),
    ],
)
def test_descriptions_of_variants(compiled: patc.CompiledModel, place: Any, value: Any, expected: str) -> None:
    values = json.loads(describe(compiled.program))
    part = values["variants"][0]
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    with pytest.raises(ValueError, match=expected):
        parse(json.dumps(values, separators=(",", ":")).encode())


def test_libraries_have_a_function_for_each_shape() -> None:
    net = nn.Sequential(NET.conv, nn.ReLU(), NET.deep).eval()
    library = compile_library(net, (images(SHAPES[0]),), name="net", shapes=SHAPES[1:])
    header = c_interface.header(library.interface)
    for number, shape in enumerate(SHAPES):
        suffix = f"_{number}" if number else ""
        assert f"int net_run{suffix}(const float *input0, float *output0, void *workspace);" in header
        assert f"#define NET{suffix}_INPUT0_SHAPE {{{', '.join(map(str, shape))}}}" in header
    emulator = Emulator(library.object_file())
    workspace = emulator.reserve(library.interface.workspace_bytes)
    for number, shape in enumerate(SHAPES):
        x = images(shape)
        with torch.no_grad():
            expected = net(x).numpy()
        given, made = emulator.put(x.numpy()), emulator.reserve(expected.nbytes)
        assert emulator.call(f"net_run_{number}" if number else "net_run", given, made, workspace) == 0
        np.testing.assert_allclose(emulator.get(made, expected.shape, "float32"), expected, rtol=1e-4, atol=1e-5)
