"""`tune="measure"`: times the candidates of a layer on this machine, each as it would run in the compiled model."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import func

from patc import __version__, codegen, passes
from patc.bench.machine import this_machine
from patc.bench.sharing import Watch
from patc.diagnostics import Diagnostic, PatcError, layer_name
from patc.dialects import pattern
from patc.execution import compile_module
from patc.numerics import FLOAT32
from patc.parameters import ParameterStore
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.ir.constants import constant_name, read_constant
from patc.passes.ir.elements import mlir_type
from patc.passes.ir.zeros import read_zeros
from patc.passes.layers.registry import kind_of
from patc.passes.pattern_schedule import set_schedule
from patc.runtime.native_model import NativeModel
from patc.runtime.program import ENTRY, TensorInfo
from patc.targets import Target
from patc.tuning_cache import TuningCache

SECONDS = 0.3  # to spend on the calls of one layer
REPETITIONS = (7, 50)  # least and most
SHARES = 16  # steps that the part of kept weights that a loop computes is rounded to


class Tuner:
    """Times candidates; what was measured before comes from a cache.

    Args:
        threads: that divide each layer.
        target: whose code this machine runs.
        cache: where times are kept; that of the user by default.
        notify: called with the name of a layer before it is timed.
    """

    def __init__(
        self,
        threads: int,
        target: Target,
        cache: TuningCache | None = None,
        notify: Callable[[str], None] = lambda layer: None,
    ) -> None:
        self._threads = threads
        self._target = target
        self._cache = TuningCache() if cache is None else cache
        self._notify = notify
        self._keeps = True
        self._is_alone = True

    def __call__(self, op: Any, candidates: Sequence[Candidate], state: PassState) -> list[float]:
        """Return the seconds that an op takes with each of the candidates."""
        layer = isolate(op, candidates, state)
        key = self._key(layer)
        try:
            known = self._cache.load(key, len(candidates))
        except PatcError as error:
            _remark(state, f"measured again: {error.message}", error.location)
            known = None
        if known is None:
            self._notify(layer.name)
            watch = Watch()
            known = time_candidates(layer, self._threads, self._target)
            if self._is_alone and (warning := watch.warning()):
                _remark(state, f"timing {layer.name}: {warning}", None)
                self._is_alone = False
            self._store(key, known, state)
        return known

    def _key(self, layer: IsolatedLayer) -> str:
        """Return all that times depend on: layer and candidates, threads, machine and compiler."""
        machine = this_machine()
        parts = {
            "layer": str(layer.module),
            "shares": layer.shares,
            "threads": self._threads,
            "machine": [machine.cpu, str(machine.caches), repr(self._target)],
            "compiler": compiler_version(),
        }
        return json.dumps(parts)

    def _store(self, key: str, seconds: list[float], state: PassState) -> None:
        try:
            self._cache.store(key, seconds)
        except PatcError as error:
            if self._keeps:  # the next layers will fail for the same reason
                _remark(state, f"measured times are not kept: {error.message}", str(self._cache.folder))
            self._keeps = False


def _remark(state: PassState, message: str, location: Any) -> None:
    state.diagnostics.append(Diagnostic("remark", message, location))


@functools.cache
def compiler_version() -> str:
    """Return the versions of patc and MLIR, and a number of patc's own sources: they change between versions, too."""
    digest = hashlib.sha256()
    for package in (passes, codegen):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    return f"{__version__} {importlib.metadata.version('torch-mlir')} {digest.hexdigest()[:16]}"


@dataclass(frozen=True)
class IsolatedLayer:
    """One layer by itself.

    Attributes:
        name: in its model.
        module: @main takes the activations and computes the layer with each candidate in turn.
        parameters: the constants.
        inputs: the activations, row-major and f32.
        shares: how kept weights are spread over loops; empty for a dense layer.
        zeros: part of the elements of the first input that are zero.
    """

    name: str
    module: ir.Module
    parameters: ParameterStore
    inputs: tuple[TensorInfo, ...]
    shares: tuple[int, ...]
    zeros: float


def isolate(op: Any, candidates: Sequence[Candidate], state: PassState) -> IsolatedLayer:
    """Copy a layer, once for each candidate, into a module of its own; names in it are the same for equal layers.

    Each copy has its activations laid out anew, so that they come from the cache as in a model, and not from where
    the candidate before left them.
    """
    parameters = ParameterStore()
    activations = [value for value in op.operands if read_constant(value, state) is None]
    with op.operation.context, op.location:
        types = [ir.RankedTensorType.get(list(value.type.shape), mlir_type(FLOAT32)) for value in activations]
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):
            main = func.FuncOp(ENTRY, (types, []))
        block = main.add_entry_block()
        with ir.InsertionPoint(block):
            constants = {
                number: _copy_constant(value, f"operand{number}", parameters, state)
                for number, value in enumerate(op.operands)
                if value not in activations
            }
            for candidate in candidates:
                arguments = iter(block.arguments)
                values = [
                    constants[number] if number in constants else _lay_out(next(arguments), value.type)
                    for number, value in enumerate(op.operands)
                ]
                copy = op.operation.clone()
                for number, value in enumerate(values):
                    copy.operands[number] = value
                set_schedule(copy, replace(candidate, cycles=0.0), None)
            func.ReturnOp([])
    inputs = tuple(TensorInfo(f"input{i}", tuple(type_.shape), FLOAT32.dtype) for i, type_ in enumerate(types))
    name = layer_name(op.location) or op.operation.name.removeprefix("pattern.")
    zeros = read_zeros(op)
    return IsolatedLayer(name, module, parameters, inputs, _shares(op, state), 0.0 if zeros is None else zeros.inputs)


def _copy_constant(value: ir.Value, name: str, parameters: ParameterStore, state: PassState) -> ir.Value:
    copy = value.owner.operation.clone()
    if constant_name(value) is not None:
        array = read_constant(value, state)
        assert array is not None
        copy.attributes["name"] = ir.StringAttr.get(parameters.add(name, array))
    return copy.results[0]


def _lay_out(argument: ir.Value, type_: ir.RankedTensorType) -> ir.Value:
    if len(type_.shape) != 4 and argument.type == type_:
        return argument
    return pattern.RelayoutOp(input=argument, result=type_).result


def _shares(op: Any, state: PassState) -> tuple[int, ...]:
    """Return how kept weights are spread over loops, coarsely: layers that differ little are measured once."""
    kind = kind_of(op)
    assert kind is not None, "others have no candidates"
    return tuple(round(SHARES * share) for share in kind.shares(op, state))


def time_candidates(layer: IsolatedLayer, threads: int, target: Target) -> list[float]:
    """Compile the copies of a layer into one program, and return the median time of each in calls of the program."""
    return time_compiled(compile_candidates(layer, threads, target), layer)


def compile_candidates(layer: IsolatedLayer, threads: int, target: Target) -> NativeModel:
    """Compile the copies of a layer into one program."""
    # The relayouts have no schedules yet.
    return NativeModel(compile_module(layer.module, layer.parameters, target=target, threads=threads, stage="layout"))


def time_compiled(model: NativeModel, layer: IsolatedLayer) -> list[float]:
    """Return the median time of each copy of a layer in calls of their program."""
    inputs = model.random_inputs()
    if layer.zeros:
        inputs[0][np.random.default_rng(0).random(inputs[0].shape) < layer.zeros] = 0
    once = sum(time.seconds for time in model.profile(*inputs, repetitions=1))
    repetitions = int(np.clip(SECONDS / max(once, 1e-9), *REPETITIONS))
    times = model.profile(*inputs, repetitions=repetitions)
    # What lays out activations is scheduled for a reason.
    return [time.seconds for time in times if time.layer.explanation is None]
