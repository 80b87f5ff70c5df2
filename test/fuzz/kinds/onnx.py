"""`.onnx` files, edited as bytes and as messages: refused in one line, or compiled to what onnx's evaluator computes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from edits import draw_bytes_edit, draw_json_edit, edit_bytes, edit_json, fewer
from google.protobuf import json_format
from onnx import helper
from outcome import Case, Fault, attempt

import patc

_BOUND, _MOST_BYTES = 1e-4, 1 << 26
_KINDS = ("Add", "Mul", "Conv", "Relu", "Transpose", "Reshape", "Softmax", "Concat", "Slice", "Gather", "Pad", "Resize")
_NAMES = ("x", "w", "y", "a", "b", "c", "shape", "", "perm", "axis", "pads", "strides", "group", "../x", *_KINDS)


def _plain() -> Any:
    rng = np.random.default_rng(1)
    weights = {
        "w": rng.standard_normal((6, 4, 3, 3), np.float32),
        "v": rng.standard_normal((6,), np.float32),
        "m": rng.standard_normal((24, 3), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "v"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "v", "v", "v", "one"], ["b"], epsilon=1.0),
        helper.make_node("LeakyRelu", ["b"], ["c"], alpha=0.2),
        helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[3, 3], strides=[3, 3]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "m"], ["y"], alpha=0.5),
    ]
    return _model(nodes, [1, 4, 6, 6], {**weights, "one": np.ones(6, np.float32)}, 15)


def _shapes() -> Any:
    result = helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, None)
    then = helper.make_graph([helper.make_node("Neg", ["t"], ["r"])], "then", [], [result])
    other = helper.make_graph([helper.make_node("Exp", ["t"], ["r"])], "else", [], [result])
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "i"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["form"], axis=0),
        helper.make_node("Reshape", ["x", "form"], ["t"]),
        helper.make_node("Equal", ["n", "i"], ["is"]),
        helper.make_node("If", ["is"], ["u"], then_branch=then, else_branch=other),
        helper.make_node("Slice", ["u", "i", "ends", "one"], ["p"]),
        helper.make_node("Resize", ["p", "", "scales"], ["q"], mode="nearest"),
        helper.make_node("Pad", ["q", "pads"], ["y"], mode="constant"),
    ]
    constants = {
        "i": np.array([0], np.int64), "rest": np.array([3, -1, 4], np.int64), "ends": np.array([9], np.int64),
        "one": np.array([2], np.int64), "scales": np.array([1, 1, 2, 2], np.float32),
        "pads": np.array([0, 0, 1, 0, 0, 0, 0, 1], np.int64),
    }  # fmt: skip
    return _model(nodes, [2, 3, 2, 4], constants, 18)


def _quantised() -> Any:
    rng = np.random.default_rng(1)
    constants = {
        "s": np.array(0.05, np.float32), "z": np.array(3, np.int8), "q": rng.integers(-9, 9, (5, 4)).astype(np.int8),
        "zs": np.zeros(4, np.int8), "ss": rng.uniform(0.01, 0.1, 4).astype(np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "s", "z"], ["b"]),
        helper.make_node("DequantizeLinear", ["q", "ss", "zs"], ["c"], axis=1),
        helper.make_node("MatMul", ["b", "c"], ["d"]),
        helper.make_node("Softmax", ["d"], ["y"], axis=-1),
    ]
    return _model(nodes, [3, 5], constants, 21)


def _model(nodes: list[Any], shape: list[int], constants: dict[str, np.ndarray], opset: int) -> Any:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


class Kind:
    def __init__(self, folder: Path) -> None:
        models = {"plain": _plain(), "shapes": _shapes(), "quantised": _quantised()}
        self.files = {name: model.SerializeToString() for name, model in models.items()}
        self.values = {name: json.loads(json_format.MessageToJson(model)) for name, model in models.items()}

    def draw(self, choices: random.Random) -> Case:
        base, form = choices.choice([*self.files]), choices.choice(["bytes", "message", "message"])
        value, edits = self.values[base], []
        for _ in range(choices.choice([1, 1, 1, 2, 3])):
            if form == "bytes":
                edits.append(draw_bytes_edit(choices, len(self.files[base])))
            else:
                edits.append(draw_json_edit(choices, value, _NAMES))
                value = edit_json(value, edits[-1])
        return {"base": base, "form": form, "edits": edits}

    def run(self, case: Case, folder: Path) -> str:
        data = self._edited(case)
        if data is None:
            return "no message"
        path = folder / "edited.onnx"
        path.write_bytes(data)
        compiled = attempt(lambda: patc.compile(path, threads=1))
        if any(info.nbytes > _MOST_BYTES for info in (*compiled.program.inputs, *compiled.program.outputs)):
            return "compiled, and too large to run"
        inputs = compiled.random_inputs()
        found = attempt(lambda: compiled(*inputs))
        return _compare(found if isinstance(found, tuple) else (found,), data, compiled.program.inputs, inputs)

    def _edited(self, case: Case) -> bytes | None:
        data, value = self.files[case["base"]], self.values[case["base"]]
        if case["form"] == "bytes":
            for edit in case["edits"]:
                data = edit_bytes(data, edit)
            return data
        for edit in case["edits"]:
            value = edit_json(value, edit)
        try:
            return json_format.ParseDict(value, onnx.ModelProto()).SerializeToString()  # type: ignore[no-any-return]
        except Exception:  # what is no message of this kind
            return None

    def smaller(self, case: Case) -> Iterator[Case]:
        yield from fewer(case)


def _compare(found: Any, data: bytes, infos: Any, inputs: Any) -> str:
    try:
        with np.errstate(all="ignore"):
            evaluator = onnx.reference.ReferenceEvaluator(onnx.ModelProto.FromString(data))
            wanted = evaluator.run(None, {info.name: np.asarray(x) for info, x in zip(infos, inputs, strict=True)})
    except Exception:
        return "compiled, and refused by onnx"
    for one, other in zip(found, wanted, strict=True):
        if one.shape != np.shape(other):
            raise Fault("an output of another shape", f"{one.shape}, onnx {np.shape(other)}")
        other = np.asarray(other, np.float64)
        finite = np.isfinite(other)
        error = np.abs(one.astype(np.float64) - other)[finite].max(initial=0)
        if error > _BOUND * np.abs(other[finite]).max(initial=0):
            raise Fault("wrong numbers", f"{error} of {np.abs(other[finite]).max(initial=0)}")
    return "right"
