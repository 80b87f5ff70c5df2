"""`.onnx` files, edited as bytes and as messages: refused in one line, or compiled to what onnx's evaluator computes."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from edits import Edit, draw_bytes_edit, draw_json_edit, edit_bytes, edit_json, fewer, places
from google.protobuf import json_format
from onnx import helper
from outcome import Case, Fault, attempt

import patc

_BOUND, _MOST_BYTES = 1e-4, 1 << 26
_KINDS = ("Add", "Mul", "Conv", "Relu", "Transpose", "Reshape", "Softmax", "Concat", "Slice", "Gather", "Pad", "Resize")
_NAMES = ("x", "w", "y", "a", "b", "c", "shape", "", "perm", "axis", "pads", "strides", "group", "../x", *_KINDS)
# What is wrong with files in the wild, by the field: references to other places, sizes, versions, types, names.
_OUTSIDE = (
    "../secret.bin",
    "link",
    "up/secret.bin",
    "/proc/self/environ",
    "in/../../secret.bin",
    "missing.bin",
    "",
    "a\nb",
)
_WRONG: dict[str, tuple[Any, ...]] = {
    "value": (*_OUTSIDE, "-4", "99999999999999999999", "x"),
    "dimValue": ("0", "-1", "1099511627776", "9223372036854775807", "7"),
    "dims": (["1099511627776"], ["0"], ["-3"], ["6", "4"], []),
    "version": ("3", "24", "9999", "-1", "0"),
    "domain": ("com.microsoft", "ai.onnx.ml", "a\nb", "own"),
    "opType": (*_KINDS, "NonZero", "If", "Loop", "Det", "a\nb", "QLinearConv", "LSTM", "Scan", "NonMaxSuppression"),
    "name": ("a\nb", "\x1b[31m", "x", "y", "w", "n" * 3000, "../x", "{}", ""),
    "input": (["y"], ["c", "y"], ["a", "a"], ["x", "x", "x"], ["x", "w"], [""], []),
    "output": (["x"], ["y"], ["a", "a"], ["y", "y"], ["a\nb"], []),
    "elemType": (0, 2, 6, 7, 8, 9, 10, 11, 14, 16, 17, 22, 99),
    "dataType": (0, 2, 6, 7, 8, 9, 10, 11, 14, 16, 17, 22, 99),
    "ints": (["0", "0"], ["-1", "-1", "-1", "-1"], ["9223372036854775807"] * 2, ["1", "1", "1"], []),
    "i": ("0", "-1", "3", "9223372036854775807", "-9223372036854775808"),
    "f": (0.0, -1.0, 1e38, "NaN", "Infinity"),
}


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


def _external() -> Any:
    """A model whose weights are in a file beside it: `DATA`."""
    model = _plain()
    for tensor, offset in zip(model.graph.initializer, (0, 864), strict=False):
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": "weights.bin", "offset": offset}.items():
            tensor.external_data.add(key=key, value=str(value))
    return model


def _branches() -> Any:
    """A model of several inputs and outputs, names that are no words, and a function of its own."""
    half = helper.make_node("Mul", ["v", "v"], ["w"])
    square = helper.make_function("own", "Square", ["v"], ["w"], [half], [helper.make_opsetid("", 17)])
    nodes = [
        helper.make_node("Square", ["x"], ["a b"], name="first/\u00e9", domain="own"),
        helper.make_node("Split", ["a b", "sizes"], ["c", ""], name="", axis=1),
        helper.make_node("GlobalAveragePool", ["a b"], ["d"]),
        helper.make_node("Concat", ["c", "c"], ["y"], axis=-1),
        helper.make_node("ArgMax", ["d"], ["z"], axis=1),
    ]
    made = _model(nodes, [2, 4, 3, 5], {"sizes": np.array([1, 3], np.int64)}, 17)
    made.functions.append(square)
    made.opset_import.append(helper.make_opsetid("own", 1))
    made.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.INT64, None))
    return made


_BASES = {"plain": _plain, "shapes": _shapes, "quantised": _quantised, "external": _external, "branches": _branches}
DATA = np.random.default_rng(1).standard_normal(222).astype(np.float32).tobytes()
_SECRET = "secret.bin"  # beside the model's folder


class Kind:
    def __init__(self, folder: Path) -> None:
        models = {name: make() for name, make in _BASES.items()}
        self.files = {name: model.SerializeToString() for name, model in models.items()}
        self.values = {name: json.loads(json_format.MessageToJson(model)) for name, model in models.items()}
        self.read: list[str] = []
        sys.addaudithook(lambda event, args: self.read.append(str(args[0])) if event == "open" else None)

    def draw(self, choices: random.Random) -> Case:
        base, form = choices.choice([*self.files]), choices.choice(["bytes", "message", "message"])
        while True:
            value, edits = self.values[base], []
            for _ in range(choices.choice([1, 1, 1, 2, 3])):
                if form == "bytes":
                    edits.append(draw_bytes_edit(choices, len(self.files[base])))
                else:
                    edits.append(_draw_edit(choices, value))
                    value = edit_json(value, edits[-1])
            case = {"base": base, "form": form, "edits": edits}
            if self._edited(case) is not None:
                return case

    def run(self, case: Case, folder: Path) -> str:
        data = self._edited(case)
        if data is None:
            return "no message"
        (folder / "in").mkdir()
        path = folder / "in" / "edited.onnx"
        path.write_bytes(data)
        for place in (folder / _SECRET, folder / "in" / "weights.bin"):
            place.write_bytes(DATA)
        (folder / "in" / "link").symlink_to(folder / _SECRET)
        (folder / "in" / "up").symlink_to(folder)
        self.read.clear()
        try:
            return self._compiled(path, data)
        finally:
            if any(os.path.realpath(place) == os.path.realpath(folder / _SECRET) for place in self.read):
                raise Fault("a file outside of the model's folder was read", str(case))

    def _compiled(self, path: Path, data: bytes) -> str:
        compiled = attempt(lambda: patc.compile(path, threads=1))
        if any(info.nbytes > _MOST_BYTES for info in (*compiled.program.inputs, *compiled.program.outputs)):
            return "compiled, and too large to run"
        inputs = compiled.random_inputs()
        found = attempt(lambda: compiled(*inputs))
        return _compare(found if isinstance(found, tuple) else (found,), path, compiled.program.inputs, inputs)

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


def _draw_edit(choices: random.Random, model: Any) -> Edit:
    """Draw an edit of a message: any, or one of what files in the wild have wrong."""
    found: list[Edit] = []
    for place in places(model):
        for key, values in _WRONG.items():
            if place and place[-1] == key:
                found += [["put", place, value] for value in values]
    is_any = not found or choices.random() < 0.6
    return draw_json_edit(choices, model, _NAMES) if is_any else choices.choice(found)


def _compare(found: Any, path: Path, infos: Any, inputs: Any) -> str:
    try:
        with np.errstate(all="ignore"):
            evaluator = onnx.reference.ReferenceEvaluator(str(path))
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
