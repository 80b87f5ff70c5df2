"""`patc report`: data, page and terminal."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from repository import ROOT
from torch import nn

import patc
from patc import pruning
from patc.diagnostics import PatcError
from patc.dialects.schedules import Alternative, Explanation, KeptKernels, Schedule
from patc.explain.advice import advise
from patc.explain.build import make_report
from patc.explain.compare import pair_layers
from patc.explain.report import Net, Pair, Report, ReportedLayer
from patc.explain.saved import read_report
from patc.layers import LayerReport
from patc.tools.patc import main
from patc.tools.report import describe_change
from patc.tools.report_page import ROW, draw_graph, render

KEPT = KeptKernels((1, 3, 3), (27, 54), (100, 28), (0, 64, 0, 0, 0, 0, 0, 0, 0, 0), ("0f", "80"))
DIRECT, WINOGRAD = (Schedule(name) for name in ("pattern-direct", "winograd"))


class Small(nn.Module):
    """A pruned, a dense and an outlined layer, and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.sparse = nn.Conv2d(16, 16, 3, padding=1)
        self.dense = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.sparse(x))
        return torch.cumsum(torch.relu(self.dense(y)) + y, 3)


@pytest.fixture(scope="module")
def compiled() -> patc.CompiledModel:
    torch.manual_seed(0)
    model = Small().eval()
    dense = model.dense.weight.data.clone()
    pruning.prune_(model, pruning.PatternSpec(connectivity=1.0))
    model.sparse.weight.data[:, ::2] = 0.0
    model.dense.weight.data = dense
    return patc.compile(model, (torch.zeros(1, 16, 12, 12),), threads=1)


@pytest.fixture(scope="module")
def report(compiled: patc.CompiledModel) -> Report:
    return make_report([("one.patc", compiled), ("<b>two</b>.patc", compiled)], peaks=True, measure=True)


def layer(**changes: Any) -> LayerReport:
    ways = (Alternative(DIRECT, 1000, 1.0, kept_cycles=800), Alternative(WINOGRAD, 2000, 2.0))
    given = LayerReport(
        name="conv", source="net.py:7", op="sparse_conv2d", shape=(1, 64, 7, 7), kernel=(3, 3), strides=(1, 1),
        schedule=DIRECT, explanation=Explanation("multiply-adds", 9, ways), weights=4000, kept_weights=500, flops=1,
        moved_bytes=1, predicted_cycles=1000, reads=(-1,), kernels=KEPT,
    )  # fmt: skip
    return replace(given, **changes)


def reported(given: LayerReport, **changes: Any) -> ReportedLayer:
    return replace(ReportedLayer(given, 1000.0, 1e-3, None, 1.0, "", None, "", None), **changes)


def net(*layers: ReportedLayer) -> Net:
    shares = [replace(item, share=1 / len(layers)) for item in layers]
    return Net((), (), 0, 0, 0, (), tuple(shares), 1000.0 * len(layers), 1e-3 * len(layers), None, 0.0, ())


# Data ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [False, True])
def test_json_is_what_the_schema_says(measure: bool, compiled: patc.CompiledModel, report: Report) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "docs/report.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    found = report if measure else make_report([("one.patc", compiled)])
    jsonschema.validate(json.loads(json.dumps(found.to_json())), schema)


def test_data_is_read_again(compiled: patc.CompiledModel, tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    first = make_report([("one.patc", compiled)])
    path.write_text(json.dumps(first.to_json()))
    assert read_report(path) == first
    both = make_report([("before.json", read_report(path)), ("two.patc", compiled)])
    assert [model.name for model in both.models] == ["one.patc (before.json)", "two.patc"]
    assert both.pairs and not any(pair.cycles for pair in both.pairs)
    path.write_text(json.dumps(both.to_json()))
    with pytest.raises(PatcError, match="expected a report of one model, got one of 2"):
        make_report([("both.json", read_report(path))])
    other = replace(first, machine=replace(first.machine, cpu="another"))
    assert make_report([("a.json", other), ("b", compiled)]).models[0].name == "one.patc (a.json, on another)"


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (["format"], 2, "expected format 1"),
        (["models", 0, "threads"], "two", 'models[0].threads: expected an integer from .*, found "two"'),
        (["models", 0, "nets", 0, "layers", 0, "layer", "reads"], [3], "expected it to read from layers before it"),
        (["models", 0, "nets", 0, "inputs", 0, "dtype"], "f9", "expected a tensor of float64, "),
        (["models", 0, "nets", 0, "cycles"], None, "models[0].nets[0].cycles: expected a number, found null"),
        (["load"], [[[]]], "load: expected a number"),
        (["version"], "\x1b[1m", "version: expected a line of at most"),
    ],
)
def test_other_data_is_refused_in_one_line(
    place: list[Any], value: Any, words: str, compiled: patc.CompiledModel, tmp_path: Path
) -> None:
    data = json.loads(json.dumps(make_report([("one.patc", compiled)]).to_json()))
    part = data
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(PatcError, match=words.replace("[", r"\[")) as caught:
        read_report(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_times_limits_and_shares(report: Report) -> None:
    (first, second) = report.models
    (found,) = first.nets
    assert [item.layer.op for item in found.layers if item.layer.kernels] == ["sparse_conv2d"]
    assert all(item.seconds and item.modelled_seconds and item.limit_seconds for item in found.layers)
    assert sum(item.share for item in found.layers) == pytest.approx(1.0)
    assert found.seconds == pytest.approx(sum(item.seconds or 0 for item in found.layers))
    assert 0 < found.generic_share < 1
    assert {item.limit_bound for item in found.layers} <= {"FMA", "L2", "L3", "memory"}
    assert second.nets[0].kept_weights == found.kept_weights < found.weights


def test_layers_of_two_nets_go_together_by_name() -> None:
    one, two, three = (reported(layer(name=name)) for name in ("a", "b", "c"))
    dense = reported(layer(name="a", op="conv2d"), cycles=1500.0, modelled_seconds=2e-3)
    pairs = pair_layers(net(one, two), net(three, dense))
    assert [(pair.first, pair.second, pair.cycles) for pair in pairs] == [
        (0, 1, 500.0),
        (1, None, -1000.0),
        (None, 0, 1000.0),
    ]
    assert pairs[0].seconds == pytest.approx(1e-3)


def test_layers_that_one_net_has_alone(report: Report) -> None:
    pairs = (Pair(0, None, -900.0, -3e-7), Pair(None, 1, 0.4, 2e-10), Pair(0, 0, 0.4, 2e-10))
    assert [describe_change(pair) for pair in pairs] == ["-300 ns", "+0.2 ns", "same"]
    assert ">0 ns<" not in render(replace(report, pairs=pairs))


# Advice -------------------------------------------------------------------------------------------


def advice_on(item: ReportedLayer, threads: int = 1, features: tuple[str, ...] = ()) -> dict[str, tuple[float, str]]:
    return {advice.kind: (advice.saves_share, advice.text) for advice in advise(net(item), threads, features)}


def test_fewer_kernels_save_what_kernels_cost() -> None:
    share, text = advice_on(reported(layer()))["prune-further"]
    assert share == pytest.approx(0.25 * 0.8)
    assert text == "A quarter fewer kept kernels, 8.0x to 10.7x."


def test_layers_of_1x1_are_pruned_by_blocks() -> None:
    ways = (Alternative(Schedule("dense-direct"), 6800, 1.0),)
    given = layer(
        op="conv2d", kernel=(1, 1), schedule=ways[0].schedule, explanation=Explanation("memory", 9, ways), kernels=None
    )
    share, text = advice_on(reported(given))["prune"]
    assert share == pytest.approx(1 - 1 / 6.8)
    assert text == "Not pruned. Estimated for blocks (--scheme block --layers conv) of 8x in all."


@pytest.mark.parametrize("model", ["net.onnx", "net.mlir", "net.patc"])
def test_files_that_cannot_be_pruned_have_no_options_for_it(model: str) -> None:
    ways = (Alternative(Schedule("dense-direct"), 6800, 1.0),)
    given = layer(op="conv2d", kernel=(1, 1), schedule=ways[0].schedule, kernels=None)
    given = replace(given, explanation=Explanation("memory", 9, ways))
    together, *each = advise(net(reported(given), reported(given)), 1, (), model)
    what = "model and compile" if model.endswith(".patc") else "module and export"
    assert together.text.endswith(f"together. Prune the {what} it again.")
    assert {advice.text for advice in each} == {"Not pruned. Estimated for blocks of weights of 8x in all."}
    (alone,) = advise(net(reported(given)), 1, (), model)
    assert alone.text.endswith(f"in all. Prune the {what} it again.")


def test_strided_layers_of_1x1_whose_input_is_not_split_are_not_advised_blocks() -> None:
    ways = (Alternative(Schedule("dense-direct"), 6800, 1.0),)
    given = layer(op="conv2d", kernel=(1, 1), strides=(2, 2), kernels=None, schedule=ways[0].schedule)
    assert "prune" not in advice_on(reported(replace(given, explanation=Explanation("memory", 9, ways))))
    split = (*ways, Alternative(Schedule("implicit-gemm"), 7000, 1.1))
    assert "prune" in advice_on(reported(replace(given, explanation=Explanation("memory", 9, split))))


def test_linear_layers_are_pruned_by_blocks_and_all_layers_together() -> None:
    ways = (Alternative(Schedule("gemm"), 5500, 1.0), Alternative(Schedule("gemv"), 8000, 1.5))
    given = reported(layer(op="linear", kernel=(1, 1), shape=(64, 192), kernels=None, schedule=ways[0].schedule))
    given = replace(given, layer=replace(given.layer, explanation=Explanation("memory", 9, ways)))
    one, other, both = sorted(advise(net(given, given), 1, ()), key=lambda advice: advice.saves_share)
    assert one.saves_share == other.saves_share == pytest.approx((1 - 1 / 4.4) / 2) and "blocks" in one.text
    assert both.text == "All of what is said below of pruning 2 layers, together."
    assert both.layer is None and both.saves_share == pytest.approx(2 * one.saves_share)


def test_dense_algorithms_say_from_where_patterns_win() -> None:
    ways = (Alternative(WINOGRAD, 600, 1.0), Alternative(DIRECT, 1000, 1.7, kept_cycles=800))
    given = layer(schedule=WINOGRAD, explanation=Explanation("multiply-adds", 9, ways))
    share, text = advice_on(reported(given))["prune-further"]
    assert text == "winograd computes it dense: patterns win from 16.0x on, it has 8.0x. Estimated for 32.0x."
    assert share == pytest.approx(1 - (200 + 200) / 600)


def test_dense_layers_may_be_pruned() -> None:
    ways = (Alternative(Schedule("dense-direct"), 6800, 1.0),)
    given = layer(op="conv2d", schedule=Schedule("dense-direct"), kernels=None, kept_weights=36864, weights=36864)
    given = replace(given, explanation=Explanation("multiply-adds", 9, ways))
    share, text = advice_on(reported(given))["prune"]
    assert 0.8 < share < 0.9 and text.startswith("Not pruned.")
    given = replace(given, remarks=("stays dense: 12% of the kernels fit none of 16 patterns",))
    assert "Its zeros are not used: 12% of the kernels fit" in advice_on(reported(given))["prune"][1]
    assert "prune" not in advice_on(reported(replace(given, weights=576)))  # depthwise


def test_threads_that_share_badly() -> None:
    explanation = replace(layer().explanation, sharing=1.25)  # type: ignore[type-var]
    share, text = advice_on(reported(layer(explanation=explanation)), threads=2)["threads"]
    assert share == pytest.approx(0.2) and text.startswith("2 threads share 7x7 badly: 1.25 of the time")


def test_other_reasons() -> None:
    generic = reported(layer(op="generic", kernels=None), limit_seconds=4e-4, limit_bound="L2", share_of_limit=0.4)
    assert advice_on(generic)["generic"][0] == pytest.approx(0.6)
    far = reported(layer(op="linear", kernels=None, kept_weights=4000, moved_bytes=16100), limit_bound="memory")
    far = replace(far, share_of_limit=0.9)
    assert advice_on(far, features=("avx512fp16",))["f16"][0] == pytest.approx(0.45)
    assert "f16" not in advice_on(far)
    slow = reported(layer(), seconds=2e-3)
    assert advice_on(slow)["measure"][0] == pytest.approx(0.5)


# The page -----------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Checks that elements are closed, and collects what addresses name."""

    VOID = {"meta", "img", "link", "br"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.levels: list[int] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("h1", "h2", "h3", "h4"):
            self.levels.append(int(tag[1]))
        assert tag != "img" or given.get("alt")
        self.ids += [given["id"]] if given.get("id") else []  # type: ignore[list-item]
        self.links += [value for name, value in attrs if name in ("href", "src", "aria-labelledby") and value]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(report: Report) -> None:
    text = render(report)
    page = Page(text)
    assert len({*page.ids}) == len(page.ids)
    inside = {link.removeprefix("#") for link in page.links if not link.startswith("data:image/png;base64,")}
    assert inside <= {*page.ids}
    assert page.levels[0] == 1 and page.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(page.levels, page.levels[1:], strict=False))
    assert "<b>two" not in text and "&lt;b&gt;two" in text
    assert "://" not in text


def test_pages_of_large_nets_are_small(report: Report) -> None:
    (found,) = report.models[1].nets
    sparse = next(item for item in found.layers if item.layer.kernels)
    layers = [
        replace(sparse, share=0.002, layer=replace(sparse.layer, name=f"stage.{number}.conv", reads=(number - 1,)))
        for number in range(500)
    ]
    large = replace(report.models[1], nets=(replace(found, layers=tuple(layers)),))
    assert len(render(replace(report, models=(large,), pairs=()))) < 2 << 20


def test_graphs_have_lanes_for_what_is_read_later() -> None:
    reads = [(-1,), (0,), (0, 1), (2,)]
    graph = draw_graph([reported(layer(reads=some)) for some in reads])
    assert graph.inputs == (0,)
    assert [x for x, _ in graph.dots] == [7, 7, 21, 7, 7]
    assert [y for _, y in graph.dots] == [(row + 0.5) * ROW for row in range(5)]
    assert len(graph.edges) == 5


# The command --------------------------------------------------------------------------------------


def test_the_command_writes_and_prints(
    compiled: patc.CompiledModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, page, data = (str(tmp_path / name) for name in ("net.patc", "net.html", "net.json"))
    compiled.save(model)
    assert main(["report", model, "-o", page, "-o", data]) == 0
    assert Path(page).read_text().startswith("<!doctype html>")
    assert json.loads(Path(data).read_text())["models"][0]["name"] == model
    capfd.readouterr()
    assert main(["report", model, model, "--measure"]) == 0
    text = capfd.readouterr().out
    assert "what would make it faster, estimated" in text and "together: " in text
    assert main(["report", model, "-o", "-"]) == 0
    assert json.loads(capfd.readouterr().out)["format"] == 1


NET = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64)), torch.zeros(1, 64)

def samples():
    return [torch.randn(1, 64) for _ in range(3)]
"""


def test_zeros_are_counted_in_samples(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(NET)
    model, data = f"{tmp_path / 'net.py'}:build", ["--zeros", f"{tmp_path / 'net.py'}:samples", "--threads", "1"]
    assert main(["report", model, *data]) == 0
    text = capfd.readouterr().out
    assert re.search(r"zeros of +weights +inputs +ideal speed +obtained", text)
    assert re.search(r"\n0 +0\.0% +0\.0% +1\.00x +1\.00x\n2 +0\.0% +[45]\d\.\d% +[12]\.\d\dx +1\.\d\dx", text)
    page, found = str(tmp_path / "net.html"), str(tmp_path / "net.json")
    assert main(["report", model, *data, "-o", page, "-o", found]) == 0
    assert "zeros of weights" in Path(page).read_text()
    jsonschema = pytest.importorskip("jsonschema")
    values = json.loads(Path(found).read_text())
    jsonschema.validate(values, json.loads((ROOT / "docs/report.schema.json").read_text()))
    assert values["models"][0]["nets"][0]["layers"][-1]["layer"]["zeros"]["inputs"] > 0.4
    capfd.readouterr()
    for words, message in (
        (["compile", model, *data, "--emit", "mlir@schedule", "-o", str(tmp_path / "a.mlir")], "so, obj, asm, llvm or"),
        (["debug", model, *data], "expected no --zeros: what is debugged is compiled without samples"),
    ):
        assert main(words) == 1 and message in capfd.readouterr().err
    assert main(["compile", model, *data, "--emit", "asm", "-o", str(tmp_path / "a.s")]) == 0
    capfd.readouterr()
    assert main(["report", found, *data[:2]]) == 1
    assert "expected a model to compile together with --zeros" in capfd.readouterr().err


@pytest.mark.parametrize(("name", "message"), [("r.pdf", "file named .html or .json"), ("net.html", "net.html")])
def test_wrong_outputs_are_refused(name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.html").write_text("")
    assert main(["report", str(tmp_path / "net.html"), "-o", str(tmp_path / name)]) == 1
    assert message in capsys.readouterr().err
