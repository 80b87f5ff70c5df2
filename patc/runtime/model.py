"""The compiled model: a callable on torch tensors and numpy arrays."""

from __future__ import annotations

import abc
import functools
import os
import sys
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np

from patc.diagnostics import Diagnostic, PatcError
from patc.files import atomic_write
from patc.layers import LayerReport
from patc.runtime import artefact
from patc.runtime.artefact import Parts
from patc.runtime.batches import Block, count_images, describe_entries, describe_tensors, divide, run_block, sized
from patc.runtime.description import describe, interface, parse
from patc.runtime.inputs import ADVICE, random_arrays, take_array, take_tensor
from patc.runtime.json_values import printable
from patc.runtime.program import Program

Model = TypeVar("Model", bound="CompiledModel")
Shapes: TypeAlias = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class LayerTime:
    """A layer and its median time in seconds."""

    layer: LayerReport
    seconds: float


class CompiledModel(abc.ABC):
    """A compiled model; a subclass knows how to run its kind of code.

    Call it with torch tensors or numpy arrays of the compiled element types, of any of the compiled shapes, and of any
    batch size where it was compiled for that; what comes back is nested as the model nests it, and holds tensors if an
    input was one, else arrays. One call allocates the outputs only, and copies inputs that are not contiguous. No
    gradients are recorded. Several Python threads may call the same model.

    Attributes:
        program: code, weights and descriptions.
        diagnostics: what the passes remarked; empty for a loaded model.
    """

    def __init__(self, program: Program, diagnostics: Sequence[Diagnostic] = ()) -> None:
        self.program = program
        self.diagnostics = [item.plain() for item in diagnostics]
        # By what calls tell them apart by. The model itself is not among them: it would keep itself.
        self._variants: dict[Shapes, tuple[CompiledModel, ...]] = {}
        for variant in program.variants:
            self._variants[variant.key] = (*self._variants.get(variant.key, ()), self._make_variant(variant))
        self._key = program.key
        cost = sum(layer.predicted_cycles for layer in program.layers)
        self._block = Block(program.block, cost, program.counts_images)

    @classmethod
    @abc.abstractmethod
    def check_program(cls, program: Program, stated: bytes) -> None:
        """Refuse a program of a file whose code does not go with the rest of it, or with this machine.

        Args:
            stated: what the code has to state, see `patc.runtime.description.interface`.

        Raises:
            ValueError: the parts do not go together; what was expected, in one line.
            PatcError: the code is for another machine.
        """

    def blocks(self) -> list[CompiledModel]:
        """Return what computes blocks of a dynamic batch of the example's shapes, the largest first."""
        return sorted((self, *self._variants.get(self._key, ())), key=_size, reverse=True)

    def _make_variant(self, program: Program) -> CompiledModel:
        """Return the model of a variant of the program."""
        return type(self)(program)

    @abc.abstractmethod
    def _run(self, inputs: Sequence[int], outputs: Sequence[int], images: int | None = None) -> None:
        """Compute the outputs at some addresses from the inputs at others.

        Args:
            images: how many they are, where the code counts them; None for all of a block.
        """

    @abc.abstractmethod
    def _time_layers(
        self, inputs: Sequence[int], outputs: Sequence[int], repetitions: int, images: int | None = None
    ) -> np.ndarray:
        """Return the seconds of each layer, repetitions x layers, after one call to warm up; see `_run`."""

    def __repr__(self) -> str:
        program = self.program
        inputs = describe_entries(program)
        outputs = describe_tensors(program.outputs, program.dynamic_batch)
        threads = f"{program.threads} thread{'s' if program.threads > 1 else ''}"
        return f"<CompiledModel {inputs} -> {outputs}; {len(self.layers)} layers, {program.target}, {threads}>"

    @property
    def layers(self) -> tuple[LayerReport, ...]:
        """What each layer is, how it is computed and why, in the order in which they run; for the example's shapes, see
        `program.variants` for others."""
        return self.program.layers

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run the model; inputs may be given by name.

        Raises:
            PatcError: wrong number, shape, element type or device of inputs, or this machine lacks what the code needs.
        """
        given = self.in_order(inputs, named) if named else inputs
        models = self._entries(given)
        model = models[0]
        # `kept` holds what the addresses point into.
        kept, addresses, torch, images = model._check(given)
        outputs, output_addresses = model._make_outputs(torch, images)
        if images is None:
            model._run(addresses, output_addresses)
        else:
            for call in divide(images, tuple(item._block for item in models)):
                item = models[call.number]
                run_block(item.program, item._run, images, call, addresses, output_addresses)
        del kept
        return nest(model.program.structure, outputs)

    def profile(self, *inputs: Any, repetitions: int = 20) -> list[LayerTime]:
        """Return the median time of each layer over `repetitions` calls, after one call to warm up.

        Without inputs the model runs on random ones. The layers are those of the entry for the inputs' shapes; with a
        dynamic batch the times are those of the images that are computed first.

        Raises:
            PatcError: as for a call, less than one repetition, or a machine that does not tell times.
        """
        if repetitions < 1:
            raise PatcError(f"expected 1 repetition or more, got {repetitions}")
        given = inputs or self.random_inputs()
        models = self._entries(given)
        kept, addresses, torch, images = models[0]._check(given)
        model = models[0]
        count = None
        if images is not None:
            call = divide(images, tuple(item._block for item in models))[0]
            model, count = models[call.number], call.images
            if images < count:
                raise PatcError(f"expected {count} images or more, got {images}")
        outputs, output_addresses = model._make_outputs(torch, images)
        medians = np.median(model._time_layers(addresses, output_addresses, repetitions, count), axis=0)
        del kept, outputs
        return [LayerTime(layer, float(median)) for layer, median in zip(model.layers, medians, strict=True)]

    def describe_overhead(self) -> str:
        """Return what a call takes beside its layers, measured, in one line; "" where that is next to nothing.

        Raises:
            PatcError: as for a call.
        """
        return ""

    def random_inputs(self, seed: int = 0) -> tuple[np.ndarray, ...]:
        """Return arrays like the inputs: normally distributed numbers, of integers and truth values zeros and ones,
        which are indices into nearly any table."""
        return random_arrays(self.program.inputs, seed)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one file, which `patc.load` reads without torch. Equal models give equal files.

        Raises:
            PatcError: the file cannot be written; nothing is left behind.
        """
        atomic_write(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return what `save` writes.

        Raises:
            PatcError: the program is none that `patc.load` takes.
        """
        program = self.program
        variants = tuple(variant.code for variant in program.variants)
        parts = Parts(describe(program), program.code, program.weights, variants)
        try:
            parse(parts.description)
        except ValueError as error:
            raise PatcError(f"expected a program that can be saved, got one with {printable(str(error))}") from None
        return artefact.join(parts)

    def __reduce__(self) -> Any:
        return _restore, (type(self), self.to_bytes(), self.diagnostics)

    def __copy__(self: Model) -> Model:
        """Return a model of the same code and weights, which nothing changes."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self: Model, memo: Any) -> Model:
        return self.__copy__()

    def in_order(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
        """Return all inputs, given partly by name, in their order.

        Raises:
            PatcError: a name is unknown, given twice, or missing.
        """
        rest = [info.name for info in self.program.inputs[len(inputs) :]]
        if set(rest) != set(named):
            wanted = ", ".join(map(str, self.program.inputs))
            raise PatcError(f"expected inputs {wanted}, got {len(inputs)} by place and {', '.join(named)} by name")
        return [*inputs, *(named[name] for name in rest)]

    def _entries(self, inputs: Sequence[Any]) -> Sequence[CompiledModel]:
        """Return what computes inputs of some shapes: one model, or with a dynamic batch one for each size of blocks.

        Raises:
            PatcError: none of several does; a single one is left to check them itself.
        """
        if not self._variants:
            return (self,)
        found = [tuple(getattr(value, "shape", ())) for value in inputs]
        key = self.program.key_of(found)
        models = self._variants.get(key, ())
        if key == self._key or list(self._variants) == [self._key]:
            return (self, *self._variants.get(self._key, ()))
        if not models:
            got = ", ".join(str(list(shape)) for shape in found)
            raise PatcError(f"expected inputs {describe_entries(self.program)}, got {got}; {ADVICE}")
        return models

    def _check(self, inputs: Sequence[Any]) -> tuple[list[Any], list[int], Any, int | None]:
        """Return contiguous inputs, their addresses, the torch module if one of them is a tensor, else None, and the
        number of images where that is dynamic."""
        expected, images = self.program.inputs, None
        if len(inputs) != len(expected):
            wanted = ", ".join(map(str, expected))
            count = f"{len(expected)} input{'' if len(expected) == 1 else 's'}"
            raise PatcError(f"expected {count} ({wanted}), got {len(inputs)}")
        if self.program.dynamic_batch:
            images = count_images(expected[0], inputs[0])
            expected = sized(expected, images)
        torch = sys.modules.get("torch")
        kept, addresses, as_torch = [], [], False
        for info, value in zip(expected, inputs, strict=True):
            if torch is not None and isinstance(value, torch.Tensor):
                as_torch = True
                value, address = take_tensor(info, value, torch)
            else:
                value, address = take_array(info, value)
            kept.append(value)
            addresses.append(address)
        return kept, addresses, torch if as_torch else None, images

    def _make_outputs(self, torch: Any, images: int | None) -> tuple[list[Any], list[int]]:
        """Return uninitialised outputs and their addresses: tensors when torch is given, else arrays."""
        infos = self.program.outputs if images is None else sized(self.program.outputs, images)
        if torch is None:
            arrays = [np.empty(info.shape, info.dtype) for info in infos]
            return arrays, [array.ctypes.data for array in arrays]
        tensors = [torch.empty(info.shape, dtype=getattr(torch, info.dtype), device="cpu") for info in infos]
        return tensors, [tensor.data_ptr() for tensor in tensors]


def _size(model: CompiledModel) -> int:
    return model.program.block


def check_parts(parts: Parts, find_class: Callable[[str], type[CompiledModel]]) -> Program:
    """Return the program of a file, whose code goes with the rest of it and with this machine.

    Args:
        find_class: returns the class of the models of a backend.

    Raises:
        ValueError: the parts make no sense or do not go together; in one line.
        PatcError: the code is for another machine.
    """
    program = parse(parts.description)
    if len(parts.variants) != len(program.variants):
        raise ValueError(f"expected code for {len(program.variants)} variants, found {len(parts.variants)}")
    program = program.with_code((parts.code, *parts.variants)).with_weights(parts.weights)
    kind = find_class(program.backend)
    for number, entry in enumerate(program.entries):
        kind.check_program(entry, interface(parts.description, parts.weights_digest, number))
    return program


def _restore(kind: type[Model], data: bytes, diagnostics: Sequence[Diagnostic], *arguments: Any) -> Model:
    """Return the model of a class whose `to_bytes` is `data`."""
    try:
        program = check_parts(artefact.split(data), lambda backend: kind)
    except ValueError as error:
        raise PatcError(f"expected the bytes of a compiled model, found others ({printable(str(error))})") from None
    return kind(program, diagnostics, *arguments)


def nest(structure: Any, results: Sequence[Any]) -> Any:
    """Return results nested as `structure` says.

    Args:
        structure: {"leaf": i} for result i, {"constant": value}, {"float": "inf", "-inf" or "nan"}, {"tuple": parts},
            {"list": parts}, {"dict": [[key, part], ...]}, or {"namedtuple": [name, [field, ...], parts]}.
        results: the tensors or arrays.
    """
    ((kind, value),) = structure.items()
    if kind == "leaf":
        return results[value]
    if kind == "constant":
        return value
    if kind == "float":
        return float(value)
    if kind == "dict":
        return {key: nest(part, results) for key, part in value}
    if kind == "namedtuple":
        name, fields, parts = value
        return _named_tuple(name, *fields)(*(nest(part, results) for part in parts))
    nested = [nest(part, results) for part in value]
    return tuple(nested) if kind == "tuple" else nested


@functools.cache
def _named_tuple(name: str, *fields: str) -> Any:
    """Return a class with the name and the fields of the model's own, which a loaded model cannot import."""
    return namedtuple(name, fields)
