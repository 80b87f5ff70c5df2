"""The node tests of the `onnx` package, through patc: `python test/support/onnx_nodes.py` writes docs/onnx.md.

Each case is a model of one operation (or of what stands for it) with inputs and outputs. It passes, or patc refuses it in
one line; anything else is a fault.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.pool
import os
import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import patc
from patc.frontend.onnx_files import NEWEST, OLDEST
from patc.frontend.onnx_lowering import VALUES
from patc.numerics import ELEMENT_TYPES, NUMERICS

PASSES, REFUSED = "passes", "refused"
PAGE = Path(__file__).parents[2] / "docs" / "onnx.md"
_SECONDS = 300  # for one case
_FILE = "node.onnx"
_FOUR_DIGITS = "test_averagepool_2d_ceil_last_window_starts_on_pad"  # all that its outputs are written with
_TEXT = """\
# ONNX operations

What patc makes of the node tests of the package `onnx` {version} on static shapes: models of one operation, or of the
operations that stand for it, of opset {oldest} to {newest}. Inputs that shapes depend on, as those of Reshape, are
constants of the models. {passes} of {cases} cases give the numbers of the tests; the others are refused, each in one
line. `python test/support/onnx_nodes.py` writes this page.

## Operations that pass

Every case of these passes.

{all}

## Operations of which some cases are refused

| operation | passes | refused because |
| --- | --- | --- |
{some}

## Operations that are refused

| operation | cases | because |
| --- | --- | --- |
{none}
"""


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        case: its name.
        operation: that it is about.
        word: PASSES, REFUSED, or what must not happen.
        line: what patc, or the comparison, said.
    """

    case: str
    operation: str
    word: str
    line: str = ""


def load_cases() -> list[Any]:
    """Return the cases of the opsets that patc takes, those of newer ones that the newest of these has as well among
    them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test import loader

        cases = loader.load_model_tests(kind="node")
    return [case for case in cases if _opset(case) >= OLDEST and (_opset(case) <= NEWEST or _age(case))]


def _age(case: Any) -> bool:
    """Take a case for one of the newest opset that patc takes, if it is valid there."""
    import onnx

    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    for opset in model.opset_import:
        opset.version = NEWEST if opset.domain in ("", "ai.onnx") else opset.version
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    case.model.CopyFrom(model)
    return True


def _opset(case: Any) -> int:
    return max((opset.version for opset in case.model.opset_import if opset.domain in ("", "ai.onnx")), default=NEWEST)


def _operation(case: Any, known: set[str]) -> str:
    """Return the operation that a case is about: cases in the place of one that is a function have others."""
    kinds = [node.op_type for node in case.model.graph.node]
    if len(kinds) == 1:
        return str(kinds[0])
    words = case.name.removeprefix("test_").split("_")
    for count in range(len(words), 0, -1):
        name = "".join(words[:count]).lower()
        if name in known:
            return next(kind for kind in _operation_names() if kind.lower() == name)
    return str(kinds[-1])


def _operation_names() -> list[str]:
    import onnx

    return sorted({schema.name for schema in onnx.defs.get_all_schemas()})


def run_case(case: Any) -> Outcome:
    """Compile a case and compare its numbers."""
    import onnx

    operation = _operation(case, {name.lower() for name in _operation_names()})
    model, inputs, wanted = make_static(case)
    names = [value.name for value in model.graph.input]
    arrays = {name: value for name, value in zip(names, inputs, strict=True) if isinstance(value, np.ndarray)}
    shapes = {name: array.shape for name, array in arrays.items() if array.size}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _FILE
        onnx.save(model, path)
        try:
            found = patc.compile(path, shapes, threads=1)(*inputs)
        except patc.PatcError as error:
            return Outcome(case.name, operation, REFUSED, str(error).replace(f"{path}: ", "").replace(f"{path}", _FILE))
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            return Outcome(case.name, operation, "internal error", f"{type(error).__name__}: {error} ({where})")
    results = found if isinstance(found, tuple) else (found,)
    bound = 5e-4 if case.name == _FOUR_DIGITS else NUMERICS["f32"].error_bound
    differences = [describe_difference(*pair, bound) for pair in zip(results, wanted, strict=True)]
    line = "; ".join(filter(None, differences))
    return Outcome(case.name, operation, "wrong" if line else PASSES, line)


def make_static(case: Any) -> tuple[Any, list[Any], list[Any]]:
    """Return model, inputs and outputs of a case, where inputs that shapes depend on are constants of the model."""
    import onnx

    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    inputs, wanted = (list(map(_plain, part)) for part in case.data_sets[0])
    needed = {
        node.input[place]
        for node in model.graph.node
        for place in VALUES.get(node.op_type, ())
        if place < len(node.input)
    }
    given = list(zip(list(model.graph.input), inputs, strict=True))
    del model.graph.input[:]
    for value, array in given:
        if value.name in needed and isinstance(array, (np.ndarray, np.generic)):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), value.name))
        else:
            model.graph.input.append(value)
    arrays = [
        array if isinstance(array, list) else np.asarray(array) for value, array in given if value.name not in needed
    ]
    return model, arrays, wanted


def _plain(value: Any) -> Any:
    """Return a tensor, as which cases give what numpy has no elements for, as an array."""
    import onnx

    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def describe_difference(found: Any, wanted: Any, bound: float) -> str:
    """Return how an output differs from what it should be, or ""."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
        return f"expected {wanted.dtype} {wanted.shape}, got {found.dtype} {found.shape}"
    if wanted.dtype.kind != "f" and wanted.dtype.name != "bfloat16":
        different = int((found != wanted).sum())
        return f"{different} of {wanted.size} integers differ" if different else ""
    one, other = found.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True) or not np.isfinite(one[finite]).all():
        return "NaN or infinities elsewhere"
    bound = NUMERICS["f16"].error_bound if wanted.dtype.itemsize == 2 else bound
    error, largest = np.abs(one - other)[finite].max(initial=0), np.abs(other[finite]).max(initial=0)
    return f"error {error / largest if largest else np.inf:.1e}" if error > bound * largest else ""


def run_cases(cases: Sequence[Any], workers: int = 1) -> list[Outcome]:
    """Run cases in processes of their own: one that crashes takes a case with it, and no more."""
    context = multiprocessing.get_context("fork")
    pending = [cases[start::workers] for start in range(workers)]
    with multiprocessing.pool.ThreadPool(workers) as pool:
        return [outcome for part in pool.imap(lambda part: list(_run_part(context, part)), pending) for outcome in part]


def _run_part(context: Any, cases: Sequence[Any]) -> Iterator[Outcome]:
    done = 0
    while done < len(cases):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(sender, cases[done : done + 50]))
        process.start()
        sender.close()
        before = done
        try:
            while True:
                yield receiver.recv()
                done += 1
        except EOFError:
            process.join()
        if process.exitcode:
            operation = _operation(cases[done], {name.lower() for name in _operation_names()})
            yield Outcome(cases[done].name, operation, "crash", f"exit code {process.exitcode}")
            done += 1
        assert done > before


def _work(sender: Any, cases: Sequence[Any]) -> None:
    sys.stdout.flush()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    for case in cases:
        signal.alarm(_SECONDS)
        try:
            sender.send(run_case(case))
        except Exception as error:  # of the comparison
            sender.send(Outcome(case.name, "", "no comparison", repr(error)))
    sender.close()
    os._exit(0)


def write_page(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write a page that lists what became of each operation."""
    import onnx

    by_operation: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.operation.lower()):
        by_operation.setdefault(outcome.operation, []).append(outcome)
    passing = {name: [o.word for o in found].count(PASSES) for name, found in by_operation.items()}
    whole = [f"{name} ({len(found)})" for name, found in by_operation.items() if passing[name] == len(found)]
    some = [
        f"| {name} | {passing[name]} of {len(found)} | {_reasons(found)} |"
        for name, found in by_operation.items()
        if 0 < passing[name] < len(found)
    ]
    none = [
        f"| {name} | {len(found)} | {_reasons(found)} |" for name, found in by_operation.items() if not passing[name]
    ]
    texts = {"all": ", ".join(whole), "some": "\n".join(some), "none": "\n".join(none)}
    numbers = {"passes": sum(passing.values()), "cases": len(outcomes), "oldest": OLDEST, "newest": NEWEST}
    path.write_text(_TEXT.format(version=onnx.__version__, **texts, **numbers))


def _reasons(outcomes: Sequence[Outcome]) -> str:
    """Return why cases do not pass, each reason once, without the names of a case."""
    lines = []
    for outcome in outcomes:
        if outcome.word != PASSES:
            line = outcome.line if outcome.word == REFUSED else outcome.word
            for pattern, text in (
                (r"^\S+: ", ""),
                (r"; give them as .*", ""),
                (r" \([^()]*\)", ""),
                (r"'[^']*',? ?", ""),
            ):
                line = re.sub(pattern, text, line)
            lines.append(line.replace(", ".join(ELEMENT_TYPES), "...").replace("|", "/")[:160])
    return "; ".join(sorted(set(lines)))


def main() -> int:
    """Run all cases, or those whose names have a word, and return 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("word", nargs="?", default="", help="cases with this in their names; the page is not written")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write every outcome here")
    args = parser.parse_args()
    outcomes = run_cases([case for case in load_cases() if args.word in case.name], args.workers)
    for outcome in outcomes:
        if outcome.word not in (PASSES, REFUSED):
            print(f"{outcome.word}: {outcome.case}: {outcome.line}")
    if args.json:
        args.json.write_text("\n".join(json.dumps(asdict(outcome)) for outcome in outcomes))
    if not args.word:
        write_page(outcomes, PAGE)
    return int(any(outcome.word not in (PASSES, REFUSED) for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
