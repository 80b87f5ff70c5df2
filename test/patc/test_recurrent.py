"""LSTM, GRU and RNN of torch and of ONNX: one op for all steps, with the numbers of float64 or of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compilers import check_compiled, compile_reference
from emulated import compile_emulated, needs_arm
from gpu import needs_device
from half import needs_half
from helpers import assert_close, layer_ops, raised_model, torch_results
from native import compile_native
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import patc
from patc import PatcError
from patc.dialects.schedules import Schedule

HIDDEN = {"lstm": 21, "gru": 16, "rnn": 9, "projected": 20}


class Modules(nn.Module):
    """Modules of all sorts: layers, directions, biases, a projection, states that are given, sequences first or not."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.lstm = nn.LSTM(8, HIDDEN["lstm"], 2, bidirectional=True, batch_first=True)
            self.gru = nn.GRU(8, HIDDEN["gru"], 2, bias=False)
            self.rnn = nn.RNN(8, HIDDEN["rnn"], nonlinearity="relu")
            self.projected = nn.LSTM(8, HIDDEN["projected"], bidirectional=True, proj_size=5)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> Any:
        steps = x.transpose(0, 1)
        y, (h, c) = self.lstm(x, (hidden, cell))
        return y, h, c, *self.gru(steps), self.rnn(steps)[0], self.projected(steps)[0]


def inputs(sequences: int, steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(steps)
    shapes = [(sequences, steps, 8), *[(4, sequences, HIDDEN["lstm"])] * 2]
    return [torch.randn(shape, generator=generator) for shape in shapes]


class Chain(nn.Module):
    """Modules one behind the other, as one layer each."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.lstm, self.gru = nn.LSTM(8, 21, bidirectional=True), nn.GRU(42, 16)
            self.projected = nn.LSTM(16, 20, bidirectional=True, proj_size=5)

    def forward(self, x: Tensor) -> Tensor:
        return self.projected(self.gru(self.lstm(x)[0])[0])[0]


def check_chain(compiler: Callable[..., Any], **how: Any) -> None:
    model, x = Chain().eval(), torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(0))
    check_compiled(model, [x], compiler, **how)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sequences", [1, 7])
def test_this_machine(sequences: int, threads: int) -> None:
    model, given = Modules().eval(), inputs(sequences, 6)
    found = patc.compile(model, tuple(given), threads=threads)(*given)
    assert_close([value.numpy() for value in found], torch_results(model, given))


def test_reference() -> None:
    check_chain(compile_reference)


@needs_arm
def test_aarch64() -> None:
    check_chain(compile_emulated)


@needs_device
def test_vulkan() -> None:
    """There is no kernel for all steps: each is linalg of its own."""
    model, given = Modules().eval(), inputs(2, 3)
    found = patc.compile(model, tuple(given), target="spirv-vulkan")(*given)
    assert_close([value.numpy() for value in found], torch_results(model, given))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("steps", [1, 2, 500])
def test_steps(steps: int, threads: int) -> None:
    """However many steps there are, a layer is one op; two threads share the units of a wide one."""
    model, x = nn.LSTM(8, 512).eval(), torch.randn(steps, 1, 8)
    module, state = raised_model(model, [x])
    names = [op.operation.name for op in layer_ops(module) if op.operation.name.startswith("pattern.")]
    assert names == ["pattern.linear", "pattern.recurrent"]
    found = compile_native(module, state.parameters, threads=threads)(x.numpy())
    assert_close(found, torch_results(model, [x]))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_units_of_one_direction_are_shared_by_threads(kind: type[nn.RNNBase]) -> None:
    """Which meet after each step, whether the model of this machine would choose it or not."""

    def shared(op: Any, chosen: Schedule) -> Schedule:
        return replace(chosen, threads=3) if op.operation.name == "pattern.recurrent" else chosen

    model, x = kind(8, 40).eval(), torch.randn(5, 1, 8)
    module, state = raised_model(model, [x])
    found = compile_native(module, state.parameters, threads=3, retile=shared)(x.numpy())
    assert_close(found, torch_results(model, [x]))


@needs_half
def test_half_precision() -> None:
    """The layer stays in f32."""
    model, x = nn.Sequential(nn.Conv1d(8, 8, 3), nn.GRU(6, 9)).eval(), torch.randn(1, 8, 8)
    found = patc.compile(model, (x,), dtype="f16")(x)
    assert_close([value.numpy() for value in found], torch_results(model, [x]), 1e-2)


def test_every_door(tmp_path: Path) -> None:
    model, x = Modules().rnn.eval(), torch.randn(5, 2, 8)
    wanted = [array.astype(np.float32) for array in torch_results(model, [x])]
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "net.pt2")
    for compiled in (patc.compile(tmp_path / "net.pt2"), torch.compile(model, backend="patc")):
        with torch.no_grad():
            assert_close([value.numpy() for value in compiled(x)], wanted)


STEPS, SEQUENCES, INPUTS, UNITS = 6, 3, 5, 20
NODES: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("LSTM", {"direction": "bidirectional", "clip": 0.4}, ("lengths", "hidden", "cell", "peepholes")),
    ("LSTM", {"direction": "reverse", "activations": ["HardSigmoid", "Relu", "Tanh"]}, ()),
    ("GRU", {"direction": "bidirectional"}, ("lengths", "hidden")),
    ("GRU", {"direction": "forward", "linear_before_reset": 1}, ("hidden",)),
    ("RNN", {"direction": "reverse", "activations": ["Relu"]}, ("lengths",)),
]


def make_file(path: Path) -> None:
    """Write a model with a layer for each of NODES, of the same input."""
    onnx = pytest.importorskip("onnx")
    helper, floats, rng = onnx.helper, onnx.TensorProto.FLOAT, np.random.default_rng(0)
    nodes, tensors, outputs = [], {"lengths": np.array([6, 1, 4], np.int32)}, []
    for number, (kind, attributes, given) in enumerate(NODES):
        gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
        directions = 2 if attributes["direction"] == "bidirectional" else 1
        shapes = {"W": (gates * UNITS, INPUTS), "R": (gates * UNITS, UNITS), "B": (2 * gates * UNITS,)}
        shapes |= {"hidden": (SEQUENCES, UNITS), "cell": (SEQUENCES, UNITS), "peepholes": (3 * UNITS,)}
        for name, shape in shapes.items():
            tensors[f"{name}{number}"] = rng.normal(0, 0.3, (directions, *shape)).astype(np.float32)
        optional = [name if name in given else "" for name in ("lengths", "hidden", "cell", "peepholes")]
        names = ["W", "R", "B", *optional[: 4 if kind == "LSTM" else 2]]
        operands = [name if name in ("", "lengths") else f"{name}{number}" for name in names]
        made = [f"{part}{number}" for part in ("Y", "Y_h", "Y_c")[: 3 if kind == "LSTM" else 2]]
        nodes.append(helper.make_node(kind, ["x", *operands], made, f"layer{number}", hidden_size=UNITS, **attributes))
        outputs += [helper.make_tensor_value_info(name, floats, None) for name in made]
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()]
    x = helper.make_tensor_value_info("x", floats, [STEPS, SEQUENCES, INPUTS])
    graph = helper.make_graph(nodes, "layers", [x], outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_onnx(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install --no-deps --group nets")
    make_file(tmp_path / "layers.onnx")
    x = np.random.default_rng(1).standard_normal((STEPS, SEQUENCES, INPUTS), np.float32)
    found = patc.compile(tmp_path / "layers.onnx")(torch.from_numpy(x))
    session = runtime.InferenceSession(tmp_path / "layers.onnx", providers=["CPUExecutionProvider"])
    assert_close([value.numpy() for value in tree_leaves(found)], session.run(None, {"x": x}))


def test_onnx_refuses_by_name(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    make_file(tmp_path / "layers.onnx")
    model = onnx.load(tmp_path / "layers.onnx")
    for node in model.graph.node[:2]:
        node.attribute.append(onnx.helper.make_attribute("input_forget", 1))
    onnx.save(model, tmp_path / "layers.onnx")
    with pytest.raises(PatcError, match=r"operations patc cannot compile: LSTM x2 \('layer0', 'layer1'\)$"):
        patc.compile(tmp_path / "layers.onnx")
