"""Pass pipelines: patc's own passes and MLIR's, in one list and one text.

    Pipeline().add("canonicalize").add("pattern-schedule", threads=2).run(module)

`str(pipeline)` is what `patc-opt --pass-pipeline` accepts.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

from torch_mlir import ir

from patc.diagnostics import PatcError, nearest
from patc.instruments import Instrument
from patc.ir_diagnostics import IRError, collecting, mlir_errors, verifier_errors
from patc.locks import compiling
from patc.passes.base import Pass, PassState
from patc.passes.ir.targets import set_target, target_of
from patc.passes.registry import PASS_NAMES, find_pass, is_pass, known_passes
from patc.pipeline_text import Element, parse_elements
from patc.targets import Target
from patc.upstream import COMMON_PASSES, UpstreamPass

AnyPass: TypeAlias = Pass | UpstreamPass

_CPU_PASSES = PASS_NAMES[: PASS_NAMES.index("pattern-parallelize") + 1]
_GPU_PASSES = (
    *_CPU_PASSES[: _CPU_PASSES.index("pattern-schedule") + 1],
    "pattern-map-to-gpu",
    "pattern-to-spirv",
)
NAMED_PIPELINES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"host": _CPU_PASSES, "neon": _CPU_PASSES, "spirv": _GPU_PASSES}
)
_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"neon": {"target": "aarch64-linux"}, "spirv": {"target": "spirv-vulkan"}}
)


class Pipeline:
    """A list of passes that run on a module, one after the other.

    Args:
        passes: what to start with; `add` appends.
        target: given to modules before the first pass, as their attribute `pattern.target`; None for that which they
            have. It is no part of the pipeline's text.
    """

    def __init__(self, passes: Iterable[AnyPass] = (), target: Target | None = None) -> None:
        self.passes = list(passes)
        self.target = target

    @staticmethod
    def parse(text: str) -> Pipeline:
        """Return the pipeline that a text stands for; the `builtin.module(...)` around it may be left out.

        Raises:
            PatcError: a syntax error, or an unknown pass or option.
        """
        return Pipeline(_make_pass(element) for element in parse_elements(text))

    @staticmethod
    def named(name: str, **options: Any) -> Pipeline:
        """Return one of patc's own pipelines.

        Args:
            name: a key of `NAMED_PIPELINES`.
            options: given to every pass of the pipeline that has an option of that name. The target of "neon" is
                "aarch64-linux" by default. A `Target` as `target` is given to modules instead.

        Raises:
            PatcError: there is no such pipeline, no pass takes an option, or a value is not legal.
        """
        if name not in NAMED_PIPELINES:
            known = ", ".join(NAMED_PIPELINES)
            raise PatcError(f"expected the name of a pipeline, one of {known}, got '{name}'")
        kinds = [find_pass(pass_name) for pass_name in NAMED_PIPELINES[name]]
        fields = [{option.field_name for option in kind.options()} for kind in kinds]
        known_options = sorted(set().union(*fields))
        for option in options:
            if option not in known_options:
                raise PatcError(f"pipeline '{name}' has no option '{option}'{nearest(option, known_options)}")
        given = {**_DEFAULTS.get(name, {}), **options}
        machine = given.pop("target") if isinstance(given.get("target"), Target) else None
        passes = [
            kind.from_options({key: value for key, value in given.items() if key in taken})
            for kind, taken in zip(kinds, fields, strict=True)
        ]
        return Pipeline(passes, machine)

    def add(self, item: str | AnyPass, **options: Any) -> Pipeline:
        """Append a pass and return the pipeline.

        Args:
            item: the name of a pass, a piece of pipeline text such as `func.func(cse)`, or a pass.
            options: options of the named pass, in snake case.

        Raises:
            PatcError: there is no such pass or option, or a value is not legal.
        """
        if not isinstance(item, str):
            self.passes.append(item)
        elif is_pass(item):
            self.passes.append(find_pass(item).from_options(options))
        elif options:
            self.passes += Pipeline.parse(f"{item}{{{_option_text(options)}}}").passes
        else:
            self.passes += Pipeline.parse(item).passes
        return self

    def until(self, stage: str) -> Pipeline:
        """Return the passes up to and including a stage.

        Args:
            stage: one of `stages`; the name of a pass without `pattern-`, or "linalg" for none of them.

        Raises:
            PatcError: the pipeline has no such stage.
        """
        if stage == "linalg":
            return Pipeline(target=self.target)
        for count, item in enumerate(self.passes, start=1):
            if isinstance(item, Pass) and _stage(item) == stage:
                return Pipeline(self.passes[:count], self.target)
        raise PatcError(f"expected a stage, one of {', '.join(self.stages)}, got '{stage}'")

    def after(self, stage: str) -> Pipeline:
        """Return the passes behind a stage: what `until` leaves out."""
        return Pipeline(self.passes[len(self.until(stage).passes) :], self.target)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that `until` knows, in order."""
        return ("linalg", *(_stage(item) for item in self.passes if isinstance(item, Pass)))

    @compiling()
    def run(
        self, module: ir.Module, state: PassState | None = None, instruments: Sequence[Instrument] = ()
    ) -> PassState:
        """Run the passes; the module is verified before the first and after each.

        Args:
            module: rewritten in place; after an error it is in an unspecified state.
            state: parameters to use, and diagnostics to append to; a new one by default.
            instruments: what to tell about each pass.

        Raises:
            PatcError: the module is invalid, a pass rejected it or made it invalid.
        """
        state = PassState() if state is None else state
        with module.context, ir.Location.unknown(), collecting(module.context, state.diagnostics):
            # The bindings end the process on some invalid IR: none may reach them.
            with verifier_errors():
                module.operation.verify()
            if self.target is not None:
                set_target(module, self.target)
            target_of(module)  # refuses an attribute that is none
            for index, item in enumerate(self.passes):
                for instrument in instruments:
                    instrument.before(item.name, index, len(self.passes))
                start = time.perf_counter()
                _run_pass(item, module, state)
                seconds = time.perf_counter() - start
                for instrument in instruments:
                    instrument.after(item.name, module, seconds)
        return state

    def __str__(self) -> str:
        return f"builtin.module({_print_list(self.passes, 0)})"

    def __repr__(self) -> str:
        return f"<Pipeline {self}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pipeline) and (self.passes, self.target) == (other.passes, other.target)

    __hash__ = None  # type: ignore[assignment] # a pipeline can change


def _make_pass(element: Element) -> AnyPass:
    if not is_pass(element.name):
        upstream = UpstreamPass(element.name, element.options, element.anchors)
        upstream.check((*known_passes(), *COMMON_PASSES))
        return upstream
    if element.anchors:
        around = ".".join(element.anchors)
        raise PatcError(f"pass '{element.name}' expected to run on builtin.module, got {around}")
    return find_pass(element.name).from_text(element.options)


def _run_pass(item: AnyPass, module: ir.Module, state: PassState) -> None:
    if isinstance(item, UpstreamPass):
        item.run(module)
        return
    seen = len(state.diagnostics)
    with mlir_errors(lambda message: f"{message} (in pass '{item.name}')"):
        item.run(module, state)
    errors = [diagnostic for diagnostic in state.diagnostics[seen:] if diagnostic.severity == "error"]
    if errors:
        raise IRError(errors)
    with verifier_errors(lambda message: f"pass '{item.name}' made invalid IR: {message}"):
        module.operation.verify()


def _stage(item: AnyPass) -> str:
    return item.name.removeprefix("pattern-")


def _print_list(items: Iterable[AnyPass], depth: int) -> str:
    """Print passes with `depth` anchors in common; neighbours share the next one."""
    texts: list[str] = []
    for anchor, neighbours in itertools.groupby(items, lambda item: _anchors(item)[depth : depth + 1]):
        group = list(neighbours)
        texts += [f"{anchor[0]}({_print_list(group, depth + 1)})"] if anchor else map(str, group)
    return ",".join(texts)


def _anchors(item: AnyPass) -> tuple[str, ...]:
    return item.anchors if isinstance(item, UpstreamPass) else ()


def _option_text(options: Mapping[str, Any]) -> str:
    return " ".join(f"{name.replace('_', '-')}={_value_text(value)}" for name, value in options.items())


def _value_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(map(_value_text, value))
    return f"{{{value}}}" if set(str(value)) & set(" \t\n") else str(value)
