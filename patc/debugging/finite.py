"""`patc run --check-finite`: the layer where the first NaN or infinite number appears."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patc.backends.base import Options
from patc.backends.registry import find_backend
from patc.debugging.cuts import Case, body_ops, cut, results_of, short_name, steps
from patc.debugging.points import compute_code, run_passes
from patc.debugging.search import SPLIT
from patc.locks import compiling
from patc.passes.ir.functions import describe_call
from patc.pipeline import Pipeline
from patc.sources import Source


@compiling()
def check_finite(source: Source, options: Options, inputs: Sequence[np.ndarray]) -> list[str]:
    """Return what is not finite, a line each: inputs, and the first layer; nothing where all layers are.

    The layers are those of the compiled code, which is made once more with all of their results as outputs.

    Args:
        source: a model as it was imported; it stays as it is.
        options: what it is compiled for.
        inputs: an array for each input.

    Raises:
        PatcError: a pass refuses the model, or it cannot be run.
    """
    named = zip(source.inputs, inputs, strict=True)
    said = [f"input '{info.name}' is not finite already: {_count(array)}" for info, array in named if _count(array)]
    pipeline = find_backend(options.target.backend).pipeline(options)
    stage = pipeline.until(SPLIT.removeprefix("pattern-"))
    point = run_passes(Case(source.module, source.parameters, inputs), stage)[-1]
    places = results_of(point.module, steps(point.module))
    module, stands_for = cut(point.module, places, [])
    given = [inputs[place.number] for place in stands_for]
    rest = Pipeline(pipeline.passes[len(stage.passes) :])
    last = run_passes(Case(module, point.parameters, given), rest)[-1]
    for place, array in zip(places, compute_code(last, given, options), strict=True):
        if found := _count(array):
            op = body_ops(point.module)[place.op]
            kind = "" if describe_call(op) else f" ({op.operation.name})"
            return [*said, f"the first layer that is not finite is {short_name(op)}{kind}: {found}"]
    return said


def _count(array: np.ndarray) -> str:
    """Return how many elements are not finite, in words; "" for none."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return ""
    counts = {"NaN": int(np.isnan(array).sum()), "infinite": int(np.isinf(array).sum())}
    return " and ".join(f"{count} {word}" for word, count in counts.items() if count) + f" of {array.size}"
