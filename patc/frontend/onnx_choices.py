"""Attributes of ONNX nodes that are one of a few words, which onnx does not check and torch-mlir not always."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patc.diagnostics import PatcError

if TYPE_CHECKING:
    import onnx

_AUTO_PAD = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
_DIRECTION = ("forward", "reverse", "bidirectional")
_CHOICES = {
    **{(op, "auto_pad"): _AUTO_PAD for op in ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv")},
    **{(op, "auto_pad"): _AUTO_PAD for op in ("AveragePool", "LpPool", "MaxPool")},
    **{(op, "direction"): _DIRECTION for op in ("GRU", "LSTM", "RNN")},
    ("BitShift", "direction"): ("LEFT", "RIGHT"),
    ("DepthToSpace", "mode"): ("DCR", "CRD"),
    ("Gelu", "approximate"): ("none", "tanh"),
    ("GridSample", "mode"): ("linear", "bilinear", "nearest", "cubic", "bicubic"),
    ("GridSample", "padding_mode"): ("zeros", "border", "reflection"),
    ("Pad", "mode"): ("constant", "reflect", "edge", "wrap"),
    ("Resize", "coordinate_transformation_mode"): (
        "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
        "tf_half_pixel_for_nn", "tf_crop_and_resize",
    ),
    ("Resize", "keep_aspect_ratio_policy"): ("stretch", "not_larger", "not_smaller"),
    ("Resize", "mode"): ("nearest", "linear", "cubic"),
    ("Resize", "nearest_mode"): ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    ("ScatterElements", "reduction"): ("none", "add", "mul", "max", "min"),
    ("ScatterND", "reduction"): ("none", "add", "mul", "max", "min"),
    ("Upsample", "mode"): ("nearest", "linear"),
}  # fmt: skip


def check_choices(node: onnx.NodeProto, place: str) -> None:
    """Refuse words that ONNX does not have.

    Raises:
        PatcError: names the node, and the words that it has.
    """
    for attribute in node.attribute:
        choices = _CHOICES.get((node.op_type, attribute.name), ())
        if choices and not attribute.ref_attr_name and attribute.s.decode() not in choices:
            expected = f"expected {attribute.name} of {node.op_type} to be one of {', '.join(choices)}"
            raise PatcError(f"{expected}, found {attribute.s.decode()!a}", f"{place}: {node.name}")
