"""Programs of .pt2 files: read without running anything that they say, and what comes of damaged and hostile ones."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._export.serde.serialize import serialize

from patc.context import make_context
from patc.diagnostics import PatcError
from patc.frontend import import_model
from patc.frontend.pt2 import load_program

IMAGE = torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)
MODEL = "models/model.json"
WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"


class Net(nn.Module):
    """Weights, buffers of both kinds, constants, tied weights, a block without gradients, and nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.again.weight = self.conv.weight
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0]).reshape(3, 1, 1), persistent=False)

    def forward(self, x: Tensor, scale: Tensor) -> Any:
        y = self.norm(self.conv(x)) + scale
        with torch.no_grad():
            y = self.again(y) * self.mask + torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1)
        return {"y": torch.relu(y), "more": [(y, 3), None]}


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The entries of a file of `torch.export.save`."""
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    program = torch.export.export(Net().eval(), (IMAGE,), {"scale": torch.zeros(1, 3, 8, 8)})
    torch.export.save(program, path)
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def calls(tmp_path: Path) -> Iterator[Path]:
    """A file that hostile code would make."""
    path = tmp_path / "called"
    yield path
    assert not path.exists()


def write(path: Path, entries: dict[str, bytes], folder: str = "net/") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(folder + name, data)
    return path


def changed(entries: dict[str, bytes], name: str, *place: str | int, to: Any) -> dict[str, bytes]:
    """Return the entries with one value of a JSON entry replaced."""
    whole = value = json.loads(entries[name])
    for key in place[:-1]:
        value = value[key]
    value[place[-1]] = to
    return entries | {name: json.dumps(whole).encode()}


def error_of(path: Path) -> str:
    with pytest.raises(PatcError) as caught:
        import_model(path, None, make_context())
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


class Call:
    """What a pickle of it calls when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (os.fspath(self.path),)


def assert_same(path: Path, program: torch.export.ExportedProgram) -> None:
    """Compare what becomes of a file with what becomes of the program as torch reads it."""
    found, wanted = (import_model(model, None, make_context()) for model in (path, program))
    assert str(found.module) == str(wanted.module)
    assert found.structure == wanted.structure and found.constants == wanted.constants
    assert set(found.parameters) == set(wanted.parameters)
    for name in wanted.parameters:
        assert found.parameters[name].tobytes() == wanted.parameters[name].tobytes()


def test_reads_what_torch_reads(entries: dict[str, bytes], tmp_path: Path) -> None:
    path = write(tmp_path / "net.pt2", entries)
    assert_same(path, torch.export.load(path))
    program = load_program(path)
    assert program.state_dict["conv.weight"].data_ptr() == program.state_dict["again.weight"].data_ptr()
    assert program.example_inputs is None


@pytest.mark.filterwarnings("ignore:No complete tensor")
def test_reads_strided_weights(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)).eval()
    buffer = torch.randn(1000)
    net[0].weight = nn.Parameter(buffer[5:113].reshape(3, 3, 3, 4).permute(3, 0, 1, 2))
    net[0].bias = nn.Parameter(torch.tensor(0.5).expand(4))
    net[1].weight = nn.Parameter(net[1].weight.detach().to(memory_format=torch.channels_last))
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(net, (IMAGE,)), path)
    assert_same(path, torch.export.load(path))
    parameters = import_model(path, None, make_context()).parameters
    np.testing.assert_array_equal(parameters["0.weight"], net[0].weight.detach().numpy())


def test_reads_the_form_before_torch_2_8(tmp_path: Path) -> None:
    program = torch.export.export(Net().eval(), (IMAGE, IMAGE))
    artifact = serialize(program)
    names = ("serialized_exported_program.json", "serialized_state_dict.pt", "serialized_constants.pt")
    parts = (artifact.exported_program, artifact.state_dict, artifact.constants)
    path = write(tmp_path / "old.pt2", {"version": b"8.20"} | dict(zip(names, parts, strict=True)), folder="")
    assert_same(path, program)


def test_programs_of_a_gpu_are_read_on_the_cpu(entries: dict[str, bytes], tmp_path: Path) -> None:
    moved = {
        name: data.replace(b'"type": "cpu", "index": null', b'"type": "cuda", "index": 0')
        for name, data in entries.items()
    }
    path = write(tmp_path / "net.pt2", moved)
    assert_same(path, torch.export.load(write(tmp_path / "cpu.pt2", entries)))


# What could run code.


def test_sample_inputs_are_left_alone(entries: dict[str, bytes], tmp_path: Path, calls: Path) -> None:
    hostile = entries | {"data/sample_inputs/model.pt": pickle.dumps(Call(calls))}
    import_model(write(tmp_path / "net.pt2", hostile), None, make_context())


def test_pickled_weights_need_trust(entries: dict[str, bytes], tmp_path: Path, calls: Path) -> None:
    hostile = changed(entries, WEIGHTS, "config", "conv.bias", "use_pickle", to=True)
    hostile["data/weights/weight_1"] = pickle.dumps(Call(calls))
    message = error_of(write(tmp_path / "net.pt2", hostile))
    assert "config.conv.bias.use_pickle to be false: 'data/weights/weight_1' is a pickle" in message
    assert "--trust-pickle" in message


def test_trusted_files_are_read_by_torch(entries: dict[str, bytes], tmp_path: Path) -> None:
    class Loud:
        def __reduce__(self) -> Any:
            return os.mkdir, (os.fspath(tmp_path / "called"),)

    hostile = entries | {"data/sample_inputs/model.pt": pickle.dumps(Loud())}
    path = write(tmp_path / "net.pt2", hostile)
    with pytest.raises(PatcError, match=r"torch\.export\.load cannot read the file"):
        load_program(path, trust_pickle=True)
    assert (tmp_path / "called").exists()
    assert load_program(write(tmp_path / "good.pt2", entries), trust_pickle=True).example_inputs is not None


@pytest.mark.parametrize("entry", ["data/weights/model.pt", "data/constants/model.pt"])
def test_old_pickles_are_read_as_tensors_alone(
    entries: dict[str, bytes], tmp_path: Path, calls: Path, entry: str
) -> None:
    stream = io.BytesIO()
    torch.save(Call(calls), stream)
    message = error_of(write(tmp_path / "net.pt2", entries | {entry: stream.getvalue()}))
    assert message.startswith(f"expected '{entry}' to be tensors alone, found a pickled 'posix.mkdir'; ")
    assert "--trust-pickle" in message


def test_old_pickles_take_no_more_memory_than_they_have(entries: dict[str, bytes], tmp_path: Path) -> None:
    name, path, stream = "data/weights/model.pt", tmp_path / "net.pt2", io.BytesIO()
    torch.save({"x": torch.zeros(1).expand(1 << 40)}, stream)
    message = error_of(write(path, entries | {name: stream.getvalue()}))
    assert message == f"expected '{name}' to be tensors, found 'x' with more elements than the file has"
    packed = io.BytesIO()
    with zipfile.ZipFile(stream) as stored, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in stored.namelist():
            archive.writestr(entry, stored.read(entry))
    message = error_of(write(path, entries | {name: packed.getvalue()}))
    assert message == "expected stored entries, found 'data.pkl' compressed"


def test_lines_that_no_source_has(entries: dict[str, bytes], tmp_path: Path) -> None:
    trace = f'File "net.py", line {"9" * 5000}'
    path = write(tmp_path / "net.pt2", changed(entries, MODEL, *NODE, "metadata", "stack_trace", to=trace))
    import_model(path, None, make_context())


def test_element_types_are_no_numbers(tmp_path: Path) -> None:
    """torch takes any number for one, and looks up what is beside its table of types."""

    class Shares(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(x, 1, dtype=torch.float32)

    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(Shares(), (IMAGE,)), path)
    with zipfile.ZipFile(path) as archive:
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    assert json.loads(entries[MODEL])["graph_module"]["graph"]["nodes"][0]["inputs"][2]["name"] == "dtype"
    hostile = changed(entries, MODEL, *NODE, "inputs", 2, "arg", to={"as_int": 99})
    message = error_of(write(path, hostile))
    assert message.endswith("graph_module.graph.nodes[0].inputs[2].arg to be a ScalarType, found int")


TARGETS = (
    "torch.os.system", "_operator.call", "math.sin", "#x:y", "torch.ops.aten.save.default", "torch.ops.load_library",
    "torch.ops.aten.from_file.default", "torch.ops.aten.from_file.out", "torch.ops.aten.warn.default",
    "torch.ops.higher_order.cond", "torch.ops.aten.relu", "torch.ops.aten.relu.none", "torch.ops.aten.__class__.default",
    "torch.ops.aten.set_.source_Storage", "torch.ops.mylib.f.default", "torch.ops.aten.record_stream.default",
    "torch.ops.aten._nested_compute_contiguous_strides_offsets.default", "torch.ops.aten._reshape_alias_copy.default",
    "torch.ops.aten.embedding_backward.default", "torch.ops.aten._cholesky_solve_helper.out",
    "torch.ops.aten.add.out", "torch.ops.aten._print.default", "torch.ops.aten.wait.default", "torch.ops.aten.relu.__init__",
)  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_other_operations_are_refused(entries: dict[str, bytes], tmp_path: Path, target: str) -> None:
    hostile = changed(entries, MODEL, "graph_module", "graph", "nodes", 0, "target", to=target)
    assert error_of(write(tmp_path / "net.pt2", hostile)).startswith(
        "'models/model.json': expected graph_module.graph.nodes[0].target to be a public operation of aten or prims on "
        f"tensors, found '{target}'"
    )


CODE = "__import__('os').mkdir('called')"
NODE = ("graph_module", "graph", "nodes", 0)
SIGNATURE = ("graph_module", "module_call_graph", 0, "signature")


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (("graph_module", "graph", "tensor_values", "conv2d", "sizes", 0), {"as_expr": {"expr_str": CODE}}, "static shapes, found 'conv2d' of shape"),
        (("graph_module", "graph", "tensor_values", "conv2d", "strides", 0), {"as_expr": {"expr_str": CODE}}, "export with static shapes"),
        (("graph_module", "graph", "sym_int_values"), {"s": {"as_expr": {"expr_str": CODE}}}, "sym_int_values to be empty"),
        ((*NODE, "inputs", 0, "arg"), {"as_operator": "torch.os.system"}, "to be a tensor or a number, found operator; --trust-pickle"),
        ((*NODE, "inputs", 0, "arg"), {"as_custom_obj": {"name": "x", "class_fqn": CODE}}, "found custom obj; --trust-pickle"),
        ((*NODE, "inputs", 0, "arg"), {"as_sym_int": {"as_name": "x"}}, "to be a number: export with static shapes"),
        ((*NODE, "name"), f"x={CODE}", "to be a name"),
        ((*NODE, "outputs", 0), {"as_tensor": {"name": f"x={CODE}"}}, "to be a name"),
        (("graph_module", "graph", "inputs", 0), {"as_tensor": {"name": f"x={CODE}"}}, "to be a name"),
        (("graph_module", "graph", "inputs", 0), {"as_string": CODE}, "inputs[0] to be a tensor, found string"),
        (("graph_module", "signature", "input_specs", 0), {"constant_input": {"name": "x", "value": {"as_string": CODE}}}, "expected inputs to be tensors"),
        (("graph_module", "signature", "input_specs", 0), {"user_input": {"arg": {"as_string": CODE}}}, "expected inputs to be tensors, found a string"),
        (("graph_module", "signature", "input_specs", 0, "parameter", "parameter_name"), "none", "to be the name of a tensor in the file"),
        ((*SIGNATURE, "out_spec"), json.dumps([1, {"type": "builtins.dict", "context": json.dumps([{"__enum__": 1, "fqn": "this:x", "name": "y"}]), "children_spec": [{"type": None, "context": None, "children_spec": []}]}]), "keys are text or numbers"),
        ((*SIGNATURE, "out_spec"), json.dumps([1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]), "tuples, lists and dictionaries, found 'collections.defaultdict'"),
        ((*SIGNATURE, "out_spec"), json.dumps([1, {"type": "collections.namedtuple", "context": "os.x", "children_spec": []}]), "found the named tuple 'os.x' of 0"),
        ((*SIGNATURE, "out_spec"), "[" * 100000, "out_spec to be less deep"),
        (("verifiers",), ["EDGE"], "verifiers[0] to be ATEN or TRAINING"),
        (("schema_version", "major"), 99, "schema_version.major to be 8, which torch"),
    ],
)  # fmt: skip
def test_hostile_parts_of_the_graph(
    entries: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Path, place: tuple[Any, ...], value: Any, expected: str
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    message = error_of(write(tmp_path / "net.pt2", changed(entries, MODEL, *place, to=value)))
    assert expected in message


@pytest.mark.parametrize("field", ["guards_code", "range_constraints", "in_spec", "forward_arg_names", "metadata"])
def test_parts_that_nobody_needs(
    entries: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Path, field: str
) -> None:
    monkeypatch.chdir(tmp_path)
    place, value = {
        "guards_code": (("guards_code",), [CODE]),
        "range_constraints": (("range_constraints",), {"u999999999999": {"min_val": 0, "max_val": 1}}),
        "in_spec": ((*SIGNATURE, "in_spec"), CODE),
        "forward_arg_names": ((*SIGNATURE, "forward_arg_names"), [f"x={CODE}"]),
        "metadata": ((*NODE, "metadata"), {"source_fn_stack": "x,torch.os.system", "custom": "[", "from_node": "{}"}),
    }[field]
    path = write(tmp_path / "net.pt2", changed(entries, MODEL, *place, to=value))
    import_model(path, None, make_context())


@pytest.mark.parametrize("name", ['a"),x("', "a\\", "_modules.x", "__class__.x", "training", "a..b", "", "a\nb"])
def test_names_of_weights_that_no_module_has(entries: dict[str, bytes], tmp_path: Path, name: str) -> None:
    config = json.loads(entries[WEIGHTS])
    config["config"][name] = config["config"]["conv.bias"]
    message = error_of(write(tmp_path / "net.pt2", entries | {WEIGHTS: json.dumps(config).encode()}))
    assert "to be the name of a tensor, found" in message


# What is damaged.


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (("sizes", 0, "as_int"), 64, "to be inside of the 324 bytes of the entry, found one of"),
        (("sizes", 0, "as_int"), -1, "sizes[0] to be a number from 0 to 2^48, found -1"),
        (("sizes", 0, "as_int"), 1 << 62, "sizes[0] to be a number from 0 to 2^48"),
        (("strides", 0, "as_int"), 1 << 40, "to be inside of the 324 bytes of the entry"),
        (("storage_offset", "as_int"), 1, "to be inside of the 324 bytes of the entry, found one of 328 bytes"),
        (("strides",), [], "strides to be a list of 4, as sizes is, found a list of 0"),
        (("dtype",), 0, "dtype to be an element type"),
        (("dtype",), 99, "dtype to be a ScalarType, found 99"),
        (("dtype",), 8, "to be inside of the 324 bytes"),
        (("dtype",), 13, "to be that of a tensor of shape [3, 3, 3, 3] and torch.float32, found conv.weight"),
        (("layout",), 1, "layout to be strided, found SparseCoo"),
        (("device", "type"), "meta", "device.type to be a CPU or GPU, found 'meta'"),
    ],
)
def test_damaged_weights(
    entries: dict[str, bytes], tmp_path: Path, place: tuple[Any, ...], value: Any, expected: str
) -> None:
    damaged = changed(entries, WEIGHTS, "config", "conv.weight", "tensor_meta", *place, to=value)
    assert expected in error_of(write(tmp_path / "net.pt2", damaged))


def test_expanded_weights_take_no_memory_that_the_file_has_not(entries: dict[str, bytes], tmp_path: Path) -> None:
    meta = json.loads(entries[WEIGHTS])["config"]["conv.weight"]["tensor_meta"]
    meta |= {"sizes": [{"as_int": 1 << 40}], "strides": [{"as_int": 0}]}
    damaged = changed(entries, WEIGHTS, "config", "conv.weight", "tensor_meta", to=meta)
    assert "to be about as large as the entry" in error_of(write(tmp_path / "net.pt2", damaged))


def test_damaged_archives(entries: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"net/{MODEL}", b" " * 1_000_000)  # a bomb would be larger
    assert error_of(path) == "expected stored entries, found 'models/model.json' compressed"
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(write(path, entries), "a") as archive:
        archive.writestr(f"net/{MODEL}", b"{}")
    assert error_of(path) == "expected each entry once, found 'models/model.json' twice"
    with zipfile.ZipFile(write(path, entries), "a") as archive:
        archive.writestr("other/x", b"")
    assert error_of(path) == "expected entries below one folder, found 2 folders"
    data = bytearray(write(path, entries).read_bytes())
    data[data.find(entries["data/weights/weight_0"])] ^= 1
    path.write_bytes(data)
    assert error_of(path).startswith("expected a zip file, found damaged data: Bad CRC-32 for file")


def test_other_archives_of_torch(tmp_path: Path) -> None:
    path, what = tmp_path / "net.pt2", "expected a .pt2 file of torch.export.save, found "
    torch.save(nn.Conv2d(3, 4, 3).state_dict(), path)
    assert error_of(path) == what + "a file of torch.save; write the program with torch.export.save"
    torch.jit.trace(nn.Conv2d(3, 4, 3), IMAGE).save(str(path))
    assert error_of(path) == what + "a TorchScript archive; export the module it was made of with torch.export"
    write(path, {"data/aotinductor/model/x.so": b""})
    assert error_of(path) == what + "code compiled by AOTInductor; save the program with torch.export.save"
    write(path, {"a": b""})
    assert error_of(path) == what + "a zip file without 'models/model.json'"


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt2")
    assert error_of(tmp_path / "pipe.pt2") == "expected a .pt2 file, found a pipe, device or socket"
    os.symlink("/dev/zero", tmp_path / "zero.pt2")
    assert error_of(tmp_path / "zero.pt2") == "expected a .pt2 file, found a pipe, device or socket"


def test_operations_on_other_shapes_are_not_logged(
    entries: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A traceback of torch's own, at the level of errors, would be on the screen as well."""
    damaged = changed(entries, MODEL, *NODE, "inputs", 1, "arg", "as_tensor", "name", to="p_norm_weight")
    with pytest.raises(PatcError, match=r"^torch cannot decompose the model: "):
        import_model(write(tmp_path / "net.pt2", damaged), None, make_context())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


VALUES = (
    None,
    True,
    0,
    -1,
    7,
    1 << 63,
    1.5,
    "",
    "x",
    "\ud800",
    [],
    {},
    [1],
    {"as_int": 3},
    {"as_tensor": {"name": "x"}},
)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*place, key)
        yield from places(child, (*place, key))


def test_damage_gets_one_clear_line(entries: dict[str, bytes], tmp_path: Path) -> None:
    """400 files with a value of their JSON removed or replaced, cut, or with a bit changed."""
    rng, path, read = random.Random(5), tmp_path / "net.pt2", 0
    whole = write(path, entries).read_bytes()
    known = {name: list(places(json.loads(entries[name]))) for name in (MODEL, WEIGHTS, CONSTANTS)}
    for index in range(400):
        if index % 8 == 0:
            path.write_bytes(whole[: rng.randrange(len(whole))])
        elif index % 8 == 1:
            data = bytearray(whole)
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
        else:
            name = rng.choice((MODEL, MODEL, WEIGHTS, CONSTANTS))
            write(path, changed(entries, name, *rng.choice(known[name]), to=rng.choice(VALUES)))
        try:
            load_program(path)
            read += 1
        except PatcError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error) and len(str(error)) < 400
    assert read < 200
