"""PyTorch models as linalg ops on tensors.

`torch.export` traces the model, torch decomposes it into core operations, torch-mlir lowers these to linalg.
The weights stay out of the IR: each becomes a `pattern.parameter` op with the name it has in the state dict.
Every op carries the path of its layer and the source line of the call.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram, ModuleCallEntry
from torch.export.graph_signature import ConstantArgument, OutputKind, TensorArgument
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree
from torch_mlir import ir
from torch_mlir.dialects import torch as torch_dialect
from torch_mlir.extras.fx_decomp_util import get_decomposition_table
from torch_mlir.extras.fx_importer import ContextCache, FxImporter, FxImporterHooks

from patc.diagnostics import PatcError, first_line
from patc.files import check_regular
from patc.frontend import ACCEPTED, ExampleInputs, pt2
from patc.frontend.decompositions import DECOMPOSITIONS
from patc.frontend.held import hold_layers, release_layers
from patc.frontend.lowering import name_parameters, set_type
from patc.frontend.modules import (
    check_inputs,
    check_module,
    check_program,
    describe_dtype,
    refuse_script,
    require_known,
    require_plain,
    without_inference_tensors,
)
from patc.frontend.operations import check_operations, constant_nodes, naming_calls
from patc.frontend.quantised import find_steps, join_quantised
from patc.frontend.recurrent import RECURRENT
from patc.frontend.rewrites import cast_constants, fold_constants, simplify
from patc.frontend.shapes import Shapes, shapes_of
from patc.frontend.source import describe_place, is_torch_file, node_location
from patc.frontend.tracing import ForwardError, copy_for_tracing, forgetting_sources
from patc.frontend.unsupported import lower_to_linalg, require_known_operations
from patc.locks import compile_no_more
from patc.parameters import ParameterStore
from patc.passes.ir.ranges import write_steps
from patc.torch_archives import describe_content

_PACKED = (
    "packed sequences cannot be compiled, whose sizes depend on lengths: give recurrent layers the padded ones, and "
    "mask what is behind each end"
)
# Before torch takes down what a daemon thread may be compiling with.
atexit.register(compile_no_more)


@dataclass(frozen=True)
class TensorSpec:
    """An input or output.

    Attributes:
        name: of the argument of `forward`, or of the operation that makes the output.
        shape: all sizes are known.
        dtype: numpy's name of the element type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"'{self.name}' {_describe_shape(self.shape)} {self.dtype}"


@dataclass(frozen=True)
class ImportedModel:
    """A model as a module whose @main takes the inputs and returns the tensors among the outputs.

    Attributes:
        module: linalg ops on tensors, and one `pattern.parameter` for each weight in use.
        parameters: the weights; the arrays share their memory with the model's tensors.
        inputs: one for each argument of @main.
        outputs: one for each result of @main.
        structure: how the model nests what it returns, tensors and constants.
        constants: what the model returns beside tensors, by its position among the leaves of `structure`.
    """

    module: ir.Module
    parameters: ParameterStore
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    structure: pytree.TreeSpec
    constants: dict[int, Any]

    def structured(self, results: Sequence[Any]) -> Any:
        """Return the results of @main nested as the model returns them."""
        remaining = iter(results)
        leaves = [
            self.constants[i] if i in self.constants else next(remaining) for i in range(self.structure.num_leaves)
        ]
        return pytree.tree_unflatten(leaves, self.structure)


@forgetting_sources()
def import_model(model: Any, example_inputs: ExampleInputs, context: ir.Context) -> ImportedModel:
    """Import a torch model. See `patc.frontend.import_model` for arguments and errors."""
    program = _as_program(model, example_inputs)
    structure = program.call_spec.out_spec
    names = [spec.name for spec in input_specs(program)]  # torch gives those of files others
    program = _decompose(program)
    inputs = input_specs(program)
    simplify(program.graph)
    weights = constant_nodes(program.graph, {spec.name for spec in inputs})
    if join_quantised(program.graph, weights):
        program.graph.eliminate_dead_code()
        weights = constant_nodes(program.graph, {spec.name for spec in inputs})
    check_operations(program.graph, weights)
    outputs, constants = _split_outputs(program)
    for spec in outputs:
        require_known(f"output '{spec.name}'", spec.dtype)
    cast_constants(program.graph, weights)
    steps = find_steps(program, weights)
    hooks = _CollectParameters(fold_constants(program, weights))
    module = _import_graph(program, hooks, context)
    with naming_calls(program.graph, context):
        held = hold_layers(module)
        require_known_operations(module)
        lower_to_linalg(module)
    release_layers(module, held)
    used = name_parameters(module, list(hooks.parameters), len(inputs))
    with context:
        write_steps(module.body.operations[0], steps)
    parameters = ParameterStore({name: _as_array(name, hooks.parameters[name], program) for name in used})
    named = tuple(replace(spec, name=name) for spec, name in zip(inputs, names, strict=True))
    return ImportedModel(module, parameters, named, outputs, structure, constants)


# -- From a model to an exported program -----------------------------------------------------------


def _as_program(model: Any, example_inputs: ExampleInputs) -> ExportedProgram:
    if isinstance(model, (str, Path)):
        model = load_program(Path(model), None if example_inputs is None else shapes_of(example_inputs))
    if isinstance(model, ExportedProgram):
        _require_shapes(input_specs(model), example_inputs)
        check_program(model)
        return model
    if not isinstance(model, torch.nn.Module):
        raise PatcError(f"expected {ACCEPTED}, found {type(model).__name__}")
    if example_inputs is None:
        raise PatcError("expected example inputs for a torch.nn.Module, found none")
    refuse_script(model)
    inputs, named = check_inputs(model, example_inputs)
    check_module(model)
    return _export(without_inference_tensors(model), inputs, named)


def load_program(path: Path, shapes: Shapes | None = None) -> ExportedProgram:
    """Return the program of a .pt2 file.

    Args:
        shapes: of its inputs, in order or by name, where it leaves sizes open.

    Raises:
        PatcError: it is none, cannot be read, or has other shapes or unknown ones.
    """
    check_regular(path, pt2.WHAT)
    if path.suffix.lower() != ".pt2":
        found = describe_content(path) or f"one named '{path.suffix}'"
        raise PatcError(f"expected a .pt2 file, found {found}", str(path))
    with _quiet():
        return pt2.load_program(path, shapes=shapes)


def _export(
    model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]
) -> ExportedProgram:
    twin = copy_for_tracing(model)
    try:
        with torch.no_grad():
            return torch.export.export(twin, inputs, named, strict=False)
    except Exception as error:  # whatever the model's own code raises
        cause = error.__cause__ if isinstance(error, ForwardError) and error.__cause__ else error
        message = _PACKED if _packs(cause) else f"torch cannot export the model: {first_line(cause)}"
        raise PatcError(message, _blame(cause, twin)) from cause


def _decompose(program: ExportedProgram) -> ExportedProgram:
    """Return the program in core operations that torch-mlir reads; the given one stays as it is."""
    try:
        table = {**get_decomposition_table(), **DECOMPOSITIONS, **RECURRENT}
        with _quiet():
            program = _with_plain_leaves(program).run_decompositions(table)
    except Exception as error:
        raise PatcError(f"torch cannot decompose the model: {first_line(error)}") from error
    signature = program.graph_signature
    if signature.buffers_to_mutate:
        name = next(iter(signature.buffers_to_mutate.values()))
        raise PatcError(
            f"expected a program in eval mode, found one that updates buffer '{name}'; "
            "call model.eval() before torch.export.export, or return what is to be kept"
        )
    if signature.user_inputs_to_mutate:
        name = next(iter(signature.user_inputs_to_mutate.values()))
        raise PatcError(f"expected a model that leaves its inputs alone, found one that writes to '{name}'")
    return program


def _with_plain_leaves(program: ExportedProgram) -> ExportedProgram:
    """Return a program whose `run_decompositions` does not warn: it copies specifications of trees, and the class of
    their leaves is one that torch itself has deprecated.
    """
    calls = program.module_call_graph[0].signature
    signature = replace(calls, in_spec=_plain_leaves(calls.in_spec), out_spec=_plain_leaves(calls.out_spec))
    return ExportedProgram(
        root=program.graph_module,
        graph=program.graph,
        graph_signature=program.graph_signature,
        state_dict=program.state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=[ModuleCallEntry("", signature)],
        constants=program.constants,
        verifiers=program.verifiers,
    )


def _plain_leaves(spec: pytree.TreeSpec) -> pytree.TreeSpec:
    return pytree.TreeSpec(spec.type, spec.context, [_plain_leaves(child) for child in spec.children()])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what torch logs about programs of damaged files in this thread: an exception says what matters in it."""
    thread = threading.get_ident()

    def is_other(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger = logging.getLogger("torch._subclasses.fake_tensor")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _packs(error: BaseException) -> bool:
    """Return whether an error is about packed sequences: torch makes them of lengths that it does not know."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    packers = {pack.__code__ for pack in (pack_padded_sequence, pack_sequence, pad_packed_sequence)}
    values = [value for frame in frames for value in frame.f_locals.values()]
    return any(frame.f_code in packers for frame in frames) or any(isinstance(one, PackedSequence) for one in values)


def _blame(error: BaseException, model: torch.nn.Module) -> str | None:
    """Return the innermost layer and the user's line in the traceback of an error raised under `model`."""
    names = {id(module): name for name, module in model.named_modules()}
    layer, place, inside = "", None, False
    for frame, number in traceback.walk_tb(error.__traceback__):
        owner = names.get(id(frame.f_locals.get("self")))
        inside = inside or owner is not None
        layer = owner or layer
        if inside and not is_torch_file(frame.f_code.co_filename):
            place = (frame.f_code.co_filename, number)
    line = describe_place(place) if place else None
    return f"{layer} ({line})" if layer and line else layer or line


# -- Inputs and outputs ----------------------------------------------------------------------------


def input_specs(program: ExportedProgram) -> tuple[TensorSpec, ...]:
    """Return the inputs of a program.

    Raises:
        PatcError: one is no tensor of static shape and known element type.
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    specs = []
    for name in program.graph_signature.user_inputs:
        value = values.get(name) if isinstance(name, str) else name
        if not isinstance(value, torch.Tensor):
            raise PatcError(f"expected inputs to be tensors, found a {type(value).__name__} ({name})")
        require_known(f"input '{name}'", describe_dtype(value.dtype))
        specs.append(_spec(name, value))
    return tuple(specs)


def _spec(name: str, value: torch.Tensor) -> TensorSpec:
    if not all(isinstance(size, int) for size in value.shape):
        shape = _describe_shape(value.shape)
        raise PatcError(f"expected static shapes, found '{name}' of shape {shape}; export with static shapes")
    return TensorSpec(name, tuple(value.shape), describe_dtype(value.dtype))


def _require_shapes(specs: tuple[TensorSpec, ...], example_inputs: ExampleInputs) -> None:
    if example_inputs is None:
        return
    if isinstance(example_inputs, Mapping):
        other = next((name for name in example_inputs if name not in [spec.name for spec in specs]), None)
        if other is not None:
            raise PatcError(f"expected example inputs {', '.join(map(str, specs))}, found '{other}'")
        pairs = [(spec, example_inputs[spec.name]) for spec in specs if spec.name in example_inputs]
    elif len(example_inputs) != len(specs):
        raise PatcError(f"expected {len(specs)} example inputs, found {len(example_inputs)}")
    else:
        pairs = list(zip(specs, example_inputs, strict=True))
    for spec, value in pairs:
        if not isinstance(value, (torch.Tensor, tuple)):
            raise PatcError(f"expected input '{spec.name}' to be a tensor, found {type(value).__name__}")
        shape, dtype = (value, spec.dtype) if isinstance(value, tuple) else (value.shape, describe_dtype(value.dtype))
        found = TensorSpec(spec.name, tuple(shape), dtype)
        if found != spec:
            raise PatcError(f"expected input {spec} as exported, found {_describe_shape(found.shape)} {found.dtype}")


def _split_outputs(program: ExportedProgram) -> tuple[tuple[TensorSpec, ...], dict[int, Any]]:
    """Return the tensors and, by position, the constants that the model returns; only the tensors stay."""
    signature = program.graph_signature
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    specs, tensors, constants = [], [], {}
    for position, output in enumerate(signature.output_specs):
        if output.kind == OutputKind.USER_OUTPUT and isinstance(output.arg, ConstantArgument):
            constants[position] = output.arg.value
            continue
        if output.kind != OutputKind.USER_OUTPUT or not isinstance(output.arg, TensorArgument):
            raise PatcError(f"expected outputs to be tensors, found {output.kind.name.lower()} {output.arg}")
        specs.append(_spec(output.arg.name, values[output.arg.name]))
        tensors.append(output)
    if not tensors:
        raise PatcError("expected a model that returns a tensor, found none among its outputs")
    signature.output_specs[:] = tensors
    return tuple(specs), constants


def _describe_shape(shape: Sequence[Any]) -> str:
    return "x".join(map(str, shape)) or "scalar"


# -- From a graph to linalg ------------------------------------------------------------------------


@dataclass
class _CollectParameters(FxImporterHooks):
    """Imports each weight as one more argument of @main, and remembers which.

    Attributes:
        tensors: names of the tensors that are attributes of the graph, by identity.
        parameters: the weights in use, in the order of the arguments.
    """

    tensors: dict[int, str]
    parameters: dict[str, torch.Tensor] = field(default_factory=dict)
    _values: dict[str, ir.Value] = field(default_factory=dict)

    def resolve_input(self, importer: Any, value: Any, info: Any) -> ir.Value:
        return self._add_argument(importer, info.input_spec.target, value, info.ir_type)

    def resolve_literal(self, importer: Any, literal: Any, info: Any) -> ir.Value | None:
        if not isinstance(literal, torch.Tensor) or literal.numel() == 1:
            return None  # numbers are written into the text
        type_ = importer._cc.tensor_to_vtensor_type(literal)
        # What torch-mlir makes by itself, as tables of indices, has no name.
        name = self.tensors.get(id(literal), f"_table_{len(self.parameters)}")
        return self._add_argument(importer, name, literal, type_)

    def _add_argument(self, importer: Any, name: str, tensor: torch.Tensor, type_: ir.Type) -> ir.Value:
        if name not in self._values:
            self.parameters[name] = tensor
            self._values[name] = importer._b.add_argument(type_, ir.Location.name(name, context=type_.context))
        return self._values[name]


class _Locations(ContextCache):
    """Gives ops the layer and the user's line, where torch-mlir would give the chain of frames in torch."""

    def get_node_location(self, node: torch.fx.Node) -> ir.Location | None:
        return node_location(node, self._c)


def _import_graph(program: ExportedProgram, hooks: FxImporterHooks, context: ir.Context) -> ir.Module:
    torch_dialect.register_dialect(context)
    importer = FxImporter(context=context, hooks=hooks)
    importer._cc = _Locations(context)
    try:
        importer.import_program(program, func_name="main")
    except (NotImplementedError, TypeError, ValueError, AssertionError, KeyError) as error:
        raise PatcError(f"torch-mlir cannot import the model: {first_line(error)}") from error
    set_type(importer.module.body.operations[0])
    return importer.module


def _as_array(name: str, tensor: torch.Tensor, program: ExportedProgram) -> np.ndarray:
    """Return a tensor as an array that shares its memory where it is contiguous and on the CPU. What is not in the
    state dict may be infinite, as masks of attention are, and constants may have any element type."""
    require_known(f"parameter '{name}'", describe_dtype(tensor.dtype))
    require_plain(f"parameter '{name}'", tensor)
    values = tensor.detach().cpu().resolve_neg()
    # One pass without a copy: the smallest and the largest are not finite when any value is not.
    bounds = torch.aminmax(values) if values.numel() and values.is_floating_point() else ()
    is_right = torch.isfinite if name in program.state_dict else lambda bound: ~torch.isnan(bound)
    if not all(map(is_right, bounds)):
        bad = int((~values.isfinite()).sum())
        raise PatcError(f"expected parameter '{name}' to be finite, found {bad} NaN or infinite values")
    if values.dtype == torch.bfloat16:
        return values.contiguous().view(torch.int16).numpy().view("bfloat16")
    return values.numpy()
