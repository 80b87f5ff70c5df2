"""patc compiles pattern-pruned convolutional networks.

    import patc
    from patc import models, pruning

    model = models.resnet18()
    pruning.prune_(model, pruning.PatternSpec.for_compression(8.0))
    compiled = patc.compile(model, (x,))
    y = compiled(x)

Importing patc loads neither torch nor MLIR; the first use of a name does.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as typing's, which takes longer to load than all that a command does before it is guarded
if TYPE_CHECKING:
    from typing import Any

    from patc import crossbar, library, models, pruning, robust, search
    from patc.compiler import compile_model as compile
    from patc.diagnostics import PatcError
    from patc.execution import run_module
    from patc.loading import load
    from patc.pipeline import Pipeline
    from patc.quantisation.quantize import quantize
    from patc.runtime.model import CompiledModel
    from patc.runtime.stream import Stream
    from patc.targets import Target

__version__ = "0.1.0"

_HOMES = {
    "CompiledModel": ("patc.runtime.model", "CompiledModel"),
    "PatcError": ("patc.diagnostics", "PatcError"),
    "Pipeline": ("patc.pipeline", "Pipeline"),
    "Stream": ("patc.runtime.stream", "Stream"),
    "Target": ("patc.targets", "Target"),
    "compile": ("patc.compiler", "compile_model"),
    "load": ("patc.loading", "load"),
    "quantize": ("patc.quantisation.quantize", "quantize"),
    "run_module": ("patc.execution", "run_module"),
}
_MODULES = ("crossbar", "library", "models", "pruning", "robust", "search")

__all__ = [
    "CompiledModel",
    "PatcError",
    "Pipeline",
    "Stream",
    "Target",
    "compile",
    "crossbar",
    "library",
    "load",
    "models",
    "pruning",
    "quantize",
    "robust",
    "run_module",
    "search",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES and name not in _MODULES:
        raise AttributeError(f"module 'patc' has no attribute '{name}'")
    from patc.locks import loading

    module, attribute = _HOMES.get(name, (f"patc.{name}", ""))
    with loading():
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            words = f"patc.{name} needs '{error.name}', which patc-runtime goes without: pip install patc in its place"
            raise ImportError(words) from error
        if name in _MODULES:
            return found
        globals()[name] = getattr(found, attribute)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
