"""Pass options, the pass registry, pipeline texts, and what running a pipeline guarantees."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch_mlir import ir

from patc.context import make_context
from patc.diagnostics import PatcError
from patc.instruments import Instrument, PrintAfter, Progress, Timing
from patc.ir_diagnostics import IRError, verifier_errors
from patc.passes.base import Pass, PassState, split_options
from patc.passes.registry import PASS_NAMES, find_pass
from patc.pipeline import NAMED_PIPELINES, Pipeline
from patc.upstream import COMMON_PASSES, UpstreamPass

TWO_SUMS = """
func.func @two_sums(%x: f32) -> (f32, f32) {
  %a = arith.addf %x, %x : f32
  %b = arith.addf %x, %x : f32
  return %a, %b : f32, f32
}
"""


@dataclass(frozen=True)
class Sample(Pass):
    """Do nothing with every kind of option. The rest is no summary."""

    name: ClassVar[str] = "sample"

    count: int = field(default=8, metadata={"help": "how many", "minimum": 1, "maximum": 64})
    scale: float = field(default=0.5, metadata={"minimum": 0.0})
    fast: bool = False
    split_by: str = field(default="rows", metadata={"choices": ("rows", "filters")})
    label: str = ""
    masks: tuple[int, ...] = field(default=(), metadata={"maximum": 511})
    limit: int | None = None

    def run(self, module: ir.Module, state: PassState) -> None:
        state.remark(module.operation, f"count is {self.count}")


@dataclass(frozen=True)
class Break(Pass):
    """Give every function a type that its body does not have."""

    name: ClassVar[str] = "break"

    def run(self, module: ir.Module, state: PassState) -> None:
        for function in module.body.operations:
            function.attributes["function_type"] = ir.TypeAttr.parse("() -> ()")


@dataclass(frozen=True)
class Reject(Pass):
    """Fail in one of the ways a pass can."""

    name: ClassVar[str] = "reject"

    how: str = "raise"

    def run(self, module: ir.Module, state: PassState) -> None:
        location = module.body.operations[0].location
        if self.how == "raise":
            raise PatcError("'func.func' op expected nothing, got something", location)
        if self.how == "emit":
            location.emit_error("emitted by a pass")
        if self.how == "mlir":
            ir.Type.parse("no type")


@pytest.fixture
def module() -> ir.Module:
    return ir.Module.parse(TWO_SUMS, make_context())


# Options


def test_only_options_that_differ_from_their_defaults_print() -> None:
    assert str(Sample()) == "sample"
    assert str(Sample(count=8, split_by="filters", masks=(27, 54))) == "sample{split-by=filters masks=27,54}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Sample()),
        ("count=3 fast", Sample(count=3, fast=True)),
        ("fast=false scale=1e-3", Sample(scale=1e-3)),
        ("scale=2", Sample(scale=2.0)),
        ("label={two words} masks={}", Sample(label="two words")),
        ("label='a=b' masks={1,2}", Sample(label="a=b", masks=(1, 2))),
        ("split_by=filters limit=4", Sample(split_by="filters", limit=4)),
    ],
)
def test_option_text_parses(text: str, expected: Sample) -> None:
    assert Sample.from_text(text) == expected


@given(
    count=st.integers(1, 64),
    scale=st.floats(0, 1e30),
    fast=st.booleans(),
    label=st.text("ab =,;-x", max_size=6),
    masks=st.lists(st.integers(-9, 511), max_size=4),
)
def test_printed_options_parse_back(count: int, scale: float, fast: bool, label: str, masks: list[int]) -> None:
    item = Sample(count=count, scale=scale, fast=fast, label=label, masks=tuple(masks))
    assert Sample.from_text(str(item).removeprefix("sample").removeprefix("{").removesuffix("}")) == item


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count=0", "pass 'sample' expected option 'count' to be an integer from 1 to 64, got 0"),
        ("count=65", "pass 'sample' expected option 'count' to be an integer from 1 to 64, got 65"),
        ("count=two", "pass 'sample' expected option 'count' to be an integer from 1 to 64, got 'two'"),
        ("scale=-1", "pass 'sample' expected option 'scale' to be a number of 0.0 or more, got -1.0"),
        ("fast=maybe", "pass 'sample' expected option 'fast' to be true or false, got 'maybe'"),
        (
            "split-by=columns",
            "pass 'sample' expected option 'split-by' to be one of rows, filters, got 'columns'",
        ),
        ("masks=1,512", "pass 'sample' expected option 'masks' to be integers of 511 or less, got (1, 512)"),
        ("masks=1,x", "pass 'sample' expected option 'masks' to be integers of 511 or less, got '1,x'"),
        ("cuont=1", "pass 'sample' has no option 'cuont'; did you mean 'count'?"),
        (
            "zzz=1",
            "pass 'sample' has no option 'zzz'; it has count, scale, fast, split-by, label, masks, limit",
        ),
        ("label={a", "expected } to close the options, found the end of 'label={a'"),
    ],
)
def test_bad_option_text_is_an_error(text: str, message: str) -> None:
    with pytest.raises(PatcError) as error:
        Sample.from_text(text)
    assert str(error.value) == message


@pytest.mark.parametrize("values", [{"count": True}, {"count": 1.0}, {"count": None}, {"masks": ("1",)}])
def test_option_values_of_the_wrong_type_are_an_error(values: dict[str, object]) -> None:
    with pytest.raises(PatcError, match="pass 'sample' expected option"):
        Sample(**values)  # type: ignore[arg-type]


def test_lists_and_integers_become_tuples_and_floats() -> None:
    assert Sample.from_options({"masks": [1, 2], "scale": 1, "split-by": "rows"}) == Sample(masks=(1, 2), scale=1.0)


def test_a_pass_without_options_says_so() -> None:
    with pytest.raises(PatcError, match="pass 'break' has no option 'a'; it has no options"):
        Break.from_text("a=1")


def test_a_field_that_has_no_text_form_is_a_programming_error() -> None:
    @dataclass(frozen=True)
    class Wrong(Pass):
        name: ClassVar[str] = "wrong"
        table: dict = field(default_factory=dict)

    with pytest.raises(TypeError, match="option 'table' must have a default"):
        Wrong()


def test_options_split_outside_braces_and_quotes() -> None:
    assert split_options("a b={c {d e}} f='g h'  i=j=k") == [
        ("a", ""),
        ("b", "c {d e}"),
        ("f", "g h"),
        ("i", "j=k"),
    ]


def test_the_summary_is_the_first_sentence() -> None:
    assert Sample.summary() == "Do nothing with every kind of option."


# The registry


@pytest.mark.parametrize("name", PASS_NAMES)
def test_every_registered_pass_follows_the_conventions(name: str) -> None:
    kind = find_pass(name)
    assert kind.name == name
    assert kind.__module__ == f"patc.passes.{name.replace('-', '_')}"
    assert kind.from_text("") == kind()
    assert str(kind()) == name
    assert kind.summary() != "."
    assert all(option.help for option in kind.options())


def test_naming_the_passes_imports_neither_them_nor_torch() -> None:
    code = (
        "import sys, patc.passes.registry\n"
        "heavy = [name for name in sys.modules if name.split('.')[0] in ('torch', 'torch_mlir', 'numpy')]\n"
        "passes = [name for name in sys.modules if name.startswith('patc.passes.')]\n"
        "sys.exit(str(heavy) if heavy or passes != ['patc.passes.registry'] else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_own_pass_names_the_nearest() -> None:
    with pytest.raises(PatcError, match="unknown pass 'pattern-reoder'; did you mean 'pattern-reorder'"):
        find_pass("pattern-reoder")


@pytest.mark.parametrize("name", COMMON_PASSES)
def test_common_upstream_passes_are_what_the_bindings_know(name: str) -> None:
    UpstreamPass(name).nested().check()


# Texts


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("", "builtin.module()"),
        ("builtin.module()", "builtin.module()"),
        ("cse", "builtin.module(cse)"),
        (" builtin.module ( cse , canonicalize ) ", "builtin.module(cse,canonicalize)"),
        ("pattern-schedule{threads=2  target=host}", "builtin.module(pattern-schedule{target=host threads=2})"),
        (
            "canonicalize{ max-iterations=3\n  top-down=false }",
            "builtin.module(canonicalize{max-iterations=3 top-down=false})",
        ),
        (
            "func.func(cse),func.func(scf.for(canonicalize)),any(cse)",
            "builtin.module(func.func(cse,scf.for(canonicalize)),any(cse))",
        ),
        (
            "inline{op-pipelines={func.func(cse),llvm.func(cse)}}",
            "builtin.module(inline{op-pipelines={func.func(cse),llvm.func(cse)}})",
        ),
        (
            "builtin.module(canonicalize,pattern-raise,func.func(convert-vector-to-scf),pattern-encode,cse)",
            "builtin.module(canonicalize,pattern-raise,func.func(convert-vector-to-scf),pattern-encode,cse)",
        ),
    ],
)
def test_pipelines_parse_and_print(text: str, printed: str) -> None:
    pipeline = Pipeline.parse(text)
    assert str(pipeline) == printed
    assert Pipeline.parse(printed) == pipeline


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "builtin.module(cse",
            "expected ')' at column 19 of the pipeline 'builtin.module(cse', found its end",
        ),
        ("builtin.module(cse))", "expected the end of the pipeline at column 20 "),
        ("cse{\n", "expected '}' at column 6 of the pipeline 'cse{ ', found its end"),
        ("cse,,cse", "expected the name of a pass at column 5 of the pipeline 'cse,,cse', found ','"),
        ("cse,", "expected the name of a pass at column 5 of the pipeline 'cse,', found its end"),
        ("cse canonicalize", "expected the end of the pipeline at column 5 "),
        ("cse{a={}", "expected '}' at column 9 of the pipeline"),
        ("cse{a='}", "expected ' at column 9 of the pipeline"),
        ("func.func(pattern-raise)", "pass 'pattern-raise' expected to run on builtin.module, got func.func"),
        ("func.func(one-shot-bufferize)", "pass 'one-shot-bufferize' expected to run on builtin.module"),
        ("torch-decompose-complex-ops", "pass 'torch-decompose-complex-ops' expected to run on func.func"),
        ("pattern-rais", "unknown pass 'pattern-rais'; did you mean 'pattern-raise'?"),
        ("canonicalizee", "unknown pass 'canonicalizee'; did you mean 'canonicalize'?"),
        ("qqqq", "unknown pass 'qqqq'"),
        ("canonicalize{no-such=1}", "pass 'canonicalize' has no option 'no-such'"),
        (
            "canonicalize{max-iterations=many}",
            "pass 'canonicalize' expected legal options, got 'max-iterations=many'",
        ),
        (
            "pattern-schedule{threads=0}",
            "pass 'pattern-schedule' expected option 'threads' to be an integer from 1 to 1024, got 0",
        ),
    ],
)
def test_bad_pipelines_are_an_error(text: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PatcError) as error:
        Pipeline.parse(text)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    # LLVM prints what is wrong with a value, and nothing of the process is changed to keep it from that.
    assert (capfd.readouterr().err == "") == ("many" not in text)


def test_add_takes_names_with_options_texts_and_passes() -> None:
    pipeline = (
        Pipeline()
        .add("canonicalize", max_iterations=3, top_down=False, disable_patterns=["a", "b"])
        .add("pattern-schedule", threads=2)
        .add("func.func(convert-vector-to-scf)")
        .add("cse,sccp")
        .add(Sample(count=2))
    )
    assert str(pipeline) == (
        "builtin.module(canonicalize{max-iterations=3 top-down=false disable-patterns=a,b},"
        "pattern-schedule{threads=2},func.func(convert-vector-to-scf),cse,sccp,sample{count=2})"
    )


def test_option_values_with_blanks_keep_together() -> None:
    pipeline = Pipeline().add("inline", default_pipeline="canonicalize{max-iterations=2 top-down=true}")
    assert str(pipeline) == "builtin.module(inline{default-pipeline={canonicalize{max-iterations=2 top-down=true}}})"


def test_add_rejects_what_does_not_exist() -> None:
    with pytest.raises(PatcError, match="unknown pass 'canonicalise'; did you mean 'canonicalize'"):
        Pipeline().add("canonicalise")
    with pytest.raises(PatcError, match="pass 'cse' has no option 'threads'"):
        Pipeline().add("cse", threads=2)
    with pytest.raises(PatcError, match="has no option 'thread'; did you mean 'threads'"):
        Pipeline().add("pattern-schedule", thread=2)


def test_pipelines_with_the_same_passes_are_equal() -> None:
    assert Pipeline.parse("cse,pattern-schedule{threads=2}") == Pipeline.parse(
        "builtin.module(cse, pattern-schedule{threads=2 target=})"
    )
    assert Pipeline.parse("cse") != Pipeline.parse("func.func(cse)")
    assert Pipeline.parse("cse") != "builtin.module(cse)"
    assert repr(Pipeline.parse("cse")) == "<Pipeline builtin.module(cse)>"


# Named pipelines and stages


def test_named_pipelines_give_options_to_the_passes_that_have_them() -> None:
    pipeline = Pipeline.named("host", threads=2, target="x86-64-v3")
    assert tuple(item.name for item in pipeline.passes) == NAMED_PIPELINES["host"]
    assert "pattern-schedule{target=x86-64-v3 threads=2}" in str(pipeline)
    assert Pipeline.parse(str(pipeline)) == pipeline


def test_named_pipelines_reject_unknown_names_and_options() -> None:
    with pytest.raises(PatcError, match=r"expected the name of a pipeline, one of host, neon.*, got 'hots'"):
        Pipeline.named("hots")
    with pytest.raises(PatcError, match="pipeline 'host' has no option 'thread'; did you mean 'threads'"):
        Pipeline.named("host", thread=2)


def test_neon_is_the_host_pipeline_for_aarch64() -> None:
    neon, host = Pipeline.named("neon"), Pipeline.named("host", target="aarch64-linux")
    assert neon == host
    chosen = Pipeline.named("neon", target="aarch64-android:cortex-x1", dtype="f16")
    assert "pattern-demote{dtype=f16}" in str(chosen)
    assert "pattern-layout{target=aarch64-android:cortex-x1}" in str(chosen)
    assert Pipeline.parse(str(chosen)) == chosen


def test_until_stops_after_a_stage() -> None:
    host = Pipeline.named("host")
    assert host.stages[:5] == ("linalg", "promote", "fold-batch-norm", "raise", "outline")
    assert str(host.until("raise")) == "builtin.module(pattern-promote,pattern-fold-batch-norm,pattern-raise)"
    assert host.until("linalg") == Pipeline()
    assert host.until(host.stages[-1]) == host
    with pytest.raises(
        PatcError, match=r"expected a stage, one of linalg, promote, fold-batch-norm, raise, .*, got 'x'"
    ):
        host.until("x")


# Running


def test_own_and_upstream_passes_run_in_order(module: ir.Module) -> None:
    state = Pipeline().add("cse").add(Sample(count=3)).add("func.func(canonicalize)").run(module)
    assert str(module).count("arith.addf") == 1
    assert [diagnostic.message for diagnostic in state.diagnostics] == ["count is 3"]


def test_the_given_state_is_used(module: ir.Module) -> None:
    state = PassState()
    assert Pipeline([Sample()]).run(module, state) is state
    assert len(state.diagnostics) == 1


def test_an_invalid_module_is_rejected_before_the_first_pass(module: ir.Module) -> None:
    with module.context:
        Break().run(module, PassState())
    with pytest.raises(IRError, match="entry block"):
        Pipeline().add("cse").run(module)


def test_a_pass_that_makes_invalid_ir_is_named(module: ir.Module) -> None:
    with pytest.raises(IRError, match=r"pass 'break' made invalid IR: .*entry block"):
        Pipeline([Break(), Sample()]).run(module)


def test_errors_of_own_passes_keep_their_place(module: ir.Module) -> None:
    with pytest.raises(PatcError) as error:
        Pipeline([Reject()]).run(module)
    assert str(error.value) == "-:2:1: 'func.func' op expected nothing, got something"


def test_errors_that_a_pass_emits_end_the_run(module: ir.Module) -> None:
    with pytest.raises(IRError, match="emitted by a pass"):
        Pipeline([Reject(how="emit")]).run(module)


def test_mlir_errors_inside_a_pass_name_it(module: ir.Module) -> None:
    with pytest.raises(IRError, match=r"\(in pass 'reject'\)"):
        Pipeline([Reject(how="mlir")]).run(module)


def test_errors_of_upstream_passes_name_the_pass_and_the_place() -> None:
    text = """
      func.func @f(%x: tensor<4xf32>) -> tensor<4xf32> {
        %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<4xf32>) -> tensor<4xf32>
        return %y : tensor<4xf32>
      }"""
    with pytest.raises(IRError) as error:
        Pipeline().add("one-shot-bufferize").run(ir.Module.parse(text, make_context()))
    assert str(error.value) == "-:3:14: op was not bufferized (in pass 'one-shot-bufferize')"
    assert [diagnostic.severity for diagnostic in error.value.diagnostics] == ["error"]


def test_a_verifier_that_fails_itself_is_an_error() -> None:
    failed = r"an op whose verifier failed \(IndexError\('no such operand'\)\)"
    with pytest.raises(IRError, match=failed), verifier_errors():
        raise IndexError("no such operand")


# Instruments


@dataclass
class Recorder(Instrument):
    events: list[tuple[object, ...]] = field(default_factory=list)

    def before(self, name: str, index: int, total: int) -> None:
        self.events.append(("before", name, index, total))

    def after(self, name: str, module: ir.Module, seconds: float) -> None:
        self.events.append(("after", name, str(module).count("arith.addf")))


def test_instruments_hear_of_every_pass(module: ir.Module) -> None:
    recorder = Recorder()
    Pipeline().add(Sample()).add("func.func(cse)").run(module, instruments=[recorder])
    assert recorder.events == [
        ("before", "sample", 0, 2),
        ("after", "sample", 2),
        ("before", "cse", 1, 2),
        ("after", "cse", 1),
    ]


def test_print_after_prints_the_named_passes(module: ir.Module) -> None:
    some, every = io.StringIO(), io.StringIO()
    pipeline = Pipeline().add("cse").add(Sample())
    pipeline.run(module, instruments=[PrintAfter(some, ["sample"]), PrintAfter(every)])
    assert some.getvalue().startswith("// -----// IR Dump After sample //----- //\nmodule {")
    assert "After cse" not in some.getvalue()
    assert "After cse" in every.getvalue()


def test_timing_reports_each_pass_and_the_total(module: ir.Module) -> None:
    timing = Timing()
    Pipeline().add("cse").add("canonicalize").run(module, instruments=[timing])
    assert [name for name, _ in timing.seconds] == ["cse", "canonicalize"]
    assert timing.report().splitlines()[-1].endswith("(100.0%)  Total")


def test_timing_of_no_pass_reports_nothing() -> None:
    assert "0.0000" in Timing().report()


def test_progress_calls_back_before_each_pass(module: ir.Module) -> None:
    calls: list[tuple[str, int, int]] = []
    Pipeline.parse("cse,canonicalize").run(module, instruments=[Progress(lambda *call: calls.append(call))])
    assert calls == [("cse", 0, 2), ("canonicalize", 1, 2)]
