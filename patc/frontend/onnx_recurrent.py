"""LSTM, GRU and RNN of ONNX: their products with the input, and one operation for all steps of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from patc.dialects.attributes import Activation
from patc.frontend.held import OPERANDS, describe_layer
from patc.frontend.onnx_writer import Writer, attribute_of

if TYPE_CHECKING:
    import onnx

# Of ONNX, those in the order of `pattern.recurrent`.
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_PEEPHOLES = (0, 2, 1)
_ACTIVATIONS = {
    "Elu": Activation("elu", (1.0, 1.0, 1.0)),
    "HardSigmoid": Activation("hardsigmoid", (0.2, 0.5)),
    "LeakyRelu": Activation("leaky_relu", (0.01,)),
    "Relu": Activation("relu"),
    "Sigmoid": Activation("sigmoid"),
    "Softplus": Activation("softplus", (1.0,)),
    "Tanh": Activation("tanh"),
}
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_DIRECTIONS = {"forward": "forward", "reverse": "reverse", "bidirectional": "both"}


def _recurrent(writer: Writer, node: onnx.NodeProto) -> tuple[str, ...] | None:
    """Write a layer; return None for one that patc cannot compute."""
    activations = _activations(node)
    floats = (writer.kinds.FLOAT, writer.kinds.FLOAT16)
    if activations is None or attribute_of(node, "input_forget", 0) or writer.element(node.input[0]) not in floats:
        return None
    return _Layer(writer, node).write(activations)


def _activations(node: onnx.NodeProto) -> tuple[Activation, ...] | None:
    """Return the activations of a layer, or None where they are others in either direction, or none that are known."""
    defaults = _DEFAULTS[node.op_type]
    given = [name.decode() for name in attribute_of(node, "activations", [])] or list(defaults)
    first, second = given[: len(defaults)], given[len(defaults) :]
    has_constants = attribute_of(node, "activation_alpha", []) or attribute_of(node, "activation_beta", [])
    known = all(name in _ACTIVATIONS for name in first) and len(first) == len(defaults)
    if has_constants or not known or second not in ([], first):
        return None
    return tuple(_ACTIVATIONS[name] for name in first)


@dataclass(frozen=True)
class _Layer:
    """A node, and what writes others in its place."""

    writer: Writer
    node: onnx.NodeProto

    @property
    def _sizes(self) -> tuple[int, int, int, int]:
        """Steps, sequences, directions and units."""
        first, second, _ = self.writer.sizes(self.node.input[0])
        directions, _, units = self.writer.sizes(self.node.input[2])
        steps, sequences = (second, first) if self._is_batch_first else (first, second)
        return steps, sequences, directions, units

    @property
    def _is_batch_first(self) -> bool:
        return bool(attribute_of(self.node, "layout", 0))

    def write(self, activations: tuple[Activation, ...]) -> tuple[str, ...]:
        """Write the layer; return its outputs."""
        writer, node, (steps, sequences, directions, units) = self.writer, self.node, self._sizes
        order = _GATES[node.op_type]
        mode = node.op_type.lower()
        if mode == "gru" and not attribute_of(node, "linear_before_reset", 0):
            mode = "gru_reset_first"
        direction = _DIRECTIONS[attribute_of(node, "direction", b"forward").decode()]
        bias, lengths = self._given(3), node.input[4] if len(node.input) > 4 else ""
        shape = [steps, sequences, directions * len(order) * units]
        x = self._swapped(self._given(0))
        rows = self._reshape(x, [steps * sequences, -1])
        first = [self._gates(bias, [2 * len(order), units], order)] if bias else []
        products = writer.emit(
            "Gemm", rows, self._gates(self._given(1), [len(order), units, -1], order), *first, transB=1
        )
        given = {
            "input": self._reshape(products, shape),
            "weight": self._gates(self._given(2), [len(order), units, units], order),
            "hidden": self._state(5),
            "lengths": "" if self._are_whole(lengths, steps) else lengths,
        }
        if bias:
            others = [gate + len(order) for gate in order]
            given["bias"] = self._gates(bias, [2 * len(order), units], others)
        if mode == "lstm":
            given["cell"] = self._state(6)
            given["peepholes"] = self._gates(self._given(7), [3, units], _PEEPHOLES) if self._given(7) else ""
        text = describe_layer(mode, direction, activations, attribute_of(node, "clip", None))
        state = [directions, sequences, units]
        shapes = [[steps, sequences, directions * units], state, state]
        y, *ends = writer.emit_layer("Recurrent", [given.get(name, "") for name in OPERANDS], text, shapes)
        outputs = [self._outputs(y), *(self._swapped(end) for end in ends)]
        outputs = outputs[: 3 if mode == "lstm" else 2]
        return tuple(writer.cast(output, writer.element(node.input[0])) for output in outputs)

    def _given(self, number: int) -> str:
        """Return an input in f32, "" for one that is not there."""
        name = self.node.input[number] if number < len(self.node.input) else ""
        return self.writer.cast(name, self.writer.kinds.FLOAT) if name else ""

    def _state(self, number: int) -> str:
        """Return a state before the first step, directions x sequences x units."""
        _, sequences, directions, units = self._sizes
        given = self._given(number)
        return (
            self._swapped(given)
            if given
            else self.writer.constant(np.zeros((directions, sequences, units), np.float32))
        )

    def _are_whole(self, lengths: str, steps: int) -> bool:
        array = self.writer.graph.constants.get(lengths)
        return array is not None and bool((array >= steps).all())

    def _gates(self, name: str, shape: Sequence[int], order: Sequence[int]) -> str:
        """Return some gates of all directions, one behind the other; `shape` is that of one direction."""
        writer, directions = self.writer, self._sizes[2]
        cut = self._reshape(name, [directions, *shape])
        taken = writer.emit("Gather", cut, writer.constant(np.array(order, np.int64)), axis=1)
        return self._reshape(taken, [directions * len(order) * shape[1], *shape[2:]])

    def _outputs(self, y: str) -> str:
        """Return steps x sequences x directions of units as ONNX has them."""
        steps, sequences, directions, units = self._sizes
        if self._is_batch_first:
            whole = self._reshape(y, [steps, sequences, directions, units])
            return self.writer.emit("Transpose", whole, perm=[1, 0, 2, 3])
        if 1 in (sequences, directions):
            return self._reshape(y, [steps, directions, sequences, units])
        whole = self._reshape(y, [steps, sequences, directions, units])
        return self.writer.emit("Transpose", whole, perm=[0, 2, 1, 3])

    def _swapped(self, name: str) -> str:
        """Return a tensor of rank 3 with the first two axes exchanged, where the layer has sequences first."""
        return self.writer.emit("Transpose", name, perm=[1, 0, 2]) if self._is_batch_first else name

    def _reshape(self, name: str, shape: Sequence[int]) -> str:
        return self.writer.emit("Reshape", name, self.writer.constant(np.array(shape, np.int64)))


RECURRENT: dict[str, Any] = dict.fromkeys(_GATES, _recurrent)
