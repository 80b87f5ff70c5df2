"""A quantizer for prepare_pt2e and prepare_qat_pt2e of torchao, which asks for what patc has kernels for."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Node

from patc.diagnostics import PatcError

try:
    from torchao.quantization.pt2e import (
        FusedMovingAvgObsFakeQuantize,
        HistogramObserver,
        MovingAverageMinMaxObserver,
        MovingAveragePerChannelMinMaxObserver,
        PerChannelMinMaxObserver,
    )
    from torchao.quantization.pt2e.quantizer import (
        QuantizationAnnotation,
        QuantizationSpec,
        Quantizer,
        SharedQuantizationSpec,
    )
except ImportError:
    raise PatcError("expected the package torchao for PatcQuantizer, found none: pip install 'patc[pt2e]'") from None

aten = torch.ops.aten
_WEIGHTED = {aten.conv2d.default, aten.linear.default}
_ADDS = {aten.add.Tensor, aten.add_.Tensor}
# Means, which have numbers of their own.
_MEANS = {aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default}
# What gives numbers other places: the integers stay.
_MOVES = {
    aten.dropout.default,
    aten.flatten.using_ints,
    aten.max_pool2d.default,
    aten.reshape.default,
    aten.upsample_nearest2d.vec,
    aten.view.default,
}
_ANNOTATION = "quantization_annotation"  # of the metadata of nodes
_WORD = 4  # channels that lie together


class PatcQuantizer(Quantizer):
    """Quantise what layers read: activations to integers of eight bits with one scale and zero point a tensor, weights
    with one scale a filter. Biases stay, and so does what joins a layer: batch norm, activations, and the sum with the
    result of another layer, which is not rounded in between.

        exported = torch.export.export(model, (x,)).module()
        prepared = prepare_pt2e(exported, PatcQuantizer())
        for sample in samples:
            prepared(sample)
        compiled = patc.compile(convert_pt2e(prepared), (x,))

    Convolutions, linear layers, sums, pooling, concatenations and enlarging by copies are quantised; modules by the
    names in `keep`, and what is none of these, stay in f32. See docs/int8.md.

    Args:
        training: for `prepare_qat_pt2e`: numbers are rounded in training already.
        keep: names of modules that stay in f32.
    """

    def __init__(self, training: bool = False, keep: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._keep = tuple(keep)
        if training:
            activations = FusedMovingAvgObsFakeQuantize.with_args(
                observer=MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8
            )
            weights = FusedMovingAvgObsFakeQuantize.with_args(
                observer=MovingAveragePerChannelMinMaxObserver, quant_min=-127, quant_max=127, dtype=torch.qint8
            )
        else:
            activations = HistogramObserver.with_args(eps=2**-12)
            weights = PerChannelMinMaxObserver.with_args(eps=2**-12)
        self._activation = QuantizationSpec(
            torch.int8, activations, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_affine
        )
        self._weight = QuantizationSpec(
            torch.int8, weights, quant_min=-127, quant_max=127, qscheme=torch.per_channel_symmetric, ch_axis=0
        )

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        for node in model.graph.nodes:
            if node.op == "call_function" and not self._is_kept(node):
                annotation = self._annotation(node)
                if annotation is not None:
                    node.meta[_ANNOTATION] = annotation
        return model

    def validate(self, model: torch.fx.GraphModule) -> None:
        """Nothing is asked for that could not be compiled."""

    def _annotation(self, node: Node) -> Any:
        read, given = [each for each in node.all_input_nodes if _is_activation(each)], self._activation
        if node.target in _WEIGHTED and isinstance(node.args[1], Node):
            return _annotate({node.args[0]: given, node.args[1]: self._weight})
        if node.target in _ADDS and len(read) == 2 and _shape(read[0]) == _shape(read[1]) and len(_shape(node)) == 4:
            joined = next((each for each in reversed(read) if _ends_layer(each)), None)
            return _annotate({each: given for each in read if each is not joined}, None if joined else given)
        if node.target in _MEANS and len(_shape(node)) == 4:
            return _annotate({node.args[0]: given}, given)
        # Parameters and integers are moved, too.
        if read and (node.target in _MOVES or _joins_words(node)):
            first = read[0]
            shared = SharedQuantizationSpec((first, node))
            return _annotate({each: given if each is first else shared for each in read}, shared)
        return None

    def _is_kept(self, node: Node) -> bool:
        names = [name for name, _ in node.meta.get("nn_module_stack", {}).values()]
        return any(name == kept or name.startswith(f"{kept}.") for name in names for kept in self._keep)


def _annotate(inputs: dict[Any, Any], output: Any = None) -> Any:
    return QuantizationAnnotation(input_qspec_map=inputs, output_qspec=output, _annotated=True)


def _is_activation(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32 and node.op != "get_attr"


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _ends_layer(node: Node) -> bool:
    """Return whether a sum can join the layer that makes a tensor: a convolution, perhaps with batch norm, for it
    alone."""
    while len(node.users) == 1 and "batch_norm" in str(node.target):
        node = node.args[0]
    return len(node.users) == 1 and node.target is aten.conv2d.default


def _joins_words(node: Node) -> bool:
    """Return whether a node joins planes of whole words along their channels."""
    if node.target is not aten.cat.default or len(_shape(node)) != 4:
        return False
    axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    parts = node.all_input_nodes
    return axis in (1, -3) and len(parts) > 1 and math.gcd(*(_shape(part)[1] for part in parts)) % _WORD == 0
