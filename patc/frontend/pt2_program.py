"""Checks of the program in a .pt2 file: its inputs and outputs, around the graph. See `pt2_graph`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch._export.serde import schema
from torch.utils import _pytree as pytree

from patc.diagnostics import PatcError
from patc.frontend.json_schema import Mismatch, placed, quote
from patc.frontend.pt2_graph import check_graph, describe, scalar_type, tensor_names

Tensors = Mapping[str, torch.Tensor]

_DIALECTS = ("", "ATEN", "TRAINING")
_CONSTANTS = ("as_int", "as_float", "as_bool", "as_none", "as_string")
_DICTS = ("builtins.dict", "collections.OrderedDict")
_SEQUENCES = ("builtins.tuple", "builtins.list")
_NAMED_TUPLE = "collections.namedtuple"
_SYMBOL = re.compile(r"Symbol\('(\w+)'.*")


def check_program(program: schema.ExportedProgram, weights: Tensors, constants: Tensors) -> None:
    """Check a program that has the types of torch's schema, and remove from it what compiling does not need.

    Raises:
        Mismatch: a part is not what torch may get.
        PatcError: shapes are not static, or inputs are no tensors.
    """
    module = program.graph_module
    if program.schema_version.major != schema.SCHEMA_VERSION[0]:
        expected = f"{schema.SCHEMA_VERSION[0]}, which torch {torch.__version__} reads"
        raise Mismatch(expected, quote(program.schema_version.major), "schema_version", "major")
    for index, dialect in enumerate(program.verifiers):
        if dialect not in _DIALECTS:
            raise Mismatch("ATEN or TRAINING", quote(dialect), "verifiers", index)
    with placed("graph_module"):
        _check_inputs(module)
        with placed("graph"):
            check_graph(module.graph)
        with placed("signature"):
            _check_signature(module, weights, constants)
        with placed("module_call_graph"):
            _keep_structure(module)
    # Guards are source of functions that check shapes, which patc does as well.
    program.guards_code, program.range_constraints, module.metadata = [], {}, {}


def _check_inputs(module: schema.GraphModule) -> None:
    """Refuse inputs that are no tensors and shapes that are not static, as when a model is exported by patc."""
    values = module.graph.tensor_values
    names = []
    for spec in module.signature.input_specs:
        kind = "constant" if spec.type == "constant_input" else None
        if spec.type == "user_input":
            kind = None if spec.value.arg.type == "as_tensor" else describe(spec.value.arg)
            names += list(tensor_names(spec.value.arg))
        if kind is not None:
            raise PatcError(f"expected inputs to be tensors, found a {kind}")
    for name in [*(name for name in names if name in values), *values]:
        sizes = values[name].sizes
        if any(size.type != "as_int" for size in sizes):
            shape = "x".join(_describe_size(size) for size in sizes)
            raise PatcError(f"expected static shapes, found {name!a} of shape {shape}; export with static shapes")


def _describe_size(size: schema.SymInt) -> str:
    if size.type == "as_int":
        return str(size.value)
    symbol = _SYMBOL.fullmatch(size.value.expr_str)
    return symbol[1] if symbol else ascii(size.value.expr_str)[1:-1][:20]


def _check_signature(module: schema.GraphModule, weights: Tensors, constants: Tensors) -> None:
    signature, graph = module.signature, module.graph
    if len(signature.input_specs) != len(graph.inputs):
        raise Mismatch(
            f"a list of {len(graph.inputs)}, one for each input", quote(signature.input_specs), "input_specs"
        )
    if len(signature.output_specs) != len(graph.outputs):
        raise Mismatch(
            f"a list of {len(graph.outputs)}, one for each output", quote(signature.output_specs), "output_specs"
        )
    for index, (source, argument) in enumerate(zip(signature.input_specs, graph.inputs, strict=True)):
        with placed("input_specs", index, source.type):
            _check_source(source, argument.value.name, graph, weights, constants)
    for index, (result, argument) in enumerate(zip(signature.output_specs, graph.outputs, strict=True)):
        with placed("output_specs", index, result.type):
            _check_result(result, argument)


def _check_source(
    source: schema.InputSpec, name: str, graph: schema.Graph, weights: Tensors, constants: Tensors
) -> None:
    """Require that the input of a graph called `name` is an input of the program, or a tensor that the file holds."""
    kind, value = source.type, source.value
    if kind not in ("user_input", "parameter", "buffer", "tensor_constant"):
        raise Mismatch("a tensor", quote(kind))
    found = value.arg.value.name if kind == "user_input" else value.arg.name
    if found != name:
        raise Mismatch(f"that of the graph's input '{name}'", quote(found), "arg")
    if kind == "user_input":
        return
    target = getattr(value, f"{kind}_name")
    stored = weights if kind == "parameter" or (kind == "buffer" and value.persistent) else constants
    if target not in stored:
        raise Mismatch("the name of a tensor in the file", quote(target), f"{kind}_name")
    tensor, meta = stored[target], graph.tensor_values[name]
    if kind == "parameter" and not isinstance(tensor, torch.nn.Parameter):
        raise Mismatch("the name of a parameter", quote(target), f"{kind}_name")
    sizes, dtype = [size.value for size in meta.sizes], scalar_type(meta)
    if list(tensor.shape) != sizes or tensor.dtype != dtype:
        wanted = f"that of a tensor of shape {sizes} and {dtype}"
        raise Mismatch(wanted, f"{target}: {list(tensor.shape)} and {tensor.dtype}", f"{kind}_name")


def _check_result(result: schema.OutputSpec, argument: schema.Argument) -> None:
    value = result.value.arg
    if result.type == "token":
        raise Mismatch("a tensor", "a token")
    if result.type == "user_output" and value.type not in ("as_tensor", *_CONSTANTS):
        raise Mismatch("a tensor or a constant", describe(value))
    names = list(tensor_names(value)) if result.type == "user_output" else [value.name]
    if names != list(tensor_names(argument)):
        raise Mismatch(f"that of the graph's output {describe(argument)}", ", ".join(names), "arg")


# -- How outputs nest --------------------------------------------------------------------------------------


def _keep_structure(module: schema.GraphModule) -> None:
    """Leave one signature of calls, where the structure of the inputs is flat.

    patc calls a program with its tensors in a row; names that a model gives its inputs torch would make source of.
    """
    root = next((entry for entry in module.module_call_graph if entry.fqn == "" and entry.signature is not None), None)
    if root is None or root.signature is None:
        raise Mismatch("a list with the program's own signature", quote(module.module_call_graph))
    inputs = sum(source.type == "user_input" for source in module.signature.input_specs)
    outputs = sum(result.type == "user_output" for result in module.signature.output_specs)
    with placed("out_spec"):
        leaves = _count_leaves(root.signature.out_spec)
        if leaves != outputs:
            raise Mismatch(f"the structure of {outputs} outputs", quote(leaves))
    flat = pytree.treespec_dumps(pytree.tree_structure(((0,) * inputs, {})))
    root.signature.in_spec, root.signature.forward_arg_names = flat, None
    root.signature.inputs, root.signature.outputs = [], []
    module.module_call_graph, module.treespec_namedtuple_fields = [root], {}


def _count_leaves(text: str) -> int:
    try:
        protocol, structure = json.loads(text)
        if protocol == schema.TREESPEC_VERSION:
            return _count(structure)
    except RecursionError:
        raise Mismatch("less deep", quote(text)) from None
    except (ValueError, TypeError):
        raise Mismatch("a structure as JSON", quote(text)) from None
    raise Mismatch(f"a structure of version {schema.TREESPEC_VERSION}", quote(protocol))


def _count(structure: Any) -> int:
    """Return the leaves of a structure of tuples, lists and dictionaries."""
    if not isinstance(structure, dict) or structure.keys() != {"type", "context", "children_spec"}:
        raise Mismatch("made of objects with type, context and children_spec", quote(structure))
    kind, context, parts = (structure[key] for key in ("type", "context", "children_spec"))
    if not isinstance(parts, list):
        raise Mismatch("made of lists of parts", quote(parts))
    if kind is None and context is None and not parts:
        return 1
    if kind in _DICTS:
        _check_keys(json.loads(context), len(parts))
    elif kind == _NAMED_TUPLE:
        _check_named_tuple(context, len(parts))
    elif kind not in _SEQUENCES or json.loads(context) is not None:
        raise Mismatch("made of tuples, lists and dictionaries", quote(kind))
    return sum(map(_count, parts))


def _check_keys(keys: Any, count: int) -> None:
    """Require keys of a dictionary that are plain: torch would import the module of an enumeration."""
    plain = (str, int, float, bool, type(None))
    if not isinstance(keys, list) or not all(isinstance(key, plain) for key in keys):
        raise Mismatch("made of dictionaries whose keys are text or numbers", quote(keys))
    if len(keys) != count or len(set(keys)) != count:
        raise Mismatch(f"made of as many keys as parts, {count}", quote(keys))


def _check_named_tuple(name: Any, count: int) -> None:
    """Require a named tuple that this process has registered with torch."""
    known = pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.get(name) if isinstance(name, str) else None
    fields = getattr(known, "_fields", None)
    if fields is None or len(fields) != count:
        raise Mismatch("made of tuples, lists and dictionaries", f"the named tuple {quote(name)} of {count}")
