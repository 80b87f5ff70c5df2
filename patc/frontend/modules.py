"""What a torch.nn.Module and its example inputs have to be before torch traces them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from patc.diagnostics import PatcError
from patc.numerics import TORCH_TYPES

# Other modules compute the same in both modes, so that only these need to be right below the root.
_BY_MODE = (torch.nn.modules.batchnorm._NormBase, torch.nn.modules.dropout._DropoutNd)
_QUANTIZED = ("torch.ao.nn.quantized", "torch.nn.quantized")
_STORED = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def check_inputs(
    model: torch.nn.Module, example_inputs: Any
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Return example inputs as positional ones and keyword ones.

    Raises:
        PatcError: they are no tensors with values, of known element types.
    """
    if isinstance(example_inputs, Mapping):
        named = dict(example_inputs)
        if not all(isinstance(name, str) for name in named):
            raise PatcError(f"expected names of example inputs to be text, found {list(named)}")
    elif isinstance(example_inputs, torch.Tensor) or not isinstance(example_inputs, Sequence):
        found = type(example_inputs).__name__
        raise PatcError(f"expected a tuple of example inputs, or a dict of them by name, found {found}")
    else:
        named = dict(zip(argument_names(model, len(example_inputs)), example_inputs, strict=True))
    for name, value in named.items():
        if not isinstance(value, torch.Tensor):
            raise PatcError(f"expected input '{name}' to be a tensor, found {type(value).__name__}{_advice(value)}")
        require_plain(f"input '{name}'", value)
        require_known(f"input '{name}'", describe_dtype(value.dtype))
    return ((), named) if isinstance(example_inputs, Mapping) else (tuple(example_inputs), {})


def _advice(value: Any) -> str:
    """Return how a model with an input that is no tensor can be compiled."""
    if value is None:
        return "; leave it out, and give the others by name"
    if isinstance(value, (Mapping, list, tuple)):
        return "; compile a module whose forward takes the tensors one by one"
    return "; compile a module whose forward has it as a constant" if isinstance(value, (bool, int, float, str)) else ""


def argument_names(model: torch.nn.Module, count: int) -> list[str]:
    """Return names for positional arguments, those of `*images` as torch.export has them: images_0, images_1."""
    parameters = inspect.signature(model.forward).parameters.values()
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [each.name for each in parameters if each.kind in by_place][:count]
    rest = next((f"{each.name}_" for each in parameters if each.kind is inspect.Parameter.VAR_POSITIONAL), "")
    return names + [f"{rest}{number}" for number in range(count - len(names))]


def refuse_script(model: torch.nn.Module) -> None:
    """Refuse TorchScript and quantized modules, which torch.export does not trace.

    Raises:
        PatcError: which layer it is.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            found = f"layer '{name}' to be one" if name else "one"
            expected = "expected a torch.nn.Module that is no TorchScript, found"
            raise PatcError(f"{expected} {found}; compile the module that it was made of")
        if type(module).__module__.startswith(_QUANTIZED):
            found = f"quantized layer '{name}'" if name else "a quantized one"
            raise PatcError(f"expected a torch.nn.Module of float32, found {found}; compile it as it was before that")


def check_module(model: torch.nn.Module) -> None:
    """Refuse a module that is not in eval mode, or whose weights have no plain values.

    Raises:
        PatcError: which layer or weight it is.
    """
    for name, module in model.named_modules():
        is_checked = isinstance(module, _BY_MODE) or (module is model and not _has_fixed_mode(module))
        if module.training and is_checked:
            found = f"layer '{name}' in training mode" if name else "training mode"
            raise PatcError(f"expected a model in eval mode, found {found}; call model.eval()")
    for what, tensor in _tensors(model):
        if isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
            raise PatcError(f"expected {what} to have a shape, found a lazy one; call the model once")
        require_plain(what, tensor)
    for name, parameter in model.named_parameters():
        require_known(f"parameter '{name}'", describe_dtype(parameter.dtype))


def check_program(program: ExportedProgram) -> None:
    """Refuse a program whose weights are not those that it was exported with: others may have been put in its place.

    Raises:
        PatcError: which weight it is.
    """
    placeholders = {node.name: node.meta.get("val") for node in program.graph.find_nodes(op="placeholder")}
    stored = {**program.constants, **program.state_dict}
    for spec in program.graph_signature.input_specs:
        if spec.kind not in _STORED:
            continue
        what, tensor = f"{spec.kind.name.lower().replace('_', ' ')} '{spec.target}'", stored.get(spec.target or "")
        if not isinstance(tensor, torch.Tensor):
            raise PatcError(f"expected {what} in the program, found {'none' if tensor is None else 'another object'}")
        require_plain(what, tensor)
        if tensor.is_inference():
            raise PatcError(f"expected {what} of normal use, found one made in inference mode; export a clone()")
        value = placeholders.get(spec.arg.name)
        if isinstance(value, torch.Tensor) and value.shape != tensor.shape:
            found = f"found one of shape {list(tensor.shape)}"
            raise PatcError(f"expected {what} of shape {list(value.shape)} as exported, {found}")


def _has_fixed_mode(module: torch.nn.Module) -> bool:
    """Return whether a module was traced in a mode and refuses another: `ExportedProgram.module()` is such."""
    return isinstance(module, torch.fx.GraphModule) and "eval" in vars(module)


def _tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from ((f"parameter '{name}'", tensor) for name, tensor in model.named_parameters())
    yield from ((f"buffer '{name}'", tensor) for name, tensor in model.named_buffers())


def require_plain(what: str, tensor: torch.Tensor) -> None:
    """Refuse a tensor whose elements are not numbers in memory.

    Raises:
        PatcError: it is sparse, quantized, nested, or has no values.
    """
    kind = str(tensor.layout).removeprefix("torch.")
    if tensor.is_nested or kind == "jagged":
        raise PatcError(f"expected {what} to be one tensor, found a nested one")
    if tensor.layout != torch.strided:
        raise PatcError(f"expected {what} to be dense, found a tensor of layout {kind}; call to_dense()")
    if tensor.is_quantized:
        raise PatcError(f"expected {what} to be float32, found {describe_dtype(tensor.dtype)}; call dequantize()")
    if isinstance(tensor, FakeTensor) or tensor.device.type == "meta":
        found = "a fake tensor" if isinstance(tensor, FakeTensor) else "a tensor on the meta device"
        raise PatcError(f"expected {what} to have values, found {found}")


def require_known(what: str, dtype: str) -> None:
    """Refuse an element type that inputs, outputs and weights cannot have.

    Raises:
        PatcError: it is refused.
    """
    if dtype not in TORCH_TYPES:
        raise PatcError(f"expected {what} to be one of {', '.join(TORCH_TYPES)}, found {dtype}")


def describe_dtype(dtype: torch.dtype) -> str:
    """Return the name of an element type as numpy has it."""
    return str(dtype).removeprefix("torch.")


def without_inference_tensors(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model, or where tensors of it were made in inference mode a copy with others: torch traces no such.

    The copy has the model's own tensors but for those.
    """
    tensors = [*model.parameters(), *model.buffers()]
    if not any(tensor.is_inference() for tensor in tensors):
        return model
    kept: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
    with torch.inference_mode(False):
        for tensor in tensors:
            if tensor.is_inference():
                plain = tensor.detach().clone()
                is_parameter = isinstance(tensor, torch.nn.Parameter)
                kept[id(tensor)] = torch.nn.Parameter(plain, requires_grad=False) if is_parameter else plain
        return copy.deepcopy(model, kept)
